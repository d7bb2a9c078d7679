//! The scores: f32 dot products with one fixed order of summation.
//!
//! With `LANES` = 16, the score of a user `u` and an item `x` is defined as
//!
//! ```text
//! lane[l] = ((0 + u[l]*x[l]) + u[l+16]*x[l+16]) + u[l+32]*x[l+32] + ...     for l in 0..16
//! score   = lane[0] + .. + lane[15], added as a tree: l with l+8, then l+4, l+2, l+1
//! ```
//!
//! where every product and every sum is rounded to f32 on its own (no fused multiply-add). IEEE 754 fixes each of
//! these operations, so a score is the same to the bit on every CPU, whatever the width of its registers, and in
//! whatever block it is computed. Fused multiply-adds would be as fast on some CPUs and twice as fast on others, but
//! not the same on all. A lane starts at +0 and a sum of opposite numbers is +0, so no score is ever -0.

use crate::filter::{self, Precision};
use crate::{Error, Matrix, Result};

/// Number of partial sums of a dot product.
pub const LANES: usize = 16;

type Lanes = [f32; LANES];

/// The score of one user and one item.
///
/// # Panics
/// When the lengths differ.
pub fn dot(user: &[f32], item: &[f32]) -> f32 {
    assert_eq!(user.len(), item.len());
    tile::<Lanes, 1, 1>([user], [item])[0][0]
}

/// The instructions that scores are computed with: a choice of speed alone, every kernel gives the same bits.
///
/// A value exists only for instructions that this CPU has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Instructions);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Amx,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "aarch64")]
    Neon,
    Portable,
}

impl Kernel {
    /// The environment variable that [`Kernel::from_env`] reads.
    pub const VARIABLE: &str = "LANGPTUNE_KERNEL";

    /// Every kernel that this CPU can run, the fastest first.
    pub fn supported() -> Vec<Self> {
        // Of each kernel every feature that one of its functions enables, also where it runs those of a lesser one.
        #[cfg(target_arch = "x86_64")]
        let has_avx2 = is_x86_feature_detected!("avx2");
        #[cfg(target_arch = "x86_64")]
        let has_avx512 = has_avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("popcnt");
        #[cfg(target_arch = "x86_64")]
        let has_vnni = has_avx512 && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni");
        let kernels = [
            #[cfg(target_arch = "x86_64")]
            (Instructions::Amx, has_vnni && filter::amx_is_available()),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512Vnni, has_vnni),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512, has_avx512),
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx2, has_avx2),
            #[cfg(target_arch = "aarch64")]
            (Instructions::Neon, true),
            (Instructions::Portable, true),
        ];
        kernels.into_iter().filter(|(_, is_here)| *is_here).map(|(instructions, _)| Self(instructions)).collect()
    }

    /// The kernel that `LANGPTUNE_KERNEL` names, or the fastest when it is not set or empty.
    ///
    /// # Errors
    /// [`Error::Kernel`] for a name that is none of [`Kernel::supported`].
    pub fn from_env() -> Result<Self> {
        let supported = Self::supported();
        let asked = std::env::var_os(Self::VARIABLE).unwrap_or_default();
        if asked.is_empty() {
            return Ok(supported[0]);
        }
        supported.iter().find(|kernel| asked == kernel.name()).copied().ok_or_else(|| Error::Kernel {
            asked: asked.to_string_lossy().into_owned(),
            supported: supported.iter().map(Self::name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Its name, as in `LANGPTUNE_KERNEL`.
    pub fn name(&self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => "amx",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "avx2",
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => "neon",
            Instructions::Portable => "portable",
        }
    }

    pub(crate) fn instructions(self) -> Instructions {
        self.0
    }

    /// Whether it multiplies tiles of bytes, so that integers lie in another order.
    pub(crate) fn has_tiles(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        return self.0 == Instructions::Amx;
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// How many users it scores together.
    pub fn tile(self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.has_tiles() {
            return filter::AMX_ROWS;
        }
        filter::TILE
    }

    /// The sizes of integers whose products approximate scores of `dim` dimensions, the fastest first; none where there
    /// are too many.
    pub fn precisions(self, dim: usize) -> &'static [Precision] {
        match (self.0, dim) {
            // The largest product, 255 x 128, must not leave 32 bits when it is added `dim` times.
            #[cfg(target_arch = "x86_64")]
            (Instructions::Avx512Vnni, ..=65_536) => &[Precision::Eight, Precision::Sixteen],
            #[cfg(target_arch = "x86_64")]
            (Instructions::Amx, _) if dim > filter::AMX_MAX_DIM => &[],
            _ => &[Precision::Sixteen],
        }
    }

    /// Writes the scores of every user with every item to `out`, row-major (users, items).
    ///
    /// # Panics
    /// When the dimensions differ or `out` does not hold users x items scores.
    pub fn score_block(self, users: Matrix, items: Matrix, out: &mut [f32]) {
        assert_eq!(users.dim(), items.dim());
        assert_eq!(out.len(), users.rows() * items.rows());
        match self.0 {
            // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx | Instructions::Avx512Vnni | Instructions::Avx512 => unsafe {
                x86::score_block_avx512(users, items, out)
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { x86::score_block_avx2(users, items, out) },
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => score_tiles::<neon::Neon, 2, 2>(users, items, out),
            Instructions::Portable => score_tiles::<Lanes, 1, 2>(users, items, out),
        }
    }

    /// Writes the scores of the pairs (user, item) to `out`.
    ///
    /// # Panics
    /// When the dimensions differ or a pair holds a user or an item that is none.
    pub(crate) fn score_pairs(self, users: Matrix, items: Matrix, pairs: &[(usize, usize)], out: &mut Vec<f32>) {
        assert_eq!(users.dim(), items.dim());
        match self.0 {
            // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx | Instructions::Avx512Vnni | Instructions::Avx512 => unsafe {
                x86::score_pairs_avx512(users, items, pairs, out);
            },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { x86::score_pairs_avx2(users, items, pairs, out) },
            #[cfg(target_arch = "aarch64")]
            Instructions::Neon => score_pairs::<neon::Neon, 4>(users, items, pairs, out),
            Instructions::Portable => score_pairs::<Lanes, 1>(users, items, pairs, out),
        }
    }
}

/// Sixteen partial sums, in whatever registers a CPU has for them.
trait Accumulator: Copy {
    fn load(lanes: &Lanes) -> Self;
    /// `self + a * b`, the product and the sum each rounded to f32.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// The sum of all sixteen, in the order that the definition gives.
    fn add_lanes(self) -> f32;
}

impl Accumulator for Lanes {
    #[inline(always)]
    fn load(lanes: &Lanes) -> Self {
        *lanes
    }

    #[inline(always)]
    fn add_product(mut self, a: Self, b: Self) -> Self {
        for lane in 0..LANES {
            self[lane] += a[lane] * b[lane];
        }
        self
    }

    #[inline(always)]
    fn add_lanes(self) -> f32 {
        let eight: [f32; 8] = std::array::from_fn(|l| self[l] + self[l + 8]);
        let four: [f32; 4] = std::array::from_fn(|l| eight[l] + eight[l + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
}

/// Cuts the block into tiles of `U` users x `I` items, and what is left over into narrower ones.
#[inline(always)]
fn score_tiles<A: Accumulator, const U: usize, const I: usize>(users: Matrix, items: Matrix, out: &mut [f32]) {
    let num_items = items.rows();
    let whole_users = users.rows() - users.rows() % U;
    for first in (0..whole_users).step_by(U) {
        let rows = std::array::from_fn(|u| users.row(first + u));
        score_rows::<A, U, I>(rows, items, &mut out[first * num_items..]);
    }
    for user in whole_users..users.rows() {
        score_rows::<A, 1, I>([users.row(user)], items, &mut out[user * num_items..]);
    }
}

#[inline(always)]
fn score_rows<A: Accumulator, const U: usize, const I: usize>(users: [&[f32]; U], items: Matrix, out: &mut [f32]) {
    let num_items = items.rows();
    let whole_items = num_items - num_items % I;
    for first in (0..whole_items).step_by(I) {
        let scores = tile::<A, U, I>(users, std::array::from_fn(|i| items.row(first + i)));
        for (u, row) in scores.iter().enumerate() {
            out[u * num_items + first..][..I].copy_from_slice(row);
        }
    }
    for item in whole_items..num_items {
        let scores = tile::<A, U, 1>(users, [items.row(item)]);
        for (u, [score]) in scores.iter().enumerate() {
            out[u * num_items + item] = *score;
        }
    }
}

/// Takes `P` pairs at a time, of one user where they are: its vector is then read once. A last group that is short
/// repeats its last pair.
#[inline(always)]
fn score_pairs<A: Accumulator, const P: usize>(
    users: Matrix,
    items: Matrix,
    pairs: &[(usize, usize)],
    out: &mut Vec<f32>,
) {
    out.clear();
    for group in pairs.chunks(P) {
        let pair = |at: usize| group[at.min(group.len() - 1)];
        let item_rows = std::array::from_fn(|at| items.row(pair(at).1));
        let scores = if group.iter().all(|(user, _)| *user == pair(0).0) {
            let [scores] = tile::<A, 1, P>([users.row(pair(0).0)], item_rows);
            scores
        } else {
            dots::<A, P>(std::array::from_fn(|at| users.row(pair(at).0)), item_rows)
        };
        out.extend_from_slice(&scores[..group.len()]);
    }
}

/// The scores of `P` pairs, all of the same length, side by side.
#[inline(always)]
fn dots<A: Accumulator, const P: usize>(users: [&[f32]; P], items: [&[f32]; P]) -> [f32; P] {
    let users = users.map(<[f32]>::as_chunks::<LANES>);
    let items = items.map(<[f32]>::as_chunks::<LANES>);
    let num_chunks = users[0].0.len();
    let user_chunks = users.map(|(chunks, _)| &chunks[..num_chunks]);
    let item_chunks = items.map(|(chunks, _)| &chunks[..num_chunks]);
    let mut sums = [A::load(&[0.0; LANES]); P];
    for chunk in 0..num_chunks {
        for p in 0..P {
            sums[p] = sums[p].add_product(A::load(&user_chunks[p][chunk]), A::load(&item_chunks[p][chunk]));
        }
    }
    if !users[0].1.is_empty() {
        for p in 0..P {
            sums[p] = sums[p].add_product(A::load(&padded(users[p].1)), A::load(&padded(items[p].1)));
        }
    }
    let mut scores = [0.0; P];
    for (score, sum) in scores.iter_mut().zip(&sums) {
        *score = sum.add_lanes();
    }
    scores
}

/// The scores of `U` users and `I` items, all of the same length; the accumulators of all pairs stay in registers.
#[inline(always)]
fn tile<A: Accumulator, const U: usize, const I: usize>(users: [&[f32]; U], items: [&[f32]; I]) -> [[f32; I]; U] {
    let users = users.map(<[f32]>::as_chunks::<LANES>);
    let items = items.map(<[f32]>::as_chunks::<LANES>);
    let num_chunks = users[0].0.len();
    // Cut to one length, so that the loop below needs no bounds checks.
    let user_chunks = users.map(|(chunks, _)| &chunks[..num_chunks]);
    let item_chunks = items.map(|(chunks, _)| &chunks[..num_chunks]);
    let mut sums = [[A::load(&[0.0; LANES]); I]; U];
    for chunk in 0..num_chunks {
        let user_lanes = user_chunks.map(|chunks| A::load(&chunks[chunk]));
        let item_lanes = item_chunks.map(|chunks| A::load(&chunks[chunk]));
        add_products(&mut sums, user_lanes, item_lanes);
    }
    if !users[0].1.is_empty() {
        // Products with the padding add +0, which changes no lane: a lane is never -0.
        let user_lanes = users.map(|(_, rest)| A::load(&padded(rest)));
        let item_lanes = items.map(|(_, rest)| A::load(&padded(rest)));
        add_products(&mut sums, user_lanes, item_lanes);
    }
    // A loop and no `map`: its closure would be compiled without the instructions of `A`, and called.
    let mut scores = [[0.0; I]; U];
    for (scores, sums) in scores.iter_mut().zip(&sums) {
        for (score, sum) in scores.iter_mut().zip(sums) {
            *score = sum.add_lanes();
        }
    }
    scores
}

#[inline(always)]
fn add_products<A: Accumulator, const U: usize, const I: usize>(sums: &mut [[A; I]; U], users: [A; U], items: [A; I]) {
    for u in 0..U {
        for i in 0..I {
            sums[u][i] = sums[u][i].add_product(users[u], items[i]);
        }
    }
}

#[inline(always)]
fn padded(rest: &[f32]) -> Lanes {
    let mut lanes = [0.0; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}

/// The same sums in the registers of x86 CPUs.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Accumulator, Lanes, score_tiles};
    use crate::Matrix;

    /// A tile of 4 x 4 pairs takes 16 of the 32 registers, and its loads 8 more.
    #[target_feature(enable = "avx512f")]
    pub(super) fn score_block_avx512(users: Matrix, items: Matrix, out: &mut [f32]) {
        score_tiles::<Avx512, 4, 4>(users, items, out);
    }

    /// A tile of 2 x 2 pairs takes 8 of the 16 registers, and its loads 8 more.
    #[target_feature(enable = "avx2")]
    pub(super) fn score_block_avx2(users: Matrix, items: Matrix, out: &mut [f32]) {
        score_tiles::<Avx2, 2, 2>(users, items, out);
    }

    /// Eight pairs at a time hide the latency of the sums.
    #[target_feature(enable = "avx512f")]
    pub(super) fn score_pairs_avx512(users: Matrix, items: Matrix, pairs: &[(usize, usize)], out: &mut Vec<f32>) {
        super::score_pairs::<Avx512, 8>(users, items, pairs, out);
    }

    /// As above; each sum takes two registers.
    #[target_feature(enable = "avx2")]
    pub(super) fn score_pairs_avx2(users: Matrix, items: Matrix, pairs: &[(usize, usize)], out: &mut Vec<f32>) {
        super::score_pairs::<Avx2, 4>(users, items, pairs, out);
    }

    /// Private to this module and used by none but functions that enable AVX-512F, which makes every intrinsic below
    /// sound: they need AVX-512F, and `Lanes` holds the 16 values that a load reads, at any alignment.
    #[derive(Clone, Copy)]
    struct Avx512(__m512);

    impl Accumulator for Avx512 {
        #[inline(always)]
        fn load(lanes: &Lanes) -> Self {
            // SAFETY: see `Avx512`.
            Self(unsafe { _mm512_loadu_ps(lanes.as_ptr()) })
        }

        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see `Avx512`.
            Self(unsafe { _mm512_add_ps(self.0, _mm512_mul_ps(a.0, b.0)) })
        }

        #[inline(always)]
        fn add_lanes(self) -> f32 {
            // SAFETY: see `Avx512`.
            unsafe {
                let upper =
                    _mm512_castpd_ps(_mm512_castpd256_pd512(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0))));
                Avx2(_mm512_castps512_ps256(self.0), _mm512_castps512_ps256(upper)).add_lanes()
            }
        }
    }

    /// Private to this module and used by none but functions that enable AVX2 or AVX-512F, which makes every intrinsic
    /// below sound: they need AVX, which both include, and read 8 of the 16 values of `Lanes` from its start or its
    /// middle, at any alignment.
    #[derive(Clone, Copy)]
    struct Avx2(__m256, __m256);

    impl Accumulator for Avx2 {
        #[inline(always)]
        fn load(lanes: &Lanes) -> Self {
            // SAFETY: see `Avx2`.
            unsafe { Self(_mm256_loadu_ps(lanes.as_ptr()), _mm256_loadu_ps(lanes[8..].as_ptr())) }
        }

        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see `Avx2`.
            unsafe {
                Self(_mm256_add_ps(self.0, _mm256_mul_ps(a.0, b.0)), _mm256_add_ps(self.1, _mm256_mul_ps(a.1, b.1)))
            }
        }

        #[inline(always)]
        fn add_lanes(self) -> f32 {
            // SAFETY: see `Avx2`.
            unsafe {
                let eight = _mm256_add_ps(self.0, self.1);
                let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
    }
}

/// The same sums in the registers of 64-bit ARM CPUs, which all have NEON.
#[cfg(target_arch = "aarch64")]
mod neon {
    use std::arch::aarch64::*;

    use super::{Accumulator, Lanes};

    /// Every 64-bit ARM target of Rust enables NEON, so its intrinsics are sound; they read 4 of the 16 values
    /// of `Lanes`, at any alignment.
    #[derive(Clone, Copy)]
    pub(super) struct Neon([float32x4_t; 4]);

    impl Accumulator for Neon {
        #[inline(always)]
        fn load(lanes: &Lanes) -> Self {
            // SAFETY: see `Neon`.
            Self(std::array::from_fn(|part| unsafe { vld1q_f32(lanes[4 * part..].as_ptr()) }))
        }

        #[inline(always)]
        fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: see `Neon`.
            Self(std::array::from_fn(|p| unsafe { vaddq_f32(self.0[p], vmulq_f32(a.0[p], b.0[p])) }))
        }

        #[inline(always)]
        fn add_lanes(self) -> f32 {
            let [first, second, third, fourth] = self.0;
            // SAFETY: see `Neon`.
            unsafe {
                let four = vaddq_f32(vaddq_f32(first, third), vaddq_f32(second, fourth));
                let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
                vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition at the top of this file, written out.
    fn dot_by_definition(user: &[f32], item: &[f32]) -> f32 {
        let mut lanes = [0.0_f32; LANES];
        for (at, (u, x)) in user.iter().zip(item).enumerate() {
            let product = std::hint::black_box(u * x);
            lanes[at % LANES] += product;
        }
        let mut width = LANES;
        while width > 1 {
            width /= 2;
            for l in 0..width {
                lanes[l] += lanes[l + width];
            }
        }
        lanes[0]
    }

    fn values(len: usize) -> impl Strategy<Value = Vec<f32>> {
        let value = prop_oneof![
            4 => -1.0_f32..1.0,
            1 => prop_oneof![Just(0.0), Just(-0.0), Just(1e-40_f32), Just(-1e-40), Just(1e15), Just(-1e15)],
        ];
        proptest::collection::vec(value, len)
    }

    fn block() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
        (1_usize..70, 1_usize..10, 1_usize..12)
            .prop_flat_map(|(dim, users, items)| (Just(dim), values(dim * users), values(dim * items)))
    }

    proptest! {
        #[test]
        fn every_kernel_gives_the_bits_of_the_definition((dim, users, items) in block()) {
            let (users, items) = (Matrix::new(&users, dim), Matrix::new(&items, dim));
            let pairs: Vec<(usize, usize)> = (0..users.rows())
                .flat_map(|user| (0..items.rows()).rev().map(move |item| (user, item)))
                .collect();
            for kernel in Kernel::supported() {
                let mut out = vec![f32::NAN; users.rows() * items.rows()];
                kernel.score_block(users, items, &mut out);
                let mut backwards = Vec::new();
                kernel.score_pairs(users, items, &pairs, &mut backwards);
                let by_item: Vec<(usize, usize)> = (0..items.rows())
                    .flat_map(|item| (0..users.rows()).map(move |user| (user, item)))
                    .collect();
                let mut mixed = Vec::new();
                kernel.score_pairs(users, items, &by_item, &mut mixed);
                for user in 0..users.rows() {
                    for item in 0..items.rows() {
                        let score = out[user * items.rows() + item];
                        let expected = dot_by_definition(users.row(user), items.row(item));
                        prop_assert_eq!(score.to_bits(), expected.to_bits(), "{} {} {}", kernel.name(), user, item);
                        prop_assert_eq!(score.to_bits(), dot(users.row(user), items.row(item)).to_bits());
                        prop_assert_eq!(score.to_bits(), backwards[(user + 1) * items.rows() - 1 - item].to_bits());
                        prop_assert_eq!(score.to_bits(), mixed[item * users.rows() + user].to_bits());
                    }
                }
            }
        }
    }

    #[test]
    fn a_score_is_never_negative_zero() {
        assert_eq!(dot(&[-0.0], &[1.0]).to_bits(), 0.0_f32.to_bits());
        assert_eq!(dot(&[1.0, 1.0], &[2.0, -2.0]).to_bits(), 0.0_f32.to_bits());
        assert_eq!(dot(&[1e-30; 20], &[-1e-30; 20]).to_bits(), 0.0_f32.to_bits());
    }
}
