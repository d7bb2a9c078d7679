//! The paired permutation test.

use rayon::prelude::*;

use super::mean::{ROUNDING, pairwise_sum};
use super::samples::{check_count, paired_differences};
use crate::random::Random;
use crate::{Interrupt, Result};

/// The two-sided p-value of a paired permutation test: how often the mean difference is at least as far from 0 as the
/// observed one when each user's two scores are swapped at random.
///
/// Where at most `num_permutations` arrangements exist, each of them is tried once and p is exact. Otherwise the
/// observed arrangement counts as one of the permutations: p = (1 + number as extreme) / (1 + permutations). So p is
/// never 0 (Phipson and Smyth, 2010). Sums that differ only by rounding count as equal.
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
/// [`crate::Error::Unpaired`], [`crate::Error::NoScores`], [`crate::Error::NonFiniteScore`];
/// [`crate::Error::Parameter`] for no permutations, and for scores so far apart that the sum of their squared
/// differences overflows f64; [`crate::Error::Interrupted`].
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
        let num_extreme =
            count_extreme(num_arrangements, interrupt, |signs| sum_by_signs(&tables, || signs).abs() >= extreme)?;
        return Ok(num_extreme as f64 / num_arrangements as f64);
    }
    let is_extreme = |permutation| {
        let mut random = Random::new(seed, permutation);
        sum_by_signs(&tables, || random.next()).abs() >= extreme
    };
    let num_extreme = count_extreme(num_permutations, interrupt, is_extreme)?;
    Ok((1.0 + num_extreme as f64) / (1.0 + num_permutations as f64))
}

/// How many of the numbers below `end` are extreme.
fn count_extreme(end: usize, interrupt: Interrupt, is_extreme: impl Fn(u64) -> bool + Sync) -> Result<usize> {
    let one = |number| interrupt.check().map(|()| usize::from(is_extreme(number)));
    (0..end as u64).into_par_iter().map(one).try_reduce(|| 0, |a, b| Ok(a + b))
}

/// The sum of the differences with other signs. `next_signs` returns 64 signs at a time.
fn sum_by_signs(tables: &[[f64; 16]], mut next_signs: impl FnMut() -> u64) -> f64 {
    let words = tables.chunks(NIBBLES_PER_WORD).map(|tables| {
        let signs = next_signs();
        (0..).zip(tables).map(|(at, table)| table[(signs >> (4 * at)) as usize & 15]).sum::<f64>()
    });
    words.sum()
}

const NIBBLES_PER_WORD: usize = 16;

/// For every four differences, their sum with each of the 16 choices of signs. One look-up replaces four additions.
fn signed_sums(differences: &[f64]) -> Vec<[f64; 16]> {
    let signed = |four: &[f64], signs: usize| -> f64 {
        four.iter().enumerate().map(|(at, value)| if signs >> at & 1 == 1 { -value } else { *value }).sum()
    };
    differences.chunks(4).map(|four| std::array::from_fn(|signs| signed(four, signs))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::samples::tests::uniform;
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn a_permutation_p_value_counts_all_sign_changes() {
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
}
