//! One step of a fold: a block of items for a tile of users.

use super::block::{Block, Group};
use super::scratch::Scratch;
use super::state::Fold;
use crate::Kernel;

/// A block of items, a tile of users, and the states that take in their scores.
pub(super) struct Pass<'a, F: Fold> {
    pub(super) kernel: Kernel,
    pub(super) fold: &'a F,
    pub(super) group: &'a mut Group,
    pub(super) block: &'a Block<'a>,
    pub(super) states: &'a mut [F::State],
    pub(super) scratch: &'a mut Scratch,
}
