//! Means, bootstrap intervals and paired tests.

use langptune_core::statistics::{self, Interval};
use numpy::PyReadonlyArray1;
use pyo3::prelude::*;

use crate::boundary::{Where, choice, enter_core};

const INTERVALS: [(&str, Interval); 2] = [("percentile", Interval::Percentile), ("bca", Interval::Bca)];

/// The mean by pairwise summation in f64.
#[pyfunction]
pub fn mean(py: Python, scores: PyReadonlyArray1<f64>) -> PyResult<f64> {
    let scores = scores.as_slice()?;
    enter_core(py, Where::Here, |_| Ok(statistics::mean(scores)))
}

/// (low, high) of the bootstrap interval of each mean; with `sizes` the samples are sums of clusters.
#[pyfunction]
pub fn bootstrap_intervals(
    py: Python,
    samples: Vec<PyReadonlyArray1<f64>>,
    sizes: Option<PyReadonlyArray1<f64>>,
    method: &str,
    level: f64,
    num_resamples: usize,
    seed: u64,
) -> PyResult<Vec<(f64, f64)>> {
    let interval = choice("method", method, &INTERVALS)?;
    let samples = samples.iter().map(|scores| Ok(scores.as_slice()?)).collect::<PyResult<Vec<_>>>()?;
    let sizes = sizes.as_ref().map(|sizes| sizes.as_slice()).transpose()?;
    enter_core(py, Where::InPool, |interrupt| {
        statistics::bootstrap_intervals(&samples, sizes, interval, level, num_resamples, seed, interrupt)
    })
}

/// The two-sided p-value of the paired permutation test.
#[pyfunction]
pub fn paired_permutation_test(
    py: Python,
    a: PyReadonlyArray1<f64>,
    b: PyReadonlyArray1<f64>,
    num_permutations: usize,
    seed: u64,
) -> PyResult<f64> {
    let (a, b) = (a.as_slice()?, b.as_slice()?);
    enter_core(py, Where::InPool, |interrupt| {
        statistics::paired_permutation_test(a, b, num_permutations, seed, interrupt)
    })
}

/// The two-sided p-value of the paired t-test.
#[pyfunction]
pub fn paired_t_test(py: Python, a: PyReadonlyArray1<f64>, b: PyReadonlyArray1<f64>) -> PyResult<f64> {
    let (a, b) = (a.as_slice()?, b.as_slice()?);
    enter_core(py, Where::Here, |_| statistics::paired_t_test(a, b))
}

/// Holm's correction of p-values.
#[pyfunction]
pub fn holm(py: Python, p_values: Vec<f64>) -> PyResult<Vec<f64>> {
    enter_core(py, Where::Here, |_| statistics::holm(&p_values))
}
