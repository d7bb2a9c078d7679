//! Products of integers: the approximate scores of a tile of users and panels of items.

use super::Precision;
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
/// When `out` has another size, or the kernel has no such precision.
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
    for number in 0..panels.len() {
        let (users, items) = match precision {
            Precision::Eight => (&tile.eight, &eight[number].0),
            Precision::Sixteen => (&tile.sixteen, &panels[number].sixteen),
        };
        assert!(!users.is_empty() && users.len() == items.groups.len(), "no {precision:?} bits of {}", kernel.name());
        let mut rows = out[number * PANEL..].chunks_mut(width).map(|row| &mut row[..PANEL]);
        match kernel.instructions() {
            // SAFETY: a `Kernel` exists only for instructions that this CPU has.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => unsafe { x86::score_avx512(precision, users, tile.len(), items, &mut rows) },
            // SAFETY: as above; a CPU with AVX-512F has AVX2.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 | Instructions::Avx2 => unsafe {
                x86::score_avx2(users, tile.len(), items, &mut rows);
            },
            _ => score_portable(users, tile.len(), items, &mut rows),
        }
    }
}

/// Two users at a time with 16 items: pairs of products are added as one, an instruction that most CPUs have.
fn score_portable<'a>(
    users: &[[u32; TILE]],
    num_users: usize,
    items: &Integers,
    rows: &mut impl Iterator<Item = &'a mut [f32]>,
) {
    for first in (0..num_users).step_by(2) {
        let mut sums = [[[0_i32; 16]; 2]; 2];
        for half in 0..2 {
            for (users, lines) in users.iter().zip(&items.groups) {
                for user in 0..2 {
                    let [low, high] = halves(users[first + user]);
                    for (sum, pair) in sums[user][half].iter_mut().zip(lines[half].0) {
                        let [first, second] = halves(pair);
                        *sum += low * first + high * second;
                    }
                }
            }
        }
        for (sums, row) in sums.into_iter().zip(&mut *rows) {
            let sums = sums.as_flattened().iter().zip(&items.scales);
            row.iter_mut().zip(sums).for_each(|(score, (sum, scale))| *score = *sum as f32 * scale);
        }
    }
}

fn halves(pair: u32) -> [i32; 2] {
    [i32::from(pair as u16 as i16), i32::from((pair >> 16) as u16 as i16)]
}

impl EightBits {
    /// Takes the upper 8 bits of a panel, in place of what was here.
    ///
    /// # Panics
    /// When the kernel has no such precision.
    pub fn take(&mut self, panel: &Panel, kernel: Kernel) {
        let Self(Integers { groups, scales, offsets }) = self;
        *scales = panel.scales_of_eight();
        groups.resize(panel.sixteen.groups.len().div_ceil(2), [Line::default(); 2]);
        match kernel.instructions() {
            // SAFETY: a `Kernel` exists only for instructions that this CPU has.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => unsafe { x86::take_eight(panel, groups, offsets) },
            _ => panic!("{} has no products of 8 bits", kernel.name()),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub(super) fn score_avx512<'a>(
        precision: Precision,
        users: &[[u32; TILE]],
        num_users: usize,
        items: &Integers,
        rows: &mut impl Iterator<Item = &'a mut [f32]>,
    ) {
        match (precision, num_users) {
            (Precision::Eight, 1) => products_avx512::<1, true>(users, items, rows),
            (Precision::Eight, 2) => products_avx512::<2, true>(users, items, rows),
            (Precision::Eight, 3..=4) => products_avx512::<4, true>(users, items, rows),
            (Precision::Eight, 5..=8) => products_avx512::<8, true>(users, items, rows),
            (Precision::Eight, _) => products_avx512::<TILE, true>(users, items, rows),
            (Precision::Sixteen, 1) => products_avx512::<1, false>(users, items, rows),
            (Precision::Sixteen, 2) => products_avx512::<2, false>(users, items, rows),
            (Precision::Sixteen, 3..=4) => products_avx512::<4, false>(users, items, rows),
            (Precision::Sixteen, 5..=8) => products_avx512::<8, false>(users, items, rows),
            (Precision::Sixteen, _) => products_avx512::<TILE, false>(users, items, rows),
        }
    }

    /// The first `U` users of the tile, all their sums in registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn products_avx512<'a, const U: usize, const EIGHT: bool>(
        users: &[[u32; TILE]],
        items: &Integers,
        rows: &mut impl Iterator<Item = &'a mut [f32]>,
    ) {
        let mut sums = [[_mm512_setzero_si512(); 2]; U];
        for (users, lines) in users.iter().zip(&items.groups) {
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
        let (scales, offsets) = (items.scales.as_chunks::<16>().0, items.offsets.as_chunks::<16>().0);
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
        let to_lower = _mm512_set4_epi32(0x8080_0e0c_u32.cast_signed(), 0x8080_0a08_u32.cast_signed(), 0x8080_0604_u32.cast_signed(), 0x8080_0200_u32.cast_signed());
        let to_upper = _mm512_set4_epi32(0x0e0c_8080, 0x0a08_8080, 0x0604_8080, 0x0200_8080);
        let half = _mm512_set1_epi16(if panel.shift > 0 { 1 << (panel.shift - 1) } else { 0 });
        let shift = _mm_cvtsi32_si128(panel.shift.cast_signed());
        let upper = |line: &Line| _mm512_sra_epi16(_mm512_adds_epi16(load(line), half), shift);
        let ones = _mm512_set1_epi8(1);
        let nothing = [Line::default(); 2];
        let mut sums = [_mm512_setzero_si512(); 2];
        for (group, pairs) in groups.iter_mut().zip(panel.sixteen.groups.chunks(2)) {
            let second = pairs.get(1).unwrap_or(&nothing);
            for side in 0..2 {
                let bytes = _mm512_or_si512(
                    _mm512_shuffle_epi8(upper(&pairs[0][side]), to_lower),
                    _mm512_shuffle_epi8(upper(&second[side]), to_upper),
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

    /// Six users at a time with 16 items take 12 of 16 registers.
    #[target_feature(enable = "avx2")]
    pub(super) fn score_avx2<'a>(
        users: &[[u32; TILE]],
        num_users: usize,
        items: &Integers,
        rows: &mut impl Iterator<Item = &'a mut [f32]>,
    ) {
        for first in (0..num_users).step_by(6) {
            match num_users - first {
                1 => products_avx2::<1>(users, first, items, rows),
                2 => products_avx2::<2>(users, first, items, rows),
                3..=4 => products_avx2::<4>(users, first, items, rows),
                _ => products_avx2::<6>(users, first, items, rows),
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn products_avx2<'a, const U: usize>(
        users: &[[u32; TILE]],
        first: usize,
        items: &Integers,
        rows: &mut impl Iterator<Item = &'a mut [f32]>,
    ) {
        let mut scores = [[0.0; PANEL]; U];
        for side in 0..2 {
            let mut sums = [[_mm256_setzero_si256(); 2]; U];
            for (users, lines) in users.iter().zip(&items.groups) {
                let (quarters, _) = lines[side].0.as_chunks::<8>();
                // SAFETY: a quarter holds the 8 values that are read, at their alignment.
                let items = [0, 1].map(|at| unsafe { _mm256_load_si256(quarters[at].as_ptr().cast()) });
                for (user, sums) in users[first..first + U].iter().zip(&mut sums) {
                    let user = _mm256_set1_epi32(user.cast_signed());
                    for (sum, item) in sums.iter_mut().zip(items) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(user, item));
                    }
                }
            }
            let scales = items.scales[16 * side..].as_chunks::<8>().0;
            for (scores, sums) in scores.iter_mut().zip(sums) {
                let eighths = scores[16 * side..].as_chunks_mut::<8>().0;
                for ((out, sum), scale) in eighths.iter_mut().zip(sums).zip(scales) {
                    // SAFETY: every chunk holds the 8 values that are read or written, at any alignment.
                    unsafe {
                        let score = _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_loadu_ps(scale.as_ptr()));
                        _mm256_storeu_ps(out.as_mut_ptr(), score);
                    }
                }
            }
        }
        for (scores, row) in scores.iter().zip(rows) {
            row.copy_from_slice(scores);
        }
    }
}
