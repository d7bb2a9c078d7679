//! Ties, extreme values, bad input and interruption.

use std::sync::atomic::AtomicBool;

use langptune_core::{Error, Interrupt, ItemIndex, Kernel, Matrix, Prepared, Ragged, Ties};

use crate::case::{ITEMS, USERS, ragged};

fn rank(users: &[f32], dim: usize, targets: &[Vec<i64>], exclude: &[Vec<i64>]) -> Result<Vec<f64>, Error> {
    let index = ItemIndex::new(Matrix::new(&ITEMS, 2)).unwrap();
    let (targets, exclude) = (ragged("targets", targets, 3), ragged("exclude", exclude, 3));
    index.rank(Matrix::new(users, dim), &targets, &exclude, Ties::Index)
}

#[test]
fn duplicate_rows_rank_by_index() {
    // User 0 scores 1, 0, 1 and user 1 scores 0, 1, 1.
    assert_eq!(rank(&USERS, 2, &[vec![2], vec![2]], &[vec![], vec![]]).unwrap(), [2.0, 2.0]);
    assert_eq!(rank(&USERS, 2, &[vec![2], vec![2]], &[vec![0], vec![0]]).unwrap(), [1.0, 2.0]);
}

#[test]
fn bad_input_is_named_by_row() {
    let none = [vec![], vec![]];
    let ones = [vec![0], vec![1]];
    assert_eq!(rank(&[1.0; 6], 3, &ones, &none).unwrap_err(), Error::Dimensions { users: 3, items: 2 });
    assert_eq!(
        rank(&[0.0, 1.0, f32::NEG_INFINITY, 0.0], 2, &ones, &none).unwrap_err(),
        Error::NonFinite { name: "user_embeddings", row: 1, column: 0, value: f32::NEG_INFINITY }
    );
    assert_eq!(
        rank(&USERS, 2, &[vec![0], vec![2, 1, 2]], &none).unwrap_err(),
        Error::DuplicateTarget { row: 1, item: 2 }
    );
    assert_eq!(
        rank(&USERS, 2, &[vec![0], vec![1, 2]], &[vec![1, 2], vec![2, 0]]).unwrap_err(),
        Error::ExcludedTarget { row: 1, item: 2 }
    );
    assert_eq!(rank(&USERS, 2, &[vec![0]], &none).unwrap_err(), Error::Rows { name: "targets", rows: 1, users: 2 });
    assert_eq!(rank(&USERS, 2, &ones, &[vec![]]).unwrap_err(), Error::Rows { name: "exclude", rows: 1, users: 2 });
}

#[test]
fn scores_that_could_overflow_are_refused() {
    let large = [1e30_f32, 0.0, 1e30, 1e30];
    assert!(matches!(
        ItemIndex::new(Matrix::new(&large, 2)).unwrap().search(
            Matrix::new(&[0.0, 1.0, 1e9, 0.0], 2),
            1,
            &Ragged::empty(2)
        ),
        Err(Error::Overflow { row: 1, .. })
    ));
    let largest = ItemIndex::new(Matrix::new(&large, 2)).unwrap();
    let found = largest.search(Matrix::new(&[1e8, 0.0], 2), 2, &Ragged::empty(1)).unwrap();
    assert_eq!(found.items.values(), [0, 1]);
    assert!(found.scores.iter().all(|score| score.is_finite()));
}

#[test]
fn an_index_needs_items_with_finite_values() {
    assert!(matches!(ItemIndex::new(Matrix::new(&[], 2)), Err(Error::Empty { name: "item_embeddings", rows: 0, .. })));
    let items = [1.0, 2.0, f32::NAN, 1.0, f32::INFINITY, 5.0];
    for prepare in [Prepared::new, Prepared::without_copy] {
        let error = |dim| prepare(Matrix::new(&items, dim), Kernel::supported()[0]).err().unwrap();
        assert!(matches!(error(1), Error::NonFinite { row: 2, column: 0, .. }));
        assert!(matches!(error(3), Error::NonFinite { row: 0, column: 2, .. }));
        let other_nan = [1.0, f32::from_bits(0x7fc0_7fff)];
        for kernel in Kernel::supported() {
            let error = prepare(Matrix::new(&other_nan, 2), kernel).err().unwrap();
            assert!(matches!(error, Error::NonFinite { row: 0, column: 1, .. }), "{}", kernel.name());
        }
    }
}

#[test]
fn no_users_have_no_ranks_and_k_of_zero_is_refused() {
    let index = ItemIndex::new(Matrix::new(&ITEMS, 2)).unwrap();
    let nobody = Matrix::new(&[], 2);
    assert_eq!(index.rank(nobody, &Ragged::empty(0), &Ragged::empty(0), Ties::Mean).unwrap(), [] as [f64; 0]);
    assert_eq!(index.search(nobody, 1, &Ragged::empty(0)).unwrap().items, Ragged::empty(0));
    assert_eq!(index.search(nobody, 0, &Ragged::empty(0)).unwrap_err(), Error::ZeroK);
}

#[test]
fn work_ends_when_it_is_interrupted() {
    let interrupted = AtomicBool::new(true);
    let index = ItemIndex::new(Matrix::new(&ITEMS, 2)).unwrap().until(Interrupt::by(&interrupted));
    let users = Matrix::new(&USERS, 2);
    assert_eq!(index.search(users, 1, &Ragged::empty(2)).unwrap_err(), Error::Interrupted);
    let targets = ragged("targets", &[vec![0], vec![1]], 3);
    assert_eq!(index.rank(users, &targets, &Ragged::empty(2), Ties::Max).unwrap_err(), Error::Interrupted);
}
