//! The graph on its pages: search, insert, vacuum, verification.

pub mod calibrate;
pub mod check;
pub mod edges;
pub mod filtered;
pub mod frontier;
pub mod insert;
pub mod key;
pub mod near;
pub mod nearest;
pub mod order;
pub mod prune;
pub mod reach;
pub mod rows;
pub mod search;
pub mod share;
mod sweep;
pub mod train;
pub mod vacuum;
pub mod walk;
