//! What the key columns of an index are, and their sketches.

use super::{KEY_BYTES, MAX_COLUMNS, NULL, NULL_SKETCH, SIGNATURE_BITS, Sketches, key};

/// What the keys of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbers that order as the values do, or hashes.
    Ordered,
    /// A bit for each member of a set.
    Signature,
}

/// Most bounds of a column: its sketches are 0 to 254, and one more stands for NULL.
pub const MAX_BOUNDS: usize = 254;
/// Bits that a signature is folded to.
const FOLDED_BITS: u32 = 7;
const _: () = assert!(SIGNATURE_BITS.is_multiple_of(FOLDED_BITS));

/// The key columns of an index, with the bounds that sketches of ordered keys are made by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Kind and bounds of each, ascending; signatures have none.
    columns: Vec<(Kind, Vec<u64>)>,
}

impl Columns {
    /// Columns without bounds: all keys but NULL have one sketch.
    #[must_use]
    pub fn new(kinds: &[Kind]) -> Self {
        assert!(kinds.len() <= MAX_COLUMNS);
        Self { columns: kinds.iter().map(|&kind| (kind, Vec::new())).collect() }
    }

    /// The same with given bounds for one column.
    #[must_use]
    pub fn with_bounds(mut self, column: usize, bounds: Vec<u64>) -> Self {
        assert!(bounds.len() <= MAX_BOUNDS);
        self.columns[column].1 = bounds;
        self
    }

    /// The same with bounds for rows like those of a sample: `[n, columns]`.
    #[must_use]
    pub fn learned(mut self, sample: &[u64]) -> Self {
        let width = self.columns.len();
        for (i, (kind, bounds)) in self.columns.iter_mut().enumerate() {
            if *kind == Kind::Ordered {
                *bounds = quantiles(sample.iter().skip(i).step_by(width).copied());
            }
        }
        self
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Whether any column has bounds.
    #[must_use]
    pub fn has_bounds(&self) -> bool {
        self.columns.iter().any(|(_, bounds)| !bounds.is_empty())
    }

    /// Kind and bounds of each column.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &[u64])> {
        self.columns.iter().map(|(kind, bounds)| (*kind, bounds.as_slice()))
    }

    /// The sketches of a row's keys.
    #[must_use]
    pub fn sketches(&self, keys: &[u8]) -> Sketches {
        debug_assert_eq!(keys.len(), KEY_BYTES * self.columns.len());
        let mut sketches = [0; MAX_COLUMNS];
        for (i, (kind, bounds)) in self.columns.iter().enumerate() {
            sketches[i] = sketch(*kind, bounds, key(keys, i));
        }
        sketches
    }
}

/// The sketch of one key.
pub(super) fn sketch(kind: Kind, bounds: &[u64], key: u64) -> u8 {
    match (key, kind) {
        (NULL, _) => NULL_SKETCH,
        (_, Kind::Ordered) => {
            u8::try_from(bounds.partition_point(|&bound| bound <= key)).expect("at most 254 bounds")
        }
        (_, Kind::Signature) => folded(key),
    }
}

/// A signature in seven bits.
pub(super) fn folded(signature: u64) -> u8 {
    (0..SIGNATURE_BITS)
        .filter(|bit| signature >> bit & 1 == 1)
        .fold(0, |all, bit| all | 1 << (bit % FOLDED_BITS))
}

/// Bounds that divide keys into parts of equal size; a key that would fill more than a part has one by itself.
fn quantiles(keys: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut keys: Vec<u64> = keys.filter(|&key| key != NULL).collect();
    keys.sort_unstable();
    let mut different = keys.clone();
    different.dedup();
    if different.len() <= MAX_BOUNDS {
        return different;
    }
    // A frequent key stands for two bounds: its own, and one after it.
    const PARTS: usize = MAX_BOUNDS / 2;
    let mut bounds = Vec::with_capacity(MAX_BOUNDS);
    for part in 0..PARTS {
        let (at, next) = (part * keys.len() / PARTS, (part + 1) * keys.len() / PARTS);
        bounds.push(keys[at]);
        let behind = keys[at].saturating_add(1);
        let is_frequent = next > at + 1 && keys[next - 1] == keys[at];
        bounds.push(if is_frequent { behind } else { keys[usize::midpoint(at, next)] });
    }
    bounds.sort_unstable();
    bounds.dedup();
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{key_bytes, signature};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sketches_keep_the_order_of_keys(
            sample in proptest::collection::vec(0u64..5000, 0..2000), a: u64, b: u64, shift in 0u32..60
        ) {
            let columns = Columns::new(&[Kind::Ordered]).learned(&sample);
            let sketch = |key: u64| columns.sketches(&key_bytes(&[key]))[0];
            let (a, b) = (a >> shift, b >> shift);
            prop_assert_eq!(sketch(a) < sketch(b), sketch(a) != sketch(b) && a < b);
            prop_assert_eq!(sketch(NULL), NULL_SKETCH);
        }
    }

    #[test]
    fn few_values_are_told_apart_and_frequent_ones_from_many() {
        let sample: Vec<u64> = (0..10_000).map(|i| i % 200 * 7).collect();
        let columns = Columns::new(&[Kind::Ordered]).learned(&sample);
        let sketch = |columns: &Columns, key: u64| columns.sketches(&key_bytes(&[key]))[0];
        let all: std::collections::HashSet<u8> = (0..200).map(|i| sketch(&columns, i * 7)).collect();
        assert_eq!(all.len(), 200);
        // One value in ten rows, a thousand others.
        let sample: Vec<u64> = (0..10_000).map(|i| if i % 10 == 0 { 500 } else { i % 1000 }).collect();
        let columns = Columns::new(&[Kind::Ordered]).learned(&sample);
        let alone = (0..1000).filter(|&key| sketch(&columns, key) == sketch(&columns, 500)).count();
        assert_eq!(alone, 1);
    }

    #[test]
    fn a_folded_signature_shares_a_bit_if_the_signatures_do() {
        let (a, b) = (signature([1, 64, 200]), signature([200, 7]));
        assert_eq!(signature([63, 0]), 1);
        assert!(a & b != 0 && folded(a) & folded(b) != 0);
        assert_eq!(folded(0), 0);
        assert!(folded(u64::MAX >> 1) < NULL_SKETCH);
    }
}
