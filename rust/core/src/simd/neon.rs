//! Vectors in the registers of 64-bit ARM CPUs, which all have NEON.

use std::arch::aarch64::*;

use super::vector::{LANES, Lanes, Vector};

/// Every 64-bit ARM target of Rust enables NEON, so its intrinsics are sound. They read or write 4 of the 16 numbers of
/// their argument, at any alignment.
#[derive(Clone, Copy)]
pub(super) struct Neon([float32x4_t; 4]);

impl Vector for Neon {
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn splat(value: f32) -> Self {
        // SAFETY: see `Neon`.
        Self([unsafe { vdupq_n_f32(value) }; 4])
    }

    #[inline(always)]
    fn load(lanes: &Lanes) -> Self {
        // SAFETY: see `Neon`.
        Self(std::array::from_fn(|part| unsafe { vld1q_f32(lanes[4 * part..].as_ptr()) }))
    }

    #[inline(always)]
    fn widen(lanes: &[u16; LANES]) -> Self {
        // SAFETY: see `Neon`.
        Self(std::array::from_fn(|part| unsafe {
            vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(lanes[4 * part..].as_ptr())))
        }))
    }

    #[inline(always)]
    fn store(self, lanes: &mut Lanes) {
        for (part, values) in self.0.into_iter().enumerate() {
            // SAFETY: see `Neon`.
            unsafe { vst1q_f32(lanes[4 * part..].as_mut_ptr(), values) }
        }
    }

    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: see `Neon`.
        Self(std::array::from_fn(|p| unsafe { vfmaq_f32(self.0[p], a.0[p], b.0[p]) }))
    }
}
