//! The three distances that an index can be built for.

/// What distance means in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// `1 - cos`. Vectors are scaled to unit length first; a vector of zeros has no direction.
    Cosine,
    /// Euclidean distance.
    L2,
    /// Negative inner product.
    InnerProduct,
}

impl Metric {
    pub(crate) fn code(self) -> u8 {
        match self {
            Metric::Cosine => 1,
            Metric::L2 => 2,
            Metric::InnerProduct => 3,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Metric::Cosine, Metric::L2, Metric::InnerProduct].into_iter().find(|m| m.code() == code)
    }
}
