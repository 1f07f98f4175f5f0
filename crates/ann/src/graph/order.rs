//! Nodes found, in the order in which their rows are returned.
//!
//! The server keeps a row back until the bounds it is handed have passed the row's own distance. So bounds
//! must not descend: a node that is found when a larger bound was returned already is too late for its
//! place, and waits until nothing else is left.

use crate::layout::node::Header;
use crate::layout::{HeapTid, NodeId};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// A node found: its rows, with their common bound.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// No row's distance is below this.
    pub lower_bound: f64,
    /// Nor above this.
    pub upper_bound: f64,
    /// The node.
    pub id: NodeId,
    tid: HeapTid,
    tids: u32,
    generation: u16,
    /// What walks order by.
    pub score: f32,
}

const _: () = assert!(size_of::<Found>() == 40);

impl Found {
    /// Of a node whose header was read under its page's lock.
    #[must_use]
    pub fn new([lower_bound, upper_bound]: [f64; 2], score: f32, id: NodeId, header: &Header) -> Self {
        // One NaN, after every number, whatever sign arithmetic gave it.
        let lower_bound = if lower_bound.is_nan() { f64::NAN } else { lower_bound };
        Self {
            lower_bound,
            upper_bound,
            id,
            tid: header.tid,
            tids: header.tids,
            generation: header.generation,
            score,
        }
    }

    /// What of the header tells the rows.
    #[must_use]
    pub fn header(&self) -> Header {
        Header { tid: self.tid, tids: self.tids, generation: self.generation, ..Header::FREE }
    }
}

impl PartialEq for Found {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Found {}
impl PartialOrd for Found {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Found {
    fn cmp(&self, other: &Self) -> Ordering {
        self.lower_bound.total_cmp(&other.lower_bound).then(self.id.cmp(&other.id))
    }
}

/// Nodes waiting to be returned.
#[derive(Debug)]
pub struct Order {
    due: BinaryHeap<Reverse<Found>>,
    late: BinaryHeap<Reverse<Found>>,
    /// The largest bound returned.
    given: f64,
    ascending: bool,
}

impl Default for Order {
    fn default() -> Self {
        Self { due: BinaryHeap::new(), late: BinaryHeap::new(), given: f64::NEG_INFINITY, ascending: true }
    }
}

impl Order {
    /// Adds a node; false if it is too late for its place.
    pub fn push(&mut self, found: Found) -> bool {
        let late = self.ascending && found.lower_bound.total_cmp(&self.given).is_lt();
        let waiting = if late { &mut self.late } else { &mut self.due };
        waiting.push(Reverse(found));
        !late
    }

    /// Adds many nodes; answers how many are too late for their place.
    pub fn extend(&mut self, found: Vec<Found>) -> u64 {
        let given = self.given;
        let is_late = |found: &Found| found.lower_bound.total_cmp(&given).is_lt();
        let (late, due): (Vec<_>, Vec<_>) =
            found.into_iter().map(Reverse).partition(|Reverse(found)| self.ascending && is_late(found));
        let count = late.len() as u64;
        self.due.append(&mut due.into());
        self.late.append(&mut late.into());
        count
    }

    /// The next node in ascending order, or, once they were released, of the late ones.
    pub fn pop(&mut self) -> Option<Found> {
        let Reverse(found) = self.due.pop()?;
        if self.ascending {
            self.given = found.lower_bound;
        }
        Some(found)
    }

    /// The node that [`Order::pop`] would give.
    #[must_use]
    pub fn peek(&self) -> Option<&Found> {
        self.due.peek().map(|Reverse(found)| found)
    }

    /// Whether [`Order::pop`] has nothing to give.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Nodes that wait, late ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.due.len() + self.late.len()
    }

    /// Drops the nodes that are due and whose distance is known to lie beyond their place.
    pub fn forget_due(&mut self) {
        self.due.retain(|Reverse(found)| found.upper_bound == f64::INFINITY);
    }

    /// Gives up on the order: whatever waits or comes from now on is due.
    pub fn release_late(&mut self) {
        self.ascending = false;
        self.due.append(&mut self.late);
    }

    /// Whether the order was given up.
    #[must_use]
    pub fn released(&self) -> bool {
        !self.ascending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(bound: f64, id: usize) -> Found {
        Found::new([bound; 2], 0.0, NodeId(u32::try_from(id).unwrap()), &Header::FREE)
    }

    proptest! {
        #[test]
        fn bounds_ascend_until_late_ones_are_released(
            // None asks for a node, Some brings one.
            steps in proptest::collection::vec(proptest::option::weighted(0.6, -4i8..4), 1..80)
        ) {
            let (mut order, mut given, mut late) = (Order::default(), Vec::new(), 0);
            for (i, step) in steps.iter().enumerate() {
                match step {
                    Some(bound) => late += usize::from(!order.push(found(f64::from(*bound), i))),
                    None => given.extend(order.pop()),
                }
            }
            given.extend(std::iter::from_fn(|| order.pop()));
            prop_assert!(given.is_sorted_by_key(|f| f.lower_bound));
            prop_assert_eq!(order.len(), late);
            order.release_late();
            let last: Vec<Found> = std::iter::from_fn(|| order.pop()).collect();
            prop_assert_eq!(last.len(), late);
            prop_assert!(last.is_sorted());
            let mut ids: Vec<u32> = given.iter().chain(&last).map(|f| f.id.0).collect();
            ids.sort_unstable();
            let wanted: Vec<u32> =
                (0..).zip(&steps).filter_map(|(i, step)| step.is_some().then_some(i)).collect();
            prop_assert_eq!(ids, wanted);
        }
    }

    #[test]
    fn what_is_no_number_comes_last_and_is_never_late() {
        let mut order = Order::default();
        assert!(order.push(found(-f64::NAN, 0)) && order.push(found(f64::INFINITY, 1)));
        assert_eq!(order.pop().unwrap().id, NodeId(1));
        assert!(order.pop().unwrap().lower_bound.is_nan());
        assert!(order.push(found(f64::NAN, 2)), "not below the last");
        assert!(!order.push(found(1.0, 3)), "a number is");
    }
}
