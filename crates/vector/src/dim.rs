//! How many elements a vector may have.

/// The largest number of dimensions of a stored vector, as in pgvector.
pub const MAX_DIM: usize = 16_000;

/// A checked number of dimensions, `1..=MAX_DIM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dim(u16);

/// A number of dimensions that no vector can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DimError {
    /// A vector has at least one element.
    #[error("vector must have at least 1 dimension")]
    Empty,
    /// More elements than [`MAX_DIM`].
    #[error("vector cannot have more than {MAX_DIM} dimensions")]
    TooMany,
}

impl Dim {
    /// Checks a count.
    ///
    /// # Errors
    /// [`DimError`] unless `1 <= count <= MAX_DIM`.
    pub fn new(count: usize) -> Result<Self, DimError> {
        match count {
            0 => Err(DimError::Empty),
            1..=MAX_DIM => Ok(Self(u16::try_from(count).expect("MAX_DIM fits 16 bits"))),
            _ => Err(DimError::TooMany),
        }
    }

    /// The count as an index type.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// The count as the disk and wire formats hold it.
    #[must_use]
    pub fn to_u16(self) -> u16 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert_eq!(Dim::new(0), Err(DimError::Empty));
        assert_eq!(Dim::new(1).unwrap().get(), 1);
        assert_eq!(Dim::new(MAX_DIM).unwrap().to_u16(), 16_000);
        assert_eq!(Dim::new(MAX_DIM + 1), Err(DimError::TooMany));
    }
}
