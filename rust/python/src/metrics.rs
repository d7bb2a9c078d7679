//! Ranking metrics of every user.

use langptune_core::metrics::{self, Metric};
use numpy::prelude::*;
use numpy::{PyArray1, PyArray2, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::boundary::{Where, choice, enter_core};

const METRICS: [(&str, Metric); 6] = [
    ("ndcg", Metric::Ndcg),
    ("mrr", Metric::Mrr),
    ("recall", Metric::Recall),
    ("precision", Metric::Precision),
    ("hit_rate", Metric::HitRate),
    ("map", Metric::Map),
];

/// Every (metric, cut) of every user, (metrics, users). Without offsets each user has one rank.
///
/// The result is one array: the allocator keeps a large block for the next call, but returns small blocks page by page.
#[pyfunction]
pub fn per_user<'py>(
    py: Python<'py>,
    metrics: Vec<(String, Option<usize>)>,
    offsets: Option<PyReadonlyArray1<i64>>,
    ranks: PyReadonlyArray1<f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let cut = |(name, k): &(String, Option<usize>)| Ok((choice("metric", name, &METRICS)?, *k));
    let cuts = metrics.iter().map(cut).collect::<PyResult<Vec<_>>>()?;
    let offsets = offsets.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let ranks = ranks.as_slice()?;
    let scores = enter_core(py, Where::Here, |_| metrics::per_user(&cuts, offsets, ranks))?;
    let num_users = scores.len() / cuts.len().max(1);
    PyArray1::from_vec(py, scores).reshape([cuts.len(), num_users])
}
