//! What a fold is: a state of each user that takes in scores block by block.

use crate::Result;
use crate::filter::ErrorBound;

/// The score of an excluded item: less than any other, because scores are finite.
pub(crate) const EXCLUDED: f32 = f32::NEG_INFINITY;

/// What is computed from the scores of each user: a state that takes in the items block by block.
///
/// A state takes in its items in increasing order. The number of threads decides how states are split and merged, and
/// scores come exact or sifted, whichever is faster. The result must depend on neither. Items are counted from the
/// first item of the index.
pub(crate) trait Fold: Sync {
    type State: Send;

    /// Whether this many sifted items, for this many users, must come with their exact scores.
    fn needs_scores(&self, num_items: usize, num_users: usize) -> bool;

    fn start(&self, user: usize) -> Self::State;

    /// Takes in the exact scores of the items from `first_item` on. Some of them may be [`EXCLUDED`].
    fn take(&self, state: &mut Self::State, user: usize, first_item: usize, scores: &[f32]);

    /// How well the next `num_items` items can be sifted, after `num_before` items.
    fn sieve(&self, user: usize, state: &Self::State, num_before: usize, num_items: usize) -> Sieve;

    /// The pairs of scores (low, high) that the same items are sifted by.
    fn bars(&self, state: &Self::State, user: usize, row: &Row, bars: &mut Vec<(f32, f32)>);

    /// Takes in the items sifted by one of the bars.
    ///
    /// `num_above` counts the items that surely score more than `high`. `doubtful` holds all other items that do not
    /// surely score less than `low`, in increasing order, each with two values that its score lies between. Both values
    /// are the exact score where the fold needs it, and where it was computed.
    fn take_sifted(
        &self,
        state: &mut Self::State,
        user: usize,
        bar: usize,
        num_above: u64,
        doubtful: impl Iterator<Item = (usize, f32, f32)>,
    );

    /// Completes the states of some users after all items of a part.
    fn settle(&self, _states: &mut [Self::State], _first_user: usize) -> Result<()> {
        Ok(())
    }

    /// Takes in a state of the same user and other items. Both states were settled.
    fn merge(&self, state: &mut Self::State, other: Self::State);
}

/// How well the next items can be sifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sieve {
    /// Hardly: most items need their exact score.
    None,
    /// By a score that many items will pass.
    Coarse,
    /// By a score that decides about most items.
    Fine,
}

/// Approximate scores of one user with the items of a block.
pub(crate) struct Row<'a> {
    pub(super) scores: &'a [f32],
    pub(super) norms: &'a [f32],
    pub(super) bound: &'a ErrorBound,
    pub(super) slope: f32,
}

impl Row<'_> {
    /// The largest score that at least `count` of the items surely reach. It is minus infinity where there are fewer
    /// items, and where f32 cannot hold it.
    pub(crate) fn reached_by(&self, count: usize) -> f32 {
        let least = self.scores.iter().zip(self.norms).map(|(score, norm)| score - self.slope * norm);
        let mut least: Vec<f32> = least.map(|least| if least.is_finite() { least } else { EXCLUDED }).collect();
        if least.len() < count {
            return f32::NEG_INFINITY;
        }
        self.bound.reached(*least.select_nth_unstable_by(count - 1, |a, b| b.total_cmp(a)).1)
    }
}
