//! Products of 16 bits in the registers of 64-bit ARM CPUs.

use std::arch::aarch64::*;

use super::registers::{Registers, users_once};
use crate::filter::users::UserTile;

/// Every 64-bit ARM target of Rust enables NEON, so its intrinsics are sound. They read or write the 4 values at the
/// start of a slice, at any alignment.
pub(super) struct Neon;

impl Registers for Neon {
    const LANES: usize = 4;
    type User = u32;
    /// The first integers of four lanes, and the second integers.
    type Pairs = [int16x4_t; 2];
    type Sums = int32x4_t;

    #[inline(always)]
    fn users<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[u32; U]> {
        users_once(tile, first)
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
