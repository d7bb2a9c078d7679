//! The items to rank, and what ranking and searching them share.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::prelude::*;

use crate::filter::{self, Norms, PANEL, Panel, RoundedUsers};
use crate::{Error, Kernel, Matrix, Result};

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
#[derive(Clone)]
pub struct ItemIndex<'a> {
    pub(crate) items: Matrix<'a>,
    prepared: Arc<Prepared>,
    blocks: Blocks,
    interrupted: Option<&'a AtomicBool>,
}

/// What is computed of the items once.
pub struct Prepared {
    kernel: Kernel,
    max_norm: f64,
    /// The items in bfloat16, for a kernel that filters.
    panels: Option<Vec<Panel>>,
    num_scores: AtomicU64,
    num_rescored: AtomicU64,
}

impl Prepared {
    /// Checks the items, and rounds them where `kernel` filters by rounded ones: half their own memory.
    ///
    /// # Errors
    /// [`Error::Empty`] without items; [`Error::NonFinite`] for NaN or infinity.
    pub fn new(items: Matrix, kernel: Kernel) -> Result<Self> {
        let name = "item_embeddings";
        if items.rows() == 0 {
            return Err(Error::Empty { name, rows: 0, columns: items.dim() });
        }
        let max_norm = items.norms(name)?.into_iter().fold(0.0, f64::max);
        let panels = kernel.filters().then(|| Panel::all(items));
        Ok(Self { kernel, max_norm, panels, num_scores: AtomicU64::new(0), num_rescored: AtomicU64::new(0) })
    }

    /// The kernel that scores.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The share of all scores so far that had to be computed exactly; 1 for a kernel that does not filter, and 0
    /// before the first score.
    pub fn rescored_share(&self) -> f64 {
        let scores = self.num_scores.load(Ordering::Relaxed).max(1);
        self.num_rescored.load(Ordering::Relaxed) as f64 / scores as f64
    }
}

/// How many users and items are scored together. It sets the speed and never the result.
#[derive(Debug, Clone, Copy)]
pub struct Blocks {
    /// Users of a block, at least 1.
    pub users: usize,
    /// Items of a block, at least 1; rounded up to whole panels of 32.
    pub items: usize,
}

impl Blocks {
    /// Bytes of item vectors scored together: a quarter of a second-level cache of 1 MiB.
    const ITEM_BYTES: usize = 256 * 1024;

    fn new(dim: usize, kernel: Kernel) -> Self {
        let item_bytes = dim * if kernel.filters() { size_of::<u16>() } else { size_of::<f32>() };
        Self { users: 384, items: (Self::ITEM_BYTES / item_bytes).clamp(PANEL, 1024) }
    }
}

/// What is made of the scores of one user: a state that takes in row after row.
///
/// A user's items come in increasing order within a state, but states are split and merged as the threads allow, and
/// scores come exactly or to be sifted as is faster: the result must not depend on that.
pub(crate) trait Fold: Sync {
    type State: Send;

    fn start(&self, user: usize) -> Self::State;

    /// Takes in the scores of the items from `first_item` on.
    fn take(&self, state: &mut Self::State, user: usize, first_item: usize, scores: &[f32]);

    /// Takes in the same items from their approximate scores.
    fn sift(&self, state: &mut Self::State, user: usize, row: &mut Row);

    /// Whether the state has a threshold to sift by.
    fn can_sift(&self, state: &Self::State) -> bool;

    /// Takes in a state of the same user.
    fn merge(&self, state: &mut Self::State, other: Self::State);
}

/// Approximate scores of one user with the items from `first_item` on.
pub(crate) struct Row<'a> {
    pub(crate) first_item: usize,
    kernel: Kernel,
    user: &'a [f32],
    items: Matrix<'a>,
    scores: &'a [f32],
    error: f64,
    scratch: &'a mut Scratch,
}

/// Buffers that every row uses again.
#[derive(Default)]
struct Scratch {
    doubtful: Vec<u32>,
    exact: Vec<f32>,
    num_rescored: usize,
}

impl Row<'_> {
    /// The number of items that surely score more than `high`, and the exact scores of all others that do not surely
    /// score less than `low`, as (item, score) in increasing order of items.
    pub(crate) fn sift(&mut self, low: f32, high: f32) -> (u64, impl Iterator<Item = (usize, f32)>) {
        let low = ((f64::from(low) - self.error) as f32).next_down();
        let high = ((f64::from(high) + self.error) as f32).next_up();
        let Scratch { doubtful, exact, num_rescored } = &mut *self.scratch;
        let num_above = filter::sift(self.scores, low, high, doubtful);
        self.kernel.score_chosen(self.user, self.items, doubtful, exact);
        *num_rescored += doubtful.len();
        let first_item = self.first_item;
        (num_above, doubtful.iter().zip(exact.iter()).map(move |(&at, &score)| (first_item + at as usize, score)))
    }
}

/// When to sift: a filter that leaves too much in doubt is left alone for a while, longer each time.
struct Trust {
    pause: usize,
    next_pause: usize,
}

impl Trust {
    /// Above this share in doubt, scoring all items exactly is faster.
    const MAX_DOUBT: f64 = 0.25;
    /// Users whose doubts are forgiven.
    const GRACE: f64 = 2.0;

    fn new() -> Self {
        Self { pause: 0, next_pause: 4 }
    }

    fn is_broken(num_rescored: usize, num_users: usize, num_items: usize) -> bool {
        num_rescored as f64 > Self::MAX_DOUBT * num_items as f64 * (num_users as f64 + Self::GRACE)
    }

    fn disappoint(&mut self) {
        self.pause = self.next_pause;
        self.next_pause *= 2;
    }
}

impl<'a> ItemIndex<'a> {
    /// Prepares the items for the kernel of [`Kernel::from_env`].
    ///
    /// # Errors
    /// [`Error::Kernel`]; [`Error::Empty`] without items; [`Error::NonFinite`] for NaN or infinity.
    pub fn new(item_embeddings: Matrix<'a>) -> Result<Self> {
        let prepared = Prepared::new(item_embeddings, Kernel::from_env()?)?;
        Ok(Self::from_prepared(item_embeddings, Arc::new(prepared)))
    }

    /// The index of items that were prepared before.
    pub fn from_prepared(item_embeddings: Matrix<'a>, prepared: Arc<Prepared>) -> Self {
        let blocks = Blocks::new(item_embeddings.dim(), prepared.kernel);
        Self { items: item_embeddings, prepared, blocks, interrupted: None }
    }

    /// The same index, working in other blocks.
    #[must_use]
    pub fn with_blocks(self, blocks: Blocks) -> Self {
        Self { blocks, ..self }
    }

    /// The same index; work on it ends with [`Error::Interrupted`] soon after `flag` is set.
    #[must_use]
    pub fn interrupted_by(self, flag: &'a AtomicBool) -> Self {
        Self { interrupted: Some(flag), ..self }
    }

    /// What was computed of the items.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
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
        let max_norm = self.prepared.max_norm;
        match norms.iter().position(|norm| norm * max_norm > f64::from(f32::MAX) / 2.0) {
            None => Ok(()),
            Some(row) => Err(Error::Overflow { row, norm: norms[row], item_norm: max_norm }),
        }
    }

    /// Scores all users with all items, block by block, and folds each row of scores into the state of its user.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub(crate) fn fold_scores<F: Fold>(&self, users: Matrix, fold: &F) -> Result<Vec<F::State>> {
        let user_blocks = split(0..users.rows(), self.blocks.users);
        let tasks = 4 * rayon::current_num_threads();
        let item_blocks = self.num_items().div_ceil(self.blocks.items);
        let item_parts = tasks.div_ceil(user_blocks.len().max(1)).min(item_blocks);
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
                    .map(|item_part| self.fold_part(users, user_block.clone(), item_part.clone(), fold))
                    .try_reduce_with(merge)
                    .expect("an index holds at least one item")
            })
            .collect();
        Ok(states?.into_iter().flatten().collect())
    }

    /// One thread's share: the states of some users after some of the items, which start with a panel.
    fn fold_part<F: Fold>(
        &self,
        users: Matrix,
        user_block: Range<usize>,
        item_part: Range<usize>,
        fold: &F,
    ) -> Result<Vec<F::State>> {
        let panels = self.prepared.panels.as_deref();
        let rounded = panels.map(|_| RoundedUsers::new(users.slice(user_block.start, user_block.end)));
        let mut states: Vec<F::State> = user_block.clone().map(|user| fold.start(user)).collect();
        let (mut approximate, mut exact) = (Vec::new(), Vec::new());
        let mut scratch = Scratch::default();
        let mut trust = Trust::new();
        let (mut num_scores, mut num_rescored) = (0, 0);
        for items in split(item_part, self.blocks.items.next_multiple_of(PANEL)) {
            if self.interrupted.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
                return Err(Error::Interrupted);
            }
            let mut num_sifted = 0;
            scratch.num_rescored = 0;
            trust.pause = trust.pause.saturating_sub(1);
            if let Some((panels, rounded)) = panels.zip(rounded.as_ref())
                && trust.pause == 0
                && states.iter().all(|state| fold.can_sift(state))
            {
                let panels = &panels[items.start / PANEL..items.end.div_ceil(PANEL)];
                let norms = panels.iter().fold(Norms::default(), |norms, panel| norms.max(panel.norms));
                let width = panels.len() * PANEL;
                approximate.resize(rounded.rows() * width, 0.0);
                filter::score_panels(rounded, panels, &mut approximate);
                for ((state, user), (own_norms, scores)) in
                    states.iter_mut().zip(user_block.clone()).zip(rounded.norms.iter().zip(approximate.chunks(width)))
                {
                    let row = &mut Row {
                        first_item: items.start,
                        kernel: self.prepared.kernel,
                        user: users.row(user),
                        items: self.items.slice(items.start, items.end),
                        scores: &scores[..items.len()],
                        error: filter::error_bound(users.dim(), *own_norms, norms),
                        scratch: &mut scratch,
                    };
                    fold.sift(state, user, row);
                    num_sifted += 1;
                    if Trust::is_broken(scratch.num_rescored, num_sifted, items.len()) {
                        trust.disappoint();
                        break;
                    }
                }
            }
            let left = user_block.start + num_sifted..user_block.end;
            if !left.is_empty() {
                exact.resize(left.len() * items.len(), 0.0);
                self.prepared.kernel.score_block(
                    users.slice(left.start, left.end),
                    self.items.slice(items.start, items.end),
                    &mut exact,
                );
                let states = states[num_sifted..].iter_mut();
                for ((state, user), scores) in states.zip(left.clone()).zip(exact.chunks(items.len())) {
                    fold.take(state, user, items.start, scores);
                }
            }
            num_scores += user_block.len() * items.len();
            num_rescored += scratch.num_rescored + left.len() * items.len();
        }
        self.prepared.num_scores.fetch_add(num_scores as u64, Ordering::Relaxed);
        self.prepared.num_rescored.fetch_add(num_rescored as u64, Ordering::Relaxed);
        Ok(states)
    }
}

/// Cuts a range into ranges of `size`, the last one shorter.
fn split(range: Range<usize>, size: usize) -> Vec<Range<usize>> {
    range.clone().step_by(size).map(|start| start..(start + size).min(range.end)).collect()
}
