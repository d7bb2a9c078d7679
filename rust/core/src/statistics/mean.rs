//! Means by pairwise summation.

/// Sums count as equal when they differ by less than this share of the sum of their terms' sizes.
pub(super) const ROUNDING: f64 = 1e-12;

/// The mean of `values` by pairwise summation in f64; NaN for no values.
pub fn mean(values: &[f64]) -> f64 {
    pairwise_sum(values) / values.len() as f64
}

pub(super) fn pairwise_sum(values: &[f64]) -> f64 {
    if values.len() <= 64 {
        return values.iter().sum();
    }
    let (left, right) = values.split_at(values.len() / 2);
    pairwise_sum(left) + pairwise_sum(right)
}
