//! Which sequences must share a bin.

use std::collections::HashMap;

use crate::{Error, Ragged, Result};

/// Which sequences must share a bin.
#[derive(Debug, Clone, Copy)]
pub enum Together<'a> {
    /// None: every sequence is packed separately.
    Nothing,
    /// Sequences with the same label.
    Groups(&'a [i64]),
    /// A sequence and all sequences that continue it. The values are the sequence that each sequence continues, or -1.
    Prefixes(&'a [i64]),
}

impl Together<'_> {
    /// The sequences of each unit that is packed as one, in increasing order. The units are in the order of their first
    /// sequence.
    ///
    /// # Errors
    /// [`Error::PerSequence`]; [`Error::Prefix`].
    pub fn units(self, num_sequences: usize) -> Result<Ragged> {
        let (unit_of, num_units) = self.unit_of(num_sequences)?;
        Ok(Ragged::from_row_of(&unit_of, num_units))
    }

    /// The unit of each sequence, and the number of units.
    pub(super) fn unit_of(self, num_sequences: usize) -> Result<(Vec<usize>, usize)> {
        match self {
            Together::Nothing => Ok(((0..num_sequences).collect(), num_sequences)),
            Together::Groups(groups) => {
                check_one_per_sequence("groups", groups.len(), num_sequences)?;
                let mut units = HashMap::new();
                let unit_of = groups.iter().map(|group| {
                    let next = units.len();
                    *units.entry(group).or_insert(next)
                });
                Ok((unit_of.collect(), units.len()))
            }
            Together::Prefixes(prefixes) => {
                check_prefixes(prefixes, num_sequences)?;
                let mut unit_of: Vec<usize> = Vec::with_capacity(num_sequences);
                let mut num_units = 0;
                for prefix in prefixes {
                    unit_of.push(usize::try_from(*prefix).map_or(num_units, |prefix| unit_of[prefix]));
                    num_units += usize::from(*prefix < 0);
                }
                Ok((unit_of, num_units))
            }
        }
    }
}

/// Checks that every prefix is an earlier sequence without a prefix of its own.
///
/// # Errors
/// [`Error::PerSequence`]; [`Error::Prefix`].
pub(super) fn check_prefixes(prefixes: &[i64], num_sequences: usize) -> Result<()> {
    check_one_per_sequence("prefixes", prefixes.len(), num_sequences)?;
    for (index, &prefix) in prefixes.iter().enumerate() {
        let problem = match prefix {
            -1 => continue,
            ..-1 => "which is no sequence",
            _ if prefix >= num_sequences as i64 => "which is no sequence",
            _ if prefix >= index as i64 => "which is not earlier",
            _ if prefixes[prefix as usize] >= 0 => "which continues another one itself",
            _ => continue,
        };
        return Err(Error::Prefix { index, prefix, problem });
    }
    Ok(())
}

/// Checks that there is one value for each sequence.
///
/// # Errors
/// [`Error::PerSequence`].
pub(super) fn check_one_per_sequence(name: &'static str, values: usize, sequences: usize) -> Result<()> {
    if values == sequences { Ok(()) } else { Err(Error::PerSequence { name, values, sequences }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_ordered_by_their_first_sequence() {
        let rows = |together: Together| together.units(4).unwrap();
        assert_eq!(rows(Together::Nothing), Ragged::from_rows(&[vec![0], vec![1], vec![2], vec![3]]));
        assert_eq!(rows(Together::Groups(&[5, -1, 5, 2])), Ragged::from_rows(&[vec![0, 2], vec![1], vec![3]]));
        assert_eq!(rows(Together::Prefixes(&[-1, -1, 0, 0])), Ragged::from_rows(&[vec![0, 2, 3], vec![1]]));
    }

    #[test]
    fn a_prefix_is_an_earlier_sequence_without_a_prefix() {
        for (prefixes, index, problem) in [
            ([-1, -2, 0], 1, "which is no sequence"),
            ([-1, 3, 0], 1, "which is no sequence"),
            ([-1, 1, 0], 1, "which is not earlier"),
            ([-1, 2, -1], 1, "which is not earlier"),
            ([-1, 0, 1], 2, "which continues another one itself"),
        ] {
            let error = Together::Prefixes(&prefixes).units(3).unwrap_err();
            assert_eq!(error, Error::Prefix { index, prefix: prefixes[index], problem });
        }
    }

    #[test]
    fn there_is_one_label_for_each_sequence() {
        let error = |name| Error::PerSequence { name, values: 1, sequences: 2 };
        assert_eq!(Together::Groups(&[0]).units(2).unwrap_err(), error("groups"));
        assert_eq!(Together::Prefixes(&[-1]).units(2).unwrap_err(), error("prefixes"));
    }
}
