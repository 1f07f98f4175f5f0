//! Pixel buffers that a refused allocation turns into an error instead of an abort.

use super::error::ImageError;

/// A buffer of `len` zeros.
pub(super) fn try_zeroed(len: usize) -> Result<Vec<u8>, ImageError> {
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(len).map_err(|_| ImageError::OutOfMemory { bytes: len })?;
    buffer.resize(len, 0);
    Ok(buffer)
}
