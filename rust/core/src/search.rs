//! The best items of every user.

use std::cmp::Ordering;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;

use crate::fold::{EXCLUDED, Fold, Row, Sieve};
use crate::rank::check_rows;
use crate::{Error, ItemIndex, Matrix, Ragged, Result};

/// The best items of every user, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Their item indexes, a row for each user.
    pub items: Ragged,
    /// Their scores, one for each value of `items`.
    pub scores: Vec<f32>,
}

impl Found {
    /// The `k` best items of every user of all that the shards of a catalog found, by (-score, item index).
    ///
    /// # Errors
    /// [`Error::ZeroK`]; [`Error::Rows`] when not all have the rows of the first; [`Error::NonFiniteScore`];
    /// [`Error::FoundTwice`]; [`Error::TooFewItems`] when a user has fewer than `k`.
    pub fn merged(of_shards: &[Self], k: usize) -> Result<Self> {
        check_k(k)?;
        let rows = of_shards.first().map_or(0, |found| found.items.rows());
        if let Some(other) = of_shards.iter().find(|found| found.items.rows() != rows) {
            return Err(Error::Rows { name: "found", rows: other.items.rows(), users: rows });
        }
        let best: Result<Vec<_>> = (0..rows).into_par_iter().map(|row| Scored::merged(of_shards, row, k)).collect();
        Ok(Self::from_rows(best?.iter().map(|row| row.iter().copied())))
    }

    /// From sorted rows.
    fn from_rows<'a, Row: ExactSizeIterator<Item = Scored>>(rows: impl Iterator<Item = Row> + Clone + 'a) -> Self {
        let flat = || rows.clone().flatten();
        let items = Ragged::from_lengths(rows.clone().map(|row| row.len()), flat().map(|c| c.item).collect());
        Self { items, scores: flat().map(|c| c.score).collect() }
    }

    fn row(&self, row: usize) -> impl Iterator<Item = Scored> {
        let scores = &self.scores[self.items.span(row)];
        // No score is -0, but one from outside may be.
        self.items.row(row).iter().zip(scores).map(|(item, score)| Scored { score: *score + 0.0, item: *item })
    }
}

/// An item with its score. The order is that of the ranking: the better one is the smaller.
#[derive(Debug, Clone, Copy)]
struct Scored {
    score: f32,
    item: usize,
}

impl Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.item.cmp(&other.item))
    }

    /// The `k` best, best first.
    fn best(mut all: Vec<Self>, k: usize) -> Vec<Self> {
        if all.len() > k {
            all.select_nth_unstable_by(k - 1, Self::cmp);
            all.truncate(k);
        }
        all.sort_unstable_by(Self::cmp);
        all
    }

    /// The best of one row of what all shards found.
    fn merged(of_shards: &[Found], row: usize, k: usize) -> Result<Vec<Self>> {
        let mut items: Vec<usize> = of_shards.iter().flat_map(|found| found.items.row(row)).copied().collect();
        items.sort_unstable();
        if let Some(pair) = items.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::FoundTwice { row, item: pair[0] });
        }
        if items.len() < k {
            return Err(Error::TooFewItems { row, left: items.len(), k });
        }
        let all: Vec<Self> = of_shards.iter().flat_map(|found| found.row(row)).collect();
        if let Some(scored) = all.iter().find(|scored| !scored.score.is_finite()) {
            return Err(Error::NonFiniteScore { name: "scores", row, value: scored.score.into() });
        }
        Ok(Self::best(all, k))
    }
}

/// An item of the index and between which scores its own lies: the same two, once it is known.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    item: usize,
    low: f32,
    high: f32,
}

impl Candidate {
    /// As [`Scored::cmp`], of items whose scores are known.
    fn cmp_settled(&self, other: &Self) -> Ordering {
        other.low.total_cmp(&self.low).then(self.item.cmp(&other.item))
    }
}

/// The items that may be among the `k` best of a user, and some that are not.
struct Best {
    candidates: Vec<Candidate>,
    /// What `k` of them surely score: none that scores less need be kept.
    bar: f32,
}

impl Best {
    /// Raises the bar to what `k` candidates surely score, and drops those that surely score less.
    fn raise_bar(&mut self, k: usize) {
        if self.candidates.len() >= k {
            let (_, at_bar, _) = self.candidates.select_nth_unstable_by(k - 1, |a, b| b.low.total_cmp(&a.low));
            self.bar = self.bar.max(at_bar.low);
            self.candidates.retain(|candidate| candidate.high >= self.bar);
        }
    }
}

/// Once this many times k items were seen, few of those to come are among the best or near them.
const MANY: usize = 40;

/// Keeps the items that may be among the best, and scores exactly those alone that are left when all were seen.
struct Search<'a> {
    k: usize,
    index: &'a ItemIndex<'a>,
    users: Matrix<'a>,
}

impl Search<'_> {
    /// More candidates than this are looked through for some to drop.
    fn most(&self) -> usize {
        self.k + self.k / 2 + 16
    }

    /// Candidates come by increasing item, so one that scores no more than the bar comes after `k` others.
    fn offer(&self, best: &mut Best, user: usize, candidates: impl Iterator<Item = Candidate>) {
        for candidate in candidates {
            if candidate.high > best.bar {
                best.candidates.push(candidate);
                if best.candidates.len() > self.most() {
                    best.raise_bar(self.k);
                }
                if best.candidates.len() > self.most() {
                    self.settle(best, user, &mut Scratch::default());
                }
            }
        }
        if best.bar == f32::NEG_INFINITY {
            best.raise_bar(self.k);
        }
    }

    /// Scores the candidates exactly and keeps the `k` best, in any order.
    fn settle(&self, best: &mut Best, user: usize, scratch: &mut Scratch) {
        let is_unknown = |candidate: &&mut Candidate| candidate.low < candidate.high;
        let Scratch { pairs, scores } = scratch;
        pairs.clear();
        pairs.extend(best.candidates.iter_mut().filter(is_unknown).map(|candidate| (user, candidate.item)));
        self.index.prepared.kernel.score_pairs(self.users, self.index.items, pairs, scores);
        for (candidate, score) in best.candidates.iter_mut().filter(is_unknown).zip(&*scores) {
            (candidate.low, candidate.high) = (*score, *score);
        }
        self.index.prepared.num_rescored.fetch_add(scores.len() as u64, Relaxed);
        if best.candidates.len() >= self.k {
            best.candidates.select_nth_unstable_by(self.k - 1, Candidate::cmp_settled);
            best.candidates.truncate(self.k);
            best.bar = best.candidates[self.k - 1].low;
        }
    }

    /// Leaves the best of a user, best first.
    fn finish(&self, best: &mut Best, user: usize, scratch: &mut Scratch) -> Result<()> {
        self.index.interrupt.check()?;
        best.raise_bar(self.k);
        self.settle(best, user, scratch);
        best.candidates.sort_unstable_by(Candidate::cmp_settled);
        Ok(())
    }
}

/// Buffers to score candidates exactly.
#[derive(Default)]
struct Scratch {
    pairs: Vec<(usize, usize)>,
    scores: Vec<f32>,
}

impl Fold for Search<'_> {
    type State = Best;

    const NEEDS_SCORES: bool = false;

    fn start(&self, _: usize) -> Best {
        Best { candidates: Vec::with_capacity((self.most() + 1).min(256)), bar: f32::NEG_INFINITY }
    }

    fn take(&self, best: &mut Best, user: usize, first_item: usize, scores: &[f32]) {
        let scored = (first_item..).zip(scores).filter(|(_, score)| **score > EXCLUDED);
        self.offer(best, user, scored.map(|(item, score)| Candidate { item, low: *score, high: *score }));
    }

    fn sieve(&self, _: usize, best: &Best, num_before: usize, num_items: usize) -> Sieve {
        match self.k.saturating_sub(best.candidates.len()) {
            0 if num_before >= MANY * self.k => Sieve::Fine,
            missing if missing <= num_items / 4 => Sieve::Coarse,
            _ => Sieve::None,
        }
    }

    fn bars(&self, best: &Best, _: usize, row: &Row, bars: &mut Vec<(f32, f32)>) {
        let low = match self.k.saturating_sub(best.candidates.len()) {
            0 => best.bar,
            missing => best.candidates.iter().map(|candidate| candidate.low).fold(row.reached_by(missing), f32::min),
        };
        bars.push((low, f32::INFINITY));
    }

    fn take_sifted(
        &self,
        best: &mut Best,
        user: usize,
        _: usize,
        _: u64,
        doubtful: impl Iterator<Item = (usize, f32, f32)>,
    ) {
        self.offer(best, user, doubtful.map(|(item, low, high)| Candidate { item, low, high }));
    }

    fn merge(&self, best: &mut Best, other: Best) {
        best.candidates.extend(other.candidates);
        best.bar = best.bar.max(other.bar);
        best.raise_bar(self.k);
    }
}

impl ItemIndex<'_> {
    /// The `k` best items of every user by (-score, item index), those of its row of `exclude` left out.
    ///
    /// ```
    /// use langptune_core::{ItemIndex, Matrix, Ragged};
    ///
    /// let items = [2.0, 0.0, 1.0, 1.0, 0.0, 2.0]; // three of two dimensions
    /// let index = ItemIndex::new(Matrix::new(&items, 2))?;
    /// let found = index.search(Matrix::new(&[0.0, 3.0], 2), 2, &Ragged::empty(1))?;
    /// assert_eq!((found.items.row(0), found.scores), (&[2, 1][..], vec![6.0, 3.0]));
    /// # Ok::<(), langptune_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`ItemIndex::candidates`], and [`Error::TooFewItems`] when fewer than `k` are left.
    pub fn search(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Found> {
        let exclude = self.checked(users, k, exclude)?;
        for row in 0..users.rows() {
            let left = self.num_items() - exclude.row(row).len();
            if k > left {
                return Err(Error::TooFewItems { row, left, k });
            }
        }
        self.best(users, k, &exclude)
    }

    /// As [`ItemIndex::search`], for a shard: all items that are left where these are fewer than `k`, and exclusions
    /// of other shards change nothing. [`Found::merged`] makes one of what all shards found.
    ///
    /// # Errors
    /// [`Error::ZeroK`]; [`Error::Dimensions`], [`Error::NonFinite`] and [`Error::Overflow`] for the users;
    /// [`Error::Rows`] when `exclude` has another number of rows; [`Error::Interrupted`].
    pub fn candidates(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Found> {
        self.best(users, k, &self.checked(users, k, exclude)?)
    }

    /// The exclusions of this index, in sorted rows.
    fn checked(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Ragged> {
        check_k(k)?;
        self.check_users(users)?;
        check_rows("exclude", exclude, users)?;
        exclude.sorted_within(self.ids(), self.interrupt)
    }

    fn best(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Found> {
        let search = Search { k, index: self, users };
        let mut best = self.fold_scores(users, exclude, &search)?;
        let all = best.par_iter_mut().enumerate();
        all.try_for_each_init(Scratch::default, |scratch, (user, best)| search.finish(best, user, scratch))?;
        let scored = |c: &Candidate| Scored { score: c.low, item: self.first_item + c.item };
        Ok(Found::from_rows(best.iter().map(|best| best.candidates.iter().map(scored))))
    }
}

fn check_k(k: usize) -> Result<()> {
    if k == 0 { Err(Error::ZeroK) } else { Ok(()) }
}
