//! Which items of a block are excluded for which users.

use std::ops::Range;

use super::state::EXCLUDED;
use crate::Ragged;

/// The items of a block that are excluded for the users of a tile.
#[derive(Default)]
pub(super) struct Excluded {
    /// Their places in the block, user by user, in increasing order.
    places: Vec<u32>,
    /// Where the places of each user end.
    ends: Vec<usize>,
}

impl Excluded {
    /// Takes the items `ids` of the rows of `users`, in place of what was here.
    ///
    /// `next` holds for each user where the items from `ids` on begin in its row, and moves behind `ids`.
    pub(super) fn take(&mut self, exclude: &Ragged, users: Range<usize>, next: &mut [usize], ids: Range<usize>) {
        self.places.clear();
        self.ends.clear();
        if exclude.values().is_empty() {
            return;
        }
        for (user, next) in users.zip(next) {
            let within = exclude.row(user)[*next..].iter().take_while(|item| **item < ids.end);
            let start = self.places.len();
            self.places.extend(within.map(|item| (item - ids.start) as u32));
            self.ends.push(self.places.len());
            *next += self.places.len() - start;
        }
    }

    /// The places of the items that are excluded for a user of the tile.
    pub(super) fn row(&self, user: usize) -> &[u32] {
        if self.places.is_empty() {
            return &[];
        }
        let start = user.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.places[start..self.ends[user]]
    }

    pub(super) fn contains(&self, user: usize, place: u32) -> bool {
        self.row(user).binary_search(&place).is_ok()
    }

    /// Overwrites the scores of excluded items. Each user has a row of `width` scores, which may cover only the
    /// beginning of the block.
    pub(super) fn mark(&self, scores: &mut [f32], width: usize) {
        if self.places.is_empty() {
            return;
        }
        for (user, scores) in scores.chunks_mut(width).enumerate() {
            let places = self.row(user).iter().map(|place| *place as usize);
            places.take_while(|place| *place < width).for_each(|place| scores[place] = EXCLUDED);
        }
    }
}
