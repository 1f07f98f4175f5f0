//! Building an index: overlapping random partitions, exact neighbors inside each, prune, merge.
//!
//! No row is ever searched for. The partitions overlap, so the union of their local graphs is connected
//! locally; two samples of the rows, treated the same way, give long edges that connect it globally; the
//! entry table does the rest. Partitioning with exact leaves is PiPNN's idea (arXiv 2602.21247).
//!
//! Rows beyond a memory limit go to temporary files. Then the same is done shard by shard, and the edges of
//! the shards are merged (`shards.rs`, `merge.rs`).

pub mod candidates;
pub mod executor;
pub mod graph;
pub mod leaf;
mod learn;
mod merge;
mod parameters;
pub mod partition;
pub(crate) mod products;
pub(crate) mod rows;
mod shards;
pub mod spill;
pub mod write;

use crate::filter::key_bytes;
use crate::layout::meta::Meta;
use crate::layout::{Geometry, HeapTid};
use crate::metric::Metric;
use crate::space::{Quantized, Space, VectorError};
use crate::store::PageSink;
use executor::{Cancelled, Executor};
pub use parameters::Parameters;
use rows::{Folded, Records, Row, tid_bytes};
use spill::{MemorySpill, Spill};
use std::collections::HashMap;
use std::io;

/// What became of a row given to [`Builder::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It will be in the index.
    Stored,
    /// A vector of zeros under cosine: not indexed.
    NoDirection,
}

/// Why a row was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The index cannot hold the vector.
    #[error(transparent)]
    Vector(#[from] VectorError),
    /// A temporary file could not be written.
    #[error(transparent)]
    Spill(#[from] io::Error),
    /// More rows than a builder counts.
    #[error("too many rows for one index")]
    TooManyRows,
}

/// What a build did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Rows in the index.
    pub rows: u64,
    /// Nodes: rows with vectors that quantize differently.
    pub nodes: u64,
    /// Leaves of all partitions.
    pub leaves: u64,
    /// Nodes that no path from the first entry reached at first, and that were linked then.
    pub relinked: u64,
    /// Pages written.
    pub pages: u64,
}

/// Parts of a build, in order, for progress reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Dividing rows that exceed the memory limit into shards. The next two phases follow for each.
    Shard,
    /// Assigning rows to leaves.
    Partition,
    /// Nearest neighbors within leaves.
    Leaves,
    /// Choosing edges.
    Prune,
    /// Making every node reachable.
    Connect,
    /// Encoding and writing pages.
    Write,
}

/// Why a build ended early.
#[derive(Debug, thiserror::Error)]
pub enum BuildError<E: std::error::Error + 'static> {
    /// The executor said so.
    #[error("build was canceled")]
    Cancelled,
    /// The storage failed.
    #[error(transparent)]
    Store(E),
    /// A temporary file could not be written or read.
    #[error("could not use a temporary file")]
    Spill(#[source] io::Error),
    /// More nodes than ids.
    #[error("too many rows for one index")]
    TooManyRows,
}

impl<E: std::error::Error + 'static> From<Cancelled> for BuildError<E> {
    fn from(_: Cancelled) -> Self {
        BuildError::Cancelled
    }
}

impl<E: std::error::Error + 'static> From<io::Error> for BuildError<E> {
    fn from(error: io::Error) -> Self {
        BuildError::Spill(error)
    }
}

/// Collects rows, then writes an index of them.
pub struct Builder {
    pub(crate) space: Space,
    pub(crate) meta: Meta,
    rows: Folded,
    /// Further rows of a node.
    more_tids: HashMap<u32, Vec<HeapTid>>,
    further: u64,
    parameters: Parameters,
    memory_bytes: usize,
    spill: Box<dyn Spill>,
    spilled: Option<Records>,
    stored: u64,
    /// Number of the page after the metapage.
    first_page: u32,
}

/// Bytes that a build needs per row besides its codes: candidate lists twice, order, hash, tid, numbers.
const ROW_BYTES: usize = 2 * candidates::LIST_BYTES + 200;
/// Further rows of nodes that need the memory of one row at most.
const FURTHER_PER_ROW: u64 = 16;
/// Rows that are always held, whatever the limit: below, files would be more trouble than they are worth.
const MIN_CAPACITY: usize = 1000;

/// Bytes of a row.
fn row_bytes(g: &Geometry) -> usize {
    g.padded_dim() + g.key_bytes() + ROW_BYTES
}

/// Rows that fit a limit.
fn capacity(memory_bytes: usize, g: &Geometry) -> usize {
    (memory_bytes / row_bytes(g)).max(MIN_CAPACITY)
}

impl Builder {
    /// A builder for vectors of one dimension. Their mean, leading directions and leaders, which all vectors are
    /// taken relative to, are learned from `sample`, a few hundred to a few thousand vectors from all over the table;
    /// so are the widths of codes. Without a sample the index works with less precision, and `geometry` is kept. `memory_bytes` bounds what the rows in memory may need;
    /// rows beyond go to files of [`Builder::spill_to`], and cost about 8 bytes each. 1,000 rows are always
    /// held in memory.
    ///
    /// # Errors
    /// [`VectorError`] if a sample vector does not fit.
    pub fn new(
        metric: Metric,
        geometry: Geometry,
        rotation_seed: u64,
        sample: &[&[f32]],
        memory_bytes: usize,
        parameters: Parameters,
    ) -> Result<Self, VectorError> {
        let empty = Meta::new(metric, geometry, rotation_seed, &vec![0.0; geometry.padded_dim()]);
        let rotation = Space::new(&empty, Vec::new(), &[]);
        let mut rotated = Vec::with_capacity(sample.len() * geometry.padded_dim());
        for vector in sample {
            rotated.extend(rotation.turned(vector)?);
        }
        Ok(Self::of_rotated(metric, geometry, rotation_seed, rotated, memory_bytes, parameters))
    }

    /// As [`Builder::new`], for a sample that is scaled and rotated already: `[n, padded_dim]`.
    pub(crate) fn of_rotated(
        metric: Metric,
        geometry: Geometry,
        rotation_seed: u64,
        sample: Vec<f32>,
        memory_bytes: usize,
        parameters: Parameters,
    ) -> Self {
        let (meta, space) = learn::space(metric, geometry, rotation_seed, sample);
        let rows = Folded::new(&space.geometry);
        Self {
            space,
            meta,
            rows,
            more_tids: HashMap::new(),
            further: 0,
            parameters: parameters.clamped(),
            memory_bytes,
            spill: Box::new(MemorySpill),
            spilled: None,
            stored: 0,
            first_page: 1,
        }
    }

    /// Learns how keys are spread from those of a sample, `[n, columns]`: filters distinguish what it distinguishes.
    #[must_use]
    pub fn with_sample_of_keys(mut self, keys: &[u64]) -> Self {
        self.space.columns = std::mem::take(&mut self.space.columns).learned(keys);
        self
    }

    /// Says where rows beyond the memory limit go. Unless this is called they stay in memory.
    #[must_use]
    pub fn spill_to(mut self, spill: Box<dyn Spill>) -> Self {
        self.spill = spill;
        self
    }

    /// Takes a row.
    ///
    /// # Errors
    /// [`AddError`]; a builder whose files failed is of no more use.
    pub fn add(&mut self, vector: &[f32], tid: HeapTid) -> Result<Added, AddError> {
        self.add_with_keys(vector, &[], tid)
    }

    /// Takes a row of an index with key columns: a key for each.
    ///
    /// # Errors
    /// As [`Builder::add`].
    pub fn add_with_keys(&mut self, vector: &[f32], keys: &[u64], tid: HeapTid) -> Result<Added, AddError> {
        let Some(mut q) = self.space.quantize(vector)? else {
            return Ok(Added::NoDirection);
        };
        q.keys = key_bytes(keys);
        self.take(&q, tid)?;
        Ok(Added::Stored)
    }

    /// Takes a row that is quantized in the builder's space.
    pub(crate) fn take(&mut self, q: &Quantized, tid: HeapTid) -> Result<(), AddError> {
        debug_assert_eq!(q.keys.len(), self.space.geometry.key_bytes());
        let needed = self.rows.len() as u64 + self.further / FURTHER_PER_ROW;
        if needed >= capacity(self.memory_bytes, &self.space.geometry) as u64 {
            self.flush()?;
        }
        let row = Row { stored: q.stored(), error: q.error, tid };
        let hash = row.hash();
        if let Some(twin) = self.rows.twin(&row, hash) {
            self.rows.cover(twin, q.error);
            self.more_tids.entry(twin).or_default().push(tid);
            self.further += 1;
        } else {
            self.rows.push(&row, hash);
        }
        self.stored += 1;
        Ok(())
    }

    /// Lets the pages after the metapage begin at a block.
    pub(crate) fn begin_at(&mut self, first_page: u32) {
        self.first_page = first_page;
    }

    /// The memory limit that would have spared the builder its temporary files; `None` if it needed none.
    #[must_use]
    pub fn memory_wanted(&self) -> Option<u64> {
        let spilled = self.spilled.as_ref()?.count();
        let rows = spilled + self.rows.len() as u64;
        let further = (self.stored - rows).div_ceil(FURTHER_PER_ROW);
        Some((rows + further + 1) * row_bytes(&self.space.geometry) as u64)
    }

    /// Moves all rows in memory to the file of rows.
    fn flush(&mut self) -> Result<(), AddError> {
        let g = &self.space.geometry;
        let records = match &mut self.spilled {
            Some(records) => records,
            none => none.insert(Records::new(g, &mut *self.spill)?),
        };
        for place in 0..u32::try_from(self.rows.len()).expect("memory ends before") {
            let more = self.more_tids.remove(&place).unwrap_or_default();
            let tids: Vec<u8> = more.into_iter().flat_map(tid_bytes).collect();
            let number = u32::try_from(records.count()).map_err(|_| AddError::TooManyRows)?;
            records.append(&self.rows.row(place), number, &tids, &mut *self.spill)?;
        }
        self.rows = Folded::new(g);
        self.more_tids = HashMap::new();
        self.further = 0;
        Ok(())
    }

    /// Builds the graph and writes the pages, block 0 first. `progress` hears of each phase as it begins.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn finish<P: PageSink>(
        mut self,
        executor: &dyn Executor,
        sink: &mut P,
        progress: &mut dyn FnMut(Phase),
    ) -> Result<Report, BuildError<P::Error>> {
        if self.spilled.is_some() {
            self.flush().map_err(|error| match error {
                AddError::Spill(error) => BuildError::Spill(error),
                AddError::TooManyRows => BuildError::TooManyRows,
                AddError::Vector(_) => unreachable!("vectors were taken before"),
            })?;
        }
        if let Some(records) = self.spilled.take() {
            let memory = self.memory_bytes;
            let shards = shards::build(
                records,
                &self.space,
                &self.parameters,
                memory,
                self.spill,
                executor,
                progress,
            )?;
            return merge::finish(shards, &self.space, &self.meta, self.stored, executor, sink, progress);
        }
        self.rows.seal();
        let (graph, leaves) =
            graph::build(&mut self.rows.set, &self.space, &self.parameters, executor, progress)?;
        progress(Phase::Write);
        self.rows.follow(&graph.order);
        let places = rows::inverse(&graph.order);
        let mut shared: Vec<(u32, Vec<HeapTid>)> =
            self.more_tids.drain().map(|(row, more)| (places[row as usize], more)).collect();
        shared.sort_unstable_by_key(|&(place, _)| place);
        drop(places);
        let relinked = graph.relinked;
        let nodes = self.rows.len() as u64;
        let pages = write::write(
            &self.space,
            &self.meta,
            self.first_page,
            &self.rows,
            &shared,
            &graph,
            executor,
            sink,
        )?;
        Ok(Report { rows: self.stored, nodes, leaves, relinked, pages })
    }
}
