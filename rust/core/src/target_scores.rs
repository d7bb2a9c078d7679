//! The rank of each target and its probability under a softmax of the scores, in one pass over the items.

use std::f64::consts::{LN_2, LOG2_E};

use crate::fold::{EXCLUDED, Fold, Row, Sieve};
use crate::log_sum::LogSum;
use crate::rank::Count;
use crate::{Error, ItemIndex, Matrix, Ragged, Result};

/// How well each target scores among all items that are not excluded, one value for each target.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetScores {
    /// 1-based ranks by the total order (-score, item index): whole numbers.
    pub ranks: Vec<f64>,
    /// `ln softmax(score / temperature)`, at most 0.
    pub log_probs: Vec<f64>,
}

/// The smallest temperature: a score of f32 divided by it is far from the limits of f64.
const MIN_TEMPERATURE: f64 = 1e-200;

/// Counts the items above each target of a user, and sums `2^(score * scale)` over all of the user's items.
struct CountAndSum<'a> {
    count: Count<'a>,
    scale: f64,
}

impl Fold for CountAndSum<'_> {
    type State = (Vec<u64>, LogSum);

    fn start(&self, user: usize) -> Self::State {
        (self.count.start(user), LogSum::ZERO)
    }

    fn take(&self, (counts, sum): &mut Self::State, user: usize, first_item: usize, scores: &[f32]) {
        if counts.is_empty() {
            return; // a user without targets
        }
        self.count.take(counts, user, first_item, scores);
        let left = scores.iter().filter(|score| **score > EXCLUDED);
        left.for_each(|score| sum.add(f64::from(*score) * self.scale));
    }

    fn merge(&self, (counts, sum): &mut Self::State, (other_counts, other_sum): Self::State) {
        self.count.merge(counts, other_counts);
        sum.merge(other_sum);
    }

    fn needs_scores(&self, _: usize, _: usize) -> bool {
        true
    }

    /// Every score belongs to the sum, so none is ruled out by a rough one.
    fn sieve(&self, _: usize, _: &Self::State, _: usize, _: usize) -> Sieve {
        Sieve::None
    }

    fn bars(&self, _: &Self::State, _: usize, _: &Row, _: &mut Vec<(f32, f32)>) {
        unreachable!("nothing is sifted");
    }

    fn take_sifted(&self, _: &mut Self::State, _: usize, _: usize, _: u64, _: impl Iterator<Item = (usize, f32, f32)>) {
        unreachable!("nothing is sifted");
    }
}

impl ItemIndex<'_> {
    /// The rank of every target of every user, as [`ItemIndex::rank`] gives it with [`crate::Ties::Index`], and the
    /// logarithm of its probability under the softmax of `score / temperature`, both among all items that are not
    /// excluded for this user. Other targets of the same user count like any item.
    ///
    /// Log-probabilities have an absolute error below 1e-8 plus 1e-15 of `|score| / temperature`, apart from the
    /// rounding of the scores to f32. They have the same bits for any number of threads and any block size.
    ///
    /// ```
    /// use langptune_core::{ItemIndex, Matrix, Ragged};
    ///
    /// let items = [2.0, 0.0, 1.0, 1.0, 0.0, 2.0]; // three of two dimensions
    /// let index = ItemIndex::new(Matrix::new(&items, 2))?;
    /// let targets = Ragged::from_rows(&[vec![1]]);
    /// let exclude = Ragged::from_rows(&[vec![0]]);
    /// let found = index.score_targets(Matrix::new(&[1.0, 0.0], 2), &targets, &exclude, 0.5)?;
    /// assert_eq!(found.ranks, [1.0]);
    /// assert!((found.log_probs[0] - (2_f64.exp() / (2_f64.exp() + 1.0)).ln()).abs() < 1e-8); // scores 1 and 0
    /// # Ok::<(), langptune_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`ItemIndex::rank`], and [`Error::Parameter`] for a temperature that is not a finite number of at least
    /// 1e-200.
    pub fn score_targets(
        &self,
        users: Matrix,
        targets: &Ragged,
        exclude: &Ragged,
        temperature: f64,
    ) -> Result<TargetScores> {
        if !(MIN_TEMPERATURE..f64::INFINITY).contains(&temperature) {
            let range = "pass a finite number above 0 (at least 1e-200); scores are divided by it";
            return Err(Error::Parameter { name: "temperature", value: temperature, range });
        }
        let scale = LOG2_E / temperature;
        let scores = self.score(users, targets)?;
        let exclude = self.checked_exclusions(users, targets, &scores, exclude)?;
        let fold = CountAndSum { count: self.count_by_index(targets, &scores)?, scale };
        let states = self.fold_scores(users, &exclude, &fold)?;
        let mut found = TargetScores { ranks: Vec::with_capacity(scores.len()), log_probs: Vec::new() };
        for (user, (counts, sum)) in states.into_iter().enumerate() {
            let counts = fold.count.counts(user, counts);
            found.ranks.extend(counts.into_iter().map(|count| 1.0 + count as f64));
            let scores = &scores[targets.span(user)];
            found.log_probs.extend(scores.iter().map(|score| LN_2 * sum.log2_share(f64::from(*score) * scale)));
        }
        Ok(found)
    }
}
