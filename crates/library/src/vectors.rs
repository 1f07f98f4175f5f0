//! Rows of vectors to compute with, one after another in memory.

use imgvec_vector::{arithmetic, distance};
use std::collections::TryReserveError;

/// Vectors of one dimension, with their directions.
#[derive(Clone, Debug, Default)]
pub struct Vectors {
    dim: usize,
    elements: Vec<f32>,
}

impl Vectors {
    /// None yet, of so many dimensions.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self { dim, elements: Vec::new() }
    }

    /// Takes the memory for so many at once.
    ///
    /// # Errors
    /// If the system refuses it.
    pub fn reserve(&mut self, count: usize) -> Result<(), TryReserveError> {
        self.elements.try_reserve_exact(count.saturating_mul(self.dim))
    }

    /// Bytes of each.
    #[must_use]
    pub fn row_bytes(&self) -> usize {
        self.dim * size_of::<f32>()
    }

    /// Dimensions.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.elements.len().checked_div(self.dim).unwrap_or(0)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// Adds one.
    ///
    /// # Panics
    /// If it has not the dimension.
    pub fn push(&mut self, vector: &[f32]) {
        assert_eq!(vector.len(), self.dim, "vectors of one length");
        self.elements.extend_from_slice(vector);
    }

    /// Adds the direction of one, a unit vector. The zero vector has none: then it is left out, and the answer is false.
    ///
    /// # Panics
    /// If it has not the dimension.
    pub fn push_direction(&mut self, vector: &[f32]) -> bool {
        assert_eq!(vector.len(), self.dim, "vectors of one length");
        if vector.iter().all(|&x| x == 0.0) {
            return false;
        }
        let start = self.elements.len();
        self.elements.resize(start + self.dim, 0.0);
        arithmetic::normalize(vector, &mut self.elements[start..]);
        true
    }

    /// One of them.
    #[must_use]
    pub fn row(&self, at: usize) -> &[f32] {
        &self.elements[at * self.dim..][..self.dim]
    }

    /// Euclidean distance of two.
    #[must_use]
    pub fn distance(&self, a: usize, b: usize) -> f64 {
        distance::l2(self.row(a), self.row(b))
    }

    /// Inner product of two: the cosine of unit vectors.
    #[must_use]
    pub fn inner_product(&self, a: usize, b: usize) -> f64 {
        distance::inner_product(self.row(a), self.row(b))
    }

    /// Numbers of the rows in the order of their values, so that what is computed in it does not depend on the order that
    /// they came in. Equal vectors keep their order.
    #[must_use]
    pub fn order(&self) -> Vec<u32> {
        let mut order: Vec<u32> =
            (0..u32::try_from(self.len()).expect("rows are numbered by 32 bits")).collect();
        order.sort_by(|&a, &b| arithmetic::compare(self.row(a as usize), self.row(b as usize)));
        order
    }
}
