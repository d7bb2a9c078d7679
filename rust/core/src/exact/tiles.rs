//! Tiles and pairs of f32 dot products, generic over the registers of a CPU.

use super::accumulator::Accumulator;
use crate::Matrix;
use crate::simd::{LANES, Lanes};

/// Writes the scores of a block by tiles of `U` users x `I` items. What is left over is cut into narrower tiles.
#[inline(always)]
pub(super) fn score_tiles<A: Accumulator, const U: usize, const I: usize>(
    users: Matrix,
    items: Matrix,
    out: &mut [f32],
) {
    let num_items = items.rows();
    let whole_users = users.rows() - users.rows() % U;
    for first in (0..whole_users).step_by(U) {
        let rows = std::array::from_fn(|u| users.row(first + u));
        score_rows::<A, U, I>(rows, items, &mut out[first * num_items..]);
    }
    for user in whole_users..users.rows() {
        score_rows::<A, 1, I>([users.row(user)], items, &mut out[user * num_items..]);
    }
}

#[inline(always)]
fn score_rows<A: Accumulator, const U: usize, const I: usize>(users: [&[f32]; U], items: Matrix, out: &mut [f32]) {
    let num_items = items.rows();
    let whole_items = num_items - num_items % I;
    for first in (0..whole_items).step_by(I) {
        let scores = score_tile::<A, U, I>(users, std::array::from_fn(|i| items.row(first + i)));
        for (u, row) in scores.iter().enumerate() {
            out[u * num_items + first..][..I].copy_from_slice(row);
        }
    }
    for item in whole_items..num_items {
        let scores = score_tile::<A, U, 1>(users, [items.row(item)]);
        for (u, [score]) in scores.iter().enumerate() {
            out[u * num_items + item] = *score;
        }
    }
}

/// Scores `P` pairs at a time. Where all of them belong to one user, the user's vector is read once. A short last group
/// is filled up with copies of its last pair.
#[inline(always)]
pub(super) fn score_pairs<A: Accumulator, const P: usize>(
    users: Matrix,
    items: Matrix,
    pairs: &[(usize, usize)],
    out: &mut Vec<f32>,
) {
    out.clear();
    for group in pairs.chunks(P) {
        let pair = |at: usize| group[at.min(group.len() - 1)];
        let item_rows = std::array::from_fn(|at| items.row(pair(at).1));
        let scores = if group.iter().all(|(user, _)| *user == pair(0).0) {
            let [scores] = score_tile::<A, 1, P>([users.row(pair(0).0)], item_rows);
            scores
        } else {
            dots::<A, P>(std::array::from_fn(|at| users.row(pair(at).0)), item_rows)
        };
        out.extend_from_slice(&scores[..group.len()]);
    }
}

/// The scores of `P` pairs side by side. All vectors have the same length.
#[inline(always)]
fn dots<A: Accumulator, const P: usize>(users: [&[f32]; P], items: [&[f32]; P]) -> [f32; P] {
    let users = users.map(<[f32]>::as_chunks::<LANES>);
    let items = items.map(<[f32]>::as_chunks::<LANES>);
    let num_chunks = users[0].0.len();
    let user_chunks = users.map(|(chunks, _)| &chunks[..num_chunks]);
    let item_chunks = items.map(|(chunks, _)| &chunks[..num_chunks]);
    let mut sums = [A::load(&[0.0; LANES]); P];
    for chunk in 0..num_chunks {
        for p in 0..P {
            sums[p] = sums[p].add_product(A::load(&user_chunks[p][chunk]), A::load(&item_chunks[p][chunk]));
        }
    }
    if !users[0].1.is_empty() {
        for p in 0..P {
            sums[p] = sums[p].add_product(A::load(&padded(users[p].1)), A::load(&padded(items[p].1)));
        }
    }
    let mut scores = [0.0; P];
    for (score, sum) in scores.iter_mut().zip(&sums) {
        *score = sum.add_lanes();
    }
    scores
}

/// The scores of `U` users with `I` items. All vectors have the same length, and the accumulators of all pairs stay in
/// registers.
#[inline(always)]
pub(super) fn score_tile<A: Accumulator, const U: usize, const I: usize>(
    users: [&[f32]; U],
    items: [&[f32]; I],
) -> [[f32; I]; U] {
    let users = users.map(<[f32]>::as_chunks::<LANES>);
    let items = items.map(<[f32]>::as_chunks::<LANES>);
    let num_chunks = users[0].0.len();
    // All slices are cut to one length, so that the loop below needs no bounds checks.
    let user_chunks = users.map(|(chunks, _)| &chunks[..num_chunks]);
    let item_chunks = items.map(|(chunks, _)| &chunks[..num_chunks]);
    let mut sums = [[A::load(&[0.0; LANES]); I]; U];
    for chunk in 0..num_chunks {
        let user_lanes = user_chunks.map(|chunks| A::load(&chunks[chunk]));
        let item_lanes = item_chunks.map(|chunks| A::load(&chunks[chunk]));
        add_products(&mut sums, user_lanes, item_lanes);
    }
    if !users[0].1.is_empty() {
        // Products with the padding add +0. That changes no lane, because a lane is never -0.
        let user_lanes = users.map(|(_, rest)| A::load(&padded(rest)));
        let item_lanes = items.map(|(_, rest)| A::load(&padded(rest)));
        add_products(&mut sums, user_lanes, item_lanes);
    }
    // This is a loop because the closure of a `map` would be compiled without the instructions of `A`, and called.
    let mut scores = [[0.0; I]; U];
    for (scores, sums) in scores.iter_mut().zip(&sums) {
        for (score, sum) in scores.iter_mut().zip(sums) {
            *score = sum.add_lanes();
        }
    }
    scores
}

#[inline(always)]
fn add_products<A: Accumulator, const U: usize, const I: usize>(sums: &mut [[A; I]; U], users: [A; U], items: [A; I]) {
    for u in 0..U {
        for i in 0..I {
            sums[u][i] = sums[u][i].add_product(users[u], items[i]);
        }
    }
}

#[inline(always)]
fn padded(rest: &[f32]) -> Lanes {
    let mut lanes = [0.0; LANES];
    lanes[..rest.len()].copy_from_slice(rest);
    lanes
}
