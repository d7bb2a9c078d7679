//! The choice of the precision that a tile of users is sifted with.

use super::state::Sieve;
use crate::filter::Precision;

/// The precisions that are still tried for a tile of users. One that leaves too many items in doubt is given up.
pub(super) struct PrecisionChoice {
    precisions: &'static [Precision],
    /// Whether the precision left few doubts in the previous block.
    pub(super) has_succeeded: bool,
    /// Counts down the blocks to score exactly.
    pause: usize,
    next_pause: usize,
}

impl PrecisionChoice {
    /// After this many failed tiles in a row, the items of the block are the cause, and not the users of a tile.
    pub(super) const MAX_FAILED_TILES: usize = 2;

    pub(super) fn new(precisions: &'static [Precision]) -> Self {
        Self { precisions, has_succeeded: false, pause: 0, next_pause: 4 }
    }

    /// The precision to try first on a block.
    pub(super) fn first(&mut self, sieve: Sieve) -> Option<Precision> {
        self.pause = self.pause.saturating_sub(1);
        match sieve {
            _ if self.pause > 0 => None,
            Sieve::None => None,
            Sieve::Coarse => self.precisions.last().copied(),
            Sieve::Fine => self.precisions.first().copied(),
        }
    }

    /// What to try after `precision` failed, on this block and on later ones: 16 bits after 8, and after those exact
    /// scores for some blocks, twice as many each time.
    pub(super) fn step_down(&mut self, precision: Precision) -> Option<Precision> {
        self.has_succeeded = false;
        if precision == Precision::Eight {
            self.precisions = &[Precision::Sixteen];
            return Some(Precision::Sixteen);
        }
        self.pause = self.next_pause;
        self.next_pause *= 2;
        None
    }

    /// The largest number of doubtful pairs for which a precision is still faster than the next one.
    ///
    /// With few dimensions, scoring a single pair costs mostly overhead, so the share of doubtful pairs must be
    /// smaller. A fold that scores its doubts later could tolerate more of them, but in the end it scores those that
    /// remain too.
    pub(super) fn max_doubts(precision: Precision, dim: usize, num_pairs: usize) -> usize {
        let (share, overhead) = match precision {
            Precision::Eight => (0.12, 48.0),
            Precision::Sixteen => (0.18, 32.0),
        };
        16 + (share * dim as f64 / (dim as f64 + overhead) * num_pairs as f64) as usize
    }
}
