//! Pages of an index in the server's buffers, changed under its write-ahead log.
//!
//! This is the `ann` crate's page store on PostgreSQL. `README.md` beside it describes locks, log records and
//! errors. It knows nothing of graphs.

mod pages;
mod relation;
mod sink;
mod temporary;

pub use pages::{Mode, Pages};
pub use relation::{Identity, OpenRelation, Relation};
pub use sink::{Fork, NewPages};
pub use temporary::TemporaryFiles;
