//! The binary wire format, that of pgvector's `vector` and `halfvec`.
//!
//! | offset | width | type | meaning |
//! |---|---|---|---|
//! | 0 | 2 | i16, big-endian | number of dimensions |
//! | 2 | 2 | i16 | unused, 0; several client libraries refuse anything else |
//! | 4 | 4 or 2 each | f32 or f16, big-endian | elements |

use crate::dim::{Dim, DimError, MAX_DIM};
use crate::element::Element;

/// Bytes that are no vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than the header.
    #[error("vector message of {0} bytes has no header")]
    NoHeader(usize),
    /// A number of dimensions that no vector has.
    #[error(transparent)]
    Dim(#[from] DimError),
    /// The unused field is set.
    #[error("expected unused to be 0, not {0}")]
    Unused(i16),
    /// The header and the length of the message disagree.
    #[error("vector message of {dim} dimensions must have {expected} bytes, not {found}")]
    Length {
        /// Dimensions of the header.
        dim: usize,
        /// Bytes that so many dimensions take.
        expected: usize,
        /// Bytes of the message.
        found: usize,
    },
    /// NaN or infinity, at a 0-based position.
    #[error("element {0} is not finite")]
    NotFinite(usize),
}

/// Bytes in front of the elements.
pub const HEADER_BYTES: usize = 4;

/// Decodes a message. Allocates at most [`MAX_DIM`] elements, and nothing before the length is checked.
///
/// # Errors
/// [`WireError`].
pub fn decode<T: Element>(message: &[u8]) -> Result<Vec<T>, WireError> {
    let Some((header, body)) = message.split_first_chunk::<HEADER_BYTES>() else {
        return Err(WireError::NoHeader(message.len()));
    };
    let dim = i16::from_be_bytes([header[0], header[1]]);
    let unused = i16::from_be_bytes([header[2], header[3]]);
    let dim = Dim::new(usize::try_from(dim).unwrap_or(MAX_DIM + 1))?;
    if unused != 0 {
        return Err(WireError::Unused(unused));
    }
    if body.len() != dim.get() * size_of::<T>() {
        return Err(WireError::Length {
            dim: dim.get(),
            expected: HEADER_BYTES + dim.get() * size_of::<T>(),
            found: message.len(),
        });
    }
    let elements: Vec<T> = body.chunks_exact(size_of::<T>()).map(T::from_be_slice).collect();
    match elements.iter().position(|element| !element.is_finite()) {
        Some(index) => Err(WireError::NotFinite(index)),
        None => Ok(elements),
    }
}

/// Appends the message of `elements` to `out`.
///
/// # Panics
/// If the number of elements is none that a vector has.
pub fn encode<T: Element>(elements: &[T], out: &mut Vec<u8>) {
    let dim = Dim::new(elements.len()).expect("a vector has 1 to MAX_DIM elements");
    out.reserve(HEADER_BYTES + size_of_val(elements));
    out.extend_from_slice(&dim.to_u16().to_be_bytes());
    out.extend_from_slice(&0i16.to_be_bytes());
    for &element in elements {
        element.push_be(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    fn decode(message: &[u8]) -> Result<Vec<f32>, WireError> {
        super::decode(message)
    }

    #[test]
    fn known_bytes() {
        let mut out = Vec::new();
        encode(&[1.0f32, -2.0], &mut out);
        assert_eq!(out, [0, 2, 0, 0, 0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0]);
        assert_eq!(decode(&out).unwrap(), [1.0, -2.0]);
        out.clear();
        encode(&[1.0, -2.0].map(f16::from_f32), &mut out);
        assert_eq!(out, [0, 2, 0, 0, 0x3c, 0, 0xc0, 0]);
        assert_eq!(super::decode::<f16>(&out).unwrap(), [1.0, -2.0].map(f16::from_f32));
    }

    #[test]
    fn hostile_messages() {
        assert_eq!(decode(&[]), Err(WireError::NoHeader(0)));
        assert_eq!(decode(&[0, 0, 0, 0]), Err(WireError::Dim(DimError::Empty)));
        assert_eq!(decode(&[0xff, 0xff, 0, 0]), Err(WireError::Dim(DimError::TooMany)));
        assert_eq!(decode(&[0x7f, 0xff, 0, 0]), Err(WireError::Dim(DimError::TooMany)));
        assert_eq!(decode(&[0, 1, 0, 1, 0, 0, 0, 0]), Err(WireError::Unused(1)));
        assert_eq!(decode(&[0, 1, 0, 0, 0]), Err(WireError::Length { dim: 1, expected: 8, found: 5 }));
        assert_eq!(
            decode(&[0, 1, 0, 0, 0, 0, 0, 0, 9]),
            Err(WireError::Length { dim: 1, expected: 8, found: 9 })
        );
        assert_eq!(decode(&[0, 1, 0, 0, 0x7f, 0xc0, 0, 0]), Err(WireError::NotFinite(0)));
        assert_eq!(decode(&[0, 1, 0, 0, 0x7f, 0x80, 0, 0]), Err(WireError::NotFinite(0)));
        let halves = super::decode::<f16>;
        assert_eq!(
            halves(&[0, 1, 0, 0, 0, 0, 0, 0]),
            Err(WireError::Length { dim: 1, expected: 6, found: 8 })
        );
        assert_eq!(halves(&[0, 2, 0, 0, 0, 0, 0x7c, 0]), Err(WireError::NotFinite(1)));
        assert_eq!(halves(&[0, 1, 0, 0, 0xfe, 1]), Err(WireError::NotFinite(0)));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(elements) = decode(&bytes) {
                let mut out = Vec::new();
                encode(&elements, &mut out);
                prop_assert_eq!(&out, &bytes);
            }
            if let Ok(elements) = super::decode::<f16>(&bytes) {
                let mut out = Vec::new();
                encode(&elements, &mut out);
                prop_assert_eq!(&out, &bytes);
            }
        }
    }
}
