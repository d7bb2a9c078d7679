//! Bootstrap intervals of means.

use rayon::prelude::*;

use super::mean::{ROUNDING, pairwise_sum};
use super::samples::{check_count, check_scores};
use crate::distributions::{normal_cdf, normal_quantile};
use crate::random::Random;
use crate::{Error, Interrupt, Result};

/// Which quantiles of the resampled means bound a bootstrap interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// The quantiles that leave out `(1 - level) / 2` on either side (Efron, 1979).
    Percentile,
    /// Bias-corrected and accelerated (Efron, 1987): the quantiles are corrected for bias and skewness.
    Bca,
}

/// The bootstrap interval (low, high) of the mean of each sample, from the means of `num_resamples` resamples with
/// replacement. All samples are scores of the same users and share the draws, which changes no interval.
///
/// Resample `r` draws from its own stream of random numbers, so the intervals depend only on the seed.
///
/// With `sizes`, row `i` of a sample is the sum of the `sizes[i]` scores of a cluster. Whole clusters are drawn, and
/// the mean of a resample is that of all scores in them: the sum of the drawn sums over the sum of their sizes.
///
/// ```
/// use langptune_core::Interrupt;
/// use langptune_core::statistics::{Interval, bootstrap_intervals};
///
/// let scores: Vec<f64> = (0..100).map(f64::from).collect();
/// let intervals = bootstrap_intervals(&[&scores], None, Interval::Percentile, 0.95, 1000, 0, Interrupt::NEVER)?;
/// assert!(intervals[0].0 < 49.5 && 49.5 < intervals[0].1);
/// # Ok::<(), langptune_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::NoScores`], [`Error::NonFiniteScore`]; [`Error::Rows`] for samples or sizes of different length;
/// [`Error::Parameter`] for a level outside (0, 1), for no resamples, for more than [`MAX_RESAMPLES`], and for a size
/// below 1;
/// [`Error::OneSided`] where BCa has too few resamples; [`Error::Interrupted`].
pub fn bootstrap_intervals(
    samples: &[&[f64]],
    sizes: Option<&[f64]>,
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
    if let (Some(sizes), Some(scores)) = (sizes, samples.first()) {
        check_sizes(sizes, scores.len())?;
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
    let mean_sizes = match sizes {
        Some(sizes) => resampled_means::<1>(&[sizes], num_resamples, seed, interrupt)?.pop(),
        None => None,
    };
    let mut intervals = Vec::with_capacity(samples.len());
    for samples in samples.chunks(SAMPLES_AT_ONCE) {
        let means = match samples {
            [single] => resampled_means::<1>(&[single], num_resamples, seed, interrupt)?,
            several => resampled_means::<SAMPLES_AT_ONCE>(several, num_resamples, seed, interrupt)?,
        };
        for (scores, mut means) in samples.iter().zip(means) {
            interrupt.check()?;
            if let Some(mean_sizes) = &mean_sizes {
                means.iter_mut().zip(mean_sizes).for_each(|(mean, size)| *mean /= size);
            }
            intervals.push(interval_of_means(scores, sizes, means, interval, level)?);
        }
    }
    Ok(intervals)
}

fn check_sizes(sizes: &[f64], num_clusters: usize) -> Result<()> {
    check_scores("sizes", sizes)?;
    if sizes.len() != num_clusters {
        return Err(Error::Rows { name: "sizes", rows: sizes.len(), users: num_clusters });
    }
    match sizes.iter().find(|size| **size < 1.0) {
        None => Ok(()),
        Some(&value) => Err(Error::Parameter { name: "sizes", value, range: "a cluster has at least one score" }),
    }
}

/// The most resamples. Their means take 640 MB.
pub const MAX_RESAMPLES: usize = 10_000_000;

/// Number of samples that are summed together. An addition waits about four cycles for the previous one, and the next
/// draw and three other additions fit into that time.
const SAMPLES_AT_ONCE: usize = 4;

/// The resampled means of each of up to `N` samples.
fn resampled_means<const N: usize>(
    samples: &[&[f64]],
    num_resamples: usize,
    seed: u64,
    interrupt: Interrupt,
) -> Result<Vec<Vec<f64>>> {
    let num_users = samples[0].len();
    let row = |user: usize| std::array::from_fn(|at| samples.get(at).map_or(0.0, |scores| scores[user]));
    let rows: Vec<[f64; N]> = (0..num_users).map(row).collect();
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

fn interval_of_means(
    scores: &[f64],
    sizes: Option<&[f64]>,
    mut means: Vec<f64>,
    interval: Interval,
    level: f64,
) -> Result<(f64, f64)> {
    means.par_sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    let (low, high) = match interval {
        Interval::Percentile => (tail, 1.0 - tail),
        Interval::Bca => {
            let (bias, acceleration) = (bias(scores, sizes, &means)?, acceleration(scores, sizes));
            let z = normal_quantile(tail);
            (corrected(z, bias, acceleration), corrected(-z, bias, acceleration))
        }
    };
    Ok((quantile(&means, low), quantile(&means, high)))
}

/// BCa's bias z0: the normal quantile of the share of resampled means below the mean. Means equal to it count half.
fn bias(scores: &[f64], sizes: Option<&[f64]>, sorted_means: &[f64]) -> Result<f64> {
    let num_scores = num_scores(scores, sizes);
    let centre = pairwise_sum(scores) / num_scores;
    let rounding = ROUNDING * scores.iter().map(|score| score.abs()).sum::<f64>() / num_scores;
    let below = sorted_means.partition_point(|mean| *mean < centre - rounding);
    let not_above = sorted_means.partition_point(|mean| *mean <= centre + rounding);
    let num_resamples = sorted_means.len();
    if not_above == 0 || below == num_resamples {
        return Err(Error::OneSided { num_resamples });
    }
    Ok(normal_quantile((below + not_above) as f64 / (2 * num_resamples) as f64))
}

/// BCa's acceleration, a sixth of the skewness of the jackknife. Leaving user i out moves the mean by
/// `(mean - score_i) / (n - 1)`, so the acceleration is `sum d^3 / (6 (sum d^2)^(3/2))` over `d_i = score_i - mean`. It
/// lies between -1/6 and 1/6, and is 0 where all scores are equal. For clusters `d_i = sum_i - mean size_i`, to which
/// the mean's change without cluster i is proportional in first order (Efron, 1987, section 6).
fn acceleration(scores: &[f64], sizes: Option<&[f64]>) -> f64 {
    let centre = pairwise_sum(scores) / num_scores(scores, sizes);
    let size = |at| sizes.map_or(1.0, |sizes| sizes[at]);
    let moment =
        |power| scores.iter().enumerate().map(|(at, score)| (score - centre * size(at)).powi(power)).sum::<f64>();
    let squares = moment(2);
    if squares == 0.0 { 0.0 } else { moment(3) / (6.0 * squares * squares.sqrt()) }
}

/// How many scores the rows hold: one each, or those of clusters of these sizes.
fn num_scores(scores: &[f64], sizes: Option<&[f64]>) -> f64 {
    sizes.map_or(scores.len() as f64, pairwise_sum)
}

/// The share of resampled means below BCa's bound at the normal quantile `z`. It is 0 or 1 beyond the pole of the
/// correction, which only a level within 1e-5 of 1 reaches.
fn corrected(z: f64, bias: f64, acceleration: f64) -> f64 {
    let shifted = bias + z;
    normal_cdf(bias + shifted / (1.0 - acceleration * shifted).max(0.0))
}

/// The quantile `q` of sorted values, interpolated linearly between the two nearest values.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    below + (above - below) * position.fract()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::mean::mean;
    use super::super::samples::tests::uniform;
    use super::*;

    /// The interval of one sample.
    pub fn one(scores: &[f64], interval: Interval, level: f64, num_resamples: usize, seed: u64) -> Result<(f64, f64)> {
        Ok(bootstrap_intervals(&[scores], None, interval, level, num_resamples, seed, Interrupt::NEVER)?[0])
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn the_interval_of_many_users_is_the_normal_approximation() {
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
    fn samples_that_share_their_draws_have_the_same_intervals_as_single_samples() {
        let samples: Vec<Vec<f64>> = (0..6).map(|seed| uniform(seed, 70)).collect();
        let samples: Vec<&[f64]> = samples.iter().map(Vec::as_slice).collect();
        for interval in [Interval::Percentile, Interval::Bca] {
            let single: Vec<_> = samples.iter().map(|scores| one(scores, interval, 0.9, 300, 5).unwrap()).collect();
            for num_samples in 0..=samples.len() {
                let together =
                    bootstrap_intervals(&samples[..num_samples], None, interval, 0.9, 300, 5, Interrupt::NEVER)
                        .unwrap();
                assert_eq!(together, single[..num_samples]);
            }
        }
        let uneven =
            bootstrap_intervals(&[&[0.5, 0.5], &[0.5]], None, Interval::Percentile, 0.9, 300, 5, Interrupt::NEVER)
                .unwrap_err();
        assert_eq!(uneven, Error::Rows { name: "scores", rows: 1, users: 2 });
    }

    #[test]
    fn the_acceleration_equals_the_jackknife() {
        let scores: Vec<f64> = uniform(6, 40).iter().map(|score| score.powi(4)).collect();
        let without = |left_out: usize| {
            let sum: f64 = scores.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, score)| score).sum();
            sum / (scores.len() - 1) as f64
        };
        let jackknife: Vec<f64> = (0..scores.len()).map(without).collect();
        let centre = mean(&jackknife);
        let moment = |power| jackknife.iter().map(|mean| (centre - mean).powi(power)).sum::<f64>();
        let by_definition = moment(3) / (6.0 * moment(2).powf(1.5));
        assert!((acceleration(&scores, None) / by_definition - 1.0).abs() < 1e-10);
        assert!(acceleration(&scores, None) > 0.01);
        assert_eq!(acceleration(&[0.25; 7], None), 0.0);
        let one_of_many = [vec![0.0; 10_000], vec![1.0]].concat();
        assert!((acceleration(&one_of_many, None) - 1.0 / 6.0).abs() < 1e-3);
    }

    #[test]
    fn the_bias_is_the_share_below_plus_half_of_the_equal() {
        let scores = [0.1, 0.2, 0.3];
        let close = |means: &[f64], share: f64| {
            assert!((bias(&scores, None, means).unwrap() - normal_quantile(share)).abs() < 1e-15, "{means:?}");
        };
        close(&[0.1, 0.2 - 1e-16, 0.2 + 1e-16, 0.25, 0.3], 0.4);
        close(&[0.1, 0.1, 0.1, 0.3], 0.75);
        close(&[0.2, 0.2], 0.5);
        assert_eq!(bias(&scores, None, &[0.1, 0.15]).unwrap_err(), Error::OneSided { num_resamples: 2 });
        assert_eq!(bias(&scores, None, &[0.3]).unwrap_err(), Error::OneSided { num_resamples: 1 });
    }

    #[test]
    fn bca_without_bias_and_skewness_is_the_percentile_interval() {
        assert!((corrected(-1.5, 0.0, 0.0) - normal_cdf(-1.5)).abs() < 1e-16);
        assert_eq!((corrected(7.0, 0.1, 0.166), corrected(-7.0, -0.1, -0.166)), (1.0, 0.0));
        assert_eq!(one(&[0.3; 9], Interval::Bca, 0.95, 100, 0).unwrap().0, mean(&[0.3; 9]));
    }

    #[test]
    fn clusters_are_drawn_whole() {
        let (sizes, scores) = ([3.0, 1.0, 2.0, 1.0], [0.9, 0.1, 0.2, 0.7]);
        let of = |scores: &[f64], sizes: Option<&[f64]>, interval| {
            bootstrap_intervals(&[scores], sizes, interval, 0.9, 500, 3, Interrupt::NEVER).map(|intervals| intervals[0])
        };
        let mut means: Vec<f64> = (0..500)
            .map(|resample| {
                let mut random = Random::new(3, resample);
                let drawn: Vec<usize> = (0..4).map(|_| random.below(4)).collect();
                let sum = |values: &[f64]| drawn.iter().map(|at| values[*at]).sum::<f64>();
                sum(&scores) / sum(&sizes)
            })
            .collect();
        means.sort_unstable_by(f64::total_cmp);
        let (low, high) = of(&scores, Some(&sizes), Interval::Percentile).unwrap();
        assert!((low - quantile(&means, 0.05)).abs() < 1e-15 && (high - quantile(&means, 0.95)).abs() < 1e-15);
        for interval in [Interval::Percentile, Interval::Bca] {
            // Clusters of one score are no clusters, and a constant is known for certain whatever the sizes are.
            assert_eq!(of(&scores, Some(&[1.0; 4]), interval), of(&scores, None, interval));
            let (low, high) = of(&sizes.map(|size| 0.25 * size), Some(&sizes), interval).unwrap();
            assert_eq!((low, high), (0.25, 0.25));
        }
        let refused = |sizes: &[f64]| of(&scores, Some(sizes), Interval::Percentile).unwrap_err();
        assert_eq!(refused(&[1.0]), Error::Rows { name: "sizes", rows: 1, users: 4 });
        assert!(matches!(refused(&[1.0, 0.0, 1.0, 1.0]), Error::Parameter { name: "sizes", .. }));
        assert!(matches!(refused(&[1.0, f64::NAN, 1.0, 1.0]), Error::NonFiniteScore { name: "sizes", .. }));
    }
}
