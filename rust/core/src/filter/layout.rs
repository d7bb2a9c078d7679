//! How integers lie in memory: what items, users and their products agree on.

use crate::Kernel;

/// Number of items in a panel: two vectors of 16.
pub const PANEL: usize = 32;

/// Number of users in a tile of every kernel except AMX. With a panel of items their sums take 24 of 32 registers.
pub(crate) const TILE: usize = 12;

/// The most rows that a tile of AMX has, and therefore the most users of such a tile.
#[cfg(target_arch = "x86_64")]
pub(crate) const AMX_ROWS: usize = 16;

/// A cache line with four bytes for each of 16 items: two integers of 16 bits, or four of 8.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [u32; 16]);

/// The integers of a panel. Missing items and dimensions are 0.
///
/// They lie in groups of four bytes for each item. With AMX they lie in tiles; see [`super::tiles`].
pub(super) struct Integers<'a> {
    pub(super) groups: &'a [[Line; 2]],
    /// The scale `t` of each item.
    pub(super) scales: [f32; PANEL],
}

impl Kernel {
    /// How many users it scores together.
    pub fn tile(self) -> usize {
        #[cfg(target_arch = "x86_64")]
        if self.has_tiles() {
            return AMX_ROWS;
        }
        TILE
    }
}

#[cfg(target_arch = "x86_64")]
impl Line {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn load(&self) -> std::arch::x86_64::__m512i {
        // SAFETY: a line holds the 64 bytes that are read, at their alignment.
        unsafe { std::arch::x86_64::_mm512_load_si512(std::ptr::from_ref(self).cast()) }
    }
}

/// Writes the integers of an item to its place in groups of two dimensions.
#[inline(always)]
pub(super) fn put_pairs(groups: &mut [[Line; 2]], item: usize, values: &[i16]) {
    for (group, pair) in groups.iter_mut().zip(values.chunks(2)) {
        let second = pair.get(1).map_or(0, |value| value.cast_unsigned());
        group[item / 16].0[item % 16] = u32::from(pair[0].cast_unsigned()) | u32::from(second) << 16;
    }
}
