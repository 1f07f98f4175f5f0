//! The `ann` index without PostgreSQL: codes, graph search, build, insert, vacuum and page formats.
//!
//! Storage is seen through one trait, [`store::PageStore`]; randomness, threads, memory limits and the
//! interrupt check are handed in. `README.md` beside this crate tells how the parts work together.
#![deny(unsafe_code)]
#![warn(missing_docs)]

// Products of sizes that a 32-bit number cannot hold would wrap round.
#[cfg(not(target_pointer_width = "64"))]
compile_error!("ann computes sizes of tables and indexes in 64 bits: 32-bit servers are not supported");

pub mod arch;
#[forbid(unsafe_code)]
mod bits;
#[forbid(unsafe_code)]
pub mod build;
#[forbid(unsafe_code)]
pub mod filter;
#[forbid(unsafe_code)]
pub mod graph;
#[forbid(unsafe_code)]
pub mod index;
#[forbid(unsafe_code)]
pub mod layout;
#[forbid(unsafe_code)]
pub mod metric;
#[forbid(unsafe_code)]
pub mod quantize;
#[forbid(unsafe_code)]
pub mod random;
#[forbid(unsafe_code)]
pub mod space;
#[forbid(unsafe_code)]
pub mod store;

pub use index::{AccessError, Index};
pub use metric::Metric;
