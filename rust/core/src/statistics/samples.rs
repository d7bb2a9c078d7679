//! The samples that intervals and tests start from.

use crate::{Error, Result};

/// `a - b` of every user.
pub(super) fn paired_differences(a: &[f64], b: &[f64]) -> Result<Vec<f64>> {
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

/// Refuses a sample that is empty or holds NaN or infinity.
pub(super) fn check_scores(name: &'static str, scores: &[f64]) -> Result<()> {
    if scores.is_empty() {
        return Err(Error::NoScores { name });
    }
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(()),
        Some(row) => Err(Error::NonFiniteScore { name, row, value: scores[row] }),
    }
}

/// Refuses a count of 0.
pub(super) fn check_count(name: &'static str, count: usize) -> Result<()> {
    if count > 0 { Ok(()) } else { Err(Error::Parameter { name, value: 0.0, range: "at least one is needed" }) }
}

#[cfg(test)]
pub(super) mod tests {
    use crate::random::Random;

    pub fn uniform(seed: u64, n: usize) -> Vec<f64> {
        let mut random = Random::new(seed, 99);
        (0..n).map(|_| random.below(1 << 20) as f64 / (1 << 20) as f64).collect()
    }
}
