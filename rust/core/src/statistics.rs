//! Means with their uncertainty: bootstrap intervals and paired tests.

mod bootstrap;
mod holm;
mod mean;
mod permutation;
mod samples;
mod t_test;

pub use bootstrap::{Interval, MAX_RESAMPLES, bootstrap_intervals};
pub use holm::holm;
pub use mean::mean;
pub use permutation::paired_permutation_test;
pub use t_test::paired_t_test;

#[cfg(test)]
mod tests {
    use super::bootstrap::tests::one;
    use super::samples::tests::uniform;
    use super::*;
    use crate::{Error, Interrupt};

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
        let expected = with(1);
        assert!((2..6).all(|threads| with(threads) == expected));
        assert_ne!(expected.0, interval(Interval::Percentile, 4));
        assert_ne!(expected.0, expected.1);
    }

    #[test]
    fn work_ends_when_it_is_interrupted() {
        let flag = std::sync::atomic::AtomicBool::new(true);
        let (a, b, interrupt) = (uniform(4, 70), uniform(5, 70), Interrupt::by(&flag));
        assert_eq!(paired_permutation_test(&a, &b, usize::MAX, 0, interrupt), Err(Error::Interrupted));
        assert_eq!(paired_permutation_test(&a[..20], &b[..20], usize::MAX, 0, interrupt), Err(Error::Interrupted));
        let intervals = bootstrap_intervals(&[&a], None, Interval::Percentile, 0.9, MAX_RESAMPLES, 0, interrupt);
        assert_eq!(intervals, Err(Error::Interrupted));
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
