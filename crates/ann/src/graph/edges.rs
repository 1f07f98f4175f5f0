//! Adding one edge to a node with nothing but the data on the node's own page.

use super::prune::ALPHA;
use super::walk::l2_estimates;
use crate::index::Index;
use crate::layout::node::{Header, NodeMut};
use crate::layout::{MAX_DEGREE, NodeId};
use crate::quantize::Stored;
use crate::quantize::residual::Encoder;
use crate::space::Query;

/// Most protected edges of a node: half, so that near neighbors keep their places.
pub const MAX_PROTECTED: u32 = 16;

/// How much an edge is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// If the pruning rule likes it.
    IfUseful,
    /// Unless every other edge is protected.
    Needed,
    /// As `Needed`, and never to be evicted, as long as there is room for protected edges.
    Protected,
}

/// Adds the edge from `node` to `target`, whose vector `x` is `query`'s; false if it was not wanted.
///
/// A free place is used. Otherwise the stored distances of the neighbors, and the distances between them
/// and `x` as estimated from their codes, decide: `x` is not wanted if a neighbor occludes it; it takes the
/// place of the farthest neighbor that it occludes, or else of the farthest one behind it. Protected edges
/// stay.
pub fn add(index: &Index, node: &mut NodeMut, target: NodeId, x: Stored, query: &Query, wish: Wish) -> bool {
    let space = &index.space;
    let mut bits = vec![0u8; space.geometry.code_bytes()];
    let view = node.as_node();
    let header = *view.header();
    let edge = Encoder::new(space, view.stored()).edge(x, target, &mut bits);
    let present = view.ids().position(|id| id == target);
    let place = match present {
        Some(i) => i,
        None if header.degree < MAX_DEGREE => header.degree,
        None => {
            let distance = edge.distance_squared;
            let to_x = l2_estimates(index, query, &view, distance);
            let to_node: [f32; MAX_DEGREE] = std::array::from_fn(|i| view.edge(i).distance_squared);
            let all = || 0..MAX_DEGREE;
            if wish == Wish::IfUseful && all().any(|i| to_node[i] < distance && ALPHA * to_x[i] <= distance) {
                return false;
            }
            let farthest = |wanted: &dyn Fn(usize) -> bool| {
                all()
                    .filter(|&i| header.protected >> i & 1 == 0 && wanted(i))
                    .max_by(|&a, &b| to_node[a].total_cmp(&to_node[b]))
            };
            let behind = |i: usize| to_node[i] > distance;
            let victim = farthest(&|i| behind(i) && ALPHA * to_x[i] <= to_node[i])
                .or_else(|| farthest(&behind))
                .or_else(|| if wish == Wish::IfUseful { None } else { farthest(&|_| true) });
            let Some(victim) = victim else { return false };
            victim
        }
    };
    node.set_edge(place, &edge, &bits);
    let mut changed = Header { degree: header.degree.max(place + 1), ..header };
    if wish == Wish::Protected && header.protected.count_ones() < MAX_PROTECTED {
        changed.protected |= 1 << place;
    }
    node.set_header(&changed);
    true
}
