//! Buffers that all blocks of a thread share.

use super::excluded::Excluded;
use crate::filter::EightBits;

#[derive(Default)]
pub(super) struct Scratch {
    pub(super) excluded: Excluded,
    /// The first `num_eight` panels of the block in 8 bits. They are made when a tile first needs them.
    pub(super) eight: Vec<EightBits>,
    pub(super) num_eight: usize,
    /// Number of tiles in a row for which every precision failed on this block.
    pub(super) num_failed_tiles: usize,
    pub(super) scores: Vec<f32>,
    pub(super) bars: Vec<(f32, f32)>,
    pub(super) places: Vec<u32>,
    pub(super) doubts: Doubts,
    pub(super) exact: Vec<f32>,
}

impl Scratch {
    /// Forgets what belongs to the previous block.
    pub(super) fn start_block(&mut self) {
        self.num_eight = 0;
        self.num_failed_tiles = 0;
    }
}

/// The doubtful items of all bars of a tile.
#[derive(Default)]
pub(super) struct Doubts {
    /// (user of the tile, item of the block).
    pub(super) pairs: Vec<(usize, usize)>,
    /// (user of the tile, bar, number of items surely above, end of its pairs).
    pub(super) rows: Vec<(usize, usize, u64, usize)>,
}

impl Doubts {
    pub(super) fn clear(&mut self) {
        self.pairs.clear();
        self.rows.clear();
    }
}
