//! Keys and values of the tokens that texts attend to.
//!
//! The cache is a forest of segments, runs of tokens. A segment continues its parent: samples continue their prompt, and
//! prompts that begin alike continue what they share. So what texts share is stored once and, for all of its samples,
//! read once. A token attends to all segments above its own, and in its own up to itself.

use std::ops::Range;

use rayon::prelude::*;

use super::attention::{Queries, attend};
use super::segments::{Attention, Element, NewTokens, Segment, Shape, View, padded, rotate};
use crate::Kernel;
use crate::simd::LANES;

/// The cache of all layers.
pub struct KvCache {
    shape: Shape,
    segments: Vec<Segment>,
    layers: Vec<Layer>,
}

struct Layer {
    /// Tokens of each segment.
    lengths: Vec<usize>,
    values: Values,
}

/// See [`View`].
enum Values {
    Half(Vec<u16>),
    Single(Vec<f32>),
}

impl KvCache {
    /// An empty cache for segments of these capacities, each with the earlier segment that it continues.
    ///
    /// With `half` keys and values are rounded to bfloat16. Memory is taken from the system when it is first used.
    ///
    /// # Panics
    /// When a parent is not an earlier segment, or the shape has no heads.
    pub fn new(shape: Shape, num_layers: usize, segments: &[(usize, Option<usize>)], half: bool) -> Self {
        assert!(shape.head_dim > 0 && shape.num_kv_heads > 0 && shape.num_heads.is_multiple_of(shape.num_kv_heads));
        let mut start = 0;
        let mut placed = Vec::with_capacity(segments.len());
        for (number, (capacity, parent)) in segments.iter().enumerate() {
            assert!(parent.is_none_or(|parent| parent < number), "segment {number} continues a later one");
            placed.push(Segment { parent: *parent, capacity: *capacity, start });
            start += capacity.next_multiple_of(LANES);
        }
        let size = start * 2 * shape.num_kv_heads * padded(shape.head_dim);
        let layer = || Layer {
            lengths: vec![0; segments.len()],
            values: if half { Values::Half(vec![0; size]) } else { Values::Single(vec![0.0; size]) },
        };
        Self { shape, segments: placed, layers: (0..num_layers).map(|_| layer()).collect() }
    }

    /// Stores the keys and values of new tokens of a layer. Writes the attention of some of them to `out`, row-major
    /// (tokens, heads x head_dim).
    ///
    /// # Panics
    /// When sizes do not fit each other, when a segment is full, and when segments or tokens decrease.
    pub fn attend(&mut self, layer: usize, new: NewTokens, attention: Attention, out: &mut [f32], kernel: Kernel) {
        let shape = self.shape;
        assert_eq!((new.rows.dim(), new.rows.rows()), (shape.row(), new.segments.len()), "queries, keys and values");
        assert_eq!((new.cosines.rows(), new.sines.rows()), (new.segments.len(), new.segments.len()), "angles");
        assert_eq!(new.cosines.dim(), new.sines.dim(), "angles");
        assert!(new.cosines.dim() <= shape.head_dim && new.cosines.dim().is_multiple_of(2), "rotated dimensions");
        assert!(new.segments.is_sorted(), "segments decrease");
        assert!(attention.tokens.is_sorted(), "tokens decrease");
        assert!(attention.tokens.last().is_none_or(|token| *token < new.segments.len()), "no such token");
        assert_eq!(out.len(), attention.tokens.len() * shape.num_heads * shape.head_dim, "output");
        if let Some(norms) = new.norms {
            assert_eq!((norms.queries.len(), norms.keys.len()), (shape.head_dim, shape.head_dim), "weights of norms");
        }
        let runs = runs(new.segments);
        let Layer { lengths, values } = &mut self.layers[layer];
        for (segment, run) in &runs {
            let segment_length = lengths[*segment] + run.len();
            assert!(segment_length <= self.segments[*segment].capacity, "segment {segment} is full");
        }
        match values {
            Values::Half(values) => {
                store(values, shape, &self.segments, lengths, &runs, new);
                let view = View { values: &*values, shape, segments: &self.segments, lengths };
                attend(Queries { new, attention, view }, out, kernel);
            }
            Values::Single(values) => {
                store(values, shape, &self.segments, lengths, &runs, new);
                let view = View { values: &*values, shape, segments: &self.segments, lengths };
                attend(Queries { new, attention, view }, out, kernel);
            }
        }
        for (segment, run) in runs {
            lengths[segment] += run.len();
        }
    }
}

/// The segments of new tokens, each with its tokens.
fn runs(segments: &[usize]) -> Vec<(usize, Range<usize>)> {
    let mut runs: Vec<(usize, Range<usize>)> = Vec::new();
    for (token, segment) in segments.iter().enumerate() {
        match runs.last_mut() {
            Some((last, run)) if last == segment => run.end = token + 1,
            _ => runs.push((*segment, token..token + 1)),
        }
    }
    runs
}

/// Stores keys and values of new tokens.
fn store<E: Element>(
    values: &mut [E],
    shape: Shape,
    segments: &[Segment],
    lengths: &[usize],
    runs: &[(usize, Range<usize>)],
    new: NewTokens,
) {
    let of_place = 2 * shape.num_kv_heads * padded(shape.head_dim);
    let mut parts = Vec::with_capacity(runs.len());
    let (mut rest, mut before) = (values, 0);
    for (segment, run) in runs {
        let Segment { capacity, start, .. } = segments[*segment];
        let places = capacity.next_multiple_of(LANES);
        let (part, after) = rest[(start - before) * of_place..].split_at_mut(places * of_place);
        (rest, before) = (after, start + places);
        parts.push((part, lengths[*segment], run.clone()));
    }
    let head_dim = shape.head_dim;
    parts.into_par_iter().with_min_len(8).for_each(|(part, length, run)| {
        let mut key = vec![0.0; head_dim];
        for (place, token) in (length..).zip(run) {
            for (head, part) in part.chunks_mut(part.len() / shape.num_kv_heads).enumerate() {
                let (keys, values) = part.split_at_mut(part.len() / 2);
                let row = new.rows.row(token);
                let [first_key, first_value] =
                    [shape.num_heads, shape.num_heads + shape.num_kv_heads].map(|first| (first + head) * head_dim);
                key.copy_from_slice(&row[first_key..][..head_dim]);
                rotate(&mut key, new.norms.map(|norms| (norms.keys, norms.epsilon)), &new, token);
                let dim = padded(head_dim);
                let (lines, _) = keys[place / LANES * LANES * dim..].as_chunks_mut::<LANES>();
                for (line, number) in lines.iter_mut().zip(&key) {
                    line[place % LANES] = E::of(*number);
                }
                for (number, value) in values[place * dim..].iter_mut().zip(&row[first_value..][..head_dim]) {
                    *number = E::of(*value);
                }
            }
        }
    });
}
