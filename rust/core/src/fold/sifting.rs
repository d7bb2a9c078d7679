//! Which items of a block stay in doubt for a tile of users.

use super::block::{Block, Group};
use super::precision::PrecisionChoice;
use super::scratch::Scratch;
use super::state::{EXCLUDED, Fold, Row, Sieve};
use crate::Kernel;
use crate::filter::{self, EightBits, PANEL, Precision};

/// Lists the items of a block that stay in doubt for a tile of users, in `scratch.doubts`.
///
/// Returns the precision that decided about all other items; `None` where every precision leaves too many in doubt.
pub(super) fn find_doubts<F: Fold>(
    kernel: Kernel,
    sieve: Sieve,
    group: &mut Group,
    block: &Block,
    fold: &F,
    states: &[F::State],
    scratch: &mut Scratch,
) -> Option<Precision> {
    let has_failed = scratch.num_failed_tiles >= PrecisionChoice::MAX_FAILED_TILES;
    let mut precision = group.precision.first(sieve).filter(|_| !has_failed);
    while let Some(tried) = precision {
        let mut sifts = |block: &Block| sift_block(kernel, tried, group, block, fold, states, scratch);
        let is_promising = group.precision.has_succeeded || sieve != Sieve::Fine || sifts(&block.beginning());
        if is_promising && sifts(block) {
            group.precision.has_succeeded = true;
            scratch.num_failed_tiles = 0;
            return Some(tried);
        }
        precision = group.precision.step_down(tried);
        scratch.num_failed_tiles += usize::from(precision.is_none());
    }
    None
}

/// Lists the items of a block that one precision leaves in doubt. Returns false when they are too many.
fn sift_block<F: Fold>(
    kernel: Kernel,
    precision: Precision,
    group: &Group,
    block: &Block,
    fold: &F,
    states: &[F::State],
    scratch: &mut Scratch,
) -> bool {
    let Scratch { eight, num_eight, excluded, scores, bars, places, doubts, .. } = scratch;
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
