//! Rows of different length: flat values and offsets (CSR).

use std::ops::Range;

use crate::{Error, Interrupt, Result};

/// Rows of item indexes, checked: row `r` is `values[offsets[r]..offsets[r + 1]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ragged {
    offsets: Vec<usize>,
    values: Vec<usize>,
}

/// Checks offsets that come from outside and must index `num_values` values.
///
/// # Errors
/// [`Error::Offsets`] when they do not start at 0, decrease, or do not end at `num_values`.
pub fn checked_offsets(name: &'static str, offsets: &[i64], num_values: usize) -> Result<Vec<usize>> {
    let fail = |problem: String| Error::Offsets { name, problem, values: num_values };
    match offsets {
        [0, .., last] if *last == num_values as i64 => {}
        [0] if num_values == 0 => {}
        [] => return Err(fail("are empty".into())),
        [first, .., last] => return Err(fail(format!("start at {first} and end at {last}"))),
        [only] => return Err(fail(format!("hold only {only}"))),
    }
    if let Some(row) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
        return Err(fail(format!("decrease after row {row}")));
    }
    Ok(offsets.iter().map(|offset| *offset as usize).collect())
}

impl Ragged {
    /// Checks rows of item indexes that come from outside.
    ///
    /// # Errors
    /// [`Error::Offsets`] as for [`checked_offsets`]; [`Error::OutOfRange`] for an index outside `items`.
    pub fn new(name: &'static str, offsets: &[i64], values: &[i64], items: Range<usize>) -> Result<Self> {
        Self::until(Interrupt::NEVER, name, offsets, values, items)
    }

    /// Like [`Ragged::new`], unless it is interrupted.
    ///
    /// # Errors
    /// Those of [`Ragged::new`], and [`Error::Interrupted`].
    pub fn until(
        interrupt: Interrupt,
        name: &'static str,
        offsets: &[i64],
        values: &[i64],
        items: Range<usize>,
    ) -> Result<Self> {
        let offsets = checked_offsets(name, offsets, values.len())?;
        let is_item = |item: &i64| usize::try_from(*item).is_ok_and(|item| items.contains(&item));
        let mut ragged = Self { offsets, values: Vec::with_capacity(values.len()) };
        for chunk in values.chunks(Self::VALUES_BETWEEN_CHECKS) {
            interrupt.check()?;
            if let Some(at) = chunk.iter().position(|item| !is_item(item)) {
                let row = ragged.row_of(ragged.values.len() + at);
                let (first, last) = (items.start, items.end.saturating_sub(1));
                return Err(Error::OutOfRange { name, row, item: chunk[at], first, last });
            }
            ragged.values.extend(chunk.iter().map(|item| *item as usize));
        }
        Ok(ragged)
    }

    const VALUES_BETWEEN_CHECKS: usize = 1 << 16;

    /// `rows` empty rows.
    pub fn empty(rows: usize) -> Self {
        Self { offsets: vec![0; rows + 1], values: Vec::new() }
    }

    /// The indexes `0..row_of.len()`, each in the row that `row_of` gives it, increasing within a row.
    ///
    /// # Panics
    /// When `row_of` holds a row that is not below `rows`.
    pub fn from_row_of(row_of: &[usize], rows: usize) -> Self {
        let mut offsets = vec![0; rows + 1];
        row_of.iter().for_each(|row| offsets[row + 1] += 1);
        (0..rows).for_each(|row| offsets[row + 1] += offsets[row]);
        let (mut next, mut values) = (offsets.clone(), vec![0; row_of.len()]);
        for (value, row) in row_of.iter().enumerate() {
            values[next[*row]] = value;
            next[*row] += 1;
        }
        Self { offsets, values }
    }

    /// The given rows, in order.
    pub fn from_rows(rows: &[Vec<usize>]) -> Self {
        Self::from_lengths(rows.iter().map(Vec::len), rows.concat())
    }

    /// Rows of these lengths, which sum to the number of values.
    pub(crate) fn from_lengths(lengths: impl Iterator<Item = usize>, values: Vec<usize>) -> Self {
        let ends = lengths.scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        Self { offsets: std::iter::once(0).chain(ends).collect(), values }
    }

    /// Refuses rows that are not one for each user. `name` names the argument.
    pub(crate) fn check_rows(&self, name: &'static str, num_users: usize) -> Result<()> {
        if self.rows() == num_users { Ok(()) } else { Err(Error::Rows { name, rows: self.rows(), users: num_users }) }
    }

    /// The offsets and the flat values.
    pub fn into_parts(self) -> (Vec<usize>, Vec<usize>) {
        (self.offsets, self.values)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[usize] {
        &self.values[self.span(row)]
    }

    /// Where a row lies in the flat values.
    pub fn span(&self, row: usize) -> Range<usize> {
        self.offsets[row]..self.offsets[row + 1]
    }

    /// The row that a place in the flat values belongs to.
    pub fn row_of(&self, place: usize) -> usize {
        self.offsets.partition_point(|offset| *offset <= place) - 1
    }

    /// Where each row starts in the flat values, and where the last row ends.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The flat values of all rows.
    pub fn values(&self) -> &[usize] {
        &self.values
    }

    /// Replaces each value by the row of `inner` that it names.
    ///
    /// # Panics
    /// When a value is not below the number of rows of `inner`.
    #[must_use]
    pub fn expanded(&self, inner: &Self) -> Self {
        let mut offsets = Vec::with_capacity(self.offsets.len());
        let mut values = Vec::with_capacity(inner.values.len());
        offsets.push(0);
        for row in 0..self.rows() {
            self.row(row).iter().for_each(|named| values.extend_from_slice(inner.row(*named)));
            offsets.push(values.len());
        }
        Self { offsets, values }
    }

    /// The indexes of each row that lie within `items`, each once and in increasing order.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn sorted_within(&self, items: Range<usize>, interrupt: Interrupt) -> Result<Self> {
        let mut offsets = Vec::with_capacity(self.offsets.len());
        let mut values = Vec::with_capacity(self.values.len());
        offsets.push(0);
        for row in 0..self.rows() {
            interrupt.check()?;
            let start = values.len();
            values.extend(self.row(row).iter().filter(|item| items.contains(item)));
            values[start..].sort_unstable();
            let mut kept = start;
            for at in start..values.len() {
                if kept == start || values[at] != values[kept - 1] {
                    values[kept] = values[at];
                    kept += 1;
                }
            }
            values.truncate(kept);
            offsets.push(kept);
        }
        Ok(Self { offsets, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_cut_values_into_rows() {
        let ragged = Ragged::new("x", &[0, 2, 2, 3], &[4, 1, 0], 0..5).unwrap();
        assert_eq!((ragged.rows(), ragged.row(0), ragged.row(1), ragged.row(2)), (3, &[4, 1][..], &[][..], &[0][..]));
        assert_eq!([0, 1, 2].map(|place| ragged.row_of(place)), [0, 0, 2]);
    }

    #[test]
    fn sorted_rows_keep_each_index_of_some_items_once() {
        let ragged = Ragged::new("x", &[0, 4, 4, 6], &[4, 1, 4, 1, 1, 0], 0..5).unwrap();
        let sorted = |items| ragged.sorted_within(items, Interrupt::NEVER).unwrap();
        assert_eq!(sorted(0..5), Ragged::from_rows(&[vec![1, 4], vec![], vec![0, 1]]));
        assert_eq!(sorted(1..4), Ragged::from_rows(&[vec![1], vec![], vec![1]]));
    }

    #[test]
    fn rows_are_built_from_the_row_of_each_index_and_from_rows_of_rows() {
        let ragged = Ragged::from_row_of(&[2, 0, 2, 0], 4);
        assert_eq!(ragged, Ragged::from_rows(&[vec![1, 3], vec![], vec![0, 2], vec![]]));
        let outer = Ragged::from_rows(&[vec![], vec![2, 1, 0]]);
        assert_eq!(outer.expanded(&ragged), Ragged::from_rows(&[vec![], vec![0, 2, 1, 3]]));
    }

    #[test]
    fn bad_offsets_are_refused() {
        for offsets in [&[][..], &[1], &[1, 3], &[0, 2], &[0, 4, 2, 3], &[0, -1, 3], &[0]] {
            let error = checked_offsets("exclude", offsets, 3).unwrap_err();
            assert!(matches!(error, Error::Offsets { name: "exclude", values: 3, .. }), "{offsets:?}: {error}");
        }
        assert_eq!(checked_offsets("exclude", &[0], 0).unwrap(), [0]);
    }

    #[test]
    fn an_index_out_of_range_is_named_with_its_row() {
        let error = |values: &[i64]| Ragged::new("targets", &[0, 0, 1, 1, 3], values, 2..5).unwrap_err();
        let expected = |row, item| Error::OutOfRange { name: "targets", row, item, first: 2, last: 4 };
        assert_eq!(error(&[5, 2, 2]), expected(1, 5));
        assert_eq!(error(&[4, 2, -1]), expected(3, -1));
        assert_eq!(error(&[4, 1, 4]), expected(3, 1));
    }
}
