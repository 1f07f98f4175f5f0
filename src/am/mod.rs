//! The access method `ann`, with one file per verb. The algorithms are in `crates/ann`. `README.md` beside
//! this file describes how they fit into the server.

mod build;
pub mod cache;
mod cost;
mod handler;
mod insert;
pub mod inspect;
mod keys;
mod model;
pub mod opclass;
pub mod options;
pub mod order;
mod scan;
mod stats;
pub mod table;
mod threads;
mod threshold;
pub mod training;
mod vacuum;
mod validate;
pub mod waiting;
