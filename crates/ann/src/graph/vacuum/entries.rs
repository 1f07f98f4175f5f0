//! Entries of dead nodes.

use crate::bits::Bits;
use crate::index::{AccessError, Decoded, Index};
use crate::layout::meta::Meta;
use crate::layout::node::{Header, Node, State};
use crate::layout::{BlockNumber, NodeId, entry};
use crate::quantize::residual;
use crate::random::SplitMix64;
use crate::store::{Change, PageStore};
use std::collections::HashSet;

/// Nodes among which a new entry is looked for.
const TRIES: usize = 8;

/// Gives the entries of dead nodes to live ones of the sample; without any they become holes.
pub(super) fn replace_entries<S: PageStore>(
    store: &S,
    index: &Index,
    dead: &Bits,
    live: &[(NodeId, Header)],
    random: &mut SplitMix64,
) -> Result<(), AccessError<S::Error>> {
    let space = &index.space;
    let g = &space.geometry;
    let all: Vec<(usize, NodeId)> = index.entry_points_with_place().collect();
    let mut used: HashSet<NodeId> = all.iter().map(|&(_, id)| id).collect();
    for (i, id) in all {
        if !dead.has(id.0) {
            continue;
        }
        store.check_interrupts()?;
        let Some((block, place)) = index.entry_place(i) else { continue };
        // A few tries for a node that is no entry yet; where norms are known, for the longest of some.
        let mut heirs: Vec<&(NodeId, Header)> =
            (0..TRIES).filter(|_| !live.is_empty()).map(|_| &live[random.below(live.len())]).collect();
        if space.is_weighted() {
            heirs.sort_by(|a, b| b.1.bias.total_cmp(&a.1.bias));
        }
        let heir = heirs.into_iter().map(|&(id, _)| id).find(|id| used.insert(*id));
        let mut bits = vec![0u8; g.code_bytes()];
        let mut e = None;
        if let Some(heir) = heir {
            let at = g.block_of(heir);
            let page = store.read(at)?;
            let node = Node::read(&page, g, g.slot_of(heir)).at(at)?;
            if node.header().state == State::Live {
                e = Some(residual::entry(space, node.stored(), heir, &mut bits));
            }
        }
        let zero = BlockNumber(0);
        let mut change = store.change()?;
        let mut meta = Meta::decode(change.page(zero)?).at(zero)?;
        let page = change.page(block)?;
        entry::header(page, g).at(block)?;
        // An insert may have replaced this very entry in between.
        if entry::get(page, g, place).id != id {
            continue;
        }
        match e {
            Some(e) => entry::set(page, g, place, &e, &bits),
            None => entry::clear(page, g, place),
        }
        meta.entry_generation = meta.entry_generation.wrapping_add(1);
        meta.encode_links(change.page(zero)?);
        change.commit()?;
    }
    Ok(())
}
