//! Products of 16 bits, generic over the registers of a CPU.

use crate::filter::layout::{Integers, PANEL, TILE};
use crate::filter::users::UserTile;

/// The registers of a CPU for integers of 16 bits, two in a lane, and for their sums of 32 bits.
pub(super) trait Registers {
    const LANES: usize;
    /// Two integers in every lane.
    type Pairs: Copy;
    /// A sum in every lane.
    type Sums: Copy;

    fn zero() -> Self::Sums;
    /// Two integers of a user, as a tile of users holds them.
    type User: 'static;
    /// The integers of `U` users from `first` on, group by group; `first` is 0 or half a tile.
    fn users<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[Self::User; U]>;
    /// The same two integers in every lane.
    fn splat(user: &Self::User) -> Self::Pairs;
    /// Loads `LANES` pairs from the start of a slice.
    fn load(pairs: &[u32]) -> Self::Pairs;
    /// Adds both products of every lane to its sum.
    fn add_products(sums: Self::Sums, users: Self::Pairs, items: Self::Pairs) -> Self::Sums;
    /// Writes the sums as f32 to the start of `out`, each multiplied by its scale.
    fn write_scores(sums: Self::Sums, scales: &[f32], out: &mut [f32]);
}

/// [`Registers::users`] for registers that load one value into all lanes.
#[inline(always)]
pub(super) fn users_once<const U: usize>(tile: &UserTile, first: usize) -> impl Iterator<Item = &[u32; U]> {
    tile.sixteen.iter().map(move |group| group[first..].first_chunk().expect("half a tile"))
}

/// The scores of `U` users from `first` on, with two registers of items at a time. Six users take 14 of 16 registers.
#[inline(always)]
fn score_users<'a, R: Registers, const U: usize>(
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

/// The scores of all users of a tile, six users at a time.
#[inline(always)]
pub(super) fn score_sixteen<'a, R: Registers>(
    tile: &UserTile,
    items: &Integers,
    rows: &mut impl Iterator<Item = &'a mut [f32]>,
) {
    for first in (0..tile.len()).step_by(TILE / 2) {
        let rows = &mut rows.take(TILE / 2);
        match tile.len() - first {
            1 => score_users::<R, 1>(tile, first, items, rows),
            2 => score_users::<R, 2>(tile, first, items, rows),
            3..=4 => score_users::<R, 4>(tile, first, items, rows),
            _ => score_users::<R, { TILE / 2 }>(tile, first, items, rows),
        }
    }
}
