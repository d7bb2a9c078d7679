//! The next token of each text.
//!
//! A draw from softmax(logits / temperature) is the token with the largest `logit / temperature - ln(E)`, with
//! independent standard exponentials E (the Gumbel-max trick). Rounding changes it only where two tokens nearly tie;
//! inverting the cumulative distribution would let rounding move every rare token.
//!
//! The exponentials come from Philox 4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011): number
//! `t` of a step is a function of the text's key, the step and `t`. So a text's draws do not depend on other texts.

use rayon::prelude::*;

use crate::simd::{Vector, Work};
use crate::{Kernel, Matrix};

/// Writes the next token of each row of `logits` (rows, vocabulary) to `out`.
///
/// A row of temperature 0 takes the first of its largest logits. Any other draws with its `key`, which belongs to its
/// text alone, and with `step`, the number of tokens that were drawn for the text before. A row of NaN takes token 0.
///
/// # Panics
/// When the sizes do not fit each other.
pub fn choose(logits: Matrix, temperatures: &[f32], keys: &[u64], step: u32, out: &mut [i64], kernel: Kernel) {
    assert_eq!((temperatures.len(), keys.len(), out.len()), (logits.rows(), logits.rows(), logits.rows()), "rows");
    out.par_iter_mut().enumerate().for_each(|(row, out)| {
        let (temperature, key) = (temperatures[row], keys[row]);
        kernel.compute(Choice { logits: logits.row(row), temperature, key, step, out });
    });
}

struct Choice<'a> {
    logits: &'a [f32],
    temperature: f32,
    key: u64,
    step: u32,
    out: &'a mut i64,
}

/// Tokens whose noise is computed together: four of each of this many counters.
const COUNTERS: usize = 64;
const CHUNK: usize = 4 * COUNTERS;

impl Work for Choice<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { logits, temperature, key, step, out } = self;
        let (mut best, mut token) = (f32::NEG_INFINITY, 0);
        let mut scores = [0.0_f32; CHUNK];
        let mut bits = [[0_u32; COUNTERS]; 4];
        for (number, logits) in logits.chunks(CHUNK).enumerate() {
            let scores = &mut scores[..logits.len()];
            if temperature == 0.0 {
                scores.copy_from_slice(logits);
            } else {
                philox((number * COUNTERS) as u32, step, key, &mut bits);
                let bits = bits.as_flattened();
                for ((score, logit), bits) in scores.iter_mut().zip(logits).zip(bits) {
                    *score = logit / temperature - ln(exponential(*bits));
                }
            }
            let mut largest = f32::NEG_INFINITY;
            for score in &*scores {
                largest = if *score > largest { *score } else { largest };
            }
            if largest > best {
                best = largest;
                let place = scores.iter().position(|score| *score == largest).expect("it is one of them");
                token = number * CHUNK + place;
            }
        }
        *out = token as i64;
    }
}

/// Philox 4x32-10 of the counters (first + i, step, 0, 0): number `n` of counter `i` is at `[n][i]`.
#[inline(always)]
fn philox(first: u32, step: u32, key: u64, out: &mut [[u32; COUNTERS]; 4]) {
    let [a, b, c, d] = out;
    for (at, word) in a.iter_mut().enumerate() {
        *word = first.wrapping_add(at as u32);
    }
    b.fill(step);
    c.fill(0);
    d.fill(0);
    let (mut low, mut high) = (key as u32, (key >> 32) as u32);
    for _ in 0..10 {
        for at in 0..COUNTERS {
            let from_a = u64::from(a[at]) * 0xD251_1F53;
            let from_c = u64::from(c[at]) * 0xCD9E_8D57;
            (a[at], b[at], c[at], d[at]) = (
                (from_c >> 32) as u32 ^ b[at] ^ low,
                from_c as u32,
                (from_a >> 32) as u32 ^ d[at] ^ high,
                from_a as u32,
            );
        }
        low = low.wrapping_add(0x9E37_79B9);
        high = high.wrapping_add(0xBB67_AE85);
    }
}

/// A standard exponential from 32 random bits, at least 2^-33. The smaller it is, the more exact: the smallest decides.
#[inline(always)]
fn exponential(bits: u32) -> f32 {
    // -ln(1 - u) of u = (bits + 1/2) / 2^32. Where 1 - u is rounded, the rounding is divided out again.
    let u = bits as f32 * 2.0_f32.powi(-32) + 2.0_f32.powi(-33);
    let rest = 1.0 - u;
    let lost = 1.0 - rest;
    // With `rest` 0, u was rounded up to 1: this is the largest exponential there is.
    let rest = if rest == 0.0 { 2.0_f32.powi(-33) } else { rest };
    let whole = -ln(rest);
    if lost == 0.0 { u } else { whole * (u / lost) }
}

/// The natural logarithm of a positive normal number, exact to a few units in the last place.
///
/// It has no branches, so that a loop over it is compiled to vectors.
#[inline(always)]
fn ln(x: f32) -> f32 {
    // x = 2^power m with m between sqrt(1/2) and sqrt(2), and ln m = 2 artanh(s) of s = (m - 1) / (m + 1).
    let bits = x.to_bits().wrapping_sub(0x3f35_04f3) as i32;
    let power = bits >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((power << 23) as u32));
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let series = 2.0 * s
        + s * square
            * (0.666_666_7 + square * (0.4 + square * (0.285_714_3 + square * (0.222_222_22 + square * 0.181_818_2))));
    power as f32 * std::f32::consts::LN_2 + series
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Random123, the authors' own library, for counters and keys of zeros and of ones.
    #[test]
    fn philox_gives_the_known_answers() {
        let mut out = [[0; COUNTERS]; 4];
        philox(0, 0, 0, &mut out);
        assert_eq!(out.map(|words| words[0]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    }

    #[test]
    fn logarithms_and_exponentials_are_those_of_float64() {
        for step in 1..200_000_u32 {
            let x = f32::from_bits(step * 10_000 + 0x0080_0000);
            if x.is_finite() && x > 0.0 {
                let error = f64::from(ln(x)) - f64::from(x).ln();
                assert!(error.abs() <= 3e-7 * f64::from(x).ln().abs().max(1e-1), "{x} {error}");
            }
            let bits = step.wrapping_mul(2_654_435_761);
            let u = (f64::from(bits) + 0.5) / 4_294_967_296.0;
            let expected = -(-u).ln_1p();
            // Near 1, where the exponential is large and its token is not chosen, u itself is rounded.
            let allowed = 1e-6 * expected + 6e-8 / (1.0 - u);
            assert!((f64::from(exponential(bits)) - expected).abs() < allowed, "{bits} {expected}");
        }
        let least = exponential(0);
        assert!((least / 2.0_f32.powi(-33) - 1.0).abs() < 1e-6);
        assert!((20.0..24.0).contains(&exponential(u32::MAX)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn tokens_are_drawn_by_their_probabilities() {
        let logits: Vec<f32> = (0..300).map(|token| ((token * 37) % 11) as f32 / 3.0).collect();
        let temperature = 0.7;
        let weights: Vec<f64> = logits.iter().map(|logit| (f64::from(*logit) / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let draws = 60_000;
        let rows: Vec<f32> = (0..draws / 100).flat_map(|_| logits.clone()).collect();
        let keys: Vec<u64> = (0..draws as u64 / 100).map(|text| text.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let mut counts = vec![0.0; logits.len()];
        for step in 0..100 {
            let mut out = vec![0; keys.len()];
            choose(
                Matrix::new(&rows, logits.len()),
                &vec![temperature as f32; keys.len()],
                &keys,
                step,
                &mut out,
                Kernel::supported()[0],
            );
            out.iter().for_each(|token| counts[*token as usize] += 1.0);
        }
        let chi_square: f64 = counts
            .iter()
            .zip(&weights)
            .map(|(count, weight)| {
                let expected = weight / total * f64::from(draws);
                (count - expected).powi(2) / expected
            })
            .sum();
        // 299 degrees of freedom: the mean is 299 and the standard deviation 24.5.
        assert!((299.0 - chi_square).abs() < 4.0 * 24.5, "{chi_square}");
    }

    #[test]
    fn a_draw_is_the_same_with_any_kernel_and_in_any_batch() {
        let rows: Vec<f32> = (0..5 * 1003).map(|at| ((at * 7919) % 1009) as f32 / 100.0).collect();
        let rows = Matrix::new(&rows, 1003);
        let temperatures = [0.0, 1.0, 0.5, 2.0, 1.0];
        let keys = [1, 2, 3, 4, u64::MAX];
        let mut first = None;
        for kernel in Kernel::supported() {
            let mut out = [0; 5];
            choose(rows, &temperatures, &keys, 9, &mut out, kernel);
            assert_eq!(*first.get_or_insert(out), out, "{}", kernel.name());
            let mut alone = [0];
            choose(rows.slice(3, 4), &temperatures[3..4], &keys[3..4], 9, &mut alone, kernel);
            assert_eq!(alone[0], out[3]);
            let largest = rows.row(0).iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(out[0], rows.row(0).iter().position(|logit| *logit == largest).unwrap() as i64);
        }
    }
}
