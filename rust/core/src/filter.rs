//! Approximate scores from integers, and a proven bound on their distance from the exact scores.
//!
//! CPUs compute products of small integers faster than any other products. Such products decide about most items: where
//! an approximate score is further from a threshold than the bound, the exact score lies on the same side. Only the
//! other items need their exact score. A ranking by both is therefore the same, bit for bit, as a ranking by exact
//! scores.
//!
//! # Approximate scores
//!
//! Every vector has its own scale and is rounded to whole multiples of it: a user `u` to `s U`, an item `x` to `t X`,
//! where `U` and `X` hold integers of 16 bits, or of 8 bits where those suffice ([`Precision`]). The scales keep `U.X`
//! within 32 bits, so it is exact in any order of summation. The approximate score, in units of `s`, is
//! `A = fl(fl(U.X) t)`, with two roundings to f32. Scores are compared in these units, so nothing is multiplied by `s`.
//!
//! A kernel that multiplies tiles of bytes (`filter/amx.rs`) differs. It sums the products of upper bytes and of lower
//! bytes separately, and each sum is exact in 32 bits. Its integers of 16 bits may therefore be larger, and rounding
//! loses less. It adds these sums in f32, and the result takes the place of `fl(U.X)`.
//!
//! # The bound
//!
//! Let `n` be the number of dimensions, and let `e = u - s U` and `d = x - t X` be the rounding errors. Then
//!
//! ```text
//! u.x - s t U.X = s U.d + e.x              so by Cauchy-Schwarz
//! |u.x - s t U.X| <= |s U| |d| + |e| |x|
//! ```
//!
//! The norms of the errors are computed, not estimated. The arithmetic in f32 adds to this. One operation errs by a
//! factor of at most 1 +- 2^-24, so `s A` is within `c |s U| |t X|` of `s t U.X`, with `c = 2^-22`. With sums of bytes,
//! upper bytes `H` and `H'` and lower bytes `L` and `L'`, every part passes at most four operations. These add at most
//! `2^-22 (|256 H| + |L|) (|256 H'| + |L'|)`, except for squares of 2^-24, which a margin covers. The part of the lower
//! byte is no larger than the integer, and the part of the upper byte is at most twice as large. So `c = 3 x 3 x 2^-22`
//! with bytes.
//!
//! In an exact score (see [`crate::exact`]) a term passes one product and at most `n/16 + 5` sums. With
//! `g(m) = m 2^-24 / (1 - m 2^-24)` (N. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1) and
//! Cauchy-Schwarz, the exact score is within `g(n/16 + 6) |u| |x|` of `u.x`. A product below the normal range of f32
//! loses at most 2^-149, whatever its size. An exact score has `n` such products, and `A` has one.
//!
//! With `delta`, the largest `|d| / |x|` of a block of items, the sum of all errors is `K |x| + N`, where
//!
//! ```text
//! K = |s U| delta + |e| + c |s U| (1 + delta) + g(n/16 + 6) |u|        N = (n + s) 2^-149
//! ```
//!
//! In place of `|x|` an upper bound is used, which mostly follows from the scale `t`; see [`Panel::norms`].
//!
//! So an item is surely above a score `h` if `A > (h + N)/s + (K/s) |x|`, and surely below `l` if
//! `A < (l - N)/s - (K/s) |x|` ([`Thresholds`]).

#[cfg(target_arch = "x86_64")]
mod amx;
mod bound;
mod eight_bits;
mod items;
mod layout;
mod precision;
mod products;
mod rounding;
mod sift;
#[cfg(target_arch = "x86_64")]
mod tiles;
mod users;

pub use bound::{ErrorBound, Thresholds};
pub use eight_bits::EightBits;
pub use items::Panel;
pub use layout::PANEL;
pub use precision::Precision;
pub use products::score_panels;
pub use sift::sift;
pub use users::UserTile;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Kernel, Matrix, exact};

    fn value() -> impl Strategy<Value = f32> {
        prop_oneof![
            12 => -1.0_f32..1.0,
            1 => prop_oneof![Just(0.0), Just(-0.0), Just(1e-40_f32), Just(-3e-39), Just(1e-20)],
        ]
    }

    /// Vectors whose sizes span the range of f32.
    fn rows(dim: usize, rows: usize) -> impl Strategy<Value = Vec<f32>> {
        let scale = prop_oneof![
            4 => Just(1.0_f32), 1 => Just(0.0), 1 => Just(1e-44), 1 => Just(1e-38), 1 => Just(1e-30), 1 => Just(1e16),
        ];
        let row = (proptest::collection::vec(value(), dim), scale)
            .prop_map(|(row, scale)| row.into_iter().map(|value| value * scale).collect::<Vec<f32>>());
        proptest::collection::vec(row, rows).prop_map(|rows| rows.concat())
    }

    /// Miri takes a thousand times longer, so problems are smaller there.
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

    /// The users tile by tile, each tile with the number of its first user.
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
                // They reuse the memory of other panels, as the panels of a block do.
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
                                let exact = exact::dot(users.row(first + user), items.row(item));
                                let approximate = out[user * width + item];
                                prop_assert!(bound.reached(approximate - slope * norms[item]) <= exact);
                                let (low, high) = bound.around(approximate, slope * norms[item]);
                                prop_assert!(low <= exact && exact <= high && low < high);
                                for score in [exact, exact.next_up(), exact.next_down(), 0.9 * exact, 1.1 * exact, 0.0] {
                                    let bars = bound.thresholds(score, score, slope);
                                    let mut doubtful = Vec::new();
                                    let above = sift(kernel, &[approximate], &norms[item..=item], bars, &mut doubtful);
                                    let verdict = (above == 1, doubtful.is_empty());
                                    prop_assert!(
                                        if exact > score { verdict.0 || !verdict.1 }
                                        else if exact < score { !verdict.0 }
                                        else { verdict == (false, false) },
                                        "{} {precision:?} exact {exact:e} score {score:e} {verdict:?}", kernel.name()
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
                    let tile_scores = |(_, tile): &(usize, UserTile)| approximate(kernel, precision, tile, &panels);
                    let out: Vec<f32> = tiles.iter().flat_map(tile_scores).collect();
                    let expected = by_precision[precision as usize].get_or_insert_with(|| out.clone());
                    prop_assert_eq!(&out, expected, "{} {:?}", kernel.name(), precision);
                }
            }
        }
    }

    #[test]
    fn an_approximate_score_that_is_not_finite_says_nothing() {
        let row = [0.5; 64];
        let kernel = Kernel::supported()[0];
        let tile = UserTile::new(Matrix::new(&row, 64), kernel);
        let bound = tile.error_bound(0, Precision::Sixteen);
        for approximate in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(bound.around(approximate, 1.0), (f32::NEG_INFINITY, f32::INFINITY));
        }
        assert_eq!(bound.around(1.0, f32::INFINITY), (f32::NEG_INFINITY, f32::INFINITY));
    }

    /// Norms are upper bounds, and close ones where the panel keeps them.
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

    /// The number of panels in a batch does not matter.
    #[test]
    fn every_panel_depends_only_on_its_items() {
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
    fn the_bound_is_as_large_as_the_rounding() {
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
