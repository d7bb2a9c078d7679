//! Items as integers, in the order in which products read them.

use std::sync::Arc;

use rayon::prelude::*;

use super::Precision;
#[cfg(target_arch = "x86_64")]
use super::amx::Steps;
#[cfg(target_arch = "x86_64")]
use crate::kernel::Instructions;
use crate::matrix::norm;
use crate::{Interrupt, Kernel, Matrix, Result};

/// Items of a panel: two vectors of 16.
pub const PANEL: usize = 32;

/// A cache line: for 16 items, four bytes each, two integers of 16 bits or four of 8.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [u32; 16]);

/// The integers of a panel, group by group of four bytes, each of all its items; or as tiles, see [`super::amx`].
/// Missing items and dimensions are 0.
pub(super) struct Integers<'a> {
    pub(super) groups: &'a [[Line; 2]],
    /// `t` of each item.
    pub(super) scales: [f32; PANEL],
}

/// `PANEL` items in 16 bits, and what is needed to make 8 of them: some 5 bytes an item beside its integers.
pub struct Panel {
    made: Arc<Made>,
    /// Which of those made together it is.
    number: u32,
}

/// Panels that are made together: at most so many, and so few that there are some parts for each thread.
const MOST_TOGETHER: usize = 512;
const PARTS_PER_THREAD: usize = 8;

/// Panels that were made together, since every allocation costs some bytes.
struct Made {
    groups: Vec<[Line; 2]>,
    groups_of_each: usize,
    beside: Vec<Beside>,
    /// The largest `|x|` of all their items; infinite where a value is not finite.
    max_norm: f64,
}

/// What is kept of a panel beside its integers.
struct Beside {
    /// The largest `|d| / |x|` at each precision, or a little more.
    loss: [f32; 2],
    /// `t` of each item, see [`rounded_up`].
    scales: [u16; PANEL],
    layout: Layout,
}

/// How the integers of a panel lie, and what is kept beside them for each item.
enum Layout {
    /// In groups of two dimensions, with what makes 8 bits of 16, see [`in_eight`].
    Groups { factors: [i16; PANEL] },
    /// In tiles, see [`super::amx`], with the norm in units of the scale, see [`rounded_up`].
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no other CPU has them"))]
    Tiles { norms: [u16; PANEL] },
}

/// The items of a panel in 8 bits, made of those in 16 when a block of items is ranked: no copy of the catalog.
#[derive(Clone, Default)]
pub struct EightBits {
    pub(super) groups: Vec<[Line; 2]>,
    pub(super) scales: [f32; PANEL],
    /// What a product counts too much for each item.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only products of 8 bits have them"))]
    pub(super) offsets: [i32; PANEL],
}

/// An item as integers of 16 bits.
struct Rounded {
    values: Vec<i16>,
    scale: u16,
    norm: f64,
    lost: f64,
}

/// The largest norm of integers whose products are sums in 32 bits.
pub(super) const MAX_NORM: f64 = 46_340.0;

/// The largest norm of a vector in units of its scale, before it is rounded.
fn max_norm_in_scales(dim: usize) -> f64 {
    let by_rounding = (dim as f64).sqrt() / 2.0 + 1.0;
    MAX_NORM - by_rounding
}

/// The scale that rounds a vector of some norm and largest value to integers of 16 bits: those in tiles to what two
/// signed bytes hold, others to a norm of at most `MAX_NORM`.
pub(super) fn scale_of_sixteen(norm: f64, largest: f32, dim: usize, has_tiles: bool) -> f32 {
    let largest = f64::from(largest);
    let scale = if has_tiles { largest / 32_638.0 } else { (norm / max_norm_in_scales(dim)).max(largest / 32_766.0) };
    (scale as f32).next_up()
}

/// The upper half of the next f32 that has no lower half: at most 1/128 more, but for numbers below f32's normal range.
///
/// Of scales those are of items whose largest value is below 1e-33 or so: they lose more the smaller they are, up to all
/// of them below 1e-40, and leave their block in doubt.
fn rounded_up(value: f64) -> u16 {
    ((value as f32).next_up().to_bits().div_ceil(1 << 16)) as u16
}

/// The f32 of an upper half.
#[inline(always)]
fn whole(upper_half: u16) -> f32 {
    f32::from_bits(u32::from(upper_half) << 16)
}

/// The nearest integer of a number between -2^21 and 2^21, ties to even: adding 1.5 x 2^23 leaves it in the lower bits.
#[inline(always)]
pub(super) fn nearest(value: f32) -> i32 {
    const SHIFTED: f32 = 12_582_912.0;
    (value + SHIFTED).to_bits().cast_signed() - SHIFTED.to_bits().cast_signed()
}

/// The norm and the largest magnitude of a row.
#[inline(always)]
pub(super) fn size(row: &[f32]) -> (f64, f32) {
    let mut largest = [0.0_f32; 16];
    for values in row.chunks(16) {
        for (largest, value) in largest.iter_mut().zip(values) {
            *largest = if value.abs() > *largest { value.abs() } else { *largest };
        }
    }
    let largest = largest.into_iter().fold(0.0, f32::max);
    (norm(row.len(), |at| f64::from(row[at])), largest)
}

#[inline(always)]
fn round(row: &[f32], has_tiles: bool) -> Rounded {
    let (norm, largest) = size(row);
    let scale = rounded_up(f64::from(scale_of_sixteen(norm, largest, row.len(), has_tiles)));
    let mut values = vec![0; row.len()];
    for (integer, value) in values.iter_mut().zip(row) {
        *integer = nearest(value / whole(scale)) as i16;
    }
    let lost = lost(row, &values, whole(scale));
    Rounded { values, scale, norm, lost }
}

/// The norm of what rounding took from a row.
#[inline(always)]
fn lost(row: &[f32], values: &[i16], scale: f32) -> f64 {
    let values = &values[..row.len()];
    norm(row.len(), |at| f64::from(row[at]) - f64::from(scale) * f64::from(values[at]))
}

/// The factor by which integers of 16 bits, at most `largest`, fill 8 bits.
#[inline(always)]
fn factor_of_eight(largest: u16) -> i16 {
    ((127 << 15) / i32::from(largest.max(1))).min(i32::from(i16::MAX)) as i16
}

/// `value * factor / 2^15`, rounded: one instruction where 16 bits are multiplied for their upper half.
#[inline(always)]
fn in_eight(value: i16, factor: i16) -> i16 {
    ((i32::from(value) * i32::from(factor) + (1 << 14)) >> 15) as i16
}

/// The scale of integers of 8 bits whose 16 bits had `scale`.
#[inline(always)]
fn scale_of_eight(scale: f32, factor: i16) -> f32 {
    scale * (32_768.0 / f32::from(factor))
}

/// The factor that makes 8 bits of the 16 of a row, and the norm of what they miss of it.
#[inline(always)]
fn eight_of(row: &[f32], values: &[i16], scale: f32) -> (i16, f64) {
    let mut largest = 0;
    for value in values {
        largest = value.unsigned_abs().max(largest);
    }
    let factor = factor_of_eight(largest);
    let mut eight = vec![0; values.len()];
    for (eight, value) in eight.iter_mut().zip(values) {
        *eight = in_eight(*value, factor);
    }
    (factor, lost(row, &eight, scale_of_eight(scale, factor)))
}

/// Puts an item in its place in groups of two dimensions.
#[inline(always)]
fn put_pairs(groups: &mut [[Line; 2]], item: usize, values: &[i16]) {
    for (group, pair) in groups.iter_mut().zip(values.chunks(2)) {
        let second = pair.get(1).map_or(0, |value| value.cast_unsigned());
        group[item / 16].0[item % 16] = u32::from(pair[0].cast_unsigned()) | u32::from(second) << 16;
    }
}

impl EightBits {
    pub(super) fn integers(&self) -> Integers<'_> {
        Integers { groups: &self.groups, scales: self.scales }
    }
}

impl Layout {
    fn has_tiles(&self) -> bool {
        matches!(self, Self::Tiles { .. })
    }
}

impl Panel {
    /// The panels of all items; about half the size of the items themselves.
    pub fn all(items: Matrix, kernel: Kernel) -> Vec<Self> {
        Self::all_until(Interrupt::NEVER, items, kernel).expect("nothing interrupts this")
    }

    /// As [`Panel::all`], unless it is interrupted.
    ///
    /// # Errors
    /// [`crate::Error::Interrupted`].
    pub fn all_until(interrupt: Interrupt, items: Matrix, kernel: Kernel) -> Result<Vec<Self>> {
        let num_panels = items.rows().div_ceil(PANEL);
        let num_parts = PARTS_PER_THREAD * rayon::current_num_threads();
        let together = PANEL * (num_panels / num_parts).clamp(1, MOST_TOGETHER);
        let starts = (0..items.rows()).into_par_iter().step_by(together);
        let made = starts.map(|start| {
            Self::together(interrupt, items.slice(start, (start + together).min(items.rows())), kernel, Vec::new())
        });
        let mut panels = Vec::with_capacity(num_panels);
        made.collect::<Result<Vec<_>>>()?.into_iter().for_each(|made| panels.extend(made));
        Ok(panels)
    }

    /// The panels of a block of items, made by this thread alone in the memory of those of another block.
    pub fn block(items: Matrix, kernel: Kernel, used: Vec<Self>) -> Vec<Self> {
        let used = used.into_iter().find_map(|panel| Arc::into_inner(panel.made)).map(|made| made.groups);
        Self::together(Interrupt::NEVER, items, kernel, used.unwrap_or_default()).expect("nothing interrupts this")
    }

    fn together(interrupt: Interrupt, items: Matrix, kernel: Kernel, used: Vec<[Line; 2]>) -> Result<Vec<Self>> {
        match kernel.instructions() {
            // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => unsafe { Self::with_amx(interrupt, items, used) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni | Instructions::Avx512 => unsafe { Self::with_avx512(interrupt, items, used) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { Self::with_avx2(interrupt, items, used) },
            _ => Self::of(interrupt, items, used),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn with_amx(interrupt: Interrupt, items: Matrix, used: Vec<[Line; 2]>) -> Result<Vec<Self>> {
        let steps = Steps::of(items.dim());
        let put = |tiles: &mut [[Line; 2]], item: usize, values: &[i16]| steps.put_item(tiles, item, values);
        Self::made_of(interrupt, items, used, || Layout::Tiles { norms: [0; PANEL] }, steps.num_pairs(), put)
    }

    /// The same code, compiled for wider registers: loops, since closures would not be.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn with_avx512(interrupt: Interrupt, items: Matrix, used: Vec<[Line; 2]>) -> Result<Vec<Self>> {
        Self::of(interrupt, items, used)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn with_avx2(interrupt: Interrupt, items: Matrix, used: Vec<[Line; 2]>) -> Result<Vec<Self>> {
        Self::of(interrupt, items, used)
    }

    #[inline(always)]
    fn of(interrupt: Interrupt, items: Matrix, used: Vec<[Line; 2]>) -> Result<Vec<Self>> {
        Self::made_of(
            interrupt,
            items,
            used,
            || Layout::Groups { factors: [0; PANEL] },
            items.dim().div_ceil(2),
            put_pairs,
        )
    }

    /// Panels of so many groups each, in place of those that are passed, with what puts the integers of an item into
    /// them.
    #[inline(always)]
    fn made_of(
        interrupt: Interrupt,
        items: Matrix,
        mut groups: Vec<[Line; 2]>,
        layout: impl Fn() -> Layout,
        groups_of_each: usize,
        put: impl Fn(&mut [[Line; 2]], usize, &[i16]),
    ) -> Result<Vec<Self>> {
        let starts = (0..items.rows()).step_by(PANEL);
        groups.clear();
        groups.reserve_exact(starts.len() * groups_of_each);
        let beside = Vec::with_capacity(starts.len());
        let mut made = Made { groups, groups_of_each, beside, max_norm: 0.0 };
        for (number, start) in starts.enumerate() {
            interrupt.check()?;
            let (mut scales, mut layout) = ([0; PANEL], layout());
            let mut loss = [0.0_f64; 2];
            made.groups.resize((number + 1) * groups_of_each, [Line::default(); 2]);
            let groups = &mut made.groups[number * groups_of_each..];
            for item in start..(start + PANEL).min(items.rows()) {
                let (row, item) = (items.row(item), item - start);
                let Rounded { values, scale, norm, lost: lost_in_sixteen } = round(row, layout.has_tiles());
                put(groups, item, &values);
                scales[item] = scale;
                made.max_norm = if norm.is_finite() { norm.max(made.max_norm) } else { f64::INFINITY };
                let lost_in_eight = match &mut layout {
                    Layout::Groups { factors } => {
                        let (factor, lost) = eight_of(row, &values, whole(scale));
                        factors[item] = factor;
                        lost
                    }
                    Layout::Tiles { norms } => {
                        norms[item] = rounded_up(norm / f64::from(whole(scale)));
                        0.0
                    }
                };
                if norm > 0.0 {
                    let lost = [lost_in_eight, lost_in_sixteen];
                    loss = std::array::from_fn(|at| loss[at].max(lost[at] / norm));
                }
            }
            made.beside.push(Beside { loss: loss.map(|loss| (loss as f32).next_up()), scales, layout });
        }
        let made = Arc::new(made);
        Ok((0..made.beside.len() as u32).map(|number| Self { made: made.clone(), number }).collect())
    }

    /// The largest norm of its items and those of the panels that were made with it; infinite where a value is not
    /// finite.
    pub fn max_norm_together(&self) -> f64 {
        self.made.max_norm
    }

    fn beside(&self) -> &Beside {
        &self.made.beside[self.number as usize]
    }

    pub(super) fn integers(&self) -> Integers<'_> {
        let Made { groups, groups_of_each, .. } = &*self.made;
        let start = self.number as usize * groups_of_each;
        let mut scales = [0.0; PANEL];
        for (scale, half) in scales.iter_mut().zip(self.beside().scales) {
            *scale = whole(half);
        }
        Integers { groups: &groups[start..start + groups_of_each], scales }
    }

    pub(super) fn has_tiles(&self) -> bool {
        self.beside().layout.has_tiles()
    }

    /// Of each item, `|x|` or a little more. Where it is not kept it is what the scale allows, which is `|x|` or 1/128
    /// more but where one value outweighs all others together, and then less than 1.5 `|x|`; more, where the scale is
    /// below f32's normal range.
    pub fn norms(&self, dim: usize) -> [f32; PANEL] {
        let Beside { scales, layout, .. } = self.beside();
        let in_scales = |item| match layout {
            Layout::Groups { .. } => max_norm_in_scales(dim),
            Layout::Tiles { norms } => f64::from(whole(norms[item])),
        };
        std::array::from_fn(|item| ((f64::from(whole(scales[item])) * in_scales(item)) as f32).next_up())
    }

    /// The largest share of an item's norm that rounding took.
    pub fn loss(&self, precision: Precision) -> f64 {
        f64::from(self.beside().loss[precision as usize])
    }

    /// What makes 8 bits of each item's 16; 0 for a missing one.
    ///
    /// # Panics
    /// For tiles.
    pub(super) fn factors_of_eight(&self) -> &[i16; PANEL] {
        match &self.beside().layout {
            Layout::Groups { factors } => factors,
            Layout::Tiles { .. } => panic!("a panel of another kernel"),
        }
    }

    /// The scales of the items in 8 bits; 0 for a missing one.
    ///
    /// # Panics
    /// For tiles.
    pub(super) fn scales_of_eight(&self) -> [f32; PANEL] {
        let factors = self.factors_of_eight();
        std::array::from_fn(|item| match factors[item] {
            0 => 0.0,
            factor => scale_of_eight(whole(self.beside().scales[item]), factor),
        })
    }
}
