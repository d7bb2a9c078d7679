//! Student's paired t-test.

use super::mean::{ROUNDING, mean, pairwise_sum};
use super::samples::paired_differences;
use crate::distributions::student_two_sided;
use crate::{Error, Result};

/// The two-sided p-value of Student's paired t-test (1908): `t = mean(d) / sqrt(var(d) / n)` over the differences
/// `d = a - b` of n users. Their variance has n - 1 degrees of freedom. The p-value is 1 where no user differs.
///
/// # Errors
/// [`Error::Unpaired`], [`Error::NoScores`], [`Error::NonFiniteScore`]; [`Error::EqualDifferences`] where all users
/// have the same difference, or where there is one user, because the variance is then unknown; [`Error::Parameter`] as
/// for [`super::paired_permutation_test`].
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_t_test_is_student_with_one_degree_of_freedom_less_than_users() {
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
}
