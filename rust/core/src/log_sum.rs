//! The logarithm of a sum of powers of two, the same to the bit in any order of the terms and in any parts.
//!
//! Sums of floating-point numbers depend on their order, sums of whole numbers do not. A term `2^y` therefore falls
//! into the bin `b = floor(y / 32)`, where it counts as `round(2^(y - 32 b) * 2^30)`. The three highest bins are kept:
//! a term below them is less than `2^-64` of the largest. A term is off by less than 1e-9 of itself.

/// Binary digits of a bin.
const WIDTH: f64 = 32.0;
/// Bins that are kept.
const BINS: usize = 3;
/// What `2^0` counts as in its bin.
const UNIT: f64 = (1_u64 << 30) as f64;

/// A sum of powers of two.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LogSum {
    /// The bin of the largest term, a whole number; minus infinity before the first term.
    top: f64,
    /// The count of each bin from the top down.
    counts: [u128; BINS],
}

impl LogSum {
    /// The sum of no terms.
    pub(crate) const ZERO: Self = Self { top: f64::NEG_INFINITY, counts: [0; BINS] };

    /// Adds `2^y`, for a finite `y`.
    #[inline]
    pub(crate) fn add(&mut self, y: f64) {
        if y >= WIDTH * (self.top + 1.0) {
            self.raise((y / WIDTH).floor());
        }
        for (below, count) in (0..).zip(&mut self.counts) {
            let rest = y - WIDTH * (self.top - f64::from(below));
            if rest >= 0.0 {
                *count += u128::from((exp2(rest) * UNIT + 0.5) as u64);
                return;
            }
        }
    }

    /// Adds the terms of another sum.
    pub(crate) fn merge(&mut self, mut other: Self) {
        let top = self.top.max(other.top);
        self.raise(top);
        other.raise(top);
        self.counts.iter_mut().zip(other.counts).for_each(|(count, other)| *count += other);
    }

    /// The base-2 logarithm of the share that one term `2^y` has of the sum: at most 0.
    pub(crate) fn log2_share(&self, y: f64) -> f64 {
        let counts = self.counts.iter().rev();
        let in_top_units = counts.fold(0.0, |lower, count| lower / WIDTH.exp2() + *count as f64);
        (y - WIDTH * self.top - (in_top_units / UNIT).log2()).min(0.0)
    }

    /// Makes `bin` the top bin, which is not below the top, and drops the bins that are now too low.
    fn raise(&mut self, bin: f64) {
        let shift = bin - self.top;
        if shift > 0.0 {
            let shift = shift.min(BINS as f64) as usize;
            self.counts.rotate_right(shift);
            self.counts[..shift].fill(0);
            self.top = bin;
        }
    }
}

/// `2^x` for `x` in [0, 32], with a relative error below 3e-10, by additions and products alone, which have the same
/// bits on any CPU.
#[inline]
fn exp2(x: f64) -> f64 {
    /// `ln(2)^k / k!`, the Taylor series of `2^x`, whose terms from `k` = 9 on are below 3e-10 for |x| <= 1/2.
    const TAYLOR: [f64; 9] = {
        let mut terms = [1.0; 9];
        let mut k = 1;
        while k < terms.len() {
            terms[k] = terms[k - 1] * std::f64::consts::LN_2 / k as f64;
            k += 1;
        }
        terms
    };
    let whole = (x + 0.5) as u64;
    let rest = x - whole as f64;
    let series = TAYLOR.iter().rev().fold(0.0, |sum, term| sum * rest + term);
    series * f64::from_bits((1023 + whole) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum_of(terms: &[f64]) -> LogSum {
        let mut sum = LogSum::ZERO;
        terms.iter().for_each(|y| sum.add(*y));
        sum
    }

    #[test]
    fn powers_of_two_are_close_to_those_of_the_library() {
        for step in 0..=32_000 {
            let x = f64::from(step) / 1000.0;
            assert!((exp2(x) / x.exp2() - 1.0).abs() < 3e-10, "{x}");
        }
    }

    proptest! {
        #[test]
        fn any_order_and_any_parts_give_the_same_sum(
            terms in proptest::collection::vec(prop_oneof![-200.0..200.0, -3e3..3e3, -1e-9..1e-9], 1..40),
            seed in 0..1000_usize,
            cut in 0..40_usize,
        ) {
            let whole = sum_of(&terms);
            let mut shuffled = terms.clone();
            (0..terms.len()).for_each(|at| shuffled.swap(at, (at * 31 + seed) % terms.len()));
            let (left, right) = shuffled.split_at(cut.min(terms.len()));
            let mut parts = sum_of(left);
            parts.merge(sum_of(right));
            prop_assert_eq!(&parts, &whole);
            // The log-sum-exp in f64, of terms less the largest.
            let largest = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let expected = terms.iter().map(|y| (y - largest).exp2()).sum::<f64>().log2();
            for y in &terms {
                let share = whole.log2_share(*y);
                prop_assert!((share - (y - largest - expected).min(0.0)).abs() < 1e-8, "{} {:?}", y, terms);
            }
        }
    }

    #[test]
    fn the_only_term_has_all_of_the_sum_and_huge_exponents_stay_finite() {
        for y in [0.0, -1e-300, 5e-324, -5e-324, 31.999_999_999_999_996, 1e300, -1e300] {
            assert!(sum_of(&[y]).log2_share(y).abs() < 1e-8, "{y}");
        }
        assert!((sum_of(&[-7.0; 1 << 16]).log2_share(-7.0) + 16.0).abs() < 1e-8);
        assert_eq!(sum_of(&[1e300, -1e300]).log2_share(-1e300), -2e300);
    }
}
