//! Candidates of a walk, best first, for as long as somebody asks.

use super::key::{IdSet, Key};
use crate::layout::NodeId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Most candidates kept before copies of the same node are thrown out.
const COMPACT_AT: usize = 1 << 16;
/// Of the far candidates, one in so many becomes near at a time, and at least `FEWEST_NEAR`.
const NEAR_SHARE: usize = 8;
const FEWEST_NEAR: usize = 64;

/// Nodes that were estimated and not visited. A node may be in it several times, with different estimates.
///
/// Most of it is never asked for, so only what lies below a border is kept in order.
#[derive(Debug)]
pub struct Frontier {
    near: BinaryHeap<Reverse<Key>>,
    /// At the border or beyond.
    far: Vec<Key>,
    border: Key,
    compact_at: usize,
}

impl Default for Frontier {
    fn default() -> Self {
        let border = Key::new(f32::NEG_INFINITY, NodeId(0));
        Self { near: BinaryHeap::new(), far: Vec::new(), border, compact_at: COMPACT_AT }
    }
}

impl Frontier {
    /// Adds a candidate.
    #[inline]
    pub fn push(&mut self, key: Key) {
        if key < self.border {
            self.near.push(Reverse(key));
        } else {
            self.far.push(key);
        }
    }

    /// Takes out the best candidate that was not expanded, if it is below the limit.
    pub fn pop_below(&mut self, limit: Key, expanded: &IdSet) -> Option<Key> {
        self.best_below(limit, expanded)?;
        self.pop_best()
    }

    /// Takes out what [`Frontier::best_below`] has found just now.
    pub fn pop_best(&mut self) -> Option<Key> {
        self.near.pop().map(|Reverse(key)| key)
    }

    /// The best candidate that was not expanded, if it is below the limit.
    pub fn best_below(&mut self, limit: Key, expanded: &IdSet) -> Option<Key> {
        if self.near.len() + self.far.len() > self.compact_at {
            self.compact(expanded);
        }
        loop {
            while let Some(&Reverse(key)) = self.near.peek() {
                if key >= limit {
                    return None;
                }
                if key.id() != NodeId::NONE && !expanded.contains(key.id()) {
                    return Some(key);
                }
                self.near.pop();
            }
            if self.far.is_empty() || self.border >= limit {
                return None;
            }
            self.advance();
        }
    }

    /// Moves the border beyond the best of the far candidates.
    fn advance(&mut self) {
        let count = (self.far.len() / NEAR_SHARE).max(FEWEST_NEAR);
        let near = if count < self.far.len() {
            self.border = *self.far.select_nth_unstable(count).1;
            let far = self.far.split_off(count);
            std::mem::replace(&mut self.far, far)
        } else {
            self.border = Key::new(f32::NAN, NodeId::NONE);
            std::mem::take(&mut self.far)
        };
        self.near = near.into_iter().map(Reverse).collect();
    }

    /// Some of the candidates that will be asked for next.
    pub fn upcoming(&self) -> impl Iterator<Item = Key> + '_ {
        // The heads of a heap's levels are the smallest, roughly.
        self.near.as_slice().iter().map(|&Reverse(key)| key)
    }

    /// Keeps each node once, with its best estimate, if it was not expanded: what is kept is bounded by the
    /// number of nodes.
    fn compact(&mut self, expanded: &IdSet) {
        let mut keys = std::mem::take(&mut self.far);
        keys.extend(std::mem::take(&mut self.near).into_iter().map(|Reverse(key)| key));
        keys.sort_unstable();
        let mut seen = IdSet::default();
        keys.retain(|key| key.id() != NodeId::NONE && !expanded.contains(key.id()) && seen.insert(key.id()));
        *self = Self { far: keys, ..Self::default() };
        self.compact_at = COMPACT_AT.max(2 * self.far.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn candidates_come_best_first_and_nodes_once(
            // None asks for the next below a limit, Some brings a candidate.
            steps in proptest::collection::vec(
                (proptest::option::weighted(0.7, (0u16..50, 0u32..30)), 0u16..60), 1..300),
            compact_at in 1usize..40,
        ) {
            let mut frontier = Frontier { compact_at, ..Frontier::default() };
            let (mut expanded, mut twin) = (IdSet::default(), Vec::new());
            for (step, limit) in steps {
                if let Some((score, id)) = step {
                    let key = Key::new(f32::from(score), NodeId(id));
                    frontier.push(key);
                    twin.push(key);
                    continue;
                }
                frontier.compact_at = compact_at;
                let limit = Key::new(f32::from(limit), NodeId(0));
                twin.retain(|key| !expanded.contains(key.id()));
                let best = twin.iter().min().copied().filter(|&key| key < limit);
                prop_assert_eq!(frontier.pop_below(limit, &expanded), best);
                if let Some(key) = best {
                    expanded.insert(key.id());
                }
            }
        }
    }

    #[test]
    fn copies_do_not_pile_up() {
        let (mut frontier, expanded) = (Frontier::default(), IdSet::default());
        for i in 0..10 * COMPACT_AT {
            frontier.push(Key::new(1.0 + (i % 7) as f32, NodeId((i % 100) as u32)));
            if i % 32 == 0 {
                assert_eq!(frontier.pop_below(Key::new(0.0, NodeId(0)), &expanded), None);
            }
        }
        assert!(frontier.near.len() + frontier.far.len() <= COMPACT_AT + 32);
    }
}
