//! The rank of each target among all items that are not excluded.

use std::cmp::Ordering;

use rayon::prelude::*;

use crate::fold::{Fold, Row, Sieve};
use crate::{Error, Interrupt, ItemIndex, Matrix, Ragged, Result, Ties, exact};

/// What an item must score to rank above a target. Items before `split` win ties: they need at least `score`. Items
/// from `split` on need more than `score`.
#[derive(Debug, Clone, Copy)]
struct Bar {
    score: f32,
    split: usize,
}

/// The most bars of a user that are compared with a score one by one. More bars are sorted and searched by bisection.
const MAX_UNSORTED_BARS: usize = 128;

impl Bar {
    /// Orders bars by how hard they are to pass: an item that passes a bar passes every lower bar.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_score = self.score.partial_cmp(&other.score).expect("scores are finite");
        by_score.then(other.split.cmp(&self.split))
    }

    fn is_passed(&self, item: usize, score: f32) -> bool {
        score > self.score || (score == self.score && item < self.split)
    }

    /// Number of scores that pass. The scores are those of the items from `first_item` on.
    fn count(&self, first_item: usize, scores: &[f32]) -> u64 {
        let (below, from) = scores.split_at(self.split.clamp(first_item, first_item + scores.len()) - first_item);
        let at_least: u32 = below.iter().map(|score| u32::from(*score >= self.score)).sum();
        let more: u32 = from.iter().map(|score| u32::from(*score > self.score)).sum();
        u64::from(at_least) + u64::from(more)
    }
}

/// Counts the items that pass each bar of a user.
pub(crate) struct Count<'a> {
    targets: &'a Ragged,
    /// One bar for each target.
    bars: Vec<Bar>,
    /// The sorted bars of each user with many bars; empty for other users.
    sorted_bars: Vec<Vec<Bar>>,
}

impl<'a> Count<'a> {
    fn new(targets: &'a Ragged, bars: Vec<Bar>, interrupt: Interrupt) -> Result<Self> {
        let sort_bars = |user| {
            interrupt.check()?;
            let mut sorted = Vec::new();
            if targets.row(user).len() > MAX_UNSORTED_BARS {
                sorted.extend_from_slice(&bars[targets.span(user)]);
                sorted.sort_unstable_by(Bar::cmp);
            }
            Ok(sorted)
        };
        let sorted_bars = (0..targets.rows()).into_par_iter().map(sort_bars).collect::<Result<_>>()?;
        Ok(Self { targets, bars, sorted_bars })
    }

    fn bars(&self, user: usize) -> &[Bar] {
        &self.bars[self.targets.span(user)]
    }

    /// The number of items that pass each bar of a user, from the state after all items.
    pub(crate) fn counts(&self, user: usize, mut counts: Vec<u64>) -> Vec<u64> {
        let sorted = &self.sorted_bars[user];
        if sorted.is_empty() {
            return counts;
        }
        (1..counts.len()).rev().for_each(|at| counts[at - 1] += counts[at]);
        self.bars(user).iter().map(|bar| counts[sorted.partition_point(|other| other.cmp(bar).is_lt())]).collect()
    }
}

impl Fold for Count<'_> {
    /// The number of items that pass each bar. With sorted bars, each item counts only for the highest bar that it
    /// passes.
    type State = Vec<u64>;

    fn start(&self, user: usize) -> Vec<u64> {
        vec![0; self.bars(user).len()]
    }

    fn take(&self, counts: &mut Vec<u64>, user: usize, first_item: usize, scores: &[f32]) {
        let sorted = &self.sorted_bars[user];
        if sorted.is_empty() {
            for (count, bar) in counts.iter_mut().zip(self.bars(user)) {
                *count += bar.count(first_item, scores);
            }
            return;
        }
        for (item, score) in (first_item..).zip(scores) {
            let num_passed = sorted.partition_point(|bar| bar.is_passed(item, *score));
            if let Some(highest) = num_passed.checked_sub(1) {
                counts[highest] += 1;
            }
        }
    }

    fn needs_scores(&self, _: usize, _: usize) -> bool {
        true
    }

    fn sieve(&self, user: usize, _: &Vec<u64>, _: usize, _: usize) -> Sieve {
        if self.sorted_bars[user].is_empty() { Sieve::Fine } else { Sieve::None }
    }

    fn bars(&self, _: &Vec<u64>, user: usize, _: &Row, bars: &mut Vec<(f32, f32)>) {
        bars.extend(self.bars(user).iter().map(|bar| (bar.score, bar.score)));
    }

    fn take_sifted(
        &self,
        counts: &mut Vec<u64>,
        user: usize,
        bar: usize,
        num_above: u64,
        doubtful: impl Iterator<Item = (usize, f32, f32)>,
    ) {
        let passed = &self.bars(user)[bar];
        counts[bar] += num_above + doubtful.filter(|(item, score, _)| passed.is_passed(*item, *score)).count() as u64;
    }

    fn merge(&self, counts: &mut Vec<u64>, other: Vec<u64>) {
        counts.iter_mut().zip(other).for_each(|(count, other)| *count += other);
    }
}

impl ItemIndex<'_> {
    /// The 1-based rank of every target of every user among the items that are not excluded for this user.
    ///
    /// `targets` and `exclude` hold a row of item indexes for every user. Returns one rank for each value of `targets`.
    /// Other targets of the same user count like any item. Ranks are whole numbers, except with [`Ties::Mean`], where
    /// they may be halves.
    ///
    /// ```
    /// use langptune_core::{ItemIndex, Matrix, Ragged, Ties};
    ///
    /// let items = [2.0, 0.0, 1.0, 1.0, 0.0, 2.0]; // three of two dimensions
    /// let index = ItemIndex::new(Matrix::new(&items, 2))?;
    /// let users = Matrix::new(&[1.0, 0.0, 0.0, 3.0], 2);
    /// let targets = Ragged::from_rows(&[vec![1], vec![0, 1]]);
    /// let exclude = Ragged::from_rows(&[vec![0], vec![]]);
    /// assert_eq!(index.rank(users, &targets, &exclude, Ties::Index)?, [1.0, 3.0, 2.0]);
    /// # Ok::<(), langptune_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`ItemIndex::count_above`]; [`Error::Unscored`] for a target that this index does not hold.
    pub fn rank(&self, users: Matrix, targets: &Ragged, exclude: &Ragged, ties: Ties) -> Result<Vec<f64>> {
        let scores = self.score(users, targets)?;
        let above = self.above(users, targets, &scores, exclude, ties)?;
        Ok(above.into_iter().map(|count| 1.0 + count).collect())
    }

    /// The score of every target; NaN for a target that this index does not hold.
    ///
    /// # Errors
    /// [`Error::Dimensions`], [`Error::NonFinite`] and [`Error::Overflow`] for the users; [`Error::Rows`] when
    /// `targets` has another number of rows.
    pub fn score(&self, users: Matrix, targets: &Ragged) -> Result<Vec<f32>> {
        self.check_users(users)?;
        targets.check_rows("targets", users.rows())?;
        let score = |user, target: usize| {
            if self.ids().contains(&target) { self.score_of(users, user, target - self.first_item) } else { f32::NAN }
        };
        let row_scores = |user| {
            self.interrupt.check()?;
            Ok(targets.row(user).iter().map(|target| score(user, *target)).collect())
        };
        let scores = (0..users.rows()).into_par_iter().map(row_scores).collect::<Result<Vec<Vec<f32>>>>()?;
        Ok(scores.concat())
    }

    /// The number of items of this index that rank above each target of each user, without the items in the user's row
    /// of `exclude`.
    ///
    /// A shard counts for the targets of all shards. `scores` holds the score that each target has in its own shard.
    /// The rank of a target is 1 plus the counts of all shards. Exclusions of other shards change nothing. Returns one
    /// count for each value of `targets`. Counts are whole numbers, except with [`Ties::Mean`], which takes the mean of
    /// the counts with [`Ties::Min`] and [`Ties::Max`].
    ///
    /// # Errors
    /// Those of [`ItemIndex::score`], and [`Error::Rows`] for `exclude`; [`Error::PerTarget`], [`Error::Unscored`] and
    /// [`Error::OtherScore`] for the scores; [`Error::DuplicateTarget`] and [`Error::ExcludedTarget`];
    /// [`Error::Interrupted`].
    pub fn count_above(
        &self,
        users: Matrix,
        targets: &Ragged,
        scores: &[f32],
        exclude: &Ragged,
        ties: Ties,
    ) -> Result<Vec<f64>> {
        let own = self.score(users, targets)?;
        check_scores(targets, scores)?;
        if let Some(at) = (0..own.len()).find(|at| !own[*at].is_nan() && own[*at] != scores[*at]) {
            let (row, item) = (targets.row_of(at), targets.values()[at]);
            return Err(Error::OtherScore { row, item, score: scores[at], own: own[at] });
        }
        self.above(users, targets, scores, exclude, ties)
    }

    /// Like [`ItemIndex::count_above`], for scores that are known to be those of this index.
    fn above(&self, users: Matrix, targets: &Ragged, scores: &[f32], exclude: &Ragged, ties: Ties) -> Result<Vec<f64>> {
        let exclude = self.checked_exclusions(users, targets, scores, exclude)?;
        let num_passing = |count: Result<Count>| {
            let count = count?;
            let counts = self.fold_scores(users, &exclude, &count)?;
            let by_bar = |(user, counts)| count.counts(user, counts);
            Ok(counts.into_par_iter().enumerate().flat_map_iter(by_bar).collect::<Vec<u64>>())
        };
        let best = || num_passing(self.count(targets, scores, |_| 0));
        // With these bars a target also counts itself.
        let worst = || {
            let counts =
                num_passing(self.count(targets, scores, |_| self.num_items()))?.into_iter().zip(targets.values());
            Ok(counts.map(|(count, target)| count - u64::from(self.ids().contains(target))).collect::<Vec<u64>>())
        };
        let counts = match ties {
            Ties::Index => num_passing(self.count_by_index(targets, scores))?,
            Ties::Min => best()?,
            Ties::Max => worst()?,
            Ties::Mean => {
                let both = best()?.into_iter().zip(worst()?);
                return Ok(both.map(|(best, worst)| (best + worst) as f64 / 2.0).collect());
            }
        };
        Ok(counts.into_iter().map(|count| count as f64).collect())
    }

    /// The exclusions in sorted rows. Refuses them, the targets and their scores as [`ItemIndex::count_above`] does.
    pub(crate) fn checked_exclusions(
        &self,
        users: Matrix,
        targets: &Ragged,
        scores: &[f32],
        exclude: &Ragged,
    ) -> Result<Ragged> {
        exclude.check_rows("exclude", users.rows())?;
        check_scores(targets, scores)?;
        let exclude = exclude.sorted_within(0..usize::MAX, self.interrupt)?;
        check_targets(targets, &exclude, self.interrupt)?;
        Ok(exclude)
    }

    /// Counts the items above each target by [`Ties::Index`].
    pub(crate) fn count_by_index<'t>(&self, targets: &'t Ragged, scores: &[f32]) -> Result<Count<'t>> {
        self.count(targets, scores, |target| target.saturating_sub(self.first_item))
    }

    /// Counts the items above each target; `split_of` gives the first item that loses a tie against it.
    fn count<'t>(&self, targets: &'t Ragged, scores: &[f32], split_of: impl Fn(usize) -> usize) -> Result<Count<'t>> {
        let scored = targets.values().iter().zip(scores);
        let bars = scored.map(|(target, score)| Bar { score: *score, split: split_of(*target) }).collect();
        Count::new(targets, bars, self.interrupt)
    }

    fn score_of(&self, users: Matrix, user: usize, item: usize) -> f32 {
        exact::dot(users.row(user), self.items.row(item))
    }
}

/// Refuses scores that are not one finite score for each target.
fn check_scores(targets: &Ragged, scores: &[f32]) -> Result<()> {
    let items = targets.values();
    if scores.len() != items.len() {
        return Err(Error::PerTarget { scores: scores.len(), targets: items.len() });
    }
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::Unscored { row: targets.row_of(at), item: items[at], score: scores[at] }),
    }
}

/// Refuses a row that holds a target twice, or a target that is excluded. The rows of `exclude` are sorted.
fn check_targets(targets: &Ragged, exclude: &Ragged, interrupt: Interrupt) -> Result<()> {
    for row in 0..targets.rows() {
        interrupt.check()?;
        let mut sorted = targets.row(row).to_vec();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::DuplicateTarget { row, item: pair[0] });
        }
        if let Some(&item) = targets.row(row).iter().find(|item| exclude.row(row).binary_search(item).is_ok()) {
            return Err(Error::ExcludedTarget { row, item });
        }
    }
    Ok(())
}
