//! What a picture library does with its vectors, in SQL: window functions over any rows, an aggregate, and functions that
//! answer from an index. What is interesting lives in `crates/library`; `docs/library.md` tells how it is used.
//!
//! A window function reads all rows of its partition when it is called for the first of them, computes once, and keeps an answer
//! for each row with the partition. A NULL or zero vector has no direction: its answer is NULL.
//!
//! A function of an index reads its vectors and links into memory, lets threads search around each, and asks the table for what
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
