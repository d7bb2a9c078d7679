//! Holm's correction for several tests.

use crate::{Error, Result};

/// Holm's step-down correction (1979): each p-value adjusted for the number of tests, in the given order.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_follows_the_definition() {
        // 0.01 x 4, 0.02 x 3, 0.03 x 2 and 0.5, where each is at least as large as the previous one.
        let adjusted = holm(&[0.03, 0.01, 0.5, 0.02]).unwrap();
        assert_eq!(adjusted, [0.06, 0.04, 0.5, 0.06]);
        assert_eq!(holm(&[0.7, 0.6]).unwrap(), [1.0, 1.0]);
        assert!(holm(&[1.5]).is_err());
    }
}
