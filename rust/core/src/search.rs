//! The best items of every user.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use crate::fold::{Fold, Row, Sieve};
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
    /// [`Error::ZeroK`]; [`Error::Rows`] when not all have the rows of the first; [`Error::FoundTwice`];
    /// [`Error::TooFewItems`] when a user has fewer than `k`.
    pub fn merged(of_shards: &[Self], k: usize) -> Result<Self> {
        check_k(k)?;
        let rows = of_shards.first().map_or(0, |found| found.items.rows());
        if let Some(other) = of_shards.iter().find(|found| found.items.rows() != rows) {
            return Err(Error::Rows { name: "found", rows: other.items.rows(), users: rows });
        }
        let best: Result<Vec<Best>> = (0..rows).into_par_iter().map(|row| Best::merged(of_shards, row, k)).collect();
        Ok(Self::from_best(best?))
    }

    fn from_best(best: Vec<Best>) -> Self {
        let sorted: Vec<Vec<Candidate>> = best.into_par_iter().map(|best| best.heap.into_sorted_vec()).collect();
        let flat = || sorted.iter().flatten();
        let items = Ragged::from_lengths(sorted.iter().map(Vec::len), flat().map(|c| c.item).collect());
        Self { items, scores: flat().map(|c| c.score).collect() }
    }

    fn candidates(&self, row: usize) -> impl Iterator<Item = Candidate> {
        let scores = &self.scores[self.items.span(row)];
        self.items.row(row).iter().zip(scores).map(|(item, score)| Candidate { score: *score, item: *item })
    }
}

/// An item with its score. The order is that of the ranking: the better one is the smaller.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    score: f32,
    item: usize,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then(self.item.cmp(&other.item))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Candidate {}

/// The `k` best candidates so far, the worst of them on top of the heap.
struct Best {
    k: usize,
    heap: BinaryHeap<Candidate>,
}

impl Best {
    fn of(k: usize) -> Self {
        Self { k, heap: BinaryHeap::new() }
    }

    fn offer(&mut self, candidate: Candidate) {
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }

    /// The best of one row of what all shards found.
    fn merged(of_shards: &[Found], row: usize, k: usize) -> Result<Self> {
        let mut items: Vec<usize> = of_shards.iter().flat_map(|found| found.items.row(row)).copied().collect();
        items.sort_unstable();
        if let Some(pair) = items.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::FoundTwice { row, item: pair[0] });
        }
        if items.len() < k {
            return Err(Error::TooFewItems { row, left: items.len(), k });
        }
        let mut best = Self::of(k);
        of_shards.iter().flat_map(|found| found.candidates(row)).for_each(|candidate| best.offer(candidate));
        Ok(best)
    }

    /// Whether an item of this score could still enter; an item of a higher index than all before must score more.
    fn may_enter(&self, score: f32) -> bool {
        self.heap.len() < self.k || self.heap.peek().is_some_and(|worst| score > worst.score)
    }
}

/// Once this many times k items were seen, few of those to come are among the best or near them.
const MANY: usize = 20;

/// Keeps the best items that are not excluded.
struct Search<'a> {
    k: usize,
    /// What the index of the first item is to those who asked.
    first_item: usize,
    /// Sorted rows.
    exclude: &'a Ragged,
}

impl Search<'_> {
    fn offer(&self, best: &mut Best, user: usize, item: usize, score: f32) {
        if best.may_enter(score) && self.exclude.row(user).binary_search(&item).is_err() {
            best.offer(Candidate { score, item: self.first_item + item });
        }
    }
}

impl Fold for Search<'_> {
    type State = Best;

    fn start(&self, _: usize) -> Best {
        Best::of(self.k)
    }

    fn take(&self, best: &mut Best, user: usize, first_item: usize, scores: &[f32]) {
        (first_item..).zip(scores).for_each(|(item, score)| self.offer(best, user, item, *score));
    }

    fn sieve(&self, best: &Best, num_before: usize, num_items: usize) -> Sieve {
        match self.k - best.heap.len() {
            0 if num_before >= MANY * self.k => Sieve::Fine,
            missing if missing <= num_items / 4 => Sieve::Coarse,
            _ => Sieve::None,
        }
    }

    fn bars(&self, best: &Best, user: usize, row: &Row, bars: &mut Vec<(f32, f32)>) {
        let worst = best.heap.peek().map_or(f32::INFINITY, |worst| worst.score);
        let low = match self.k - best.heap.len() {
            0 => worst,
            missing => {
                let exclude = self.exclude.row(user);
                worst.min(row.reached_by(missing, |item| exclude.binary_search(&item).is_ok()))
            }
        };
        bars.push((low, f32::INFINITY));
    }

    fn take_sifted(
        &self,
        best: &mut Best,
        user: usize,
        _: usize,
        _: u64,
        doubtful: impl Iterator<Item = (usize, f32)>,
    ) {
        doubtful.for_each(|(item, score)| self.offer(best, user, item, score));
    }

    fn merge(&self, best: &mut Best, other: Best) {
        other.heap.into_iter().for_each(|candidate| best.offer(candidate));
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

    /// The exclusions of this index, as [`Search`] takes them.
    fn checked(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Ragged> {
        check_k(k)?;
        self.check_users(users)?;
        check_rows("exclude", exclude, users)?;
        Ok(exclude.within(self.ids()).sorted_unique())
    }

    fn best(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Found> {
        let search = Search { k, first_item: self.first_item, exclude };
        Ok(Found::from_best(self.fold_scores(users, &search)?))
    }
}

fn check_k(k: usize) -> Result<()> {
    if k == 0 { Err(Error::ZeroK) } else { Ok(()) }
}
