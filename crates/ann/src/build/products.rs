//! Links to rows with high inner products, beside those to near rows.
//!
//! Where vectors are stored as directions and norms differ, a walk towards the highest products must be able to climb to longer
//! rows. So half of a row's links lead to the rows that have the highest inner products with it, among those that share
//! a leaf with it, and half to the nearest directions. `benches/recall.rs` measures it, with `products`.
//!
//! Until links are chosen, such candidates lie in the same lists as near rows. They are told by their keys: a squared distance
//! is never below zero, and the key of a product always is, the lower the higher the product.

use crate::graph::key::Key;
use crate::layout::NodeId;

/// Most links of this kind that a row has.
pub const MOST: usize = 16;

/// The key of a row with such a norm at such a squared distance between directions; `None` if the product is not positive.
pub fn key(weight: f32, distance_squared: f32, row: u32) -> Option<Key> {
    let product = product(weight, distance_squared);
    (product > 0.0).then(|| Key::new(-product, NodeId(row)))
}

/// The inner product of a unit vector with a vector of such a norm whose direction lies at such a squared distance.
pub fn product(weight: f32, distance_squared: f32) -> f32 {
    weight * (1.0 - 0.5 * distance_squared)
}

/// Whether a key is of that kind.
pub fn is_product(key: Key) -> bool {
    key.score() < 0.0
}
