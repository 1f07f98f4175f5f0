//! Decoders with the interface of a C library, so that calling them takes unsafe code: rav1d for AV1, and libheif for HEIC.
//!
//! Neither can be stopped at every moment. So they run on a thread of their own that takes no signals, and that a caller who wants to stop
//! leaves behind ([`worker`]).
#![warn(missing_docs)]
#![allow(
    unsafe_code,
    reason = "the interfaces are those of C libraries; pointers stay inside of av1/ and heif/"
)]

pub mod av1;
mod contain;
pub mod heif;
mod signals;
mod worker;

pub use signals::SignalsBlocked;
