//! A score and a node as one number, and a set of nodes.

use crate::layout::NodeId;

/// A score and a node as one number that orders by score, then id. NaN orders after every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// After every key of a node.
    pub const LAST: Key = Key(u64::MAX);

    /// Packs.
    #[inline]
    #[must_use]
    pub fn new(score: f32, id: NodeId) -> Self {
        // Adding zero turns -0 into 0; NaN of either sign becomes the largest.
        let bits = if score.is_nan() { 0x7FFF_FFFF } else { (score + 0.0).to_bits() };
        // Positive floats order as their bits with the sign set, negative ones as their complement.
        let ordered = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        Self(u64::from(ordered) << 32 | u64::from(id.0))
    }

    /// The node.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    pub fn id(self) -> NodeId {
        NodeId(self.0 as u32)
    }

    /// The score.
    #[inline]
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "the upper half is meant")]
    pub fn score(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
    }
}

/// A set of node ids: open addressing, at most half full.
#[derive(Clone, Debug)]
pub struct IdSet {
    places: Vec<u32>,
    len: usize,
}

impl Default for IdSet {
    fn default() -> Self {
        Self { places: vec![NodeId::NONE.0; 256], len: 0 }
    }
}

impl IdSet {
    /// Whether the id is in the set.
    #[inline]
    #[must_use]
    pub fn contains(&self, id: NodeId) -> bool {
        self.places[self.find(id)] == id.0
    }

    /// Adds an id, which is not `NONE`; false if it was there.
    pub fn insert(&mut self, id: NodeId) -> bool {
        debug_assert!(id != NodeId::NONE);
        let at = self.find(id);
        if self.places[at] == id.0 {
            return false;
        }
        self.places[at] = id.0;
        self.len += 1;
        if self.len * 2 > self.places.len() {
            let bigger = vec![NodeId::NONE.0; self.places.len() * 2];
            for id in std::mem::replace(&mut self.places, bigger) {
                if id != NodeId::NONE.0 {
                    let at = self.find(NodeId(id));
                    self.places[at] = id;
                }
            }
        }
        true
    }

    /// Number of ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Place of the id, or the free place where it belongs.
    #[inline]
    fn find(&self, id: NodeId) -> usize {
        let mask = self.places.len() - 1;
        let mut at = (u64::from(id.0).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize & mask;
        while self.places[at] != id.0 && self.places[at] != NodeId::NONE.0 {
            at = (at + 1) & mask;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_order_as_their_scores(a: f32, b: f32) {
            let (x, y) = (Key::new(a, NodeId(5)), Key::new(b, NodeId(5)));
            prop_assert_eq!(a < b, x < y && !a.is_nan() && !b.is_nan());
            prop_assert_eq!(x.id(), NodeId(5));
            if !a.is_nan() {
                prop_assert_eq!(x.score(), a);
            }
        }

        #[test]
        fn sets_hold_what_was_put_in(ids in proptest::collection::vec(0u32..2000, 0..3000)) {
            let (mut set, mut twin) = (IdSet::default(), std::collections::HashSet::new());
            for &id in &ids {
                prop_assert_eq!(set.insert(NodeId(id)), twin.insert(id));
            }
            prop_assert_eq!(set.len(), twin.len());
            for id in 0..2000 {
                prop_assert_eq!(set.contains(NodeId(id)), twin.contains(&id));
            }
        }
    }

    #[test]
    fn nan_comes_last() {
        assert!(Key::new(f32::NAN, NodeId(0)) > Key::new(f32::INFINITY, NodeId(9)));
        assert!(Key::new(-f32::NAN, NodeId(0)) > Key::new(f32::INFINITY, NodeId(9)));
    }
}
