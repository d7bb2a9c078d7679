//! What a layer's cache and its attention share: the heads, the new tokens, and where a segment's keys and values lie.

use crate::Matrix;
use crate::simd::{LANES, narrowed};

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Heads of queries, a multiple of `num_kv_heads`.
    pub num_heads: usize,
    /// Heads of keys and of values.
    pub num_kv_heads: usize,
    /// Numbers in a query, key or value.
    pub head_dim: usize,
}

impl Shape {
    pub(super) fn row(&self) -> usize {
        (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
    }
}

/// New tokens of a layer, the next ones of their segments.
#[derive(Debug, Clone, Copy)]
pub struct NewTokens<'a> {
    /// Queries, keys and values of each token: (tokens, (heads + 2 kv_heads) x head_dim), before rotation.
    pub rows: Matrix<'a>,
    /// The segment of each token. They never decrease.
    pub segments: &'a [usize],
    /// Cosines of the rotary angles, (tokens, rotated dimensions). Only the first dimensions of a head are rotated.
    pub cosines: Matrix<'a>,
    /// Sines of the rotary angles.
    pub sines: Matrix<'a>,
    /// Norms of queries and keys before they are rotated.
    pub norms: Option<Norms<'a>>,
}

/// Root mean square norms of every query and key, by their weights for the dimensions of a head.
#[derive(Debug, Clone, Copy)]
pub struct Norms<'a> {
    /// Weights for queries.
    pub queries: &'a [f32],
    /// Weights for keys.
    pub keys: &'a [f32],
    /// Added to the mean square.
    pub epsilon: f32,
}

/// What is computed of the attention of new tokens.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    /// The tokens whose attention is computed, in ascending order.
    pub tokens: &'a [usize],
    /// The factor of the scores.
    pub scale: f32,
}

/// Where a segment is, the same in each layer.
pub(super) struct Segment {
    pub(super) parent: Option<usize>,
    pub(super) capacity: usize,
    /// Places before it.
    pub(super) start: usize,
}

/// A number as the cache keeps it.
pub(super) trait Element: Copy + Default + Send + Sync {
    fn of(value: f32) -> Self;
}

impl Element for f32 {
    fn of(value: f32) -> Self {
        value
    }
}

impl Element for u16 {
    fn of(value: f32) -> Self {
        narrowed(value)
    }
}

/// Dimensions of a head in the cache, filled up with zeros.
pub(super) fn padded(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// What a layer holds.
///
/// Segment by segment and head by head, the keys in blocks of 16 tokens and then the values. A block is stored dimension
/// by dimension, each for 16 tokens, so that one vector holds a dimension of 16 keys. A value is stored as it is.
pub(super) struct View<'a, E> {
    pub(super) values: &'a [E],
    pub(super) shape: Shape,
    pub(super) segments: &'a [Segment],
    /// Tokens of each segment before the new ones.
    pub(super) lengths: &'a [usize],
}

impl<'a, E> View<'a, E> {
    /// Keys and values of a segment for a head.
    pub(super) fn head(&self, segment: usize, head: usize) -> (&'a [[E; LANES]], &'a [[E; LANES]]) {
        let Segment { capacity, start, .. } = self.segments[segment];
        let (dim, places) = (padded(self.shape.head_dim), capacity.next_multiple_of(LANES));
        let start = (start * self.shape.num_kv_heads + head * places) * 2 * dim;
        let (lines, _) = self.values[start..][..2 * places * dim].as_chunks();
        lines.split_at(lines.len() / 2)
    }
}

/// Normalises a query or key of a token and rotates it by the angles of the token.
#[inline(always)]
pub(super) fn rotate(vector: &mut [f32], norm: Option<(&[f32], f32)>, new: &NewTokens, token: usize) {
    if let Some((weights, epsilon)) = norm {
        let mean = vector.iter().map(|value| value * value).sum::<f32>() / vector.len() as f32;
        let factor = 1.0 / (mean + epsilon).sqrt();
        for (value, weight) in vector.iter_mut().zip(weights) {
            *value *= factor * weight;
        }
    }
    let (cosines, sines) = (new.cosines.row(token), new.sines.row(token));
    let half = cosines.len() / 2;
    let (first, second) = vector[..2 * half].split_at_mut(half);
    let (first_cosines, second_cosines) = cosines.split_at(half);
    let (first_sines, second_sines) = sines.split_at(half);
    let firsts = first.iter_mut().zip(first_cosines).zip(first_sines);
    let seconds = second.iter_mut().zip(second_cosines).zip(second_sines);
    for (((first, first_cosine), first_sine), ((second, second_cosine), second_sine)) in firsts.zip(seconds) {
        let (a, b) = (*first, *second);
        *first = a * first_cosine - b * first_sine;
        *second = b * second_cosine + a * second_sine;
    }
}
