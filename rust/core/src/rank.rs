//! The rank of each target among all items that are not excluded.

use rayon::prelude::*;

use crate::index::{Fold, Row, Sieve};
use crate::{Error, ItemIndex, Matrix, Ragged, Result, Ties, kernel};

/// What an item has to score to rank above a target: at least `score` below the item index `split`, more from it on.
#[derive(Debug, Clone, Copy)]
struct Bar {
    score: f32,
    split: usize,
}

impl Bar {
    fn is_passed(&self, item: usize, score: f32) -> bool {
        score > self.score || (score == self.score && item < self.split)
    }

    /// Number of the scores, of items from `first_item` on, that pass.
    fn count(&self, first_item: usize, scores: &[f32]) -> u64 {
        let (below, from) = scores.split_at(self.split.clamp(first_item, first_item + scores.len()) - first_item);
        let at_least: u32 = below.iter().map(|score| u32::from(*score >= self.score)).sum();
        let more: u32 = from.iter().map(|score| u32::from(*score > self.score)).sum();
        u64::from(at_least) + u64::from(more)
    }
}

/// Counts the items that pass each bar of a user.
struct Count<'a> {
    targets: &'a Ragged,
    /// One for each target.
    bars: Vec<Bar>,
}

impl Count<'_> {
    fn bars(&self, user: usize) -> &[Bar] {
        &self.bars[self.targets.span(user)]
    }
}

impl Fold for Count<'_> {
    type State = Vec<u64>;

    fn start(&self, user: usize) -> Vec<u64> {
        vec![0; self.bars(user).len()]
    }

    fn take(&self, counts: &mut Vec<u64>, user: usize, first_item: usize, scores: &[f32]) {
        for (count, bar) in counts.iter_mut().zip(self.bars(user)) {
            *count += bar.count(first_item, scores);
        }
    }

    fn sieve(&self, _: &Vec<u64>, _: usize, _: usize) -> Sieve {
        Sieve::Fine
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
        doubtful: impl Iterator<Item = (usize, f32)>,
    ) {
        let passed = &self.bars(user)[bar];
        counts[bar] += num_above + doubtful.filter(|(item, score)| passed.is_passed(*item, *score)).count() as u64;
    }

    fn merge(&self, counts: &mut Vec<u64>, other: Vec<u64>) {
        counts.iter_mut().zip(other).for_each(|(count, other)| *count += other);
    }
}

impl ItemIndex<'_> {
    /// The 1-based rank of every target of every user among the items that are not excluded for this user.
    ///
    /// `targets` and `exclude` hold a row of item indexes for every user. Returns one rank for each value of
    /// `targets`; other targets of the same user count like any item. Ranks are whole numbers but with [`Ties::Mean`],
    /// where they may be halves.
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
    /// [`Error::Dimensions`], [`Error::NonFinite`] and [`Error::Overflow`] for the users; [`Error::Rows`] when
    /// `targets` or `exclude` have another number of rows; [`Error::DuplicateTarget`] and [`Error::ExcludedTarget`];
    /// [`Error::Interrupted`].
    pub fn rank(&self, users: Matrix, targets: &Ragged, exclude: &Ragged, ties: Ties) -> Result<Vec<f64>> {
        self.check_users(users)?;
        check_rows("targets", targets, users)?;
        check_rows("exclude", exclude, users)?;
        let exclude = exclude.sorted_unique();
        check_targets(targets, &exclude)?;
        let ranks_at = |split_of: &(dyn Fn(usize) -> usize + Sync), own: u64| -> Result<Vec<f64>> {
            let counts = self.counts_above(users, targets, &exclude, split_of)?;
            Ok(counts.into_iter().map(|count| (1 + count - own) as f64).collect())
        };
        // With the bar at "at least", a target counts itself, which `own` takes back.
        let all = self.num_items();
        match ties {
            Ties::Index => ranks_at(&|target| target, 0),
            Ties::Min => ranks_at(&|_| 0, 0),
            Ties::Max => ranks_at(&|_| all, 1),
            Ties::Mean => {
                let (best, worst) = (ranks_at(&|_| 0, 0)?, ranks_at(&|_| all, 1)?);
                Ok(best.into_iter().zip(worst).map(|(best, worst)| (best + worst) / 2.0).collect())
            }
        }
    }

    /// For every target, the number of items that are not excluded and pass its bar.
    fn counts_above(
        &self,
        users: Matrix,
        targets: &Ragged,
        exclude: &Ragged,
        split_of: &(dyn Fn(usize) -> usize + Sync),
    ) -> Result<Vec<u64>> {
        let score = |user: usize, item: usize| kernel::dot(users.row(user), self.items.row(item));
        let bars: Vec<Bar> = (0..users.rows())
            .into_par_iter()
            .flat_map_iter(|user| {
                let bar = move |target: &usize| Bar { score: score(user, *target), split: split_of(*target) };
                targets.row(user).iter().map(bar)
            })
            .collect();
        let count = Count { targets, bars };
        let counts = self.fold_scores(users, &count)?;
        // All items were counted, excluded ones too: take those that passed back.
        let without_excluded = |(user, mut counts): (usize, Vec<u64>)| {
            for &item in exclude.row(user) {
                let score = score(user, item);
                for (count, bar) in counts.iter_mut().zip(count.bars(user)) {
                    *count -= u64::from(bar.is_passed(item, score));
                }
            }
            counts
        };
        Ok(counts.into_par_iter().enumerate().flat_map_iter(without_excluded).collect())
    }
}

pub(crate) fn check_rows(name: &'static str, rows: &Ragged, users: Matrix) -> Result<()> {
    if rows.rows() == users.rows() { Ok(()) } else { Err(Error::Rows { name, rows: rows.rows(), users: users.rows() }) }
}

/// No target twice in a row, and none excluded. `exclude` is sorted.
fn check_targets(targets: &Ragged, exclude: &Ragged) -> Result<()> {
    for row in 0..targets.rows() {
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
