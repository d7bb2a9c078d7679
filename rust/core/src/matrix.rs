//! A borrowed row-major float32 matrix.

use rayon::prelude::*;

use crate::{Error, Interrupt, Result};

/// Rows of float32 vectors, row-major and contiguous, borrowed from the caller.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    values: &'a [f32],
    dim: usize,
}

impl<'a> Matrix<'a> {
    /// Views `values` as rows of `dim` values.
    ///
    /// # Panics
    /// When `dim` is 0, or `values.len()` is not a multiple of it.
    pub fn new(values: &'a [f32], dim: usize) -> Self {
        assert!(dim > 0 && values.len().is_multiple_of(dim), "{} values do not fill rows of {dim}", values.len());
        Self { values, dim }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Number of columns.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// One row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        &self.values[row * self.dim..][..self.dim]
    }

    /// The rows `start..end`.
    pub fn slice(&self, start: usize, end: usize) -> Matrix<'a> {
        Matrix { values: &self.values[start * self.dim..end * self.dim], dim: self.dim }
    }

    /// The largest Euclidean norm of a row, in f64. It is infinite where a value is not finite, and 0 without rows.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn max_norm(&self, interrupt: Interrupt) -> Result<f64> {
        let max_norm = |rows: &[f32]| {
            interrupt.check()?;
            let norms = rows.chunks_exact(self.dim).map(norm_of);
            Ok(norms.map(|norm| if norm.is_finite() { norm } else { f64::INFINITY }).fold(0.0, f64::max))
        };
        self.values.par_chunks(64 * self.dim).map(max_norm).try_reduce(|| 0.0, |a, b| Ok(a.max(b)))
    }

    /// The Euclidean norm of every row, in f64.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for the first row and column that hold NaN or infinity. `name` names the argument.
    pub fn norms(&self, name: &'static str) -> Result<Vec<f64>> {
        let norms: Vec<f64> = self.values.par_chunks_exact(self.dim).with_min_len(64).map(norm_of).collect();
        // The square of a finite f32 is finite in f64, so a norm is finite exactly when its whole row is.
        match norms.iter().position(|norm| !norm.is_finite()) {
            None => Ok(norms),
            Some(row) => {
                let values = self.row(row);
                let column = values.iter().position(|value| !value.is_finite()).expect("a non-finite norm has a cause");
                Err(Error::NonFinite { name, row, column, value: values[column] })
            }
        }
    }
}

fn norm_of(row: &[f32]) -> f64 {
    norm(row.len(), |at| f64::from(row[at]))
}

/// The Euclidean norm of a vector of `len` values, in f64 and with eight partial sums.
#[inline(always)]
pub(crate) fn norm(len: usize, value: impl Fn(usize) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    let whole = len - len % 8;
    for start in (0..whole).step_by(8) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let value = value(start + lane);
            *sum += value * value;
        }
    }
    let rest: f64 = (whole..len).map(|at| value(at) * value(at)).sum();
    (sums.iter().sum::<f64>() + rest).sqrt()
}

/// A copy of some rows that starts at a cache line.
pub(crate) struct AlignedRows {
    values: Vec<f32>,
    start: usize,
    dim: usize,
}

impl AlignedRows {
    const LINE: usize = 64;

    pub(crate) fn copy(rows: Matrix) -> Self {
        let mut values = vec![0.0; rows.values.len() + Self::LINE / size_of::<f32>()];
        let start = values.as_ptr().align_offset(Self::LINE);
        values[start..][..rows.values.len()].copy_from_slice(rows.values);
        values.truncate(start + rows.values.len());
        Self { values, start, dim: rows.dim }
    }

    pub(crate) fn rows(&self) -> Matrix<'_> {
        Matrix::new(&self.values[self.start..], self.dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_euclidean() {
        let values = [3.0, 4.0, 0.0, -2.0];
        assert_eq!(Matrix::new(&values, 2).norms("x").unwrap(), [5.0, 2.0]);
    }

    #[test]
    fn the_largest_norm_is_infinite_where_a_value_is_not_finite() {
        let values = [3.0, 4.0, f32::NAN, 1.0, 0.0, 9.0];
        assert_eq!(Matrix::new(&values[..2], 2).max_norm(Interrupt::NEVER).unwrap(), 5.0);
        assert_eq!(Matrix::new(&values, 2).max_norm(Interrupt::NEVER).unwrap(), f64::INFINITY);
    }

    #[test]
    fn norms_of_the_largest_values_are_finite() {
        let values = [f32::MAX; 1000];
        assert!(Matrix::new(&values, 1000).norms("x").unwrap()[0].is_finite());
    }

    #[test]
    fn norms_name_the_first_value_that_is_not_finite() {
        let values = [1.0, 2.0, 3.0, f32::NEG_INFINITY, f32::INFINITY, 0.0];
        let error = Matrix::new(&values, 2).norms("item_embeddings").unwrap_err();
        assert_eq!(error, Error::NonFinite { name: "item_embeddings", row: 1, column: 1, value: f32::NEG_INFINITY });
    }
}
