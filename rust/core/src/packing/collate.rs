//! Tokens in the order of the bins.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::together::check_prefixes;
use crate::{Error, Ragged, Result};

/// One thread copies up to this many tokens.
const MAX_TOKENS_PER_TASK: usize = 1 << 16;

/// A token id: i32 or i64.
pub trait Token: Copy + Send + Sync {
    /// The positions `0..num_positions`.
    fn positions(num_positions: usize) -> Vec<Self>;
}

impl Token for i32 {
    fn positions(num_positions: usize) -> Vec<Self> {
        (0..num_positions as i32).collect()
    }
}

impl Token for i64 {
    fn positions(num_positions: usize) -> Vec<Self> {
        (0..num_positions as i64).collect()
    }
}

/// Where the tokens of every sequence lie in the input and in the output.
pub struct Layout<'a> {
    bins: &'a Ragged,
    lengths: &'a [usize],
    /// The sequence that each sequence continues, or -1.
    prefixes: Option<&'a [i64]>,
    /// Where the tokens of each sequence start in the flat tokens, and where the last sequence ends.
    starts: Vec<usize>,
    /// Where the tokens of each bin start in the output, and where the last bin ends.
    bin_starts: Vec<usize>,
}

impl<'a> Layout<'a> {
    /// The layout of sequences in bins. The lengths must sum to `num_tokens`.
    ///
    /// # Errors
    /// [`Error::BinTooLong`] for a bin with more tokens than an i32 can count; [`Error::PerSequence`] and
    /// [`Error::Prefix`] for `prefixes`; [`Error::Tokens`] where the lengths have another sum, so that the caller
    /// allocates no output for missing tokens.
    ///
    /// # Panics
    /// When a bin holds a sequence without a length.
    pub fn new(bins: &'a Ragged, lengths: &'a [usize], prefixes: Option<&'a [i64]>, num_tokens: usize) -> Result<Self> {
        prefixes.map_or(Ok(()), |prefixes| check_prefixes(prefixes, lengths.len()))?;
        let length_of = |bin| bins.row(bin).iter().fold(0_usize, |sum, index| sum.saturating_add(lengths[*index]));
        let bin_lengths: Vec<usize> = (0..bins.rows()).map(length_of).collect();
        if let Some(bin) = bin_lengths.iter().position(|length| *length > i32::MAX as usize) {
            return Err(Error::BinTooLong { bin, length: bin_lengths[bin] });
        }
        let starts = running_sum(lengths);
        let total = starts[lengths.len()];
        if num_tokens != total {
            return Err(Error::Tokens { tokens: num_tokens, total });
        }
        Ok(Self { bins, lengths, prefixes, starts, bin_starts: running_sum(&bin_lengths) })
    }

    /// Where the tokens of each bin start in the output, and where the last bin ends.
    pub fn bin_starts(&self) -> &[usize] {
        &self.bin_starts
    }

    /// Where each sequence of a bin starts in the bin, and where the last one ends, bin by bin. A bin has one number
    /// more than sequences.
    pub fn cu_seqlens(&self) -> Vec<i32> {
        let mut ends = Vec::with_capacity(self.bins.values().len() + self.bins.rows());
        for bin in 0..self.bins.rows() {
            ends.push(0);
            let mut end = 0;
            ends.extend(self.bins.row(bin).iter().map(|index| {
                end += self.lengths[*index] as i32;
                end
            }));
        }
        ends
    }

    /// Writes the tokens of all sequences in the order of the bins, and the position of each token in its sequence.
    /// Every number of both outputs is written.
    ///
    /// Positions start at 0. In a sequence that continues a prefix they start behind the prefix. The work is parallel
    /// over bins. Memory is the limit: each token is read once and two numbers are written for it, which is 360 MB for
    /// 30 million tokens of i32.
    ///
    /// # Panics
    /// When the number of tokens is not that of the layout, or an output has another length than the end of
    /// `bin_starts`.
    pub fn collate<T: Token>(
        &self,
        tokens: &[T],
        input_ids: &mut [MaybeUninit<T>],
        position_ids: &mut [MaybeUninit<T>],
    ) {
        let num_tokens = self.bin_starts[self.bins.rows()];
        assert_eq!(tokens.len(), self.starts[self.lengths.len()]);
        assert!(input_ids.len() == num_tokens && position_ids.len() == num_tokens, "outputs of {num_tokens} tokens");
        let ends = self.bins.values().iter().map(|index| self.first_position(*index) + self.lengths[*index]);
        let positions = T::positions(ends.max().unwrap_or(0));
        self.fill(0..self.bins.rows(), tokens, &positions, input_ids, position_ids);
    }

    fn first_position(&self, index: usize) -> usize {
        let prefix = self.prefixes.and_then(|prefixes| usize::try_from(prefixes[index]).ok());
        prefix.map_or(0, |prefix| self.lengths[prefix])
    }

    fn fill<T: Token>(
        &self,
        bins: Range<usize>,
        tokens: &[T],
        positions: &[T],
        input_ids: &mut [MaybeUninit<T>],
        position_ids: &mut [MaybeUninit<T>],
    ) {
        if bins.len() > 1 && input_ids.len() > MAX_TOKENS_PER_TASK {
            let middle = bins.start + bins.len() / 2;
            let cut = self.bin_starts[middle] - self.bin_starts[bins.start];
            let ((ids, later_ids), (at, later_at)) = (input_ids.split_at_mut(cut), position_ids.split_at_mut(cut));
            rayon::join(
                || self.fill(bins.start..middle, tokens, positions, ids, at),
                || self.fill(middle..bins.end, tokens, positions, later_ids, later_at),
            );
            return;
        }
        let mut start = 0;
        for &index in bins.flat_map(|bin| self.bins.row(bin)) {
            let (length, first) = (self.lengths[index], self.first_position(index));
            let (from, to) = (self.starts[index], start..start + length);
            write(&mut input_ids[to.clone()], &tokens[from..from + length]);
            write(&mut position_ids[to.clone()], &positions[first..first + length]);
            start = to.end;
        }
    }
}

fn write<T: Token>(to: &mut [MaybeUninit<T>], from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, from)| {
        to.write(*from);
    });
}

/// 0, then the sum of the first length, of the first two, and so on.
fn running_sum(lengths: &[usize]) -> Vec<usize> {
    let sums = lengths.iter().scan(0_usize, |sum, length| {
        *sum = sum.saturating_add(*length);
        Some(*sum)
    });
    std::iter::once(0).chain(sums).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::{Together, pack_sequences};
    use proptest::prelude::*;

    fn collated<T: Token>(layout: &Layout, tokens: &[T]) -> (Vec<T>, Vec<T>) {
        let num_tokens = layout.bin_starts()[layout.bins.rows()];
        let (mut input_ids, mut position_ids) =
            (vec![MaybeUninit::uninit(); num_tokens], vec![MaybeUninit::uninit(); num_tokens]);
        layout.collate(tokens, &mut input_ids, &mut position_ids);
        // SAFETY: `collate` has written every number.
        let all = |written: Vec<MaybeUninit<T>>| written.iter().map(|one| unsafe { one.assume_init() }).collect();
        (all(input_ids), all(position_ids))
    }

    #[test]
    fn tokens_and_positions_by_hand() {
        let bins = Ragged::from_rows(&[vec![1, 2], vec![], vec![0]]);
        let layout = Layout::new(&bins, &[3, 0, 2], None, 5).unwrap();
        assert_eq!(layout.bin_starts(), [0, 2, 2, 5]);
        assert_eq!(layout.cu_seqlens(), [0, 0, 2, 0, 0, 3]);
        let tokens = [10_i32, 11, 12, 20, 21];
        assert_eq!(collated(&layout, &tokens), (vec![20, 21, 10, 11, 12], vec![0, 1, 0, 1, 2]));
    }

    #[test]
    fn positions_continue_behind_the_prefix() {
        let bins = Ragged::from_rows(&[vec![0, 1, 2]]);
        let layout = Layout::new(&bins, &[2, 2, 1], Some(&[-1, 0, 0]), 5).unwrap();
        let tokens = [5_i64, 6, 7, 8, 9];
        assert_eq!(collated(&layout, &tokens), (tokens.to_vec(), vec![0, 1, 2, 3, 2]));
    }

    #[test]
    fn a_wrong_number_of_tokens_is_refused() {
        let bins = Ragged::from_rows(&[vec![0]]);
        assert_eq!(Layout::new(&bins, &[3], None, 2).err(), Some(Error::Tokens { tokens: 2, total: 3 }));
        let far = [i32::MAX as usize, 1];
        let error = Layout::new(&Ragged::from_rows(&[vec![0, 1]]), &far, None, 3).err();
        assert_eq!(error, Some(Error::BinTooLong { bin: 0, length: i32::MAX as usize + 1 }));
        let error = Layout::new(&bins, &[3], Some(&[0]), 3).err();
        assert!(matches!(error, Some(Error::Prefix { index: 0, prefix: 0, .. })));
    }

    /// Miri takes a thousand times longer, so sequences are shorter there.
    const LONGEST: usize = if cfg!(miri) { 50 } else { 3000 };

    proptest! {
        #[test]
        fn every_token_once_for_any_number_of_threads(
            lengths in proptest::collection::vec(0..LONGEST, 0..200),
        ) {
            let bins = pack_sequences(&lengths, LONGEST, Together::Nothing).unwrap();
            let tokens: Vec<i64> = (0..lengths.iter().sum::<usize>() as i64).collect();
            let layout = Layout::new(&bins, &lengths, None, tokens.len()).unwrap();
            let on = |num_threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads).build().unwrap();
                pool.install(|| collated(&layout, &tokens))
            };
            let (input_ids, position_ids) = on(1);
            prop_assert_eq!(&on(4), &(input_ids.clone(), position_ids.clone()));
            let expected = bins.values().iter().flat_map(|index| {
                let start = lengths[..*index].iter().sum::<usize>();
                (0..lengths[*index]).map(move |position| ((start + position) as i64, position as i64))
            });
            prop_assert!(input_ids.into_iter().zip(position_ids).eq(expected));
        }
    }
}
