//! A build from files: rows are divided into shards that fit into memory, and the shards are processed one by one.
//!
//! Each row goes to the shards of its two nearest leaders. It is at *home* in the first and *foreign* in the other, so
//! neighbors on both sides of a border are together in some shard. A shard that is too large is divided again. Equal
//! rows go to the same shards, so their home is the same and they become one node there. Nodes are numbered shard by shard,
//! leaf by leaf. The edges that a shard proposes are sorted by the number of their node, into *windows* of
//! consecutive numbers, which `merge.rs` processes.

use super::executor::{Cancelled, Executor, map};
use super::graph::{BACKBONE, Explored, explore};
use super::partition::{LeaderScratch, LeaderSet};
use super::rows::{Batch, Folded, Records, TID_BYTES, inverse, reordered, tid_bytes, tid_from};
use super::spill::{Log, Spill};
use super::{FURTHER_PER_ROW, Parameters, Phase, capacity, write};
use crate::graph::key::Key;
use crate::layout::bytes::{get_f32, get_u16, get_u32, put_f32, put_u16, put_u32};
use crate::layout::{Geometry, HeapTid, NodeId};
use crate::random::SplitMix64;
use crate::space::Space;
use std::io;

/// Rows read at once.
pub(super) const BATCH: u64 = 4096;
/// Rows that a worker compares with the leaders at once.
const BLOCK: usize = 256;
/// Most shards made of one: each has files with buffers.
const MAX_CHILDREN: u64 = 64;
/// Divisions after which rows are dealt out by hash: they are all alike.
const MAX_DEPTH: usize = 8;
/// A window has this part of the rows that fit the memory: lists of candidates, and vectors from elsewhere.
const WINDOW_PART: usize = 2;

/// Why a build from files ended early.
pub(super) enum Failure {
    Cancelled,
    Spill(io::Error),
}

impl From<Cancelled> for Failure {
    fn from(_: Cancelled) -> Self {
        Failure::Cancelled
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Spill(error)
    }
}

/// What all shards gave.
pub(super) struct Shards {
    /// A row for each node; its number is its place.
    pub nodes: Records,
    /// Place and tid of all further rows of nodes, by place.
    pub further: Log,
    /// Cells that those take.
    pub cells: usize,
    /// Statements about edges; they name rows by number.
    pub windows: Vec<Log>,
    /// Nodes of a window.
    pub window_nodes: usize,
    /// Rows that fit the memory.
    pub capacity: usize,
    /// Places by row number.
    pub place_of: Vec<u32>,
    pub leaves: u64,
    /// The levels of the backbone that shards make; samples for the others fit the memory as a whole.
    pub levels_in_shards: usize,
    pub parameters: Parameters,
    pub random: SplitMix64,
    pub spill: Box<dyn Spill>,
}

/// Bytes of an entry of [`Shards::further`].
pub(super) const FURTHER_BYTES: usize = 4 + TID_BYTES;

/// Divides `rows`, whose numbers are 0, 1, 2, ..., and explores the shards.
pub(super) fn build(
    rows: Records,
    space: &Space,
    parameters: &Parameters,
    memory_bytes: usize,
    mut spill: Box<dyn Spill>,
    executor: &dyn Executor,
    progress: &mut dyn FnMut(Phase),
) -> Result<Shards, Failure> {
    let g = &space.geometry;
    let leaf_bytes = parameters.leaf_rows * (4 * parameters.leaf_rows + g.padded_dim());
    let capacity = capacity(memory_bytes.saturating_sub(executor.workers() * leaf_bytes), g);
    let count = usize::try_from(rows.count()).expect("numbers are 32 bits wide");
    let mut shards = Shards {
        nodes: Records::new(g, &mut *spill)?,
        further: Log::new(&mut *spill)?,
        cells: 0,
        windows: Vec::new(),
        window_nodes: capacity / WINDOW_PART,
        capacity,
        place_of: vec![u32::MAX; count],
        leaves: 0,
        levels_in_shards: usize::from(count / BACKBONE[0].0 > capacity),
        parameters: parameters.clone(),
        random: SplitMix64::new(parameters.seed),
        spill,
    };
    let mut strays = Log::new(&mut *shards.spill)?;
    let foreign = Records::new(g, &mut *shards.spill)?;
    let mut open = vec![Shard { home: rows, foreign, depth: 0 }];
    while let Some(mut shard) = open.pop() {
        if shard.home.count() == 0 {
            continue;
        }
        progress(Phase::Shard);
        if let Some(loaded) = shard.load(g, capacity, executor)? {
            shards.explore(shard, loaded, space, &mut strays, executor, progress)?;
        } else {
            let mut children = shards.divide(shard, space, executor)?;
            children.reverse();
            open.append(&mut children);
        }
    }
    progress(Phase::Shard);
    let mut edges = EdgeReader::new(strays);
    while let Some(entries) = edges.next()? {
        executor.check()?;
        for mut entry in entries {
            let place = shards.place_of[entry.about() as usize];
            shards.window(place)?.append(entry.about_another(place))?;
        }
    }
    Ok(shards)
}

struct Shard {
    home: Records,
    foreign: Records,
    depth: usize,
}

/// The rows of a shard: those at home first.
struct Loaded {
    rows: Folded,
    home: usize,
    /// Numbers of the rows.
    numbers: Vec<u32>,
    /// Rows at home that equal another, with their numbers.
    twins: Vec<(u32, u32)>,
    /// Further tids of rows at home.
    further: Vec<Further>,
}

/// One further tid, or a run of them in the shard's file.
struct Further {
    row: u32,
    tid: Option<HeapTid>,
    at: u64,
    count: u32,
}

impl Shard {
    /// Reads the rows; answers `None` if they do not fit.
    fn load(
        &mut self,
        g: &Geometry,
        capacity: usize,
        executor: &dyn Executor,
    ) -> Result<Option<Loaded>, Failure> {
        let (twins, further) = (Vec::new(), Vec::new());
        let mut loaded = Loaded { rows: Folded::new(g), home: 0, numbers: Vec::new(), twins, further };
        let mut at = 0;
        for (records, at_home) in [(&mut self.home, true), (&mut self.foreign, false)] {
            for start in (0..records.count()).step_by(BATCH as usize) {
                executor.check()?;
                let batch = records.read(start..records.count().min(start + BATCH))?;
                for (i, head) in batch.heads.iter().enumerate() {
                    let row = batch.row(i);
                    let hash = row.hash();
                    let twin = loaded.rows.twin(&row, hash);
                    let place = twin.unwrap_or_else(|| {
                        loaded.numbers.push(head.number);
                        loaded.rows.push(&row, hash)
                    });
                    if !at_home {
                        continue;
                    }
                    if twin.is_some() {
                        loaded.rows.cover(place, row.error);
                        loaded.twins.push((place, head.number));
                        loaded.further.push(Further { row: place, tid: Some(head.tid), at: 0, count: 0 });
                    }
                    if head.further > 0 {
                        loaded.further.push(Further { row: place, tid: None, at, count: head.further });
                        at += u64::from(head.further) * TID_BYTES as u64;
                    }
                }
                let shared = loaded.further.len() as u64 / FURTHER_PER_ROW;
                if loaded.rows.len() as u64 + shared > capacity as u64 && loaded.rows.len() > 1 {
                    return Ok(None);
                }
            }
            if at_home {
                loaded.home = loaded.rows.len();
            }
        }
        loaded.rows.seal();
        Ok(Some(loaded))
    }
}

/// Which of its shards a row is divided to.
enum Rule {
    /// The nearest of these.
    Leaders(LeaderSet),
    /// By the hash of the row: nothing else distinguishes the rows.
    Hash(u64),
}

impl Shards {
    /// Divides a shard.
    fn divide(
        &mut self,
        shard: Shard,
        space: &Space,
        executor: &dyn Executor,
    ) -> Result<Vec<Shard>, Failure> {
        let Shard { mut home, mut foreign, depth } = shard;
        let total = 2 * home.count() + foreign.count();
        let wanted = (2 * total).div_ceil(self.capacity as u64).clamp(2, MAX_CHILDREN);
        let count = usize::try_from(wanted).expect("at most 64");
        let rule = if depth >= MAX_DEPTH {
            Rule::Hash(depth as u64)
        } else {
            let rows = usize::try_from(home.count()).expect("numbers are 32 bits wide");
            let mut places: Vec<u32> = self.random.sample(rows, count).into_iter().map(number).collect();
            places.sort_unstable();
            let leaders: Vec<u32> = (0..number(places.len())).collect();
            Rule::Leaders(LeaderSet::new(&home.gather(&places)?, space, &leaders))
        };
        let g = &space.geometry;
        let mut children = Vec::with_capacity(count);
        for _ in 0..count {
            let mut records = || Records::new(g, &mut *self.spill);
            children.push(Shard { home: records()?, foreign: records()?, depth: depth + 1 });
        }
        for (records, at_home) in [(&mut home, true), (&mut foreign, false)] {
            let mut at = 0;
            for start in (0..records.count()).step_by(BATCH as usize) {
                executor.check()?;
                let batch = records.read(start..records.count().min(start + BATCH))?;
                let (chosen, fan) = choose(&rule, &batch, count, at_home, space, executor)?;
                for ((i, head), chosen) in batch.heads.iter().enumerate().zip(chosen.chunks_exact(fan)) {
                    let row = batch.row(i);
                    let tids = records.tids(at, head.further)?;
                    at += tids.len() as u64;
                    let spill = &mut *self.spill;
                    let (first, others) = chosen.split_first().expect("at least one leader");
                    let child = &mut children[*first as usize];
                    let target = if at_home { &mut child.home } else { &mut child.foreign };
                    target.append(&row, head.number, &tids, spill)?;
                    for &other in others {
                        children[other as usize].foreign.append(&row, head.number, &[], spill)?;
                    }
                }
            }
        }
        for child in &mut children {
            // Leaders that do not distinguish the rows will not do so the next time.
            if (child.home.count() + child.foreign.count()) * 8 >= (home.count() + foreign.count()) * 7 {
                child.depth = MAX_DEPTH;
            }
        }
        Ok(children)
    }

    /// Explores a shard and writes down its nodes and what it says about edges.
    fn explore(
        &mut self,
        mut shard: Shard,
        loaded: Loaded,
        space: &Space,
        strays: &mut Log,
        executor: &dyn Executor,
        progress: &mut dyn FnMut(Phase),
    ) -> Result<(), Failure> {
        let Loaded { mut rows, home, numbers, mut twins, mut further } = loaded;
        let mut hear = |phase| {
            // Edges are chosen at the end.
            if phase != Phase::Prune {
                progress(phase);
            }
        };
        let Explored { order, candidates, backbone, leaves } = explore(
            &mut rows.set,
            space,
            &self.parameters,
            &BACKBONE[..self.levels_in_shards],
            &mut self.random,
            executor,
            &mut hear,
        )?;
        self.leaves += leaves;
        rows.follow(&order);
        let numbers = reordered(&numbers, &order);
        let rows_by_old = inverse(&order);
        let moved = twins.iter_mut().map(|(row, _)| row).chain(further.iter_mut().map(|f| &mut f.row));
        moved.for_each(|row| *row = rows_by_old[*row as usize]);

        for (row, &old) in (0..).zip(&order) {
            if row % BATCH as u32 == 0 {
                executor.check()?;
            }
            let about = numbers[row as usize];
            let keys = candidates.sorted(row);
            let keys = keys.iter().map(|key| (key.score(), numbers[key.id().0 as usize]));
            if (old as usize) >= home {
                strays.append(&entry(about, std::iter::empty(), keys))?;
                continue;
            }
            let place = number(usize::try_from(self.nodes.count()).expect("numbers are 32 bits wide"));
            self.place_of[about as usize] = place;
            self.nodes.append(&rows.row(row), place, &[], &mut *self.spill)?;
            let long = backbone[row as usize].rows.iter().map(|&other| numbers[other as usize]);
            self.window(place)?.append(&entry(place, long, keys))?;
        }
        for (row, twin) in twins {
            self.place_of[twin as usize] = self.place_of[numbers[row as usize] as usize];
        }

        let place_of = |row: u32| self.place_of[numbers[row as usize] as usize];
        further.sort_by_key(|further| further.row);
        for same in further.chunk_by(|a, b| a.row == b.row) {
            let place = place_of(same[0].row);
            let mut count = 0;
            for Further { tid, at, count: run, .. } in same {
                executor.check()?;
                for start in (0..*run).step_by(BATCH as usize) {
                    let part = (BATCH as u32).min(run - start);
                    let tids = shard.home.tids(at + u64::from(start) * TID_BYTES as u64, part)?;
                    for tid in tids.chunks_exact(TID_BYTES) {
                        append_further(&mut self.further, place, tid)?;
                    }
                    count += part as usize;
                }
                if let Some(tid) = tid {
                    append_further(&mut self.further, place, &tid_bytes(*tid))?;
                    count += 1;
                }
            }
            self.cells += write::cells(count);
        }
        Ok(())
    }

    /// The window of a place.
    fn window(&mut self, place: u32) -> io::Result<&mut Log> {
        let window = place as usize / self.window_nodes;
        while self.windows.len() <= window {
            self.windows.push(Log::new(&mut *self.spill)?);
        }
        Ok(&mut self.windows[window])
    }
}

fn number(i: usize) -> u32 {
    u32::try_from(i).expect("numbers are 32 bits wide")
}

fn append_further(log: &mut Log, place: u32, tid: &[u8]) -> io::Result<()> {
    let mut bytes = [0; FURTHER_BYTES];
    put_u32(&mut bytes, 0, place);
    bytes[4..].copy_from_slice(tid);
    log.append(&bytes)
}

/// Calls `each` with place and tid of all further rows.
pub(super) fn each_further<E: From<io::Error>>(
    log: &mut Log,
    mut each: impl FnMut(u32, HeapTid) -> Result<(), E>,
) -> Result<(), E> {
    let step = 8192 * FURTHER_BYTES;
    for at in (0..log.len()).step_by(step) {
        let len = usize::try_from(log.len() - at).map_or(step, |rest| rest.min(step));
        let mut bytes = vec![0; len];
        log.read_at(at, &mut bytes)?;
        for entry in bytes.chunks_exact(FURTHER_BYTES) {
            each(get_u32(entry, 0), tid_from(&entry[4..]))?;
        }
    }
    Ok(())
}

/// The children that the rows of a batch go to, and to how many each: two if they are at home.
fn choose(
    rule: &Rule,
    batch: &Batch,
    children: usize,
    at_home: bool,
    space: &Space,
    executor: &dyn Executor,
) -> Result<(Vec<u32>, usize), Cancelled> {
    let (set, rows) = (&batch.set, batch.heads.len());
    match rule {
        Rule::Hash(salt) => {
            let child = |i| {
                let mixed = SplitMix64::new(batch.row(i).hash() ^ salt).next_u64();
                number(usize::try_from(mixed % children as u64).expect("at most 64"))
            };
            Ok(((0..rows).map(child).collect(), 1))
        }
        Rule::Leaders(leaders) => {
            let fan = if at_home { leaders.len().min(2) } else { 1 };
            let nearest = map(executor, rows.div_ceil(BLOCK), LeaderScratch::default, |scratch, block| {
                let range = block * BLOCK..rows.min((block + 1) * BLOCK);
                leaders.nearest(set, space, range.map(number), fan, scratch)
            })?;
            Ok((nearest.concat(), fan))
        }
    }
}

/// Head of a statement about edges: what it is about (u32), number of long edges, number of candidates (u16).
/// Row numbers of the long edges (u32) follow, then distance (f32) and row number (u32) of the candidates.
const ENTRY_HEAD: usize = 8;

fn entry(
    about: u32,
    long: impl ExactSizeIterator<Item = u32>,
    keys: impl ExactSizeIterator<Item = (f32, u32)>,
) -> Vec<u8> {
    let mut bytes = vec![0; ENTRY_HEAD + 4 * long.len() + 8 * keys.len()];
    put_u32(&mut bytes, 0, about);
    put_u16(&mut bytes, 4, u16::try_from(long.len()).expect("at most 32"));
    put_u16(&mut bytes, 6, u16::try_from(keys.len()).expect("a short list"));
    let keys_at = ENTRY_HEAD + 4 * long.len();
    for (i, row) in long.enumerate() {
        put_u32(&mut bytes, ENTRY_HEAD + 4 * i, row);
    }
    for (i, (distance, row)) in keys.enumerate() {
        put_f32(&mut bytes, keys_at + 8 * i, distance);
        put_u32(&mut bytes, keys_at + 8 * i + 4, row);
    }
    bytes
}

/// What a shard says about the edges of a row.
pub(super) struct Entry<'a>(&'a mut [u8]);

impl Entry<'_> {
    /// The place of a node, or the number of a row.
    pub fn about(&self) -> u32 {
        get_u32(self.0, 0)
    }

    fn about_another(&mut self, about: u32) -> &[u8] {
        put_u32(self.0, 0, about);
        self.0
    }

    /// Row numbers.
    pub fn long(&self) -> impl Iterator<Item = u32> {
        let count = usize::from(get_u16(self.0, 4));
        (0..count).map(|i| get_u32(self.0, ENTRY_HEAD + 4 * i))
    }

    /// Distances, and row numbers in place of ids.
    pub fn candidates(&self) -> impl Iterator<Item = Key> {
        let at = ENTRY_HEAD + 4 * usize::from(get_u16(self.0, 4));
        let count = usize::from(get_u16(self.0, 6));
        (0..count).map(move |i| {
            let at = at + 8 * i;
            Key::new(get_f32(self.0, at), NodeId(get_u32(self.0, at + 4)))
        })
    }
}

/// Reads a log of entries from the beginning.
pub(super) struct EdgeReader {
    log: Log,
    at: u64,
    bytes: Vec<u8>,
}

impl EdgeReader {
    pub fn new(log: Log) -> Self {
        Self { log, at: 0, bytes: Vec::new() }
    }

    /// The next entries, about a megabyte of them; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Vec<Entry<'_>>>> {
        let left = self.log.len() - self.at;
        if left == 0 {
            return Ok(None);
        }
        self.bytes.resize(usize::try_from(left).map_or(1 << 20, |left| left.min(1 << 20)), 0);
        self.log.read_at(self.at, &mut self.bytes)?;
        let mut entries = Vec::new();
        let mut rest = self.bytes.as_mut_slice();
        while rest.len() >= ENTRY_HEAD {
            let len = ENTRY_HEAD + 4 * usize::from(get_u16(rest, 4)) + 8 * usize::from(get_u16(rest, 6));
            if rest.len() < len {
                break;
            }
            let (entry, behind) = rest.split_at_mut(len);
            self.at += len as u64;
            entries.push(Entry(entry));
            rest = behind;
        }
        Ok(Some(entries))
    }
}
