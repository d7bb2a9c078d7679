//! The extension `langptune_rs._core`. It converts, releases the GIL and maps errors; `langptune-core` does the work.
//!
//! The module is private. `langptune_rs.evaluation` and `langptune_rs.packing` check dtypes and shapes, and hold the
//! documentation.

mod boundary;
mod decoding;
mod metrics;
mod packing;
mod ranking;
mod statistics;

/// Exact ranking, metrics, significance tests and packing; see `langptune_rs`.
#[pyo3::pymodule(gil_used = false)]
mod _core {
    #[pymodule_export]
    use super::decoding::{KvCache, PackedMatrix, add_and_normalize, choose, gate};
    #[pymodule_export]
    use super::metrics::per_user;
    #[pymodule_export]
    use super::packing::{balance, collate, pack_sequences, split_sequences};
    #[pymodule_export]
    use super::ranking::{ItemIndex, check_ids, merge_candidates};
    #[pymodule_export]
    use super::statistics::{bootstrap_intervals, holm, mean, paired_permutation_test, paired_t_test};
}
