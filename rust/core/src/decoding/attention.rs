//! Attention of new tokens to the segments of a cache.
//!
//! A task takes the queries of a few neighbouring tokens for one head of keys and values. All their scores are in memory
//! at once: text by text the tokens of one segment after the other, without gaps, so that a text's sums have one order
//! whatever its tokens share with other texts.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::elementwise::exp_below_zero;
use super::output::Output;
use super::segments::{Attention, Element, NewTokens, View, padded, rotate};
use crate::Kernel;
use crate::simd::{LANES, Lanes, Vector, Work};

/// Queries of a task, unless one token has more.
const QUERIES: usize = 24;

/// New tokens, what is computed of them, and the cache that holds them.
pub(super) struct Queries<'a, E> {
    pub(super) new: NewTokens<'a>,
    pub(super) attention: Attention<'a>,
    pub(super) view: View<'a, E>,
}

/// Writes the attention of the tokens to `out`, row-major (tokens, heads x head_dim).
pub(super) fn attend<E: Loads>(queries: Queries<E>, out: &mut [f32], kernel: Kernel) {
    let tiles = queries.tiles();
    let num_kv_heads = queries.view.shape.num_kv_heads;
    let out = Output::new(out);
    (0..tiles.len() * num_kv_heads).into_par_iter().for_each(|task| {
        let (tile, head) = (tiles[task / num_kv_heads].clone(), task % num_kv_heads);
        SCRATCH.with_borrow_mut(|scratch| kernel.compute(Task { queries: &queries, tile, head, scratch, out }));
    });
}

/// A number that is loaded into vectors.
pub(super) trait Loads: Element {
    fn load<V: Vector>(lanes: &[Self; LANES]) -> V;
}

impl Loads for f32 {
    #[inline(always)]
    fn load<V: Vector>(lanes: &[Self; LANES]) -> V {
        V::load(lanes)
    }
}

impl Loads for u16 {
    #[inline(always)]
    fn load<V: Vector>(lanes: &[Self; LANES]) -> V {
        V::widen(lanes)
    }
}

impl<E> Queries<'_, E> {
    /// Ranges of `attention.tokens` that share all segments above their own.
    fn tiles(&self) -> Vec<Range<usize>> {
        let shape = self.view.shape;
        let most = (QUERIES / (shape.num_heads / shape.num_kv_heads)).max(1);
        let segment = |at: usize| self.new.segments[self.attention.tokens[at]];
        let parent = |at: usize| self.view.segments[segment(at)].parent;
        let mut tiles: Vec<Range<usize>> = Vec::new();
        for at in 0..self.attention.tokens.len() {
            match tiles.last_mut() {
                Some(tile)
                    if tile.len() < most
                        && (segment(at) == segment(tile.start)
                            || parent(at).is_some() && parent(at) == parent(tile.start)) =>
                {
                    tile.end = at + 1;
                }
                _ => tiles.push(at..at + 1),
            }
        }
        tiles
    }

    /// The tokens of its segment that a token of `attention.tokens` sees, itself included.
    fn num_own(&self, at: usize) -> usize {
        let token = self.attention.tokens[at];
        let segment = self.new.segments[token];
        let first = self.new.segments.partition_point(|other| *other < segment);
        self.view.lengths[segment] + token - first + 1
    }
}

#[derive(Default)]
struct Scratch {
    /// (tokens,), how many of its own segment each one sees.
    num_own: Vec<usize>,
    /// (queries, padded head_dim), scaled.
    queries: Vec<f32>,
    /// (queries, tokens seen), and room for a whole vector behind each row's last.
    scores: Vec<f32>,
    /// (queries, padded head_dim).
    sums: Vec<Lanes>,
}

thread_local! {
    /// Kept for the next task of this thread.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

struct Task<'a, E> {
    queries: &'a Queries<'a, E>,
    tile: Range<usize>,
    head: usize,
    scratch: &'a mut Scratch,
    out: Output<'a>,
}

impl<E: Loads> Work for Task<'_, E> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let Task { queries: all, tile, head, scratch, out } = self;
        let Queries { new, attention, view } = all;
        let shape = view.shape;
        let (group, dim) = (shape.num_heads / shape.num_kv_heads, padded(shape.head_dim));
        let num_queries = tile.len() * group;

        let segment_of = |at: usize| new.segments[attention.tokens[at]];
        let mut above = Vec::new();
        let mut next = view.segments[segment_of(tile.start)].parent;
        while let Some(segment) = next {
            above.push(segment);
            next = view.segments[segment].parent;
        }
        above.reverse();
        let num_above: usize = above.iter().map(|segment| view.lengths[*segment]).sum();
        scratch.num_own.clear();
        scratch.num_own.extend(tile.clone().map(|at| all.num_own(at)));
        let most_own = scratch.num_own.iter().copied().max().expect("a tile has tokens");
        let stride = (num_above + most_own).next_multiple_of(LANES) + LANES;

        scratch.queries.clear();
        scratch.queries.resize(num_queries * dim, 0.0);
        let mut rows = scratch.queries.chunks_mut(dim);
        for at in tile.clone() {
            let token = attention.tokens[at];
            for of_group in 0..group {
                let query = &mut rows.next().expect("a row for each query")[..shape.head_dim];
                let first = (head * group + of_group) * shape.head_dim;
                query.copy_from_slice(&new.rows.row(token)[first..][..shape.head_dim]);
                rotate(query, new.norms.map(|norms| (norms.queries, norms.epsilon)), new, token);
                for value in query {
                    *value *= attention.scale;
                }
            }
        }
        if scratch.scores.len() < num_queries * stride {
            scratch.scores.resize(num_queries * stride, 0.0);
        }
        let mut start = 0;
        for segment in &above {
            let (keys, _) = view.head(*segment, head);
            let length = view.lengths[*segment];
            let keys = &keys[..length.div_ceil(LANES) * dim];
            scores::<V, E>(&scratch.queries, 0..num_queries, keys, dim, &mut scratch.scores, stride, start);
            start += length;
        }
        // Runs of tokens of one segment, and how many tokens of it the last one of the run sees.
        let mut runs: Vec<(usize, Range<usize>, usize)> = Vec::new();
        for (row, at) in tile.clone().enumerate() {
            let (segment, queries, num_own) = (segment_of(at), row * group..(row + 1) * group, scratch.num_own[row]);
            match runs.last_mut() {
                Some((last, run, most)) if *last == segment => (run.end, *most) = (queries.end, num_own),
                _ => runs.push((segment, queries, num_own)),
            }
        }
        for (segment, run, num_own) in &runs {
            let (keys, _) = view.head(*segment, head);
            let keys = &keys[..num_own.div_ceil(LANES) * dim];
            scores::<V, E>(&scratch.queries, run.clone(), keys, dim, &mut scratch.scores, stride, num_above);
        }

        scratch.sums.clear();
        scratch.sums.resize(num_queries * dim / LANES, [0.0; LANES]);
        let mut totals = [0.0; QUERIES];
        let mut many = Vec::new();
        let totals = if num_queries <= QUERIES {
            &mut totals[..num_queries]
        } else {
            many.resize(num_queries, 0.0);
            &mut many[..]
        };
        for (query, total) in totals.iter_mut().enumerate() {
            let num_seen = num_above + scratch.num_own[query / group];
            *total = softmax(&mut scratch.scores[query * stride..][..stride], num_seen);
        }
        let mut start = 0;
        for segment in &above {
            let (_, values) = view.head(*segment, head);
            let values = &values[..view.lengths[*segment] * dim / LANES];
            add_values::<V, E>(&scratch.scores, 0..num_queries, stride, start, values, dim, &mut scratch.sums);
            start += view.lengths[*segment];
        }
        for (segment, run, num_own) in &runs {
            let (_, values) = view.head(*segment, head);
            let values = &values[..num_own * dim / LANES];
            add_values::<V, E>(&scratch.scores, run.clone(), stride, num_above, values, dim, &mut scratch.sums);
        }
        let sums = scratch.sums.as_flattened_mut();
        for (query, (sums, total)) in sums.chunks_mut(dim).zip(totals).enumerate() {
            for sum in &mut *sums {
                *sum /= *total;
            }
            let (at, of_group) = (tile.start + query / group, query % group);
            let place = (at * shape.num_heads + head * group + of_group) * shape.head_dim;
            // SAFETY: only this task has this head of this token.
            unsafe { out.write(place, &sums[..shape.head_dim]) };
        }
    }
}

/// Writes the products of some queries with keys to their rows of `out` from `start` on, in whole blocks.
#[inline(always)]
fn scores<V: Vector, E: Loads>(
    queries: &[f32],
    range: Range<usize>,
    keys: &[[E; LANES]],
    dim: usize,
    out: &mut [f32],
    stride: usize,
    start: usize,
) {
    let mut first = range.start;
    while first < range.end {
        let left = range.end - first;
        let queries = &queries[first * dim..];
        let out = &mut out[first * stride + start..];
        first += match (V::REGISTERS, left) {
            (32, 12..) => scores_of::<V, E, 12, 2>(queries, keys, dim, out, stride),
            (32, 6..) => scores_of::<V, E, 6, 4>(queries, keys, dim, out, stride),
            (32, 3..) => scores_of::<V, E, 3, 4>(queries, keys, dim, out, stride),
            (32, _) => scores_of::<V, E, 1, 4>(queries, keys, dim, out, stride),
            (_, 3..) => scores_of::<V, E, 3, 1>(queries, keys, dim, out, stride),
            _ => scores_of::<V, E, 1, 2>(queries, keys, dim, out, stride),
        };
    }
}

/// The products of `Q` queries, `B` blocks of keys at a time. Returns `Q`.
#[inline(always)]
fn scores_of<V: Vector, E: Loads, const Q: usize, const B: usize>(
    queries: &[f32],
    keys: &[[E; LANES]],
    dim: usize,
    out: &mut [f32],
    stride: usize,
) -> usize {
    let num_blocks = keys.len() / dim;
    let mut block = 0;
    while block + B <= num_blocks {
        blocks::<V, E, Q, B>(queries, &keys[block * dim..], dim, &mut out[block * LANES..], stride);
        block += B;
    }
    while block < num_blocks {
        blocks::<V, E, Q, 1>(queries, &keys[block * dim..], dim, &mut out[block * LANES..], stride);
        block += 1;
    }
    Q
}

#[inline(always)]
fn blocks<V: Vector, E: Loads, const Q: usize, const B: usize>(
    queries: &[f32],
    keys: &[[E; LANES]],
    dim: usize,
    out: &mut [f32],
    stride: usize,
) {
    let mut sums = [[V::splat(0.0); B]; Q];
    // All slices are cut to one length, so that the loop needs no bounds checks.
    let mut rows: [&[f32]; Q] = [&[]; Q];
    for q in 0..Q {
        rows[q] = &queries[q * dim..][..dim];
    }
    let mut lines: [&[[E; LANES]]; B] = [&[]; B];
    for b in 0..B {
        lines[b] = &keys[b * dim..][..dim];
    }
    for at in 0..dim {
        let mut keys = [V::splat(0.0); B];
        for b in 0..B {
            keys[b] = E::load(&lines[b][at]);
        }
        for q in 0..Q {
            let value = V::splat(rows[q][at]);
            for b in 0..B {
                sums[q][b] = sums[q][b].add_product(value, keys[b]);
            }
        }
    }
    for q in 0..Q {
        for b in 0..B {
            let lanes = &mut out[q * stride + b * LANES..][..LANES];
            sums[q][b].store(lanes.first_chunk_mut().expect("16 numbers"));
        }
    }
}

/// Turns the first `num_seen` scores into their exponentials, less the largest score, and the others into 0. Returns
/// the sum of the exponentials.
#[inline(always)]
fn softmax(scores: &mut [f32], num_seen: usize) -> f32 {
    // The last block is filled up with scores whose exponentials are too small to change the sum.
    scores[num_seen..num_seen.next_multiple_of(LANES)].fill(f32::NEG_INFINITY);
    let (blocks, _) = scores[..num_seen.next_multiple_of(LANES)].as_chunks_mut::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for block in &*blocks {
        for lane in 0..LANES {
            most[lane] = if block[lane] > most[lane] { block[lane] } else { most[lane] };
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            most[lane] = if most[lane + width] > most[lane] { most[lane + width] } else { most[lane] };
        }
        width /= 2;
    }
    let mut sums = [0.0; LANES];
    for block in blocks {
        for lane in 0..LANES {
            block[lane] = exp_below_zero(block[lane] - most[0]);
            sums[lane] += block[lane];
        }
    }
    scores[num_seen..].fill(0.0);
    let mut total = 0.0;
    for sum in sums {
        total += sum;
    }
    total
}

/// Adds the values, weighed by the rows of `weights` from `start` on, to the sums of some queries.
#[inline(always)]
fn add_values<V: Vector, E: Loads>(
    weights: &[f32],
    range: Range<usize>,
    stride: usize,
    start: usize,
    values: &[[E; LANES]],
    dim: usize,
    sums: &mut [Lanes],
) {
    let num_lines = dim / LANES;
    let mut first = range.start;
    while first < range.end {
        let left = range.end - first;
        let weights = &weights[first * stride + start..];
        let sums = &mut sums[first * num_lines..];
        first += match (V::REGISTERS, left) {
            (32, 12..) => add_values_of::<V, E, 12, 2>(weights, stride, values, num_lines, sums),
            (32, 6..) => add_values_of::<V, E, 6, 4>(weights, stride, values, num_lines, sums),
            (32, 3..) => add_values_of::<V, E, 3, 4>(weights, stride, values, num_lines, sums),
            (32, _) => add_values_of::<V, E, 1, 4>(weights, stride, values, num_lines, sums),
            (_, 3..) => add_values_of::<V, E, 3, 1>(weights, stride, values, num_lines, sums),
            _ => add_values_of::<V, E, 1, 2>(weights, stride, values, num_lines, sums),
        };
    }
}

/// The values for `Q` queries, `D` vectors of dimensions at a time. Returns `Q`.
#[inline(always)]
fn add_values_of<V: Vector, E: Loads, const Q: usize, const D: usize>(
    weights: &[f32],
    stride: usize,
    values: &[[E; LANES]],
    num_lines: usize,
    sums: &mut [Lanes],
) -> usize {
    let mut line = 0;
    while line + D <= num_lines {
        dimensions::<V, E, Q, D>(weights, stride, values, num_lines, line, sums);
        line += D;
    }
    while line < num_lines {
        dimensions::<V, E, Q, 1>(weights, stride, values, num_lines, line, sums);
        line += 1;
    }
    Q
}

#[inline(always)]
fn dimensions<V: Vector, E: Loads, const Q: usize, const D: usize>(
    weights: &[f32],
    stride: usize,
    values: &[[E; LANES]],
    num_lines: usize,
    line: usize,
    sums: &mut [Lanes],
) {
    let mut registers = [[V::splat(0.0); D]; Q];
    for q in 0..Q {
        for d in 0..D {
            registers[q][d] = V::load(&sums[q * num_lines + line + d]);
        }
    }
    let num_tokens = values.len() / num_lines;
    let mut rows: [&[f32]; Q] = [&[]; Q];
    for q in 0..Q {
        rows[q] = &weights[q * stride..][..num_tokens];
    }
    for (token, lines) in values.chunks_exact(num_lines).enumerate() {
        let lines: &[[E; LANES]; D] = lines[line..].first_chunk().expect("the caller's lines");
        let mut values = [V::splat(0.0); D];
        for d in 0..D {
            values[d] = E::load(&lines[d]);
        }
        for q in 0..Q {
            let weight = V::splat(rows[q][token]);
            for d in 0..D {
                registers[q][d] = registers[q][d].add_product(weight, values[d]);
            }
        }
    }
    for q in 0..Q {
        for d in 0..D {
            registers[q][d].store(&mut sums[q * num_lines + line + d]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cache::KvCache;
    use super::super::segments::{Norms, Shape};
    use super::*;
    use crate::Matrix;
    use crate::random::Random;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut random = Random::new(seed, 0);
        (0..count).map(|_| random.below(20_001) as f32 / 5_000.0 - 2.0).collect()
    }

    /// One text: its tokens' queries, keys and values before rotation, and the angles of its positions.
    #[derive(Clone)]
    struct Text {
        rows: Vec<f32>,
        cosines: Vec<f32>,
        sines: Vec<f32>,
    }

    const ROTATED: usize = 6;

    fn text(shape: Shape, num_tokens: usize, seed: u64) -> Text {
        let width = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim;
        let angles: Vec<f32> = (0..num_tokens)
            .flat_map(|position| {
                (0..ROTATED).map(move |at| position as f32 * 0.3_f32.powi((at % (ROTATED / 2)) as i32))
            })
            .collect();
        Text {
            rows: numbers(num_tokens * width, seed),
            cosines: angles.iter().map(|angle| angle.cos()).collect(),
            sines: angles.iter().map(|angle| angle.sin()).collect(),
        }
    }

    /// Causal attention of all tokens of a text, by its definition in float64: (tokens, heads x head_dim).
    fn by_definition(shape: Shape, text: &Text, norms: Option<Norms>, scale: f32) -> Vec<f64> {
        let Shape { num_heads, num_kv_heads, head_dim } = shape;
        let width = (num_heads + 2 * num_kv_heads) * head_dim;
        let num_tokens = text.rows.len() / width;
        let vector = |token: usize, place: usize, weights: Option<&[f32]>| {
            let mut vector: Vec<f64> =
                text.rows[token * width + place * head_dim..][..head_dim].iter().copied().map(f64::from).collect();
            if let Some(weights) = weights {
                let mean = vector.iter().map(|value| value * value).sum::<f64>() / head_dim as f64;
                let epsilon = f64::from(norms.unwrap().epsilon);
                for (value, weight) in vector.iter_mut().zip(weights) {
                    *value *= f64::from(*weight) / (mean + epsilon).sqrt();
                }
            }
            vector
        };
        let rotated = |token: usize, vector: Vec<f64>| {
            let mut out = vector.clone();
            for at in 0..ROTATED {
                let half = ROTATED / 2;
                let other = if at < half { -vector[at + half] } else { vector[at - half] };
                let [cosine, sine] = [&text.cosines, &text.sines].map(|x| f64::from(x[token * ROTATED + at]));
                out[at] = vector[at] * cosine + other * sine;
            }
            out
        };
        let mut out = Vec::new();
        for token in 0..num_tokens {
            for head in 0..num_heads {
                let kv_head = head / (num_heads / num_kv_heads);
                let query = rotated(token, vector(token, head, norms.map(|norms| norms.queries)));
                let scores: Vec<f64> = (0..=token)
                    .map(|seen| {
                        let key = vector(seen, num_heads + kv_head, norms.map(|norms| norms.keys));
                        rotated(seen, key).iter().zip(&query).map(|(a, b)| a * b).sum::<f64>() * f64::from(scale)
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = weights.iter().sum();
                let mut sums = vec![0.0; head_dim];
                for (seen, weight) in weights.iter().enumerate() {
                    let value = vector(seen, num_heads + num_kv_heads + kv_head, None);
                    for (sum, value) in sums.iter_mut().zip(value) {
                        *sum += weight / total * value;
                    }
                }
                out.extend(sums);
            }
        }
        out
    }

    /// Texts that share a prefix, some of them a prompt too, read and written as the program does it.
    fn cached(shape: Shape, half: bool, norms: Option<Norms>, kernel: Kernel) {
        let width = (shape.num_heads + 2 * shape.num_kv_heads) * shape.head_dim;
        let scale = 0.4;
        let (num_prefix, prompts, samples, num_written) = (5, [3, 40, 17], 3, 4);
        let prefix = text(shape, num_prefix, 1);
        // Segment 0 is the prefix, then come the prompts, then the samples of each prompt.
        let mut segments = vec![(num_prefix, None)];
        segments.extend(prompts.map(|length| (length, Some(0))));
        segments.extend((0..prompts.len() * samples).map(|sample| (num_written, Some(1 + sample / samples))));
        let mut cache = KvCache::new(shape, 2, &segments, half);
        let mut wholes = Vec::new();
        for (prompt, length) in prompts.iter().enumerate() {
            for sample in 0..samples {
                let whole = text(shape, num_prefix + length + num_written, 100 + prompt as u64);
                let mut rows = whole.rows.clone();
                rows[..prefix.rows.len()].copy_from_slice(&prefix.rows);
                let own = (num_prefix + length) * width;
                let written = numbers(num_written * width, 1000 + (prompt * samples + sample) as u64);
                rows[own..].copy_from_slice(&written);
                wholes.push(Text { rows, ..whole });
            }
        }
        let expected: Vec<Vec<f64>> = wholes.iter().map(|text| by_definition(shape, text, norms, scale)).collect();
        // Each token to compute: its text, its position, its segment.
        let mut passes: Vec<Vec<(usize, usize, usize)>> = vec![(0..num_prefix).map(|at| (0, at, 0)).collect()];
        passes.push(
            prompts
                .iter()
                .enumerate()
                .flat_map(|(prompt, length)| {
                    (0..*length).map(move |at| (prompt * samples, num_prefix + at, 1 + prompt))
                })
                .collect(),
        );
        for step in 0..num_written {
            let unfinished = |text: &usize| step == 0 || text % 4 != 1;
            let rows = (0..wholes.len()).filter(unfinished);
            passes.push(
                rows.map(|text| (text, num_prefix + prompts[text / samples] + step, 1 + prompts.len() + text))
                    .collect(),
            );
        }
        let width_out = shape.num_heads * shape.head_dim;
        for (number, pass) in passes.iter().enumerate() {
            let part = |of: &dyn Fn(&Text) -> &Vec<f32>, width: usize| -> Vec<f32> {
                pass.iter().flat_map(|(text, at, _)| of(&wholes[*text])[at * width..][..width].to_vec()).collect()
            };
            let rows = part(&|text| &text.rows, width);
            let cosines = part(&|text| &text.cosines, ROTATED);
            let sines = part(&|text| &text.sines, ROTATED);
            let of_segments: Vec<usize> = pass.iter().map(|(_, _, segment)| *segment).collect();
            let new = NewTokens {
                rows: Matrix::new(&rows, width),
                segments: &of_segments,
                cosines: Matrix::new(&cosines, ROTATED),
                sines: Matrix::new(&sines, ROTATED),
                norms,
            };
            let all: Vec<usize> = (0..pass.len()).collect();
            let mut out = vec![f32::NAN; pass.len() * width_out];
            cache.attend(0, new, Attention { tokens: &all, scale }, &mut out, kernel);
            for (row, (text, at, _)) in out.chunks(width_out).zip(pass) {
                for (ours, expected) in row.iter().zip(&expected[*text][at * width_out..]) {
                    let error = (f64::from(*ours) - expected).abs();
                    assert!(error < if half { 0.1 } else { 1e-5 }, "{} {number} {text} {at} {error}", kernel.name());
                }
            }
            let last: Vec<usize> = all.iter().copied().filter(|at| at % 3 == 2).collect();
            let mut some = vec![f32::NAN; last.len() * width_out];
            cache.attend(1, new, Attention { tokens: &last, scale }, &mut some, kernel);
            for (row, at) in some.chunks(width_out).zip(&last) {
                assert_eq!(row, &out[at * width_out..][..width_out], "a token is the same without others beside it");
            }
        }
    }

    #[test]
    fn attention_is_that_of_the_definition() {
        for kernel in Kernel::supported() {
            for shape in [(6, 2, 8), (3, 3, 16), (4, 1, 80), (26, 1, 8)] {
                let (num_heads, num_kv_heads, head_dim) = shape;
                let shape = Shape { num_heads, num_kv_heads, head_dim };
                cached(shape, false, None, kernel);
                cached(shape, true, None, kernel);
                let weights = numbers(2 * head_dim, 77);
                let (queries, keys) = weights.split_at(head_dim);
                cached(shape, false, Some(Norms { queries, keys, epsilon: 1e-3 }), kernel);
            }
        }
    }

    #[test]
    #[should_panic(expected = "segment 0 is full")]
    fn a_full_segment_takes_no_more() {
        let shape = Shape { num_heads: 1, num_kv_heads: 1, head_dim: 2 };
        let mut cache = KvCache::new(shape, 1, &[(1, None)], false);
        let rows = numbers(12, 1);
        let new = NewTokens {
            rows: Matrix::new(&rows, 6),
            segments: &[0, 0],
            cosines: Matrix::new(&[1.0; 4], 2),
            sines: Matrix::new(&[0.0; 4], 2),
            norms: None,
        };
        cache.attend(0, new, Attention { tokens: &[], scale: 1.0 }, &mut [], Kernel::supported()[0]);
    }
}
