//! Key columns: what an index knows of a row besides its vector, and what a search may ask of it.
//!
//! A row has a *key* of eight bytes for each column. Equal values have equal keys, and a larger value has no smaller key; where
//! values have no order the key is a hash; of a set of values it is a *signature*, which has a bit for each. So a
//! condition on keys lets every row pass whose value passes, and some others: whoever asks looks at the values once more.
//!
//! An edge has a *sketch* of its neighbor for each column, one byte: a node knows which of its neighbors may pass before any
//! of them is read. A sketch of an ordered key is its place among up to 254 *bounds*, quantiles of the keys that a build met;
//! that of a signature is the signature folded.

mod columns;
mod condition;

pub use columns::{Columns, Kind, MAX_BOUNDS};
pub use condition::{Condition, Filter};

/// Most key columns of an index.
pub const MAX_COLUMNS: usize = 8;
/// Bytes of a key.
pub const KEY_BYTES: usize = 8;
/// The key of a value that is not there; no other value has it.
pub const NULL: u64 = u64::MAX;
/// Bits of a signature; the last bit of a key is not among them, which tells it from [`NULL`].
pub const SIGNATURE_BITS: u32 = 63;
/// The sketch of [`NULL`].
const NULL_SKETCH: u8 = u8::MAX;

/// Sketches of one neighbor, by column; zeros after the last column.
pub type Sketches = [u8; MAX_COLUMNS];

/// The signature of a set of values by their hashes.
#[must_use]
pub fn signature(hashes: impl IntoIterator<Item = u64>) -> u64 {
    hashes.into_iter().fold(0, |all, hash| all | 1 << (hash % u64::from(SIGNATURE_BITS)))
}

/// Keys as nodes hold them.
#[must_use]
pub fn key_bytes(keys: &[u64]) -> Vec<u8> {
    keys.iter().flat_map(|key| key.to_le_bytes()).collect()
}

/// The key of one column.
#[must_use]
pub fn key(keys: &[u8], column: usize) -> u64 {
    let bytes = &keys[KEY_BYTES * column..][..KEY_BYTES];
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}
