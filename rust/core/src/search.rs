//! The best items of every user.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rayon::prelude::*;

use crate::fold::{EXCLUDED, Fold, Row, Sieve};
use crate::rank::check_rows;
use crate::{Error, Interrupt, ItemIndex, Matrix, Ragged, Result};

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
        let best: Result<Vec<Best>> = (0..rows).into_par_iter().map(|row| Best::merged(of_shards, row, k)).collect();
        Self::from_best(best?, Interrupt::NEVER)
    }

    fn from_best(best: Vec<Best>, interrupt: Interrupt) -> Result<Self> {
        let sorted = |best: Best| interrupt.check().map(|()| best.heap.into_sorted_vec());
        let sorted = best.into_par_iter().map(sorted).collect::<Result<Vec<Vec<Candidate>>>>()?;
        let flat = || sorted.iter().flatten();
        let items = Ragged::from_lengths(sorted.iter().map(Vec::len), flat().map(|c| c.item).collect());
        Ok(Self { items, scores: flat().map(|c| c.score).collect() })
    }

    fn candidates(&self, row: usize) -> impl Iterator<Item = Candidate> {
        let scores = &self.scores[self.items.span(row)];
        // No score is -0, but one from outside may be.
        self.items.row(row).iter().zip(scores).map(|(item, score)| Candidate { score: *score + 0.0, item: *item })
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
        for candidate in of_shards.iter().flat_map(|found| found.candidates(row)) {
            if !candidate.score.is_finite() {
                return Err(Error::NonFiniteScore { name: "scores", row, value: candidate.score.into() });
            }
            best.offer(candidate);
        }
        Ok(best)
    }

    /// Whether an item of this score could still enter; an item of a higher index than all before must score more.
    fn may_enter(&self, score: f32) -> bool {
        score > if self.heap.len() < self.k { EXCLUDED } else { self.worst() }
    }

    /// The score of the worst, once there are k.
    fn worst(&self) -> f32 {
        self.heap.peek().map_or(f32::INFINITY, |worst| worst.score)
    }
}

/// Once this many times k items were seen, few of those to come are among the best or near them.
const MANY: usize = 40;

/// Keeps the best items.
struct Search {
    k: usize,
    /// What the index of the first item is to those who asked.
    first_item: usize,
}

impl Search {
    fn offer(&self, best: &mut Best, item: usize, score: f32) {
        if best.may_enter(score) {
            best.offer(Candidate { score, item: self.first_item + item });
        }
    }
}

impl Fold for Search {
    type State = Best;

    fn start(&self, _: usize) -> Best {
        Best::of(self.k)
    }

    fn take(&self, best: &mut Best, _: usize, first_item: usize, scores: &[f32]) {
        (first_item..).zip(scores).for_each(|(item, score)| self.offer(best, item, *score));
    }

    fn sieve(&self, _: usize, best: &Best, num_before: usize, num_items: usize) -> Sieve {
        match self.k - best.heap.len() {
            0 if num_before >= MANY * self.k => Sieve::Fine,
            missing if missing <= num_items / 4 => Sieve::Coarse,
            _ => Sieve::None,
        }
    }

    fn bars(&self, best: &Best, _: usize, row: &Row, bars: &mut Vec<(f32, f32)>) {
        let low = match self.k - best.heap.len() {
            0 => best.worst(),
            missing => best.worst().min(row.reached_by(missing)),
        };
        bars.push((low, f32::INFINITY));
    }

    fn take_sifted(&self, best: &mut Best, _: usize, _: usize, _: u64, doubtful: impl Iterator<Item = (usize, f32)>) {
        doubtful.for_each(|(item, score)| self.offer(best, item, score));
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

    /// The exclusions of this index, in sorted rows.
    fn checked(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Ragged> {
        check_k(k)?;
        self.check_users(users)?;
        check_rows("exclude", exclude, users)?;
        exclude.sorted_within(self.ids(), self.interrupt)
    }

    fn best(&self, users: Matrix, k: usize, exclude: &Ragged) -> Result<Found> {
        let search = Search { k, first_item: self.first_item };
        Found::from_best(self.fold_scores(users, exclude, &search)?, self.interrupt)
    }
}

fn check_k(k: usize) -> Result<()> {
    if k == 0 { Err(Error::ZeroK) } else { Ok(()) }
}
