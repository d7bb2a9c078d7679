//! How integers lie in the tiles of AMX.
//!
//! AMX multiplies bytes. An integer of 16 bits is `256 high + low`, both signed bytes; see [`super::amx`].
//!
//! A tile is 16 rows of 64 bytes. The dimensions are cut into steps of at most 64, all of one size. For 16 items a step
//! is two tiles, one behind the other: first their upper bytes and then their lower bytes. A row of such a tile holds
//! four bytes of each item, as a line does in any panel. A panel holds all steps of its first 16 items, and then all
//! steps of the other 16. For users a step is two tiles as well, with a row for each user.

use super::layout::{AMX_ROWS, Line};

/// The most dimensions. For so many, 32 bits hold the sum of two products of 127 x 128 for each dimension, and the sum
/// of one product of 128 x 128.
pub(super) const MAX_DIM: usize = 65_536;

/// Dimensions in groups of four, cut into steps of equally many groups: one to 16 in a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    pub(super) num_steps: usize,
    /// Groups of a step.
    pub(super) num_groups: usize,
}

impl Steps {
    pub(super) fn new(dim: usize) -> Self {
        let groups = dim.div_ceil(4);
        let num_steps = groups.div_ceil(16);
        Self { num_steps, num_groups: groups.div_ceil(num_steps) }
    }

    /// Number of pairs of lines in the tiles of a panel.
    pub(super) fn num_pairs(self) -> usize {
        2 * self.num_steps * self.num_groups
    }

    /// Writes the integers of an item to its place in the tiles of a panel.
    #[inline(always)]
    pub(super) fn put_item(self, tiles: &mut [[Line; 2]], item: usize, integers: &[i16]) {
        let lines = tiles.as_flattened_mut();
        let side = item / 16 * 2 * self.num_steps * self.num_groups;
        for (group, integers) in integers.chunks(4).enumerate() {
            let high = side + group / self.num_groups * 2 * self.num_groups + group % self.num_groups;
            let mut bytes = [[0; 4]; 2];
            for (at, integer) in integers.iter().enumerate() {
                [bytes[0][at], bytes[1][at]] = halves(*integer);
            }
            let [high_bytes, low_bytes] = bytes.map(u32::from_le_bytes);
            (lines[high].0[item % 16], lines[high + self.num_groups].0[item % 16]) = (high_bytes, low_bytes);
        }
    }

    /// Number of bytes of a step, for each user or item.
    pub(super) fn num_bytes(self) -> usize {
        4 * self.num_groups
    }
}

/// The bytes `high` and `low` of an integer from -32,640 to 32,639. Any other integer comes from a value that is not
/// finite, and its bytes do not matter.
#[inline(always)]
fn halves(integer: i16) -> [u8; 2] {
    [(integer.wrapping_add(128) >> 8) as u8, integer as u8]
}

/// The integers of 16 bits of a tile of users.
pub(super) struct TiledUsers {
    pub(super) steps: Steps,
    pub(super) lines: Vec<Line>,
}

impl TiledUsers {
    /// Users that are 0 in every dimension.
    pub(super) fn zeros(dim: usize) -> Self {
        let steps = Steps::new(dim);
        Self { steps, lines: vec![Line::default(); steps.num_steps * 2 * AMX_ROWS] }
    }

    /// Writes the integers of a user to its place.
    pub(super) fn put(&mut self, user: usize, integers: &[i32]) {
        for (group, integers) in integers.chunks(4).enumerate() {
            let (step, place) = (group / self.steps.num_groups, group % self.steps.num_groups);
            let mut bytes = [[0; 4]; 2];
            for (at, integer) in integers.iter().enumerate() {
                [bytes[0][at], bytes[1][at]] = halves(*integer as i16);
            }
            for (plane, bytes) in bytes.into_iter().enumerate() {
                self.lines[(2 * step + plane) * AMX_ROWS + user].0[place] = u32::from_le_bytes(bytes);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::layout::PANEL;
    use super::*;

    /// The sums that AMX computes for a user and an item, computed without it: `high high'`, `high low' + low high'`
    /// and `low low'`.
    pub fn sums_of_bytes(steps: Steps, users: &[Line], user: usize, items: &[Line], item: usize) -> [i64; 3] {
        let byte = |group: u32, at: usize| i64::from(group.to_le_bytes()[at].cast_signed());
        let side = item / 16 * 2 * steps.num_steps * steps.num_groups;
        let mut sums = [0; 3];
        for step in 0..steps.num_steps {
            for group in 0..steps.num_groups {
                let user_groups = [0, 1].map(|plane| users[(2 * step + plane) * AMX_ROWS + user].0[group]);
                let item_groups =
                    [0, 1].map(|plane| items[side + (2 * step + plane) * steps.num_groups + group].0[item % 16]);
                for at in 0..4 {
                    let ([high, low], [item_high, item_low]) =
                        (user_groups.map(|group| byte(group, at)), item_groups.map(|group| byte(group, at)));
                    sums[0] += high * item_high;
                    sums[1] += high * item_low + low * item_high;
                    sums[2] += low * item_low;
                }
            }
        }
        sums
    }

    #[test]
    fn tiles_hold_every_integer_in_its_place() {
        for dim in [1, 3, 4, 5, 63, 64, 65, 130] {
            let value = |row: usize, at: usize| ((row * 7919 + at * 104_729) % 65_280) as i32 - 32_640;
            let steps = Steps::new(dim);
            let mut tiles = vec![[Line::default(); 2]; steps.num_pairs()];
            for item in 0..PANEL {
                let integers: Vec<i16> = (0..dim).map(|at| value(100 + item, at) as i16).collect();
                steps.put_item(&mut tiles, item, &integers);
            }
            let mut users = TiledUsers::zeros(dim);
            for user in 0..AMX_ROWS {
                users.put(user, &(0..dim).map(|at| value(user, at)).collect::<Vec<i32>>());
            }
            for user in 0..AMX_ROWS {
                for item in 0..PANEL {
                    let [high, middle, low] = sums_of_bytes(steps, &users.lines, user, tiles.as_flattened(), item);
                    let product = |at| i64::from(value(user, at)) * i64::from(value(100 + item, at));
                    let expected: i64 = (0..dim).map(product).sum();
                    assert_eq!(65_536 * high + 256 * middle + low, expected, "dim {dim}");
                }
            }
        }
    }

    /// The bound on the sums of AMX uses both properties.
    #[test]
    fn halves_make_the_integer_and_are_not_much_larger() {
        for integer in -32_640..=32_639_i32 {
            let [high, low] = halves(integer as i16).map(|byte| i32::from(byte.cast_signed()));
            assert_eq!(256 * high + low, integer);
            assert!(low.abs() <= integer.abs() && (256 * high).abs() <= 2 * integer.abs(), "{integer}");
            assert!(integer.abs() > 32_638 || high.abs() <= 127, "{integer}");
        }
    }
}
