//! How many scores are computed exactly.

use std::sync::Arc;

use langptune_core::{ItemIndex, Kernel, Matrix, Prepared, Ragged, Ties};

use crate::case::{in_threads, ragged, random};

fn share_rescored(users: Matrix, items: Matrix, kernel: Kernel) -> f64 {
    let prepared = Arc::new(Prepared::new(items, kernel).unwrap());
    let index = ItemIndex::from_prepared(items, prepared.clone());
    let targets = vec![vec![3]; users.rows()];
    index.rank(users, &ragged("targets", &targets, items.rows()), &Ragged::empty(users.rows()), Ties::Index).unwrap();
    prepared.rescored_share()
}

#[test]
fn few_items_are_left_in_doubt_without_a_copy() {
    let (users, items) = (random(300, 64, 1), random(2000, 64, 2));
    let (users, items) = (Matrix::new(&users, 64), Matrix::new(&items, 64));
    let prepared = Arc::new(Prepared::without_copy(items, Kernel::supported()[0]).unwrap());
    let index = in_threads(1, || ItemIndex::from_prepared(items, prepared.clone()));
    let found = in_threads(1, || index.search(users, 10, &Ragged::empty(300)).unwrap());
    assert_eq!(found, ItemIndex::new(items).unwrap().search(users, 10, &Ragged::empty(300)).unwrap());
    assert!(prepared.rescored_share() < 0.5, "{}", prepared.rescored_share());
}

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn few_items_are_left_in_doubt_and_sifting_is_given_up_where_it_leaves_many() {
    let (users, items) = (random(40, 256, 1), random(4000, 256, 2));
    let alike: Vec<f32> = random(4000, 256, 3).iter().map(|value| 1.0 + value / 1e6).collect();
    let users = Matrix::new(&users, 256);
    for kernel in Kernel::supported() {
        let share = share_rescored(users, Matrix::new(&items, 256), kernel);
        let expected = if kernel.name() == "amx" { 1e-4..0.01 } else { 0.001..0.1 };
        assert!(expected.contains(&share), "{} {share}", kernel.name());
        assert!(share_rescored(users, Matrix::new(&alike, 256), kernel) > 0.9, "{}", kernel.name());
    }
}
