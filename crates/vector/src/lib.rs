//! Distance kernels, norms, and the text and wire codecs of a dense vector of single or half precision.
//!
//! Nothing here knows PostgreSQL: slices and bytes go in, numbers and [`Result`]s come out. The byte
//! formats are those of pgvector's types `vector` and `halfvec`, so that its client libraries read ours.
#![warn(missing_docs)]

mod arch;
pub mod arithmetic;
pub mod dim;
pub mod distance;
pub mod element;
pub mod text;
pub mod wire;

pub use dim::{Dim, DimError, MAX_DIM};
pub use element::Element;
