//! The items to rank, and what ranking and searching them share.

use std::ops::Range;

use rayon::prelude::*;

use crate::{Error, Matrix, Result, kernel};

/// How an item whose score equals the target's counts for the target's rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// By the total order (-score, item index): a tied item ranks above when its index is smaller.
    Index,
    /// Tied items rank below: the best rank of the tied group.
    Min,
    /// Tied items rank above: the worst rank of the tied group.
    Max,
    /// The mean of the best and the worst rank, which may be a half.
    Mean,
}

/// Item vectors to rank, borrowed from the caller.
#[derive(Debug, Clone, Copy)]
pub struct ItemIndex<'a> {
    pub(crate) items: Matrix<'a>,
    max_norm: f64,
    blocks: Blocks,
}

/// How many users and items are scored together. It sets the speed and never the result.
#[derive(Debug, Clone, Copy)]
pub struct Blocks {
    /// Users of a block, at least 1.
    pub users: usize,
    /// Items of a block, at least 1.
    pub items: usize,
}

impl Blocks {
    /// Bytes of item vectors scored together: half of a small second-level cache.
    const ITEM_BYTES: usize = 256 * 1024;

    fn for_dim(dim: usize) -> Self {
        Self { users: 64, items: (Self::ITEM_BYTES / (dim * size_of::<f32>())).clamp(16, 4096) }
    }
}

impl<'a> ItemIndex<'a> {
    /// Checks the items once.
    ///
    /// # Errors
    /// [`Error::Empty`] without items; [`Error::NonFinite`] for NaN or infinity.
    pub fn new(item_embeddings: Matrix<'a>) -> Result<Self> {
        let name = "item_embeddings";
        if item_embeddings.rows() == 0 {
            return Err(Error::Empty { name, rows: 0, columns: item_embeddings.dim() });
        }
        let max_norm = item_embeddings.norms(name)?.into_iter().fold(0.0, f64::max);
        Ok(Self::from_checked(item_embeddings, max_norm))
    }

    /// The index of items that [`ItemIndex::new`] has checked before, from their [`ItemIndex::max_norm`].
    pub fn from_checked(item_embeddings: Matrix<'a>, max_norm: f64) -> Self {
        Self { items: item_embeddings, max_norm, blocks: Blocks::for_dim(item_embeddings.dim()) }
    }

    /// The same index, working in other blocks.
    #[must_use]
    pub fn with_blocks(self, blocks: Blocks) -> Self {
        Self { blocks, ..self }
    }

    /// The largest Euclidean norm of an item.
    pub fn max_norm(&self) -> f64 {
        self.max_norm
    }

    /// Number of items.
    pub fn num_items(&self) -> usize {
        self.items.rows()
    }

    /// Checks that every user can be scored with every item without leaving the range of f32.
    ///
    /// By Cauchy-Schwarz no partial sum of a score exceeds the product of the norms; the factor 2 covers rounding.
    pub(crate) fn check_users(&self, users: Matrix) -> Result<()> {
        if users.dim() != self.items.dim() {
            return Err(Error::Dimensions { users: users.dim(), items: self.items.dim() });
        }
        let norms = users.norms("user_embeddings")?;
        match norms.iter().position(|norm| norm * self.max_norm > f64::from(f32::MAX) / 2.0) {
            None => Ok(()),
            Some(row) => Err(Error::Overflow { row, norm: norms[row], item_norm: self.max_norm }),
        }
    }

    /// Scores all users with all items, block by block, and folds each row of scores into the state of its user.
    ///
    /// `start(user)` makes a state, `fold(state, user, first_item, scores)` takes in the scores of the items from
    /// `first_item` on, and `merge` joins two states of one user. A user's items come in increasing order within a
    /// state, but states are split and merged as the threads allow: the result must not depend on that.
    pub(crate) fn fold_scores<S: Send>(
        &self,
        users: Matrix,
        start: impl Fn(usize) -> S + Sync,
        fold: impl Fn(&mut S, usize, usize, &[f32]) + Sync,
        merge: impl Fn(&mut S, S) + Sync,
    ) -> Vec<S> {
        let user_blocks = split(0..users.rows(), self.blocks.users);
        let tasks = 4 * rayon::current_num_threads();
        let item_blocks = self.num_items().div_ceil(self.blocks.items);
        let item_parts = tasks.div_ceil(user_blocks.len().max(1)).min(item_blocks);
        let item_parts = split(0..self.num_items(), self.num_items().div_ceil(item_parts));

        let fold_part = |user_block: Range<usize>, item_part: Range<usize>| {
            let mut states: Vec<S> = user_block.clone().map(&start).collect();
            let mut scores = vec![0.0; user_block.len() * self.blocks.items.min(item_part.len())];
            for item_block in split(item_part, self.blocks.items) {
                let scores = &mut scores[..user_block.len() * item_block.len()];
                kernel::score_block(
                    users.slice(user_block.start, user_block.end),
                    self.items.slice(item_block.start, item_block.end),
                    scores,
                );
                for ((state, user), row) in
                    states.iter_mut().zip(user_block.clone()).zip(scores.chunks(item_block.len()))
                {
                    fold(state, user, item_block.start, row);
                }
            }
            states
        };
        let merge_states = |mut left: Vec<S>, right: Vec<S>| {
            left.iter_mut().zip(right).for_each(|(left, right)| merge(left, right));
            left
        };
        user_blocks
            .into_par_iter()
            .flat_map(|user_block| {
                item_parts
                    .par_iter()
                    .map(|item_part| fold_part(user_block.clone(), item_part.clone()))
                    .reduce_with(merge_states)
                    .expect("an index holds at least one item")
            })
            .collect()
    }
}

/// Cuts a range into ranges of `size`, the last one shorter.
fn split(range: Range<usize>, size: usize) -> Vec<Range<usize>> {
    range.clone().step_by(size).map(|start| start..(start + size).min(range.end)).collect()
}
