//! Ranking metrics from the ranks of a user's relevant items.
//!
//! A user with `R` relevant items at the 1-based ranks `r_1 < .. < r_R` of a complete ranking, cut at `k` (uncut: `k`
//! is infinite), scores
//!
//! ```text
//! ndcg      = sum over r_j <= k of 1 / log2(1 + r_j)  /  sum over j = 1..min(R, k) of 1 / log2(1 + j)
//! mrr       = 1 / r_1 if r_1 <= k, else 0
//! recall    = |{j : r_j <= k}| / R
//! precision = |{j : r_j <= k}| / k
//! hit_rate  = 1 if r_1 <= k, else 0
//! map       = sum over r_j <= k of j / r_j  /  R
//! ```
//!
//! ndcg is that of Jarvelin and Kekalainen (2002) with binary gains, the others are trec_eval's `recip_rank`,
//! `recall`, `P`, `success` and `map_cut`. `map` divides by all `R` relevant items, also where `R > k`, as trec_eval
//! does.

use rayon::prelude::*;

use crate::{Error, Result};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Normalised discounted cumulative gain.
    Ndcg,
    /// Reciprocal rank of the first relevant item.
    Mrr,
    /// Share of the relevant items found.
    Recall,
    /// Share of the places taken by relevant items; needs a cut.
    Precision,
    /// Whether any relevant item is found.
    HitRate,
    /// Average precision.
    Map,
}

/// The metric of every user, cut at `k`, or over the whole ranking for `None`.
///
/// The ranks of user `r` are `ranks[offsets[r]..offsets[r + 1]]`, in any order.
///
/// # Errors
/// [`Error::Offsets`]; [`Error::NoRanks`] for a user without a rank; [`Error::BadRank`] for one below 1 or not finite;
/// [`Error::Parameter`] for `k` = 0 or an uncut precision.
pub fn per_user(metric: Metric, k: Option<usize>, offsets: &[i64], ranks: &[f64]) -> Result<Vec<f64>> {
    if k == Some(0) {
        return Err(Error::Parameter { name: "k", value: 0.0, range: "a metric is cut at k >= 1, or not at all" });
    }
    if metric == Metric::Precision && k.is_none() {
        let range = "precision divides by the number of places: give it a cut, such as precision@20";
        return Err(Error::Parameter { name: "k", value: f64::INFINITY, range });
    }
    let offsets = crate::ragged::checked_offsets("ranks", offsets, ranks.len())?;
    let cut = k.map_or(f64::INFINITY, |k| k as f64);
    let row = |row: usize| {
        let mut ranks = ranks[offsets[row]..offsets[row + 1]].to_vec();
        ranks.sort_unstable_by(f64::total_cmp);
        check_row(row, &ranks)?;
        Ok(score(metric, cut, &ranks))
    };
    // Collected as results first: rayon would report whichever broken row it meets first.
    let rows: Vec<Result<f64>> = (0..offsets.len() - 1).into_par_iter().with_min_len(512).map(row).collect();
    rows.into_iter().collect()
}

fn check_row(row: usize, sorted: &[f64]) -> Result<()> {
    if sorted.is_empty() {
        return Err(Error::NoRanks { row });
    }
    if let Some(&rank) = sorted.iter().find(|rank| !(rank.is_finite() && **rank >= 1.0)) {
        return Err(Error::BadRank { row, rank });
    }
    Ok(())
}

/// One user's metric; `sorted` holds its ranks in increasing order.
fn score(metric: Metric, cut: f64, sorted: &[f64]) -> f64 {
    let num_relevant = sorted.len() as f64;
    let found = &sorted[..sorted.partition_point(|rank| *rank <= cut)];
    let num_found = found.len() as f64;
    let discount = |rank: f64| (1.0 + rank).log2().recip();
    match metric {
        Metric::Ndcg => {
            let gain = found.iter().fold(0.0, |gain, rank| gain + discount(*rank));
            let ideal: f64 = (1..=sorted.len()).map(|j| j as f64).take_while(|j| *j <= cut).map(discount).sum();
            gain / ideal
        }
        Metric::Mrr => found.first().map_or(0.0, |rank| rank.recip()),
        Metric::Recall => num_found / num_relevant,
        Metric::Precision => num_found / cut,
        Metric::HitRate => f64::from(!found.is_empty()),
        Metric::Map => (1..).zip(found).fold(0.0, |sum, (j, rank)| sum + f64::from(j) / rank) / num_relevant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(metric: Metric, k: Option<usize>, ranks: &[f64]) -> f64 {
        per_user(metric, k, &[0, ranks.len() as i64], ranks).unwrap()[0]
    }

    #[test]
    fn one_relevant_item() {
        assert_eq!(one(Metric::Ndcg, Some(20), &[3.0]), 0.5);
        assert_eq!(one(Metric::Ndcg, Some(2), &[3.0]), 0.0);
        assert_eq!(one(Metric::Mrr, None, &[4.0]), 0.25);
        assert_eq!(one(Metric::Recall, Some(4), &[4.0]), 1.0);
        assert_eq!(one(Metric::Precision, Some(20), &[4.0]), 0.05);
        assert_eq!(one(Metric::HitRate, Some(3), &[4.0]), 0.0);
        assert_eq!(one(Metric::Map, None, &[4.0]), 0.25);
    }

    #[test]
    fn nothing_found_is_plain_zero() {
        for metric in [Metric::Ndcg, Metric::Mrr, Metric::Recall, Metric::Precision, Metric::HitRate, Metric::Map] {
            assert_eq!(one(metric, Some(5), &[6.0, 9.0]).to_bits(), 0.0_f64.to_bits(), "{metric:?}");
        }
    }

    #[test]
    fn several_relevant_items_in_any_order() {
        let ranks = [7.0, 1.0, 3.0];
        let ideal = 1.0 + 1.0 / 3.0_f64.log2() + 0.5;
        assert!((one(Metric::Ndcg, Some(5), &ranks) - 1.5 / ideal).abs() < 1e-15);
        assert!((one(Metric::Ndcg, None, &ranks) - (1.5 + 1.0 / 3.0) / ideal).abs() < 1e-15);
        assert!((one(Metric::Ndcg, Some(1), &ranks) - 1.0).abs() < 1e-15);
        assert_eq!(one(Metric::Mrr, Some(5), &ranks), 1.0);
        assert!((one(Metric::Recall, Some(5), &ranks) - 2.0 / 3.0).abs() < 1e-15);
        assert_eq!(one(Metric::Precision, Some(5), &ranks), 0.4);
        assert!((one(Metric::Map, Some(5), &ranks) - (1.0 + 2.0 / 3.0) / 3.0).abs() < 1e-15);
    }

    #[test]
    fn bad_rows_are_named() {
        let error = |ranks: &[f64], offsets: &[i64]| per_user(Metric::Mrr, None, offsets, ranks).unwrap_err();
        assert_eq!(error(&[1.0, 2.0], &[0, 1, 1, 2]), Error::NoRanks { row: 1 });
        assert_eq!(error(&[1.0, 0.0], &[0, 1, 2]), Error::BadRank { row: 1, rank: 0.0 });
        assert_eq!(error(&[1.0, f64::INFINITY], &[0, 1, 2]), Error::BadRank { row: 1, rank: f64::INFINITY });
        assert!(matches!(error(&[1.0, f64::NAN], &[0, 2]), Error::BadRank { row: 0, .. }));
    }

    #[test]
    fn cuts_that_mean_nothing_are_refused() {
        assert!(matches!(per_user(Metric::Ndcg, Some(0), &[0, 1], &[1.0]), Err(Error::Parameter { name: "k", .. })));
        assert!(matches!(per_user(Metric::Precision, None, &[0, 1], &[1.0]), Err(Error::Parameter { name: "k", .. })));
    }
}
