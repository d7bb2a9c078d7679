//! All scores, block by block, folded into a state of each user: the loop that ranking and searching share.

mod block;
mod delivery;
mod excluded;
mod pass;
mod precision;
mod scratch;
mod sifting;
mod state;

use std::ops::Range;
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use block::{Block, Group};
use pass::Pass;
use precision::PrecisionChoice;
use scratch::Scratch;
pub(crate) use state::{EXCLUDED, Fold, Row, Sieve};

use crate::filter::{PANEL, Panel, UserTile};
use crate::index::Blocks;
use crate::matrix::AlignedRows;
use crate::{ItemIndex, Matrix, Ragged, Result};

impl ItemIndex<'_> {
    /// Scores all users with all items, block by block, and folds each row of scores into the state of its user. The
    /// rows of `exclude` are sorted.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub(crate) fn fold_scores<F: Fold>(&self, users: Matrix, exclude: &Ragged, fold: &F) -> Result<Vec<F::State>> {
        // Users are divided first: a state that takes in all items has better scores to sift by.
        let num_tasks = if rayon::current_num_threads() > 1 { 2 * rayon::current_num_threads() } else { 1 };
        let num_blocks = users.rows().div_ceil(self.blocks.users).max(num_tasks.min(users.rows() / Blocks::MIN_USERS));
        let tile = self.prepared.kernel.tile();
        let user_blocks = users.rows().div_ceil(num_blocks.max(1)).next_multiple_of(tile).min(self.blocks.users);
        let user_blocks = split(0..users.rows(), user_blocks.max(1));
        let item_blocks = self.num_items().div_ceil(self.blocks.items);
        let item_parts = num_tasks.div_ceil(user_blocks.len().max(1)).min(item_blocks);
        let item_parts = split(0..self.num_items(), self.num_items().div_ceil(item_parts).next_multiple_of(PANEL));
        let merge = |mut left: Vec<F::State>, right: Vec<F::State>| {
            left.iter_mut().zip(right).for_each(|(left, right)| fold.merge(left, right));
            Ok(left)
        };
        let states: Result<Vec<Vec<F::State>>> = user_blocks
            .into_par_iter()
            .map(|user_block| {
                item_parts
                    .par_iter()
                    .map(|item_part| self.fold_part(users, exclude, user_block.clone(), item_part.clone(), fold))
                    .try_reduce_with(merge)
                    .expect("an index holds at least one item")
            })
            .collect();
        Ok(states?.into_iter().flatten().collect())
    }

    /// The work of one thread: the states of some users after some of the items, the first of which starts a panel.
    fn fold_part<F: Fold>(
        &self,
        users: Matrix,
        exclude: &Ragged,
        user_block: Range<usize>,
        item_part: Range<usize>,
        fold: &F,
    ) -> Result<Vec<F::State>> {
        let kernel = self.prepared.kernel;
        let panels = self.prepared.panels.as_deref();
        let precisions = kernel.precisions(users.dim());
        let is_worth_it = panels.is_some() || user_block.len() >= Blocks::MIN_USERS_TO_ROUND;
        let sifts = is_worth_it && !precisions.is_empty();
        let group = |range: Range<usize>| {
            let rows = users.slice(range.start, range.end);
            let first_id = self.first_item + item_part.start;
            let next = |user| exclude.row(user).partition_point(|item| *item < first_id);
            let next_excluded = range.clone().map(next).collect();
            Group {
                users: range,
                rows: AlignedRows::copy(rows),
                tile: UserTile::new(rows, kernel),
                precision: PrecisionChoice::new(if sifts { precisions } else { &[] }),
                next_excluded,
            }
        };
        let mut groups: Vec<Group> = split(user_block.clone(), kernel.tile()).into_iter().map(group).collect();
        let mut states: Vec<F::State> = user_block.clone().map(|user| fold.start(user)).collect();
        let mut scratch = Scratch::default();
        let mut num_rescored = 0;
        let mut rounded = Vec::new();
        for items in split(item_part.clone(), self.blocks.items.next_multiple_of(PANEL)) {
            let panels = match panels {
                Some(panels) => &panels[items.start / PANEL..items.end.div_ceil(PANEL)],
                None if sifts => {
                    rounded = Panel::block(self.items.slice(items.start, items.end), kernel, rounded);
                    &rounded[..]
                }
                None => &[],
            };
            let ids = self.first_item + items.start..self.first_item + items.end;
            let block = Block::new(items.start - item_part.start, items, self.items, panels);
            scratch.start_block();
            for (group, states) in groups.iter_mut().zip(states.chunks_mut(kernel.tile())) {
                self.interrupt.check()?;
                scratch.excluded.take(exclude, group.users.clone(), &mut group.next_excluded, ids.clone());
                let (block, scratch) = (&block, &mut scratch);
                num_rescored += fold_block(Pass { kernel, fold, group, block, states, scratch });
            }
        }
        fold.settle(&mut states, user_block.start)?;
        let num_scores = user_block.len() * item_part.len();
        self.prepared.num_scores.fetch_add(num_scores as u64, Ordering::Relaxed);
        self.prepared.num_rescored.fetch_add(num_rescored as u64, Ordering::Relaxed);
        Ok(states)
    }
}

/// Folds a block of items into the states of a tile of users. Returns how many scores were computed exactly.
fn fold_block<F: Fold>(mut pass: Pass<F>) -> usize {
    let Pass { fold, ref group, block, ref states, .. } = pass;
    let sieve = |(user, state)| fold.sieve(user, state, block.num_before, block.items.rows());
    let sieve = group.users.clone().zip(states.iter()).map(sieve).min().unwrap_or(Sieve::None);
    match pass.find_doubts(sieve) {
        Some(precision) => pass.deliver_doubts(precision),
        None => pass.deliver_exact(),
    }
}

/// Cuts a range into ranges of `size`. The last one may be shorter.
fn split(range: Range<usize>, size: usize) -> Vec<Range<usize>> {
    range.clone().step_by(size).map(|start| start..(start + size).min(range.end)).collect()
}
