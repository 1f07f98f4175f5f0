//! The graph on its pages: search, insert, vacuum, verification.

pub mod beam;
pub mod check;
pub mod edges;
pub mod frontier;
pub mod insert;
pub mod order;
pub mod patience;
pub mod prune;
pub mod reach;
pub mod rows;
pub mod search;
pub mod share;
pub mod vacuum;
pub mod walk;
