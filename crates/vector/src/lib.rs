//! Distance kernels, norms, and the text and wire codecs of a dense f32 vector.
#![warn(missing_docs)]
