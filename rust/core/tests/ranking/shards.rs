//! A catalog in shards gives the ranks and the items of one index.

use langptune_core::{Error, Found, ItemIndex, Kernel, Matrix, Ragged, Ties};
use proptest::prelude::*;

use crate::case::{Case, ITEMS, NUM_CASES, USERS, bits, case, ragged};

/// The ranks from the counts of each shard.
fn rank_over(shards: &[ItemIndex], users: Matrix, targets: &Ragged, exclude: &Ragged, ties: Ties) -> Vec<f64> {
    let mut scores = vec![f32::NAN; targets.values().len()];
    for shard in shards {
        let own = shard.score(users, targets).unwrap();
        scores.iter_mut().zip(own).for_each(|(score, own)| *score = score.max(own)); // a maximum ignores NaN
    }
    let mut ranks = vec![1.0; scores.len()];
    for shard in shards {
        let counts = shard.count_above(users, targets, &scores, exclude, ties).unwrap();
        ranks.iter_mut().zip(counts).for_each(|(rank, count)| *rank += count);
    }
    ranks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(NUM_CASES))]

    #[test]
    fn shards_give_the_bits_of_one_index(
        case in case(), cuts in proptest::collection::vec(0_usize..200, 0..6), part in 0.0_f64..=1.0,
    ) {
        let (users, num_items) = (case.users(), case.items().rows());
        let targets = ragged("targets", &case.targets, num_items);
        let exclude = ragged("exclude", &case.exclude, num_items);
        let whole = ItemIndex::new(case.items()).unwrap();
        let left = (0..users.rows()).map(|user| case.sorted(user).len()).min().unwrap_or(num_items);
        let k = ((left as f64 * part) as usize).max(1);
        for first_kernel in 0..Kernel::supported().len() {
            let shards = case.shards(&cuts, first_kernel);
            for ties in [Ties::Index, Ties::Min, Ties::Max, Ties::Mean] {
                let ranks = rank_over(&shards, users, &targets, &exclude, ties);
                prop_assert_eq!(ranks, whole.rank(users, &targets, &exclude, ties).unwrap(), "{:?}", ties);
            }
            let found: Vec<Found> = shards.iter().map(|shard| shard.candidates(users, k, &exclude).unwrap()).collect();
            match (Found::merged(&found, k), whole.search(users, k, &exclude)) {
                (Ok(merged), Ok(found)) => {
                    prop_assert_eq!(&merged.items, &found.items);
                    prop_assert_eq!(bits(&merged.scores), bits(&found.scores));
                }
                (merged, found) => prop_assert_eq!(merged, found),
            }
        }
    }
}

#[test]
fn scores_and_candidates_of_shards_must_be_consistent() {
    let shard = || ItemIndex::new(Matrix::new(&ITEMS, 2)).unwrap().starting_at(10);
    let users = Matrix::new(&USERS, 2);
    let none = Ragged::empty(2);
    let targets = ragged("targets", &[vec![12], vec![10, 3]], 20);
    let scores = shard().score(users, &targets).unwrap();
    assert_eq!(scores[..2], [1.0, 0.0]);
    assert!(scores[2].is_nan());
    let count = |scores: &[f32]| shard().count_above(users, &targets, scores, &none, Ties::Index);
    assert_eq!(count(&[1.0, 0.0, 0.5]).unwrap(), [1.0, 2.0, 2.0]);
    // A target of this shard must have its own score. -0 equals 0.
    for ties in [Ties::Index, Ties::Min, Ties::Max, Ties::Mean] {
        let counts = |scores: &[f32]| shard().count_above(users, &targets, scores, &none, ties);
        let error = Error::OtherScore { row: 1, item: 10, score: 100.0, own: 0.0 };
        assert_eq!(counts(&[1.0, 100.0, 100.0]).unwrap_err(), error);
        assert_eq!(counts(&[1.0, -0.0, 0.5]), counts(&[1.0, 0.0, 0.5]));
    }
    assert_eq!(count(&[1.0, 0.0]).unwrap_err(), Error::PerTarget { scores: 2, targets: 3 });
    assert!(matches!(count(&scores).unwrap_err(), Error::Unscored { row: 1, item: 3, .. }));
    assert!(matches!(
        shard().rank(users, &targets, &none, Ties::Min).unwrap_err(),
        Error::Unscored { row: 1, item: 3, .. }
    ));
    let found = shard().candidates(users, 7, &ragged("exclude", &[vec![3, 10], vec![]], 20)).unwrap();
    assert_eq!(found.items, ragged("found", &[vec![12, 11], vec![11, 12, 10]], 20));
    assert_eq!(
        Found::merged(std::slice::from_ref(&found), 3).unwrap_err(),
        Error::TooFewItems { row: 0, left: 2, k: 3 }
    );
    assert_eq!(Found::merged(&[found.clone(), found.clone()], 1).unwrap_err(), Error::FoundTwice { row: 0, item: 11 });
    let fewer = shard().candidates(Matrix::new(&USERS[..2], 2), 1, &Ragged::empty(1)).unwrap();
    assert_eq!(Found::merged(&[found, fewer], 1).unwrap_err(), Error::Rows { name: "found", rows: 1, users: 2 });
    assert_eq!(Found::merged(&[], 0).unwrap_err(), Error::ZeroK);
    for score in [f32::NAN, f32::INFINITY] {
        let scored = Found { items: Ragged::from_rows(&[vec![1], vec![2]]), scores: vec![0.5, score] };
        let error = Found::merged(&[scored], 1).unwrap_err();
        assert!(matches!(error, Error::NonFiniteScore { name: "scores", row: 1, .. }), "{error}");
    }
    let zeros = Found { items: Ragged::from_rows(&[vec![4, 7]]), scores: vec![-0.0, 0.0] };
    let merged = Found::merged(&[zeros], 2).unwrap();
    assert_eq!((merged.items.values(), bits(&merged.scores)), (&[4, 7][..], vec![0, 0]));
}

#[test]
fn a_shard_returns_all_its_items_for_a_large_k() {
    let case =
        Case { dim: 2, users: USERS.to_vec(), items: ITEMS.to_vec(), targets: vec![], exclude: vec![vec![1], vec![]] };
    let excluded = ragged("exclude", &case.exclude, 3);
    for k in [2, 3, 4, usize::MAX] {
        let found = ItemIndex::new(case.items()).unwrap().candidates(case.users(), k, &excluded).unwrap();
        for user in 0..2 {
            let expected: Vec<usize> = case.sorted(user).iter().map(|(_, item)| *item).take(k).collect();
            assert_eq!(found.items.row(user), expected);
        }
    }
}
