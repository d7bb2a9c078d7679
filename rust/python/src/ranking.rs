//! The extension `langptune_rs._core`: converts, releases the GIL and maps errors. What it computes is `langptune-core`.
//!
//! It is private: `langptune_rs.evaluation` and `langptune_rs.packing` check dtypes and shapes and carry the docs.

mod packing;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use langptune_core::metrics::Metric;
use langptune_core::statistics::Interval;
use langptune_core::{Error, Interrupt, Kernel, Matrix, Prepared, Ragged, Result, Ties, metrics, pool, statistics};
use numpy::prelude::*;
use numpy::{PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

pyo3::import_exception!(langptune_rs.errors, InputError);

/// Where core work runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// On this thread: for work that takes less time than handing it over, or that enters the pool itself.
    Here,
    /// In the thread pool of this process. The work ends early, with the exception of a signal such as that of Ctrl-C,
    /// if it looks at its interrupt.
    InPool,
}

/// Runs core work without the GIL, its errors as `InputError`.
fn enter_core<T: Send>(py: Python, place: Where, work: impl FnOnce(Interrupt) -> Result<T> + Send) -> PyResult<T> {
    if place == Where::Here {
        let work = || {
            let _floats = pool::IeeeFloats::on_this_thread();
            work(Interrupt::NEVER)
        };
        return py.detach(work).map_err(refusal);
    }
    let flag = AtomicBool::new(false);
    let mut signal = None;
    let watch = || {
        if signal.is_none() {
            signal = Python::attach(|py| py.check_signals()).err();
            flag.store(signal.is_some(), Ordering::Relaxed);
        }
    };
    let done = py.detach(|| pool::run_watched(|| work(Interrupt::by(&flag)), Duration::from_millis(50), watch));
    match signal {
        Some(signal) => Err(signal),
        None => done.map_err(refusal),
    }
}

fn refusal(error: Error) -> PyErr {
    InputError::new_err(error.to_string())
}

/// The rows of an array the caller keeps; refuses what is not C-contiguous instead of copying it.
fn matrix<'a>(name: &'static str, array: &'a PyReadonlyArray2<f32>) -> PyResult<Matrix<'a>> {
    let (rows, columns) = (array.shape()[0], array.shape()[1]);
    if columns == 0 {
        return Err(refusal(Error::Empty { name, rows, columns }));
    }
    Ok(Matrix::new(array.as_slice()?, columns))
}

/// (offsets, values) of ragged rows; offsets from outside are checked by the core.
type Rows<'py> = (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i64>);

/// The indexes of any catalog: a shard does not know where its own ends.
const ANY: Range<usize> = 0..i64::MAX as usize;

fn slices<'a>(rows: &'a Rows) -> PyResult<(&'a [i64], &'a [i64])> {
    Ok((rows.0.as_slice()?, rows.1.as_slice()?))
}

/// Items found: the offsets of each user's row, then scores and item indexes, flat.
type Found<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<i64>>);

/// Item vectors to rank: the caller's own array and what one pass over it has shown.
#[pyclass(frozen, module = "langptune_rs._core")]
struct ItemIndex {
    item_embeddings: Py<PyArray2<f32>>,
    prepared: Arc<Prepared>,
    /// The index of the first item in the catalog that these are a shard of.
    first_item: usize,
}

impl ItemIndex {
    /// Works on the index of the core, until a signal.
    fn enter<T: Send>(
        &self,
        py: Python,
        work: impl FnOnce(langptune_core::ItemIndex, Interrupt) -> Result<T> + Send,
    ) -> PyResult<T> {
        let items = self.item_embeddings.bind(py).readonly();
        let items = matrix("item_embeddings", &items)?;
        enter_core(py, Where::InPool, |interrupt| {
            let index = langptune_core::ItemIndex::from_prepared(items, self.prepared.clone());
            work(index.starting_at(self.first_item).until(interrupt), interrupt)
        })
    }
}

#[pymethods]
impl ItemIndex {
    #[new]
    fn new(
        py: Python,
        item_embeddings: PyReadonlyArray2<f32>,
        first_item: usize,
        keep_rounded: bool,
    ) -> PyResult<Self> {
        let items = matrix("item_embeddings", &item_embeddings)?;
        let prepared = enter_core(py, Where::InPool, |interrupt| {
            Prepared::until(interrupt, items, Kernel::from_env()?, keep_rounded)
        })?;
        let item_embeddings = item_embeddings.as_unbound().clone_ref(py);
        Ok(Self { item_embeddings, prepared: Arc::new(prepared), first_item })
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

    #[getter]
    fn first_item(&self) -> usize {
        self.first_item
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
        let ties = tie_rule(ties)?;
        let users = matrix("user_embeddings", &user_embeddings)?;
        let targets = slices(&targets)?;
        let exclude = exclude.as_ref().map(slices).transpose()?;
        let ranks = self.enter(py, |index, interrupt| {
            let targets = ragged(interrupt, "targets", targets, index.ids())?;
            index.rank(users, &targets, &excluded(interrupt, exclude, users, index.ids())?, ties)
        })?;
        Ok(PyArray1::from_vec(py, ranks))
    }

    /// One f32 score for each target, flat.
    fn score<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        targets: Rows,
    ) -> PyResult<Bound<'py, PyArray1<f32>>> {
        let users = matrix("user_embeddings", &user_embeddings)?;
        let targets = slices(&targets)?;
        let scores =
            self.enter(py, |index, interrupt| index.score(users, &ragged(interrupt, "targets", targets, ANY)?))?;
        Ok(PyArray1::from_vec(py, scores))
    }

    /// One f64 count for each target, flat.
    fn count_above<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        targets: Rows,
        scores: PyReadonlyArray1<f32>,
        exclude: Option<Rows>,
        ties: &str,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let ties = tie_rule(ties)?;
        let users = matrix("user_embeddings", &user_embeddings)?;
        let targets = slices(&targets)?;
        let scores = scores.as_slice()?;
        let exclude = exclude.as_ref().map(slices).transpose()?;
        let counts = self.enter(py, |index, interrupt| {
            let targets = ragged(interrupt, "targets", targets, ANY)?;
            index.count_above(users, &targets, scores, &excluded(interrupt, exclude, users, ANY)?, ties)
        })?;
        Ok(PyArray1::from_vec(py, counts))
    }

    /// The k best items of each user.
    fn search<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        k: usize,
        exclude: Option<Rows>,
    ) -> PyResult<Found<'py>> {
        let users = matrix("user_embeddings", &user_embeddings)?;
        let exclude = exclude.as_ref().map(slices).transpose()?;
        let found = self.enter(py, |index, interrupt| {
            let exclude = excluded(interrupt, exclude, users, index.ids())?;
            Ok(in_i64(index.search(users, k, &exclude)?))
        })?;
        Ok(arrays_of(py, found))
    }

    /// The k best items of each user, or as many as are left.
    fn candidates<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        k: usize,
        exclude: Option<Rows>,
    ) -> PyResult<Found<'py>> {
        let users = matrix("user_embeddings", &user_embeddings)?;
        let exclude = exclude.as_ref().map(slices).transpose()?;
        let found = self.enter(py, |index, interrupt| {
            let exclude = excluded(interrupt, exclude, users, ANY)?;
            Ok(in_i64(index.candidates(users, k, &exclude)?))
        })?;
        Ok(arrays_of(py, found))
    }
}

fn tie_rule(ties: &str) -> PyResult<Ties> {
    match ties {
        "index" => Ok(Ties::Index),
        "min" => Ok(Ties::Min),
        "max" => Ok(Ties::Max),
        "mean" => Ok(Ties::Mean),
        other => Err(InputError::new_err(format!("ties = {other:?}: pass \"index\", \"min\", \"max\" or \"mean\""))),
    }
}

fn ragged(
    interrupt: Interrupt,
    name: &'static str,
    (offsets, values): (&[i64], &[i64]),
    items: Range<usize>,
) -> Result<Ragged> {
    Ragged::until(interrupt, name, offsets, values, items)
}

fn excluded(
    interrupt: Interrupt,
    rows: Option<(&[i64], &[i64])>,
    users: Matrix,
    items: Range<usize>,
) -> Result<Ragged> {
    rows.map_or_else(|| Ok(Ragged::empty(users.rows())), |rows| ragged(interrupt, "exclude", rows, items))
}

/// Offsets, scores and item indexes.
fn in_i64(found: langptune_core::Found) -> (Vec<i64>, Vec<f32>, Vec<i64>) {
    let integers = |values: Vec<usize>| values.into_iter().map(|value| value as i64).collect();
    let (offsets, items) = found.items.into_parts();
    (integers(offsets), found.scores, integers(items))
}

fn arrays_of(py: Python, (offsets, scores, items): (Vec<i64>, Vec<f32>, Vec<i64>)) -> Found {
    (PyArray1::from_vec(py, offsets), PyArray1::from_vec(py, scores), PyArray1::from_vec(py, items))
}

/// Refuses targets and exclusions outside of a catalog.
#[pyfunction]
fn check_ids(py: Python, targets: Option<Rows>, exclude: Option<Rows>, num_items: usize) -> PyResult<()> {
    for (name, rows) in [("targets", &targets), ("exclude", &exclude)] {
        if let Some(rows) = rows {
            let rows = slices(rows)?;
            enter_core(py, Where::InPool, |interrupt| ragged(interrupt, name, rows, 0..num_items))?;
        }
    }
    Ok(())
}

/// The k best items of each user of all that shards found, each as it was returned.
#[pyfunction]
fn merge_candidates<'py>(
    py: Python<'py>,
    of_shards: Vec<(PyReadonlyArray1<i64>, PyReadonlyArray1<f32>, PyReadonlyArray1<i64>)>,
    k: usize,
) -> PyResult<Found<'py>> {
    let mut slices = Vec::with_capacity(of_shards.len());
    for (offsets, scores, items) in &of_shards {
        slices.push((offsets.as_slice()?, scores.as_slice()?, items.as_slice()?));
    }
    let found = enter_core(py, Where::InPool, |interrupt| {
        let found = |(offsets, scores, items)| {
            let items = ragged(interrupt, "ids", (offsets, items), ANY)?;
            Ok(langptune_core::Found { items, scores: <[f32]>::to_vec(scores) })
        };
        let found = slices.into_iter().map(found).collect::<Result<Vec<_>>>()?;
        Ok(in_i64(langptune_core::Found::merged(&found, k)?))
    })?;
    Ok(arrays_of(py, found))
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
    let scores = enter_core(py, Where::Here, |_| metrics::per_user(&cuts, offsets, ranks))?;
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
    enter_core(py, Where::Here, |_| Ok(statistics::mean(scores)))
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
    enter_core(py, Where::InPool, |interrupt| {
        statistics::bootstrap_intervals(&samples, interval, level, num_resamples, seed, interrupt)
    })
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
    enter_core(py, Where::InPool, |interrupt| {
        statistics::paired_permutation_test(a, b, num_permutations, seed, interrupt)
    })
}

/// The two-sided p-value of the paired t-test.
#[pyfunction]
fn paired_t_test(py: Python, a: PyReadonlyArray1<f64>, b: PyReadonlyArray1<f64>) -> PyResult<f64> {
    let (a, b) = (a.as_slice()?, b.as_slice()?);
    enter_core(py, Where::Here, |_| statistics::paired_t_test(a, b))
}

/// Holm's correction of p-values.
#[pyfunction]
fn holm(py: Python, p_values: Vec<f64>) -> PyResult<Vec<f64>> {
    enter_core(py, Where::Here, |_| statistics::holm(&p_values))
}

/// Exact ranking, metrics, significance tests and packing; see `langptune_rs`.
#[pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::packing::{balance, collate, pack_sequences, split_sequences};
    #[pymodule_export]
    use super::{
        ItemIndex, bootstrap_intervals, check_ids, holm, mean, merge_candidates, paired_permutation_test,
        paired_t_test, per_user,
    };
}
