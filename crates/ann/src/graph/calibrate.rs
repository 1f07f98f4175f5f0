//! Measures how far searches of an index must look ahead to find a given share of the nearest rows.
//!
//! Queries are made from rows of the index. Their exact nearest rows are found by reading all pages once, and compared with the results of searches with
//! growing lookahead. Data with structure needs little lookahead, data without structure much. Queries unlike rows,
//! such as texts for images, already look further at the same lookahead (`search.rs`). That is not always enough, so no
//! index gets less than such queries needed.

use super::search::{MIN_LOOKAHEAD, Options, Search};
use crate::index::{AccessError, Decoded, Index};
use crate::layout::meta::{MeasuredRecall, Meta};
use crate::layout::node::{Node, State};
use crate::layout::{BlockNumber, Kind, NodeId, kind_in};
use crate::quantize::Screen;
use crate::quantize::screen::ROUNDING;
use crate::random::SplitMix64;
use crate::space::Query;
use crate::store::{Change, PageStore};

/// Shares of the ten nearest rows, for which the lookahead is measured.
pub const TARGETS: [f64; 4] = [0.90, 0.95, 0.98, 0.99];
/// Queries: with ten rows each, a recall of .95 is known to about .01.
const QUERIES: usize = 200;
/// Rows that a query asks for.
const NEAREST: usize = 10;
/// Rows of a search that are looked at: as many as the executor would fetch for ten.
const FETCHED: usize = 14;
/// Of what a target allows to be missed, the part that measured queries may miss: the rest is left to queries that
/// are unlike them, such as texts for pictures, and to chance.
const SHARE_OF_MISSES: f64 = 0.35;
/// The same for queries of a user's own, which stand for themselves.
const SHARE_OF_OWN_MISSES: f64 = 0.75;
/// What a search is tried with, each a step of about two fifths from the one before.
const LADDER: [usize; 11] = [MIN_LOOKAHEAD, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320];

/// Of the least lookahead for .95, what each of [`TARGETS`] has.
const SHARES_OF_FLOOR: [f64; TARGETS.len()] = [0.5, 1.0, 2.0, 3.0];

/// Lookahead for each of [`TARGETS`]; 0 where it was not measured.
pub type Calibration = [u16; TARGETS.len()];

/// Lookahead of an index that was not calibrated.
pub const USUAL: Calibration = [30, 60, 120, 200];

/// A lookahead for a share of the nearest rows between 0 and 1, from those of the targets: the odds of missing a row
/// fall with a power of it.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and bounded")]
pub fn lookahead(calibration: &Calibration, target: f64) -> usize {
    let measured = if calibration.contains(&0) { &USUAL } else { calibration };
    let odds = |share: f64| (share / (1.0 - share)).ln();
    let target = odds(target.clamp(0.5, 0.9999));
    let i = (1..TARGETS.len() - 1).find(|&i| target <= odds(TARGETS[i])).unwrap_or(TARGETS.len() - 1);
    let (low, high) = (f64::from(measured[i - 1]).ln(), f64::from(measured[i]).ln());
    let part = (target - odds(TARGETS[i - 1])) / (odds(TARGETS[i]) - odds(TARGETS[i - 1]));
    // Beyond the last target two equal steps say little: every further halving of misses costs half as much again.
    let slope = if part > 1.0 { (high - low).max(0.4) } else { high - low };
    let beyond = (part - 1.0).max(0.0);
    (low + (high - low) * part.min(1.0) + slope * beyond).exp().round().clamp(MIN_LOOKAHEAD as f64, 10_000.0)
        as usize
}

/// A query, and the nodes that are nearest to it.
struct Probe {
    query: Query,
    /// The squared norm of the query, less the center.
    squared: f32,
    /// Best scores so far, ascending.
    nearest: Vec<(f32, NodeId)>,
}

impl Probe {
    fn new(query: Query) -> Self {
        let squared = query.turned().iter().map(|x| x * x).sum();
        Self { query, squared, nearest: Vec::new() }
    }

    /// Whether a node with such a score is none of the nearest so far.
    fn is_beyond(&self, score: f32) -> bool {
        self.nearest.len() == NEAREST && self.nearest[NEAREST - 1].0 <= score
    }
}

/// What a measurement tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Zeros if there are too few rows, or queries, to tell.
    pub calibration: Calibration,
    /// Live nodes of the index.
    pub nodes: u32,
}

/// Measures an index with queries made from its rows. Reads all its pages once, and some of them many times.
///
/// # Errors
/// [`AccessError`].
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and bounded")]
pub fn calibrate<S: PageStore>(
    store: &S,
    index: &Index,
    random: &mut SplitMix64,
) -> Result<Measured, AccessError<S::Error>> {
    let vectors = vectors_like_rows(store, index, random)?;
    if vectors.len() < QUERIES / 4 {
        return Ok(Measured { calibration: Calibration::default(), nodes: 0 });
    }
    let queries = vectors.into_iter().filter_map(|vector| Query::of_stored(&index.space, &vector));
    let mut probes: Vec<Probe> = queries.map(Probe::new).collect();
    let nodes = find_nearest(store, index, &mut probes)?;
    let measured = least_lookahead(store, index, &probes, SHARE_OF_MISSES)?;
    let floor = least_for(nodes);
    let calibration = std::array::from_fn(|i| measured[i].max((floor * SHARES_OF_FLOOR[i]) as u16));
    Ok(Measured { calibration, nodes })
}

/// What texts needed to find .95 of their nearest pictures where queries like rows needed next to nothing: 20 at 100,000 rows and
/// 44 at 250,000, overlapping clusters in 96 of 512 dimensions.
fn least_for(nodes: u32) -> f64 {
    (40.0 * (f64::from(nodes) / 250_000.0).cbrt()).clamp(MIN_LOOKAHEAD as f64, 100.0)
}

/// The same with queries of the caller's own, such as texts for pictures; as many as they are.
///
/// # Errors
/// [`AccessError`].
pub fn calibrate_for<S: PageStore>(
    store: &S,
    index: &Index,
    queries: Vec<Query>,
) -> Result<Measured, AccessError<S::Error>> {
    let mut probes: Vec<Probe> = queries.into_iter().map(Probe::new).collect();
    let nodes = find_nearest(store, index, &mut probes)?;
    let calibration = least_lookahead(store, index, &probes, SHARE_OF_OWN_MISSES)?;
    Ok(Measured { calibration, nodes })
}

/// Writes what was measured to the metapage, for all searches that begin from then on. What was too little to tell leaves the
/// numbers as they are.
///
/// # Errors
/// [`AccessError`].
pub fn keep<S: PageStore>(store: &S, measured: &Measured) -> Result<(), AccessError<S::Error>> {
    if measured.calibration.contains(&0) {
        return Ok(());
    }
    change_meta(store, |meta| {
        meta.calibration = measured.calibration;
        meta.built_rows = measured.nodes;
    })
}

/// Writes a recall that was measured to the metapage, for whoever asks how well the index finds. Searches do not read it. An index of
/// format 1 stays as it is.
///
/// # Errors
/// [`AccessError`].
pub fn keep_recall<S: PageStore>(store: &S, measured: MeasuredRecall) -> Result<(), AccessError<S::Error>> {
    change_meta(store, |meta| meta.recall = Some(measured))
}

fn change_meta<S: PageStore>(store: &S, edit: impl FnOnce(&mut Meta)) -> Result<(), AccessError<S::Error>> {
    let zero = BlockNumber(0);
    let mut change = store.change()?;
    let page = change.page(zero)?;
    let mut meta = Meta::decode(page).at(zero)?;
    edit(&mut meta);
    meta.encode_links(page);
    Ok(change.commit()?)
}

/// The least lookahead with which no more than a share of the misses that each target allows are missed. Zeros if
/// there is nothing to find.
fn least_lookahead<S: PageStore>(
    store: &S,
    index: &Index,
    probes: &[Probe],
    share_of_misses: f64,
) -> Result<Calibration, AccessError<S::Error>> {
    let wanted: usize = probes.iter().map(|probe| probe.nearest.len()).sum();
    let (mut calibration, mut reached) = (Calibration::default(), 0);
    if wanted == 0 {
        return Ok(calibration);
    }
    // Searches that read all pages find everything, and so they do with a larger lookahead.
    let mut finds_all = vec![false; probes.len()];
    for lookahead in LADDER {
        let mut found = 0;
        for (probe, finds_all) in probes.iter().zip(&mut finds_all) {
            let of_probe = if *finds_all { None } else { found_of(store, index, probe, lookahead)? };
            *finds_all = of_probe.is_none();
            found += of_probe.unwrap_or(probe.nearest.len());
        }
        #[allow(clippy::cast_precision_loss, reason = "a ratio of small counts")]
        let missed = 1.0 - found as f64 / wanted as f64;
        while reached < TARGETS.len() && missed <= (1.0 - TARGETS[reached]) * share_of_misses {
            calibration[reached] = u16::try_from(lookahead).expect("of the ladder");
            reached += 1;
        }
        if reached == TARGETS.len() {
            break;
        }
    }
    // What the ladder did not reach is further up by as much as usual.
    for i in reached..TARGETS.len() {
        let last = LADDER[LADDER.len() - 1];
        let before = if i == 0 { last } else { calibration[i - 1].into() };
        calibration[i] = u16::try_from((before * 3 / 2).max(last)).expect("a few steps");
    }
    Ok(calibration)
}

/// Vectors like rows, less the center: a row, moved by the difference of its two nearest neighbors, which lie in about orthogonal
/// directions from it. The row itself would be too easy a query, for the graph was built around it.
fn vectors_like_rows<S: PageStore>(
    store: &S,
    index: &Index,
    random: &mut SplitMix64,
) -> Result<Vec<Vec<f32>>, AccessError<S::Error>> {
    let g = &index.space.geometry;
    let pages = store.block_count()?;
    let first = pages.min(1 + u32::try_from(index.entry_pages()).expect("pages"));
    let mut vectors = Vec::with_capacity(QUERIES);
    for _ in 0..4 * QUERIES {
        if vectors.len() == QUERIES || first == pages {
            break;
        }
        store.check_interrupts()?;
        let block =
            BlockNumber(first + u32::try_from(random.below((pages - first) as usize)).expect("a page"));
        let Some(id) = g.node_id(block, random.below(g.slots())) else { continue };
        let Some((row, near)) = live(store, index, id)? else { continue };
        let (Some(&one), Some(&other)) = (near.first(), near.get(1)) else { continue };
        let (Some((one, _)), Some((other, _))) = (live(store, index, one)?, live(store, index, other)?)
        else {
            continue;
        };
        let moved = row.iter().zip(&one).zip(&other);
        vectors.push(moved.map(|((x, a), b)| x + (a - b) * std::f32::consts::FRAC_1_SQRT_2).collect());
    }
    Ok(vectors)
}

/// The vector of a live node as it is stored, less the center, and its neighbors, nearest first.
#[allow(clippy::type_complexity, reason = "a vector and its neighbors")]
fn live<S: PageStore>(
    store: &S,
    index: &Index,
    id: NodeId,
) -> Result<Option<(Vec<f32>, Vec<NodeId>)>, AccessError<S::Error>> {
    let g = &index.space.geometry;
    let block = g.block_of(id);
    let page = store.read(block)?;
    if kind_in(&page, g.epoch()).at(block)? != Kind::Node {
        return Ok(None);
    }
    let node = Node::read(&page, g, g.slot_of(id)).at(block)?;
    if node.header().state != State::Live {
        return Ok(None);
    }
    let mut edges: Vec<_> = (0..node.header().degree).map(|i| node.edge(i)).collect();
    edges.sort_by(|a, b| a.distance_squared.total_cmp(&b.distance_squared));
    Ok(Some((index.space.decoded(node.stored()), edges.into_iter().map(|edge| edge.id).collect())))
}

/// The exact answers, from one pass over all pages; returns how many nodes are live.
fn find_nearest<S: PageStore>(
    store: &S,
    index: &Index,
    probes: &mut [Probe],
) -> Result<u32, AccessError<S::Error>> {
    let (g, mut nodes) = (&index.space.geometry, 0);
    let space = &index.space;
    let screen = Screen::new(g.padded_dim(), probes.iter().map(|probe| probe.query.turned()));
    let mut decoded = vec![0.0; g.padded_dim()];
    for block in (1..store.block_count()?).map(BlockNumber) {
        store.check_interrupts()?;
        let page = store.read(block)?;
        if kind_in(&page, g.epoch()).at(block)? != Kind::Node {
            continue;
        }
        for slot in 0..g.slots() {
            let node = Node::read(&page, g, slot).at(block)?;
            let header = node.header();
            let Some(id) = g.node_id(block, slot).filter(|_| header.state == State::Live) else { continue };
            nodes += 1;
            let stored = node.stored();
            space.decode(stored, 0, &mut decoded);
            let squared = space.kernels.dot_f32(&decoded, &decoded);
            for (probe, [_, most]) in probes.iter_mut().zip(screen.intervals(&decoded)) {
                let squares = (squared + probe.squared) * (1.0 - ROUNDING);
                // Scores fall with the inner product.
                if probe.is_beyond(probe.query.score_of_product(most, squares, stored.bias)) {
                    continue;
                }
                let score = probe.query.score(space, stored);
                if probe.is_beyond(score) {
                    continue;
                }
                let nearest = &mut probe.nearest;
                nearest.insert(nearest.partition_point(|&(other, _)| other <= score), (score, id));
                nearest.truncate(NEAREST);
            }
        }
    }
    Ok(nodes)
}

/// How many of the nearest nodes a search finds; `None` if it would read all pages, and so find all of them.
fn found_of<S: PageStore>(
    store: &S,
    index: &Index,
    probe: &Probe,
    lookahead: usize,
) -> Result<Option<usize>, AccessError<S::Error>> {
    let options = Options { lookahead, ..Options::default() };
    let mut search = Search::with_query(index, probe.query.clone(), None, &options).walking_only();
    let mut seen: Vec<NodeId> = Vec::with_capacity(FETCHED);
    while seen.len() < FETCHED
        && let Some(hit) = search.next(store, index)?
    {
        // Rows of one node come one after another.
        if seen.last() != Some(&hit.node) {
            seen.push(hit.node);
        }
    }
    let found = || probe.nearest.iter().filter(|(_, id)| seen.contains(id)).count();
    Ok((!search.is_cut_short()).then(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::executor::Threads;
    use crate::build::{Builder, Parameters};
    use crate::layout::{Geometry, HeapTid};
    use crate::metric::Metric;
    use crate::store::mem::MemStore;
    use std::sync::atomic::AtomicBool;

    /// Rows in tight crowds, of norms that differ, as an index.
    fn index(metric: Metric, crowds: usize, seed: u64) -> MemStore {
        let mut random = SplitMix64::new(seed);
        let mut uniform = || (random.next_u64() >> 40) as f32 / 16_777_216.0 - 0.5;
        let centers: Vec<f32> = (0..crowds * 64).map(|_| uniform()).collect();
        let rows: Vec<Vec<f32>> = (0..2000)
            .map(|i| {
                let center = &centers[i % crowds * 64..][..64];
                let size = 1.0 + i as f32 / 200.0;
                center.iter().map(|c| (3.0 + c + 0.01 * uniform()) * size).collect()
            })
            .collect();
        let sample: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let geometry = Geometry::new(64).unwrap();
        let mut builder =
            Builder::new(metric, geometry, seed, &sample, usize::MAX, Parameters::default()).unwrap();
        for (row, i) in rows.iter().zip(0..) {
            builder.add(row, HeapTid { block: i, offset: 1 }).unwrap();
        }
        let (mut store, cancel) = (MemStore::new(), AtomicBool::new(false));
        builder.finish(&Threads::new(1, &cancel), &mut store, &mut |_| {}).unwrap();
        store
    }

    #[test]
    fn all_pass_that_are_among_the_nearest() {
        for (metric, crowds, seed) in [Metric::Cosine, Metric::L2, Metric::InnerProduct]
            .into_iter()
            .flat_map(|metric| [(metric, 3, 1), (metric, 200, 2), (metric, 2000, 3)])
        {
            let store = index(metric, crowds, seed);
            let index = Index::open(&store).unwrap();
            let vectors = vectors_like_rows(&store, &index, &mut SplitMix64::new(seed)).unwrap();
            let queries = vectors.iter().filter_map(|vector| Query::of_stored(&index.space, vector));
            let mut probes: Vec<Probe> = queries.map(Probe::new).collect();
            let nodes = find_nearest(&store, &index, &mut probes).unwrap();
            assert!(nodes > 1900 && probes.len() > QUERIES / 2, "{metric:?}: {nodes} nodes");
            let mut all: Vec<Vec<f32>> = vec![Vec::new(); probes.len()];
            let g = &index.space.geometry;
            for block in (1..store.block_count().unwrap()).map(BlockNumber) {
                let page = store.read(block).unwrap();
                if kind_in(&page, g.epoch()).unwrap() != Kind::Node {
                    continue;
                }
                for slot in 0..g.slots() {
                    let node = Node::read(&page, g, slot).unwrap();
                    if node.header().state == State::Live {
                        let scores =
                            probes.iter().map(|probe| probe.query.score(&index.space, node.stored()));
                        all.iter_mut().zip(scores).for_each(|(all, score)| all.push(score));
                    }
                }
            }
            for (probe, mut scores) in probes.iter().zip(all) {
                scores.sort_by(f32::total_cmp);
                let found: Vec<f32> = probe.nearest.iter().map(|near| near.0).collect();
                assert_eq!(found, scores[..NEAREST], "{metric:?}, {crowds} crowds");
            }
        }
    }

    #[test]
    fn lookahead_grows_with_the_target() {
        let calibration = [20, 40, 100, 180];
        for (&target, &measured) in TARGETS.iter().zip(&calibration) {
            assert_eq!(lookahead(&calibration, target), usize::from(measured));
        }
        let all: Vec<usize> =
            (500..1000).map(|share| lookahead(&calibration, f64::from(share) / 1000.0)).collect();
        assert!(all.is_sorted(), "{all:?}");
        assert!(lookahead(&calibration, 0.97) > 40 && lookahead(&calibration, 0.97) < 100);
        assert!(lookahead(&calibration, 0.999) > 180 && lookahead(&calibration, 1.0) <= 10_000);
        assert_eq!(lookahead(&[0; 4], 0.95), 60, "an index that was never measured");
        assert!(lookahead(&[10; 4], 0.999) > 10, "more is asked than was measured");
    }
}
