//! The best items of every user.

use std::cmp::Ordering;
use std::sync::atomic::Ordering::Relaxed;

use rayon::prelude::*;

use crate::fold::{Fold, Row, Sieve};
use crate::{Error, ItemIndex, Matrix, Ragged, Result};

/// The best items of every user, in decreasing order of score.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Their item indexes, with a row for each user.
    pub items: Ragged,
    /// Their scores, one for each value of `items`.
    pub scores: Vec<f32>,
}

impl Found {
    /// The `k` best items of every user, by (-score, item index), among all items that the shards of a catalog found.
    ///
    /// # Errors
    /// [`Error::ZeroK`]; [`Error::Rows`] when shards have different numbers of rows; [`Error::NonFiniteScore`];
    /// [`Error::FoundTwice`]; [`Error::TooFewItems`] when a user has fewer than `k` items.
    pub fn merged(shards: &[Self], k: usize) -> Result<Self> {
        check_k(k)?;
        let rows = shards.first().map_or(0, |found| found.items.rows());
        if let Some(other) = shards.iter().find(|found| found.items.rows() != rows) {
            return Err(Error::Rows { name: "found", rows: other.items.rows(), users: rows });
        }
        let best: Vec<Result<Best>> = (0..rows).into_par_iter().map(|row| Best::merged(shards, row, k)).collect();
        let best: Result<Vec<Best>> = best.into_iter().collect(); // the error of the first row that has one
        Ok(Self::from_sorted(&best?, 0))
    }

    /// From sorted candidates with known scores. `first_item` is the first item of their index.
    fn from_sorted(best: &[Best], first_item: usize) -> Self {
        let flat = || best.iter().flat_map(|best| &best.candidates);
        let lengths = best.iter().map(|best| best.candidates.len());
        let items = Ragged::from_lengths(lengths, flat().map(|candidate| first_item + candidate.item).collect());
        Self { items, scores: flat().map(|candidate| candidate.low).collect() }
    }

    fn row(&self, row: usize) -> impl Iterator<Item = Candidate> {
        let scores = &self.scores[self.items.span(row)];
        // The index never scores -0, but scores from outside may be -0.
        let scored = self.items.row(row).iter().zip(scores);
        scored.map(|(item, score)| Candidate { item: *item, low: *score + 0.0, high: *score + 0.0 })
    }
}

/// An item of the index and two values that its score lies between. They are equal once the score is known.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    item: usize,
    low: f32,
    high: f32,
}

impl Candidate {
    /// The order of the ranking for items with known scores: the better item is the smaller one.
    fn cmp(&self, other: &Self) -> Ordering {
        other.low.total_cmp(&self.low).then(self.item.cmp(&other.item))
    }
}

/// The items that may be among the `k` best of a user, and some others.
struct Best {
    candidates: Vec<Candidate>,
    /// What `k` of them surely score. An item that scores less need not be kept.
    bar: f32,
}

impl Best {
    /// The best items of one row among those that all shards found, sorted.
    fn merged(shards: &[Found], row: usize, k: usize) -> Result<Self> {
        let mut items: Vec<usize> = shards.iter().flat_map(|found| found.items.row(row)).copied().collect();
        items.sort_unstable();
        if let Some(pair) = items.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::FoundTwice { row, item: pair[0] });
        }
        if items.len() < k {
            return Err(Error::TooFewItems { row, left: items.len(), k });
        }
        let candidates: Vec<Candidate> = shards.iter().flat_map(|found| found.row(row)).collect();
        if let Some(candidate) = candidates.iter().find(|candidate| !candidate.low.is_finite()) {
            return Err(Error::NonFiniteScore { name: "scores", row, value: candidate.low.into() });
        }
        let mut best = Self { candidates, bar: f32::NEG_INFINITY };
        best.keep(k);
        best.candidates.sort_unstable_by(Candidate::cmp);
        Ok(best)
    }

    /// Raises the bar to what `k` candidates surely score, and drops candidates that surely score less.
    fn raise_bar(&mut self, k: usize) {
        if self.candidates.len() >= k {
            let (_, at_bar, _) = self.candidates.select_nth_unstable_by(k - 1, |a, b| b.low.total_cmp(&a.low));
            self.bar = self.bar.max(at_bar.low);
            self.candidates.retain(|candidate| candidate.high >= self.bar);
        }
    }

    /// Keeps the `k` best candidates, in any order. All scores must be known.
    fn keep(&mut self, k: usize) {
        if self.candidates.len() >= k {
            self.candidates.select_nth_unstable_by(k - 1, Candidate::cmp);
            self.candidates.truncate(k);
            self.bar = self.candidates[k - 1].low;
        }
    }
}

/// After this many times `k` items, few later items are among the best or near them.
const MANY_TIMES_K: usize = 40;

/// The most candidates that are scored exactly at a time, unless a single user has more.
const MAX_UNKNOWN: usize = 1 << 18;

/// Keeps the items that may be among the best. Those that are left after the last item are scored exactly, or earlier
/// where they become too many.
struct Search<'a> {
    /// At most the number of items.
    k: usize,
    index: &'a ItemIndex<'a>,
    users: Matrix<'a>,
}

impl Search<'_> {
    /// How many candidates beyond `k` a user may have before some of them are dropped.
    fn slack(&self) -> usize {
        self.k / 2 + 16
    }

    /// Takes in candidates in increasing order of item. A candidate that scores no more than the bar therefore ranks
    /// below `k` others.
    fn offer(&self, best: &mut Best, user: usize, candidates: impl Iterator<Item = Candidate>) {
        for candidate in candidates {
            if candidate.high <= best.bar {
                continue; // excluded items score less than any bar
            }
            best.candidates.push(candidate);
            if best.candidates.len() > self.k + self.slack() {
                best.raise_bar(self.k);
                if best.candidates.len() > self.k + self.slack() / 2 {
                    self.settle_some(std::slice::from_mut(best), user);
                }
            }
        }
        if best.bar == f32::NEG_INFINITY {
            best.raise_bar(self.k);
        }
    }

    /// Scores the candidates of some users exactly and keeps the `k` best of each user.
    ///
    /// Candidates are scored in increasing order of item, so that an item of several users is read once, and items on
    /// disk are read in order.
    fn settle_some(&self, bests: &mut [Best], first_user: usize) {
        let mut unknown = Vec::new();
        for (number, best) in bests.iter().enumerate() {
            let places = best.candidates.iter().enumerate().filter(|(_, candidate)| candidate.low < candidate.high);
            unknown.extend(places.map(|(place, candidate)| (candidate.item, number, place)));
        }
        unknown.sort_unstable();
        let pairs: Vec<(usize, usize)> = unknown.iter().map(|(item, number, _)| (first_user + number, *item)).collect();
        let mut scores = Vec::new();
        self.index.prepared.kernel.score_pairs(self.users, self.index.items, &pairs, &mut scores);
        for (&(_, number, place), score) in unknown.iter().zip(&scores) {
            let candidate = &mut bests[number].candidates[place];
            (candidate.low, candidate.high) = (*score, *score);
        }
        self.index.prepared.num_rescored.fetch_add(scores.len() as u64, Relaxed);
        bests.iter_mut().for_each(|best| best.keep(self.k));
    }
}

impl Fold for Search<'_> {
    type State = Best;

    fn start(&self, _: usize) -> Best {
        let capacity = (self.k + self.slack() + 1).min(256);
        Best { candidates: Vec::with_capacity(capacity), bar: f32::NEG_INFINITY }
    }

    fn take(&self, best: &mut Best, user: usize, first_item: usize, scores: &[f32]) {
        let candidate = |(item, score): (usize, &f32)| Candidate { item, low: *score, high: *score };
        self.offer(best, user, (first_item..).zip(scores).map(candidate));
    }

    /// Where more items come than can be kept, most of them are scored in the end, and scoring them together is faster.
    fn needs_scores(&self, num_items: usize, num_users: usize) -> bool {
        num_items > (self.k + self.slack()) * num_users
    }

    fn sieve(&self, _: usize, best: &Best, num_before: usize, num_items: usize) -> Sieve {
        match self.k.saturating_sub(best.candidates.len()) {
            0 if num_before >= MANY_TIMES_K * self.k => Sieve::Fine,
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

    fn settle(&self, bests: &mut [Best], first_user: usize) -> Result<()> {
        let num_users = (MAX_UNKNOWN / (self.k + self.slack())).max(1);
        for (number, bests) in bests.chunks_mut(num_users).enumerate() {
            self.index.interrupt.check()?;
            bests.iter_mut().for_each(|best| best.raise_bar(self.k));
            self.settle_some(bests, first_user + number * num_users);
            bests.iter_mut().for_each(|best| best.candidates.shrink_to_fit());
        }
        Ok(())
    }

    fn merge(&self, best: &mut Best, other: Best) {
        best.candidates.extend(other.candidates);
        best.keep(self.k);
    }
}

impl ItemIndex<'_> {
    /// The `k` best items of every user by (-score, item index), without the items in the user's row of `exclude`.
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
    /// Those of [`ItemIndex::candidates`], and [`Error::TooFewItems`] when fewer than `k` items are left.
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

    /// Like [`ItemIndex::search`], for a shard. It returns all items that are left where they are fewer than `k`.
    /// Exclusions of other shards change nothing. [`Found::merged`] merges what all shards found.
    ///
    /// # Errors
    /// [`Error::ZeroK`]; [`Error::Dimensions`], [`Error::NonFinite`] and [`Error::Overflow`] for the users;
    /// [`Error::Rows`] when `exclude` has another number of rows; [`Error::Interrupted`].
    pub fn candidates(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Found> {
        self.best(users, k, &self.checked(users, k, exclude)?)
    }

    /// Checks the arguments and returns the exclusions of this index in sorted rows.
    fn checked(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Ragged> {
        check_k(k)?;
        self.check_users(users)?;
        exclude.check_rows("exclude", users.rows())?;
        exclude.sorted_within(self.ids(), self.interrupt)
    }

    fn best(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Found> {
        let search = Search { k: k.min(self.num_items()), index: self, users };
        let mut best = self.fold_scores(users, exclude, &search)?;
        best.par_iter_mut().try_for_each(|best| {
            self.interrupt.check()?;
            best.candidates.sort_unstable_by(Candidate::cmp);
            Ok(())
        })?;
        Ok(Found::from_sorted(&best, self.first_item))
    }
}

fn check_k(k: usize) -> Result<()> {
    if k == 0 { Err(Error::ZeroK) } else { Ok(()) }
}
