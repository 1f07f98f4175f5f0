//! Encoders: model packages, image preprocessing, tokenizing and ONNX inference.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod image;
pub mod interrupt;
