//! Clusters of varying density, and noise: HDBSCAN (Campello, Moulavi and Sander 2013; McInnes and Healy 2017).
//!
//! 1. The *core distance* of a row is the distance to its `min_size`-th nearest row. The row itself counts, as in scikit-learn.
//! 2. The *mutual reachability distance* of two rows is the maximum of their distance and both core distances.
//! 3. Its minimum spanning tree is a hierarchy: cut its edges from the longest to the shortest.
//! 4. In the *condensed* hierarchy a cluster continues while fewer than `min_size` rows leave it, and divides if both
//!    parts are larger. `lambda` is the inverse of the distance of such an event.
//! 5. In each branch the clusters with the greatest *excess of mass* are selected: the sum over their rows of the range of
//!    lambda in which the row belongs to the cluster. The root is not a cluster. Rows in no cluster are noise.
//!
//! [`exact`] uses all distances, by Prim's algorithm and without a matrix. [`of_graph`] uses a list of edges,
//! such as those of a neighbor graph, by Kruskal's algorithm. Parts without a connecting edge are joined at lambda 0.
//!
//! A row often joins several parts at one distance, its core distance. In the reference implementation the order
//! of such joins is arbitrary. Here, parts that join at one distance also separate at once. So the clusters do not depend on the
//! order of the rows.
//!
//! Rows that are equal to `min_size - 1` others have a core distance of 0, so their lambda is infinite. It counts as the lambda of the shortest
//! distance above 0. If every distance is 0, all rows are one cluster, unlike in scikit-learn.

use crate::Check;
use crate::linkage::Pair;
use crate::sets::Sets;

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Clusters {
    /// Cluster of each row, or `None` for noise. Numbers go from 0, the largest cluster first; of those of one size, the one
    /// with the earlier first row.
    pub labels: Vec<Option<u32>>,
    /// How firmly each row belongs to its cluster, within 0 to 1; 0 for noise.
    pub strengths: Vec<f32>,
}

impl Clusters {
    fn none(count: usize) -> Self {
        Self { labels: vec![None; count], strengths: vec![0.0; count] }
    }
}

/// Bytes that [`exact`] takes for a row, beside what the distances are computed from.
pub const EXACT_ROW_BYTES: usize = 160;

/// Clusters of `count` rows of at least `min_size` each, which is at least 2. Distances are numbers, symmetric, not negative.
///
/// Takes one and a half times the square of the rows of distances at most.
pub fn exact(
    count: usize,
    min_size: usize,
    distance: impl Fn(usize, usize) -> f64,
    check: Check,
) -> Clusters {
    let min_size = min_size.max(2);
    if count < min_size {
        return Clusters::none(count);
    }
    let core = core_distances(count, min_size, &distance, check);
    let edges = prim(&core, &distance, check);
    of_tree(count, min_size, edges, check)
}

/// As [`exact`], by edges alone, such as those of a neighbor graph. `core` has the core distance of each row; where a row has too
/// few neighbors to know it, infinity: the row is noise. `links` are further pairs of rows, of which only those are looked at, by
/// `distance`, that join what the edges leave apart.
///
/// # Panics
/// If an edge or a link names a row without a core distance.
pub fn of_graph(
    core: &[f64],
    min_size: usize,
    mut edges: Vec<Pair>,
    links: impl Iterator<Item = (u32, u32)>,
    distance: impl Fn(u32, u32) -> f64,
    check: Check,
) -> Clusters {
    let (count, min_size) = (core.len(), min_size.max(2));
    if count < min_size {
        return Clusters::none(count);
    }
    let reach = |a: u32, b: u32, distance: f64| distance.max(core[a as usize]).max(core[b as usize]);
    for edge in &mut edges {
        edge.distance = reach(edge.a, edge.b, edge.distance);
    }
    let mut sets = span(count, &mut edges, check);
    let before = edges.len();
    for (a, b) in links {
        check();
        if sets.find(a) != sets.find(b) {
            edges.push(Pair { a, b, distance: reach(a, b, distance(a, b)) });
        }
    }
    if edges.len() > before {
        sets = span(count, &mut edges, check);
    }
    for row in 1..number(count) {
        if sets.join(0, row) {
            edges.push(Pair { a: 0, b: row, distance: f64::INFINITY });
        }
    }
    of_tree(count, min_size, edges, check)
}

/// Leaves the edges of the least spanning forest, ascending; answers what they join.
fn span(count: usize, edges: &mut Vec<Pair>, check: Check) -> Sets {
    check();
    edges.sort_unstable_by(|x, y| x.distance.total_cmp(&y.distance).then((x.a, x.b).cmp(&(y.a, y.b))));
    check();
    let mut sets = Sets::new(count);
    edges.retain(|edge| edge.distance.is_finite() && sets.join(edge.a, edge.b));
    sets
}

fn core_distances(
    count: usize,
    min_size: usize,
    distance: impl Fn(usize, usize) -> f64,
    check: Check,
) -> Vec<f64> {
    let mut from_here = vec![0.0; count];
    (0..count)
        .map(|row| {
            check();
            for (other, to) in from_here.iter_mut().enumerate() {
                *to = if other == row { 0.0 } else { distance(row, other) };
            }
            *from_here.select_nth_unstable_by(min_size - 1, f64::total_cmp).1
        })
        .collect()
}

/// The minimum spanning tree of mutual reachability, one edge for each row but the first.
fn prim(core: &[f64], distance: impl Fn(usize, usize) -> f64, check: Check) -> Vec<Pair> {
    let count = core.len();
    // Rows outside of the tree, with the nearest row inside.
    let mut outside: Vec<Pair> =
        (1..number(count)).map(|row| Pair { a: 0, b: row, distance: f64::INFINITY }).collect();
    let mut edges = Vec::with_capacity(count - 1);
    let mut added = 0usize;
    while !outside.is_empty() {
        check();
        let mut nearest = 0;
        for at in 0..outside.len() {
            let edge = &mut outside[at];
            let row = edge.b as usize;
            // Most distances need not be computed: they are not below the core distances.
            let least = core[added].max(core[row]);
            if least < edge.distance {
                let reach = distance(added, row).max(least);
                if reach < edge.distance {
                    (edge.a, edge.distance) = (number(added), reach);
                }
            }
            let (edge, best) = (outside[at], outside[nearest]);
            if (edge.distance, edge.b) < (best.distance, best.b) {
                nearest = at;
            }
        }
        let edge = outside.swap_remove(nearest);
        added = edge.b as usize;
        edges.push(edge);
    }
    edges.sort_by(|x, y| x.distance.total_cmp(&y.distance));
    edges
}

fn number(row: usize) -> u32 {
    u32::try_from(row).expect("rows are numbered by 32 bits")
}

/// A place where two parts of the hierarchy come together. Rows are the numbers below their count, joins those from it on.
struct Join {
    parts: [u32; 2],
    distance: f64,
    size: u32,
}

/// The hierarchy of a spanning tree, whose edges are ascending.
struct Hierarchy {
    count: usize,
    joins: Vec<Join>,
}

impl Hierarchy {
    fn new(count: usize, edges: &[Pair]) -> Self {
        let mut sets = Sets::new(count);
        // The join that each set stands for, by the set's root.
        let mut top: Vec<u32> = (0..number(count)).collect();
        let mut joins: Vec<Join> = Vec::with_capacity(edges.len());
        for edge in edges {
            let parts = [edge.a, edge.b].map(|row| top[sets.find(row) as usize]);
            let size = parts.map(|part| size(count, &joins, part)).iter().sum();
            sets.join(edge.a, edge.b);
            top[sets.find(edge.a) as usize] = number(count + joins.len());
            joins.push(Join { parts, distance: edge.distance, size });
        }
        Self { count, joins }
    }

    fn join(&self, part: u32) -> Option<&Join> {
        (part as usize).checked_sub(self.count).map(|at| &self.joins[at])
    }

    fn size(&self, part: u32) -> usize {
        size(self.count, &self.joins, part) as usize
    }

    /// What a part comes apart into where it is cut at its own distance.
    fn parts(&self, part: u32, distance: f64) -> Vec<u32> {
        let (mut open, mut parts) = (vec![part], Vec::new());
        while let Some(part) = open.pop() {
            match self.join(part) {
                Some(join) if join.distance == distance => open.extend(join.parts),
                _ => parts.push(part),
            }
        }
        parts
    }

    /// Calls `each` with the rows of a part.
    fn rows(&self, part: u32, mut each: impl FnMut(usize)) {
        let mut parts = vec![part];
        while let Some(part) = parts.pop() {
            match self.join(part) {
                Some(join) => parts.extend(join.parts),
                None => each(part as usize),
            }
        }
    }
}

fn size(count: usize, joins: &[Join], part: u32) -> u32 {
    (part as usize).checked_sub(count).map_or(1, |at| joins[at].size)
}

/// A cluster of the condensed hierarchy. Parts have greater numbers than the whole.
#[derive(Default)]
struct Cluster {
    whole: Option<usize>,
    birth: f64,
    /// The greatest lambda at which something leaves it.
    death: f64,
    /// Excess of mass.
    mass: f64,
    is_taken: bool,
}

impl Cluster {
    fn leave(&mut self, rows: usize, lambda: f64) {
        self.mass += (lambda - self.birth) * rows as f64;
        self.death = self.death.max(lambda);
    }
}

/// The condensed hierarchy.
struct Condensed {
    clusters: Vec<Cluster>,
    /// The cluster that each row leaves last, and the lambda at which it does.
    leaves: Vec<(usize, f64)>,
}

fn condense(hierarchy: &Hierarchy, min_size: usize, check: Check) -> Condensed {
    let shortest = hierarchy.joins.iter().map(|join| join.distance).find(|&distance| distance > 0.0);
    let lambda = |distance: f64| 1.0 / if distance > 0.0 { distance } else { shortest.unwrap_or(1.0) };
    let mut clusters = vec![Cluster::default()];
    let mut leaves = vec![(0, 0.0); hierarchy.count];
    let root = number(hierarchy.count + hierarchy.joins.len() - 1);
    let mut open = vec![(root, 0)];
    while let Some((part, of)) = open.pop() {
        check();
        let distance = hierarchy.join(part).expect("a cluster has two rows at least").distance;
        let lambda = lambda(distance);
        let parts = hierarchy.parts(part, distance);
        let is_large = |&part: &u32| hierarchy.size(part) >= min_size;
        let divides = parts.iter().filter(|part| is_large(part)).count() > 1;
        for part in parts {
            if !is_large(&part) {
                clusters[of].leave(hierarchy.size(part), lambda);
                hierarchy.rows(part, |row| leaves[row] = (of, lambda));
            } else if divides {
                clusters[of].leave(hierarchy.size(part), lambda);
                open.push((part, clusters.len()));
                clusters.push(Cluster { whole: Some(of), birth: lambda, ..Cluster::default() });
            } else {
                open.push((part, of));
            }
        }
    }
    Condensed { clusters, leaves }
}

/// Marks the clusters of the greatest excess of mass.
fn take(clusters: &mut [Cluster], whole_may_be_one: bool) {
    // Of the best choice among the parts of each.
    let mut best = vec![0.0; clusters.len()];
    for at in (0..clusters.len()).rev() {
        let cluster = &mut clusters[at];
        cluster.is_taken = best[at] <= cluster.mass && (at > 0 || whole_may_be_one);
        if cluster.is_taken {
            best[at] = cluster.mass;
        }
        if let Some(whole) = cluster.whole {
            best[whole] += best[at];
        }
    }
}

fn of_tree(count: usize, min_size: usize, edges: Vec<Pair>, check: Check) -> Clusters {
    check();
    let hierarchy = Hierarchy::new(count, &edges);
    drop(edges);
    let Condensed { mut clusters, leaves } = condense(&hierarchy, min_size, check);
    let is_all_equal = hierarchy.joins.iter().all(|join| join.distance == 0.0);
    drop(hierarchy);
    take(&mut clusters, is_all_equal);
    // The topmost taken cluster that each lies in.
    let mut within: Vec<Option<usize>> = Vec::with_capacity(clusters.len());
    for (at, cluster) in clusters.iter().enumerate() {
        let above = cluster.whole.and_then(|whole| within[whole]);
        within.push(above.or(cluster.is_taken.then_some(at)));
    }
    let mut found = Clusters::none(count);
    let mut sizes = vec![0u32; clusters.len()];
    let mut firsts = vec![usize::MAX; clusters.len()];
    for (row, &(leaf, lambda)) in leaves.iter().enumerate() {
        let Some(cluster) = within[leaf] else { continue };
        sizes[cluster] += 1;
        firsts[cluster] = firsts[cluster].min(row);
        let death = clusters[cluster].death;
        found.strengths[row] = if death > 0.0 && lambda < death { (lambda / death) as f32 } else { 1.0 };
    }
    let mut ordered: Vec<usize> = (0..clusters.len()).filter(|&cluster| sizes[cluster] > 0).collect();
    ordered.sort_unstable_by_key(|&cluster| (std::cmp::Reverse(sizes[cluster]), firsts[cluster]));
    let mut label = vec![None; clusters.len()];
    for (number, cluster) in (0..).zip(ordered) {
        label[cluster] = Some(number);
    }
    for (of, (leaf, _)) in found.labels.iter_mut().zip(leaves) {
        *of = within[leaf].and_then(|cluster| label[cluster]);
    }
    found
}

#[cfg(test)]
mod tests;
