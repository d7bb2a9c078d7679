//! Packing of token sequences into bins of one capacity, of the bins onto ranks, and of the tokens into bin order.

mod balance;
mod best_fit;
mod collate;
mod together;

pub use balance::balance;
pub use collate::{Layout, Token};
pub use together::Together;

use crate::{Error, Ragged, Result};

/// Packs sequences into bins by best fit decreasing: the longest first, each into the fullest bin that still holds it.
///
/// Sequences that stay together are packed as one sequence of their total length. Equally long sequences are packed in
/// increasing order of index. Among equally full bins, the bin that was opened first is taken.
///
/// Returns the bins in the order in which they were opened. The sequences of a bin are in increasing order of index,
/// except that sequences which stay together follow the first of them. Every sequence is in exactly one bin.
///
/// Best fit decreasing opens at most 11/9 of the fewest possible bins and 4 more (Johnson, Demers, Ullman, Garey and
/// Graham, 1974).
///
/// ```
/// use langptune_core::packing::{Together, balance, pack_sequences};
///
/// let lengths = [6, 3, 7, 4];
/// let bins = pack_sequences(&lengths, 10, Together::Nothing)?;
/// assert_eq!((bins.row(0), bins.row(1)), (&[1, 2][..], &[0, 3][..]));
/// let balanced = balance(&bins, lengths.len(), Together::Nothing, &[6.0, 3.0, 7.0, 4.0], 2)?;
/// assert_eq!(balanced.rows(), 2); // one bin for each rank
/// # Ok::<(), langptune_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Parameter`] for a capacity of 0; [`Error::TooLong`] for a sequence longer than the capacity;
/// [`Error::GroupTooLong`] for sequences whose total length exceeds the capacity; [`Error::PerSequence`] and
/// [`Error::Prefix`] for `together`.
pub fn pack_sequences(lengths: &[usize], capacity: usize, together: Together) -> Result<Ragged> {
    check_capacity(capacity)?;
    if let Some(index) = lengths.iter().position(|length| *length > capacity) {
        return Err(Error::TooLong { index, length: lengths[index], capacity });
    }
    if let Together::Nothing = together {
        return Ok(best_fit::best_fit_decreasing(lengths, capacity));
    }
    let units = together.units(lengths.len())?;
    let length_of = |unit| units.row(unit).iter().fold(0_usize, |sum, index| sum.saturating_add(lengths[*index]));
    let unit_lengths: Vec<usize> = (0..units.rows()).map(length_of).collect();
    if let Some(unit) = unit_lengths.iter().position(|length| *length > capacity) {
        let (first, sequences) = (units.row(unit)[0], units.row(unit).len());
        return Err(Error::GroupTooLong { first, sequences, length: unit_lengths[unit], capacity });
    }
    Ok(best_fit::best_fit_decreasing(&unit_lengths, capacity).expanded(&units))
}

/// Cuts every sequence into pieces of `capacity` tokens. The last piece of a sequence may be shorter.
///
/// Returns the length of each piece and the sequence it belongs to. The tokens keep their order. A sequence of 0 tokens
/// is one piece.
///
/// # Errors
/// [`Error::Parameter`] for a capacity of 0; [`Error::TooManyPieces`] for more pieces than memory holds.
pub fn split_sequences(lengths: &[usize], capacity: usize) -> Result<(Vec<usize>, Vec<usize>)> {
    check_capacity(capacity)?;
    let num_pieces = lengths.iter().fold(0_usize, |sum, length| sum.saturating_add(length.div_ceil(capacity).max(1)));
    let (mut pieces, mut sources) = (Vec::new(), Vec::new());
    let reserved = pieces.try_reserve_exact(num_pieces).and_then(|()| sources.try_reserve_exact(num_pieces));
    reserved.map_err(|_| Error::TooManyPieces { pieces: num_pieces, capacity })?;
    for (source, length) in lengths.iter().enumerate() {
        let mut left = *length;
        while left > capacity {
            pieces.push(capacity);
            left -= capacity;
        }
        pieces.push(left);
        sources.resize(pieces.len(), source);
    }
    Ok((pieces, sources))
}

fn check_capacity(capacity: usize) -> Result<()> {
    match capacity {
        0 => Err(Error::Parameter { name: "capacity", value: 0.0, range: "a bin must hold at least one token" }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bins_of(lengths: &[usize], capacity: usize) -> Result<Ragged> {
        pack_sequences(lengths, capacity, Together::Nothing)
    }

    #[test]
    fn the_fullest_bin_that_fits_is_taken() {
        // 7 and 6 open two bins of 10; 3 fits both and goes to the one with 3 left, 4 to the other.
        assert_eq!(bins_of(&[6, 3, 7, 4], 10).unwrap(), Ragged::from_rows(&[vec![1, 2], vec![0, 3]]));
    }

    #[test]
    fn equal_lengths_are_packed_by_index() {
        assert_eq!(bins_of(&[5, 5, 5], 10).unwrap(), Ragged::from_rows(&[vec![0, 1], vec![2]]));
    }

    #[test]
    fn nothing_packs_into_nothing() {
        assert_eq!(bins_of(&[], 10).unwrap(), Ragged::empty(0));
        assert_eq!(bins_of(&[0, 0], 10).unwrap(), Ragged::from_rows(&[vec![0, 1]]));
    }

    #[test]
    fn a_sequence_over_capacity_is_named() {
        let error = bins_of(&[3, 11, 12], 10).unwrap_err();
        assert_eq!(error, Error::TooLong { index: 1, length: 11, capacity: 10 });
    }

    #[test]
    fn a_capacity_of_zero_is_refused() {
        assert!(matches!(bins_of(&[0], 0), Err(Error::Parameter { name: "capacity", .. })));
        assert!(matches!(split_sequences(&[0], 0), Err(Error::Parameter { name: "capacity", .. })));
    }

    #[test]
    fn lengths_up_to_the_largest_number_are_packed() {
        let half = usize::MAX / 2 + 1;
        assert_eq!(bins_of(&[half, half - 1, half], usize::MAX).unwrap(), Ragged::from_rows(&[vec![0, 1], vec![2]]));
        let error = pack_sequences(&[half, half], usize::MAX - 1, Together::Groups(&[0, 0])).unwrap_err();
        assert_eq!(error, Error::GroupTooLong { first: 0, sequences: 2, length: usize::MAX, capacity: usize::MAX - 1 });
    }

    #[test]
    fn a_group_follows_its_first_sequence() {
        let bins = pack_sequences(&[1, 2, 3, 4], 10, Together::Groups(&[7, 9, 7, 9])).unwrap();
        assert_eq!(bins, Ragged::from_rows(&[vec![0, 2, 1, 3]]));
    }

    #[test]
    fn all_pieces_but_the_last_are_full() {
        let (pieces, sources) = split_sequences(&[25, 0, 10, 11], 10).unwrap();
        assert_eq!((pieces, sources), (vec![10, 10, 5, 0, 10, 10, 1], vec![0, 0, 0, 1, 2, 3, 3]));
    }

    #[test]
    fn more_pieces_than_memory_holds_are_refused() {
        let error = split_sequences(&[usize::MAX, 3], 2).unwrap_err();
        assert_eq!(error, Error::TooManyPieces { pieces: usize::MAX / 2 + 3, capacity: 2 });
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
        fn every_sequence_once_within_capacity_as_defined(
            (lengths, scale) in (prop_oneof![
                proptest::collection::vec(0_usize..41, 0..120), // many different
                proptest::collection::vec(0_usize..6, 0..120),  // many equal, several to a bin
            ], prop_oneof![Just(1), Just(1000)]),
        ) {
            let lengths: Vec<usize> = lengths.iter().map(|length| length * scale).collect();
            let bins = bins_of(&lengths, 40 * scale).unwrap();
            let mut all = bins.values().to_vec();
            all.sort_unstable();
            prop_assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
            for bin in 0..bins.rows() {
                prop_assert!(bins.row(bin).iter().map(|index| lengths[*index]).sum::<usize>() <= 40 * scale);
            }
            prop_assert_eq!(bins, Ragged::from_rows(&by_definition(&lengths, 40 * scale)));
        }

        #[test]
        fn groups_are_packed_as_one_sequence_each(
            sequences in proptest::collection::vec((0_usize..9, -3_i64..20), 0..60),
        ) {
            let (lengths, groups): (Vec<usize>, Vec<i64>) = sequences.into_iter().unzip();
            let units = Together::Groups(&groups).units(lengths.len()).unwrap();
            let sum_of = |unit| units.row(unit).iter().map(|index| lengths[*index]).sum();
            let sums: Vec<usize> = (0..units.rows()).map(sum_of).collect();
            let expected = match sums.iter().position(|length| *length > 40) {
                None => Ok(Ragged::from_rows(&by_definition(&sums, 40)).expanded(&units)),
                Some(unit) => {
                    let (first, sequences) = (units.row(unit)[0], units.row(unit).len());
                    Err(Error::GroupTooLong { first, sequences, length: sums[unit], capacity: 40 })
                }
            };
            prop_assert_eq!(pack_sequences(&lengths, 40, Together::Groups(&groups)), expected);
        }
    }
}
