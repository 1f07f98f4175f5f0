//! How a caller stops long work: a check that is handed in, never a global.

/// Returns true when the caller wants the current work to stop as soon as possible.
///
/// A plain function, so that threads can hold it and reading it costs nothing to share. It is
/// called often (every few hundred input bytes of an image), so it must be cheap, and it must
/// not unwind.
pub type InterruptCheck = fn() -> bool;

/// The check of a caller that never wants to stop.
pub fn never_interrupted() -> bool {
    false
}
