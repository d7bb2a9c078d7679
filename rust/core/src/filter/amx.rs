//! Products by the matrix unit of Intel's server CPUs, AMX: 16 x 16 sums of products of bytes at a time.
//!
//! The unit multiplies bytes. An integer of 16 bits is `256 high + low`, both signed bytes, so a product of two is
//!
//! ```text
//! 65536 high high' + 256 (high low' + low high') + low low'
//! ```
//!
//! The unit sums each of these four products of bytes separately. 32 bits hold every sum, and the two middle sums added
//! together, for integers of any norm and up to `MAX_DIM` dimensions. The integers can therefore fill their 16 bits. A
//! sum of whole products in 32 bits, as in [`super::products`], only has room for a norm of 46,340.
//!
//! [`super::tiles`] says how the bytes lie.

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::items::Panel;
use super::layout::{AMX_ROWS, Integers, Line, PANEL};
use super::tiles::{MAX_DIM, Steps};
use super::users::UserTile;

/// Writes the approximate scores of the users of a tile with every item of the panels; see [`super::score_panels`].
///
/// # Safety
/// The unit and AVX-512 must be available.
///
/// # Panics
/// For a tile or panels of another kernel, and for more than `MAX_DIM` dimensions.
pub(super) unsafe fn score(tile: &UserTile, panels: &[Panel], out: &mut [f32]) {
    let users = tile.tiled.as_ref().expect("a tile of this kernel");
    assert!(users.steps.num_steps * users.steps.num_bytes() <= MAX_DIM, "too many dimensions");
    if tile.is_empty() {
        return;
    }
    let width = panels.len() * PANEL;
    // SAFETY: the caller guarantees the unit. Nothing else on this thread uses it: by the System V ABI tiles do not
    // survive a call, so no caller relies on them, and nothing that is called here uses them.
    let mut unit = unsafe { Unit::new(users.steps, tile.len()) };
    for (number, panel) in panels.iter().enumerate() {
        let mut rows = out[number * PANEL..].chunks_mut(width).map(|row| &mut row[..PANEL]);
        // SAFETY: the caller guarantees AVX-512.
        unsafe { unit.score(&users.lines, &panel.integers(), &mut rows) };
    }
}

/// How the unit is set up: the number of rows of each tile, and the bytes in a row.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// The unit, set up by this thread for one tile of users. It is released when this is dropped.
struct Unit {
    steps: Steps,
    num_users: usize,
    /// The sums of the users with both halves of a panel.
    sums: [Sums; 2],
    /// The unit belongs to its thread.
    not_send: PhantomData<*const ()>,
}

/// An `asm!` that may change every tile.
macro_rules! tile_asm {
    ($($argument:tt)*) => {
        asm!(
            $($argument)*
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

impl Unit {
    /// Tiles 0 to 3 hold the sums, 4 and 5 the users, 6 and 7 the items.
    ///
    /// # Safety
    /// The unit must be available, and this thread must not be using it.
    unsafe fn new(steps: Steps, num_users: usize) -> Self {
        assert!((1..=AMX_ROWS).contains(&num_users));
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        for tile in 0..8 {
            configuration.bytes[tile] = if matches!(tile, 4 | 5) { steps.num_bytes() as u16 } else { 64 };
            configuration.rows[tile] = if tile < 6 { num_users as u8 } else { steps.num_groups as u8 };
        }
        // SAFETY: the caller guarantees the unit. Palette 1 allows this configuration: 1 to 16 rows of 4 to 64 bytes.
        unsafe { tile_asm!("ldtilecfg [{}]", in(reg) &raw const configuration,) };
        let sums = [const { Sums([[Line([0; 16]); AMX_ROWS]; 4]) }; 2];
        Self { steps, num_users, sums, not_send: PhantomData }
    }

    /// Writes the scores of the users with the items of a panel.
    #[target_feature(enable = "avx512f")]
    fn score<'a>(&mut self, users: &[Line], items: &Integers, rows: &mut impl Iterator<Item = &'a mut [f32]>) {
        let Steps { num_steps, num_groups } = self.steps;
        assert_eq!((users.len(), items.groups.len()), (2 * num_steps * AMX_ROWS, self.steps.num_pairs()));
        let lines = items.groups.as_flattened();
        for (side, sums) in self.sums.iter_mut().enumerate() {
            // SAFETY: every step reads the first `num_users` of `AMX_ROWS` lines in two tiles of users, and
            // `num_groups` lines in two tiles of items; the assertion above checked these sizes. It writes `num_users`
            // of the `AMX_ROWS` lines in each tile of `sums`. `Unit::new` set up the unit.
            unsafe {
                tile_asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{users} + {line}*1]",
                    "tileloadd tmm6, [{items} + {line}*1]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{low_items} + {line}*1]",
                    "tdpbssd tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{users} + {line}*1 + {low_users}]",
                    "tdpbssd tmm2, tmm5, tmm6",
                    "tdpbssd tmm3, tmm5, tmm7",
                    "add {users}, {users_step}",
                    "add {items}, {items_step}",
                    "add {low_items}, {items_step}",
                    "dec {steps}",
                    "jnz 2b",
                    "tilestored [{sums} + {line}*1], tmm0",
                    "tilestored [{sums} + {line}*1 + {tile}], tmm1",
                    "tilestored [{sums} + {line}*1 + 2*{tile}], tmm2",
                    "tilestored [{sums} + {line}*1 + 3*{tile}], tmm3",
                    users = inout(reg) users.as_ptr() => _,
                    items = inout(reg) lines.as_ptr().add(2 * side * num_steps * num_groups) => _,
                    low_items = inout(reg) lines.as_ptr().add((2 * side * num_steps + 1) * num_groups) => _,
                    steps = inout(reg) num_steps => _,
                    sums = in(reg) std::ptr::from_mut(sums),
                    line = in(reg) size_of::<Line>(),
                    items_step = in(reg) 2 * num_groups * size_of::<Line>(),
                    low_users = const AMX_ROWS * size_of::<Line>(),
                    users_step = const 2 * AMX_ROWS * size_of::<Line>(),
                    tile = const AMX_ROWS * size_of::<Line>(),
                );
            }
        }
        for (user, row) in (0..self.num_users).zip(rows) {
            let (halves, _) = row.as_chunks_mut::<16>();
            for ((half, scales), sums) in halves.iter_mut().zip(items.scales.as_chunks::<16>().0).zip(&self.sums) {
                let Sums([high, high_low, low_high, low]) = sums;
                let middle = _mm512_cvtepi32_ps(_mm512_add_epi32(high_low[user].load(), low_high[user].load()));
                let (high, low) = (_mm512_cvtepi32_ps(high[user].load()), _mm512_cvtepi32_ps(low[user].load()));
                let whole = _mm512_fmadd_ps(
                    high,
                    _mm512_set1_ps(65_536.0),
                    _mm512_fmadd_ps(middle, _mm512_set1_ps(256.0), low),
                );
                // SAFETY: both hold the 16 values that are read or written, at any alignment.
                unsafe {
                    let score = _mm512_mul_ps(whole, _mm512_loadu_ps(scales.as_ptr()));
                    _mm512_storeu_ps(half.as_mut_ptr(), score);
                }
            }
        }
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: whoever called `Unit::new` guarantees the unit.
        unsafe { tile_asm!("tilerelease",) };
    }
}

/// The four sums of users with 16 items: four tiles, each with a row of 16 for each user.
#[repr(C)]
struct Sums([[Line; AMX_ROWS]; 4]);

#[cfg(test)]
mod tests {
    use super::super::tiles::tests::sums_of_bytes;
    use super::*;
    use crate::{Kernel, Matrix};

    /// The largest possible sums are among them: bytes of -128 and 127 in the largest number of dimensions.
    #[test]
    fn scores_are_made_of_the_sums() {
        for kernel in Kernel::supported().into_iter().filter(|kernel| kernel.has_tiles()) {
            for dim in [1, 2, 65, 512, 65_536] {
                let row = |seed: usize| (0..dim).map(move |at| ((at * 37 + seed * 101) % 2003) as f32 / 2003.0 - 0.5);
                // The first value makes the scale 1, or nearly 1 for items, whose scale is rounded up.
                let most = |first| (0..dim).map(move |at| if at == 0 { first } else { 127.0 * 256.0 - 128.0 });
                let users: Vec<f32> = (0..3).flat_map(row).chain(most(32_638.0)).collect();
                let opposite = most(32_637.0).map(|value| -value);
                let items: Vec<f32> = (7..26).flat_map(row).chain(most(32_637.0)).chain(opposite).collect();
                let panels = Panel::all(Matrix::new(&items, dim), kernel);
                let tile = UserTile::new(Matrix::new(&users, dim), kernel);
                let mut scores = vec![0.0; 4 * PANEL];
                // SAFETY: the kernel is supported.
                unsafe { score(&tile, &panels, &mut scores) };
                let lines = &tile.tiled.as_ref().expect("a tile of this kernel").lines;
                let Integers { groups, scales } = panels[0].integers();
                for user in 0..4 {
                    for item in 0..21 {
                        let parts = sums_of_bytes(Steps::new(dim), lines, user, groups.as_flattened(), item);
                        let [high, middle, low] = parts.map(|sum| i32::try_from(sum).expect("32 bits") as f32);
                        let whole = high.mul_add(65_536.0, middle.mul_add(256.0, low));
                        assert_eq!(scores[user * PANEL + item], whole * scales[item], "dim {dim}");
                    }
                }
                let [.., middle, _] = sums_of_bytes(Steps::new(dim), lines, 3, groups.as_flattened(), 19);
                assert!(dim < 65_536 || middle.abs() > i64::from(i32::MAX) * 99 / 100, "{middle}");
            }
        }
    }
}
