//! Products of 16 bits without vector registers.

use super::registers::{Registers, users_once};
use crate::filter::users::UserTile;

/// One lane, for a CPU without known registers.
pub(super) struct Lane;

impl Registers for Lane {
    const LANES: usize = 1;
    type User = u32;
    type Pairs = [i32; 2];
    type Sums = i32;

    #[inline(always)]
    fn users<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[u32; U]> {
        users_once(tile, first)
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
