//! The links of a live node round dead ones: they go, and some of the dead nodes' neighbors take their places.

use super::VacuumStats;
use crate::bits::Bits;
use crate::build::products;
use crate::graph::edges;
use crate::graph::prune::ALPHA;
use crate::graph::walk::l2_estimates;
use crate::index::{AccessError, Decoded, Index};
use crate::layout::node::{Edge, Header, Node, NodeMut, State};
use crate::layout::{MAX_DEGREE, NodeId};
use crate::quantize::residual::Encoder;
use crate::space::Query;
use crate::store::{Change, PageStore};

/// Nearest dead neighbors whose own neighbors are taken over, and of those with the highest products as many.
const SPLICED: usize = 4;
/// Neighbors taken over from each.
const SPLICED_FROM_EACH: usize = 6;

/// A node taken over from a dead one.
struct Heir {
    id: NodeId,
    estimate: f32,
    protected: bool,
    /// Inner product with a unit vector in the node's direction, where norms are known; else zero.
    product: f32,
    /// It takes the place of a link to a high product.
    is_high: bool,
}

/// Removes one node's edges to dead nodes and gives it some of their neighbors.
pub(super) fn repair<S: PageStore>(
    store: &S,
    index: &Index,
    id: NodeId,
    dead: &Bits,
    stats: &mut VacuumStats,
) -> Result<(), AccessError<S::Error>> {
    let space = &index.space;
    let g = &space.geometry;
    let block = g.block_of(id);
    let (header, codes, keys, edges, high_gone) = {
        let page = store.read(block)?;
        let node = Node::read(&page, g, g.slot_of(id)).at(block)?;
        let high = edges::products_of(&node).map_or([false; MAX_DEGREE], |(highest, _)| highest);
        let high_gone = node.ids().zip(high).filter(|(to, is_high)| *is_high && dead.has(to.0)).count();
        let edges: Vec<Edge> = (0..node.header().degree).map(|i| node.edge(i)).collect();
        (*node.header(), node.vector().to_vec(), node.keys().to_vec(), edges, high_gone)
    };
    let (mut gone, kept): (Vec<Edge>, Vec<Edge>) = edges.into_iter().partition(|e: &Edge| dead.has(e.id.0));
    if gone.is_empty() {
        return Ok(());
    }
    stats.repaired += 1;
    gone.sort_by(|a, b| a.distance_squared.total_cmp(&b.distance_squared));
    let own = header.stored(&codes, &keys);
    let query = Query::stored(space, space.decoded(own));
    let mut heirs: Vec<Heir> = Vec::new();
    let (near, others) = gone.split_at(gone.len().min(SPLICED));
    let mut high: Vec<&Edge> = if high_gone > 0 { others.iter().collect() } else { Vec::new() };
    let product = |edge: &Edge| products::product(edge.weight, edge.distance_squared);
    high.sort_by(|a, b| product(b).total_cmp(&product(a)));
    for edge in near.iter().chain(high.into_iter().take(SPLICED)) {
        store.check_interrupts()?;
        let at = g.block_of(edge.id);
        let page = store.read(at)?;
        let node = Node::read(&page, g, g.slot_of(edge.id)).at(at)?;
        let score = query.score(space, node.stored());
        let estimates = l2_estimates(index, &query, &node, score);
        let mut theirs: Vec<Heir> = node
            .ids()
            .enumerate()
            .filter(|(_, heir)| *heir != id && !dead.has(heir.0) && kept.iter().all(|e| e.id != *heir))
            .map(|(i, id)| Heir {
                id,
                estimate: estimates[i],
                protected: node.header().protected >> i & 1 == 1,
                product: match space.is_weighted() {
                    true => products::product(node.edge(i).weight, estimates[i]),
                    false => 0.0,
                },
                is_high: false,
            })
            .collect();
        theirs.sort_by(|a, b| b.protected.cmp(&a.protected).then(a.estimate.total_cmp(&b.estimate)));
        let sure = theirs.iter().filter(|h| h.protected).count();
        theirs.truncate(SPLICED_FROM_EACH.max(sure));
        heirs.extend(theirs);
    }
    heirs.sort_by(|a, b| {
        a.id.cmp(&b.id).then(b.protected.cmp(&a.protected)).then(a.estimate.total_cmp(&b.estimate))
    });
    heirs.dedup_by_key(|h| h.id);
    heirs.sort_by(|a, b| b.product.total_cmp(&a.product));
    heirs.iter_mut().take(high_gone).for_each(|heir| heir.is_high = heir.product > 0.0);
    let rank = |heir: &Heir| (!heir.protected, !heir.is_high);
    heirs.sort_by(|a, b| rank(a).cmp(&rank(b)).then(a.estimate.total_cmp(&b.estimate)));

    // Their vectors are read one by one until the places of the dead are taken.
    let mut chosen: Vec<Chosen> = Vec::new();
    for heir in heirs {
        if chosen.len() >= MAX_DEGREE - kept.len().min(MAX_DEGREE) || chosen.len() >= gone.len() {
            break;
        }
        store.check_interrupts()?;
        let at = g.block_of(heir.id);
        let page = store.read(at)?;
        let node = Node::read(&page, g, g.slot_of(heir.id)).at(at)?;
        if node.header().state != State::Live {
            continue;
        }
        let vector = space.decoded(node.stored());
        let distance = query.score(space, node.stored());
        let occluded = chosen.iter().any(|other| ALPHA * space.between(&other.vector, &vector) <= distance);
        if heir.protected || heir.is_high || !occluded {
            let (header, codes, keys) = (*node.header(), node.vector().to_vec(), node.keys().to_vec());
            chosen.push(Chosen { id: heir.id, header, codes, keys, vector, protected: heir.protected });
        }
    }

    let mut change = store.change()?;
    let page = change.page(block)?;
    let mut node = NodeMut::open(page, g, g.slot_of(id)).at(block)?;
    if node.as_node().header().generation != header.generation {
        return Ok(());
    }
    for i in (0..node.as_node().header().degree).rev() {
        if dead.has(node.as_node().id(i).0) {
            node.remove_edge(i);
        }
    }
    let mut bits = vec![0u8; g.code_bytes()];
    let mut encoder = Encoder::new(space, own);
    for Chosen { id: other, header, codes, keys, protected, .. } in &chosen {
        let mut h = *node.as_node().header();
        if h.degree == MAX_DEGREE || node.as_node().ids().any(|id| id == *other) {
            continue;
        }
        let edge = encoder.edge(header.stored(codes, keys), *other, &mut bits);
        node.set_edge(h.degree, &edge, &bits);
        if *protected && h.protected.count_ones() < edges::MAX_PROTECTED {
            h.protected |= 1 << h.degree;
        }
        h.degree += 1;
        node.set_header(&h);
    }
    Ok(change.commit()?)
}

/// A node that takes the place of a dead neighbor.
struct Chosen {
    id: NodeId,
    header: Header,
    codes: Vec<i8>,
    keys: Vec<u8>,
    /// Decoded.
    vector: Vec<f32>,
    protected: bool,
}
