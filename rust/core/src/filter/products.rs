//! Products of integers: the approximate scores of a tile of users and panels of items.

use super::Precision;
#[cfg(target_arch = "x86_64")]
use super::amx;
use super::items::{EightBits, Integers, Line, PANEL, Panel};
use super::users::{TILE, UserTile};
use crate::Kernel;
use crate::kernel::Instructions;

/// Writes the approximate scores of the users of a tile with every item of the panels to `out`, row-major
/// (users, panels x [`PANEL`]), in units of each user's scale.
///
/// `eight` holds the panels in 8 bits; for 16 it is not looked at.
///
/// # Panics
/// When `out` has another size, the kernel has no such precision, or the tile or a panel is of another kernel.
pub fn score_panels(
    kernel: Kernel,
    precision: Precision,
    tile: &UserTile,
    panels: &[Panel],
    eight: &[EightBits],
    out: &mut [f32],
) {
    let width = panels.len() * PANEL;
    assert_eq!(out.len(), tile.len() * width);
    assert_eq!(tile.kernel(), kernel, "a tile of another kernel");
    assert!(panels.iter().all(|panel| panel.has_tiles() == kernel.has_tiles()), "panels of another kernel");
    #[cfg(target_arch = "x86_64")]
    if kernel.has_tiles() {
        assert_eq!(precision, Precision::Sixteen);
        // SAFETY: a `Kernel` exists only where its functions can run; those of AMX beside AVX-512.
        unsafe { amx::score(tile, panels, out) };
        return;
    }
    for number in 0..panels.len() {
        let (users, items) = match precision {
            Precision::Eight => (&tile.eight, &eight[number].integers()),
            Precision::Sixteen => (&tile.sixteen, &panels[number].integers()),
        };
        let num_groups = users.len().max(if precision == Precision::Sixteen { tile.four_times[0].len() } else { 0 });
        assert!(num_groups > 0 && num_groups == items.groups.len(), "no {precision:?} bits of {}", kernel.name());
        let mut rows = out[number * PANEL..].chunks_mut(width).map(|row| &mut row[..PANEL]);
        match kernel.instructions() {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => unreachable!("its panels are tiles"),
            // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => unsafe {
                match precision {
                    Precision::Eight => {
                        x86::score_avx512::<true>(users, tile.len(), items, &eight[number].offsets, &mut rows);
                    }
                    Precision::Sixteen => {
                        x86::score_avx512::<false>(users, tile.len(), items, &[0; PANEL], &mut rows);
                    }
                }
            },
            // SAFETY: as above; those of AVX-512 are found only beside AVX2.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 | Instructions::Avx2 => unsafe {
                x86::score_avx2(tile, items, &mut rows);
            },
            #[cfg(target_arch = "x86_64")]
            Instructions::Portable => score_sixteen::<x86::Sse2>(tile, items, &mut rows),
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon | Instructions::Portable => {
                score_sixteen::<neon::Neon>(tile, items, &mut rows);
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            Instructions::Portable => score_sixteen::<Lane>(tile, items, &mut rows),
        }
    }
}

/// The registers of a CPU for integers of 16 bits, two in a lane, and their sums of 32 bits.
trait Registers {
    const LANES: usize;
    /// Two integers in every lane.
    type Pairs: Copy;
    /// A sum in every lane.
    type Sums: Copy;

    fn zero() -> Self::Sums;
    /// Two integers as a tile of users keeps them.
    type User: 'static;
    /// Group by group, those of `U` users from `first` on, which is 0 or half a tile.
    fn users<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[Self::User; U]>;
    /// The same two integers in every lane.
    fn splat(user: &Self::User) -> Self::Pairs;
    /// Loads `LANES` pairs from the start of a slice.
    fn load(pairs: &[u32]) -> Self::Pairs;
    /// Adds both products of every lane to its sum.
    fn add_products(sums: Self::Sums, users: Self::Pairs, items: Self::Pairs) -> Self::Sums;
    /// Writes the sums as f32, each times its scale, to the start of `out`.
    fn write_scores(sums: Self::Sums, scales: &[f32], out: &mut [f32]);
}

/// `U` users from `first` on, for registers into which one value is loaded for all lanes.
#[inline(always)]
fn one_each<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[u32; U]> {
    tile.sixteen.iter().map(move |group| group[first..].first_chunk().expect("of half a tile"))
}

/// `U` users from `first` on, with two registers of items at a time: 14 of 16 registers for six users.
#[inline(always)]
fn products<'a, R: Registers, const U: usize>(
    tile: &UserTile,
    first: usize,
    items: &Integers,
    rows: &mut impl Iterator<Item = &'a mut [f32]>,
) {
    let mut scores = [[0.0; PANEL]; U];
    for start in (0..PANEL).step_by(2 * R::LANES) {
        let mut sums = [[R::zero(); 2]; U];
        for (users, lines) in R::users::<U>(tile, first).zip(items.groups) {
            let pairs = &lines[start / 16].0[start % 16..];
            let items = [R::load(pairs), R::load(&pairs[R::LANES..])];
            for (user, sums) in users.iter().zip(&mut sums) {
                let user = R::splat(user);
                for (sum, items) in sums.iter_mut().zip(items) {
                    *sum = R::add_products(*sum, user, items);
                }
            }
        }
        for (scores, sums) in scores.iter_mut().zip(&sums) {
            for (number, sum) in sums.iter().enumerate() {
                let at = start + number * R::LANES;
                R::write_scores(*sum, &items.scales[at..], &mut scores[at..]);
            }
        }
    }
    for (row, scores) in rows.zip(&scores) {
        row.copy_from_slice(scores);
    }
}

/// Six users at a time.
#[inline(always)]
fn score_sixteen<'a, R: Registers>(tile: &UserTile, items: &Integers, rows: &mut impl Iterator<Item = &'a mut [f32]>) {
    for first in (0..tile.len()).step_by(TILE / 2) {
        let rows = &mut rows.take(TILE / 2);
        match tile.len() - first {
            1 => products::<R, 1>(tile, first, items, rows),
            2 => products::<R, 2>(tile, first, items, rows),
            3..=4 => products::<R, 4>(tile, first, items, rows),
            _ => products::<R, { TILE / 2 }>(tile, first, items, rows),
        }
    }
}

/// One lane, for a CPU of which nothing is known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
struct Lane;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl Registers for Lane {
    const LANES: usize = 1;
    type User = u32;
    type Pairs = [i32; 2];
    type Sums = i32;

    #[inline(always)]
    fn users<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[u32; U]> {
        one_each(tile, first)
    }

    fn zero() -> i32 {
        0
    }

    fn splat(pair: &u32) -> [i32; 2] {
        [0, 16].map(|shift| i32::from((pair >> shift) as u16 as i16))
    }

    fn load(pairs: &[u32]) -> [i32; 2] {
        Self::splat(&pairs[0])
    }

    fn add_products(sum: i32, users: [i32; 2], items: [i32; 2]) -> i32 {
        sum + users[0] * items[0] + users[1] * items[1]
    }

    fn write_scores(sum: i32, scales: &[f32], out: &mut [f32]) {
        out[0] = sum as f32 * scales[0];
    }
}

impl EightBits {
    /// Takes the upper 8 bits of a panel, in place of what was here.
    ///
    /// # Panics
    /// When the kernel has no such precision, and for a panel of another kernel.
    pub fn take(&mut self, panel: &Panel, kernel: Kernel) {
        let sixteen = panel.integers().groups;
        self.scales = panel.scales_of_eight();
        self.groups.resize(sixteen.len().div_ceil(2), [Line::default(); 2]);
        match kernel.instructions() {
            // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => unsafe {
                x86::take_eight(panel, &mut self.groups, &mut self.offsets);
            },
            _ => panic!("{} has no products of 8 bits", kernel.name()),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn score_avx512<'a, const EIGHT: bool>(
        users: &[[u32; TILE]],
        num_users: usize,
        items: &Integers,
        offsets: &[i32; PANEL],
        rows: &mut impl Iterator<Item = &'a mut [f32]>,
    ) {
        match num_users {
            1 => products_avx512::<1, EIGHT>(users, items, offsets, rows),
            2 => products_avx512::<2, EIGHT>(users, items, offsets, rows),
            3..=4 => products_avx512::<4, EIGHT>(users, items, offsets, rows),
            5..=8 => products_avx512::<8, EIGHT>(users, items, offsets, rows),
            _ => products_avx512::<TILE, EIGHT>(users, items, offsets, rows),
        }
    }

    /// The first `U` users of the tile, all their sums in registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn products_avx512<'a, const U: usize, const EIGHT: bool>(
        users: &[[u32; TILE]],
        items: &Integers,
        offsets: &[i32; PANEL],
        rows: &mut impl Iterator<Item = &'a mut [f32]>,
    ) {
        let mut sums = [[_mm512_setzero_si512(); 2]; U];
        for (users, lines) in users.iter().zip(items.groups) {
            let items = [load(&lines[0]), load(&lines[1])];
            for (user, sums) in users.iter().zip(&mut sums) {
                let user = _mm512_set1_epi32(user.cast_signed());
                for (sum, item) in sums.iter_mut().zip(items) {
                    // The first factor of a product of 8 bits is taken as unsigned.
                    *sum = if EIGHT {
                        _mm512_dpbusd_epi32(*sum, user, item)
                    } else {
                        _mm512_dpwssd_epi32(*sum, user, item)
                    };
                }
            }
        }
        let (scales, offsets) = (items.scales.as_chunks::<16>().0, offsets.as_chunks::<16>().0);
        for (sums, row) in sums.into_iter().zip(rows) {
            let (halves, _) = row.as_chunks_mut::<16>();
            for (((half, sum), scale), offset) in halves.iter_mut().zip(sums).zip(scales).zip(offsets) {
                // SAFETY: every chunk holds the 16 values that are read or written, at any alignment.
                unsafe {
                    let whole = _mm512_sub_epi32(sum, _mm512_loadu_si512(offset.as_ptr().cast()));
                    let score = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_loadu_ps(scale.as_ptr()));
                    _mm512_storeu_ps(half.as_mut_ptr(), score);
                }
            }
        }
    }

    /// Of two groups of two integers one of four, and 128 times their sum: what products with users that have 128 added
    /// count too much.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn take_eight(panel: &Panel, groups: &mut [[Line; 2]], offsets: &mut [i32; PANEL]) {
        // Of a lane's four bytes the first and third, in the lower half of the lane or in the upper one.
        let to_lower = _mm512_set4_epi32(
            0x8080_0e0c_u32.cast_signed(),
            0x8080_0a08_u32.cast_signed(),
            0x8080_0604_u32.cast_signed(),
            0x8080_0200_u32.cast_signed(),
        );
        let to_upper = _mm512_set4_epi32(0x0e0c_8080, 0x0a08_8080, 0x0604_8080, 0x0200_8080);
        // Each item's factor, for both its integers in a lane.
        let factors: [u32; PANEL] = panel.factors_of_eight().map(|factor| u32::from(factor.cast_unsigned()) * 0x1_0001);
        // SAFETY: a chunk holds the 16 values that are read, at any alignment.
        let factors = [0, 16].map(|start| unsafe { _mm512_loadu_si512(factors[start..][..16].as_ptr().cast()) });
        let ones = _mm512_set1_epi8(1);
        let nothing = [Line::default(); 2];
        let mut sums = [_mm512_setzero_si512(); 2];
        for (group, pairs) in groups.iter_mut().zip(panel.integers().groups.chunks(2)) {
            let second = pairs.get(1).unwrap_or(&nothing);
            for side in 0..2 {
                let in_eight = |line: &Line| _mm512_mulhrs_epi16(load(line), factors[side]);
                let bytes = _mm512_or_si512(
                    _mm512_shuffle_epi8(in_eight(&pairs[0][side]), to_lower),
                    _mm512_shuffle_epi8(in_eight(&second[side]), to_upper),
                );
                sums[side] = _mm512_dpbusd_epi32(sums[side], ones, bytes);
                // SAFETY: a line holds the 64 bytes that are written, at their alignment.
                unsafe { _mm512_store_si512(std::ptr::from_mut(&mut group[side]).cast(), bytes) };
            }
        }
        for (offsets, sum) in offsets.as_chunks_mut::<16>().0.iter_mut().zip(sums) {
            // SAFETY: each chunk holds the 16 values that are written, at any alignment.
            unsafe { _mm512_storeu_si512(offsets.as_mut_ptr().cast(), _mm512_slli_epi32::<7>(sum)) };
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(line: &Line) -> __m512i {
        // SAFETY: a line holds the 64 bytes that are read, at their alignment.
        unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) }
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn score_avx2<'a>(tile: &UserTile, items: &Integers, rows: &mut impl Iterator<Item = &'a mut [f32]>) {
        score_sixteen::<Avx2>(tile, items, rows);
    }

    /// Private to this module and used by none but the function that enables AVX2, which makes its intrinsics sound;
    /// they read or write the 8 values at the start of a slice, at any alignment.
    struct Avx2;

    impl Registers for Avx2 {
        const LANES: usize = 8;
        type User = u32;
        type Pairs = __m256i;
        type Sums = __m256i;

        #[inline(always)]
        fn users<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[u32; U]> {
            one_each(tile, first)
        }

        #[inline(always)]
        fn zero() -> __m256i {
            // SAFETY: see `Avx2`.
            unsafe { _mm256_setzero_si256() }
        }

        #[inline(always)]
        fn splat(pair: &u32) -> __m256i {
            // SAFETY: see `Avx2`.
            unsafe { _mm256_set1_epi32(pair.cast_signed()) }
        }

        #[inline(always)]
        fn load(pairs: &[u32]) -> __m256i {
            // SAFETY: see `Avx2`.
            unsafe { _mm256_loadu_si256(pairs[..8].as_ptr().cast()) }
        }

        #[inline(always)]
        fn add_products(sums: __m256i, users: __m256i, items: __m256i) -> __m256i {
            // SAFETY: see `Avx2`.
            unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(users, items)) }
        }

        #[inline(always)]
        fn write_scores(sums: __m256i, scales: &[f32], out: &mut [f32]) {
            // SAFETY: see `Avx2`.
            unsafe {
                let scores = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(scales[..8].as_ptr()));
                _mm256_storeu_ps(out[..8].as_mut_ptr(), scores);
            }
        }
    }

    /// Every 64-bit x86 CPU has SSE2, which makes its intrinsics sound; they read or write the 4 values of an
    /// array or at the start of a slice, at any alignment.
    pub(super) struct Sse2;

    impl Registers for Sse2 {
        const LANES: usize = 4;
        type User = [u32; 4];
        type Pairs = __m128i;
        type Sums = __m128i;

        #[inline(always)]
        fn users<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[[u32; 4]; U]> {
            tile.four_times[first / (TILE / 2)].iter().map(|group| group.first_chunk().expect("of half a tile"))
        }

        #[inline(always)]
        fn zero() -> __m128i {
            // SAFETY: see `Sse2`.
            unsafe { _mm_setzero_si128() }
        }

        #[inline(always)]
        fn splat(pairs: &[u32; 4]) -> __m128i {
            // SAFETY: see `Sse2`.
            unsafe { _mm_loadu_si128(pairs.as_ptr().cast()) }
        }

        #[inline(always)]
        fn load(pairs: &[u32]) -> __m128i {
            // SAFETY: see `Sse2`.
            unsafe { _mm_loadu_si128(pairs[..4].as_ptr().cast()) }
        }

        #[inline(always)]
        fn add_products(sums: __m128i, users: __m128i, items: __m128i) -> __m128i {
            // SAFETY: see `Sse2`.
            unsafe { _mm_add_epi32(sums, _mm_madd_epi16(users, items)) }
        }

        #[inline(always)]
        fn write_scores(sums: __m128i, scales: &[f32], out: &mut [f32]) {
            // SAFETY: see `Sse2`.
            unsafe {
                let scores = _mm_mul_ps(_mm_cvtepi32_ps(sums), _mm_loadu_ps(scales[..4].as_ptr()));
                _mm_storeu_ps(out[..4].as_mut_ptr(), scores);
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{Registers, UserTile, one_each};

    /// Every 64-bit ARM target of Rust enables NEON, which makes its intrinsics sound; they read or write the 4 values at
    /// the start of a slice, at any alignment.
    pub(super) struct Neon;

    impl Registers for Neon {
        const LANES: usize = 4;
        type User = u32;
        /// The first integers of four lanes, and the second ones.
        type Pairs = [int16x4_t; 2];
        type Sums = int32x4_t;

        #[inline(always)]
        fn users<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[u32; U]> {
            one_each(tile, first)
        }

        #[inline(always)]
        fn zero() -> int32x4_t {
            // SAFETY: see `Neon`.
            unsafe { vdupq_n_s32(0) }
        }

        #[inline(always)]
        fn splat(pair: &u32) -> [int16x4_t; 2] {
            // SAFETY: see `Neon`.
            [0, 16].map(|shift| unsafe { vdup_n_s16((pair >> shift) as u16 as i16) })
        }

        #[inline(always)]
        fn load(pairs: &[u32]) -> [int16x4_t; 2] {
            // SAFETY: see `Neon`.
            unsafe {
                let pairs = vreinterpretq_s32_u32(vld1q_u32(pairs[..4].as_ptr()));
                [vmovn_s32(pairs), vshrn_n_s32::<16>(pairs)]
            }
        }

        #[inline(always)]
        fn add_products(sums: int32x4_t, users: [int16x4_t; 2], items: [int16x4_t; 2]) -> int32x4_t {
            // SAFETY: see `Neon`.
            unsafe { vmlal_s16(vmlal_s16(sums, users[0], items[0]), users[1], items[1]) }
        }

        #[inline(always)]
        fn write_scores(sums: int32x4_t, scales: &[f32], out: &mut [f32]) {
            // SAFETY: see `Neon`.
            unsafe {
                let scores = vmulq_f32(vcvtq_f32_s32(sums), vld1q_f32(scales[..4].as_ptr()));
                vst1q_f32(out[..4].as_mut_ptr(), scores);
            }
        }
    }
}
