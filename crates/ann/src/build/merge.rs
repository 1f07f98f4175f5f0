//! The second half of a build from files: it chooses edges window by window, links unreachable nodes, and writes the pages.
//!
//! The candidates of a window of consecutive nodes are in memory, and the vectors of all nodes that they name. If that does not
//! fit, the window is processed in parts. The links of all nodes then are in a file. Passes over that file, with two bits for each
//! node, determine which nodes are reachable.

use super::candidates::Lists;
use super::executor::{Executor, map};
use super::graph::{BACKBONE, CONNECT_ROUNDS, EntrySample, Links, add_long_edges, prune_all};
use super::rows::{Records, RowSet};
use super::shards::{EdgeReader, Entry, Failure, Shards, each_further};
use super::spill::Log;
use super::write::{CellWriter, Described, Plan, write_entries, write_head, write_nodes};
use super::{BuildError, Phase, Report};
use crate::bits::Bits;
use crate::graph::key::Key;
use crate::layout::bytes::{get_u32, put_u32};
use crate::layout::meta::Meta;
use crate::layout::{MAX_DEGREE, NodeId};
use crate::random::SplitMix64;
use crate::space::Space;
use crate::store::PageSink;
use std::io;
use std::ops::Range;

/// Entries that a worker takes at once.
const ENTRIES: usize = 64;
/// Nodes whose neighbors are read at once, at least.
const FEW: usize = 64;
/// Nodes whose links are read at once.
const SWEEP: usize = 4096;
/// Reachable nodes among which a lost one looks for the nearest, unless a neighbor of its own is reachable.
const PARENTS: usize = 1000;

impl<E: std::error::Error + 'static> From<Failure> for BuildError<E> {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Cancelled => BuildError::Cancelled,
            Failure::Spill(error) => BuildError::Spill(error),
        }
    }
}

/// Makes an index of what the shards gave.
pub(super) fn finish<P: PageSink>(
    mut shards: Shards,
    space: &Space,
    empty: &Meta,
    rows: u64,
    executor: &dyn Executor,
    sink: &mut P,
    progress: &mut dyn FnMut(Phase),
) -> Result<Report, BuildError<P::Error>> {
    let nodes = usize::try_from(shards.nodes.count()).expect("places are 32 bits wide");
    progress(Phase::Prune);
    let mut far = Vec::new();
    for &level in &BACKBONE[shards.levels_in_shards..] {
        far.push(far_edges(&mut shards, level, nodes, space, executor)?);
    }
    let (mut links, mut in_degrees) = choose_edges(&mut shards, nodes, &far, space, executor)?;
    drop(far);
    shards.place_of = Vec::new();

    progress(Phase::Connect);
    let random = &mut shards.random;
    let mut chosen = EntrySample::new(nodes, space, random);
    if chosen.wants_weights() {
        for start in (0..nodes).step_by(SWEEP) {
            executor.check()?;
            let batch = shards.nodes.read(start as u64..nodes.min(start + SWEEP) as u64)?;
            for (row, i) in (0..number(batch.set.len())).map(|i| (number(start) + i, i)) {
                chosen.offer(row, batch.set.stored(i).bias, random);
            }
        }
    }
    let mut entries = chosen.rows();
    entries.sort_unstable();
    let mut connect = Connect {
        links: &mut links,
        nodes: &mut shards.nodes,
        space,
        in_degrees: &mut in_degrees,
        reached: Bits::new(nodes),
        expanded: Bits::new(nodes),
        count: nodes,
    };
    let relinked = connect.run(entries[0], random, executor)?;
    drop(in_degrees);

    progress(Phase::Write);
    let plan = Plan::new(space, 1, nodes, entries.len(), shards.cells).ok_or(BuildError::TooManyRows)?;
    write_head(&plan, space, empty, sink).map_err(BuildError::Store)?;
    let set = shards.nodes.gather(&entries)?;
    let vectors = entries.iter().zip(0..).map(|(&place, i)| (place, set.stored(i)));
    write_entries(&plan, space, vectors, sink).map_err(BuildError::Store)?;
    drop(set);
    let mut cells = CellWriter::new(&plan);
    each_further(&mut shards.further, |place, tid| cells.push(place, tid, sink).map_err(BuildError::Store))?;
    let chains = cells.finish(sink).map_err(BuildError::Store)?;

    let slots = space.geometry.slots();
    let most = (shards.window_nodes / slots).max(1) * slots;
    let mut start = 0;
    while start < nodes {
        executor.check()?;
        let wanted = start..nodes.min(start + most);
        let window = links.read(wanted)?;
        let names = |i: usize, name: &mut dyn FnMut(u32)| {
            window[i].rows.iter().for_each(|&place| name(place));
        };
        let (count, near) = Neighborhood::of(&mut shards.nodes, window.len(), slots, shards.capacity, names)?;
        let own = shards.nodes.read(start as u64..(start + count) as u64)?;
        let describe = |place: u32| {
            let i = place as usize - start;
            let neighbors = window[i].rows.iter().map(|&other| (other, near.set.stored(near.find(other))));
            Described { row: own.row(i), protected: window[i].protected, neighbors: neighbors.collect() }
        };
        write_nodes(&plan, space, &chains, start..start + count, executor, sink, &describe)?;
        start += count;
    }
    let pages = plan.pages();
    Ok(Report { rows, nodes: nodes as u64, leaves: shards.leaves, relinked, pages })
}

fn number(i: usize) -> u32 {
    u32::try_from(i).expect("places are 32 bits wide")
}

/// Long edges of some nodes, by place.
struct FarEdges {
    places: Vec<u32>,
    /// Where the edges of each end.
    ends: Vec<usize>,
    others: Vec<u32>,
}

impl FarEdges {
    /// Calls `each` with the nodes of a range and their edges.
    fn each(&self, range: Range<usize>, mut each: impl FnMut(u32, &[u32])) {
        let first = self.places.partition_point(|&place| (place as usize) < range.start);
        for (i, &place) in self.places.iter().enumerate().skip(first) {
            if place as usize >= range.end {
                break;
            }
            let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
            each(place, &self.others[start..self.ends[i]]);
        }
    }
}

/// The edges of a level of the backbone, between nodes of all shards.
fn far_edges(
    shards: &mut Shards,
    (one_in, places): (usize, usize),
    nodes: usize,
    space: &Space,
    executor: &dyn Executor,
) -> Result<FarEdges, Failure> {
    let mut far = FarEdges { places: Vec::new(), ends: Vec::new(), others: Vec::new() };
    let count = (nodes / one_in).min(shards.capacity);
    if count < 2 {
        return Ok(far);
    }
    far.places = shards.random.sample(nodes, count).into_iter().map(number).collect();
    far.places.sort_unstable();
    let set = shards.nodes.gather(&far.places)?;
    let all: Vec<u32> = (0..count).map(number).collect();
    let mut backbone = vec![Links::default(); count];
    let (parameters, random) = (&shards.parameters, &mut shards.random);
    shards.leaves += add_long_edges(&set, space, &all, places, parameters, &mut backbone, random, executor)?;
    for links in backbone {
        far.others.extend(links.rows.iter().map(|&i| far.places[i as usize]));
        far.ends.push(far.others.len());
    }
    Ok(far)
}

/// Merges what shards said about each node. Answers the links, and how many lead to each node, up to 255.
fn choose_edges(
    shards: &mut Shards,
    nodes: usize,
    far: &[FarEdges],
    space: &Space,
    executor: &dyn Executor,
) -> Result<(LinkFile, Vec<u8>), Failure> {
    let mut links = LinkFile(Log::new(&mut *shards.spill)?);
    let mut in_degrees = vec![0u8; nodes];
    let windows = std::mem::take(&mut shards.windows);
    for (window, log) in windows.into_iter().enumerate() {
        let start = window * shards.window_nodes;
        let len = shards.window_nodes.min(nodes - start);
        let (lists, mut backbone) = read_window(log, start, len, &shards.place_of, executor)?;
        for far in far {
            far.each(start..start + len, |place, others| {
                let long = &mut backbone[place as usize - start].rows;
                for &other in others {
                    if !long.contains(&other) {
                        long.push(other);
                    }
                }
            });
        }
        let mut first = 0;
        while first < len {
            let rest = &backbone[first..];
            let names = |i: usize, name: &mut dyn FnMut(u32)| {
                rest[i].rows.iter().for_each(|&place| name(place));
                lists.each(number(first + i), name);
            };
            let (count, near) = Neighborhood::of(&mut shards.nodes, rest.len(), 1, shards.capacity, names)?;
            let local: Vec<Links> = rest[..count]
                .iter()
                .map(|long| {
                    let rows: Vec<u32> = long.rows.iter().map(|&place| near.find(place)).collect();
                    Links { protected: rows.len(), rows }
                })
                .collect();
            let candidates = |i: usize| {
                let keys = lists.sorted(number(first + i));
                let find = |key: Key| Key::new(key.score(), NodeId(near.find(key.id().0)));
                keys.into_iter().map(find).collect::<Vec<Key>>()
            };
            let parameters = &shards.parameters;
            let kept = prune_all(&near.set, space, &candidates, &local, parameters, true, executor)?;
            for (mut chosen, kept) in local.into_iter().zip(kept) {
                chosen.rows.extend(kept.iter().map(|key| key.id().0));
                for row in &mut chosen.rows {
                    *row = near.places[*row as usize];
                    let degree = &mut in_degrees[*row as usize];
                    *degree = degree.saturating_add(1);
                }
                links.append(&chosen)?;
            }
            first += count;
        }
    }
    Ok((links, in_degrees))
}

/// Candidates and long edges of a window's nodes, by place.
fn read_window(
    log: Log,
    start: usize,
    len: usize,
    place_of: &[u32],
    executor: &dyn Executor,
) -> Result<(Lists, Vec<Links>), Failure> {
    let lists = Lists::new(len);
    let mut backbone = vec![Links::default(); len];
    let mut edges = EdgeReader::new(log);
    while let Some(entries) = edges.next()? {
        let row = |entry: &Entry| entry.about() as usize - start;
        for entry in &entries {
            let places = entry.long().map(|number| place_of[number as usize]);
            backbone[row(entry)].rows.extend(places.filter(|&place| place != entry.about()));
        }
        map(
            executor,
            entries.len().div_ceil(ENTRIES),
            || (),
            |(), part| {
                for entry in &entries[part * ENTRIES..entries.len().min((part + 1) * ENTRIES)] {
                    let keys = entry
                        .candidates()
                        .map(|key| Key::new(key.score(), NodeId(place_of[key.id().0 as usize])))
                        .filter(|key| key.id().0 != entry.about());
                    lists.offer(number(row(entry)), keys);
                }
            },
        )?;
    }
    Ok((lists, backbone))
}

/// The vectors of all nodes that some others name, by place.
struct Neighborhood {
    places: Vec<u32>,
    set: RowSet,
    named: Bits,
    /// How many are named before each word of `named`.
    before: Vec<u32>,
}

impl Neighborhood {
    /// Reads what the first of `count` nodes name, as many of them as name no more than `capacity` nodes, but a few
    /// at least. Answers how many; all, or a multiple of `step`.
    fn of(
        nodes: &mut Records,
        count: usize,
        step: usize,
        capacity: usize,
        names: impl Fn(usize, &mut dyn FnMut(u32)),
    ) -> io::Result<(usize, Self)> {
        let mut named = Bits::new(usize::try_from(nodes.count()).expect("places are 32 bits wide"));
        let (mut taken, mut total, mut fresh) = (0, 0, Vec::new());
        while taken < count {
            let end = count.min(taken + FEW.next_multiple_of(step));
            fresh.clear();
            for i in taken..end {
                names(i, &mut |place| {
                    if !named.has(place) {
                        named.set(place);
                        fresh.push(place);
                    }
                });
            }
            if taken > 0 && total + fresh.len() > capacity {
                fresh.iter().for_each(|&place| named.unset(place));
                break;
            }
            (taken, total) = (end, total + fresh.len());
        }
        let mut before = Vec::with_capacity(named.words().len());
        let mut places = Vec::with_capacity(total);
        for (word, &bits) in (0..).zip(named.words()) {
            before.push(number(places.len()));
            let mut rest = bits;
            while rest != 0 {
                places.push(word * 64 + rest.trailing_zeros());
                rest &= rest - 1;
            }
        }
        let set = nodes.gather(&places)?;
        Ok((taken, Self { places, set, named, before }))
    }

    /// Where a place is in the set.
    fn find(&self, place: u32) -> u32 {
        debug_assert!(self.named.has(place));
        let word = place as usize / 64;
        let below = self.named.words()[word] & ((1 << (place % 64)) - 1);
        self.before[word] + below.count_ones()
    }
}

/// Bytes of a node's links in a file: number of links and of protected ones, two of nothing, places.
const LINKS_BYTES: usize = 4 + 4 * MAX_DEGREE;

/// The links of all nodes.
struct LinkFile(Log);

impl LinkFile {
    fn encode(links: &Links) -> [u8; LINKS_BYTES] {
        let mut bytes = [0; LINKS_BYTES];
        bytes[0] = u8::try_from(links.rows.len()).expect("at most 32");
        bytes[1] = u8::try_from(links.protected).expect("at most 32");
        for (i, &row) in links.rows.iter().enumerate() {
            put_u32(&mut bytes, 4 + 4 * i, row);
        }
        bytes
    }

    fn append(&mut self, links: &Links) -> io::Result<()> {
        self.0.append(&Self::encode(links))
    }

    fn write(&mut self, place: u32, links: &Links) -> io::Result<()> {
        self.0.overwrite(u64::from(place) * LINKS_BYTES as u64, &Self::encode(links))
    }

    fn read(&mut self, places: Range<usize>) -> io::Result<Vec<Links>> {
        let mut bytes = vec![0; places.len() * LINKS_BYTES];
        self.0.read_at(places.start as u64 * LINKS_BYTES as u64, &mut bytes)?;
        let links = |bytes: &[u8]| Links {
            rows: (0..usize::from(bytes[0])).map(|i| get_u32(bytes, 4 + 4 * i)).collect(),
            protected: usize::from(bytes[1]),
        };
        Ok(bytes.chunks_exact(LINKS_BYTES).map(links).collect())
    }

    fn one(&mut self, place: u32) -> io::Result<Links> {
        Ok(self.read(place as usize..place as usize + 1)?.pop().expect("one was asked for"))
    }
}

/// Links nodes that no path from the root reaches. The twin of what `graph.rs` does in memory.
struct Connect<'a> {
    links: &'a mut LinkFile,
    nodes: &'a mut Records,
    space: &'a Space,
    in_degrees: &'a mut [u8],
    reached: Bits,
    /// Nodes whose links were followed.
    expanded: Bits,
    count: usize,
}

impl Connect<'_> {
    fn run(&mut self, root: u32, random: &mut SplitMix64, executor: &dyn Executor) -> Result<u64, Failure> {
        let mut relinked = 0;
        for _ in 0..CONNECT_ROUNDS {
            (self.reached, self.expanded) = (Bits::new(self.count), Bits::new(self.count));
            self.reached.set(root);
            self.spread(executor)?;
            let mut lost = false;
            for place in 0..number(self.count) {
                if !self.reached.has(place) {
                    lost = true;
                    executor.check()?;
                    if self.adopt(place, random)? {
                        relinked += 1;
                        self.reached.set(place);
                        self.spread(executor)?;
                    }
                }
            }
            if !lost {
                break;
            }
        }
        Ok(relinked)
    }

    /// Follows links from all that is reached, in passes over the file, to and fro.
    fn spread(&mut self, executor: &dyn Executor) -> Result<(), Failure> {
        let parts = self.count.div_ceil(SWEEP);
        let mut forth = true;
        loop {
            let mut done = true;
            for i in 0..parts {
                let part = if forth { i } else { parts - 1 - i };
                let range = part * SWEEP..self.count.min((part + 1) * SWEEP);
                let words = range.start / 64..range.end.div_ceil(64);
                if words.clone().all(|w| self.reached.words()[w] & !self.expanded.words()[w] == 0) {
                    continue;
                }
                done = false;
                executor.check()?;
                let links = self.links.read(range.clone())?;
                let open = |place: &u32| self.reached.has(*place) && !self.expanded.has(*place);
                let mut open: Vec<u32> = range.clone().map(number).filter(open).collect();
                while let Some(place) = open.pop() {
                    self.expanded.set(place);
                    for &other in &links[place as usize - range.start].rows {
                        if !self.reached.has(other) {
                            self.reached.set(other);
                            if range.contains(&(other as usize)) {
                                open.push(other);
                            }
                        }
                    }
                }
            }
            if done {
                return Ok(());
            }
            forth = !forth;
        }
    }

    /// Gives a lost node a protected edge from one that is reached: a neighbor of its own if that has room,
    /// else the nearest of a sample that has.
    fn adopt(&mut self, lost: u32, random: &mut SplitMix64) -> Result<bool, Failure> {
        let own = self.links.one(lost)?;
        let reached = own.rows.iter().copied().filter(|&place| self.reached.has(place)).collect();
        if self.adopt_by(lost, reached)? {
            return Ok(true);
        }
        let mut sample: Vec<u32> = (0..10 * PARENTS)
            .map(|_| number(random.below(self.count)))
            .filter(|&place| self.reached.has(place))
            .take(PARENTS)
            .collect();
        sample.sort_unstable();
        sample.dedup();
        self.adopt_by(lost, sample)
    }

    fn adopt_by(&mut self, lost: u32, mut parents: Vec<u32>) -> Result<bool, Failure> {
        parents.sort_unstable();
        let (set, own) = (self.nodes.gather(&parents)?, self.nodes.gather(&[lost])?);
        let own = self.space.decoded(own.stored(0));
        let distance = |i: u32| self.space.between(&own, &self.space.decoded(set.stored(i)));
        let mut keys: Vec<Key> =
            (0..).zip(&parents).map(|(i, &place)| Key::new(distance(i), NodeId(place))).collect();
        keys.sort_unstable();
        for parent in keys.into_iter().map(|key| key.id().0) {
            let mut links = self.links.one(parent)?;
            if !links.has_room() {
                continue;
            }
            let (adopted, dropped) = links.adopt(lost, |other| self.in_degrees[other as usize] > 1);
            if !adopted {
                continue;
            }
            if let Some(degree) = dropped.map(|other| &mut self.in_degrees[other as usize])
                && *degree < u8::MAX
            {
                *degree -= 1;
            }
            let degree = &mut self.in_degrees[lost as usize];
            *degree = degree.saturating_add(1);
            self.links.write(parent, &links)?;
            return Ok(true);
        }
        Ok(false)
    }
}
