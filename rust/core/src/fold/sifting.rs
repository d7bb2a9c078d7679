//! Which items of a block stay in doubt for a tile of users.

use super::block::Block;
use super::pass::Pass;
use super::precision::PrecisionChoice;
use super::scratch::Scratch;
use super::state::{EXCLUDED, Fold, Row, Sieve};
use crate::filter::{self, EightBits, PANEL, Precision};

impl<F: Fold> Pass<'_, F> {
    /// Lists the items that stay in doubt, in `scratch.doubts`.
    ///
    /// Returns the precision that decided about all other items; `None` where every precision leaves too many in doubt.
    pub(super) fn find_doubts(&mut self, sieve: Sieve) -> Option<Precision> {
        let has_failed = self.scratch.num_failed_tiles >= PrecisionChoice::MAX_FAILED_TILES;
        let mut precision = self.group.precision.first(sieve).filter(|_| !has_failed);
        while let Some(tried) = precision {
            let is_promising =
                self.group.precision.has_succeeded || sieve != Sieve::Fine || self.sift(tried, &self.block.beginning());
            if is_promising && self.sift(tried, self.block) {
                self.group.precision.has_succeeded = true;
                self.scratch.num_failed_tiles = 0;
                return Some(tried);
            }
            precision = self.group.precision.step_down(tried);
            self.scratch.num_failed_tiles += usize::from(precision.is_none());
        }
        None
    }

    /// Lists the items of `block` that one precision leaves in doubt. Returns false when they are too many.
    fn sift(&mut self, precision: Precision, block: &Block) -> bool {
        let Self { kernel, fold, ref group, ref states, .. } = *self;
        let Scratch { eight, num_eight, excluded, scores, bars, places, doubts, .. } = &mut *self.scratch;
        if precision == Precision::Eight && *num_eight < block.panels.len() {
            eight.resize_with(block.panels.len().max(eight.len()), EightBits::default);
            let missing = eight.iter_mut().zip(block.panels).skip(*num_eight);
            missing.for_each(|(eight, panel)| eight.take(panel, kernel));
            *num_eight = block.panels.len();
        }
        let width = block.panels.len() * PANEL;
        scores.resize(group.users.len() * width, 0.0);
        filter::score_panels(kernel, precision, &group.tile, block.panels, eight, scores);
        excluded.mark(scores, width);
        doubts.clear();
        let num_items = block.items.rows();
        let max_doubts = PrecisionChoice::max_doubts(precision, block.items.dim(), group.users.len() * num_items);
        for (at, (state, scores)) in states.iter().zip(scores.chunks(width)).enumerate() {
            let bound = group.tile.error_bound(at, precision);
            let slope = bound.slope(block.loss[precision as usize]);
            let scores = &scores[..num_items];
            let row = Row { scores, norms: &block.norms, bound, slope };
            bars.clear();
            fold.bars(state, group.users.start + at, &row, bars);
            for (bar, (low, high)) in bars.iter().enumerate() {
                places.clear();
                let thresholds = bound.thresholds(*low, *high, slope);
                let above = filter::sift(kernel, scores, &block.norms, thresholds, places);
                if !excluded.row(at).is_empty() {
                    // An excluded item is in doubt only where the bar is so low that every item is.
                    places.retain(|place| scores[*place as usize] > EXCLUDED || !excluded.contains(at, *place));
                }
                doubts.pairs.extend(places.iter().map(|place| (at, *place as usize)));
                doubts.rows.push((at, bar, above, doubts.pairs.len()));
            }
            if doubts.pairs.len() > max_doubts {
                return false;
            }
        }
        true
    }
}
