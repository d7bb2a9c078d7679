//! Products by the matrix unit of Intel's server CPUs, AMX: 16 x 16 sums of products of bytes at a time.
//!
//! The unit multiplies bytes. An integer of 16 bits is `256 high + low`, both signed bytes, so a product of two is
//!
//! ```text
//! 65536 high high' + 256 (high low' + low high') + low low'
//! ```
//!
//! The unit sums these four products apart, in 32 bits each, which hold them, and the two of the middle together, for
//! integers of any norm and up to `MAX_DIM` dimensions. So the integers fill their 16 bits, where the sum of whole
//! products in 32 bits, as in [`super::products`], would leave room for a norm of 46,340 only.
//!
//! A tile is 16 rows of 64 bytes. The dimensions are cut into steps of at most 64, all of one size. A step of 16
//! items is two tiles, one behind the other, their upper bytes and their lower ones: a row holds four bytes of each
//! item, as in any panel. A panel holds all steps of its first 16 items and then those of the others. A step of
//! users is two tiles as well, with a row for each user.

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, Ordering};

use super::items::{Integers, Line, PANEL, Panel};
use super::users::UserTile;

/// The most rows of a tile, so the most users.
pub(crate) const ROWS: usize = 16;

/// The most dimensions: so many times two products of the middle, of 127 x 128 at most, stay in 32 bits, and so many
/// products of lower bytes, of 128 x 128.
pub(crate) const MAX_DIM: usize = 65_536;

/// Dimensions in groups of four, cut into steps of equally many groups: one to 16.
#[derive(Debug, Clone, Copy)]
pub(super) struct Steps {
    number: usize,
    groups: usize,
}

impl Steps {
    pub(super) fn of(dim: usize) -> Self {
        let groups = dim.div_ceil(4);
        let number = groups.div_ceil(16);
        Self { number, groups: groups.div_ceil(number) }
    }

    /// Pairs of lines in the tiles of a panel.
    pub(super) fn num_pairs(self) -> usize {
        2 * self.number * self.groups
    }

    /// Puts an item in its place in the tiles of a panel.
    #[inline(always)]
    pub(super) fn put_item(self, tiles: &mut [[Line; 2]], item: usize, integers: &[i16]) {
        let lines = tiles.as_flattened_mut();
        let side = item / 16 * 2 * self.number * self.groups;
        for (group, integers) in integers.chunks(4).enumerate() {
            let high = side + group / self.groups * 2 * self.groups + group % self.groups;
            let mut bytes = [[0; 4]; 2];
            for (at, integer) in integers.iter().enumerate() {
                [bytes[0][at], bytes[1][at]] = halves(*integer);
            }
            let [high_bytes, low_bytes] = bytes.map(u32::from_le_bytes);
            (lines[high].0[item % 16], lines[high + self.groups].0[item % 16]) = (high_bytes, low_bytes);
        }
    }

    fn bytes(self) -> usize {
        4 * self.groups
    }
}

/// The bytes `high` and `low` of an integer from -32,640 to 32,639; of any other, which a value that is not finite may
/// leave, no matter what.
#[inline(always)]
fn halves(integer: i16) -> [u8; 2] {
    [(integer.wrapping_add(128) >> 8) as u8, integer as u8]
}

/// The integers of 16 bits of a few users, as tiles.
pub(super) struct Users {
    steps: Steps,
    lines: Vec<Line>,
}

impl Users {
    /// Users that are 0 in every dimension.
    pub(super) fn empty(dim: usize) -> Self {
        let steps = Steps::of(dim);
        Self { steps, lines: vec![Line::default(); steps.number * 2 * ROWS] }
    }

    /// Puts a user in its place.
    pub(super) fn put(&mut self, user: usize, integers: &[i32]) {
        for (group, integers) in integers.chunks(4).enumerate() {
            let (step, place) = (group / self.steps.groups, group % self.steps.groups);
            let mut bytes = [[0; 4]; 2];
            for (at, integer) in integers.iter().enumerate() {
                [bytes[0][at], bytes[1][at]] = halves(*integer as i16);
            }
            for (plane, bytes) in bytes.into_iter().enumerate() {
                self.lines[(2 * step + plane) * ROWS + user].0[place] = u32::from_le_bytes(bytes);
            }
        }
    }
}

/// Whether this CPU has the unit and the operating system lets the process use it.
pub(crate) fn is_available() -> bool {
    // No lock, for the reason that `pool` gives: asking twice does no harm.
    const UNKNOWN: u8 = 2;
    static AVAILABLE: AtomicU8 = AtomicU8::new(UNKNOWN);
    let known = AVAILABLE.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return known == 1;
    }
    let available = is_on_this_cpu() && is_granted();
    AVAILABLE.store(u8::from(available), Ordering::Relaxed);
    available
}

#[allow(unused_unsafe, reason = "newer versions of Rust have CPUID as a safe function")]
fn is_on_this_cpu() -> bool {
    const TILES_AND_BYTES: u32 = 1 << 24 | 1 << 25;
    if cfg!(miri) {
        return false;
    }
    // SAFETY: every 64-bit x86 CPU has the instruction.
    unsafe { __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILES_AND_BYTES == TILES_AND_BYTES }
}

/// Asks Linux for the tiles' place in a thread's saved state (`Documentation/arch/x86/xstate.rst`). The grant is for
/// all threads, for good, and for what is forked from the process. From then on Linux refuses signal stacks that are
/// too small for that state; where a thread has one already, it refuses this.
#[cfg(target_os = "linux")]
fn is_granted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let answer: i64;
    // SAFETY: the call changes nothing but what this process may use. The kernel keeps all registers but these.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer, in("rdi") REQUEST, in("rsi") TILE_DATA,
            out("rcx") _, out("r11") _, options(nostack),
        );
    }
    answer == 0
}

/// How other systems grant it is not known here.
#[cfg(not(target_os = "linux"))]
fn is_granted() -> bool {
    false
}

/// Writes the approximate scores of the users of a tile with every item of the panels; see [`super::score_panels`].
///
/// # Safety
/// The unit must be available, and AVX-512.
///
/// # Panics
/// For a tile or panels of another kernel, and for more than `MAX_DIM` dimensions.
pub(super) unsafe fn score(tile: &UserTile, panels: &[Panel], out: &mut [f32]) {
    let users = tile.amx.as_ref().expect("a tile of this kernel");
    assert!(users.steps.number * users.steps.bytes() <= MAX_DIM, "too many dimensions");
    if tile.is_empty() {
        return;
    }
    let width = panels.len() * PANEL;
    // SAFETY: the caller's. Nothing else of this thread has the unit in use: tiles do not survive a call by the System V
    // ABI, so no caller counts on them, and nothing that is called here uses them.
    let mut unit = unsafe { Unit::new(users.steps, tile.len()) };
    for (number, panel) in panels.iter().enumerate() {
        let mut rows = out[number * PANEL..].chunks_mut(width).map(|row| &mut row[..PANEL]);
        // SAFETY: the caller's.
        unsafe { unit.score(&users.lines, &panel.integers(), &mut rows) };
    }
}

/// How the unit is set up: rows and bytes in a row of each tile.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

/// The unit, set up for one tile of users by this thread; released when it is dropped.
struct Unit {
    steps: Steps,
    num_users: usize,
    /// Of the users with both halves of a panel.
    sums: [Sums; 2],
    /// It is that of its thread.
    not_send: PhantomData<*const ()>,
}

/// `asm!` that may change every tile.
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
    /// Sums are tiles 0 to 3, users 4 and 5, items 6 and 7.
    ///
    /// # Safety
    /// The unit must be available, and no other may be in use by this thread.
    unsafe fn new(steps: Steps, num_users: usize) -> Self {
        assert!((1..=ROWS).contains(&num_users));
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        for tile in 0..8 {
            configuration.bytes[tile] = if matches!(tile, 4 | 5) { steps.bytes() as u16 } else { 64 };
            configuration.rows[tile] = if tile < 6 { num_users as u8 } else { steps.groups as u8 };
        }
        // SAFETY: the caller's; the configuration is one that palette 1 allows: 1 to 16 rows, 4 to 64 bytes.
        unsafe { tile_asm!("ldtilecfg [{}]", in(reg) &raw const configuration,) };
        let sums = [const { Sums([[Line([0; 16]); ROWS]; 4]) }; 2];
        Self { steps, num_users, sums, not_send: PhantomData }
    }

    /// Writes the scores of the users with the items of a panel.
    #[target_feature(enable = "avx512f")]
    fn score<'a>(&mut self, users: &[Line], items: &Integers, rows: &mut impl Iterator<Item = &'a mut [f32]>) {
        let Steps { number, groups } = self.steps;
        assert_eq!((users.len(), items.groups.len()), (2 * number * ROWS, self.steps.num_pairs()));
        let lines = items.groups.as_flattened();
        for (side, sums) in self.sums.iter_mut().enumerate() {
            // SAFETY: in every step two tiles of users of `ROWS` lines are read, of which rows 0 to `num_users`, and
            // two of items of `groups` lines, by the sizes that were checked; written are `num_users` lines of each
            // tile of `sums`, which has `ROWS`. `Unit::new` made sure of the unit and its configuration.
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
                    items = inout(reg) lines.as_ptr().add(2 * side * number * groups) => _,
                    low_items = inout(reg) lines.as_ptr().add((2 * side * number + 1) * groups) => _,
                    steps = inout(reg) number => _,
                    sums = in(reg) std::ptr::from_mut(sums),
                    line = in(reg) size_of::<Line>(),
                    items_step = in(reg) 2 * groups * size_of::<Line>(),
                    low_users = const ROWS * size_of::<Line>(),
                    users_step = const 2 * ROWS * size_of::<Line>(),
                    tile = const ROWS * size_of::<Line>(),
                );
            }
        }
        for (user, row) in (0..self.num_users).zip(rows) {
            let (halves, _) = row.as_chunks_mut::<16>();
            for ((half, scales), sums) in halves.iter_mut().zip(items.scales.as_chunks::<16>().0).zip(&self.sums) {
                let Sums([high, high_low, low_high, low]) = sums;
                let middle = _mm512_cvtepi32_ps(_mm512_add_epi32(load(&high_low[user]), load(&low_high[user])));
                let (high, low) = (_mm512_cvtepi32_ps(load(&high[user])), _mm512_cvtepi32_ps(load(&low[user])));
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

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: a line holds the 64 bytes that are read, at their alignment.
    unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) }
}

impl Drop for Unit {
    fn drop(&mut self) {
        // SAFETY: the unit is there, as `Unit::new` was told.
        unsafe { tile_asm!("tilerelease",) };
    }
}

/// The four sums of users and 16 items, tile by tile, each a row of 16 for each user.
#[repr(C)]
struct Sums([[Line; ROWS]; 4]);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Kernel, Matrix};

    /// What the unit sums for the integers in tiles, without it: `high high'`, `high low' + low high'`, `low low'`.
    fn sums(steps: Steps, users: &[Line], user: usize, items: &[Line], item: usize) -> [i64; 3] {
        let byte = |group: u32, at: usize| i64::from(group.to_le_bytes()[at].cast_signed());
        let side = item / 16 * 2 * steps.number * steps.groups;
        let mut sums = [0; 3];
        for step in 0..steps.number {
            for group in 0..steps.groups {
                let of_user = [0, 1].map(|plane| users[(2 * step + plane) * ROWS + user].0[group]);
                let of_item = [0, 1].map(|plane| items[side + (2 * step + plane) * steps.groups + group].0[item % 16]);
                for at in 0..4 {
                    let ([high, low], [item_high, item_low]) =
                        (of_user.map(|group| byte(group, at)), of_item.map(|group| byte(group, at)));
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
            let steps = Steps::of(dim);
            let mut tiles = vec![[Line::default(); 2]; steps.num_pairs()];
            for item in 0..PANEL {
                let integers: Vec<i16> = (0..dim).map(|at| value(100 + item, at) as i16).collect();
                steps.put_item(&mut tiles, item, &integers);
            }
            let mut users = Users::empty(dim);
            for user in 0..ROWS {
                users.put(user, &(0..dim).map(|at| value(user, at)).collect::<Vec<i32>>());
            }
            for user in 0..ROWS {
                for item in 0..PANEL {
                    let [high, middle, low] = sums(steps, &users.lines, user, tiles.as_flattened(), item);
                    let product = |at| i64::from(value(user, at)) * i64::from(value(100 + item, at));
                    let expected: i64 = (0..dim).map(product).sum();
                    assert_eq!(65_536 * high + 256 * middle + low, expected, "dim {dim}");
                }
            }
        }
    }

    /// What the factor of the bound on their sums comes from.
    #[test]
    fn halves_make_the_integer_and_are_not_much_more() {
        for integer in -32_640..=32_639_i32 {
            let [high, low] = halves(integer as i16).map(|byte| i32::from(byte.cast_signed()));
            assert_eq!(256 * high + low, integer);
            assert!(low.abs() <= integer.abs() && (256 * high).abs() <= 2 * integer.abs(), "{integer}");
            assert!(integer.abs() > 32_638 || high.abs() <= 127, "{integer}");
        }
    }

    /// With the largest sums that there can be: bytes of -128 and 127 in all of the most dimensions.
    #[test]
    fn scores_are_made_of_the_sums() {
        for kernel in Kernel::supported().into_iter().filter(|kernel| kernel.has_tiles()) {
            for dim in [1, 2, 65, 512, 65_536] {
                let row = |seed: usize| (0..dim).map(move |at| ((at * 37 + seed * 101) % 2003) as f32 / 2003.0 - 0.5);
                // With the first, the scale is 1 or as good as 1; that of items is rounded up.
                let most = |first| (0..dim).map(move |at| if at == 0 { first } else { 127.0 * 256.0 - 128.0 });
                let users: Vec<f32> = (0..3).flat_map(row).chain(most(32_638.0)).collect();
                let opposite = most(32_637.0).map(|value| -value);
                let items: Vec<f32> = (7..26).flat_map(row).chain(most(32_637.0)).chain(opposite).collect();
                let panels = Panel::all(Matrix::new(&items, dim), kernel);
                let tile = UserTile::new(Matrix::new(&users, dim), kernel);
                let mut scores = vec![0.0; 4 * PANEL];
                // SAFETY: the kernel is supported.
                unsafe { score(&tile, &panels, &mut scores) };
                let lines = &tile.amx.as_ref().expect("a tile of this kernel").lines;
                let Integers { groups, scales } = panels[0].integers();
                for user in 0..4 {
                    for item in 0..21 {
                        let parts = sums(Steps::of(dim), lines, user, groups.as_flattened(), item);
                        let [high, middle, low] = parts.map(|sum| i32::try_from(sum).expect("32 bits") as f32);
                        let whole = high.mul_add(65_536.0, middle.mul_add(256.0, low));
                        assert_eq!(scores[user * PANEL + item], whole * scales[item], "dim {dim}");
                    }
                }
                let [.., middle, _] = sums(Steps::of(dim), lines, 3, groups.as_flattened(), 19);
                assert!(dim < 65_536 || middle.abs() > i64::from(i32::MAX) * 99 / 100, "{middle}");
            }
        }
    }
}
