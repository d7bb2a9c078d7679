//! Ranks and search against their definitions, for any kernel, threads and blocks.

use std::sync::Arc;

use langptune_core::{Blocks, Error, ItemIndex, Kernel, Matrix, Prepared, Ragged, TargetScores, Ties, exact};
use proptest::prelude::*;

use crate::case::{Case, ITEMS, NUM_CASES, USERS, bits, case, in_threads, ragged, random};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(NUM_CASES))]

    #[test]
    fn ranks_are_places_in_the_sorted_list(
        case in case(), threads in 1_usize..5, users in 1_usize..20, items in 1_usize..100,
    ) {
        let targets = ragged("targets", &case.targets, case.items().rows());
        let exclude = ragged("exclude", &case.exclude, case.items().rows());
        for ties in [Ties::Index, Ties::Min, Ties::Max, Ties::Mean] {
            let rows = case.targets.iter().enumerate();
            let expected: Vec<f64> = rows
                .flat_map(|(user, row)| row.iter().map(move |target| (user, *target as usize)))
                .map(|(user, target)| case.rank_of(user, target, ties))
                .collect();
            for (kernel, index) in case.indexes(Blocks { users, items }) {
                let ranks = in_threads(threads, || index.rank(case.users(), &targets, &exclude, ties).unwrap());
                prop_assert_eq!(&ranks, &expected, "{:?} {}", ties, kernel.name());
            }
        }
    }

    #[test]
    fn target_scores_are_ranks_and_log_softmaxes(
        case in case(),
        threads in 1_usize..5,
        users in 1_usize..20,
        items in 1_usize..100,
        temperature in 0.01_f64..2.0,
    ) {
        let targets = ragged("targets", &case.targets, case.items().rows());
        let exclude = ragged("exclude", &case.exclude, case.items().rows());
        let mut first: Option<TargetScores> = None;
        for (kernel, index) in case.indexes(Blocks { users, items }) {
            let score = || index.score_targets(case.users(), &targets, &exclude, temperature).unwrap();
            let found = in_threads(threads, score);
            let ranks = index.rank(case.users(), &targets, &exclude, Ties::Index).unwrap();
            prop_assert_eq!(&found.ranks, &ranks, "{}", kernel.name());
            prop_assert_eq!(&found, &in_threads(1, score), "{}", kernel.name());
            prop_assert_eq!(&found, first.get_or_insert_with(|| found.clone()), "{}", kernel.name());
        }
        let found = first.unwrap();
        for user in 0..case.users().rows() {
            for place in targets.span(user) {
                let (expected, largest) = case.log_prob_of(user, targets.values()[place], temperature);
                let error = (found.log_probs[place] - expected).abs();
                prop_assert!(error <= 1e-8 + 1e-15 * largest, "{} {} {}", found.log_probs[place], expected, largest);
            }
        }
    }

    #[test]
    fn search_is_the_head_of_the_sorted_list(
        case in case(), threads in 1_usize..5, users in 1_usize..20, items in 1_usize..100, part in 0.0_f64..=1.0,
    ) {
        let exclude = ragged("exclude", &case.exclude, case.items().rows());
        let sorted: Vec<_> = (0..case.users().rows()).map(|user| case.sorted(user)).collect();
        let left = sorted.iter().map(Vec::len).min().unwrap_or(case.items().rows());
        if left == 0 {
            let row = sorted.iter().position(Vec::is_empty).unwrap();
            let error = ItemIndex::new(case.items()).unwrap().search(case.users(), 1, &exclude).unwrap_err();
            prop_assert_eq!(error, Error::TooFewItems { row, left: 0, k: 1 });
            return Ok(());
        }
        let k = ((left as f64 * part) as usize).max(1);
        let heads = || sorted.iter().flat_map(|row| &row[..k]);
        for (kernel, index) in case.indexes(Blocks { users, items }) {
            let found = in_threads(threads, || index.search(case.users(), k, &exclude).unwrap());
            let items: Vec<usize> = heads().map(|(_, item)| *item).collect();
            prop_assert_eq!(found.items.values(), items, "{}", kernel.name());
            let scores: Vec<f32> = heads().map(|(score, _)| *score).collect();
            prop_assert_eq!(bits(&found.scores), bits(&scores), "{}", kernel.name());
        }
    }
}

#[test]
fn items_of_ordinary_size_are_found_beside_the_largest() {
    let positive =
        |rows, dim, seed| random(rows, dim, seed).iter().map(|value| value.abs() + 0.1).collect::<Vec<f32>>();
    let mut items = positive(80, 64, 1);
    items[..15 * 64].iter_mut().for_each(|value| *value *= 1.5e37);
    let users: Vec<f32> = positive(4, 64, 2).iter().map(|value| value / 8.0).collect();
    let (users, items) = (Matrix::new(&users, 64), Matrix::new(&items, 64));
    let exclude = Ragged::from_rows(&vec![(25..80).collect::<Vec<usize>>(); 4]);
    for kernel in Kernel::supported() {
        let index = ItemIndex::from_prepared(items, Arc::new(Prepared::new(items, kernel).unwrap()));
        let found = index.search(users, 20, &exclude).unwrap();
        for user in 0..4 {
            let mut expected: Vec<(f32, usize)> =
                (0..25).map(|item| (-exact::dot(users.row(user), items.row(item)), item)).collect();
            expected.sort_by(|a, b| a.partial_cmp(b).unwrap());
            let expected: Vec<usize> = expected[..20].iter().map(|(_, item)| *item).collect();
            assert_eq!(found.items.row(user), expected, "{}", kernel.name());
        }
    }
}

#[test]
fn a_temperature_that_is_not_above_zero_is_refused() {
    let index = ItemIndex::new(Matrix::new(&ITEMS, 2)).unwrap();
    let targets = Ragged::from_rows(&[vec![0], vec![1]]);
    for temperature in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-201] {
        let error = index.score_targets(Matrix::new(&USERS, 2), &targets, &Ragged::empty(2), temperature).unwrap_err();
        assert!(matches!(error, Error::Parameter { name: "temperature", .. }), "{error}");
    }
    for temperature in [1e-200, f64::MAX] {
        let found = index.score_targets(Matrix::new(&USERS, 2), &targets, &Ragged::empty(2), temperature).unwrap();
        let expected = if temperature < 1.0 { -2_f64.ln() } else { -3_f64.ln() };
        assert!(found.log_probs.iter().all(|log_prob| (log_prob - expected).abs() < 1e-8), "{found:?}");
    }
}

/// Many items tie and more nearly tie, so candidates must be scored before the last item. There are enough users for
/// items to be rounded even without a copy of them.
#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn search_settles_ties_of_many_items_on_any_number_of_threads() {
    const DIM: usize = 64;
    let mut items = random(5000, DIM, 1);
    let best = random(1, DIM, 2);
    for (number, item) in items.chunks_mut(DIM).enumerate().filter(|(number, _)| number % 16 == 9) {
        item.copy_from_slice(&best);
        item[0] += (number % 3) as f32 * f32::EPSILON; // three groups of equal items that nearly tie
    }
    let users: Vec<f32> = random(300, DIM, 3).iter().zip(best.iter().cycle()).map(|(u, b)| u / 8.0 + b).collect();
    let case = Case { dim: DIM, users, items, targets: Vec::new(), exclude: vec![vec![9]; 300] };
    let excluded = ragged("exclude", &case.exclude, 5000);
    for k in [1, 3, 200, 700] {
        let expected: Vec<Vec<(f32, usize)>> = (0..300).map(|user| case.sorted(user)[..k].to_vec()).collect();
        for threads in [1, 4] {
            for (kernel, index) in case.indexes(Blocks { users: 1200, items: 512 }) {
                let found = in_threads(threads, || index.search(case.users(), k, &excluded)).unwrap();
                for (user, expected) in expected.iter().enumerate() {
                    let scores = found.scores[found.items.span(user)].iter().copied();
                    let row: Vec<(f32, usize)> = scores.zip(found.items.row(user).iter().copied()).collect();
                    assert_eq!(&row, expected, "{} {threads} threads, k {k}, user {user}", kernel.name());
                }
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn vectors_too_long_for_products_of_bytes_are_scored_exactly() {
    const DIM: usize = 65_537;
    let (users, items) = (random(130, DIM, 1), random(5, DIM, 2));
    let case = Case { dim: DIM, users, items, targets: Vec::new(), exclude: vec![Vec::new(); 130] };
    for (kernel, index) in case.indexes(Blocks { users: 1200, items: 512 }) {
        // k = 5 scores all items, and k = 1 sifts them.
        for k in [5, 1] {
            let found = index.search(case.users(), k, &Ragged::empty(130)).unwrap();
            for user in [0, 129] {
                let expected: Vec<usize> = case.sorted(user)[..k].iter().map(|(_, item)| *item).collect();
                assert_eq!(found.items.row(user), expected, "{}", kernel.name());
            }
        }
    }
}
