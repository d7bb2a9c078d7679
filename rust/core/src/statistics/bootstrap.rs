//! Means with their uncertainty: bootstrap intervals and paired tests.

use rayon::prelude::*;

use crate::distributions::{normal_cdf, normal_quantile, student_two_sided};
use crate::random::Random;
use crate::{Error, Interrupt, Result};

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

/// Which quantiles of the resampled means bound a bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// Those that leave out `(1 - level) / 2` on either side (Efron, 1979).
    Percentile,
    /// The same after a correction for bias and skewness: bias-corrected and accelerated (Efron, 1987).
    Bca,
}

/// The bootstrap interval of the mean of each sample: (low, high) from the means of `num_resamples` samples with
/// replacement. All samples are scores of the same users and share the draws, which changes no interval.
///
/// Resample `r` draws from its own stream of random numbers, so the intervals depend on the seed alone.
///
/// ```
/// use langptune_core::Interrupt;
/// use langptune_core::statistics::{Interval, bootstrap_intervals};
///
/// let scores: Vec<f64> = (0..100).map(f64::from).collect();
/// let intervals = bootstrap_intervals(&[&scores], Interval::Percentile, 0.95, 1000, 0, Interrupt::NEVER)?;
/// assert!(intervals[0].0 < 49.5 && 49.5 < intervals[0].1);
/// # Ok::<(), langptune_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoScores`], [`Error::NonFiniteScore`]; [`Error::Rows`] for samples of different length;
/// [`Error::Parameter`] for a level outside (0, 1), and for no resamples or more than [`MAX_RESAMPLES`];
/// [`Error::OneSided`] where BCa has too few resamples; [`Error::Interrupted`].
pub fn bootstrap_intervals(
    samples: &[&[f64]],
    interval: Interval,
    level: f64,
    num_resamples: usize,
    seed: u64,
    interrupt: Interrupt,
) -> Result<Vec<(f64, f64)>> {
    for scores in samples {
        check_scores("scores", scores)?;
        if scores.len() != samples[0].len() {
            return Err(Error::Rows { name: "scores", rows: scores.len(), users: samples[0].len() });
        }
    }
    if !(level > 0.0 && level < 1.0) {
        return Err(Error::Parameter {
            name: "level",
            value: level,
            range: "a level lies between 0 and 1, such as 0.95",
        });
    }
    check_count("num_resamples", num_resamples)?;
    if num_resamples > MAX_RESAMPLES {
        let range = "at most 10,000,000 are drawn; 10,000 give an interval to a hundredth of its width";
        return Err(Error::Parameter { name: "num_resamples", value: num_resamples as f64, range });
    }
    let mut intervals = Vec::with_capacity(samples.len());
    for samples in samples.chunks(SAMPLES_AT_ONCE) {
        let means = match samples {
            [alone] => resampled_means::<1>(&[alone], num_resamples, seed, interrupt)?,
            several => resampled_means::<SAMPLES_AT_ONCE>(several, num_resamples, seed, interrupt)?,
        };
        for (scores, means) in samples.iter().zip(means) {
            interrupt.check()?;
            intervals.push(interval_of_means(scores, means, interval, level)?);
        }
    }
    Ok(intervals)
}

/// Their means take 640 MB.
pub const MAX_RESAMPLES: usize = 10_000_000;

/// A sum waits about four cycles for the one before it, in which the next draw and three other sums find room.
const SAMPLES_AT_ONCE: usize = 4;

/// The resampled means of each of up to `N` samples.
fn resampled_means<const N: usize>(
    samples: &[&[f64]],
    num_resamples: usize,
    seed: u64,
    interrupt: Interrupt,
) -> Result<Vec<Vec<f64>>> {
    let num_users = samples[0].len();
    let scores_of = |user: usize| std::array::from_fn(|at| samples.get(at).map_or(0.0, |scores| scores[user]));
    let rows: Vec<[f64; N]> = (0..num_users).map(scores_of).collect();
    let means_of = |resample: u64| {
        let mut random = Random::new(seed, resample);
        let mut sums = [0.0; N];
        for _ in 0..num_users {
            let row = &rows[random.below(num_users)];
            sums.iter_mut().zip(row).for_each(|(sum, score)| *sum += score);
        }
        sums.map(|sum| sum / num_users as f64)
    };
    let resamples = (0..num_resamples as u64).into_par_iter();
    let means = resamples.map(|resample| interrupt.check().map(|()| means_of(resample))).collect::<Result<Vec<_>>>()?;
    Ok((0..samples.len()).map(|at| means.iter().map(|means| means[at]).collect()).collect())
}

fn interval_of_means(scores: &[f64], mut means: Vec<f64>, interval: Interval, level: f64) -> Result<(f64, f64)> {
    means.par_sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    let (low, high) = match interval {
        Interval::Percentile => (tail, 1.0 - tail),
        Interval::Bca => {
            let (bias, acceleration) = (bias(scores, &means)?, acceleration(scores));
            let z = normal_quantile(tail);
            (corrected(z, bias, acceleration), corrected(-z, bias, acceleration))
        }
    };
    Ok((quantile(&means, low), quantile(&means, high)))
}

/// BCa's bias z0: the normal quantile of the share of resampled means below the mean, half of those equal to it
/// included.
fn bias(scores: &[f64], sorted_means: &[f64]) -> Result<f64> {
    let centre = mean(scores);
    let rounding = ROUNDING * scores.iter().map(|score| score.abs()).sum::<f64>() / scores.len() as f64;
    let below = sorted_means.partition_point(|mean| *mean < centre - rounding);
    let not_above = sorted_means.partition_point(|mean| *mean <= centre + rounding);
    let num_resamples = sorted_means.len();
    if not_above == 0 || below == num_resamples {
        return Err(Error::OneSided { num_resamples });
    }
    Ok(normal_quantile((below + not_above) as f64 / (2 * num_resamples) as f64))
}

/// BCa's acceleration, a sixth of the skewness of the jackknife. Leaving user i out moves the mean by
/// `(mean - score_i) / (n - 1)`, so it is `sum d^3 / (6 (sum d^2)^(3/2))` over `d_i = score_i - mean`; between -1/6 and
/// 1/6, and 0 where all scores are equal.
fn acceleration(scores: &[f64]) -> f64 {
    let centre = mean(scores);
    let moment = |power| scores.iter().map(|score| (score - centre).powi(power)).sum::<f64>();
    let squares = moment(2);
    if squares == 0.0 { 0.0 } else { moment(3) / (6.0 * squares * squares.sqrt()) }
}

/// The share of resampled means below BCa's bound at the normal quantile `z`. Beyond the pole of the correction, which
/// takes a level within 1e-5 of 1, it is that of the last of them.
fn corrected(z: f64, bias: f64, acceleration: f64) -> f64 {
    let shifted = bias + z;
    normal_cdf(bias + shifted / (1.0 - acceleration * shifted).max(0.0))
}

/// Sums that differ by less than this share of the sum of their terms' sizes count as equal.
const ROUNDING: f64 = 1e-12;

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
/// ```
/// use langptune_core::Interrupt;
/// use langptune_core::statistics::{holm, paired_permutation_test};
///
/// let p = paired_permutation_test(&[1.0, 1.0, 1.0], &[0.5, 0.25, 0.5], 1000, 0, Interrupt::NEVER)?;
/// assert_eq!(p, 0.25); // all signs alike: 2 of the 8 arrangements
/// assert_eq!(holm(&[p, 0.5])?, [0.5, 0.5]);
/// # Ok::<(), langptune_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Unpaired`], [`Error::NoScores`], [`Error::NonFiniteScore`]; [`Error::Parameter`] for no permutations, and for
/// scores so far apart that f64 does not hold the sum of the squares; [`Error::Interrupted`].
pub fn paired_permutation_test(
    a: &[f64],
    b: &[f64],
    num_permutations: usize,
    seed: u64,
    interrupt: Interrupt,
) -> Result<f64> {
    let mut differences = paired_differences(a, b)?;
    check_count("num_permutations", num_permutations)?;
    // Swapping equal scores changes nothing.
    differences.retain(|difference| *difference != 0.0);
    let total = pairwise_sum(&differences);
    let rounding = ROUNDING * differences.iter().map(|difference| difference.abs()).sum::<f64>();
    let extreme = total.abs() - rounding;
    let tables = signed_sums(&differences);
    let num_arrangements = 1_usize.checked_shl(differences.len() as u32).unwrap_or(usize::MAX);
    if num_arrangements <= num_permutations {
        let num_extreme = count(num_arrangements, interrupt, |signs| sum_by_signs(&tables, || signs).abs() >= extreme)?;
        return Ok(num_extreme as f64 / num_arrangements as f64);
    }
    let is_extreme = |permutation| {
        let mut random = Random::new(seed, permutation);
        sum_by_signs(&tables, || random.next()).abs() >= extreme
    };
    let num_extreme = count(num_permutations, interrupt, is_extreme)?;
    Ok((1.0 + num_extreme as f64) / (1.0 + num_permutations as f64))
}

/// How many of the numbers below `end` are such.
fn count(end: usize, interrupt: Interrupt, is_such: impl Fn(u64) -> bool + Sync) -> Result<usize> {
    let one = |number| interrupt.check().map(|()| usize::from(is_such(number)));
    (0..end as u64).into_par_iter().map(one).try_reduce(|| 0, |a, b| Ok(a + b))
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

/// The two-sided p-value of Student's paired t-test (1908): `t = mean(d) / sqrt(var(d) / n)` over the differences
/// `d = a - b` of n users, their variance with n - 1 degrees of freedom. 1 where no user differs.
///
/// # Errors
/// [`Error::Unpaired`], [`Error::NoScores`], [`Error::NonFiniteScore`]; [`Error::EqualDifferences`] where one user, or
/// all of them alike, leave the variance unknown; [`Error::Parameter`] as [`paired_permutation_test`].
pub fn paired_t_test(a: &[f64], b: &[f64]) -> Result<f64> {
    let differences = paired_differences(a, b)?;
    let num_users = differences.len() as f64;
    let centre = mean(&differences);
    let squares: Vec<f64> = differences.iter().map(|difference| (difference - centre).powi(2)).collect();
    let variance = pairwise_sum(&squares) / (num_users - 1.0);
    if differences.iter().all(|difference| *difference == 0.0) {
        return Ok(1.0);
    }
    if differences.iter().all(|difference| (difference - centre).abs() <= ROUNDING * centre.abs()) {
        return Err(Error::EqualDifferences { users: differences.len(), difference: centre });
    }
    Ok(student_two_sided(centre / (variance / num_users).sqrt(), num_users - 1.0))
}

fn paired_differences(a: &[f64], b: &[f64]) -> Result<Vec<f64>> {
    if a.len() != b.len() {
        return Err(Error::Unpaired { a: a.len(), b: b.len() });
    }
    check_scores("a", a)?;
    check_scores("b", b)?;
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    if !differences.iter().map(|difference| difference * difference).sum::<f64>().is_finite() {
        let value = differences.iter().fold(0.0, |largest: f64, difference| largest.max(difference.abs()));
        let range = "the squares of all differences leave the range of float64: scale both samples down";
        return Err(Error::Parameter { name: "|a - b|", value, range });
    }
    Ok(differences)
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

    fn one(scores: &[f64], interval: Interval, level: f64, num_resamples: usize, seed: u64) -> Result<(f64, f64)> {
        Ok(bootstrap_intervals(&[scores], interval, level, num_resamples, seed, Interrupt::NEVER)?[0])
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn the_interval_is_that_of_the_normal_approximation_for_many_users() {
        let scores = uniform(1, 2000);
        let (low, high) = one(&scores, Interval::Percentile, 0.95, 10_000, 0).unwrap();
        let centre = mean(&scores);
        let variance = scores.iter().map(|s| (s - centre).powi(2)).sum::<f64>() / scores.len() as f64;
        let half = 1.959_964 * (variance / scores.len() as f64).sqrt();
        assert!((low - (centre - half)).abs() < 0.05 * half, "{low} {}", centre - half);
        assert!((high - (centre + half)).abs() < 0.05 * half, "{high} {}", centre + half);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn a_permutation_p_value_is_that_of_all_sign_changes() {
        let a = uniform(2, 12);
        let b = uniform(3, 12);
        let total: f64 = a.iter().zip(&b).map(|(a, b)| a - b).sum();
        let extreme = (0..1_u32 << 12).filter(|signs| {
            let sum = a.iter().zip(&b).enumerate().map(|(at, (a, b))| if signs >> at & 1 == 1 { b - a } else { a - b });
            sum.sum::<f64>().abs() >= total.abs() - 1e-12
        });
        let exact = extreme.count() as f64 / f64::from(1 << 12);
        let p = paired_permutation_test(&a, &b, 100_000, 5, Interrupt::NEVER).unwrap();
        assert_eq!(p, exact);
        let sampled = paired_permutation_test(&a, &b, 4000, 5, Interrupt::NEVER).unwrap();
        assert!((sampled - exact).abs() < 4.0 * (exact * (1.0 - exact) / 4e3).sqrt(), "{sampled} {exact}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn p_is_one_without_a_difference_and_never_zero() {
        assert_eq!(paired_permutation_test(&[0.5; 9], &[0.5; 9], 100, 0, Interrupt::NEVER).unwrap(), 1.0);
        assert_eq!(paired_permutation_test(&[1.0; 100], &[0.0; 100], 999, 0, Interrupt::NEVER).unwrap(), 0.001);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn samples_that_share_their_draws_have_the_intervals_they_have_alone() {
        let samples: Vec<Vec<f64>> = (0..6).map(|seed| uniform(seed, 70)).collect();
        let samples: Vec<&[f64]> = samples.iter().map(Vec::as_slice).collect();
        for interval in [Interval::Percentile, Interval::Bca] {
            let alone: Vec<_> = samples.iter().map(|scores| one(scores, interval, 0.9, 300, 5).unwrap()).collect();
            for num_samples in 0..=samples.len() {
                let together =
                    bootstrap_intervals(&samples[..num_samples], interval, 0.9, 300, 5, Interrupt::NEVER).unwrap();
                assert_eq!(together, alone[..num_samples]);
            }
        }
        let uneven = bootstrap_intervals(&[&[0.5, 0.5], &[0.5]], Interval::Percentile, 0.9, 300, 5, Interrupt::NEVER)
            .unwrap_err();
        assert_eq!(uneven, Error::Rows { name: "scores", rows: 1, users: 2 });
    }

    #[test]
    fn the_acceleration_is_that_of_the_jackknife() {
        let scores: Vec<f64> = uniform(6, 40).iter().map(|score| score.powi(4)).collect();
        let without = |left_out: usize| {
            let sum: f64 = scores.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, score)| score).sum();
            sum / (scores.len() - 1) as f64
        };
        let jackknife: Vec<f64> = (0..scores.len()).map(without).collect();
        let centre = mean(&jackknife);
        let moment = |power| jackknife.iter().map(|mean| (centre - mean).powi(power)).sum::<f64>();
        let by_definition = moment(3) / (6.0 * moment(2).powf(1.5));
        assert!((acceleration(&scores) / by_definition - 1.0).abs() < 1e-10);
        assert!(acceleration(&scores) > 0.01);
        assert_eq!(acceleration(&[0.25; 7]), 0.0);
        let one_of_many = [vec![0.0; 10_000], vec![1.0]].concat();
        assert!((acceleration(&one_of_many) - 1.0 / 6.0).abs() < 1e-3);
    }

    #[test]
    fn the_bias_is_the_share_below_with_half_of_the_equal() {
        let scores = [0.1, 0.2, 0.3];
        let close = |means: &[f64], share: f64| {
            assert!((bias(&scores, means).unwrap() - normal_quantile(share)).abs() < 1e-15, "{means:?}");
        };
        close(&[0.1, 0.2 - 1e-16, 0.2 + 1e-16, 0.25, 0.3], 0.4);
        close(&[0.1, 0.1, 0.1, 0.3], 0.75);
        close(&[0.2, 0.2], 0.5);
        assert_eq!(bias(&scores, &[0.1, 0.15]).unwrap_err(), Error::OneSided { num_resamples: 2 });
        assert_eq!(bias(&scores, &[0.3]).unwrap_err(), Error::OneSided { num_resamples: 1 });
    }

    #[test]
    fn bca_without_bias_and_skewness_is_the_percentile_interval() {
        assert!((corrected(-1.5, 0.0, 0.0) - normal_cdf(-1.5)).abs() < 1e-16);
        assert_eq!((corrected(7.0, 0.1, 0.166), corrected(-7.0, -0.1, -0.166)), (1.0, 0.0));
        assert_eq!(one(&[0.3; 9], Interval::Bca, 0.95, 100, 0).unwrap().0, mean(&[0.3; 9]));
    }

    #[test]
    fn a_t_test_is_student_with_one_degree_less_than_users() {
        // d = (1, 2, 3): t = 2 / sqrt(1 / 3).
        let p = paired_t_test(&[1.0, 2.0, 3.0], &[0.0; 3]).unwrap();
        assert!((p - student_two_sided(12.0_f64.sqrt(), 2.0)).abs() < 1e-15);
        assert_eq!(paired_t_test(&[0.5, 0.1], &[0.5, 0.1]).unwrap(), 1.0);
        assert_eq!(paired_t_test(&[0.5], &[0.5]).unwrap(), 1.0);
        let alike = paired_t_test(&[0.3, 0.5], &[0.2, 0.4]).unwrap_err();
        assert!(matches!(alike, Error::EqualDifferences { users: 2, .. }), "{alike}");
        assert!(matches!(paired_t_test(&[1.0], &[0.0]), Err(Error::EqualDifferences { users: 1, .. })));
        assert_eq!(paired_t_test(&[1.0], &[]).unwrap_err(), Error::Unpaired { a: 1, b: 0 });
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn nothing_depends_on_the_number_of_threads() {
        let (a, b) = (uniform(4, 501), uniform(5, 501));
        let interval = |interval, seed| one(&a, interval, 0.9, 1000, seed).unwrap();
        let all = || {
            let p = paired_permutation_test(&a, &b, 1000, 3, Interrupt::NEVER).unwrap();
            (interval(Interval::Percentile, 3), interval(Interval::Bca, 3), p)
        };
        let with = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(all);
        let alone = with(1);
        assert!((2..6).all(|threads| with(threads) == alone));
        assert_ne!(alone.0, interval(Interval::Percentile, 4));
        assert_ne!(alone.0, alone.1);
    }

    #[test]
    fn work_ends_when_it_is_interrupted() {
        let flag = std::sync::atomic::AtomicBool::new(true);
        let (a, b, interrupt) = (uniform(4, 70), uniform(5, 70), Interrupt::by(&flag));
        assert_eq!(paired_permutation_test(&a, &b, usize::MAX, 0, interrupt), Err(Error::Interrupted));
        assert_eq!(paired_permutation_test(&a[..20], &b[..20], usize::MAX, 0, interrupt), Err(Error::Interrupted));
        let intervals = bootstrap_intervals(&[&a], Interval::Percentile, 0.9, MAX_RESAMPLES, 0, interrupt);
        assert_eq!(intervals, Err(Error::Interrupted));
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
        let percentile =
            |scores: &[f64], level, num_resamples| one(scores, Interval::Percentile, level, num_resamples, 0);
        assert_eq!(percentile(&[], 0.95, 10).unwrap_err(), Error::NoScores { name: "scores" });
        let nan = percentile(&[0.0, f64::NAN], 0.95, 10).unwrap_err();
        assert!(matches!(nan, Error::NonFiniteScore { name: "scores", row: 1, .. }));
        for level in [0.0, 1.0, 95.0, f64::NAN] {
            assert!(matches!(percentile(&[1.0], level, 10), Err(Error::Parameter { name: "level", .. })));
        }
        for num_resamples in [0, MAX_RESAMPLES + 1, 10_usize.pow(13), usize::MAX] {
            let error = percentile(&[1.0], 0.95, num_resamples).unwrap_err();
            assert!(matches!(error, Error::Parameter { name: "num_resamples", .. }), "{error}");
        }
        assert_eq!(
            paired_permutation_test(&[1.0], &[], 10, 0, Interrupt::NEVER).unwrap_err(),
            Error::Unpaired { a: 1, b: 0 }
        );
        assert!(paired_permutation_test(&[1.0], &[2.0], 0, 0, Interrupt::NEVER).is_err());
        let far = paired_t_test(&[1e300, 0.0], &[0.0, 1.0]).unwrap_err();
        assert!(matches!(far, Error::Parameter { name: "|a - b|", value: 1e300, .. }), "{far}");
    }
}
