//! What is scored together: a tile of users and a block of items.

use std::ops::Range;

use super::precision::PrecisionChoice;
use crate::Matrix;
use crate::filter::{PANEL, Panel, Precision, UserTile};
use crate::matrix::AlignedRows;

/// Users that are scored together: at most [`crate::Kernel::tile`].
pub(super) struct Group {
    pub(super) users: Range<usize>,
    pub(super) rows: AlignedRows,
    pub(super) tile: UserTile,
    pub(super) precision: PrecisionChoice,
    /// Where the items of the next block begin in each user's row of exclusions.
    pub(super) next_excluded: Vec<usize>,
}

/// A block of items.
pub(super) struct Block<'a> {
    pub(super) first_item: usize,
    /// Number of items that the states have taken in before.
    pub(super) num_before: usize,
    pub(super) items: Matrix<'a>,
    pub(super) panels: &'a [Panel],
    pub(super) norms: Vec<f32>,
    /// The largest loss of its panels with 8 and with 16 bits.
    pub(super) loss: [f64; 2],
}

impl<'a> Block<'a> {
    pub(super) fn new(num_before: usize, items: Range<usize>, all_items: Matrix<'a>, panels: &'a [Panel]) -> Self {
        let loss = |precision| panels.iter().map(|panel| panel.loss(precision)).fold(0.0, f64::max);
        Self {
            first_item: items.start,
            num_before,
            items: all_items.slice(items.start, items.end),
            panels,
            norms: panels.iter().flat_map(|panel| panel.norms(all_items.dim())).take(items.len()).collect(),
            loss: [loss(Precision::Eight), loss(Precision::Sixteen)],
        }
    }

    /// Its first panels, which show what the other panels are like.
    pub(super) fn beginning(&self) -> Self {
        let num_panels = self.panels.len().div_ceil(8);
        let num_items = self.items.rows().min(num_panels * PANEL);
        Self {
            items: self.items.slice(0, num_items),
            panels: &self.panels[..num_panels],
            norms: self.norms[..num_items].to_vec(),
            ..*self
        }
    }
}
