//! Decoding: packed matrices, the cache of keys and values, and what is computed of each new token.

use langptune_core::decoding::{self, Attention, Gate, NewTokens, Norms, Shape};
use langptune_core::{Kernel, Result, pool};
use numpy::prelude::*;
use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray1, PyReadwriteArray2};
use pyo3::prelude::*;

use crate::boundary::{Where, choice, enter_core, input_error, matrix};

/// The weights of a linear layer.
#[derive(FromPyObject)]
pub enum LayerWeights<'py> {
    Single(PyReadonlyArray2<'py, f32>),
    Half(PyReadonlyArray2<'py, u16>),
}

/// A linear layer's weights in the order of the kernels.
#[pyclass(frozen, module = "langptune_rs._core")]
pub struct PackedMatrix {
    matrix: decoding::PackedMatrix,
    kernel: Kernel,
}

#[pymethods]
impl PackedMatrix {
    #[new]
    fn new(py: Python, weights: LayerWeights) -> PyResult<Self> {
        let matrix = match &weights {
            LayerWeights::Single(weights) => {
                let (num_inputs, weights) = (weights.shape()[1], weights.as_slice()?);
                in_pool(py, || Ok(decoding::PackedMatrix::from_f32(weights, num_inputs)))?
            }
            LayerWeights::Half(weights) => {
                let (num_inputs, weights) = (weights.shape()[1], weights.as_slice()?);
                in_pool(py, || Ok(decoding::PackedMatrix::from_bf16(weights, num_inputs)))?
            }
        };
        let kernel = enter_core(py, Where::Here, |_| Kernel::from_env())?;
        Ok(Self { matrix, kernel })
    }

    /// Writes the product of rows (rows, inputs) with the transposed weights to `out` (rows, outputs).
    fn product(&self, py: Python, rows: PyReadonlyArray2<f32>, mut out: PyReadwriteArray2<f32>) -> PyResult<()> {
        let (rows, out) = (matrix("rows", &rows)?, out.as_slice_mut()?);
        in_pool(py, || {
            self.matrix.product(rows, out, self.kernel);
            Ok(())
        })
    }
}

type Pair<'py> = (PyReadonlyArray1<'py, f32>, PyReadonlyArray1<'py, f32>, f32);

/// Keys and values of the tokens that texts attend to, in segments.
#[pyclass(module = "langptune_rs._core")]
pub struct KvCache {
    cache: decoding::KvCache,
    kernel: Kernel,
}

#[pymethods]
impl KvCache {
    #[new]
    #[allow(clippy::too_many_arguments)] // Python passes them by name
    fn new(
        py: Python,
        num_layers: usize,
        num_heads: usize,
        num_kv_heads: usize,
        head_dim: usize,
        capacities: Vec<usize>,
        parents: Vec<Option<usize>>,
        half: bool,
    ) -> PyResult<Self> {
        let segments: Vec<(usize, Option<usize>)> = capacities.into_iter().zip(parents).collect();
        let shape = Shape { num_heads, num_kv_heads, head_dim };
        enter_core(py, Where::Here, |_| {
            Ok(Self { cache: decoding::KvCache::new(shape, num_layers, &segments, half), kernel: Kernel::from_env()? })
        })
    }

    /// Stores new tokens of a layer and writes the attention of `read`, ascending token indexes, to `out`.
    #[allow(clippy::too_many_arguments)] // Python passes them by name
    fn attend(
        &mut self,
        py: Python,
        layer: usize,
        rows: PyReadonlyArray2<f32>,
        segments: PyReadonlyArray1<i64>,
        cosines: PyReadonlyArray2<f32>,
        sines: PyReadonlyArray2<f32>,
        norms: Option<Pair>,
        read: PyReadonlyArray1<i64>,
        scale: f32,
        mut out: PyReadwriteArray2<f32>,
    ) -> PyResult<()> {
        let (rows, out) = (matrix("rows", &rows)?, out.as_slice_mut()?);
        let (cosines, sines) = (matrix("cosines", &cosines)?, matrix("sines", &sines)?);
        let [segments, tokens] = [segments.as_slice()?, read.as_slice()?]
            .map(|indexes| indexes.iter().map(|index| *index as usize).collect::<Vec<_>>());
        let norms = match &norms {
            None => None,
            Some((queries, keys, epsilon)) => {
                Some(Norms { queries: queries.as_slice()?, keys: keys.as_slice()?, epsilon: *epsilon })
            }
        };
        let new = NewTokens { rows, segments: &segments, cosines, sines, norms };
        in_pool(py, || {
            self.cache.attend(layer, new, Attention { tokens: &tokens, scale }, out, self.kernel);
            Ok(())
        })
    }
}

/// Adds `delta` to `residual` and writes the norm of the sum to `out`; all are (rows, width).
#[pyfunction]
pub fn add_and_normalize(
    py: Python,
    mut residual: PyReadwriteArray2<f32>,
    delta: Option<PyReadonlyArray2<f32>>,
    weights: PyReadonlyArray1<f32>,
    epsilon: f32,
    mut out: PyReadwriteArray2<f32>,
) -> PyResult<()> {
    let (residual, out, weights) = (residual.as_slice_mut()?, out.as_slice_mut()?, weights.as_slice()?);
    let delta = delta.as_ref().map(|delta| delta.as_slice()).transpose()?;
    in_pool(py, || {
        decoding::add_and_normalize(residual, delta, weights, epsilon, out, Kernel::from_env()?);
        Ok(())
    })
}

/// Writes the gate of the first half of each row, times the second half, to `out`.
#[pyfunction]
pub fn gate(py: Python, function: &str, rows: PyReadonlyArray2<f32>, mut out: PyReadwriteArray2<f32>) -> PyResult<()> {
    let function = choice("function", function, &[("silu", Gate::Silu), ("gelu_tanh", Gate::GeluTanh)])?;
    let (rows, out) = (matrix("rows", &rows)?, out.as_slice_mut()?);
    in_pool(py, || {
        decoding::gate(function, rows, out, Kernel::from_env()?);
        Ok(())
    })
}

/// Writes the next token of each row of logits (rows, vocabulary) to `out`.
#[pyfunction]
pub fn choose(
    py: Python,
    logits: PyReadonlyArray2<f32>,
    temperatures: PyReadonlyArray1<f32>,
    keys: PyReadonlyArray1<u64>,
    step: u32,
    mut out: PyReadwriteArray1<i64>,
) -> PyResult<()> {
    let (logits, out) = (matrix("logits", &logits)?, out.as_slice_mut()?);
    let (temperatures, keys) = (temperatures.as_slice()?, keys.as_slice()?);
    in_pool(py, || {
        decoding::choose(logits, temperatures, keys, step, out, Kernel::from_env()?);
        Ok(())
    })
}

/// Runs work of milliseconds in the pool, without a look at signals.
fn in_pool<T: Send>(py: Python, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    py.detach(|| pool::run(work)).map_err(input_error)
}
