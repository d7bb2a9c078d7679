//! Exact ranking over a whole catalog, ranking metrics, significance tests and sequence packing.
//!
//! Every function is deterministic: the same input gives the same bits with any number of threads, any block size and
//! any CPU. Parallel functions use the current rayon pool. [`pool::run`] provides one that survives `fork`.

mod cpu;
pub mod decoding;
mod distributions;
mod error;
pub mod exact;
pub mod filter;
mod fold;
pub mod index;
mod interrupt;
pub mod kernel;
mod log_sum;
pub mod matrix;
pub mod metrics;
pub mod packing;
pub mod pool;
pub mod ragged;
mod random;
mod rank;
mod search;
mod simd;
pub mod statistics;
mod target_scores;

pub use error::{Error, Result};
pub use index::{Blocks, ItemIndex, Prepared, Ties};
pub use interrupt::Interrupt;
pub use kernel::Kernel;
pub use matrix::Matrix;
pub use ragged::Ragged;
pub use search::Found;
pub use target_scores::TargetScores;
