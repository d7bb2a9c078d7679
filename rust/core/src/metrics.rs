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

use crate::{Error, Result, pool};

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

/// A metric and its cut `k`; `None` stands for the whole ranking.
pub type Cut = (Metric, Option<usize>);

/// Every metric of every user, over the same ranks.
///
/// The ranks of user `r` are `ranks[offsets[r]..offsets[r + 1]]`, in any order. The result holds one vector for each
/// of `metrics`, in their order. Runs in the pool of [`pool::run`] where there are ranks enough to share.
///
/// # Errors
/// [`Error::Offsets`]; [`Error::NoRanks`] for a user without a rank; [`Error::BadRank`] for one below 1 or not finite;
/// [`Error::Parameter`] for `k` = 0 or an uncut precision.
pub fn per_user(metrics: &[Cut], offsets: &[i64], ranks: &[f64]) -> Result<Vec<Vec<f64>>> {
    for (metric, k) in metrics {
        check_cut(*metric, *k)?;
    }
    let offsets = crate::ragged::checked_offsets("ranks", offsets, ranks.len())?;
    check_ranks(&offsets, ranks)?;
    let discounts = Discounts::for_metrics(metrics, &offsets);
    let num_users = offsets.len() - 1;
    let users_per_task = (RANKS_PER_TASK * num_users).div_ceil(ranks.len().max(1)).max(1);
    let mut scores = vec![vec![0.0; num_users]; metrics.len()];
    let mut parts: Vec<_> = scores.iter_mut().map(|scores| scores.chunks_mut(users_per_task)).collect();
    let tasks: Vec<Task> = (0..num_users)
        .step_by(users_per_task)
        .map(|first| &offsets[first..=num_users.min(first + users_per_task)])
        .map(|offsets| (offsets, parts.iter_mut().filter_map(Iterator::next).collect()))
        .collect();
    let work = |(offsets, scores): Task| {
        // No row is empty, so as many ranks as rows are one for each.
        if offsets[offsets.len() - 1] - offsets[0] == offsets.len() - 1 {
            let ranks = &ranks[offsets[0]..offsets[offsets.len() - 1]];
            metrics.iter().zip(scores).for_each(|(cut, scores)| score_one_each(*cut, ranks, &discounts, scores));
        } else {
            score_rows(metrics, offsets, ranks, &discounts, scores);
        }
    };
    if tasks.len() == 1 {
        tasks.into_iter().for_each(work);
    } else {
        pool::run(|| tasks.into_par_iter().for_each(work));
    }
    Ok(scores)
}

/// The offsets of some rows, and where the scores of these rows go, for each metric.
type Task<'a> = (&'a [usize], Vec<&'a mut [f64]>);

/// Four metrics of as many users take about 0.1 ms, and so does waking the threads of a busy machine.
const RANKS_PER_TASK: usize = 16_384;

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

/// Names the first row that is empty or holds what is no rank.
fn check_ranks(offsets: &[usize], ranks: &[f64]) -> Result<()> {
    let empty = offsets.windows(2).position(|pair| pair[0] == pair[1]);
    let bad = ranks.iter().position(|rank| !(1.0..f64::INFINITY).contains(rank));
    let bad = bad.map(|at| (offsets.partition_point(|offset| *offset <= at) - 1, ranks[at]));
    match (empty, bad) {
        (Some(row), bad) if bad.is_none_or(|(bad_row, _)| row < bad_row) => Err(Error::NoRanks { row }),
        (_, Some((row, rank))) => Err(Error::BadRank { row, rank }),
        _ => Ok(()),
    }
}

/// 1 / log2(1 + r) of the first ranks, and its sums: a logarithm takes longer than all else a metric needs.
struct Discounts {
    /// Of rank `r`, at `r`; 0 at 0.
    of_rank: Vec<f64>,
    /// Of the ranks `1..=r`, at `r`.
    sums: Vec<f64>,
}

impl Discounts {
    /// Ranks beyond these are rare, or one logarithm each is little against having found them.
    const MOST: usize = 1024;

    /// As far as the best ranking of the longest row goes, and as the metrics look, up to [`Self::MOST`].
    fn for_metrics(metrics: &[Cut], offsets: &[usize]) -> Self {
        let cuts = metrics.iter().filter(|(metric, _)| *metric == Metric::Ndcg).map(|(_, k)| k.unwrap_or(usize::MAX));
        let Some(cut) = cuts.max() else { return Self { of_rank: Vec::new(), sums: Vec::new() } };
        let longest = offsets.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        let of_rank: Vec<f64> = (0..=longest.max(cut.min(Self::MOST))).map(|rank| discount(rank as f64)).collect();
        let sums = of_rank.iter().scan(0.0, |sum, discount| {
            *sum += discount;
            Some(*sum)
        });
        Self { sums: sums.collect(), of_rank }
    }

    /// Of one rank, which is whole or, where ties share their mean, between two.
    fn at(&self, rank: f64) -> f64 {
        let whole = rank as usize;
        match self.of_rank.get(whole) {
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

/// One metric of users with one relevant item each: a function of its rank alone, to the bit what [`score`] gives.
fn score_one_each((metric, k): Cut, ranks: &[f64], discounts: &Discounts, scores: &mut [f64]) {
    fn fill(ranks: &[f64], cut: f64, scores: &mut [f64], score: impl Fn(f64) -> f64) {
        ranks.iter().zip(scores).for_each(|(rank, to)| *to = if *rank <= cut { score(*rank) } else { 0.0 });
    }
    let cut = cut_rank(k);
    match metric {
        Metric::Ndcg => fill(ranks, cut, scores, |rank| discounts.at(rank)),
        Metric::Mrr | Metric::Map => fill(ranks, cut, scores, f64::recip),
        Metric::Recall | Metric::HitRate => fill(ranks, cut, scores, |_| 1.0),
        Metric::Precision => fill(ranks, cut, scores, |_| cut.recip()),
    }
}

/// All metrics of users with any number of relevant items, each user's ranks sorted once.
fn score_rows(metrics: &[Cut], offsets: &[usize], ranks: &[f64], discounts: &Discounts, mut scores: Vec<&mut [f64]>) {
    let mut sorted = Vec::new();
    for (row, span) in offsets.windows(2).enumerate() {
        sorted.clear();
        sorted.extend_from_slice(&ranks[span[0]..span[1]]);
        sorted.sort_unstable_by(f64::total_cmp);
        for (cut, scores) in metrics.iter().zip(&mut scores) {
            scores[row] = score(*cut, &sorted, discounts);
        }
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
        per_user(&[(metric, k)], &[0, ranks.len() as i64], ranks).unwrap()[0][0]
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
        let error = |ranks: &[f64], offsets: &[i64]| per_user(&[(Metric::Mrr, None)], offsets, ranks).unwrap_err();
        assert_eq!(error(&[1.0, 2.0], &[0, 1, 1, 2]), Error::NoRanks { row: 1 });
        assert_eq!(error(&[1.0, 0.0], &[0, 1, 2]), Error::BadRank { row: 1, rank: 0.0 });
        assert_eq!(error(&[1.0, f64::INFINITY], &[0, 1, 2]), Error::BadRank { row: 1, rank: f64::INFINITY });
        assert!(matches!(error(&[1.0, f64::NAN], &[0, 2]), Error::BadRank { row: 0, .. }));
        assert_eq!(error(&[0.5, 2.0], &[0, 1, 1, 2]), Error::BadRank { row: 0, rank: 0.5 });
    }

    #[test]
    fn cuts_that_mean_nothing_are_refused() {
        for cut in [(Metric::Ndcg, Some(0)), (Metric::Precision, None)] {
            let refused = per_user(&[(Metric::Mrr, None), cut], &[0, 1], &[1.0]);
            assert!(matches!(refused, Err(Error::Parameter { name: "k", .. })), "{cut:?}");
        }
    }

    #[test]
    fn every_path_gives_the_same_bits() {
        // Whole and half ranks on both sides of the table's end and of a task's.
        let num_users = RANKS_PER_TASK + 100;
        let one_each: Vec<f64> = (0..num_users).map(|user| (2 + user * 7_919 % 6_000) as f64 / 2.0).collect();
        let offsets: Vec<i64> = (0..=num_users as i64).collect();
        // A last user with two relevant items takes the rows of both tasks off the fast path.
        let mut ragged = one_each.clone();
        ragged.insert(RANKS_PER_TASK, 3.0);
        ragged.insert(0, 3.0);
        let num_more = |user: usize| if user > RANKS_PER_TASK { 2 } else { i64::from(user > 0) };
        let longer: Vec<i64> = (0..=num_users).map(|user| user as i64 + num_more(user)).collect();
        for k in [Some(1), Some(20), Some(2_000), None] {
            let cuts: Vec<Cut> =
                ALL.map(|metric| (metric, k)).into_iter().filter(|cut| check_cut(cut.0, k).is_ok()).collect();
            let together = per_user(&cuts, &offsets, &one_each).unwrap();
            let by_rows = per_user(&cuts, &longer, &ragged).unwrap();
            for ((cut, together), by_rows) in cuts.iter().zip(&together).zip(&by_rows) {
                assert_eq!(per_user(&[*cut], &offsets, &one_each).unwrap()[0], *together, "{cut:?}");
                let same = |user: usize| user == 0 || user == RANKS_PER_TASK || together[user] == by_rows[user];
                assert!((0..num_users).all(same), "{cut:?}");
            }
        }
    }
}
