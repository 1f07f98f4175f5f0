//! The graph on its pages: search, insert, vacuum, verification.

pub mod beam;
pub mod prune;
pub mod rows;
pub mod search;
pub mod walk;
