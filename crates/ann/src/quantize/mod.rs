//! From vectors to codes: rotation, 8-bit integers, sign codes of residuals.

pub mod fastscan;
pub mod int8;
pub mod residual;
pub mod rotation;

pub use int8::Int8;
pub use rotation::Rotation;
