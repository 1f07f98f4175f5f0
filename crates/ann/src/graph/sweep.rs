//! Reading all pages in order, for scans that want much of the index, or what no link leads to.
//!
//! Memory is bounded: if there are more nodes than may wait, the nearest of them wait, and when they were returned
//! another pass over the pages finds the next ones. So the order holds to the last row.

use super::order::{Found, Order};
use super::search::found;
use super::walk::Walk;
use crate::index::{AccessError, Decoded, Index};
use crate::layout::node::{Node, State};
use crate::layout::{BlockNumber, Kind, kind_in};
use crate::store::PageStore;

/// Most nodes that wait after a pass: 40 MB of them, twice as many during it.
const MOST_WAITING: usize = 1 << 20;

/// Passes over the pages.
#[derive(Debug)]
pub struct Sweep {
    begun: bool,
    /// The last node of the pass before.
    after: Option<Found>,
    /// Whether nothing is left behind those that wait.
    done: bool,
    most_waiting: usize,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { begun: false, after: None, done: false, most_waiting: MOST_WAITING }
    }
}

impl Sweep {
    /// Whether there was a pass.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Lets the nearest live nodes that the walk did not visit, and that no pass before has found, wait in order. Answers
    /// how many of them are too late for their place.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn pass<S: PageStore>(
        &mut self,
        store: &S,
        index: &Index,
        walk: &mut Walk,
        order: &mut Order,
    ) -> Result<u64, AccessError<S::Error>> {
        if self.done {
            return Ok(0);
        }
        self.begun = true;
        let g = &index.space.geometry;
        let (mut waiting, mut last): (Vec<Found>, Option<Found>) = (Vec::new(), None);
        for block in (1..store.block_count()?).map(BlockNumber) {
            store.check_interrupts()?;
            let page = store.read(block)?;
            walk.stats.swept_pages += 1;
            if kind_in(&page, g.epoch()).at(block)? != Kind::Node {
                continue;
            }
            for slot in 0..g.slots() {
                let node = Node::read(&page, g, slot).at(block)?;
                let header = node.header();
                let Some(id) = g.node_id(block, slot) else { continue };
                let passes = walk.filter().is_none_or(|filter| filter.admits(node.keys()));
                if header.state != State::Live || !passes || walk.visited().contains(id) {
                    continue;
                }
                let query = walk.query();
                let score = query.score(&index.space, node.stored());
                let wanted = |found: &Found| {
                    self.after.is_none_or(|after| after < *found) && last.is_none_or(|last| *found < last)
                };
                waiting.extend(found(&index.space, query, id, &node, score).filter(wanted));
            }
            if waiting.len() >= 2 * self.most_waiting {
                last = Some(*waiting.select_nth_unstable(self.most_waiting).1);
                waiting.truncate(self.most_waiting);
            }
        }
        if waiting.len() > self.most_waiting {
            last = Some(*waiting.select_nth_unstable(self.most_waiting).1);
            waiting.truncate(self.most_waiting);
        }
        self.done = last.is_none();
        self.after = waiting.iter().max().copied();
        Ok(order.extend(waiting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::executor::Threads;
    use crate::build::{Builder, Parameters};
    use crate::layout::{Geometry, HeapTid};
    use crate::random::SplitMix64;
    use crate::space::Query;
    use crate::store::mem::MemStore;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn several_passes_give_all_nodes_in_order() {
        const ROWS: u32 = 500;
        let geometry = Geometry::new(8).unwrap();
        let mut random = SplitMix64::new(1);
        let mut vector = || -> Vec<f32> { (0..8).map(|_| (random.next_u64() >> 40) as f32).collect() };
        let parameters = Parameters::default();
        let mut builder = Builder::new(crate::Metric::L2, geometry, 1, &[], usize::MAX, parameters).unwrap();
        for block in 0..ROWS {
            builder.add(&vector(), HeapTid { block, offset: 1 }).unwrap();
        }
        let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
        builder.finish(&Threads::new(1, &cancel), &mut store, &mut |_| ()).unwrap();
        let index = Index::open(&store).unwrap();
        for most_waiting in [1, 7, 50, 249, 250, 499, 500, 501] {
            let query = Query::new(&index.space, &vector()).unwrap();
            let (mut walk, mut order) = (Walk::new(&index, query, 10, None, false), Order::default());
            let mut sweep = Sweep { most_waiting, ..Sweep::default() };
            let mut given: Vec<Found> = Vec::new();
            loop {
                assert_eq!(sweep.pass(&store, &index, &mut walk, &mut order).unwrap(), 0);
                assert!(order.len() <= most_waiting);
                let before = given.len();
                given.extend(std::iter::from_fn(|| order.pop()));
                if given.len() == before {
                    break;
                }
            }
            assert!(given.is_sorted_by_key(|found| found.lower_bound), "{most_waiting}");
            let mut rows: Vec<u32> = given.iter().map(|found| found.header().tid.block).collect();
            rows.sort_unstable();
            assert_eq!(rows, (0..ROWS).collect::<Vec<_>>(), "{most_waiting}");
        }
    }
}
