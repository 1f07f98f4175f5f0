//! Removing rows, in two steps as the server requests them.
//!
//! [`delete`] removes dead rows and marks nodes without rows as dead. Searches still walk through them.
//! [`cleanup`] then repairs the links of live nodes. It frees the slots of dead nodes only when no node links to them. After a crash
//! at any point, the next vacuum finds the dead nodes.
//!
//! An index may be larger than memory. Both steps keep a few bits for each node.

mod cells;
mod delete;
mod entries;
mod relink;
mod repair;
mod slots;

pub use delete::delete;

use crate::bits::Bits;
use crate::index::{AccessError, Decoded, Index};
use crate::layout::node::{Header, Node, NodeMut, State};
use crate::layout::{BlockNumber, Kind, NodeId, kind_in};
use crate::random::SplitMix64;
use crate::store::{Change, PageStore};
use cells::free_cells;
use entries::replace_entries;
use relink::relink_lost;
use repair::repair;
use slots::free_slots;

/// What a vacuum did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VacuumStats {
    /// Rows that remain.
    pub rows: u64,
    /// Rows forgotten.
    pub removed: u64,
    /// Nodes marked dead.
    pub died: u64,
    /// Live nodes whose links were repaired.
    pub repaired: u64,
    /// Live nodes that only dead ones led to, and that are linked again.
    pub relinked: u64,
    /// Slots freed.
    pub freed: u64,
}

fn blocks<S: PageStore>(
    store: &S,
) -> Result<impl Iterator<Item = BlockNumber> + use<S>, AccessError<S::Error>> {
    Ok((1..store.block_count()?).map(BlockNumber))
}

/// One bit for each node's place, none set. Pages that are added later have no bits: their nodes are new.
fn bits<S: PageStore>(store: &S, index: &Index) -> Result<Bits, AccessError<S::Error>> {
    let pages = store.block_count()? as usize;
    Ok(Bits::new(pages * index.space.geometry.slots()))
}

/// The nodes of a page with their ids; nothing if it is no node page.
fn headers<S: PageStore>(
    store: &S,
    index: &Index,
    block: BlockNumber,
) -> Result<Vec<(NodeId, Header)>, AccessError<S::Error>> {
    let g = &index.space.geometry;
    store.check_interrupts()?;
    let page = store.read(block)?;
    if kind_in(&page, g.epoch()).at(block)? != Kind::Node {
        return Ok(Vec::new());
    }
    let mut all = Vec::with_capacity(g.slots());
    for slot in 0..g.slots() {
        let header = *Node::read(&page, g, slot).at(block)?.header();
        all.extend(g.node_id(block, slot).map(|id| (id, header)));
    }
    Ok(all)
}

/// Changes one node's header, if it still has this version; answers whether it had.
fn change_header<S: PageStore>(
    store: &S,
    index: &Index,
    id: NodeId,
    seen: &Header,
    edit: impl FnOnce(&mut Header),
) -> Result<bool, AccessError<S::Error>> {
    let g = &index.space.geometry;
    let block = g.block_of(id);
    let mut change = store.change()?;
    let page = change.page(block)?;
    let mut node = NodeMut::open(page, g, g.slot_of(id)).at(block)?;
    let mut header = *node.as_node().header();
    if header.version != seen.version || header.generation != seen.generation {
        return Ok(false);
    }
    edit(&mut header);
    header.version = header.version.wrapping_add(1);
    node.set_header(&header);
    change.commit()?;
    Ok(true)
}

/// Live nodes remembered as candidates for the entry table.
const SAMPLE: usize = 1024;

/// Repairs the links round dead nodes and frees their slots. `random` picks new entries.
///
/// # Errors
/// [`AccessError`].
pub fn cleanup<S: PageStore>(
    store: &S,
    index: &mut Index,
    random: &mut SplitMix64,
) -> Result<VacuumStats, AccessError<S::Error>> {
    let mut stats = VacuumStats::default();
    index.refresh(store)?;
    let mut dead = bits(store, index)?;
    let mut live: Vec<(NodeId, Header)> = Vec::new();
    let mut live_seen = 0usize;
    for block in blocks(store)? {
        for (id, header) in headers(store, index, block)? {
            match header.state {
                State::Dead => dead.set(id.0),
                State::Live => {
                    // A sample of the live nodes, for holes in the entry table.
                    live_seen += 1;
                    if live.len() < SAMPLE {
                        live.push((id, header));
                    } else if random.below(live_seen) < SAMPLE {
                        live[random.below(SAMPLE)] = (id, header);
                    }
                }
                State::Free => {}
            }
        }
    }
    if !dead.is_empty() {
        // Nodes that appear after this are linked by whoever inserts them.
        let end = store.block_count()?;
        // First new links for those that only dead nodes lead to, then the old ones go: whichever change is the last, each live node
        // can be reached.
        // Without any live entry there is none to reach them from.
        let has_entries = index.entry_points().any(|id| !dead.has(id.0));
        if !has_entries {
            replace_entries(store, index, &dead, &live, random)?;
            index.refresh(store)?;
        }
        relink_lost(store, index, end, &dead, &mut stats)?;
        for block in blocks(store)? {
            for (id, header) in headers(store, index, block)? {
                if header.state == State::Live {
                    repair(store, index, id, &dead, &mut stats)?;
                }
            }
        }
        replace_entries(store, index, &dead, &live, random)?;
        index.refresh(store)?;
        free_slots(store, index, &dead, &mut stats)?;
    }
    free_cells(store, index)?;
    // The free-space map may have been lost.
    for block in blocks(store)? {
        let never_written = {
            let page = store.read(block)?;
            kind_in(&page, index.space.geometry.epoch()).at(block)? == Kind::New
        };
        if never_written || headers(store, index, block)?.iter().any(|(_, h)| h.state == State::Free) {
            store.record_free(block, true);
        }
    }
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Metric;
    use crate::build::executor::Threads;
    use crate::build::{Builder, Parameters};
    use crate::graph::check::check;
    use crate::graph::insert::insert;
    use crate::graph::search::{Options, Search};
    use crate::layout::geometry::Stated;
    use crate::layout::{Geometry, HeapTid};
    use crate::store::mem::MemStore;
    use std::sync::atomic::AtomicBool;

    fn tid(row: u32) -> HeapTid {
        HeapTid { block: row, offset: 1 }
    }

    #[test]
    fn an_index_whose_pages_an_earlier_version_laid_out_lives_on() {
        // What release 0.1.0 chose.
        for (dim, code, slots) in [(128, 128, 8), (192, 192, 6), (256, 256, 5), (320, 256, 4)] {
            let stated = Stated {
                format: 1,
                dim,
                padded_dim: dim,
                lead_dim: dim,
                code_dim: code,
                planes: 1,
                slots,
                leaders: 0,
                epoch: 0,
                columns: 0,
                signatures: 0,
                is_weighted: false,
            };
            let geometry = Geometry::checked(&stated).unwrap();
            let mut random = SplitMix64::new(dim.into());
            let vectors: Vec<Vec<f32>> = (0..900)
                .map(|_| (0..dim).map(|_| (random.next_u64() >> 40) as f32 - 8e6).collect())
                .collect();
            let parameters = Parameters::default();
            let mut builder = Builder::new(Metric::L2, geometry, 1, &[], usize::MAX, parameters).unwrap();
            for row in 0..400 {
                builder.add(&vectors[row as usize], tid(row)).unwrap();
            }
            let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
            builder.finish(&Threads::new(1, &cancel), &mut store, &mut |_| ()).unwrap();
            let mut index = Index::open(&store).unwrap();
            assert_eq!(*index.space().geometry(), geometry);
            let mut add = |index: &mut Index, rows: std::ops::Range<u32>| {
                for row in rows {
                    insert(&store, index, &vectors[row as usize], tid(row), &mut random).unwrap();
                }
            };
            add(&mut index, 400..600);
            let pages = store.block_count().unwrap();
            let deleted = delete(&store, &index, |tid| tid.block % 2 == 0).unwrap();
            assert_eq!((deleted.rows, deleted.removed), (300, 300));
            assert_eq!(cleanup(&store, &mut index, &mut SplitMix64::new(1)).unwrap().freed, 300);
            add(&mut index, 600..900);
            assert!(store.block_count().unwrap() <= pages + 1, "slots are used again");
            let report = check(&store, |_, _| ()).unwrap();
            assert_eq!((report.problems, report.unreachable, report.rows), (vec![], 0, 600));
            for row in (1..600).step_by(2).chain(600..900) {
                let mut search = Search::new(&index, &vectors[row as usize], &Options::default()).unwrap();
                assert_eq!(search.next(&store, &index).unwrap().map(|hit| hit.tid), Some(tid(row)), "{dim}");
            }
        }
    }
}
