//! Encoders: model packages, image preprocessing, tokenizing and ONNX inference.
//!
//! [`package`] reads what a directory of model files says, [`runtime`] loads ONNX Runtime and graphs,
//! [`image`] and [`text`] make their inputs, and [`Encoder`] joins them: pictures and texts in, unit
//! vectors out. Nothing here knows of PostgreSQL; paths, limits, thread counts and the interrupt check
//! are handed in.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod cache;
pub mod encoder;
pub mod image;
pub mod interrupt;
pub mod memory;
pub mod package;
pub mod runtime;
pub mod text;

pub use encoder::{EncodeError, Encoder, EncoderOptions};
pub use imgvec_codecs::SignalsBlocked;
