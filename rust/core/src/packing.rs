//! Sequences into bins of one capacity.

use std::collections::BTreeSet;

use crate::{Error, Result};

/// Packs sequences into bins by best fit decreasing: longest first, each into the fullest bin that still holds it.
///
/// Of equally long sequences the one with the lower index comes first; of equally full bins the one opened first is
/// taken. Returns the sequences of each bin in increasing order of index, bins in the order they were opened. Every
/// sequence is in exactly one bin.
///
/// # Errors
/// [`Error::Parameter`] for a capacity of 0; [`Error::TooLong`] for a sequence longer than the capacity.
pub fn pack_sequences(lengths: &[usize], capacity: usize) -> Result<Vec<Vec<usize>>> {
    if capacity == 0 {
        return Err(Error::Parameter { name: "capacity", value: 0.0, range: "a bin must hold at least one token" });
    }
    if let Some(index) = lengths.iter().position(|length| *length > capacity) {
        return Err(Error::TooLong { index, length: lengths[index], capacity });
    }
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(lengths[*index]));

    let mut bins: Vec<Vec<usize>> = Vec::new();
    let mut room: BTreeSet<(usize, usize)> = BTreeSet::new(); // (tokens left, bin)
    for index in order {
        let length = lengths[index];
        let fullest = room.range((length, 0)..).next().copied();
        let (left, bin) = fullest.unwrap_or_else(|| {
            bins.push(Vec::new());
            (capacity, bins.len() - 1)
        });
        room.remove(&(left, bin));
        room.insert((left - length, bin));
        bins[bin].push(index);
    }
    bins.iter_mut().for_each(|bin| bin.sort_unstable());
    Ok(bins)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_fullest_bin_that_fits_is_taken() {
        // 7 and 6 open two bins of 10; 3 fits both and goes to the one with 3 left, 4 to the other.
        assert_eq!(pack_sequences(&[6, 3, 7, 4], 10).unwrap(), [vec![1, 2], vec![0, 3]]);
    }

    #[test]
    fn equal_lengths_go_by_index() {
        assert_eq!(pack_sequences(&[5, 5, 5], 10).unwrap(), [vec![0, 1], vec![2]]);
    }

    #[test]
    fn nothing_packs_into_nothing() {
        assert_eq!(pack_sequences(&[], 10).unwrap(), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn a_sequence_over_capacity_is_named() {
        let error = pack_sequences(&[3, 11, 12], 10).unwrap_err();
        assert_eq!(error, Error::TooLong { index: 1, length: 11, capacity: 10 });
    }

    #[test]
    fn a_capacity_of_zero_is_refused() {
        assert!(matches!(pack_sequences(&[0], 0), Err(Error::Parameter { name: "capacity", .. })));
    }

    /// Best fit decreasing by looking at every bin.
    fn by_definition(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by(|a, b| lengths[*b].cmp(&lengths[*a]).then(a.cmp(b)));
        let mut bins: Vec<(usize, Vec<usize>)> = Vec::new();
        for index in order {
            let best = bins.iter_mut().filter(|(used, _)| used + lengths[index] <= capacity);
            let best = best.fold(None, |best: Option<&mut (usize, Vec<usize>)>, bin| match best {
                Some(best) if best.0 >= bin.0 => Some(best),
                _ => Some(bin),
            });
            match best {
                Some((used, bin)) => {
                    *used += lengths[index];
                    bin.push(index);
                }
                None => bins.push((lengths[index], vec![index])),
            }
        }
        bins.into_iter()
            .map(|(_, mut bin)| {
                bin.sort_unstable();
                bin
            })
            .collect()
    }

    proptest! {
        #[test]
        fn every_sequence_once_within_capacity_as_defined(lengths in proptest::collection::vec(0_usize..40, 0..120)) {
            let bins = pack_sequences(&lengths, 40).unwrap();
            let mut all: Vec<usize> = bins.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            prop_assert!(bins.iter().all(|bin| bin.iter().map(|index| lengths[*index]).sum::<usize>() <= 40));
            prop_assert_eq!(bins, by_definition(&lengths, 40));
        }
    }
}
