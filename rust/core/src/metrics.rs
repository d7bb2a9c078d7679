//! Ranking metrics from the ranks of a user's relevant items.
//!
//! A user has `R` relevant items at the 1-based ranks `r_1 < .. < r_R` of a complete ranking. The ranking is cut at
//! `k`, which is infinite without a cut. The metrics of the user are
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
//! ndcg follows Jarvelin and Kekalainen (2002) with binary gains. The others are trec_eval's `recip_rank`, `recall`,
//! `P`, `success` and `map_cut`. Like trec_eval, `map` divides by all `R` relevant items, even where `R > k`.

use rayon::prelude::*;

use crate::{Error, Result, pool};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Normalised discounted cumulative gain.
    Ndcg,
    /// Reciprocal rank of the first relevant item.
    Mrr,
    /// Share of the relevant items that are found.
    Recall,
    /// Share of the first `k` places that relevant items take. It needs a cut.
    Precision,
    /// Whether a relevant item is found: 0 or 1.
    HitRate,
    /// Average precision.
    Map,
}

/// A metric and its cut `k`; `None` stands for the whole ranking.
pub type Cut = (Metric, Option<usize>);

/// Every metric of every user, from the same ranks.
///
/// The ranks of user `r` are `ranks[offsets[r]..offsets[r + 1]]`, in any order. Without offsets each user has one rank.
/// The result holds the first metric of all users, then the second, and so on.
///
/// The pool of [`pool::run`] is only used with offsets. Without them a score takes a nanosecond, and memory is the
/// limit.
///
/// ```
/// use langptune_core::metrics::{Metric, per_user};
///
/// // Two users: the first has two relevant items, the second one.
/// let scores = per_user(&[(Metric::Recall, Some(20)), (Metric::Mrr, None)], Some(&[0, 2, 3]), &[40.0, 2.0, 4.0])?;
/// assert_eq!(scores, [0.5, 1.0, 0.5, 0.25]);
/// # Ok::<(), langptune_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Offsets`]; [`Error::NoRanks`] for a user without a rank; [`Error::BadRank`] for a rank that is below 1 or
/// not finite; [`Error::Parameter`] for `k` = 0 and for a precision without a cut.
pub fn per_user(metrics: &[Cut], offsets: Option<&[i64]>, ranks: &[f64]) -> Result<Vec<f64>> {
    for (metric, k) in metrics {
        check_cut(*metric, *k)?;
    }
    let bad = ranks.iter().position(|rank| !(1.0..f64::INFINITY).contains(rank));
    let Some(offsets) = offsets else {
        if let Some(row) = bad {
            return Err(Error::BadRank { row, rank: ranks[row] });
        }
        let discounts = Discounts::new(metrics, 1);
        let mut scores = Vec::with_capacity(metrics.len() * ranks.len());
        metrics.iter().for_each(|cut| score_single_ranks(*cut, ranks, &discounts, &mut scores));
        return Ok(scores);
    };
    let offsets = crate::ragged::checked_offsets("ranks", offsets, ranks.len())?;
    check_rows(&offsets, ranks, bad)?;
    let discounts = Discounts::new(metrics, offsets.windows(2).map(|span| span[1] - span[0]).max().unwrap_or(0));
    let mut scores = Vec::with_capacity(metrics.len() * (offsets.len() - 1));
    pool::run(|| {
        let sorted = sort_rows(&offsets, ranks);
        for cut in metrics {
            let rows = offsets.par_windows(2).with_min_len(ROWS_PER_TASK);
            scores.par_extend(rows.map(|span| score(*cut, &sorted[span[0]..span[1]], &discounts)));
        }
    });
    Ok(scores)
}

const ROWS_PER_TASK: usize = 512;

fn check_cut(metric: Metric, k: Option<usize>) -> Result<()> {
    if k == Some(0) {
        return Err(Error::Parameter { name: "k", value: 0.0, range: "a metric is cut at k >= 1, or not at all" });
    }
    if metric == Metric::Precision && k.is_none() {
        let range = "precision divides by the number of places: give it a cut, such as precision@20";
        return Err(Error::Parameter { name: "k", value: f64::INFINITY, range });
    }
    Ok(())
}

/// Names the first bad row: one that is empty, or the one that holds the bad rank at place `bad`.
fn check_rows(offsets: &[usize], ranks: &[f64], bad: Option<usize>) -> Result<()> {
    let empty = offsets.windows(2).position(|span| span[0] == span[1]);
    let bad = bad.map(|at| (offsets.partition_point(|offset| *offset <= at) - 1, ranks[at]));
    match (empty, bad) {
        (Some(row), bad) if bad.is_none_or(|(bad_row, _)| row < bad_row) => Err(Error::NoRanks { row }),
        (_, Some((row, rank))) => Err(Error::BadRank { row, rank }),
        _ => Ok(()),
    }
}

/// The ranks with each row in increasing order.
fn sort_rows(offsets: &[usize], ranks: &[f64]) -> Vec<f64> {
    let mut sorted = ranks.to_vec();
    let mut rest = sorted.as_mut_slice();
    let rows: Vec<&mut [f64]> = offsets.windows(2).filter_map(|span| rest.split_off_mut(..span[1] - span[0])).collect();
    rows.into_par_iter().with_min_len(ROWS_PER_TASK).for_each(|row| row.sort_unstable_by(f64::total_cmp));
    sorted
}

/// `1 / log2(1 + r)` of the first ranks, and its sums. A logarithm takes longer than everything else in a metric.
struct Discounts {
    /// The discount of rank `r` at index `r`; 0 at index 0.
    by_rank: Vec<f64>,
    /// The sum of the discounts of the ranks `1..=r` at index `r`.
    sums: Vec<f64>,
}

impl Discounts {
    /// The largest tabulated rank. Larger ranks are rare, and computing their logarithm costs little beside ranking.
    const MAX_RANK: usize = 1024;

    /// Tabulates as many ranks as the longest row has, and as many as the metrics need, up to [`Self::MAX_RANK`].
    fn new(metrics: &[Cut], longest: usize) -> Self {
        let cuts = metrics.iter().filter(|(metric, _)| *metric == Metric::Ndcg).map(|(_, k)| k.unwrap_or(usize::MAX));
        let Some(cut) = cuts.max() else { return Self { by_rank: Vec::new(), sums: Vec::new() } };
        let by_rank: Vec<f64> = (0..=longest.max(cut.min(Self::MAX_RANK))).map(|rank| discount(rank as f64)).collect();
        let sums = by_rank.iter().scan(0.0, |sum, discount| {
            *sum += discount;
            Some(*sum)
        });
        Self { sums: sums.collect(), by_rank }
    }

    /// The discount of a rank. Ranks of tied items may lie between two whole numbers.
    fn at(&self, rank: f64) -> f64 {
        let whole = rank as usize;
        match self.by_rank.get(whole) {
            Some(discount) if whole as f64 == rank => *discount,
            _ => discount(rank),
        }
    }
}

fn discount(rank: f64) -> f64 {
    if rank == 0.0 { 0.0 } else { (1.0 + rank).log2().recip() }
}

fn cut_rank(k: Option<usize>) -> f64 {
    k.map_or(f64::INFINITY, |k| k as f64)
}

/// One metric of users with a single relevant item. The bits are those that [`score`] gives.
fn score_single_ranks((metric, k): Cut, ranks: &[f64], discounts: &Discounts, scores: &mut Vec<f64>) {
    fn extend(scores: &mut Vec<f64>, ranks: &[f64], cut: f64, score: impl Fn(f64) -> f64) {
        scores.extend(ranks.iter().map(|rank| if *rank <= cut { score(*rank) } else { 0.0 }));
    }
    let cut = cut_rank(k);
    match metric {
        Metric::Ndcg => extend(scores, ranks, cut, |rank| discounts.at(rank)),
        Metric::Mrr | Metric::Map => extend(scores, ranks, cut, f64::recip),
        Metric::Recall | Metric::HitRate => extend(scores, ranks, cut, |_| 1.0),
        Metric::Precision => extend(scores, ranks, cut, |_| cut.recip()),
    }
}

/// One user's metric; `sorted` holds its ranks in increasing order.
fn score((metric, k): Cut, sorted: &[f64], discounts: &Discounts) -> f64 {
    let num_relevant = sorted.len() as f64;
    let cut = cut_rank(k);
    let found = &sorted[..sorted.partition_point(|rank| *rank <= cut)];
    let num_found = found.len() as f64;
    match metric {
        Metric::Ndcg => {
            let gain = found.iter().fold(0.0, |gain, rank| gain + discounts.at(*rank));
            gain / discounts.sums[k.map_or(sorted.len(), |k| k.min(sorted.len()))]
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

    const ALL: [Metric; 6] =
        [Metric::Ndcg, Metric::Mrr, Metric::Recall, Metric::Precision, Metric::HitRate, Metric::Map];

    fn one(metric: Metric, k: Option<usize>, ranks: &[f64]) -> f64 {
        per_user(&[(metric, k)], Some(&[0, ranks.len() as i64]), ranks).unwrap()[0]
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
    fn nothing_found_scores_positive_zero() {
        for metric in ALL {
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
        let error =
            |ranks: &[f64], offsets: &[i64]| per_user(&[(Metric::Mrr, None)], Some(offsets), ranks).unwrap_err();
        assert_eq!(error(&[1.0, 2.0], &[0, 1, 1, 2]), Error::NoRanks { row: 1 });
        assert_eq!(error(&[1.0, 0.0], &[0, 1, 2]), Error::BadRank { row: 1, rank: 0.0 });
        assert_eq!(error(&[1.0, f64::INFINITY], &[0, 1, 2]), Error::BadRank { row: 1, rank: f64::INFINITY });
        assert!(matches!(error(&[1.0, f64::NAN], &[0, 2]), Error::BadRank { row: 0, .. }));
        assert_eq!(per_user(&[], None, &[1.0, 0.0]).unwrap_err(), Error::BadRank { row: 1, rank: 0.0 });
        assert_eq!(error(&[0.5, 2.0], &[0, 1, 1, 2]), Error::BadRank { row: 0, rank: 0.5 });
    }

    #[test]
    fn meaningless_cuts_are_refused() {
        for cut in [(Metric::Ndcg, Some(0)), (Metric::Precision, None)] {
            let refused = per_user(&[(Metric::Mrr, None), cut], None, &[1.0]);
            assert!(matches!(refused, Err(Error::Parameter { name: "k", .. })), "{cut:?}");
        }
    }

    #[test]
    fn one_rank_scores_the_same_bits_on_every_path() {
        // Whole and half ranks on both sides of the table's end.
        let step = if cfg!(miri) { 100 } else { 1 };
        let ranks: Vec<f64> = (0..6_000).step_by(step).map(|user| (2 + user * 7_919 % 6_000) as f64 / 2.0).collect();
        let offsets: Vec<i64> = (0..=ranks.len() as i64).collect();
        for k in [Some(1), Some(20), Some(2_000), None] {
            let cuts = ALL.map(|metric| (metric, k)).into_iter().filter(|cut| check_cut(cut.0, k).is_ok());
            let cuts: Vec<Cut> = cuts.collect();
            let together = per_user(&cuts, None, &ranks).unwrap();
            assert_eq!(per_user(&cuts, Some(&offsets), &ranks).unwrap(), together);
            for (cut, together) in cuts.iter().zip(together.chunks(ranks.len())) {
                assert_eq!(per_user(&[*cut], None, &ranks).unwrap(), together, "{cut:?}");
            }
        }
    }
}
