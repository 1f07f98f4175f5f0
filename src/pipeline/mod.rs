//! Columns that keep their embeddings: see README.md beside this file.

mod backfill;
mod batch;
mod column;
mod declare;
mod defaults;
mod definition;
mod enqueue;
mod indexer;
mod migrate;
mod outdated;
mod progress;
mod proof;
mod query;
mod read;
mod retry;
mod successor;
mod tables;
mod work;
mod worker;
mod workers;
mod write;

pub use defaults::model_of_column;
pub use workers::register;
