//! Packing: sequences into bins, bins onto ranks, and tokens in the order of the bins.

use std::mem::MaybeUninit;
use std::slice;

use langptune_core::packing::{self, Layout, Together, Token};
use langptune_core::{Error, Ragged, Result};
use numpy::prelude::*;
use numpy::{Element, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::boundary::{Rows, Where, enter_core, slices};

type Ints<'py> = Bound<'py, PyArray1<i64>>;
type Labels<'py> = Option<PyReadonlyArray1<'py, i64>>;

/// Bins: (offsets, sequence indexes). `groups` or `prefixes` say which sequences stay together.
#[pyfunction]
pub fn pack_sequences<'py>(
    py: Python<'py>,
    lengths: PyReadonlyArray1<i64>,
    capacity: usize,
    groups: Labels,
    prefixes: Labels,
) -> PyResult<(Ints<'py>, Ints<'py>)> {
    let (lengths, groups, prefixes) = (lengths.as_slice()?, labels(&groups)?, labels(&prefixes)?);
    let bins = enter_core(py, Where::InPool, |_| {
        packing::pack_sequences(&counts(lengths)?, capacity, together(groups, prefixes))
    })?;
    Ok(rows(py, &bins))
}

/// The length of every piece, and the sequence it belongs to.
#[pyfunction]
pub fn split_sequences<'py>(
    py: Python<'py>,
    lengths: PyReadonlyArray1<i64>,
    capacity: usize,
) -> PyResult<(Ints<'py>, Ints<'py>)> {
    let lengths = lengths.as_slice()?;
    let (pieces, sources) = enter_core(py, Where::InPool, |_| packing::split_sequences(&counts(lengths)?, capacity))?;
    Ok((ints(py, &pieces), ints(py, &sources)))
}

/// Bins, rank by rank: (offsets, sequence indexes).
#[pyfunction]
pub fn balance<'py>(
    py: Python<'py>,
    bins: Rows,
    num_sequences: usize,
    groups: Labels,
    prefixes: Labels,
    costs: PyReadonlyArray1<f64>,
    num_ranks: usize,
) -> PyResult<(Ints<'py>, Ints<'py>)> {
    let (offsets, indexes) = slices(&bins)?;
    let (costs, groups, prefixes) = (costs.as_slice()?, labels(&groups)?, labels(&prefixes)?);
    let balanced = enter_core(py, Where::InPool, |_| {
        let bins = Ragged::new("bins", offsets, indexes, 0..num_sequences)?;
        packing::balance(&bins, num_sequences, together(groups, prefixes), costs, num_ranks)
    })?;
    Ok(rows(py, &balanced))
}

/// Flat token ids.
#[derive(FromPyObject)]
pub enum Tokens<'py> {
    I32(PyReadonlyArray1<'py, i32>),
    I64(PyReadonlyArray1<'py, i64>),
}

type Collated<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, Ints<'py>, Bound<'py, PyArray1<i32>>);

/// The flat input_ids and position_ids, the start of each bin in them, and the flat cu_seqlens of the bins.
#[pyfunction]
pub fn collate<'py>(
    py: Python<'py>,
    bins: Rows,
    lengths: PyReadonlyArray1<i64>,
    prefixes: Labels,
    tokens: Tokens,
) -> PyResult<Collated<'py>> {
    let (offsets, indexes) = slices(&bins)?;
    let (lengths, prefixes) = (lengths.as_slice()?, labels(&prefixes)?);
    let (lengths, bins) = enter_core(py, Where::InPool, |_| {
        Ok((counts(lengths)?, Ragged::new("bins", offsets, indexes, 0..lengths.len())?))
    })?;
    let num_tokens = match &tokens {
        Tokens::I32(tokens) => tokens.len(),
        Tokens::I64(tokens) => tokens.len(),
    };
    let layout = enter_core(py, Where::InPool, |_| Layout::new(&bins, &lengths, prefixes, num_tokens))?;
    let (input_ids, position_ids) = match tokens {
        Tokens::I32(tokens) => collated(py, &layout, tokens.as_slice()?)?,
        Tokens::I64(tokens) => collated(py, &layout, tokens.as_slice()?)?,
    };
    Ok((input_ids, position_ids, ints(py, layout.bin_starts()), PyArray1::from_vec(py, layout.cu_seqlens())))
}

fn collated<'py, T: Token + Element>(
    py: Python<'py>,
    layout: &Layout,
    tokens: &[T],
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let num_tokens = layout.bin_starts()[layout.bin_starts().len() - 1];
    // SAFETY: nothing reads the arrays before `collate` has written every number of them.
    let (input_ids, position_ids) =
        unsafe { (PyArray1::<T>::new(py, num_tokens, false), PyArray1::<T>::new(py, num_tokens, false)) };
    // SAFETY: nobody else knows of the new arrays. Their data are contiguous and have this length, and numpy aligns
    // them.
    let [ids, positions] = [&input_ids, &position_ids]
        .map(|array| unsafe { slice::from_raw_parts_mut(array.data().cast::<MaybeUninit<T>>(), num_tokens) });
    enter_core(py, Where::InPool, |_| {
        layout.collate(tokens, ids, positions);
        Ok(())
    })?;
    Ok((input_ids.into_any(), position_ids.into_any()))
}

fn labels<'a>(labels: &'a Labels) -> PyResult<Option<&'a [i64]>> {
    Ok(labels.as_ref().map(|labels| labels.as_slice()).transpose()?)
}

fn together<'a>(groups: Option<&'a [i64]>, prefixes: Option<&'a [i64]>) -> Together<'a> {
    prefixes.map(Together::Prefixes).or(groups.map(Together::Groups)).unwrap_or(Together::Nothing)
}

fn counts(lengths: &[i64]) -> Result<Vec<usize>> {
    let convert = |(index, length): (usize, &i64)| {
        usize::try_from(*length).map_err(|_| Error::NegativeLength { index, length: *length })
    };
    lengths.iter().enumerate().map(convert).collect()
}

fn ints<'py>(py: Python<'py>, counts: &[usize]) -> Ints<'py> {
    PyArray1::from_vec(py, counts.iter().map(|count| *count as i64).collect())
}

fn rows<'py>(py: Python<'py>, rows: &Ragged) -> (Ints<'py>, Ints<'py>) {
    (ints(py, rows.offsets()), ints(py, rows.values()))
}
