//! Distance kernels, norms, and the text and wire codecs of a dense f32 vector.
//!
//! Nothing here knows PostgreSQL: slices and bytes go in, numbers and [`Result`]s come out. The byte
//! formats are those of pgvector's `vector` type, so that its client libraries read ours.
#![warn(missing_docs)]

pub mod arithmetic;
pub mod dim;
pub mod distance;
pub mod text;
pub mod wire;

pub use dim::{Dim, DimError, MAX_DIM};
