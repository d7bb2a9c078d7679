//! Any input from outside gives a right answer or an error that names what is wrong, and never a panic.

use std::mem::MaybeUninit;

use langptune_core::metrics::{self, Metric};
use langptune_core::packing::{self, Layout, Together};
use langptune_core::statistics::{self, Interval};
use langptune_core::{Error, Interrupt, ItemIndex, Matrix, Ragged, Ties};
use proptest::collection::vec;
use proptest::num::{f32, f64};
use proptest::prelude::*;

/// Most numbers are small, so that many inputs are right.
fn whole() -> impl Strategy<Value = i64> {
    prop_oneof![8 => -1_i64..6, 1 => any::<i64>()]
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0_usize..9, 1 => any::<usize>()]
}

fn offsets() -> impl Strategy<Value = Vec<i64>> {
    let running_sums = |lengths: Vec<i64>| {
        let sums = lengths.into_iter().scan(0, |sum, length| {
            *sum += length;
            Some(*sum)
        });
        std::iter::once(0).chain(sums).collect()
    };
    prop_oneof![vec(whole(), 0..6), vec(0_i64..4, 0..6).prop_map(running_sums)]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![8 => (1_u8..9).prop_map(f64::from), 4 => 0.0..9.0, 1 => f64::ANY]
}

/// Offsets and values, mostly as many as the offsets end with.
fn rows<T: std::fmt::Debug>(value: impl Strategy<Value = T> + Clone) -> impl Strategy<Value = (Vec<i64>, Vec<T>)> {
    offsets().prop_flat_map(move |offsets| {
        let len = offsets.last().map_or(0, |end| (*end).clamp(0, 20) as usize);
        let values = prop_oneof![9 => vec(value.clone(), len), 1 => vec(value.clone(), 0..9)];
        (Just(offsets), values)
    })
}

fn are_offsets(offsets: &[i64], num_values: usize) -> bool {
    offsets.first() == Some(&0) && offsets.last() == Some(&(num_values as i64)) && offsets.is_sorted()
}

/// The labels of a packing, mostly one for each sequence.
fn labels(num_sequences: usize) -> impl Strategy<Value = Vec<i64>> {
    prop_oneof![9 => vec(-1_i64..3, num_sequences), 3 => vec(whole(), num_sequences), 1 => vec(whole(), 0..9)]
}

proptest! {
    #[test]
    fn rows_of_items((offsets, values) in rows((-1_i64..6).boxed()), extreme in vec(whole(), 0..6), num_items in size()) {
        for values in [values, extreme] {
            let is_item = |value: &i64| u64::try_from(*value).is_ok_and(|value| value < num_items as u64);
            match Ragged::new("x", &offsets, &values, 0..num_items) {
                Ok(ragged) => {
                    prop_assert!(are_offsets(&offsets, values.len()) && values.iter().all(is_item));
                    let rows = (0..ragged.rows()).flat_map(|row| ragged.row(row)).map(|value| *value as i64);
                    prop_assert!(rows.eq(values));
                }
                Err(Error::OutOfRange { row, item, .. }) => {
                    let row = &values[offsets[row] as usize..offsets[row + 1] as usize];
                    prop_assert!(!is_item(&item) && row.contains(&item));
                }
                Err(Error::Offsets { .. }) => prop_assert!(!are_offsets(&offsets, values.len())),
                Err(error) => prop_assert!(false, "{error}"),
            }
        }
    }

    #[test]
    fn embeddings(values in vec(prop_oneof![9 => -2.0_f32..2.0, 1 => f32::ANY], 0..40), dim in 1_usize..5) {
        let values = &values[..values.len() / dim * dim];
        let matrix = Matrix::new(values, dim);
        match matrix.norms("x") {
            Ok(norms) => prop_assert!(norms.len() == matrix.rows() && values.iter().all(|value| value.is_finite())),
            Err(Error::NonFinite { row, column, value, .. }) => {
                prop_assert!(!value.is_finite() && matrix.row(row)[column].to_bits() == value.to_bits());
                prop_assert!(values[..row * dim + column].iter().all(|value| value.is_finite()));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
        let (targets, exclude) = (Ragged::from_rows(&vec![vec![0]; matrix.rows()]), Ragged::empty(matrix.rows()));
        let index = ItemIndex::new(matrix);
        let ranks = index.and_then(|index| index.rank(matrix, &targets, &exclude, Ties::Index));
        match ranks {
            Ok(ranks) => prop_assert!(ranks.iter().all(|rank| (1.0..=matrix.rows() as f64).contains(rank))),
            Err(Error::Empty { .. }) => prop_assert!(values.is_empty()),
            Err(Error::NonFinite { .. } | Error::Overflow { .. }) => prop_assert!(!values.iter().all(|v| v.abs() < 9.0)),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn ranks_of_users((offsets, ranks) in rows(number().boxed()), k in prop_oneof![Just(None), size().prop_map(Some)]) {
        let all = [Metric::Ndcg, Metric::Mrr, Metric::Recall, Metric::Precision, Metric::HitRate, Metric::Map];
        let are_ranks = ranks.iter().all(|rank| *rank >= 1.0 && rank.is_finite());
        for metric in all {
            for offsets in [Some(&*offsets), None] {
                match metrics::per_user(&[(metric, k)], offsets, &ranks) {
                    Ok(scores) => {
                        prop_assert_eq!(scores.len(), offsets.map_or(ranks.len(), |offsets| offsets.len() - 1));
                        prop_assert!(are_ranks && scores.iter().all(|score| score.is_finite() && *score >= 0.0));
                    }
                    Err(Error::Offsets { .. }) => prop_assert!(!are_offsets(offsets.unwrap(), ranks.len())),
                    Err(Error::NoRanks { row }) => prop_assert_eq!(offsets.unwrap()[row], offsets.unwrap()[row + 1]),
                    Err(Error::BadRank { .. }) => prop_assert!(!are_ranks),
                    Err(Error::Parameter { name: "k", .. }) => prop_assert!(k == Some(0) || k.is_none()),
                    Err(error) => prop_assert!(false, "{error}"),
                }
            }
        }
    }

    #[test]
    fn sequences(
        (lengths, groups, prefixes) in vec(size(), 0..9)
            .prop_flat_map(|lengths| (Just(lengths.clone()), labels(lengths.len()), labels(lengths.len()))),
        capacity in prop_oneof![9 => 8_usize..20, 1 => any::<usize>()],
        costs in vec(number(), 0..9),
        num_ranks in size(),
        num_tokens in size(),
    ) {
        for together in [Together::Nothing, Together::Groups(&groups), Together::Prefixes(&prefixes)] {
            let Ok(bins) = packing::pack_sequences(&lengths, capacity, together) else { continue };
            let mut all = bins.values().to_vec();
            all.sort_unstable();
            prop_assert!(all.into_iter().eq(0..lengths.len()));
            let total = lengths.iter().fold(0_usize, |sum, length| sum.saturating_add(*length));
            let unit_costs = vec![1.0; lengths.len()];
            for costs in [&costs, &unit_costs] {
                if let Ok(balanced) = packing::balance(&bins, lengths.len(), together, costs, num_ranks) {
                    prop_assert!(balanced.rows().is_multiple_of(num_ranks) && balanced.values().len() == lengths.len());
                }
            }
            let prefixes = if let Together::Prefixes(prefixes) = together { Some(prefixes) } else { None };
            for num_tokens in [num_tokens, total] {
                let Ok(layout) = Layout::new(&bins, &lengths, prefixes, num_tokens) else { continue };
                prop_assert_eq!(num_tokens, total);
                if total < 100 {
                    let tokens: Vec<i32> = (0..total as i32).collect();
                    let (mut ids, mut positions) = (vec![MaybeUninit::uninit(); total], vec![MaybeUninit::uninit(); total]);
                    layout.collate(&tokens, &mut ids, &mut positions);
                    // SAFETY: `collate` has written every number.
                    let mut written: Vec<i32> = ids.into_iter().map(|id| unsafe { id.assume_init() }).collect();
                    written.sort_unstable();
                    prop_assert_eq!(written, tokens);
                }
            }
        }
    }

    #[test]
    fn pieces(lengths in vec(prop_oneof![9 => 0_usize..50, 1 => usize::MAX / 2..], 0..9), capacity in 0_usize..9) {
        match packing::split_sequences(&lengths, capacity) {
            Ok((pieces, sources)) => {
                prop_assert!(pieces.iter().all(|piece| *piece <= capacity));
                for (sequence, length) in lengths.iter().enumerate() {
                    let own = pieces.iter().zip(&sources).filter(|(_, source)| **source == sequence);
                    prop_assert_eq!(own.map(|(piece, _)| piece).sum::<usize>(), *length);
                }
            }
            Err(Error::Parameter { name: "capacity", .. }) => prop_assert_eq!(capacity, 0),
            Err(Error::TooManyPieces { .. }) => prop_assert!(lengths.iter().any(|length| *length > 50)),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn scores((a, b) in vec((number(), number()), 0..12).prop_map(|pairs| pairs.into_iter().unzip()), level in number()) {
        let (a, b): (Vec<f64>, Vec<f64>) = (a, b);
        let is_share = |p: f64| (0.0..=1.0).contains(&p);
        for p in [statistics::paired_t_test(&a, &b), statistics::paired_permutation_test(&a, &b, 50, 1, Interrupt::NEVER)] {
            prop_assert!(p.is_err() || p.is_ok_and(is_share));
        }
        for interval in [Interval::Percentile, Interval::Bca] {
            for sizes in [None, Some(b.as_slice())] {
                let found = statistics::bootstrap_intervals(&[&a, &b], sizes, interval, level, 20, 1, Interrupt::NEVER);
                prop_assert!(found.is_err() || found.is_ok_and(|intervals| intervals.len() == 2));
            }
        }
        prop_assert!(statistics::holm(&a).is_err() || a.iter().all(|p| is_share(*p)));
    }
}
