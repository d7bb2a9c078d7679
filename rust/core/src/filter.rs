//! Approximate scores from whole numbers, and a proven bound on how far they are from the exact ones.
//!
//! Products of small integers are the fastest that CPUs have. They decide about most items: one whose approximate score
//! is further from a threshold than the bound is surely on that side of it. Only the others need their exact score, so
//! what is ranked by both is the same, bit for bit, as what is ranked by exact scores alone.
//!
//! # Approximate scores
//!
//! Every vector has a scale of its own and is rounded to whole multiples of it: a user `u` to `s U`, an item `x` to
//! `t X`, where `U` and `X` hold integers of 16 bits, or of 8 where less will do ([`Precision`]). The scales are such
//! that `U.X` never leaves 32 bits, so it is exact, in whatever order it is summed. The approximate score in units of
//! `s` is `A = fl(fl(U.X) t)`, two roundings to f32. It is compared in these units, so that `s` is never multiplied.
//!
//! A kernel that multiplies tiles of bytes (`filter/amx.rs`) is another matter: it sums the products of upper and of
//! lower bytes apart, each sum exact in 32 bits, so its integers of 16 bits may be larger, which leaves less to
//! rounding. It adds these sums in f32 to what stands for `fl(U.X)`.
//!
//! # The bound
//!
//! In `n` dimensions, with `e = u - s U` and `d = x - t X`, what rounding took from them,
//!
//! ```text
//! u.x - s t U.X = s U.d + e.x              so by Cauchy-Schwarz
//! |u.x - s t U.X| <= |s U| |d| + |e| |x|
//! ```
//!
//! with the norms of what was really lost, which are known. To that comes what f32 arithmetic takes. An operation errs
//! by a factor of at most 1 +- 2^-24, so `s A` is within `c |s U| |t X|` of `s t U.X`, with `c = 2^-22`. Of sums of
//! bytes, upper ones `H`, `H'` and lower ones `L`, `L'`, every part passes at most four operations, so what they take is
//! at most `2^-22 (|256 H| + |L|) (|256 H'| + |L'|)`, but for squares of 2^-24, which a margin covers. The lower byte's
//! part of an integer is no more than the integer and the upper one's no more than twice of it, so that
//! `c = 3 x 3 x 2^-22` there.
//!
//! In an exact score (see [`crate::kernel`]) a term passes a product and at most `n/16 + 5` sums; with
//! `g(m) = m 2^-24 / (1 - m 2^-24)` (N. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1) and again
//! Cauchy-Schwarz it is within `g(n/16 + 6) |u| |x|` of `u.x`. A product below the normal range of f32 loses at most
//! 2^-149 whatever its size: `n` of them in an exact score and one in `A`.
//!
//! With `delta`, the largest `|d| / |x|` of a block of items, the sum is `K |x| + N`, where
//!
//! ```text
//! K = |s U| delta + |e| + c |s U| (1 + delta) + g(n/16 + 6) |u|        N = (n + s) 2^-149
//! ```
//!
//! (`|x|` is kept roughly or not at all: an upper bound of it follows from the scale `t` where that was made for a norm;
//! see [`Panel::norms`].)
//!
//! So an item is surely above a score `h` if `A > (h + N)/s + (K/s) |x|`, and surely below `l` if
//! `A < (l - N)/s - (K/s) |x|` ([`Thresholds`]).

#[cfg(target_arch = "x86_64")]
mod amx;
mod items;
mod products;
mod sift;
mod users;

#[cfg(target_arch = "x86_64")]
pub(crate) use amx::{MAX_DIM as AMX_MAX_DIM, ROWS as AMX_ROWS, is_available as amx_is_available};
pub use items::{EightBits, PANEL, Panel};
pub use products::score_panels;
pub use sift::sift;
pub(crate) use users::TILE;
pub use users::UserTile;

/// The size of the integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 8 bits: twice as fast, and some thirty times less sure.
    Eight,
    /// 16 bits.
    Sixteen,
}

/// What to compare an approximate score with, in units of the user's scale; see [`sift`].
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// Below `low - slope * norm`, an item scores surely less than asked.
    low: f32,
    /// Above `high + slope * norm`, an item scores surely more than asked.
    high: f32,
    /// The bound on the error for each unit of the item's norm.
    slope: f32,
}

/// How far the approximate scores of one user can be from the exact ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorBound {
    /// `s`.
    scale: f64,
    /// `1 / s`.
    inverse: f64,
    /// `K / s` is `fixed + by_loss * delta`.
    fixed: f64,
    by_loss: f64,
    /// `N`, doubled and a little more, for what is lost below the normal range on the way from one unit to the other.
    constant: f64,
}

impl ErrorBound {
    /// A margin for the arithmetic of the bound itself and of comparisons in f32, as a share of what is compared.
    const MARGIN: f64 = 1.0 / (1_u64 << 20) as f64;

    /// From `s`, `|u|`, `|s U|` and `|e|`.
    fn new(dim: usize, scale: f64, norm: f64, rounded: f64, lost: f64, has_tiles: bool) -> Self {
        let n = dim as f64;
        let errors = (n / 16.0 + 7.0) * 2.0_f64.powi(-24); // n/16 is rounded up
        let summation = if errors < 0.5 { errors / (1.0 - errors) } else { f64::INFINITY };
        let parts = if has_tiles { 9.0 } else { 1.0 };
        let conversion = parts * 2.0_f64.powi(-22) * rounded;
        let inflated = (1.0 + Self::MARGIN) / scale;
        Self {
            scale,
            inverse: 1.0 / scale,
            fixed: (lost + conversion + summation * norm) * inflated,
            by_loss: (rounded + conversion) * inflated,
            constant: 2.0 * (n + scale + 1.0) * f64::from(f32::from_bits(1)),
        }
    }

    /// The error for each unit of an item's norm, in units of `s`, where the items lost at most the share `loss`.
    pub fn slope(&self, loss: f64) -> f32 {
        ((self.fixed + self.by_loss * loss) as f32).next_up()
    }

    /// To find the items that may score at least `low` and at most `high`; see [`ErrorBound::slope`].
    pub fn thresholds(&self, low: f32, high: f32, slope: f32) -> Thresholds {
        let (low, high) = (f64::from(low), f64::from(high));
        let margin = |score: f64| if score.is_finite() { self.constant + Self::MARGIN * score.abs() } else { 0.0 };
        Thresholds {
            low: (((low - margin(low)) * self.inverse) as f32).next_down(),
            high: (((high + margin(high)) * self.inverse) as f32).next_up(),
            slope,
        }
    }

    /// The exact score that an item surely reaches whose approximate score less `slope * norm` is `least`.
    pub fn reached(&self, least: f32) -> f32 {
        let score = f64::from(least) * self.scale;
        ((score - self.constant - Self::MARGIN * score.abs()) as f32).next_down()
    }

    /// What the exact score of an item surely lies between, by its approximate one and `error`, which is `slope * norm`.
    pub fn around(&self, approximate: f32, error: f32) -> (f32, f32) {
        let (least, most) = (approximate - error, approximate + error);
        if least.is_finite() && most.is_finite() {
            (self.reached(least), -self.reached(-most))
        } else {
            (f32::NEG_INFINITY, f32::INFINITY)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Matrix;
    use crate::kernel::{self, Kernel};

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            12 => -1.0_f32..1.0,
            1 => prop_oneof![Just(0.0), Just(-0.0), Just(1e-40_f32), Just(-3e-39), Just(1e-20)],
        ]
    }

    /// Vectors of all sizes that f32 has, beside each other.
    fn rows(dim: usize, rows: usize) -> impl Strategy<Value = Vec<f32>> {
        let scale = prop_oneof![
            4 => Just(1.0_f32), 1 => Just(0.0), 1 => Just(1e-44), 1 => Just(1e-38), 1 => Just(1e-30), 1 => Just(1e16),
        ];
        let row = (proptest::collection::vec(value(), dim), scale)
            .prop_map(|(row, scale)| row.into_iter().map(|value| value * scale).collect::<Vec<f32>>());
        proptest::collection::vec(row, rows).prop_map(|rows| rows.concat())
    }

    /// Less of all under Miri, which takes a thousand times longer.
    fn problem() -> impl Strategy<Value = (usize, Vec<f32>, Vec<f32>)> {
        let (dims, users, items) =
            if cfg!(miri) { (1..20, 1..=3, 1..40) } else { (1_usize..150, 1_usize..=16, 1_usize..70) };
        (dims, users, items).prop_flat_map(|(dim, users, items)| (Just(dim), rows(dim, users), rows(dim, items)))
    }

    fn in_eight(kernel: Kernel, precision: Precision, panels: &[Panel]) -> Vec<EightBits> {
        let take = |panel| {
            let mut eight = EightBits::default();
            if precision == Precision::Eight {
                eight.take(panel, kernel);
            }
            eight
        };
        panels.iter().map(take).collect()
    }

    /// The users tile by tile, each with the number of its first.
    fn tiles(users: Matrix, kernel: Kernel) -> Vec<(usize, UserTile)> {
        let starts = (0..users.rows()).step_by(kernel.tile());
        let tile = |start| UserTile::new(users.slice(start, (start + kernel.tile()).min(users.rows())), kernel);
        starts.map(|start| (start, tile(start))).collect()
    }

    /// Approximate scores of a tile, row-major.
    fn approximate(kernel: Kernel, precision: Precision, tile: &UserTile, panels: &[Panel]) -> Vec<f32> {
        let mut out = vec![f32::NAN; tile.len() * panels.len() * PANEL];
        score_panels(kernel, precision, tile, panels, &in_eight(kernel, precision, panels), &mut out);
        out
    }

    proptest! {
        #[test]
        fn exact_scores_are_on_the_side_that_approximate_ones_say((dim, users, items) in problem()) {
            let (users, items) = (Matrix::new(&users, dim), Matrix::new(&items, dim));
            for kernel in Kernel::supported() {
                // Made in the memory of others, as those of a block are.
                let panels = Panel::block(items, kernel, Panel::block(users, kernel, Vec::new()));
                let norms: Vec<f32> = panels.iter().flat_map(|panel| panel.norms(dim)).collect();
                let width = norms.len();
                for (first, tile) in tiles(users, kernel) {
                    for &precision in kernel.precisions(dim) {
                        let out = approximate(kernel, precision, &tile, &panels);
                        let loss = panels.iter().map(|panel| panel.loss(precision)).fold(0.0, f64::max);
                        for user in 0..tile.len() {
                            let bound = tile.error_bound(user, precision);
                            let slope = bound.slope(loss);
                            for item in 0..items.rows() {
                                let exact = kernel::dot(users.row(first + user), items.row(item));
                                let approximate = out[user * width + item];
                                prop_assert!(bound.reached(approximate - slope * norms[item]) <= exact);
                                let (low, high) = bound.around(approximate, slope * norms[item]);
                                prop_assert!(low <= exact && exact <= high && low < high);
                                for score in [exact, exact.next_up(), exact.next_down(), 0.9 * exact, 1.1 * exact, 0.0] {
                                    let bars = bound.thresholds(score, score, slope);
                                    let mut doubtful = Vec::new();
                                    let above = sift(kernel, &[approximate], &norms[item..=item], bars, &mut doubtful);
                                    let said = (above == 1, doubtful.is_empty());
                                    prop_assert!(
                                        if exact > score { said.0 || !said.1 }
                                        else if exact < score { !said.0 }
                                        else { said == (false, false) },
                                        "{} {precision:?} exact {exact:e} score {score:e} {said:?}", kernel.name()
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }

        #[test]
        fn every_kernel_without_tiles_gives_the_same_approximate_scores((dim, users, items) in problem()) {
            let (users, items) = (Matrix::new(&users, dim), Matrix::new(&items, dim));
            let mut by_precision: [Option<Vec<f32>>; 2] = [None, None];
            for kernel in Kernel::supported().into_iter().filter(|kernel| !kernel.has_tiles()) {
                let panels = Panel::all(items, kernel);
                let tiles = tiles(users, kernel);
                for &precision in kernel.precisions(dim) {
                    let of_tile = |(_, tile): &(usize, UserTile)| approximate(kernel, precision, tile, &panels);
                    let out: Vec<f32> = tiles.iter().flat_map(of_tile).collect();
                    let expected = by_precision[precision as usize].get_or_insert_with(|| out.clone());
                    prop_assert_eq!(&out, expected, "{} {:?}", kernel.name(), precision);
                }
            }
        }
    }

    #[test]
    fn nothing_is_known_of_an_approximate_score_that_is_not_finite() {
        let row = [0.5; 64];
        let kernel = Kernel::supported()[0];
        let tile = UserTile::new(Matrix::new(&row, 64), kernel);
        let bound = tile.error_bound(0, Precision::Sixteen);
        for approximate in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(bound.around(approximate, 1.0), (f32::NEG_INFINITY, f32::INFINITY));
        }
        assert_eq!(bound.around(1.0, f32::INFINITY), (f32::NEG_INFINITY, f32::INFINITY));
    }

    /// Norms are upper bounds, and where they are kept close ones.
    #[test]
    fn norms_are_rounded_up() {
        let rows: Vec<f32> = (0..40 * 37).map(|at| ((at * 7919 % 10_007) as f32 - 5_000.0) * 1e-3).collect();
        let items = Matrix::new(&rows, 37);
        let exact = items.norms("items").unwrap();
        for kernel in Kernel::supported() {
            let norms = Panel::all(items, kernel).iter().flat_map(|panel| panel.norms(37)).collect::<Vec<f32>>();
            for (norm, exact) in norms.iter().zip(&exact) {
                let most = if kernel.has_tiles() { 1.0 + 1.01 / 128.0 } else { 1.5 };
                assert!((*exact..=exact * most).contains(&f64::from(*norm)), "{} {norm} {exact}", kernel.name());
            }
        }
    }

    #[test]
    fn a_tile_and_panels_of_another_kernel_are_refused() {
        let row = [0.5; 64];
        let matrix = Matrix::new(&row, 64);
        for kernel in Kernel::supported() {
            let is_refused = |users: Kernel, items: Kernel| {
                let score = || {
                    let tile = UserTile::new(matrix, users);
                    let panels = Panel::all(matrix, items);
                    score_panels(kernel, Precision::Sixteen, &tile, &panels, &[], &mut [0.0; PANEL]);
                };
                std::panic::catch_unwind(score).is_err()
            };
            for other in Kernel::supported() {
                assert_eq!(is_refused(other, kernel), other != kernel);
                assert_eq!(is_refused(kernel, other), other.has_tiles() != kernel.has_tiles());
            }
        }
    }

    /// However many are made together.
    #[test]
    fn every_panel_is_that_of_its_items() {
        let rows: Vec<f32> = (0..5_000 * 3).map(|at| ((at * 7919 % 10_007) as f32 - 5_000.0) * 1e-3).collect();
        let items = Matrix::new(&rows, 3);
        let users = Matrix::new(&rows[..9], 3);
        for kernel in Kernel::supported() {
            let tile = UserTile::new(users, kernel);
            let score = |panels: &[Panel]| {
                let mut out = vec![f32::NAN; 3 * panels.len() * PANEL];
                score_panels(kernel, Precision::Sixteen, &tile, panels, &[], &mut out);
                out
            };
            for (number, panel) in Panel::all(items, kernel).iter().enumerate() {
                let start = number * PANEL;
                let alone = Panel::block(items.slice(start, (start + PANEL).min(5_000)), kernel, Vec::new());
                assert_eq!(score(std::slice::from_ref(panel)), score(&alone));
                assert_eq!(panel.norms(3), alone[0].norms(3));
            }
        }
    }

    #[test]
    fn the_bound_is_of_the_size_of_the_rounding() {
        let row: Vec<f32> = (0..512).map(|i| ((i * 37 % 101) as f32 - 50.0) / 660.0).collect();
        let matrix = Matrix::new(&row, 512);
        for kernel in Kernel::supported() {
            let panels = Panel::all(matrix, kernel);
            let tile = UserTile::new(matrix, kernel);
            for &precision in kernel.precisions(512) {
                let bound = tile.error_bound(0, precision);
                let slope = f64::from(bound.slope(panels[0].loss(precision)));
                let share = slope * bound.scale / f64::from(panels[0].norms(512)[0]);
                let expected = match precision {
                    Precision::Eight => 2e-3..2e-2,
                    Precision::Sixteen if kernel.has_tiles() => 2e-5..8e-5,
                    Precision::Sixteen => 1e-4..4e-4,
                };
                assert!(expected.contains(&share), "{precision:?} {share}");
            }
        }
    }
}
