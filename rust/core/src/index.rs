//! The items to rank, and what ranking and searching share.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::filter::{PANEL, Panel, UserTile};
use crate::{Error, Interrupt, Kernel, Matrix, Result};

/// How an item whose score equals the target's counts for the target's rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ties {
    /// By the total order (-score, item index): a tied item ranks above when its index is smaller.
    Index,
    /// Tied items rank below the target: it gets the best rank of the tied group.
    Min,
    /// Tied items rank above the target: it gets the worst rank of the tied group.
    Max,
    /// The mean of the best and the worst rank, which may be a half.
    Mean,
}

/// Item vectors to rank, borrowed from the caller.
#[derive(Clone)]
pub struct ItemIndex<'a> {
    pub(crate) items: Matrix<'a>,
    pub(crate) first_item: usize,
    pub(crate) prepared: Arc<Prepared>,
    pub(crate) blocks: Blocks,
    pub(crate) interrupt: Interrupt<'a>,
}

/// What is computed once for the items.
pub struct Prepared {
    pub(crate) kernel: Kernel,
    max_norm: f64,
    /// The items in 16 bits. There are none where each block is rounded whenever it is needed, and where the kernel
    /// does not round.
    pub(crate) panels: Option<Vec<Panel>>,
    pub(crate) num_scores: AtomicU64,
    pub(crate) num_rescored: AtomicU64,
}

impl Prepared {
    /// Checks the items and rounds them to 16 bits, which takes about half the memory of the items.
    ///
    /// # Errors
    /// [`Error::Empty`] without items; [`Error::NonFinite`] for NaN or infinity.
    pub fn new(items: Matrix, kernel: Kernel) -> Result<Self> {
        Self::until(Interrupt::NEVER, items, kernel, true)
    }

    /// Checks the items and keeps no copy of them: each block is rounded whenever it is needed.
    ///
    /// # Errors
    /// Those of [`Prepared::new`].
    pub fn without_copy(items: Matrix, kernel: Kernel) -> Result<Self> {
        Self::until(Interrupt::NEVER, items, kernel, false)
    }

    /// Like [`Prepared::new`] with `keep_rounded`, and like [`Prepared::without_copy`] without it, unless it is
    /// interrupted.
    ///
    /// # Errors
    /// Those of [`Prepared::new`], and [`Error::Interrupted`].
    pub fn until(interrupt: Interrupt, items: Matrix, kernel: Kernel, keep_rounded: bool) -> Result<Self> {
        if keep_rounded && !kernel.precisions(items.dim()).is_empty() {
            // The items are read only once: they may lie on disk and exceed the memory.
            let panels = Panel::all_until(interrupt, items, kernel)?;
            let max_norm = panels.iter().map(Panel::max_norm_of_batch).fold(0.0, f64::max);
            Self::checked(items, kernel, max_norm, Some(panels))
        } else {
            Self::checked(items, kernel, items.max_norm(interrupt)?, None)
        }
    }

    fn checked(items: Matrix, kernel: Kernel, max_norm: f64, panels: Option<Vec<Panel>>) -> Result<Self> {
        let name = "item_embeddings";
        if items.rows() == 0 {
            return Err(Error::Empty { name, rows: 0, columns: items.dim() });
        }
        if max_norm.is_infinite() {
            items.norms(name)?;
        }
        Ok(Self { kernel, max_norm, panels, num_scores: AtomicU64::new(0), num_rescored: AtomicU64::new(0) })
    }

    /// The kernel that scores.
    pub fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The share of all scores so far that had to be computed exactly; 0 before the first score.
    pub fn rescored_share(&self) -> f64 {
        let scores = self.num_scores.load(Ordering::Relaxed).max(1);
        self.num_rescored.load(Ordering::Relaxed) as f64 / scores as f64
    }
}

/// How many users and items are scored together. The numbers change the speed and never the result.
#[derive(Debug, Clone, Copy)]
pub struct Blocks {
    /// Users of a block, at least 1.
    pub users: usize,
    /// Items of a block, at least 1; rounded up to whole panels of 32.
    pub items: usize,
}

impl Blocks {
    /// Bytes of a block of items, in f32 and in 16 bits. The block stays in a second-level cache of 1 MiB while all
    /// users of their block are scored. CPUs with tiles all have a second-level cache of 2 MiB.
    const ITEM_BYTES: usize = 768 * 1024;
    const ITEM_BYTES_WITH_TILES: usize = 2 * Self::ITEM_BYTES;
    /// Bytes of a block of users, in f32 and as integers. Each thread holds one such block.
    const USER_BYTES: usize = 4 * 1024 * 1024;
    /// The most bytes of the blocks of all threads together.
    const ALL_USER_BYTES: usize = 32 * 1024 * 1024;
    /// Scoring fewer users than this exactly is faster than rounding the items for them.
    pub(crate) const MIN_USERS_TO_ROUND: usize = 128;
    /// Reading all items is not worth it for a block of fewer users.
    pub(crate) const MIN_USERS: usize = 192;

    fn new(dim: usize, kernel: Kernel) -> Self {
        let item_bytes = if kernel.has_tiles() { Self::ITEM_BYTES_WITH_TILES } else { Self::ITEM_BYTES };
        let items = item_bytes / (dim * (size_of::<f32>() + size_of::<i16>()));
        let user_bytes = Self::USER_BYTES.min(Self::ALL_USER_BYTES / rayon::current_num_threads());
        let users = user_bytes / (dim * (size_of::<f32>() + UserTile::bytes_per_value(kernel)));
        Self { users: users.clamp(kernel.tile(), 4096), items: items.clamp(PANEL, 1024) }
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

    /// The index of items that were prepared earlier.
    pub fn from_prepared(item_embeddings: Matrix<'a>, prepared: Arc<Prepared>) -> Self {
        let blocks = Blocks::new(item_embeddings.dim(), prepared.kernel);
        Self { items: item_embeddings, first_item: 0, prepared, blocks, interrupt: Interrupt::NEVER }
    }

    /// The same index as a shard of a catalog: the indexes of its items start at `first_item`, both in arguments and in
    /// results.
    ///
    /// # Panics
    /// When the last index does not fit in an `i64`.
    #[must_use]
    pub fn starting_at(self, first_item: usize) -> Self {
        assert!(first_item <= i64::MAX as usize - self.num_items(), "an item index is an i64");
        Self { first_item, ..self }
    }

    /// The same index, with other sizes of blocks.
    #[must_use]
    pub fn with_blocks(self, blocks: Blocks) -> Self {
        Self { blocks, ..self }
    }

    /// The same index, whose work ends with [`Error::Interrupted`] when it is interrupted.
    #[must_use]
    pub fn until(self, interrupt: Interrupt<'a>) -> Self {
        Self { interrupt, ..self }
    }

    /// What was computed once for the items.
    pub fn prepared(&self) -> &Prepared {
        &self.prepared
    }

    /// Number of items.
    pub fn num_items(&self) -> usize {
        self.items.rows()
    }

    /// The item indexes.
    pub fn ids(&self) -> Range<usize> {
        self.first_item..self.first_item + self.num_items()
    }

    /// Checks that every user can be scored with every item without leaving the range of f32.
    ///
    /// By Cauchy-Schwarz no partial sum of a score exceeds the product of the norms. The factor 2 covers rounding.
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
}
