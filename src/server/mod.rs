//! What the rest of `src/` needs from the server beyond its pages: catalogs, the owner's rights, subtransactions,
//! threads, and everything that differs from version to version. It knows nothing of vectors and graphs.

pub mod catalog;
pub mod raw;
pub mod security;
pub mod subtransaction;
pub mod threads;
pub mod version;
pub mod workers;
