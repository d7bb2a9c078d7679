//! Ranking: the index, its shards, and what they find.

use std::ops::Range;
use std::sync::Arc;

use langptune_core::{self as core, Interrupt, Kernel, Matrix, Prepared, Ragged, Result, Ties};
use numpy::prelude::*;
use numpy::{PyArray1, PyArray2, PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

use crate::boundary::{Rows, Where, choice, enter_core, matrix, slices};

const ANY: Range<usize> = 0..i64::MAX as usize;

const TIES: [(&str, Ties); 4] = [("index", Ties::Index), ("min", Ties::Min), ("max", Ties::Max), ("mean", Ties::Mean)];

/// Items found: the offsets of each user's row, then scores and item indexes, flat.
type Found<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<i64>>);

/// One f64 for each target, flat.
type OfTargets<'py> = Bound<'py, PyArray1<f64>>;

/// Item vectors to rank: the caller's own array and what was computed once for it.
#[pyclass(frozen, module = "langptune_rs._core")]
pub struct ItemIndex {
    item_embeddings: Py<PyArray2<f32>>,
    prepared: Arc<Prepared>,
    /// The index of the first item in the catalog that this is a shard of.
    first_item: usize,
}

impl ItemIndex {
    /// Runs work on the index of the core, until a signal. Targets and exclusions must lie within `ids` of the index.
    fn enter<T: Send>(
        &self,
        py: Python,
        user_embeddings: &PyReadonlyArray2<f32>,
        (targets, exclude): (Option<&Rows>, Option<&Rows>),
        ids: fn(&core::ItemIndex) -> Range<usize>,
        work: impl FnOnce(core::ItemIndex, Matrix, &Ragged, &Ragged) -> Result<T> + Send,
    ) -> PyResult<T> {
        let items = self.item_embeddings.bind(py).readonly();
        let items = matrix("item_embeddings", &items)?;
        let users = matrix("user_embeddings", user_embeddings)?;
        let targets = targets.map(slices).transpose()?;
        let exclude = exclude.map(slices).transpose()?;
        enter_core(py, Where::InPool, |interrupt| {
            let index = core::ItemIndex::from_prepared(items, self.prepared.clone());
            let index = index.starting_at(self.first_item).until(interrupt);
            let ragged = |name, rows: Option<_>| match rows {
                Some(rows) => ragged(interrupt, name, rows, ids(&index)),
                None => Ok(Ragged::empty(users.rows())),
            };
            let (targets, exclude) = (ragged("targets", targets)?, ragged("exclude", exclude)?);
            work(index, users, &targets, &exclude)
        })
    }

    /// Like [`ItemIndex::enter`], for work that finds items and has no targets.
    fn find<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        exclude: Option<Rows>,
        ids: fn(&core::ItemIndex) -> Range<usize>,
        work: impl FnOnce(core::ItemIndex, Matrix, &Ragged) -> Result<core::Found> + Send,
    ) -> PyResult<Found<'py>> {
        let found = self.enter(py, &user_embeddings, (None, exclude.as_ref()), ids, |index, users, _, exclude| {
            Ok(in_i64(work(index, users, exclude)?))
        })?;
        Ok(arrays_of(py, found))
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

    /// Ranks.
    fn rank<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        targets: Rows,
        exclude: Option<Rows>,
        ties: &str,
    ) -> PyResult<OfTargets<'py>> {
        let ties = choice("ties", ties, &TIES)?;
        let rows = (Some(&targets), exclude.as_ref());
        let ranks = self.enter(py, &user_embeddings, rows, own_ids, |index, users, targets, exclude| {
            index.rank(users, targets, exclude, ties)
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
        let rows = (Some(&targets), None);
        let scores =
            self.enter(py, &user_embeddings, rows, any_ids, |index, users, targets, _| index.score(users, targets))?;
        Ok(PyArray1::from_vec(py, scores))
    }

    /// Counts.
    fn count_above<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        targets: Rows,
        scores: PyReadonlyArray1<f32>,
        exclude: Option<Rows>,
        ties: &str,
    ) -> PyResult<OfTargets<'py>> {
        let ties = choice("ties", ties, &TIES)?;
        let scores = scores.as_slice()?;
        let rows = (Some(&targets), exclude.as_ref());
        let counts = self.enter(py, &user_embeddings, rows, any_ids, |index, users, targets, exclude| {
            index.count_above(users, targets, scores, exclude, ties)
        })?;
        Ok(PyArray1::from_vec(py, counts))
    }

    /// Ranks and log-probabilities.
    fn score_targets<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        targets: Rows,
        exclude: Option<Rows>,
        temperature: f64,
    ) -> PyResult<(OfTargets<'py>, OfTargets<'py>)> {
        let rows = (Some(&targets), exclude.as_ref());
        let found = self.enter(py, &user_embeddings, rows, own_ids, |index, users, targets, exclude| {
            index.score_targets(users, targets, exclude, temperature)
        })?;
        Ok((PyArray1::from_vec(py, found.ranks), PyArray1::from_vec(py, found.log_probs)))
    }

    /// The k best items of each user.
    fn search<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        k: usize,
        exclude: Option<Rows>,
    ) -> PyResult<Found<'py>> {
        self.find(py, user_embeddings, exclude, own_ids, |index, users, exclude| index.search(users, k, exclude))
    }

    /// The k best items of each user, or as many as are left.
    fn candidates<'py>(
        &self,
        py: Python<'py>,
        user_embeddings: PyReadonlyArray2<f32>,
        k: usize,
        exclude: Option<Rows>,
    ) -> PyResult<Found<'py>> {
        self.find(py, user_embeddings, exclude, any_ids, |index, users, exclude| index.candidates(users, k, exclude))
    }
}

fn own_ids(index: &core::ItemIndex) -> Range<usize> {
    index.ids()
}

/// The indexes of any catalog: a shard does not know how many items its catalog has.
fn any_ids(_: &core::ItemIndex) -> Range<usize> {
    ANY
}

fn ragged(
    interrupt: Interrupt,
    name: &'static str,
    (offsets, values): (&[i64], &[i64]),
    ids: Range<usize>,
) -> Result<Ragged> {
    Ragged::until(interrupt, name, offsets, values, ids)
}

/// Offsets, scores and item indexes.
fn in_i64(found: core::Found) -> (Vec<i64>, Vec<f32>, Vec<i64>) {
    let integers = |values: Vec<usize>| values.into_iter().map(|value| value as i64).collect();
    let (offsets, items) = found.items.into_parts();
    (integers(offsets), found.scores, integers(items))
}

fn arrays_of(py: Python, (offsets, scores, items): (Vec<i64>, Vec<f32>, Vec<i64>)) -> Found {
    (PyArray1::from_vec(py, offsets), PyArray1::from_vec(py, scores), PyArray1::from_vec(py, items))
}

/// Refuses targets and exclusions outside of a catalog.
#[pyfunction]
pub fn check_ids(py: Python, targets: Option<Rows>, exclude: Option<Rows>, num_items: usize) -> PyResult<()> {
    for (name, rows) in [("targets", &targets), ("exclude", &exclude)] {
        if let Some(rows) = rows {
            let rows = slices(rows)?;
            enter_core(py, Where::InPool, |interrupt| ragged(interrupt, name, rows, 0..num_items))?;
        }
    }
    Ok(())
}

/// The k best items of each user among all items that the shards found. `of_shards` holds what each shard returned.
#[pyfunction]
pub fn merge_candidates<'py>(
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
            Ok(core::Found { items, scores: <[f32]>::to_vec(scores) })
        };
        let found = slices.into_iter().map(found).collect::<Result<Vec<_>>>()?;
        Ok(in_i64(core::Found::merged(&found, k)?))
    })?;
    Ok(arrays_of(py, found))
}
