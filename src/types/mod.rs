//! The types of vectors, imgvec and imghalf: varlena layout, text and binary I/O, typmod, casts, operators, aggregates.

mod aggregate;
mod arithmetic;
mod cast;
mod compare;
pub mod datum;
mod distance;
mod io;
mod length;
mod mix;
pub mod price;

pub use datum::Vector;
pub use mix::Mix;
