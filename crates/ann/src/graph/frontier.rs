//! Candidates beyond the beam, best first, for as long as somebody asks.

use super::beam::{IdSet, Key};
use crate::layout::NodeId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Most candidates kept before copies of the same node are thrown out.
const COMPACT_AT: usize = 1 << 16;

/// What fell off the beam or never got in. A node may be in it several times, with different estimates.
#[derive(Debug)]
pub struct Frontier {
    /// Not yet in the heap: nothing is ordered before somebody asks.
    fresh: Vec<Key>,
    heap: BinaryHeap<Reverse<Key>>,
    compact_at: usize,
}

impl Default for Frontier {
    fn default() -> Self {
        Self { fresh: Vec::new(), heap: BinaryHeap::new(), compact_at: COMPACT_AT }
    }
}

impl Frontier {
    /// Adds a candidate.
    #[inline]
    pub fn push(&mut self, key: Key) {
        self.fresh.push(key);
    }

    /// Takes out the best candidate that was not expanded, if it is below the limit.
    pub fn pop_below(&mut self, limit: Key, expanded: &IdSet) -> Option<Key> {
        if self.heap.len() + self.fresh.len() > self.compact_at {
            self.compact(expanded);
        }
        self.heap.extend(self.fresh.drain(..).map(Reverse));
        while let Some(&Reverse(key)) = self.heap.peek() {
            if key.id() == NodeId::NONE || expanded.contains(key.id()) {
                self.heap.pop();
            } else if key < limit {
                self.heap.pop();
                return Some(key);
            } else {
                break;
            }
        }
        None
    }

    /// Some of the candidates that will be asked for next.
    pub fn upcoming(&self) -> impl Iterator<Item = Key> + '_ {
        // The heads of a heap's levels are the smallest, roughly.
        self.heap.as_slice().iter().map(|&Reverse(key)| key)
    }

    /// Keeps each node once, with its best estimate, if it was not expanded: what is kept is bounded by the
    /// number of nodes.
    fn compact(&mut self, expanded: &IdSet) {
        let mut keys = std::mem::take(&mut self.fresh);
        keys.extend(std::mem::take(&mut self.heap).into_iter().map(|Reverse(key)| key));
        keys.sort_unstable();
        let mut seen = IdSet::default();
        keys.retain(|key| key.id() != NodeId::NONE && !expanded.contains(key.id()) && seen.insert(key.id()));
        self.compact_at = COMPACT_AT.max(2 * keys.len());
        self.fresh = keys;
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
        assert!(frontier.heap.len() + frontier.fresh.len() <= COMPACT_AT + 32);
    }
}
