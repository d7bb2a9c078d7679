//! Best fit decreasing, one length and one room at a time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::Ragged;

/// Packs lengths of at most `capacity` into bins; see [`super::pack_sequences`].
///
/// Equal lengths are placed in one go: the fullest bin that holds one of them takes as many as it has room for, as with
/// one in it the bin is fuller still and stays the first choice while it fits. So the rooms are searched once for each
/// length and room that meet, not once for each sequence.
pub fn best_fit_decreasing(lengths: &[usize], capacity: usize) -> Ragged {
    let mut bin_of = vec![0; lengths.len()];
    let mut num_bins = 0;
    // The bins that have a room left, the oldest first.
    let mut bins_with_room: BTreeMap<usize, BinaryHeap<Reverse<usize>>> = BTreeMap::new();
    for equal in longest_first(lengths).chunk_by(|a, b| lengths[*a] == lengths[*b]) {
        let length = lengths[equal[0]];
        let mut left = equal;
        while !left.is_empty() {
            let room = bins_with_room.range(length..).next().map_or(capacity, |(room, _)| *room);
            let each = room.checked_div(length).unwrap_or(left.len());
            let mut bins = bins_with_room.remove(&room).unwrap_or_else(|| {
                let opened = num_bins..num_bins + left.len().div_ceil(each);
                num_bins = opened.end;
                opened.map(Reverse).collect()
            });
            let (placed, later) = left.split_at(left.len().min(bins.len().saturating_mul(each)));
            for of_one_bin in placed.chunks(each) {
                let Reverse(bin) = bins.pop().expect("there is a bin for each chunk");
                of_one_bin.iter().for_each(|index| bin_of[*index] = bin);
                bins_with_room.entry(room - of_one_bin.len() * length).or_default().push(Reverse(bin));
            }
            if !bins.is_empty() {
                bins_with_room.entry(room).or_default().append(&mut bins);
            }
            left = later;
        }
    }
    Ragged::from_row_of(&bin_of, num_bins)
}

/// The indexes of the lengths in decreasing order, those of equal length in increasing order of index: a radix sort.
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
