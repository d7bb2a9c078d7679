//! Exact scores: f32 dot products with one fixed order of summation.
//!
//! With `LANES` = 16, the score of a user `u` and an item `x` is defined as
//!
//! ```text
//! lane[l] = ((0 + u[l]*x[l]) + u[l+16]*x[l+16]) + u[l+32]*x[l+32] + ...     for l in 0..16
//! score   = lane[0] + .. + lane[15], added as a tree: l with l+8, then l+4, l+2, l+1
//! ```
//!
//! where every product and every sum is rounded to f32 separately, without fused multiply-add. IEEE 754 fixes each of
//! these operations. A score therefore has the same bits on every CPU, with registers of any width, and in any block.
//! Fused multiply-adds would double the speed on some CPUs, but not every CPU has them, so the bits would differ. A
//! lane starts at +0 and a sum of opposite numbers is +0, so no score is ever -0.

mod accumulator;
#[cfg(target_arch = "aarch64")]
mod neon;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::simd::Lanes;
use tiles::{score_pairs, score_tile, score_tiles};

use crate::cpu::Instructions;
use crate::{Kernel, Matrix};

/// The score of one user and one item.
///
/// # Panics
/// When the lengths differ.
pub fn dot(user: &[f32], item: &[f32]) -> f32 {
    assert_eq!(user.len(), item.len());
    score_tile::<Lanes, 1, 1>([user], [item])[0][0]
}

impl Kernel {
    /// Writes the scores of every user with every item to `out`, row-major (users, items).
    ///
    /// # Panics
    /// When the dimensions differ or `out` does not hold users x items scores.
    pub fn score_block(self, users: Matrix, items: Matrix, out: &mut [f32]) {
        assert_eq!(users.dim(), items.dim());
        assert_eq!(out.len(), users.rows() * items.rows());
        match self.instructions() {
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

    /// Writes the scores of the pairs (user, item) to `out`, in place of what `out` held.
    ///
    /// # Panics
    /// When the dimensions differ, or a pair names a user or an item that does not exist.
    pub(crate) fn score_pairs(self, users: Matrix, items: Matrix, pairs: &[(usize, usize)], out: &mut Vec<f32>) {
        assert_eq!(users.dim(), items.dim());
        match self.instructions() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::LANES;
    use proptest::prelude::*;

    /// The definition at the top of this file, step by step.
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
