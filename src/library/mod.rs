//! The SQL of picture libraries: window functions over any rows, an aggregate, and functions that
//! read an index. The algorithms are in `crates/library`. `docs/library.md` shows their use.
//!
//! A window function reads all rows of its partition when it is called for the first of them, computes once, and stores the result
//! of each row with the partition. The result of a NULL or zero vector, which has no direction, is NULL.
//!
//! A function over an index reads its vectors and links into memory, lets threads search around each, and then checks in the table which rows
//! the statement's snapshot sees.

mod clusters;
mod diverse;
mod duplicates;
mod index;
mod map;
mod memory;
mod pairs;
mod partition;
mod taste;
