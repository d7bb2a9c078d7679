//! Distribution of bins over ranks by largest differencing.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::together::{Together, check_one_per_sequence};
use crate::{Error, Ragged, Result};

/// Distributes bins over ranks. Every rank gets the same number of bins, and largest differencing makes the sums of
/// their costs nearly equal.
///
/// Where the number of bins is not a multiple of the ranks, the costliest bins are split in two until it is. Sequences
/// that stay together are not split. `costs` holds one cost for each of the `num_sequences` sequences, and the cost of
/// a bin is the sum of its sequences' costs.
///
/// Returns the bins rank by rank. The costliest bin of each rank comes first, so that all ranks work on bins of similar
/// cost at the same time. The first rank has the largest sum.
///
/// # Errors
/// [`Error::Parameter`] for 0 ranks; [`Error::PerSequence`] and [`Error::Cost`] for `costs`; [`Error::TooFewForRanks`]
/// where no bin is left to split; those of [`Together::units`].
pub fn balance(
    bins: &Ragged,
    num_sequences: usize,
    together: Together,
    costs: &[f64],
    num_ranks: usize,
) -> Result<Ragged> {
    if num_ranks == 0 {
        return Err(Error::Parameter { name: "num_ranks", value: 0.0, range: "there is at least one rank" });
    }
    check_one_per_sequence("costs", costs.len(), num_sequences)?;
    if let Some(index) = costs.iter().position(|cost| !(cost.is_finite() && *cost >= 0.0)) {
        return Err(Error::Cost { index, cost: costs[index] });
    }
    let (unit_of, _) = together.unit_of(num_sequences)?;
    let mut bins = split_to_multiple(num_ranks, bins, &unit_of, costs)?;
    let bin_costs: Vec<f64> = bins.iter().map(|bin| sum_of(bin, costs)).collect();
    let mut by_rank = Vec::with_capacity(bins.len());
    for mut part in equal_parts(&bin_costs, num_ranks) {
        part.sort_by(|a, b| bin_costs[*b].total_cmp(&bin_costs[*a]).then(a.cmp(b)));
        by_rank.extend(part.into_iter().map(|bin| std::mem::take(&mut bins[bin])));
    }
    Ok(Ragged::from_rows(&by_rank))
}

fn sum_of(bin: &[usize], costs: &[f64]) -> f64 {
    bin.iter().map(|index| costs[*index]).sum()
}

/// The bins, split until their number is a multiple of the ranks. Each step splits the costliest bin that holds more
/// than one unit.
fn split_to_multiple(num_ranks: usize, bins: &Ragged, unit_of: &[usize], costs: &[f64]) -> Result<Vec<Vec<usize>>> {
    let units = |bin: &[usize]| bin.chunk_by(|a, b| unit_of[*a] == unit_of[*b]).count();
    let num_bins = bins.rows();
    let needed = num_bins.next_multiple_of(num_ranks);
    let num_units = (0..num_bins).map(|bin| units(bins.row(bin))).sum();
    if num_units < needed {
        return Err(Error::TooFewForRanks { bins: num_bins, ranks: num_ranks, needed, units: num_units });
    }
    let mut bins: Vec<Vec<usize>> = (0..num_bins).map(|bin| bins.row(bin).to_vec()).collect();
    while bins.len() < needed {
        let splittable = (0..bins.len()).filter(|bin| units(&bins[*bin]) > 1);
        let costliest = splittable.max_by(|a, b| sum_of(&bins[*a], costs).total_cmp(&sum_of(&bins[*b], costs)));
        let bin = costliest.expect("there are more units than bins");
        let (one, other) = split_in_two(&bins[bin], unit_of, costs);
        bins[bin] = one;
        bins.push(other);
    }
    Ok(bins)
}

/// The units of a bin as two bins of similar cost, each in the order of the bin.
fn split_in_two(bin: &[usize], unit_of: &[usize], costs: &[f64]) -> (Vec<usize>, Vec<usize>) {
    let units: Vec<&[usize]> = bin.chunk_by(|a, b| unit_of[*a] == unit_of[*b]).collect();
    let unit_costs: Vec<f64> = units.iter().map(|unit| sum_of(unit, costs)).collect();
    let mut halves = equal_parts(&unit_costs, 2).into_iter().map(|mut half| {
        half.sort_unstable();
        half.into_iter().flat_map(|unit| units[unit]).copied().collect()
    });
    (halves.next().expect("two parts"), halves.next().expect("two parts"))
}

/// The indexes of `costs` in `num_parts` parts, in decreasing order of their sums. The sizes of the parts differ by at
/// most one. Without costs there are no parts.
///
/// This is the differencing method of Karmarkar and Karp (1982) for parts of equal size (Michiels, Korst, Aarts and van
/// Leeuwen, 2003). The costs are sorted, and every `num_parts` of them become a partition with one cost in each part.
/// Then the two partitions with the largest spread are merged, the largest part of one with the smallest part of the
/// other, until one partition is left. Its largest sum is at most 2 - 1/`num_parts` times the smallest possible. It is
/// the smallest possible with up to two costs in a part.
fn equal_parts(costs: &[f64], num_parts: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by(|a, b| costs[*b].total_cmp(&costs[*a]));
    let mut partitions: BinaryHeap<Partition> =
        order.chunks(num_parts).map(|some| Partition::new(some, costs, num_parts)).collect();
    while let Some(widest) = partitions.pop() {
        match partitions.pop() {
            Some(next) => partitions.push(widest.merged(next)),
            None => return widest.parts.into_iter().map(|part| part.indexes).collect(),
        }
    }
    Vec::new()
}

struct Part {
    cost: f64,
    indexes: Vec<usize>,
}

impl Part {
    fn joined(self, other: Self) -> Self {
        let cost = self.cost + other.cost;
        let (mut indexes, fewer) = match self.indexes.len() < other.indexes.len() {
            true => (other.indexes, self.indexes),
            false => (self.indexes, other.indexes),
        };
        indexes.extend(fewer);
        Self { cost, indexes }
    }
}

/// Parts in decreasing order of cost. Partitions are ordered by the spread of their costs, and then by their least
/// index.
struct Partition {
    parts: Vec<Part>,
    least_index: usize,
}

impl Partition {
    /// A partition with one cost in each part. The costs are in decreasing order, and the last parts may be empty.
    fn new(indexes: &[usize], costs: &[f64], num_parts: usize) -> Self {
        let filled = indexes.iter().map(|index| Part { cost: costs[*index], indexes: vec![*index] });
        let empty = (indexes.len()..num_parts).map(|_| Part { cost: 0.0, indexes: Vec::new() });
        let least_index = indexes.iter().copied().min().expect("a chunk is not empty");
        Self { parts: filled.chain(empty).collect(), least_index }
    }

    fn merged(self, other: Self) -> Self {
        let least_index = self.least_index.min(other.least_index);
        let mut parts: Vec<Part> =
            self.parts.into_iter().zip(other.parts.into_iter().rev()).map(|(a, b)| a.joined(b)).collect();
        parts.sort_by(|a, b| b.cost.total_cmp(&a.cost));
        Self { parts, least_index }
    }

    fn spread(&self) -> f64 {
        self.parts[0].cost - self.parts[self.parts.len() - 1].cost
    }
}

impl Ord for Partition {
    fn cmp(&self, other: &Self) -> Ordering {
        self.spread().total_cmp(&other.spread()).then(other.least_index.cmp(&self.least_index))
    }
}

impl PartialOrd for Partition {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Partition {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Partition {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::pack_sequences;
    use proptest::prelude::*;

    fn sums(parts: &[Vec<usize>], costs: &[f64]) -> Vec<f64> {
        parts.iter().map(|part| sum_of(part, costs)).collect()
    }

    fn largest(sums: &[f64]) -> f64 {
        sums.iter().copied().fold(0.0, f64::max)
    }

    fn spread(sums: &[f64]) -> f64 {
        largest(sums) - sums.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Longest processing time first: the costliest remaining index goes to the part with the smallest sum that is not
    /// full.
    fn greedy(costs: &[f64], num_parts: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..costs.len()).collect();
        order.sort_by(|a, b| costs[*b].total_cmp(&costs[*a]));
        let mut parts = vec![Vec::new(); num_parts];
        for index in order {
            let open = (0..num_parts).filter(|part| parts[*part].len() < costs.len().div_ceil(num_parts));
            let least = open.min_by(|a, b| sum_of(&parts[*a], costs).total_cmp(&sum_of(&parts[*b], costs)));
            parts[least.unwrap()].push(index);
        }
        parts
    }

    /// The smallest possible largest sum of `num_parts` parts of `size` costs, by trying all partitions.
    fn optimum(costs: &[f64], num_parts: usize, size: usize) -> f64 {
        fn place(costs: &[f64], size: usize, parts: &mut [(f64, usize)]) -> f64 {
            let Some((cost, rest)) = costs.split_first() else {
                return parts.iter().fold(0.0, |largest, part| part.0.max(largest));
            };
            let mut best = f64::INFINITY;
            for part in 0..parts.len() {
                let before = parts[part];
                if before.1 < size {
                    parts[part] = (before.0 + cost, before.1 + 1);
                    best = best.min(place(rest, size, parts));
                    parts[part] = before;
                }
            }
            best
        }
        place(costs, size, &mut vec![(0.0, 0); num_parts])
    }

    #[test]
    fn parts_by_hand() {
        // (8, 7) and (6, 5) merge to 8 + 5 and 7 + 6, which differ by 0. Merging (4, 3) gives 17 and 16.
        let costs = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0];
        assert_eq!(sums(&equal_parts(&costs, 2), &costs), [17.0, 16.0]);
        assert_eq!(equal_parts(&[], 3), Vec::<Vec<usize>>::new());
        assert_eq!(equal_parts(&[2.0], 2), [vec![0], vec![]]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn the_spread_is_smaller_than_that_of_greedy_on_average() {
        let mut state = 7_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8)
        };
        for num_parts in [2, 3, 8] {
            let (mut ours, mut theirs) = (0.0, 0.0);
            for size in (1..=16).cycle().take(200) {
                let costs: Vec<f64> = (0..num_parts * size).map(|_| next()).collect();
                ours += spread(&sums(&equal_parts(&costs, num_parts), &costs));
                theirs += spread(&sums(&greedy(&costs, num_parts), &costs));
            }
            assert!(ours < theirs, "{num_parts} parts: {ours} and greedy {theirs}");
        }
    }

    proptest! {
        #[test]
        fn parts_have_one_size_and_the_proven_largest_sum(
            num_parts in 2_usize..4,
            costs in proptest::collection::vec(0_u8..50, 1..4 * 3),
        ) {
            let costs: Vec<f64> = costs.into_iter().map(f64::from).collect();
            let parts = equal_parts(&costs, num_parts);
            let mut all = parts.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..costs.len()).collect::<Vec<_>>());
            let size = costs.len().div_ceil(num_parts);
            prop_assert!(parts.iter().all(|part| (costs.len() / num_parts..=size).contains(&part.len())));
            let sums = sums(&parts, &costs);
            prop_assert!(sums.is_sorted_by(|a, b| a >= b));
            let (found, best) = (largest(&sums), optimum(&costs, num_parts, size));
            let ratio = if size <= 2 { 1.0 } else { 2.0 - 1.0 / num_parts as f64 };
            prop_assert!(found <= best * ratio, "{found} where {best} is possible");
        }

        #[test]
        fn ranks_get_the_same_number_of_bins_and_groups_stay_together(
            sequences in proptest::collection::vec((1_usize..20, 0_i64..30), 1..60),
            num_ranks in 1_usize..6,
        ) {
            let (lengths, mut groups): (Vec<usize>, Vec<i64>) = sequences.into_iter().unzip();
            groups.sort_unstable();
            let together = Together::Groups(&groups);
            let Ok(bins) = pack_sequences(&lengths, 40, together) else { return Ok(()) };
            let costs: Vec<f64> = lengths.iter().map(|length| (length * length) as f64).collect();
            let units = together.units(lengths.len()).unwrap();
            let needed = bins.rows().next_multiple_of(num_ranks);
            match balance(&bins, lengths.len(), together, &costs, num_ranks) {
                Ok(balanced) => {
                    prop_assert_eq!(balanced.rows(), needed);
                    let mut all = balanced.values().to_vec();
                    all.sort_unstable();
                    prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
                    for bin in 0..needed {
                        let row = balanced.row(bin);
                        prop_assert!(!row.is_empty());
                        prop_assert!(row.iter().map(|index| lengths[*index]).sum::<usize>() <= 40);
                    }
                    let bin_of = |index| (0..needed).find(|bin| balanced.row(*bin).contains(&index));
                    for unit in 0..units.rows() {
                        prop_assert!(units.row(unit).iter().all(|index| bin_of(*index) == bin_of(units.row(unit)[0])));
                    }
                    let rank_costs: Vec<Vec<f64>> = (0..num_ranks)
                        .map(|rank| rank * needed / num_ranks..(rank + 1) * needed / num_ranks)
                        .map(|bins| bins.map(|bin| sum_of(balanced.row(bin), &costs)).collect())
                        .collect();
                    prop_assert!(rank_costs.iter().all(|rank| rank.is_sorted_by(|a, b| a >= b)));
                    prop_assert!(rank_costs.is_sorted_by_key(|rank| -rank.iter().sum::<f64>()));
                }
                Err(error) => {
                    prop_assert!(units.rows() < needed);
                    let (bins, units) = (bins.rows(), units.rows());
                    prop_assert_eq!(error, Error::TooFewForRanks { bins, ranks: num_ranks, needed, units });
                }
            }
        }
    }

    #[test]
    fn no_bins_are_balanced() {
        assert_eq!(balance(&Ragged::empty(0), 0, Together::Nothing, &[], 3).unwrap(), Ragged::empty(0));
    }

    #[test]
    fn bad_arguments_are_refused() {
        let bins = Ragged::from_rows(&[vec![0], vec![1]]);
        let error = |costs: &[f64], num_ranks| balance(&bins, 2, Together::Nothing, costs, num_ranks).unwrap_err();
        assert!(matches!(error(&[1.0, 1.0], 0), Error::Parameter { name: "num_ranks", .. }));
        assert_eq!(error(&[1.0, 1.0], 3), Error::TooFewForRanks { bins: 2, ranks: 3, needed: 3, units: 2 });
        assert_eq!(error(&[1.0], 1), Error::PerSequence { name: "costs", values: 1, sequences: 2 });
        assert_eq!(error(&[1.0, -1.0], 1), Error::Cost { index: 1, cost: -1.0 });
        assert!(matches!(error(&[f64::NAN, -1.0], 1), Error::Cost { index: 0, .. }));
    }
}
