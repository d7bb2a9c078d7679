//! The extension `langptune_rs._core`: converts, releases the GIL and maps errors. What it computes is `langptune-core`.
//!
//! It is private: `langptune_rs.evaluation` and `langptune_rs.packing` check dtypes and shapes and carry the docs.

mod packing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use langptune_core::metrics::Metric;
use langptune_core::statistics::Interval;
use langptune_core::{Error, Kernel, Matrix, Prepared, Ragged, Result, Ties, metrics, pool, statistics};
use numpy::prelude::*;
use numpy::{PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

pyo3::import_exception!(langptune_rs.errors, InputError);

/// Runs core work: in the thread pool of this process, without the GIL, its errors as `InputError`.
fn enter_core<T: Send>(py: Python, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    enter_core_alone(py, || pool::run(work))
}

/// As `enter_core`, on this thread: for work that takes less time than handing it over, or that enters the pool itself.
fn enter_core_alone<T: Send>(py: Python, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(work).map_err(|error| InputError::new_err(error.to_string()))
}

/// As `enter_core`, and ends early with the exception of a signal, such as that of Ctrl-C: the work watches the flag.
fn enter_core_until_signal<T: Send>(py: Python, work: impl FnOnce(&AtomicBool) -> Result<T> + Send) -> PyResult<T> {
    let flag = AtomicBool::new(false);
    let mut signal = None;
    let watch = || {
        if signal.is_none() {
            signal = Python::attach(|py| py.check_signals()).err();
            flag.store(signal.is_some(), Ordering::Relaxed);
        }
    };
    let done = py.detach(|| pool::run_watched(|| work(&flag), Duration::from_millis(50), watch));
    match signal {
        Some(signal) => Err(signal),
        None => done.map_err(|error| InputError::new_err(error.to_string())),
    }
}

/// The rows of an array the caller keeps; refuses what is not C-contiguous instead of copying it.
fn matrix<'a>(name: &'static str, array: &'a PyReadonlyArray2<f32>) -> PyResult<Matrix<'a>> {
    let (rows, columns) = (array.shape()[0], array.shape()[1]);
    if columns == 0 {
        return Err(InputError::new_err(Error::Empty { name, rows, columns }.to_string()));
    }
    Ok(Matrix::new(array.as_slice()?, columns))
}

/// (offsets, values) of ragged rows; offsets from outside are checked by the core.
type Rows<'py> = (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i64>);

fn slices<'a>(rows: &'a Rows) -> PyResult<(&'a [i64], &'a [i64])> {
    Ok((rows.0.as_slice()?, rows.1.as_slice()?))
}

type Scores<'py> = Bound<'py, PyArray2<f32>>;
type Ids<'py> = Bound<'py, PyArray2<i64>>;

/// Item vectors to rank: the caller's own array and what one pass over it has shown.
#[pyclass(frozen, module = "langptune_rs._core")]
struct ItemIndex {
    item_embeddings: Py<PyArray2<f32>>,
    prepared: Arc<Prepared>,
}

#[pymethods]
impl ItemIndex {
    #[new]
    fn new(py: Python, item_embeddings: PyReadonlyArray2<f32>) -> PyResult<Self> {
        let items = matrix("item_embeddings", &item_embeddings)?;
        let prepared = enter_core(py, || Prepared::new(items, Kernel::from_env()?))?;
        Ok(Self { item_embeddings: item_embeddings.as_unbound().clone_ref(py), prepared: Arc::new(prepared) })
    }

    #[getter]
    fn item_embeddings(&self, py: Python) -> Py<PyArray2<f32>> {
        self.item_embeddings.clone_ref(py)
    }

    #[staticmethod]
    fn kernels() -> Vec<&'static str> {
        Kernel::supported().iter().map(Kernel::name).collect()
    }

    #[getter]
    fn kernel(&self) -> &'static str {
        self.prepared.kernel().name()
    }

    #[getter]
    fn rescored_share(&self) -> f64 {
        self.prepared.rescored_share()
    }

    /// One f64 rank for each target, flat.
    fn rank<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        targets: Rows,
        exclude: Option<Rows>,
        ties: &str,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let ties = match ties {
            "index" => Ties::Index,
            "min" => Ties::Min,
            "max" => Ties::Max,
            "mean" => Ties::Mean,
            other => {
                return Err(InputError::new_err(format!(
                    "ties = {other:?}: pass \"index\", \"min\", \"max\" or \"mean\""
                )));
            }
        };
        let items = self.item_embeddings.bind(py).readonly();
        let items = matrix("item_embeddings", &items)?;
        let users = matrix("user_embeddings", &user_embeddings)?;
        let (target_offsets, targets) = slices(&targets)?;
        let exclude = exclude.as_ref().map(slices).transpose()?;
        let ranks = enter_core_until_signal(py, |flag| {
            let index = langptune_core::ItemIndex::from_prepared(items, self.prepared.clone()).interrupted_by(flag);
            let targets = Ragged::new("targets", target_offsets, targets, index.num_items())?;
            index.rank(users, &targets, &excluded(exclude, users.rows(), index.num_items())?, ties)
        })?;
        Ok(PyArray1::from_vec(py, ranks))
    }

    /// Scores f32 and item indexes i64 of the k best items, each (users, k).
    fn search<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        k: usize,
        exclude: Option<Rows>,
    ) -> PyResult<(Scores<'py>, Ids<'py>)> {
        let items = self.item_embeddings.bind(py).readonly();
        let items = matrix("item_embeddings", &items)?;
        let users = matrix("user_embeddings", &user_embeddings)?;
        let exclude = exclude.as_ref().map(slices).transpose()?;
        let (scores, ids) = enter_core_until_signal(py, |flag| {
            let index = langptune_core::ItemIndex::from_prepared(items, self.prepared.clone()).interrupted_by(flag);
            let found = index.search(users, k, &excluded(exclude, users.rows(), index.num_items())?)?;
            Ok((found.scores, found.items.into_iter().map(|item| item as i64).collect::<Vec<_>>()))
        })?;
        let shape = [users.rows(), k];
        Ok((PyArray1::from_vec(py, scores).reshape(shape)?, PyArray1::from_vec(py, ids).reshape(shape)?))
    }
}

fn excluded(rows: Option<(&[i64], &[i64])>, num_users: usize, num_items: usize) -> Result<Ragged> {
    rows.map_or_else(
        || Ok(Ragged::empty(num_users)),
        |(offsets, items)| Ragged::new("exclude", offsets, items, num_items),
    )
}

/// Every (metric, cut) of every user, (metrics, users); without offsets each user has one rank.
///
/// One array: the allocator keeps a large block for the next one, and gives small ones back page by page.
#[pyfunction]
fn per_user<'py>(
    py: Python<'py>,
    metrics: Vec<(String, Option<usize>)>,
    offsets: Option<PyReadonlyArray1<i64>>,
    ranks: PyReadonlyArray1<f64>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let cuts = metrics.iter().map(|(name, k)| Ok((metric(name)?, *k))).collect::<PyResult<Vec<_>>>()?;
    let offsets = offsets.as_ref().map(PyReadonlyArray1::as_slice).transpose()?;
    let ranks = ranks.as_slice()?;
    let scores = enter_core_alone(py, || metrics::per_user(&cuts, offsets, ranks))?;
    let num_users = scores.len() / cuts.len().max(1);
    PyArray1::from_vec(py, scores).reshape([cuts.len(), num_users])
}

fn metric(name: &str) -> PyResult<Metric> {
    match name {
        "ndcg" => Ok(Metric::Ndcg),
        "mrr" => Ok(Metric::Mrr),
        "recall" => Ok(Metric::Recall),
        "precision" => Ok(Metric::Precision),
        "hit_rate" => Ok(Metric::HitRate),
        "map" => Ok(Metric::Map),
        other => Err(InputError::new_err(format!("{other:?} is no metric"))),
    }
}

/// The mean by pairwise summation in f64.
#[pyfunction]
fn mean(py: Python, scores: PyReadonlyArray1<f64>) -> PyResult<f64> {
    let scores = scores.as_slice()?;
    enter_core_alone(py, || Ok(statistics::mean(scores)))
}

/// (low, high) of the bootstrap interval of each mean.
#[pyfunction]
fn bootstrap_intervals(
    py: Python,
    samples: Vec<PyReadonlyArray1<f64>>,
    method: &str,
    level: f64,
    num_resamples: usize,
    seed: u64,
) -> PyResult<Vec<(f64, f64)>> {
    let interval = match method {
        "percentile" => Interval::Percentile,
        "bca" => Interval::Bca,
        other => return Err(InputError::new_err(format!("method = {other:?}: pass \"percentile\" or \"bca\""))),
    };
    let samples = samples.iter().map(|scores| Ok(scores.as_slice()?)).collect::<PyResult<Vec<_>>>()?;
    enter_core(py, || statistics::bootstrap_intervals(&samples, interval, level, num_resamples, seed))
}

/// The two-sided p-value of the paired permutation test.
#[pyfunction]
fn paired_permutation_test(
    py: Python,
    a: PyReadonlyArray1<f64>,
    b: PyReadonlyArray1<f64>,
    num_permutations: usize,
    seed: u64,
) -> PyResult<f64> {
    let (a, b) = (a.as_slice()?, b.as_slice()?);
    enter_core(py, || statistics::paired_permutation_test(a, b, num_permutations, seed))
}

/// The two-sided p-value of the paired t-test.
#[pyfunction]
fn paired_t_test(py: Python, a: PyReadonlyArray1<f64>, b: PyReadonlyArray1<f64>) -> PyResult<f64> {
    let (a, b) = (a.as_slice()?, b.as_slice()?);
    enter_core_alone(py, || statistics::paired_t_test(a, b))
}

/// Holm's correction of p-values.
#[pyfunction]
fn holm(py: Python, p_values: Vec<f64>) -> PyResult<Vec<f64>> {
    enter_core_alone(py, || statistics::holm(&p_values))
}

/// Exact ranking, metrics, significance tests and packing; see `langptune_rs`.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::packing::{balance, collate, pack_sequences, split_sequences};
    #[pymodule_export]
    use super::{ItemIndex, bootstrap_intervals, holm, mean, paired_permutation_test, paired_t_test, per_user};
}
