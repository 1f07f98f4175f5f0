//! The access method `ann`: one file per verb. What is interesting lives in `crates/ann`; `README.md` beside
//! this file tells how it is fitted to the server.

mod build;
mod cache;
mod cost;
mod handler;
mod insert;
mod inspect;
mod keys;
mod model;
mod opclass;
pub mod options;
pub mod order;
mod scan;
mod stats;
mod table;
mod threads;
mod threshold;
mod training;
mod vacuum;
mod validate;
mod waiting;
