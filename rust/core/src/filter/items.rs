//! Items as integers, in the order in which products read them.

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
#[derive(Clone, Default)]
pub(super) struct Integers {
    pub(super) groups: Vec<[Line; 2]>,
    /// `t` of each item.
    pub(super) scales: [f32; PANEL],
}

/// `PANEL` items in 16 bits, and what is needed to make 8 of them.
pub struct Panel {
    pub(super) sixteen: Integers,
    /// The largest `|x|`; infinite where a value is not finite.
    pub max_norm: f64,
    /// The largest `|d| / |x|` at each precision.
    loss: [f64; 2],
    pub(super) layout: Layout,
}

/// How the integers of a panel lie, and what is kept beside them for each item.
pub(super) enum Layout {
    /// In groups of two dimensions, with what makes 8 bits of 16, see [`in_eight`].
    Groups { factors: [i16; PANEL] },
    /// In tiles, see [`super::amx`], with the norm in units of the scale, see [`rounded_up`].
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no other CPU has them"))]
    Tiles { norms: [u16; PANEL] },
}

/// The items of a panel in 8 bits, made of those in 16 when a block of items is ranked: no copy of the catalog.
#[derive(Clone, Default)]
pub struct EightBits {
    pub(super) integers: Integers,
    /// What a product counts too much for each item.
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only products of 8 bits have them"))]
    pub(super) offsets: [i32; PANEL],
}

/// An item as integers of 16 bits.
struct Rounded {
    values: Vec<i16>,
    scale: f32,
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

/// The upper half of the next f32 that has no lower half: at most 1/128 more.
fn rounded_up(value: f64) -> u16 {
    ((value as f32).next_up().to_bits().div_ceil(1 << 16)) as u16
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
    let scale = scale_of_sixteen(norm, largest, row.len(), has_tiles);
    let mut values = vec![0; row.len()];
    for (integer, value) in values.iter_mut().zip(row) {
        *integer = nearest(value / scale) as i16;
    }
    let lost = lost(row, &values, scale);
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
        let starts = (0..items.rows()).into_par_iter().step_by(PANEL);
        starts.map(|start| interrupt.check().map(|()| Self::new(items, start, kernel))).collect()
    }

    /// The panels of a block of items, made by this thread alone.
    pub fn block(items: Matrix, kernel: Kernel) -> Vec<Self> {
        (0..items.rows()).step_by(PANEL).map(|start| Self::new(items, start, kernel)).collect()
    }

    fn new(items: Matrix, start: usize, kernel: Kernel) -> Self {
        let items = items.slice(start, (start + PANEL).min(items.rows()));
        match kernel.instructions() {
            // SAFETY: a `Kernel` exists only on a CPU with the features that its functions enable.
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => unsafe { Self::with_amx(items) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni | Instructions::Avx512 => unsafe { Self::with_avx512(items) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => unsafe { Self::with_avx2(items) },
            _ => Self::of(items),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw")]
    fn with_amx(items: Matrix) -> Self {
        let steps = Steps::of(items.dim());
        let put = |tiles: &mut [[Line; 2]], item: usize, values: &[i16]| steps.put_item(tiles, item, values);
        Self::made_of(items, Layout::Tiles { norms: [0; PANEL] }, steps.empty_panel(), put)
    }

    /// The same code, compiled for wider registers: loops, since closures would not be.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn with_avx512(items: Matrix) -> Self {
        Self::of(items)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn with_avx2(items: Matrix) -> Self {
        Self::of(items)
    }

    #[inline(always)]
    fn of(items: Matrix) -> Self {
        let layout = Layout::Groups { factors: [0; PANEL] };
        Self::made_of(items, layout, vec![[Line::default(); 2]; items.dim().div_ceil(2)], put_pairs)
    }

    /// From a layout and groups for all integers, and what puts those of an item into them.
    #[inline(always)]
    fn made_of(
        items: Matrix,
        mut layout: Layout,
        groups: Vec<[Line; 2]>,
        put: impl Fn(&mut [[Line; 2]], usize, &[i16]),
    ) -> Self {
        let mut sixteen = Integers { groups, ..Integers::default() };
        let mut max_norm = 0.0;
        let mut loss = [0.0_f64; 2];
        for item in 0..items.rows() {
            let row = items.row(item);
            let Rounded { values, scale, norm, lost: lost_in_sixteen } = round(row, layout.has_tiles());
            put(&mut sixteen.groups, item, &values);
            sixteen.scales[item] = scale;
            max_norm = if norm.is_finite() { norm.max(max_norm) } else { f64::INFINITY };
            let lost_in_eight = match &mut layout {
                Layout::Groups { factors } => {
                    let (factor, lost) = eight_of(row, &values, scale);
                    factors[item] = factor;
                    lost
                }
                Layout::Tiles { norms } => {
                    norms[item] = rounded_up(norm / f64::from(scale));
                    0.0
                }
            };
            if norm > 0.0 {
                let lost = [lost_in_eight, lost_in_sixteen];
                loss = std::array::from_fn(|at| loss[at].max(lost[at] / norm));
            }
        }
        Self { sixteen, max_norm, loss, layout }
    }

    pub(super) fn has_tiles(&self) -> bool {
        self.layout.has_tiles()
    }

    /// Of each item, `|x|` or a little more. Where it is not kept it is what the scale allows, which is `|x|` but where
    /// one value outweighs all others together, and then less than 1.5 `|x|`; more, where the scale is below f32's normal
    /// range.
    pub fn norms(&self, dim: usize) -> [f32; PANEL] {
        let in_scales = |item| match &self.layout {
            Layout::Groups { .. } => max_norm_in_scales(dim),
            Layout::Tiles { norms } => f64::from(f32::from_bits(u32::from(norms[item]) << 16)),
        };
        std::array::from_fn(|item| ((f64::from(self.sixteen.scales[item]) * in_scales(item)) as f32).next_up())
    }

    /// The largest share of an item's norm that rounding took.
    pub fn loss(&self, precision: Precision) -> f64 {
        self.loss[precision as usize]
    }

    /// What makes 8 bits of each item's 16; 0 for a missing one.
    ///
    /// # Panics
    /// For tiles.
    pub(super) fn factors_of_eight(&self) -> &[i16; PANEL] {
        match &self.layout {
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
            factor => scale_of_eight(self.sixteen.scales[item], factor),
        })
    }
}
