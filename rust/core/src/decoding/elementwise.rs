//! What happens to each number of a row between matrix products.

use rayon::prelude::*;

use crate::simd::{Vector, Work};
use crate::{Kernel, Matrix};

/// Rows of a task.
const ROWS: usize = 8;

/// The function of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// x sigmoid(x).
    Silu,
    /// x Phi(x) with Phi approximated by a hyperbolic tangent (Hendrycks and Gimpel, 2016).
    GeluTanh,
}

/// Adds `delta` to the residual stream and writes its root mean square norm, times `weights`, to `out`.
///
/// All are row-major and of one shape.
///
/// # Panics
/// When the sizes do not fit each other.
pub fn add_and_normalize(
    residual: &mut [f32],
    delta: Option<&[f32]>,
    weights: &[f32],
    epsilon: f32,
    out: &mut [f32],
    kernel: Kernel,
) {
    let width = weights.len();
    assert!(width > 0 && residual.len().is_multiple_of(width), "rows of {width}");
    assert_eq!(residual.len(), out.len(), "output");
    assert!(delta.is_none_or(|delta| delta.len() == residual.len()), "delta");
    let size = ROWS * width;
    residual.par_chunks_mut(size).zip(out.par_chunks_mut(size)).enumerate().for_each(|(number, (residual, out))| {
        let delta = delta.map(|delta| &delta[number * size..][..residual.len()]);
        kernel.compute(Normalize { residual, delta, weights, epsilon, out });
    });
}

struct Normalize<'a> {
    residual: &'a mut [f32],
    delta: Option<&'a [f32]>,
    weights: &'a [f32],
    epsilon: f32,
    out: &'a mut [f32],
}

impl Work for Normalize<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let width = self.weights.len();
        if let Some(delta) = self.delta {
            for (sum, value) in self.residual.iter_mut().zip(delta) {
                *sum += value;
            }
        }
        for (row, out) in self.residual.chunks(width).zip(self.out.chunks_mut(width)) {
            let (blocks, tail) = row.as_chunks::<16>();
            let mut squares = [0.0; 16];
            for block in blocks {
                for lane in 0..16 {
                    squares[lane] += block[lane] * block[lane];
                }
            }
            for (lane, value) in tail.iter().enumerate() {
                squares[lane] += value * value;
            }
            let mut total = 0.0;
            for square in squares {
                total += square;
            }
            let factor = 1.0 / (total / width as f32 + self.epsilon).sqrt();
            for ((out, value), weight) in out.iter_mut().zip(row).zip(self.weights) {
                *out = value * factor * weight;
            }
        }
    }
}

/// Writes `gate(x) * y` for rows (x, y), of which both halves are equally wide, to `out`.
///
/// # Panics
/// When the sizes do not fit each other.
pub fn gate(function: Gate, rows: Matrix, out: &mut [f32], kernel: Kernel) {
    assert!(rows.dim().is_multiple_of(2), "two halves");
    let width = rows.dim() / 2;
    assert_eq!(out.len(), rows.rows() * width, "output");
    out.par_chunks_mut(ROWS * width).enumerate().for_each(|(number, out)| {
        let rows = rows.slice(number * ROWS, number * ROWS + out.len() / width);
        kernel.compute(Gated { function, rows, out });
    });
}

struct Gated<'a> {
    function: Gate,
    rows: Matrix<'a>,
    out: &'a mut [f32],
}

impl Work for Gated<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let width = self.rows.dim() / 2;
        for (row, out) in self.out.chunks_mut(width).enumerate() {
            let (x, y) = self.rows.row(row).split_at(width);
            match self.function {
                Gate::Silu => {
                    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                        *out = x / (1.0 + exp(-x)) * y;
                    }
                }
                Gate::GeluTanh => {
                    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                        let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
                        // (1 + tanh(inner)) / 2 is the logistic function of 2 inner.
                        *out = x / (1.0 + exp(-2.0 * inner)) * y;
                    }
                }
            }
        }
    }
}

/// The least number whose exponential is a normal float32.
const LEAST: f32 = -87.336_54;

/// The exponential of a number, within a few units in the last place: 0 below -87.3, and infinity above 88.7.
///
/// It has no branches, so that a loop over it is compiled to vectors.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const MOST: f32 = 88.722_83;
    let inside = if x < LEAST { LEAST } else { x };
    let inside = if inside > MOST { MOST } else { inside };
    let (polynomial, power) = parts_of_exp(inside);
    // 2^power in two halves, since 2^128 is no float32.
    let half = power >> 1;
    let scaled = polynomial * power_of_two(half) * power_of_two(power - half);
    let scaled = if x < LEAST { 0.0 } else { scaled };
    let scaled = if x > MOST { f32::INFINITY } else { scaled };
    if x.is_nan() { x } else { scaled }
}

/// The exponential of a number that is not positive: [`exp`] with fewer operations. Below -87.3 it is 1e-38.
#[inline(always)]
pub(super) fn exp_below_zero(x: f32) -> f32 {
    let (polynomial, power) = parts_of_exp(if x < LEAST { LEAST } else { x });
    f32::from_bits(polynomial.to_bits().wrapping_add((power as u32) << 23))
}

/// p and n of an exponential p 2^n, with p between the square roots of 1/2 and of 2.
#[inline(always)]
fn parts_of_exp(x: f32) -> (f32, i32) {
    /// Added to a number below 2^22, it leaves the nearest integer in the last bits.
    const ROUNDER: f32 = 12_582_912.0;
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let power = rounded - ROUNDER;
    // ln 2 in two parts, the first of which has few bits.
    let rest = x - power * 0.693_359_4 - power * -2.121_944_4e-4;
    // The Taylor polynomial of degree 6; |rest| is at most ln(2) / 2, where it is exact to 2e-7 of 1.
    let polynomial = 1.0
        + rest
            * (1.0
                + rest
                    * (0.5
                        + rest
                            * (0.166_666_67 + rest * (0.041_666_667 + rest * (0.008_333_334 + rest * 0.001_388_889)))));
    (polynomial, rounded.to_bits().wrapping_sub(ROUNDER.to_bits()) as i32)
}

#[inline(always)]
fn power_of_two(power: i32) -> f32 {
    f32::from_bits(((power + 127) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_those_of_float64() {
        for step in -9000..9000 {
            let x = step as f32 / 100.0;
            let (ours, expected) = (f64::from(exp(x)), f64::from(x).exp());
            if (-87.3..88.7).contains(&x) {
                assert!((ours / expected - 1.0).abs() < 3e-7, "{x} {ours} {expected}");
                assert!(x > 0.0 || exp_below_zero(x) == exp(x), "{x}");
            }
        }
        assert_eq!([exp(f32::NEG_INFINITY), exp(-88.0), exp(0.0), exp(89.0)], [0.0, 0.0, 1.0, f32::INFINITY]);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp_below_zero(f32::NEG_INFINITY) < 2e-38);
    }

    #[test]
    fn norms_and_gates_are_those_of_float64() {
        let width = 37;
        let number = |at: usize| ((at * 7919) % 1009) as f32 / 200.0 - 2.5;
        let before: Vec<f32> = (0..11 * width).map(number).collect();
        let delta: Vec<f32> = (0..11 * width).map(|at| number(at + 5)).collect();
        let weights: Vec<f32> = (0..width).map(|at| number(at + 9)).collect();
        for kernel in Kernel::supported() {
            for delta in [None, Some(&delta[..])] {
                let (mut residual, mut out) = (before.clone(), vec![f32::NAN; before.len()]);
                add_and_normalize(&mut residual, delta, &weights, 1e-2, &mut out, kernel);
                for row in 0..11 {
                    let place = row * width;
                    let sums: Vec<f64> = (place..place + width)
                        .map(|at| f64::from(before[at]) + delta.map_or(0.0, |delta| f64::from(delta[at])))
                        .collect();
                    let mean = sums.iter().map(|sum| sum * sum).sum::<f64>() / width as f64;
                    for at in 0..width {
                        assert!((f64::from(residual[place + at]) - sums[at]).abs() < 1e-6);
                        let expected = sums[at] / (mean + 1e-2).sqrt() * f64::from(weights[at]);
                        assert!((f64::from(out[place + at]) - expected).abs() < 1e-5, "{}", kernel.name());
                    }
                }
            }
            let rows: Vec<f32> = (0..9 * 2 * width).map(|at| 4.0 * number(at)).collect();
            for function in [Gate::Silu, Gate::GeluTanh] {
                let mut out = vec![f32::NAN; 9 * width];
                gate(function, Matrix::new(&rows, 2 * width), &mut out, kernel);
                for (row, out) in out.chunks(width).enumerate() {
                    for at in 0..width {
                        let [x, y] = [0, width].map(|half| f64::from(rows[row * 2 * width + half + at]));
                        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                        let expected = match function {
                            Gate::Silu => x / (1.0 + (-x).exp()) * y,
                            Gate::GeluTanh => 0.5 * x * (1.0 + inner.tanh()) * y,
                        };
                        assert!((f64::from(out[at]) - expected).abs() < 2e-5, "{x} {y} {} {expected}", out[at]);
                    }
                }
            }
        }
    }
}
