//! What a language model computes for each new token of many texts: matrix products, attention over the cache, norms,
//! gates, and the choice of the next token.
//!
//! Every row of a batch is computed alone, in one order of operations. So a text is the same with any other texts beside
//! it and with any number of threads.

mod attention;
mod cache;
mod choice;
mod elementwise;
mod output;
mod product;
mod segments;

pub use cache::KvCache;
pub use choice::choose;
pub use elementwise::{Gate, add_and_normalize, gate};
pub use product::PackedMatrix;
pub use segments::{Attention, NewTokens, Norms, Shape};
