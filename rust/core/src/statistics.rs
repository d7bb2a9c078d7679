//! Means with their uncertainty: bootstrap intervals and paired permutation tests.

use rayon::prelude::*;

use crate::random::Random;
use crate::{Error, Result};

/// The mean of `values` by pairwise summation in f64; NaN for none.
pub fn mean(values: &[f64]) -> f64 {
    pairwise_sum(values) / values.len() as f64
}

fn pairwise_sum(values: &[f64]) -> f64 {
    if values.len() <= 64 {
        return values.iter().sum();
    }
    let (left, right) = values.split_at(values.len() / 2);
    pairwise_sum(left) + pairwise_sum(right)
}

/// The percentile bootstrap interval of the mean (Efron, 1979): (low, high) that leave out `(1 - level) / 2` of the
/// means of `num_resamples` samples with replacement on either side.
///
/// Resample `r` draws from its own stream of random numbers, so the interval depends on the seed alone.
///
/// # Errors
/// [`Error::NoScores`], [`Error::NonFiniteScore`]; [`Error::Parameter`] for a level outside (0, 1) or no resamples.
pub fn bootstrap_interval(scores: &[f64], level: f64, num_resamples: usize, seed: u64) -> Result<(f64, f64)> {
    check_scores("scores", scores)?;
    if !(level > 0.0 && level < 1.0) {
        return Err(Error::Parameter {
            name: "level",
            value: level,
            range: "a level lies between 0 and 1, such as 0.95",
        });
    }
    check_count("num_resamples", num_resamples)?;
    let resampled_mean = |resample: u64| {
        let mut random = Random::new(seed, resample);
        let sum: f64 = (0..scores.len()).map(|_| scores[random.below(scores.len())]).sum();
        sum / scores.len() as f64
    };
    let mut means: Vec<f64> = (0..num_resamples as u64).into_par_iter().map(resampled_mean).collect();
    means.par_sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    Ok((quantile(&means, tail), quantile(&means, 1.0 - tail)))
}

/// The quantile `q` of sorted values, interpolated linearly between the two nearest.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    below + (above - below) * position.fract()
}

/// The two-sided p-value of a paired permutation test: how often the mean difference is at least as far from 0 as the
/// observed one when each user's two scores are swapped at random.
///
/// Where no more than `num_permutations` arrangements exist, each of them is tried once and p is exact. Otherwise the
/// observed one counts as one of the permutations: p = (1 + number as extreme) / (1 + permutations), so that p is never
/// 0 (Phipson and Smyth, 2010). Sums that differ by rounding alone count as equal.
///
/// # Errors
/// [`Error::Unpaired`], [`Error::NoScores`], [`Error::NonFiniteScore`]; [`Error::Parameter`] for no permutations.
pub fn paired_permutation_test(a: &[f64], b: &[f64], num_permutations: usize, seed: u64) -> Result<f64> {
    if a.len() != b.len() {
        return Err(Error::Unpaired { a: a.len(), b: b.len() });
    }
    check_scores("a", a)?;
    check_scores("b", b)?;
    check_count("num_permutations", num_permutations)?;
    // Swapping equal scores changes nothing.
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).filter(|difference| *difference != 0.0).collect();
    let total = pairwise_sum(&differences);
    let rounding = 1e-12 * differences.iter().map(|difference| difference.abs()).sum::<f64>();
    let extreme = total.abs() - rounding;
    let tables = signed_sums(&differences);
    let num_arrangements = 1_usize.checked_shl(differences.len() as u32).unwrap_or(usize::MAX);
    if num_arrangements <= num_permutations {
        let all = (0..num_arrangements as u64).into_par_iter();
        let num_extreme = all.filter(|signs| sum_by_signs(&tables, || *signs).abs() >= extreme).count();
        return Ok(num_extreme as f64 / num_arrangements as f64);
    }
    let is_extreme = |permutation: &u64| {
        let mut random = Random::new(seed, *permutation);
        sum_by_signs(&tables, || random.next()).abs() >= extreme
    };
    let num_extreme = (0..num_permutations as u64).into_par_iter().filter(is_extreme).count();
    Ok((1 + num_extreme) as f64 / (1 + num_permutations) as f64)
}

/// The sum of the differences under signs that come 64 at a time.
fn sum_by_signs(tables: &[[f64; 16]], mut next_signs: impl FnMut() -> u64) -> f64 {
    let words = tables.chunks(NIBBLES_PER_WORD).map(|tables| {
        let signs = next_signs();
        (0..).zip(tables).map(|(at, table)| table[(signs >> (4 * at)) as usize & 15]).sum::<f64>()
    });
    words.sum()
}

const NIBBLES_PER_WORD: usize = 16;

/// For every four differences, their sum under each of the 16 choices of signs: one look-up instead of four additions.
fn signed_sums(differences: &[f64]) -> Vec<[f64; 16]> {
    let signed = |four: &[f64], signs: usize| -> f64 {
        four.iter().enumerate().map(|(at, value)| if signs >> at & 1 == 1 { -value } else { *value }).sum()
    };
    differences.chunks(4).map(|four| std::array::from_fn(|signs| signed(four, signs))).collect()
}

/// Holm's step-down correction (1979): each p-value adjusted for the number of tests made, in the order given.
///
/// # Errors
/// [`Error::Parameter`] for a p-value outside [0, 1].
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>> {
    if let Some(&value) = p_values.iter().find(|p| !(0.0..=1.0).contains(*p)) {
        return Err(Error::Parameter { name: "p_value", value, range: "a p-value lies between 0 and 1" });
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (smaller, index) in order.into_iter().enumerate() {
        largest = largest.max(p_values[index] * (p_values.len() - smaller) as f64).min(1.0);
        adjusted[index] = largest;
    }
    Ok(adjusted)
}

fn check_scores(name: &'static str, scores: &[f64]) -> Result<()> {
    if scores.is_empty() {
        return Err(Error::NoScores { name });
    }
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(()),
        Some(row) => Err(Error::NonFiniteScore { name, row, value: scores[row] }),
    }
}

fn check_count(name: &'static str, count: usize) -> Result<()> {
    if count > 0 { Ok(()) } else { Err(Error::Parameter { name, value: 0.0, range: "at least one is needed" }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uniform(seed: u64, n: usize) -> Vec<f64> {
        let mut random = Random::new(seed, 99);
        (0..n).map(|_| random.below(1 << 20) as f64 / (1 << 20) as f64).collect()
    }

    #[test]
    fn the_interval_is_that_of_the_normal_approximation_for_many_users() {
        let scores = uniform(1, 2000);
        let (low, high) = bootstrap_interval(&scores, 0.95, 10_000, 0).unwrap();
        let centre = mean(&scores);
        let variance = scores.iter().map(|s| (s - centre).powi(2)).sum::<f64>() / scores.len() as f64;
        let half = 1.959_964 * (variance / scores.len() as f64).sqrt();
        assert!((low - (centre - half)).abs() < 0.05 * half, "{low} {}", centre - half);
        assert!((high - (centre + half)).abs() < 0.05 * half, "{high} {}", centre + half);
    }

    #[test]
    fn a_permutation_p_value_is_that_of_all_sign_changes() {
        let a = uniform(2, 12);
        let b = uniform(3, 12);
        let total: f64 = a.iter().zip(&b).map(|(a, b)| a - b).sum();
        let extreme = (0..1_u32 << 12).filter(|signs| {
            let sum = a.iter().zip(&b).enumerate().map(|(at, (a, b))| if signs >> at & 1 == 1 { b - a } else { a - b });
            sum.sum::<f64>().abs() >= total.abs() - 1e-12
        });
        let exact = extreme.count() as f64 / f64::from(1 << 12);
        let p = paired_permutation_test(&a, &b, 100_000, 5).unwrap();
        assert_eq!(p, exact);
        let sampled = paired_permutation_test(&a, &b, 4000, 5).unwrap();
        assert!((sampled - exact).abs() < 4.0 * (exact * (1.0 - exact) / 4e3).sqrt(), "{sampled} {exact}");
    }

    #[test]
    fn p_is_one_without_a_difference_and_never_zero() {
        assert_eq!(paired_permutation_test(&[0.5; 9], &[0.5; 9], 100, 0).unwrap(), 1.0);
        assert_eq!(paired_permutation_test(&[1.0; 100], &[0.0; 100], 999, 0).unwrap(), 0.001);
    }

    #[test]
    fn nothing_depends_on_the_number_of_threads() {
        let (a, b) = (uniform(4, 501), uniform(5, 501));
        let all = || (bootstrap_interval(&a, 0.9, 1000, 3).unwrap(), paired_permutation_test(&a, &b, 1000, 3).unwrap());
        let with = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(all);
        let alone = with(1);
        assert!((2..6).all(|threads| with(threads) == alone));
        assert_ne!(alone.0, bootstrap_interval(&a, 0.9, 1000, 4).unwrap());
    }

    #[test]
    fn holm_follows_the_definition() {
        // 0.01 x 4, 0.02 x 3, 0.03 x 2 and 0.5, each at least the one before.
        let adjusted = holm(&[0.03, 0.01, 0.5, 0.02]).unwrap();
        assert_eq!(adjusted, [0.06, 0.04, 0.5, 0.06]);
        assert_eq!(holm(&[0.7, 0.6]).unwrap(), [1.0, 1.0]);
        assert!(holm(&[1.5]).is_err());
    }

    #[test]
    fn bad_samples_are_refused() {
        assert_eq!(bootstrap_interval(&[], 0.95, 10, 0).unwrap_err(), Error::NoScores { name: "scores" });
        let nan = bootstrap_interval(&[0.0, f64::NAN], 0.95, 10, 0).unwrap_err();
        assert!(matches!(nan, Error::NonFiniteScore { name: "scores", row: 1, .. }));
        for level in [0.0, 1.0, 95.0, f64::NAN] {
            assert!(matches!(bootstrap_interval(&[1.0], level, 10, 0), Err(Error::Parameter { name: "level", .. })));
        }
        assert!(bootstrap_interval(&[1.0], 0.95, 0, 0).is_err());
        assert_eq!(paired_permutation_test(&[1.0], &[], 10, 0).unwrap_err(), Error::Unpaired { a: 1, b: 0 });
        assert!(paired_permutation_test(&[1.0], &[2.0], 0, 0).is_err());
    }
}
