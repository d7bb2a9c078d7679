//! Ranking and search against their definitions, for any kernel, threads and blocks.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use langptune_core::{Blocks, Error, Found, Interrupt, ItemIndex, Kernel, Matrix, Prepared, Ragged, Ties, exact};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Case {
    dim: usize,
    users: Vec<f32>,
    items: Vec<f32>,
    targets: Vec<Vec<i64>>,
    exclude: Vec<Vec<i64>>,
}

impl Case {
    fn users(&self) -> Matrix<'_> {
        Matrix::new(&self.users, self.dim)
    }

    fn items(&self) -> Matrix<'_> {
        Matrix::new(&self.items, self.dim)
    }

    /// With and without a copy of the items, for each kernel of this CPU.
    fn indexes(&self, blocks: Blocks) -> impl Iterator<Item = (Kernel, ItemIndex<'_>)> {
        Kernel::supported().into_iter().flat_map(move |kernel| {
            [Prepared::new, Prepared::without_copy].map(|prepare| {
                let prepared = Arc::new(prepare(self.items(), kernel).unwrap());
                (kernel, ItemIndex::from_prepared(self.items(), prepared).with_blocks(blocks))
            })
        })
    }

    /// The catalog cut at these places, each shard with another kernel than the one before where the CPU has several.
    fn shards(&self, cuts: &[usize], first_kernel: usize) -> Vec<ItemIndex<'_>> {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % self.items().rows()).collect();
        ends.extend([0, self.items().rows()]);
        ends.sort_unstable();
        ends.dedup();
        let kernels = Kernel::supported().into_iter().cycle().skip(first_kernel);
        let shard = |(span, kernel): (&[usize], Kernel)| {
            let items = self.items().slice(span[0], span[1]);
            ItemIndex::from_prepared(items, Arc::new(Prepared::new(items, kernel).unwrap())).starting_at(span[0])
        };
        ends.windows(2).zip(kernels).map(shard).collect()
    }

    fn score(&self, user: usize, item: usize) -> f32 {
        exact::dot(self.users().row(user), self.items().row(item))
    }

    /// The items left for a user, with their scores, by (-score, item index).
    fn sorted(&self, user: usize) -> Vec<(f32, usize)> {
        let left = (0..self.items().rows()).filter(|item| !self.exclude[user].contains(&(*item as i64)));
        let mut scored: Vec<_> = left.map(|item| (self.score(user, item), item)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scored
    }

    fn rank_of(&self, user: usize, target: usize, ties: Ties) -> f64 {
        let sorted = self.sorted(user);
        let score = self.score(user, target);
        let place = |holds: &dyn Fn(&(f32, usize)) -> bool| 1.0 + sorted.iter().position(holds).unwrap() as f64;
        let best = place(&|(other, _)| *other == score);
        let worst = sorted.iter().rposition(|(other, _)| *other == score).unwrap() as f64 + 1.0;
        match ties {
            Ties::Index => place(&|(_, item)| *item == target),
            Ties::Min => best,
            Ties::Max => worst,
            Ties::Mean => (best + worst) / 2.0,
        }
    }
}

fn ragged(name: &'static str, rows: &[Vec<i64>], num_items: usize) -> Ragged {
    let mut offsets = vec![0];
    rows.iter().for_each(|row| offsets.push(offsets.last().unwrap() + row.len() as i64));
    Ragged::new(name, &offsets, &rows.concat(), 0..num_items).unwrap()
}

/// Items as [`embeddings`], or for one kind of problem some of ordinary size and some of nearly the largest, whose scores
/// with users of norm 1 or less f32 just holds.
fn items(dim: usize, num_items: usize, kind: u8) -> BoxedStrategy<Vec<f32>> {
    if kind != LARGEST {
        return embeddings(dim * num_items, dim, kind);
    }
    let row = (proptest::collection::vec(0.0_f32..1.0, dim), prop_oneof![Just(1.0_f32), Just(1e35), Just(1.6e38)]);
    let row = row.prop_map(move |(row, size)| row.iter().map(|value| value / dim as f32 * size).collect::<Vec<f32>>());
    proptest::collection::vec(row, num_items).prop_map(|rows| rows.concat()).boxed()
}

const LARGEST: u8 = 4;

/// Small whole numbers, so that many scores tie; any numbers; numbers so close that rounding hides what differs; numbers
/// of all sizes that f32 has, beside each other; or rows of norm 1 or less.
fn embeddings(len: usize, dim: usize, kind: u8) -> BoxedStrategy<Vec<f32>> {
    match kind {
        0 => proptest::collection::vec((-1_i8..=1).prop_map(f32::from), len).boxed(),
        1 => proptest::collection::vec(-2.0_f32..2.0, len).boxed(),
        2 => {
            let sizes = [0.0, 1e-45_f32, 1e-39, 1e-30, 1e-19, 1.0, 1e17];
            let value = (0..sizes.len(), -2.0_f32..2.0).prop_map(move |(size, value)| sizes[size] * value);
            proptest::collection::vec(value, len).boxed()
        }
        LARGEST => proptest::collection::vec((0.0_f32..1.0).prop_map(move |value| value / dim as f32), len).boxed(),
        _ => proptest::collection::vec((0_u32..8).prop_map(|ulps| 1.0 + ulps as f32 * f32::EPSILON), len).boxed(),
    }
}

// Less of all under Miri, which takes a thousand times longer.
const NUM_CASES: u32 = if cfg!(miri) { 2 } else { 200 };
const MAX_USERS: usize = if cfg!(miri) { 4 } else { 20 };
const MAX_ITEMS: usize = if cfg!(miri) { 70 } else { 200 };

prop_compose! {
    /// Each item is a target, excluded, or neither, for each user; few are excluded or most.
    fn case()(
        dim in 1_usize..40, num_users in 0..MAX_USERS, num_items in 1..MAX_ITEMS, kind in 0_u8..5, last_excluded in 1_u8..5,
    )(
        dim in Just(dim),
        users in embeddings(dim * num_users, dim, kind),
        items in items(dim, num_items, kind),
        roles in proptest::collection::vec(proptest::collection::vec(0_u8..6, num_items), num_users),
        last_excluded in Just(last_excluded),
    ) -> Case {
        let with = |wanted: std::ops::RangeInclusive<u8>| -> Vec<Vec<i64>> {
            let of_user = |roles: &Vec<u8>| (0_i64..).zip(roles).filter(|(_, r)| wanted.contains(r)).map(|(item, _)| item).collect();
            roles.iter().map(of_user).collect()
        };
        let mut exclude = with(1..=last_excluded);
        exclude.iter_mut().for_each(|row| row.extend(row.clone().iter().rev())); // listed twice, in no order
        Case { dim, users, items, targets: with(0..=0), exclude }
    }
}

fn in_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

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
            prop_assert_eq!(found.items.values(), heads().map(|(_, item)| *item).collect::<Vec<_>>(), "{}", kernel.name());
            let scores: Vec<f32> = heads().map(|(score, _)| *score).collect();
            prop_assert_eq!(bits(&found.scores), bits(&scores), "{}", kernel.name());
        }
    }
}

/// The ranks from what each shard counts.
fn rank_over(shards: &[ItemIndex], users: Matrix, targets: &Ragged, exclude: &Ragged, ties: Ties) -> Vec<f64> {
    let mut scores = vec![f32::NAN; targets.values().len()];
    for shard in shards {
        let held = shard.score(users, targets).unwrap();
        scores.iter_mut().zip(held).for_each(|(score, held)| *score = score.max(held)); // NaN is no maximum
    }
    let mut ranks = vec![1.0; scores.len()];
    for shard in shards {
        let counts = shard.count_above(users, targets, &scores, exclude, ties).unwrap();
        ranks.iter_mut().zip(counts).for_each(|(rank, count)| *rank += count);
    }
    ranks
}

fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
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

const ITEMS: [f32; 6] = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
const USERS: [f32; 4] = [1.0, 0.0, 0.0, 1.0];

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
fn input_that_cannot_be_ranked_is_named_by_row() {
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
fn what_shards_give_must_fit_together() {
    let shard = || ItemIndex::new(Matrix::new(&ITEMS, 2)).unwrap().starting_at(10);
    let users = Matrix::new(&USERS, 2);
    let none = Ragged::empty(2);
    let targets = ragged("targets", &[vec![12], vec![10, 3]], 20);
    let scores = shard().score(users, &targets).unwrap();
    assert_eq!(scores[..2], [1.0, 0.0]);
    assert!(scores[2].is_nan());
    let count = |scores: &[f32]| shard().count_above(users, &targets, scores, &none, Ties::Index);
    assert_eq!(count(&[1.0, 0.0, 0.5]).unwrap(), [1.0, 2.0, 2.0]);
    // A target of this shard by another score than its own; -0 is 0.
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
fn an_index_needs_items_and_finite_ones() {
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

/// Rows of pseudo-random values in [-1, 1).
fn random(rows: usize, dim: usize, mut state: u32) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..rows * dim).map(|_| next()).collect()
}

fn share_rescored(users: Matrix, items: Matrix, kernel: Kernel) -> f64 {
    let prepared = Arc::new(Prepared::new(items, kernel).unwrap());
    let index = ItemIndex::from_prepared(items, prepared.clone());
    let targets = vec![vec![3]; users.rows()];
    index.rank(users, &ragged("targets", &targets, items.rows()), &Ragged::empty(users.rows()), Ties::Index).unwrap();
    prepared.rescored_share()
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

/// Many items tie and more nearly do, so that candidates must be scored before all items were seen; users are enough for
/// items to be rounded without a copy of them too.
#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn search_settles_ties_of_many_items_on_any_number_of_threads() {
    const DIM: usize = 64;
    let mut items = random(5000, DIM, 1);
    let best = random(1, DIM, 2);
    for (number, item) in items.chunks_mut(DIM).enumerate().filter(|(number, _)| number % 16 == 9) {
        item.copy_from_slice(&best);
        item[0] += (number % 3) as f32 * f32::EPSILON; // three groups of equals that nearly tie
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
fn a_shard_gives_all_it_has_for_any_k() {
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

#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn vectors_too_long_for_products_of_bytes_are_scored_exactly() {
    const DIM: usize = 65_537;
    let (users, items) = (random(130, DIM, 1), random(5, DIM, 2));
    let case = Case { dim: DIM, users, items, targets: Vec::new(), exclude: vec![Vec::new(); 130] };
    for (kernel, index) in case.indexes(Blocks { users: 1200, items: 512 }) {
        // All five are scored, and one is sifted for.
        for k in [5, 1] {
            let found = index.search(case.users(), k, &Ragged::empty(130)).unwrap();
            for user in [0, 129] {
                let expected: Vec<usize> = case.sorted(user)[..k].iter().map(|(_, item)| *item).collect();
                assert_eq!(found.items.row(user), expected, "{}", kernel.name());
            }
        }
    }
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
