//! The boundary between Python and the core: how arrays are read, where work runs, and what errors become.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use langptune_core::{Error, Interrupt, Matrix, Result, pool};
use numpy::prelude::*;
use numpy::{PyReadonlyArray1, PyReadonlyArray2};
use pyo3::prelude::*;

pyo3::import_exception!(langptune_rs.errors, InputError);

/// Where core work runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// On this thread: for work that takes less time than handing it over, or that enters the pool itself.
    Here,
    /// In the thread pool of this process. Work that checks its interrupt ends early when a signal arrives, such as
    /// that of Ctrl-C, and the signal's exception is raised.
    InPool,
}

/// Runs core work without the GIL. Its errors become `InputError`.
pub fn enter_core<T: Send>(py: Python, place: Where, work: impl FnOnce(Interrupt) -> Result<T> + Send) -> PyResult<T> {
    if place == Where::Here {
        let work = || {
            let _floats = pool::IeeeFloats::on_this_thread();
            work(Interrupt::NEVER)
        };
        return py.detach(work).map_err(input_error);
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
        None => done.map_err(input_error),
    }
}

/// The exception of an error of the core.
pub fn input_error(error: Error) -> PyErr {
    InputError::new_err(error.to_string())
}

/// The rows of the caller's array. An array that is not C-contiguous is refused, not copied.
pub fn matrix<'a>(name: &'static str, array: &'a PyReadonlyArray2<f32>) -> PyResult<Matrix<'a>> {
    let (rows, columns) = (array.shape()[0], array.shape()[1]);
    if columns == 0 {
        return Err(input_error(Error::Empty { name, rows, columns }));
    }
    Ok(Matrix::new(array.as_slice()?, columns))
}

/// (offsets, values) of ragged rows. The core checks them.
pub type Rows<'py> = (PyReadonlyArray1<'py, i64>, PyReadonlyArray1<'py, i64>);

/// The offsets and values of ragged rows as slices.
pub fn slices<'a>(rows: &'a Rows) -> PyResult<(&'a [i64], &'a [i64])> {
    Ok((rows.0.as_slice()?, rows.1.as_slice()?))
}

/// The value that a keyword such as `ties = "min"` stands for.
pub fn choice<T: Copy>(name: &str, given: &str, choices: &[(&str, T)]) -> PyResult<T> {
    let found = choices.iter().find(|(choice, _)| *choice == given);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(choice, _)| format!("{choice:?}")).collect();
        let (last, others) = names.split_last().expect("a keyword has values");
        InputError::new_err(format!("{name} = {given:?}: pass {} or {last}", others.join(", ")))
    })
}
