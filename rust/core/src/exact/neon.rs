//! Partial sums in the registers of 64-bit ARM CPUs, which all have NEON.

use std::arch::aarch64::*;

use super::accumulator::Accumulator;
use crate::simd::Lanes;

/// Every 64-bit ARM target of Rust enables NEON, so its intrinsics are sound. They read 4 of the 16 values of `Lanes`,
/// at any alignment.
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
