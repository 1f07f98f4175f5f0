//! Adding one edge to a node with nothing but the data on the node's own page.

use super::prune::ALPHA;
use super::walk::l2_estimates;
use crate::build::products;
use crate::index::Index;
use crate::layout::node::{Header, Node, NodeMut};
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

/// The edges of a node that lead to the highest inner products with it, in an index that tells norms: half of its places. A link to
/// another row is one of them if its product is above the second number, which is zero while places are left.
pub fn products_of(node: &Node) -> Option<([bool; MAX_DEGREE], f32)> {
    let weights = node.weights()?;
    let degree = node.header().degree;
    let mut all: Vec<(f32, usize)> = (0..degree)
        .map(|i| (products::product(weights[i], node.edge(i).distance_squared), i))
        .filter(|&(product, _)| product > 0.0)
        .collect();
    all.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let floor = all.get(products::MOST - 1).map_or(0.0, |&(product, _)| product);
    let mut highest = [false; MAX_DEGREE];
    all.iter().take(products::MOST).for_each(|&(_, i)| highest[i] = true);
    Some((highest, floor))
}

/// Adds the edge from `node` to `target`, whose vector `x` is `query`'s; false if it was not wanted.
///
/// A free place is used. Otherwise the stored distances of the neighbors, and the distances between them
/// and `x` as estimated from their codes, decide: `x` is not wanted if a neighbor occludes it; it takes the
/// place of the farthest neighbor that it occludes, or else of the farthest one after it. Protected edges
/// stay. So do those to the highest products, where norms are known; and `x` is wanted if it is one of these.
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
            let products = products_of(&view);
            let is_product = products.is_some_and(|(_, floor)| products::product(x.bias, distance) > floor);
            let stays = |i: usize| products.is_some_and(|(highest, _)| highest[i]);
            if wish == Wish::IfUseful
                && !is_product
                && all().any(|i| to_node[i] < distance && ALPHA * to_x[i] <= distance)
            {
                return false;
            }
            let farthest = |wanted: &dyn Fn(usize) -> bool| {
                all()
                    .filter(|&i| header.protected >> i & 1 == 0 && wanted(i))
                    .max_by(|&a, &b| to_node[a].total_cmp(&to_node[b]))
            };
            let is_needed = wish != Wish::IfUseful;
            let behind = |i: usize| to_node[i] > distance;
            let victim = farthest(&|i| !stays(i) && behind(i) && ALPHA * to_x[i] <= to_node[i])
                .or_else(|| farthest(&|i| !stays(i) && behind(i)))
                .or_else(|| if is_needed || is_product { farthest(&|i| !stays(i)) } else { None })
                .or_else(|| if is_needed { farthest(&|_| true) } else { None });
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
