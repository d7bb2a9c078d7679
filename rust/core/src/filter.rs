//! Approximate scores, and a proven bound on how far they are from the exact ones.
//!
//! Products of bfloat16 values are the fastest that some CPUs have. They decide about most items: one whose
//! approximate score is further from a threshold than the bound is surely on that side of it. Only the others need
//! their exact score, so what is ranked by both is the same, bit for bit, as what is ranked by exact scores alone.
//!
//! # The bound
//!
//! Let `u` and `x` be the vectors of a user and an item in `n` dimensions, `U` and `X` their values rounded to
//! bfloat16, and `u - U` and `x - X` what rounding took from them. Then
//!
//! ```text
//! u.x - U.X = U.(x - X) + (u - U).x        so by Cauchy-Schwarz
//! |u.x - U.X| <= |U| |x - X| + |u - U| |x|
//! ```
//!
//! with the norms of what was really lost, which are known. Both scores are sums in f32, where every operation errs by
//! a factor of at most 1 +- 2^-24. In the approximate one a term passes a product and at most `n` sums, in the exact
//! one (see [`crate::kernel`]) a product and at most `n/16 + 5` sums. With `g(m) = m 2^-24 / (1 - m 2^-24)`
//! (N. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1) and again Cauchy-Schwarz, they are within
//!
//! ```text
//! g(n + 1) |U| |X|   of U.X,   and   g(n/16 + 6) |u| |x|   of u.x.
//! ```
//!
//! The instruction also takes a product or a sum below 2^-126 for 0, which costs at most 2^-126 for each of 2n. The
//! sum of all this bounds the difference of the two scores for any order of summation.

use rayon::prelude::*;

use crate::Matrix;

/// Items of a panel: two vectors of 16.
pub const PANEL: usize = 32;

/// The Euclidean norms the bound needs.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Norms {
    /// Of the vector.
    whole: f64,
    /// Of the vector after rounding.
    rounded: f64,
    /// Of what rounding took from it.
    lost: f64,
}

impl Norms {
    fn of(row: &[f32]) -> Self {
        let mut squares = [[0.0_f64; 3]; 4];
        for values in row.chunks(4) {
            for (squares, &value) in squares.iter_mut().zip(values) {
                let (value, rounded) = (f64::from(value), f64::from(widen(round(value))));
                let lost = value - rounded;
                squares[0] += value * value;
                squares[1] += rounded * rounded;
                squares[2] += lost * lost;
            }
        }
        let [whole, rounded, lost] =
            std::array::from_fn(|which| squares.iter().map(|squares| squares[which]).sum::<f64>().sqrt());
        Self { whole, rounded, lost }
    }

    /// The largest of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            whole: self.whole.max(other.whole),
            rounded: self.rounded.max(other.rounded),
            lost: self.lost.max(other.lost),
        }
    }
}

/// How far the approximate score of a user and an item can be from their exact one; `item` may hold the largest norms
/// of several items.
pub fn error_bound(dim: usize, user: Norms, item: Norms) -> f64 {
    let n = dim as f64;
    let summation = |terms: f64| {
        let error = terms * 2.0_f64.powi(-24);
        if error < 0.5 { error / (1.0 - error) } else { f64::INFINITY }
    };
    let bound = user.rounded * item.lost
        + user.lost * item.whole
        + summation(n + 1.0) * user.rounded * item.rounded
        + summation(n / 16.0 + 7.0) * user.whole * item.whole
        + 4.0 * n * f64::from(f32::MIN_POSITIVE);
    // Far more than what f64 arithmetic took from the norms and from this sum.
    bound * (1.0 + 1e-6)
}

/// The nearest bfloat16, ties to even, as the upper half of an f32. Subnormal values become 0, as the instruction
/// would take them, and values beyond the largest finite one become that: both are then part of what is lost.
fn round(value: f32) -> u16 {
    const MAX: u32 = 0x7f7f;
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let rounded = (magnitude + 0x7fff + ((magnitude >> 16) & 1)) >> 16;
    let rounded = if magnitude < 0x0080_0000 { 0 } else { rounded.min(MAX) };
    (rounded | ((bits >> 16) & 0x8000)) as u16
}

fn widen(bfloat16: u16) -> f32 {
    f32::from_bits(u32::from(bfloat16) << 16)
}

/// Two neighbouring values in bfloat16, the first in the lower half. A vector of odd length ends with a 0.
fn pair(values: &[f32]) -> u32 {
    let second = values.get(1).map_or(0, |value| round(*value));
    u32::from(round(values[0])) | u32::from(second) << 16
}

/// Users of a tile: with a panel of items they take 24 of 32 registers for their sums.
const TILE: usize = 12;

/// Users in bfloat16, as the kernel reads them: tile by tile, each pair by pair, of all its users. Missing ones are 0.
pub struct RoundedUsers {
    tiles: Vec<Vec<[u32; TILE]>>,
    /// Of each user.
    pub norms: Vec<Norms>,
}

impl RoundedUsers {
    /// Rounds vectors.
    pub fn new(users: Matrix) -> Self {
        let tile = |first: usize| {
            let mut pairs = vec![[0; TILE]; users.dim().div_ceil(2)];
            for (place, user) in (first..users.rows().min(first + TILE)).enumerate() {
                for (places, values) in pairs.iter_mut().zip(users.row(user).chunks(2)) {
                    places[place] = pair(values);
                }
            }
            pairs
        };
        Self {
            tiles: (0..users.rows()).step_by(TILE).map(tile).collect(),
            norms: (0..users.rows()).map(|user| Norms::of(users.row(user))).collect(),
        }
    }

    /// Number of rows that scores take: that of users, rounded up to whole tiles.
    pub fn rows(&self) -> usize {
        self.tiles.len() * TILE
    }
}

/// A cache line: one pair of 16 items.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u32; 16]);

/// `PANEL` items in bfloat16, as the kernel reads them: pair by pair, each of all items. Missing items are 0.
pub struct Panel {
    pairs: Vec<[Line; 2]>,
    /// The largest of its items.
    pub norms: Norms,
}

impl Panel {
    /// The panels of all items; half the size of the items themselves.
    pub fn all(items: Matrix) -> Vec<Self> {
        let starts = (0..items.rows()).into_par_iter().step_by(PANEL);
        starts.map(|start| Self::of(items.slice(start, (start + PANEL).min(items.rows())))).collect()
    }

    fn of(items: Matrix) -> Self {
        let mut pairs = vec![[Line([0; 16]); 2]; items.dim().div_ceil(2)];
        let mut norms = Norms::default();
        for item in 0..items.rows() {
            let row = items.row(item);
            for (lines, values) in pairs.iter_mut().zip(row.chunks(2)) {
                lines[item / 16].0[item % 16] = pair(values);
            }
            norms = norms.max(Norms::of(row));
        }
        Self { pairs, norms }
    }
}

/// Writes the approximate scores of every user with every item of the panels to `out`, row-major.
///
/// # Panics
/// When `out` does not hold [`RoundedUsers::rows`] x panels x [`PANEL`] scores, or this CPU has no kernel that filters
/// ([`crate::kernel::Kernel::filters`]).
pub fn score_panels(users: &RoundedUsers, panels: &[Panel], out: &mut [f32]) {
    assert_eq!(out.len(), users.rows() * panels.len() * PANEL);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16") {
        // SAFETY: the CPU was just asked and has both features, all that the function requires.
        return unsafe { x86::score_panels(users, panels, out) };
    }
    unreachable!("no panel is made for a kernel that does not filter")
}

/// Counts the scores above `high`, and lists the places of those that are neither above `high` nor below `low`.
pub fn sift(scores: &[f32], low: f32, high: f32, doubtful: &mut Vec<u32>) -> u64 {
    doubtful.clear();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU was just asked and has AVX-512F, all that the function requires.
        return unsafe { x86::sift(scores, low, high, doubtful) };
    }
    sift_portable(scores, low, high, doubtful)
}

fn sift_portable(scores: &[f32], low: f32, high: f32, doubtful: &mut Vec<u32>) -> u64 {
    let is_below = |score: f32| score < low; // false for NaN, which is in doubt
    let places = (0..).zip(scores).filter(|(_, score)| !(**score > high || is_below(**score)));
    doubtful.extend(places.map(|(at, _)| at));
    scores.iter().filter(|score| **score > high).count() as u64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Line, PANEL, Panel, RoundedUsers, TILE};

    /// Pairs that are multiplied at a time: of a panel they take 16 KiB, half of a small first-level cache, and stay
    /// there for all tiles of users.
    const PAIRS: usize = 128;

    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn score_panels(users: &RoundedUsers, panels: &[Panel], out: &mut [f32]) {
        let width = panels.len() * PANEL;
        out.fill(0.0);
        for (number, panel) in panels.iter().enumerate() {
            for (part, items) in panel.pairs.chunks(PAIRS).enumerate() {
                for (tile, out) in users.tiles.iter().zip(out.chunks_mut(TILE * width)) {
                    let users = &tile[part * PAIRS..][..items.len()];
                    add_products(users, items, &mut out[number * PANEL..], width);
                }
            }
        }
    }

    /// Adds the products of some pairs of a tile and a panel to their scores, the rows of which are `width` apart.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    fn add_products(users: &[[u32; TILE]], items: &[[Line; 2]], out: &mut [f32], width: usize) {
        let mut sums = [[_mm512_setzero_ps(); 2]; TILE];
        for (user, sums) in sums.iter_mut().enumerate() {
            let (halves, _) = out[user * width..][..PANEL].as_chunks::<16>();
            for (sum, half) in sums.iter_mut().zip(halves) {
                // SAFETY: `half` holds the 16 values that are read, at any alignment.
                *sum = unsafe { _mm512_loadu_ps(half.as_ptr()) };
            }
        }
        for (users, lines) in users.iter().zip(items) {
            let items = [bf16(load(&lines[0])), bf16(load(&lines[1]))];
            for (user, sums) in users.iter().zip(&mut sums) {
                let user = bf16(_mm512_set1_epi32(user.cast_signed()));
                sums[0] = _mm512_dpbf16_ps(sums[0], user, items[0]);
                sums[1] = _mm512_dpbf16_ps(sums[1], user, items[1]);
            }
        }
        for (user, sums) in sums.into_iter().enumerate() {
            let (halves, _) = out[user * width..][..PANEL].as_chunks_mut::<16>();
            for (half, sum) in halves.iter_mut().zip(sums) {
                // SAFETY: `half` holds the 16 values that are written, at any alignment.
                unsafe { _mm512_storeu_ps(half.as_mut_ptr(), sum) };
            }
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(line: &Line) -> __m512i {
        // SAFETY: a line holds the 64 bytes that are read, at their alignment.
        unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) }
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    fn bf16(words: __m512i) -> __m512bh {
        // SAFETY: both types are 512 bits and take any.
        unsafe { std::mem::transmute(words) }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn sift(scores: &[f32], low: f32, high: f32, doubtful: &mut Vec<u32>) -> u64 {
        let (low, high, one) = (_mm512_set1_ps(low), _mm512_set1_ps(high), _mm512_set1_epi32(1));
        let mut above_by_lane = _mm512_setzero_si512();
        for (number, chunk) in scores.chunks(16).enumerate() {
            let present = u16::MAX >> (16 - chunk.len());
            // SAFETY: only the values that are present are read.
            let values = unsafe { _mm512_maskz_loadu_ps(present, chunk.as_ptr()) };
            let above = _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(present, values, high);
            let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(values, low);
            above_by_lane = _mm512_mask_add_epi32(above_by_lane, above, above_by_lane, one);
            let mut open = present & !above & !below;
            while open != 0 {
                doubtful.push(16 * number as u32 + open.trailing_zeros());
                open &= open - 1;
            }
        }
        _mm512_reduce_add_epi32(above_by_lane) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernel::{self, Kernel};

    #[test]
    fn rounding_is_to_the_nearest_and_keeps_the_sign() {
        for (value, expected) in [
            (0.0, 0.0),
            (1.0, 1.0),
            (1.0 + 2.0_f32.powi(-8), 1.0),                          // a tie, to even
            (1.0 + 3.0 * 2.0_f32.powi(-8), 1.0 + 2.0_f32.powi(-6)), // a tie, to even
            (-3.15, -3.15625),
            (1e-40, 0.0),
            (f32::MIN_POSITIVE, f32::MIN_POSITIVE),
        ] {
            assert_eq!(widen(round(value)), expected, "{value}");
            assert_eq!(widen(round(-value)), -expected, "{value}");
        }
        assert!(widen(round(f32::MAX)).is_finite());
    }

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            6 => -1.0_f32..1.0,
            1 => prop_oneof![Just(0.0), Just(-0.0), Just(1e-40_f32), Just(-3e-39), Just(1e-20), Just(-1e17), Just(9e17)],
        ]
    }

    proptest! {
        #[test]
        fn approximate_scores_keep_within_their_bound(
            (dim, users, items) in (1_usize..300, 1_usize..30, 1_usize..70).prop_flat_map(|(dim, users, items)| (
                Just(dim),
                proptest::collection::vec(value(), dim * users),
                proptest::collection::vec(value(), dim * items),
            ))
        ) {
            if !Kernel::supported()[0].filters() {
                return Ok(());
            }
            let (users, items) = (Matrix::new(&users, dim), Matrix::new(&items, dim));
            let rounded = RoundedUsers::new(users);
            let panels = Panel::all(items);
            let width = panels.len() * PANEL;
            let mut out = vec![f32::NAN; rounded.rows() * width];
            score_panels(&rounded, &panels, &mut out);
            for (user, norms) in rounded.norms.iter().enumerate() {
                for item in 0..items.rows() {
                    let exact = kernel::dot(users.row(user), items.row(item));
                    let gap = (f64::from(out[user * width + item]) - f64::from(exact)).abs();
                    prop_assert!(gap <= error_bound(dim, *norms, Norms::of(items.row(item))));
                    prop_assert!(gap <= error_bound(dim, *norms, panels[item / PANEL].norms));
                }
            }
        }

        #[test]
        fn sifting_is_what_it_says(scores in proptest::collection::vec(-3_i8..4, 0..70), low in -4_i8..4, more in 0_i8..4) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let (low, high) = (f32::from(low), f32::from(low + more));
            let (mut doubtful, mut by_loop) = (vec![7], Vec::new());
            let above = sift(&scores, low, high, &mut doubtful);
            prop_assert_eq!(above, sift_portable(&scores, low, high, &mut by_loop));
            prop_assert_eq!(&doubtful, &by_loop);
            prop_assert_eq!(above, scores.iter().filter(|score| **score > high).count() as u64);
            let open = |(at, score): (u32, &f32)| (low <= *score && *score <= high).then_some(at);
            prop_assert_eq!(doubtful, (0..).zip(&scores).filter_map(open).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn the_bound_is_of_the_size_of_the_rounding() {
        let row: Vec<f32> = (0..512).map(|i| ((i * 37 % 101) as f32 - 50.0) / 660.0).collect();
        let norms = Norms::of(&row);
        let bound = error_bound(row.len(), norms, norms) / (norms.whole * norms.whole);
        assert!((0.002..0.005).contains(&bound), "{bound}");
    }
}
