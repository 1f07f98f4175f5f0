//! From leaves to the finished graph over row numbers.

use super::candidates::Lists;
use super::executor::{Cancelled, Executor, map};
use super::leaf::{self, Scratch};
use super::partition::partition;
use super::rows::{RowSet, inverse};
use super::{Parameters, Phase, products};
use crate::arch::prefetch;
use crate::graph::key::Key;
use crate::graph::prune::Pruner;
use crate::layout::{MAX_DEGREE, NodeId};
use crate::quantize::Local;
use crate::random::SplitMix64;
use crate::space::Space;

/// Samples that give the long edges, and how many of a sampled row's places each may take.
pub(super) const BACKBONE: [(usize, usize); 2] = [(8, 4), (64, 4)];
/// Fewer rows than this need no long edges: their leaves overlap enough.
const BACKBONE_MIN_ROWS: usize = 64;
/// Rows that a worker takes at once.
const CHUNK: usize = 512;
/// Elements of the rows that a worker prunes at once; it holds the vectors of their candidates, up to 40 for each.
const PRUNED_ELEMENTS: usize = 1 << 18;
/// Entry table: one row in so many, within limits.
const ROWS_PER_ENTRY: usize = 25;
/// Fewest entries, if there are as many rows.
pub const MIN_ENTRIES: usize = 1024;
/// Most entries.
pub const MAX_ENTRIES: usize = 65_536;
/// Rounds of linking what is not reachable; the links of one round may cut another row off.
pub(super) const CONNECT_ROUNDS: usize = 4;

/// Rows that a worker prunes at once.
fn chunk_rows(dim: usize) -> usize {
    (PRUNED_ELEMENTS / dim).clamp(32, CHUNK)
}

/// How many entries an index of so many rows has.
#[must_use]
pub fn entry_target(rows: usize) -> usize {
    (rows / ROWS_PER_ENTRY).clamp(MIN_ENTRIES, MAX_ENTRIES).min(rows)
}

/// Which rows are entries: a sample of all; where norms tell, half of them drawn in proportion to squared norms, as the highest
/// products are most often with long rows.
///
/// Source: Efraimidis and Spirakis 2006, weighted sampling without replacement in one pass.
pub(super) struct EntrySample {
    any: Vec<u32>,
    /// The highest `ln(u) / norm^2`, negated; with the rows.
    heavy: std::collections::BinaryHeap<Key>,
    wanted: usize,
}

impl EntrySample {
    pub fn new(rows: usize, space: &Space, random: &mut SplitMix64) -> Self {
        let target = entry_target(rows);
        let wanted = if space.is_weighted() { target / 2 } else { 0 };
        let any = random.sample(rows, target - wanted).into_iter().map(number).collect();
        Self { any, heavy: std::collections::BinaryHeap::new(), wanted }
    }

    /// Whether all rows are to be offered.
    pub fn wants_weights(&self) -> bool {
        self.wanted > 0
    }

    /// Offers a row.
    pub fn offer(&mut self, row: u32, norm: f32, random: &mut SplitMix64) {
        #[allow(clippy::cast_precision_loss, reason = "53 bits")]
        let uniform = ((random.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let norm = f64::from(norm);
        #[allow(clippy::cast_possible_truncation, reason = "only the order counts")]
        let key = (-uniform.ln() / (norm * norm).max(f64::MIN_POSITIVE)) as f32;
        self.heavy.push(Key::new(key, NodeId(row)));
        if self.heavy.len() > self.wanted {
            self.heavy.pop();
        }
    }

    /// The rows, each once.
    pub fn rows(self) -> Vec<u32> {
        let mut rows = self.any;
        let known: std::collections::HashSet<u32> = rows.iter().copied().collect();
        let mut heavy: Vec<u32> = self.heavy.into_iter().map(|key| key.id().0).collect();
        heavy.retain(|row| !known.contains(row));
        heavy.sort_unstable();
        rows.extend(heavy);
        rows
    }
}

/// Neighbors of one row: protected ones first.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    pub rows: Vec<u32>,
    pub protected: usize,
}

/// The graph, the rows of the entry table, and where rows were before they were put into the order to write them.
pub(super) struct Graph {
    pub links: Vec<Links>,
    pub order: Vec<u32>,
    pub entries: Vec<u32>,
    pub relinked: u64,
}

/// What leaves tell about a set of rows.
pub(super) struct Explored {
    /// Where each row was before the rows were put into the order of the leaves.
    pub order: Vec<u32>,
    /// The rows that each row chose, and those that chose it.
    pub candidates: Lists,
    /// Long edges.
    pub backbone: Vec<Links>,
    pub leaves: u64,
}

/// Puts the rows into another order and builds the graph; also returns how many leaves it took.
pub(super) fn build(
    set: &mut RowSet,
    space: &Space,
    parameters: &Parameters,
    executor: &dyn Executor,
    progress: &mut dyn FnMut(Phase),
) -> Result<(Graph, u64), Cancelled> {
    let n = set.len();
    let mut random = SplitMix64::new(parameters.seed);
    let Explored { order, candidates, backbone, leaves } =
        explore(set, space, parameters, &BACKBONE, &mut random, executor, progress)?;
    let set = &*set;
    let kept =
        prune_all(set, space, &|row| candidates.sorted(number(row)), &backbone, parameters, true, executor)?;
    drop(candidates);
    let mut links: Vec<Links> = backbone
        .into_iter()
        .zip(kept)
        .map(|(mut links, keys)| {
            links.rows.extend(keys.iter().map(|key| key.id().0));
            links
        })
        .collect();

    progress(Phase::Connect);
    let mut chosen = EntrySample::new(n, space, &mut random);
    if chosen.wants_weights() {
        (0..n).map(number).for_each(|row| chosen.offer(row, set.stored(row).bias, &mut random));
    }
    let entries = chosen.rows();
    let relinked = connect(set, space, &mut links, &entries, &mut random, executor)?;
    Ok((Graph { links, order, entries, relinked }, leaves))
}

fn number(i: usize) -> u32 {
    u32::try_from(i).expect("memory ends before")
}

/// Finds each row's candidates, and long edges on samples of the rows. Puts the rows into the order of the leaves
/// first: near rows are then near in memory, which halves the time of all that follows.
pub(super) fn explore(
    set: &mut RowSet,
    space: &Space,
    parameters: &Parameters,
    backbone_levels: &[(usize, usize)],
    random: &mut SplitMix64,
    executor: &dyn Executor,
    progress: &mut dyn FnMut(Phase),
) -> Result<Explored, Cancelled> {
    let n = set.len();
    progress(Phase::Partition);
    let all: Vec<u32> = (0..n).map(number).collect();
    let mut leaves = partition(set, all, parameters, space, random, executor)?;
    let mut leaf_count = leaves.len() as u64;
    let mut placed = vec![false; n];
    let order: Vec<u32> = leaves
        .iter()
        .flatten()
        .copied()
        .filter(|&row| !std::mem::replace(&mut placed[row as usize], true))
        .collect();
    let places = inverse(&order);
    set.reorder(&order);
    let set = &*set;
    for row in leaves.iter_mut().flatten() {
        *row = places[*row as usize];
    }
    drop((placed, places));

    progress(Phase::Leaves);
    let candidates = Lists::new(n);
    let with_products = space.is_weighted();
    fill(set, space, &leaves, parameters, parameters.leaf_kept, with_products, &candidates, executor)?;
    drop(leaves);

    let mut backbone = vec![Links::default(); n];
    for &(one_in, places) in backbone_levels {
        let mut sample: Vec<u32> = random.sample(n, n / one_in).into_iter().map(number).collect();
        if n < BACKBONE_MIN_ROWS || sample.len() < 2 {
            continue;
        }
        sample.sort_unstable();
        leaf_count +=
            add_long_edges(set, space, &sample, places, parameters, &mut backbone, random, executor)?;
    }

    progress(Phase::Prune);
    let forward =
        prune_all(set, space, &|row| candidates.sorted(number(row)), &backbone, parameters, false, executor)?;
    drop(candidates);
    let both = Lists::new(n);
    map(
        executor,
        n.div_ceil(CHUNK),
        || (),
        |(), chunk| {
            let start = chunk * CHUNK;
            for (row, chosen) in (start..).zip(&forward[start..n.min(start + CHUNK)]) {
                both.offer(number(row), chosen.iter().copied());
                for &key in chosen.iter().filter(|key| !products::is_product(**key)) {
                    both.offer(key.id().0, [Key::new(key.score(), NodeId(number(row)))]);
                }
            }
        },
    )?;
    Ok(Explored { order, candidates: both, backbone, leaves: leaf_count })
}

/// Runs all leaves into candidate lists.
#[allow(clippy::too_many_arguments, reason = "one phase of the build over shared inputs")]
fn fill(
    set: &RowSet,
    space: &Space,
    leaves: &[Vec<u32>],
    parameters: &Parameters,
    keep: usize,
    with_products: bool,
    lists: &Lists,
    executor: &dyn Executor,
) -> Result<(), Cancelled> {
    map(executor, leaves.len(), Scratch::default, |scratch, i| {
        leaf::neighbors(set, &leaves[i], parameters, keep, with_products, space, scratch, |row, keys| {
            lists.offer(row, keys.iter().copied());
        });
    })?;
    Ok(())
}

/// Squared distance between two rows.
fn between(set: &RowSet, space: &Space, a: u32, b: u32) -> f32 {
    space.between(&space.decoded(set.stored(a)), &space.decoded(set.stored(b)))
}

/// Prunes the candidates of rows that are near one another, in one set of vectors relative to their middle.
struct ChunkPruner {
    pruner: Pruner,
    near: Local,
    /// Rows of `near`.
    rows: Vec<u32>,
    /// Where a row is in `near`; `u32::MAX` if it is not.
    places: Vec<u32>,
    distances: Vec<f32>,
    others: Vec<u32>,
}

impl ChunkPruner {
    /// For rows of a set of so many.
    fn new(count: usize) -> Self {
        let (pruner, near, places) = (Pruner::default(), Local::default(), vec![u32::MAX; count]);
        Self { pruner, near, rows: Vec::new(), places, distances: Vec::new(), others: Vec::new() }
    }

    /// Takes the vectors of all that some rows have for candidates.
    fn enter(&mut self, set: &RowSet, space: &Space, candidates: &[Vec<Key>]) {
        for row in candidates.iter().flatten().map(|key| key.id().0) {
            if std::mem::replace(&mut self.places[row as usize], 0) == u32::MAX {
                self.rows.push(row);
            }
        }
        // In the order of memory.
        self.rows.sort_unstable();
        for (&row, place) in self.rows.iter().zip(0..) {
            self.places[row as usize] = place;
        }
        let middle = set.middle(space, &self.rows);
        set.localize(space, self.rows.iter().copied(), &middle, &mut self.near);
    }

    fn leave(&mut self) {
        self.rows.drain(..).for_each(|row| self.places[row as usize] = u32::MAX);
    }

    /// The candidates to keep, at most `keep`.
    fn select(&mut self, space: &Space, keys: &[Key], alpha: f32, keep: usize, fill: bool) -> Vec<Key> {
        let Self { pruner, near, places, distances, others, .. } = self;
        distances.clear();
        distances.extend(keys.iter().map(|key| key.score()));
        let place = |i: u32| places[keys[i as usize].id().0 as usize];
        (0..).take(keys.len()).for_each(|i| prefetch(near.codes_of(place(i))));
        let kept = pruner.select(distances, alpha, keep, fill, |from, kept, out| {
            others.clear();
            others.extend(kept.iter().map(|&i| place(i)));
            near.distances(space.kernels, place(from), others, out);
        });
        kept.iter().map(|&i| keys[i as usize]).collect()
    }
}

/// Gives each sampled row its best `places` edges within the sample, and as many back as there is room.
/// Tells how many leaves it took.
#[allow(clippy::too_many_arguments, reason = "one phase of the build over shared inputs")]
pub(super) fn add_long_edges(
    set: &RowSet,
    space: &Space,
    sample: &[u32],
    places: usize,
    parameters: &Parameters,
    backbone: &mut [Links],
    random: &mut SplitMix64,
    executor: &dyn Executor,
) -> Result<u64, Cancelled> {
    let leaves = partition(set, sample.to_vec(), parameters, space, random, executor)?;
    let lists = Lists::new(set.len());
    fill(set, space, &leaves, parameters, places, false, &lists, executor)?;
    let chunk_rows = chunk_rows(set.dim);
    let pruner = || ChunkPruner::new(set.len());
    let chosen = map(executor, sample.len().div_ceil(chunk_rows), pruner, |pruner, chunk| {
        let rows = &sample[chunk * chunk_rows..sample.len().min((chunk + 1) * chunk_rows)];
        let all: Vec<Vec<Key>> = rows.iter().map(|&row| lists.sorted(row)).collect();
        pruner.enter(set, space, &all);
        let choose = |keys: &Vec<Key>| {
            let kept = pruner.select(space, keys, parameters.alpha, places, true);
            kept.iter().map(|key| key.id().0).collect::<Vec<u32>>()
        };
        let chosen = all.iter().map(choose).collect::<Vec<_>>();
        pruner.leave();
        chosen
    })?;
    let limit: Vec<usize> = sample.iter().map(|&row| backbone[row as usize].rows.len() + places).collect();
    let mut add = |row: u32, other: u32, limit: usize| {
        let links = &mut backbone[row as usize];
        if links.rows.len() < limit && !links.rows.contains(&other) {
            links.rows.push(other);
            links.protected += 1;
        }
    };
    // Half of the places for one's own choice, the rest for those who chose this row.
    let all = || sample.iter().zip(&limit).zip(chosen.iter().flatten());
    for ((&row, &limit), others) in all() {
        for &other in &others[..others.len().min(places / 2)] {
            add(row, other, limit);
        }
    }
    for ((&row, _), others) in all() {
        for &other in &others[..others.len().min(places / 2)] {
            let at = sample.binary_search(&other).expect("both are in the sample");
            add(other, row, limit[at]);
        }
    }
    for ((&row, &limit), others) in all() {
        for &other in others {
            add(row, other, limit);
        }
    }
    Ok(leaves.len() as u64)
}

/// Prunes the candidates of the rows that have a backbone to the places that it leaves. Candidates and backbone
/// name rows of `set`.
pub(super) fn prune_all(
    set: &RowSet,
    space: &Space,
    candidates: &(impl Fn(usize) -> Vec<Key> + Sync),
    backbone: &[Links],
    parameters: &Parameters,
    fill: bool,
    executor: &dyn Executor,
) -> Result<Vec<Vec<Key>>, Cancelled> {
    let (n, chunk_rows) = (backbone.len(), chunk_rows(set.dim));
    let pruner = || ChunkPruner::new(set.len());
    let chunks = map(executor, n.div_ceil(chunk_rows), pruner, |pruner, chunk| {
        let rows = chunk * chunk_rows..n.min((chunk + 1) * chunk_rows);
        let of_row = |row: usize| {
            let mut keys = candidates(row);
            keys.retain(|key| !backbone[row].rows.contains(&key.id().0));
            keys
        };
        let all: Vec<Vec<Key>> = rows.clone().map(of_row).collect();
        pruner.enter(set, space, &all);
        let prune = |(row, keys): (usize, &Vec<Key>)| {
            let keep = MAX_DEGREE - backbone[row].rows.len();
            let (products, near) = keys.split_at(keys.partition_point(|key| products::is_product(*key)));
            let products = &products[..products.len().min(keep / 2)];
            let near = pruner.select(space, near, parameters.alpha, keep - products.len(), fill);
            products.iter().copied().chain(near).collect()
        };
        let kept = rows.zip(&all).map(prune).collect::<Vec<_>>();
        pruner.leave();
        kept
    })?;
    Ok(chunks.into_iter().flatten().collect())
}

/// Makes every row reachable from the first entry by protected links where necessary.
fn connect(
    set: &RowSet,
    space: &Space,
    links: &mut [Links],
    entries: &[u32],
    random: &mut SplitMix64,
    executor: &dyn Executor,
) -> Result<u64, Cancelled> {
    let Some(&root) = entries.first() else { return Ok(0) };
    let mut relinked = 0;
    let mut in_degree = vec![0u32; links.len()];
    for &row in links.iter().flat_map(|from| &from.rows) {
        in_degree[row as usize] += 1;
    }
    for _ in 0..CONNECT_ROUNDS {
        let mut reached = vec![false; links.len()];
        let mut around = visit(links, root, &mut reached, executor)?;
        if around.len() == links.len() {
            break;
        }
        for row in 0..links.len() {
            if reached[row] {
                continue;
            }
            let lost = u32::try_from(row).expect("row numbers fit");
            // A neighbor that was reached, else the nearest of a sample of what was.
            let sample = random.sample(around.len(), 1000);
            let near = links[row].rows.iter().copied().filter(|&r| reached[r as usize]);
            let parent =
                near.chain(sample.into_iter().map(|i| around[i])).filter(|&r| links[r as usize].has_room());
            let parent = parent.min_by_key(|&r| Key::new(between(set, space, lost, r), NodeId(r)));
            let Some(parent) = parent else { continue };
            let (adopted, dropped) = links[parent as usize].adopt(lost, |r| in_degree[r as usize] > 1);
            if let Some(dropped) = dropped {
                in_degree[dropped as usize] -= 1;
            }
            if !adopted {
                continue;
            }
            in_degree[row] += 1;
            relinked += 1;
            around.append(&mut visit(links, lost, &mut reached, executor)?);
        }
    }
    Ok(relinked)
}

impl Links {
    /// Whether another protected edge may come.
    pub fn has_room(&self) -> bool {
        self.protected < MAX_DEGREE / 2
    }

    /// Adds a protected edge to a row that nothing leads to, in place of the farthest edge that can be let go
    /// because others lead to the same row. Answers whether there was room, and what was dropped.
    pub fn adopt(&mut self, lost: u32, others_lead_to: impl Fn(u32) -> bool) -> (bool, Option<u32>) {
        let mut dropped = None;
        if self.rows.len() == MAX_DEGREE {
            let free = &self.rows[self.protected..];
            let Some(at) = free.iter().rposition(|&r| others_lead_to(r)) else { return (false, None) };
            dropped = Some(self.rows.remove(self.protected + at));
        }
        self.rows.insert(self.protected, lost);
        self.protected += 1;
        (true, dropped)
    }
}

/// Rows reachable from `start` that were not reached before.
fn visit(
    links: &[Links],
    start: u32,
    reached: &mut [bool],
    executor: &dyn Executor,
) -> Result<Vec<u32>, Cancelled> {
    reached[start as usize] = true;
    let mut found = vec![start];
    let mut at = 0;
    while at < found.len() {
        for &row in &links[found[at] as usize].rows {
            if !std::mem::replace(&mut reached[row as usize], true) {
                found.push(row);
            }
        }
        at += 1;
        if at.is_multiple_of(1 << 14) && executor.cancelled() {
            return Err(Cancelled);
        }
    }
    Ok(found)
}
