//! Conditions on keys, and what of them a sketch can tell.

use super::columns::{Columns, Kind, folded, sketch};
use super::{KEY_BYTES, NULL, NULL_SKETCH, key};
use crate::layout::MAX_DEGREE;
use crate::layout::node::Node;

/// What the key of a column must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Not below one key nor above another.
    Within {
        /// The least key.
        low: u64,
        /// The largest.
        high: u64,
    },
    /// One of these, which ascend.
    OneOf(Vec<u64>),
    /// A signature that shares a bit with this one.
    Overlaps(u64),
    /// A signature with all bits of this one.
    Contains(u64),
    /// No value.
    IsNull,
    /// Any value.
    IsNotNull,
    /// Nothing passes.
    Never,
}

impl Condition {
    fn admits(&self, key: u64) -> bool {
        if key == NULL {
            return *self == Condition::IsNull;
        }
        match self {
            Condition::Within { low, high } => (*low..=*high).contains(&key),
            Condition::OneOf(keys) => keys.binary_search(&key).is_ok(),
            Condition::Overlaps(signature) => key & signature != 0,
            Condition::Contains(signature) => key & signature == *signature,
            Condition::IsNotNull => true,
            Condition::IsNull | Condition::Never => false,
        }
    }

    /// Leaves in a table of sketches only those whose keys may pass.
    fn restrict(&self, kind: Kind, bounds: &[u64], table: &mut [bool; 256]) {
        let mut own = [false; 256];
        if let Condition::OneOf(keys) = self {
            keys.iter()
                .filter(|&&key| key != NULL)
                .for_each(|&key| own[usize::from(sketch(kind, bounds, key))] = true);
        } else {
            own =
                std::array::from_fn(|s| self.may_admit(kind, bounds, u8::try_from(s).expect("256 of them")));
        }
        table.iter_mut().zip(own).for_each(|(may, own)| *may &= own);
    }

    /// Whether a key with this sketch may pass.
    fn may_admit(&self, kind: Kind, bounds: &[u64], sketched: u8) -> bool {
        if sketched == NULL_SKETCH {
            return *self == Condition::IsNull;
        }
        let place = |key: u64| sketch(kind, bounds, key.min(NULL - 1));
        match self {
            Condition::Within { low, high } => {
                low <= high && (place(*low)..=place(*high)).contains(&sketched)
            }
            Condition::OneOf(_) => unreachable!("its sketches are listed, not asked for"),
            Condition::Overlaps(signature) => sketched & folded(*signature) != 0,
            Condition::Contains(signature) => sketched & folded(*signature) == folded(*signature),
            Condition::IsNotNull => true,
            Condition::IsNull | Condition::Never => false,
        }
    }
}

/// Conditions on key columns, all of which a row must meet.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    conditions: Vec<(usize, Condition)>,
    /// By column: whether a sketch may pass.
    tables: Vec<(usize, Box<[bool; 256]>)>,
}

impl Filter {
    /// Conditions on columns of an index, each with the number of its column from 0.
    #[must_use]
    pub fn new(columns: &Columns, conditions: Vec<(usize, Condition)>) -> Self {
        let mut tables = Vec::new();
        for (number, (kind, bounds)) in columns.iter().enumerate() {
            let own: Vec<&Condition> =
                conditions.iter().filter(|(column, _)| *column == number).map(|(_, c)| c).collect();
            if own.is_empty() {
                continue;
            }
            let mut table = Box::new([true; 256]);
            own.iter().for_each(|condition| condition.restrict(kind, bounds, &mut table));
            tables.push((number, table));
        }
        Self { conditions, tables }
    }

    /// Whether everything passes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether a row of such keys passes.
    #[must_use]
    pub fn admits(&self, keys: &[u8]) -> bool {
        self.conditions.iter().all(|(column, condition)| {
            debug_assert!(KEY_BYTES * column < keys.len());
            condition.admits(key(keys, *column))
        })
    }

    /// Which neighbors of a node may pass, by their sketches; after the degree it means nothing.
    #[must_use]
    pub fn may_admit(&self, node: &Node) -> [bool; MAX_DEGREE] {
        let mut may = [true; MAX_DEGREE];
        for (column, table) in &self.tables {
            for (may, &sketch) in may.iter_mut().zip(node.sketches(*column)) {
                *may &= table[usize::from(sketch)];
            }
        }
        may
    }

    /// Whether what has these sketches may pass.
    #[must_use]
    pub fn may_admit_sketches(&self, sketches: &super::Sketches) -> bool {
        self.tables.iter().all(|(column, table)| table[usize::from(sketches[*column])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{key_bytes, signature};
    use proptest::prelude::*;

    fn condition() -> impl Strategy<Value = Condition> {
        let key = || prop_oneof![0u64..300, Just(0), Just(NULL - 1), Just(NULL)];
        prop_oneof![
            (key(), key()).prop_map(|(low, high)| Condition::Within { low, high }),
            proptest::collection::btree_set(key(), 0..5)
                .prop_map(|keys| Condition::OneOf(keys.into_iter().collect())),
            proptest::collection::vec(key(), 0..3).prop_map(|hashes| Condition::Overlaps(signature(hashes))),
            proptest::collection::vec(key(), 0..3).prop_map(|hashes| Condition::Contains(signature(hashes))),
            Just(Condition::IsNull),
            Just(Condition::IsNotNull),
            Just(Condition::Never),
        ]
    }

    proptest! {
        #[test]
        fn a_sketch_lets_pass_whatever_the_key_does(
            conditions in proptest::collection::vec((0usize..2, condition()), 1..4),
            keys in proptest::collection::vec(prop_oneof![0u64..300, Just(NULL)], 0..1000),
            members in proptest::collection::vec(proptest::option::weighted(0.9, 0u64..300), 3),
        ) {
            let kinds = [Kind::Ordered, Kind::Signature];
            let sample: Vec<u64> = keys.iter().flat_map(|&key| [key, 0]).collect();
            let columns = Columns::new(&kinds).learned(&sample);
            // Conditions on sets are for signatures, and the others for ordered keys, as whoever asks sees to.
            let fits = |column: usize, condition: &Condition| match condition {
                Condition::Overlaps(_) | Condition::Contains(_) => column == 1,
                Condition::Within { .. } | Condition::OneOf(_) => column == 0,
                Condition::IsNull | Condition::IsNotNull | Condition::Never => true,
            };
            let conditions: Vec<_> = conditions.into_iter().filter(|(n, c)| fits(*n, c)).collect();
            let filter = Filter::new(&columns, conditions);
            let set = if members[0].is_none() { NULL } else { signature(members.into_iter().flatten()) };
            for key in keys.into_iter().chain([0, 299, NULL - 1, NULL]) {
                let row = key_bytes(&[key, set]);
                if filter.admits(&row) {
                    prop_assert!(filter.may_admit_sketches(&columns.sketches(&row)));
                }
            }
        }
    }
}
