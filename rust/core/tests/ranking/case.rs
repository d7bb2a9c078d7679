//! Problems to rank, and their solution by definition.

use std::sync::Arc;

use langptune_core::{Blocks, ItemIndex, Kernel, Matrix, Prepared, Ragged, Ties, exact};
use proptest::prelude::*;

#[derive(Debug, Clone)]
pub struct Case {
    pub dim: usize,
    pub users: Vec<f32>,
    pub items: Vec<f32>,
    pub targets: Vec<Vec<i64>>,
    pub exclude: Vec<Vec<i64>>,
}

impl Case {
    pub fn users(&self) -> Matrix<'_> {
        Matrix::new(&self.users, self.dim)
    }

    pub fn items(&self) -> Matrix<'_> {
        Matrix::new(&self.items, self.dim)
    }

    /// An index with and one without a copy of the items, for each kernel of this CPU.
    pub fn indexes(&self, blocks: Blocks) -> impl Iterator<Item = (Kernel, ItemIndex<'_>)> {
        Kernel::supported().into_iter().flat_map(move |kernel| {
            [Prepared::new, Prepared::without_copy].map(|prepare| {
                let prepared = Arc::new(prepare(self.items(), kernel).unwrap());
                (kernel, ItemIndex::from_prepared(self.items(), prepared).with_blocks(blocks))
            })
        })
    }

    /// The catalog cut into shards at these places. Neighbouring shards have different kernels where the CPU has
    /// several.
    pub fn shards(&self, cuts: &[usize], first_kernel: usize) -> Vec<ItemIndex<'_>> {
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
    pub fn sorted(&self, user: usize) -> Vec<(f32, usize)> {
        let left = (0..self.items().rows()).filter(|item| !self.exclude[user].contains(&(*item as i64)));
        let mut scored: Vec<_> = left.map(|item| (self.score(user, item), item)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scored
    }

    pub fn rank_of(&self, user: usize, target: usize, ties: Ties) -> f64 {
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

    /// `ln softmax(score / temperature)` of a target among the items left, in f64, and the largest of
    /// `|score / temperature|`.
    pub fn log_prob_of(&self, user: usize, target: usize, temperature: f64) -> (f64, f64) {
        let logits: Vec<f64> = self.sorted(user).iter().map(|(score, _)| f64::from(*score) / temperature).collect();
        let sum: f64 = logits.iter().map(|logit| (logit - logits[0]).exp()).sum();
        let own = f64::from(self.score(user, target)) / temperature;
        (own - logits[0] - sum.ln(), logits.iter().fold(0.0, |largest, logit| logit.abs().max(largest)))
    }
}

pub fn ragged(name: &'static str, rows: &[Vec<i64>], num_items: usize) -> Ragged {
    let mut offsets = vec![0];
    rows.iter().for_each(|row| offsets.push(offsets.last().unwrap() + row.len() as i64));
    Ragged::new(name, &offsets, &rows.concat(), 0..num_items).unwrap()
}

/// Items like [`embeddings`]. One kind of problem mixes items of ordinary size with nearly the largest items: f32 just
/// holds their scores with users of norm 1 or less.
fn items(dim: usize, num_items: usize, kind: u8) -> BoxedStrategy<Vec<f32>> {
    if kind != LARGEST {
        return embeddings(dim * num_items, dim, kind);
    }
    let row = (proptest::collection::vec(0.0_f32..1.0, dim), prop_oneof![Just(1.0_f32), Just(1e35), Just(1.6e38)]);
    let row = row.prop_map(move |(row, size)| row.iter().map(|value| value / dim as f32 * size).collect::<Vec<f32>>());
    proptest::collection::vec(row, num_items).prop_map(|rows| rows.concat()).boxed()
}

const LARGEST: u8 = 4;

/// One of five kinds of values: small whole numbers, so that many scores tie; any numbers; numbers that span the range
/// of f32; rows of norm 1 or less; numbers so close that rounding hides their differences.
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

// Miri takes a thousand times longer, so there are fewer and smaller cases.
pub const NUM_CASES: u32 = if cfg!(miri) { 2 } else { 200 };
const MAX_USERS: usize = if cfg!(miri) { 4 } else { 20 };
const MAX_ITEMS: usize = if cfg!(miri) { 70 } else { 200 };

prop_compose! {
    /// For each user an item is a target, excluded, or neither. Between few and most items are excluded.
    pub fn case()(
        dim in 1_usize..40,
        num_users in 0..MAX_USERS,
        num_items in 1..MAX_ITEMS,
        kind in 0_u8..5,
        last_excluded in 1_u8..5,
    )(
        dim in Just(dim),
        users in embeddings(dim * num_users, dim, kind),
        items in items(dim, num_items, kind),
        roles in proptest::collection::vec(proptest::collection::vec(0_u8..6, num_items), num_users),
        last_excluded in Just(last_excluded),
    ) -> Case {
        let items_with = |wanted: std::ops::RangeInclusive<u8>| -> Vec<Vec<i64>> {
            let row = |roles: &Vec<u8>| {
                (0_i64..).zip(roles).filter(|(_, role)| wanted.contains(role)).map(|(item, _)| item).collect()
            };
            roles.iter().map(row).collect()
        };
        let mut exclude = items_with(1..=last_excluded);
        exclude.iter_mut().for_each(|row| row.extend(row.clone().iter().rev())); // listed twice, in no order
        Case { dim, users, items, targets: items_with(0..=0), exclude }
    }
}

pub fn in_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

pub fn bits(scores: &[f32]) -> Vec<u32> {
    scores.iter().map(|score| score.to_bits()).collect()
}

/// Rows of pseudo-random values in [-1, 1).
pub fn random(rows: usize, dim: usize, mut state: u32) -> Vec<f32> {
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..rows * dim).map(|_| next()).collect()
}

pub const ITEMS: [f32; 6] = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0];
pub const USERS: [f32; 4] = [1.0, 0.0, 0.0, 1.0];
