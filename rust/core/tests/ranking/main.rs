//! Ranking and search.

mod case;
mod definition;
mod edge_cases;
mod rescoring;
mod shards;
