//! The normal distribution and Student's t-distribution, as intervals and tests need them.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// P(Z <= x) of the standard normal distribution.
pub(crate) fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x * FRAC_1_SQRT_2)
}

/// The x with `normal_cdf(x)` = p, for p in (0, 1). Bisection is fast enough: an interval needs three quantiles.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    if p > 0.5 {
        return -normal_quantile(1.0 - p);
    }
    // The probability of a value below -39 is less than any positive f64.
    let (mut low, mut high) = (-39.0, 0.0);
    for _ in 0..64 {
        let middle = 0.5 * (low + high);
        *(if normal_cdf(middle) < p { &mut low } else { &mut high }) = middle;
    }
    high
}

/// P(|T| >= |t|) of Student's t-distribution: I_x(a, 1/2) with a = freedom / 2 and x = freedom / (freedom + t^2), where
/// I is the regularised incomplete beta function.
///
/// It is computed by the hypergeometric series (DLMF 8.17.8). For small t the series gives the complement:
///
/// ```text
/// p = 1 - x^a y^(1/2) / (B(a, 1/2) / 2) F(a + 1/2, 1; 3/2; y)          y = 1 - x
/// p =     x^a y^(-1/2) / (B(a, 1/2) a)  F(1/2, 1; a + 1; -freedom / t^2)   after Pfaff's transformation (15.8.1)
/// ```
///
/// Neither form subtracts nearly equal numbers. Neither takes the logarithm of a gamma function, which would lose four
/// digits with thousands of degrees of freedom.
pub(crate) fn student_two_sided(t: f64, freedom: f64) -> f64 {
    let a = freedom / 2.0;
    let ratio = t * t / freedom;
    let y = (1.0 + ratio.recip()).recip();
    let front = (-a * ratio.ln_1p()).exp() * gamma_half_step(a) / PI.sqrt();
    if t * t < 3.0 {
        1.0 - 2.0 * front * y.sqrt() * hypergeometric_series(a + 0.5, 1.5, y)
    } else {
        front / (y.sqrt() * a * hypergeometric_fraction(0.5, a + 1.0, ratio.recip()))
    }
}

/// Gamma(a + 1/2) / Gamma(a), by its asymptotic series. A small `a` is raised by its recurrence first.
fn gamma_half_step(a: f64) -> f64 {
    if a < 64.0 {
        return gamma_half_step(a + 1.0) * a / (a + 0.5);
    }
    let terms = [1.0, -1.0 / 8.0, 1.0 / 128.0, 5.0 / 1024.0, -21.0 / 32_768.0, -399.0 / 262_144.0];
    a.sqrt() * terms.iter().rev().fold(0.0, |sum, term| sum / a + term)
}

/// F(a, 1; c; y) for y in [0, 1), term by term.
fn hypergeometric_series(a: f64, c: f64, y: f64) -> f64 {
    let (mut term, mut sum, mut n) = (1.0, 1.0, 0.0);
    while term > f64::EPSILON * sum {
        term *= (a + n) / (c + n) * y;
        sum += term;
        n += 1.0;
    }
    sum
}

/// 1 / F(a, 1; c; -z) for z >= 0 and c > a > 0, by Lentz's method for the continued fraction of Gauss. All its terms
/// are positive.
fn hypergeometric_fraction(a: f64, c: f64, z: f64) -> f64 {
    let (mut value, mut above, mut below) = (1.0, 1.0, 0.0);
    let mut step = |numerator: f64| {
        above = 1.0 + numerator / above;
        below = (1.0 + numerator * below).recip();
        value *= above * below;
        above * below
    };
    let mut m = 0.0;
    loop {
        step((a + m) * (c + m - 1.0) / ((c + 2.0 * m - 1.0) * (c + 2.0 * m)) * z);
        m += 1.0;
        let factor = step(m * (c - a + m - 1.0) / ((c + 2.0 * m - 2.0) * (c + 2.0 * m - 1.0)) * z);
        if (factor - 1.0).abs() <= f64::EPSILON {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found / expected - 1.0).abs() < 1e-13, "{found:e} {expected:e}");
    }

    #[test]
    fn the_normal_distribution_agrees_with_tables() {
        close(normal_cdf(-1.0), 0.158_655_253_931_457_05);
        close(normal_cdf(-6.0), 9.865_876_450_376_98e-10);
        close(normal_quantile(0.975), 1.959_963_984_540_054);
        close(normal_quantile(1e-300), -37.047_096_299_361_2);
        assert!(normal_quantile(0.5).abs() < 1e-15);
        for p in [1e-12, 0.001, 0.2, 0.499] {
            close(normal_cdf(normal_quantile(p)), p);
            assert_eq!(normal_quantile(1.0 - p), -normal_quantile(1.0 - (1.0 - p)));
        }
    }

    #[test]
    fn student_with_one_and_two_degrees_has_a_closed_form() {
        for t in [1e-9, 0.3, 1.0, 2.0, 50.0, 1e8] {
            close(student_two_sided(t, 1.0), 2.0 / PI * (1.0 / t).atan());
            close(student_two_sided(t, 2.0), 2.0 / (t * t + 2.0) / (1.0 + t / (t * t + 2.0).sqrt()));
            assert_eq!(student_two_sided(-t, 9.0), student_two_sided(t, 9.0));
        }
        assert_eq!(student_two_sided(0.0, 5.0), 1.0);
        assert_eq!(student_two_sided(f64::INFINITY, 5.0), 0.0);
    }

    #[test]
    fn student_is_normal_with_very_many_degrees() {
        for t in [0.1_f64, 1.0, 1.7, 1.8, 4.0, 30.0] {
            close(student_two_sided(t, 1e20), 2.0 * normal_cdf(-t));
        }
    }
}
