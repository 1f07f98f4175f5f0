//! Live nodes that only dead ones led to.

use super::{VacuumStats, bits, headers};
use crate::bits::Bits;
use crate::graph::edges::Wish;
use crate::graph::insert::{add_edge, neighborhood};
use crate::graph::reach::Reach;
use crate::index::{AccessError, Decoded, Index};
use crate::layout::node::{Node, State};
use crate::layout::{BlockNumber, NodeId};
use crate::space::{Quantized, Query};
use crate::store::PageStore;

/// Times that nodes are looked for which lost their links, also by what the last time did.
const RELINK_ROUNDS: usize = 3;
/// Nearest nodes that link to a node nobody links to.
const RELINKED_FROM: usize = 4;

/// Links live nodes that no path of live nodes from the entries leads to. Others like them may link to them.
pub(super) fn relink_lost<S: PageStore>(
    store: &S,
    index: &Index,
    end: u32,
    dead: &Bits,
    stats: &mut VacuumStats,
) -> Result<(), AccessError<S::Error>> {
    let g = &index.space.geometry;
    // A relinked node may take the place of the only link to another, which the next round finds.
    for _ in 0..RELINK_ROUNDS {
        let mut live = bits(store, index)?;
        for block in (1..end).map(BlockNumber) {
            for (id, _) in headers(store, index, block)?.iter().filter(|(_, h)| h.state == State::Live) {
                live.set(id.0);
            }
        }
        let is_wanted = |id: NodeId| live.has(id.0) && !dead.has(id.0);
        let mut reach = Reach::new(g, end);
        index.entry_points().filter(|&id| is_wanted(id)).for_each(|id| reach.set(id));
        reach.follow(store, g, is_wanted, |_| ())?;
        let mut lost = 0;
        for id in live.iter().map(NodeId) {
            if !reach.has(id) && g.block_of(id).0 < end {
                relink(store, index, id)?;
                lost += 1;
                // With it comes what it links to.
                reach.set(id);
                reach.follow(store, g, is_wanted, |_| ())?;
            }
        }
        stats.relinked += lost;
        if lost == 0 {
            break;
        }
    }
    Ok(())
}

/// Links a node that nobody links to from its nearest neighbors.
fn relink<S: PageStore>(store: &S, index: &Index, id: NodeId) -> Result<(), AccessError<S::Error>> {
    let space = &index.space;
    let g = &space.geometry;
    let x = {
        let page = store.read(g.block_of(id))?;
        let node = Node::read(&page, g, g.slot_of(id)).at(g.block_of(id))?;
        let h = node.header();
        if h.state != State::Live {
            return Ok(());
        }
        Quantized {
            codes: node.vector().to_vec(),
            keys: node.keys().to_vec(),
            lead: h.lead,
            trail: h.trail,
            reference: h.reference,
            error: h.error,
            bias: h.bias,
        }
    };
    let query = Query::stored(space, space.decoded(x.stored()));
    let met = neighborhood(store, index, &query)?.met;
    let mut linked = 0;
    for m in met.iter().filter(|m| m.id != id) {
        let wish = if linked == 0 { Wish::Protected } else { Wish::Needed };
        linked += usize::from(add_edge(store, index, m.id, m.header.generation, id, &x, &query, wish)?);
        if linked == RELINKED_FROM {
            break;
        }
    }
    Ok(())
}
