//! How the scores of a block reach the states of a tile of users.

use super::pass::Pass;
use super::scratch::Scratch;
use super::state::Fold;
use crate::filter::{PANEL, Precision};

impl<F: Fold> Pass<'_, F> {
    /// Passes on the doubts that `precision` left. Returns how many scores were computed exactly.
    pub(super) fn deliver_doubts(&mut self, precision: Precision) -> usize {
        let Self { kernel, fold, ref group, block, .. } = *self;
        let Scratch { doubts, exact, scores, .. } = &mut *self.scratch;
        // Scores from 8 bits are too rough to keep: later bars would be much lower than those from exact scores.
        let is_rough = precision == Precision::Eight;
        let scores_doubts = is_rough || fold.needs_scores(doubts.pairs.len(), group.users.len());
        if scores_doubts {
            kernel.score_pairs(group.rows.rows(), block.items, &doubts.pairs, exact);
        }
        let width = block.panels.len() * PANEL;
        let mut start = 0;
        for &(user, bar, num_above, end) in &doubts.rows {
            let bound = group.tile.error_bound(user, precision);
            let slope = bound.slope(block.loss[precision as usize]);
            let between = |at: usize| {
                let (_, place) = doubts.pairs[at];
                let (low, high) = if scores_doubts {
                    (exact[at], exact[at])
                } else {
                    bound.around(scores[user * width + place], slope * block.norms[place])
                };
                (block.first_item + place, low, high)
            };
            let doubtful = (start..end).map(between);
            fold.take_sifted(&mut self.states[user], group.users.start + user, bar, num_above, doubtful);
            start = end;
        }
        if scores_doubts { doubts.pairs.len() } else { 0 }
    }

    /// Scores every pair of the tile and the block exactly, and passes on the scores. Returns how many they are.
    pub(super) fn deliver_exact(&mut self) -> usize {
        let Self { kernel, fold, ref group, block, .. } = *self;
        let Scratch { excluded, exact, .. } = &mut *self.scratch;
        let num_pairs = group.users.len() * block.items.rows();
        exact.resize(num_pairs, 0.0);
        kernel.score_block(group.rows.rows(), block.items, exact);
        excluded.mark(exact, block.items.rows());
        let rows = exact.chunks(block.items.rows());
        for ((state, user), scores) in self.states.iter_mut().zip(group.users.clone()).zip(rows) {
            fold.take(state, user, block.first_item, scores);
        }
        num_pairs
    }
}
