//! What a picture library does with the vectors of its pictures: groups of copies, clusters, ranks that avoid repetition,
//! and a map.
//!
//! Rows are numbers from 0, distances are given as functions or lists. Every answer is a function of the input alone: no
//! clock, no global state, no randomness but a generator with a fixed seed. Long loops call the interrupt check that is
//! handed in; it may unwind.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod hdbscan;
pub mod linkage;
pub mod map;
pub mod mmr;
mod random;
mod sets;
pub mod vectors;

/// Called often enough that a second never passes without; it may unwind.
pub type Check<'a> = &'a mut dyn FnMut();
