//! Rounding of vectors to integers, and what it loses.

use crate::matrix::norm;

/// An item as integers of 16 bits.
pub(super) struct Rounded {
    pub(super) values: Vec<i16>,
    /// The upper half of the f32 scale; see [`rounded_up`].
    pub(super) scale: u16,
    pub(super) norm: f64,
    pub(super) lost: f64,
}

/// The largest norm of integers: the product of two vectors of this norm still fits in 32 bits.
const MAX_NORM: f64 = 46_340.0;

/// The largest norm of a vector in units of its scale, before it is rounded.
pub(super) fn max_norm_in_scales(dim: usize) -> f64 {
    let by_rounding = (dim as f64).sqrt() / 2.0 + 1.0;
    MAX_NORM - by_rounding
}

/// The scale that rounds a vector of this norm and largest value to integers of 16 bits.
///
/// In tiles the integers fill what two signed bytes hold. Elsewhere their norm is at most `MAX_NORM`.
pub(super) fn scale_of_sixteen(norm: f64, largest: f32, dim: usize, has_tiles: bool) -> f32 {
    let largest = f64::from(largest);
    let scale = if has_tiles { largest / 32_638.0 } else { (norm / max_norm_in_scales(dim)).max(largest / 32_766.0) };
    (scale as f32).next_up()
}

/// The upper half of the next f32 whose lower half is 0. It is at most 1/128 larger than `value`, except below the
/// normal range of f32.
///
/// A scale is below the normal range where the largest value of its item is below about 1e-33. Such an item loses more
/// the smaller it is, and below 1e-40 it loses everything. All items of its block then stay in doubt.
pub(super) fn rounded_up(value: f64) -> u16 {
    ((value as f32).next_up().to_bits().div_ceil(1 << 16)) as u16
}

/// The f32 with this upper half.
#[inline(always)]
pub(super) fn whole(upper_half: u16) -> f32 {
    f32::from_bits(u32::from(upper_half) << 16)
}

/// The nearest integer of a number between -2^21 and 2^21, ties to even. Adding 1.5 x 2^23 leaves it in the lower bits.
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
pub(super) fn round(row: &[f32], has_tiles: bool) -> Rounded {
    let (norm, largest) = size(row);
    let scale = rounded_up(f64::from(scale_of_sixteen(norm, largest, row.len(), has_tiles)));
    let mut values = vec![0; row.len()];
    for (integer, value) in values.iter_mut().zip(row) {
        *integer = nearest(value / whole(scale)) as i16;
    }
    let lost = lost(row, &values, whole(scale));
    Rounded { values, scale, norm, lost }
}

/// The norm of the difference between a row and its integers.
#[inline(always)]
fn lost(row: &[f32], values: &[i16], scale: f32) -> f64 {
    let values = &values[..row.len()];
    norm(row.len(), |at| f64::from(row[at]) - f64::from(scale) * f64::from(values[at]))
}

/// The factor by which integers of 16 bits fill 8 bits; `largest` is the largest magnitude of the integers.
#[inline(always)]
fn factor_of_eight(largest: u16) -> i16 {
    ((127 << 15) / i32::from(largest.max(1))).min(i32::from(i16::MAX)) as i16
}

/// `value * factor / 2^15`, rounded: one instruction on CPUs that return the upper half of products of 16 bits.
#[inline(always)]
fn in_eight(value: i16, factor: i16) -> i16 {
    ((i32::from(value) * i32::from(factor) + (1 << 14)) >> 15) as i16
}

/// The scale of integers of 8 bits that were made of integers of 16 bits with `scale`.
#[inline(always)]
pub(super) fn scale_of_eight(scale: f32, factor: i16) -> f32 {
    scale * (32_768.0 / f32::from(factor))
}

/// The factor that turns the 16 bits of a row into 8, and the norm of the difference between the row and its 8 bits.
#[inline(always)]
pub(super) fn eight_of(row: &[f32], values: &[i16], scale: f32) -> (i16, f64) {
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
