//! Best fit decreasing, one length and one amount of free space at a time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::Ragged;

/// Packs lengths of at most `capacity` into bins; see [`super::pack_sequences`].
///
/// Equal lengths are placed together. The fullest bin that holds one of them takes as many as fit: with one more
/// sequence the bin is fuller still, so it stays the first choice. The bins are therefore searched once for each pair
/// of length and free space that meet, and not once for each sequence.
pub fn best_fit_decreasing(lengths: &[usize], capacity: usize) -> Ragged {
    let mut bin_of = vec![0; lengths.len()];
    let mut num_bins = 0;
    // The bins by their free space, the oldest first.
    let mut bins_by_space: BTreeMap<usize, BinaryHeap<Reverse<usize>>> = BTreeMap::new();
    for equal in longest_first(lengths).chunk_by(|a, b| lengths[*a] == lengths[*b]) {
        let length = lengths[equal[0]];
        let mut left = equal;
        while !left.is_empty() {
            let space = bins_by_space.range(length..).next().map_or(capacity, |(space, _)| *space);
            let num_per_bin = space.checked_div(length).unwrap_or(left.len());
            let mut bins = bins_by_space.remove(&space).unwrap_or_else(|| {
                let opened = num_bins..num_bins + left.len().div_ceil(num_per_bin);
                num_bins = opened.end;
                opened.map(Reverse).collect()
            });
            let (placed, later) = left.split_at(left.len().min(bins.len().saturating_mul(num_per_bin)));
            for indexes in placed.chunks(num_per_bin) {
                let Reverse(bin) = bins.pop().expect("there is a bin for each chunk");
                indexes.iter().for_each(|index| bin_of[*index] = bin);
                bins_by_space.entry(space - indexes.len() * length).or_default().push(Reverse(bin));
            }
            if !bins.is_empty() {
                bins_by_space.entry(space).or_default().append(&mut bins);
            }
            left = later;
        }
    }
    Ragged::from_row_of(&bin_of, num_bins)
}

/// The indexes of the lengths in decreasing order of length, by a stable radix sort. Equal lengths keep the order of
/// their indexes.
fn longest_first(lengths: &[usize]) -> Vec<usize> {
    const DIGIT_BITS: u32 = 11;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    let mut sorted = order.clone();
    for shift in (0..usize::BITS - longest.leading_zeros()).step_by(DIGIT_BITS as usize) {
        let digit = |index: usize| (longest - lengths[index]) >> shift & ((1 << DIGIT_BITS) - 1);
        let mut next = [0; 1 << DIGIT_BITS];
        order.iter().for_each(|index| next[digit(*index)] += 1);
        let mut start = 0;
        next.iter_mut().for_each(|count| start += std::mem::replace(count, start));
        for index in &order {
            sorted[next[digit(*index)]] = *index;
            next[digit(*index)] += 1;
        }
        std::mem::swap(&mut order, &mut sorted);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_radix_sort_is_stable(lengths in prop_oneof![
            proptest::collection::vec(0_usize..5, 0..50),
            proptest::collection::vec(0_usize..1 << 23, 0..50),
            proptest::collection::vec(any::<usize>(), 0..50),
        ]) {
            let mut order: Vec<usize> = (0..lengths.len()).collect();
            order.sort_by_key(|index| Reverse(lengths[*index]));
            prop_assert_eq!(longest_first(&lengths), order);
        }
    }
}
