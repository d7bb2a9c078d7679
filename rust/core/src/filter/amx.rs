//! Products by the matrix unit of Intel's server CPUs, AMX: 16 x 16 sums of products of bytes at a time.
//!
//! The unit multiplies bytes. An integer of 16 bits is `256 high + low`, its upper byte signed and its lower one not,
//! so a product of two is
//!
//! ```text
//! 65536 high high' + 256 (high low' + low high') + low low'
//! ```
//!
//! and the sums of these four, which the unit takes for any signs, give the sum of the products. They may leave 32 bits
//! on the way; the sum does not, and arithmetic modulo 2^32 finds it. So it is that of every other kernel, four times
//! as fast as by [`super::products`].
//!
//! A tile is 16 rows of 64 bytes. The dimensions are cut into steps of at most 64, all of one size. A step of 16
//! items is two tiles, one behind the other, their upper bytes and their lower ones: a row holds four dimensions of all
//! 16, as it does in any panel. A panel holds all steps of its first 16 items and then those of the others. A step of
//! users is two tiles as well, with a row for each user.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::items::{Integers, Line, PANEL, Panel};
use super::users::UserTile;

/// Rows of a tile at most, so users.
pub(crate) const ROWS: usize = 16;

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

    /// The tiles of users that are 0 in every dimension.
    pub(super) fn empty_users(self) -> Vec<Line> {
        vec![Line::default(); self.number * 2 * ROWS]
    }

    /// Writes the integers of a user into the tiles.
    pub(super) fn put_user(self, tiles: &mut [Line], user: usize, integers: &[i32]) {
        for (group, integers) in integers.chunks(4).enumerate() {
            let (step, place) = (group / self.groups, group % self.groups);
            for (plane, shift) in [(0, 8), (1, 0)] {
                let byte = |at: usize| (integers.get(at).map_or(0, |integer| integer >> shift) & 0xff).cast_unsigned();
                let bytes = byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
                tiles[(2 * step + plane) * ROWS + user].0[place] = bytes;
            }
        }
    }

    /// The integers of a panel as tiles, from groups of two dimensions.
    pub(super) fn put_items(self, pairs: &[[Line; 2]]) -> Vec<[Line; 2]> {
        let mut tiles = vec![[Line::default(); 2]; 2 * self.number * self.groups];
        let nothing = [Line::default(); 2];
        for (group, pairs) in pairs.chunks(2).enumerate() {
            let (first, second) = (&pairs[0], pairs.get(1).unwrap_or(&nothing));
            let start = (group / self.groups) * 2 * self.groups + group % self.groups;
            for side in 0..2 {
                let lines = tiles.as_flattened_mut();
                let side_start = side * 2 * self.number * self.groups;
                let [high, low] = [0, 1].map(|plane| side_start + start + plane * self.groups);
                for item in 0..16 {
                    let (a, b) = (first[side].0[item], second[side].0[item]);
                    let upper = |pair: u32| (pair >> 8) & 0xff | (pair >> 16) & 0xff00;
                    let lower = |pair: u32| pair & 0xff | (pair >> 8) & 0xff00;
                    lines[high].0[item] = upper(a) | upper(b) << 16;
                    lines[low].0[item] = lower(a) | lower(b) << 16;
                }
            }
        }
        tiles
    }

    fn bytes(self) -> usize {
        4 * self.groups
    }
}

/// Whether this CPU has the unit and the operating system lets the process use it, which is asked once.
pub(crate) fn is_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| is_on_this_cpu() && is_granted())
}

fn is_on_this_cpu() -> bool {
    const TILES_AND_BYTES: u32 = 1 << 24 | 1 << 25;
    if cfg!(miri) {
        return false;
    }
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILES_AND_BYTES == TILES_AND_BYTES
}

/// Asks Linux for the tiles' place in a thread's saved state (`Documentation/arch/x86/xstate.rst`). The grant is for
/// all threads, for good, and for what is forked from the process.
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
pub(super) unsafe fn score(tile: &UserTile, panels: &[Panel], out: &mut [f32]) {
    if tile.is_empty() {
        return;
    }
    let width = panels.len() * PANEL;
    // SAFETY: the caller's.
    let mut unit = unsafe { Unit::new(tile.steps, tile.len()) };
    for (number, panel) in panels.iter().enumerate() {
        let mut rows = out[number * PANEL..].chunks_mut(width).map(|row| &mut row[..PANEL]);
        // SAFETY: the caller's.
        unsafe { unit.score(&tile.amx, &panel.sixteen, &mut rows) };
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
pub(super) struct Unit {
    steps: Steps,
    num_users: usize,
    /// Of the users with both halves of a panel.
    sums: [Sums; 2],
}

impl Unit {
    /// Sums are tiles 0 to 3, users 4 and 5, items 6 and 7.
    ///
    /// # Safety
    /// The unit must be available, and no other may be in use by this thread.
    pub(super) unsafe fn new(steps: Steps, num_users: usize) -> Self {
        assert!((1..=ROWS).contains(&num_users));
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        for tile in 0..8 {
            configuration.bytes[tile] = if matches!(tile, 4 | 5) { steps.bytes() as u16 } else { 64 };
            configuration.rows[tile] = if tile < 6 { num_users as u8 } else { steps.groups as u8 };
        }
        // SAFETY: the caller's; the configuration is one that palette 1 allows: 1 to 16 rows, 4 to 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, readonly)) };
        let sums = [const { Sums([[Line([0; 16]); ROWS]; 4]) }; 2];
        Self { steps, num_users, sums }
    }

    /// Writes the scores of the users with the items of a panel.
    #[target_feature(enable = "avx512f")]
    pub(super) fn score<'a>(
        &mut self,
        users: &[Line],
        items: &Integers,
        rows: &mut impl Iterator<Item = &'a mut [f32]>,
    ) {
        let Steps { number, groups } = self.steps;
        assert_eq!((users.len(), items.groups.len()), (2 * number * ROWS, 2 * number * groups));
        let lines = items.groups.as_flattened();
        for (side, sums) in self.sums.iter_mut().enumerate() {
            // SAFETY: in every step two tiles of users of `ROWS` lines are read, of which rows 0 to `num_users`, and
            // two of items of `groups` lines, by the sizes that were checked; written are `num_users` lines of each
            // tile of `sums`, which has `ROWS`. `Unit::new` made sure of the unit and its configuration.
            unsafe {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "2:",
                    "tileloadd tmm4, [{users} + {line}*1]",
                    "tileloadd tmm6, [{items} + {line}*1]",
                    "tdpbssd tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{low_items} + {line}*1]",
                    "tdpbsud tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{users} + {line}*1 + {low_users}]",
                    "tdpbusd tmm2, tmm5, tmm6",
                    "tdpbuud tmm3, tmm5, tmm7",
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
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
        for (user, row) in (0..self.num_users).zip(rows) {
            let (halves, _) = row.as_chunks_mut::<16>();
            for ((half, scales), sums) in halves.iter_mut().zip(items.scales.as_chunks::<16>().0).zip(&self.sums) {
                let [high, high_low, low_high, low] = sums.0.each_ref().map(|tile| load(&tile[user]));
                let middle = _mm512_slli_epi32::<8>(_mm512_add_epi32(high_low, low_high));
                let whole = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32::<16>(high), low), middle);
                // SAFETY: both hold the 16 values that are read or written, at any alignment.
                unsafe {
                    let score = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_loadu_ps(scales.as_ptr()));
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
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// The four sums of users and 16 items, tile by tile, each a row of 16 for each user.
#[repr(C)]
struct Sums([[Line; ROWS]; 4]);
