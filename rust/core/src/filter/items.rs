//! Items as integers, in the order in which products read them.

use rayon::prelude::*;

use super::Precision;
use crate::Matrix;

/// Items of a panel: two vectors of 16.
pub const PANEL: usize = 32;

/// A cache line: for 16 items, four bytes each, two integers of 16 bits or four of 8.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [u32; 16]);

/// The integers of a panel, group by group of four bytes, each of all its items. Missing items and dimensions are 0.
#[derive(Clone, Default)]
pub(super) struct Integers {
    pub(super) groups: Vec<[Line; 2]>,
    /// `t` of each item.
    pub(super) scales: [f32; PANEL],
    /// What a product counts too much for each item.
    pub(super) offsets: [i32; PANEL],
}

/// `PANEL` items in 16 bits, and what is needed to take the upper 8 of them.
pub struct Panel {
    pub(super) sixteen: Integers,
    /// Of each item, `|x|`, rounded up.
    pub norms: [f32; PANEL],
    /// The largest `|d| / |x|` at each precision.
    loss: [f64; 2],
    /// How many bits are dropped to leave 8.
    pub(super) shift: u32,
}

/// The items of a panel in 8 bits, made of those in 16 when a block of items is ranked: no copy of the catalog.
#[derive(Clone, Default)]
pub struct EightBits(pub(super) Integers);

/// An item as integers of 16 bits.
struct Rounded {
    values: Vec<i16>,
    scale: f32,
    norm: f64,
    lost: f64,
}

/// The largest norm of integers whose products are sums in 32 bits.
pub(super) const MAX_NORM: f64 = 46_340.0;

/// The scale that rounds a vector of some norm and largest value to integers of 16 bits and at most `MAX_NORM`.
pub(super) fn scale_of_sixteen(norm: f64, largest: f32, dim: usize) -> f32 {
    let by_rounding = (dim as f64).sqrt() / 2.0 + 1.0;
    let by_norm = norm / (MAX_NORM - by_rounding);
    let by_value = f64::from(largest) / 32_766.0;
    (by_norm.max(by_value) as f32).next_up()
}

/// The nearest integer of a number between -2^21 and 2^21, ties to even: adding 1.5 x 2^23 leaves it in the lower bits.
pub(super) fn nearest(value: f32) -> i32 {
    const SHIFTED: f32 = 12_582_912.0;
    (value + SHIFTED).to_bits().cast_signed() - SHIFTED.to_bits().cast_signed()
}

/// The norm of a vector of `len` values, in f64 and eight partial sums.
#[inline(always)]
pub(super) fn norm(len: usize, value: impl Fn(usize) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    let whole = len - len % 8;
    for start in (0..whole).step_by(8) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let value = value(start + lane);
            *sum += value * value;
        }
    }
    let rest: f64 = (whole..len).map(|at| value(at) * value(at)).sum();
    (sums.iter().sum::<f64>() + rest).sqrt()
}

/// The norm and the largest magnitude of a row.
pub(super) fn size(row: &[f32]) -> (f64, f32) {
    let largest = row.iter().fold(0.0_f32, |largest, value| if value.abs() > largest { value.abs() } else { largest });
    (norm(row.len(), |at| f64::from(row[at])), largest)
}

fn round(row: &[f32]) -> Rounded {
    let (norm, largest) = size(row);
    let scale = scale_of_sixteen(norm, largest, row.len());
    let values: Vec<i16> = row.iter().map(|value| nearest(value / scale) as i16).collect();
    let lost = lost(row, &values, scale);
    Rounded { values, scale, norm, lost }
}

/// The norm of what rounding took from a row.
fn lost(row: &[f32], values: &[i16], scale: f32) -> f64 {
    let values = &values[..row.len()];
    norm(row.len(), |at| f64::from(row[at]) - f64::from(scale) * f64::from(values[at]))
}

/// The upper bits of a value, rounded; 32,767 stays in range.
fn upper(value: i16, shift: u32) -> i16 {
    let half = if shift > 0 { 1 << (shift - 1) } else { 0 };
    value.saturating_add(half) >> shift
}

impl Panel {
    /// The panels of all items; half the size of the items themselves.
    pub fn all(items: Matrix) -> Vec<Self> {
        let starts = (0..items.rows()).into_par_iter().step_by(PANEL);
        starts.map(|start| Self::of(items.slice(start, (start + PANEL).min(items.rows())))).collect()
    }

    fn of(items: Matrix) -> Self {
        let mut sixteen = Integers { groups: vec![[Line([0; 16]); 2]; items.dim().div_ceil(2)], ..Integers::default() };
        let mut norms = [0.0; PANEL];
        let mut loss = [0.0_f64; 2];
        let rounded: Vec<Rounded> = (0..items.rows()).map(|item| round(items.row(item))).collect();
        let largest = rounded.iter().flat_map(|item| &item.values).map(|value| value.unsigned_abs()).max();
        let shift = (0..=8).find(|shift| upper(largest.unwrap_or(0) as i16, *shift) <= 127).expect("8 bits stay");
        for (item, rounded) in rounded.iter().enumerate() {
            for (group, pair) in sixteen.groups.iter_mut().zip(rounded.values.chunks(2)) {
                let second = pair.get(1).map_or(0, |value| value.cast_unsigned());
                group[item / 16].0[item % 16] = u32::from(pair[0].cast_unsigned()) | u32::from(second) << 16;
            }
            sixteen.scales[item] = rounded.scale;
            norms[item] = (rounded.norm as f32).next_up();
            if rounded.norm > 0.0 {
                let in_eight: Vec<i16> = rounded.values.iter().map(|value| upper(*value, shift) << shift).collect();
                let lost = [lost(items.row(item), &in_eight, rounded.scale), rounded.lost];
                loss = std::array::from_fn(|at| loss[at].max(lost[at] / rounded.norm));
            }
        }
        Self { sixteen, norms, loss, shift }
    }

    /// The largest share of an item's norm that rounding took.
    pub fn loss(&self, precision: Precision) -> f64 {
        self.loss[precision as usize]
    }

    /// The scales of the items in 8 bits.
    pub(super) fn scales_of_eight(&self) -> [f32; PANEL] {
        self.sixteen.scales.map(|scale| scale * (1 << self.shift) as f32)
    }
}

impl Default for Line {
    fn default() -> Self {
        Self([0; 16])
    }
}
