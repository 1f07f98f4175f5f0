//! Building an index: overlapping random partitions, exact neighbors inside each, prune, merge.
//!
//! No row is ever searched for. The partitions overlap, so the union of their local graphs is connected
//! locally; two samples of the rows, treated the same way, give long edges that connect it globally; the
//! entry table does the rest. Partitioning with exact leaves is PiPNN's idea (arXiv 2602.21247).

pub mod candidates;
pub mod executor;
pub mod graph;
pub mod leaf;
pub mod partition;
pub mod write;

use crate::arch::Scaled;
use crate::layout::meta::Meta;
use crate::layout::{Geometry, HeapTid};
use crate::metric::Metric;
use crate::space::{Space, VectorError};
use crate::store::PageSink;
use executor::{Cancelled, Executor};
use std::collections::HashMap;

/// Rows that a builder holds, quantized.
pub(crate) struct RowSet {
    pub dim: usize,
    pub codes: Vec<i8>,
    pub scales: Vec<f32>,
    pub norms: Vec<f32>,
}

impl RowSet {
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    pub fn codes(&self, row: u32) -> &[i8] {
        &self.codes[row as usize * self.dim..(row as usize + 1) * self.dim]
    }

    pub fn scaled(&self, row: u32) -> Scaled<'_> {
        Scaled { codes: self.codes(row), scale: self.scales[row as usize] }
    }
}

/// Constants of the build, with the defaults that were measured.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Most rows of a leaf.
    pub leaf_rows: usize,
    /// Nearest leaders that a row goes to, level by level; the last counts for deeper levels.
    pub fan_out: Vec<usize>,
    /// Nearest rows looked at in a leaf.
    pub leaf_nearest: usize,
    /// Edges kept per row and leaf.
    pub leaf_kept: usize,
    /// Factor of the prune.
    pub alpha: f32,
    /// Where randomness comes from.
    pub seed: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            leaf_rows: 1000,
            fan_out: vec![3, 2, 1],
            leaf_nearest: 60,
            leaf_kept: 16,
            alpha: 1.2,
            seed: 0xA17,
        }
    }
}

/// What became of a row given to [`Builder::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It will be in the index.
    Stored,
    /// A vector of zeros under cosine: not indexed.
    NoDirection,
    /// The memory limit is reached and the row was not taken. Finish the build, then insert the rest.
    Full,
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
    /// More nodes than ids.
    #[error("too many rows for one index")]
    TooManyRows,
}

impl<E: std::error::Error + 'static> From<Cancelled> for BuildError<E> {
    fn from(_: Cancelled) -> Self {
        BuildError::Cancelled
    }
}

/// Collects rows, then writes an index of them.
pub struct Builder {
    pub(crate) space: Space,
    pub(crate) meta: Meta,
    pub(crate) rows: RowSet,
    pub(crate) biases: Vec<f32>,
    pub(crate) errors: Vec<f32>,
    pub(crate) tids: Vec<HeapTid>,
    /// Further rows of a node.
    pub(crate) more_tids: HashMap<u32, Vec<HeapTid>>,
    /// Rows by a hash of their codes; collisions are told apart by comparing.
    by_hash: HashMap<u64, u32>,
    parameters: Parameters,
    capacity: usize,
    further: u64,
}

/// Bytes that a build needs per row besides its codes: candidate lists twice, order, hash, tid, numbers.
const ROW_BYTES: usize = 2 * candidates::LIST_BYTES + 160;

impl Builder {
    /// A builder for vectors of one dimension. Their mean, which all vectors are taken relative to, is
    /// estimated from `sample`, a few hundred to a few thousand vectors from all over the table; without a
    /// sample the index works with less precision. `memory_bytes` bounds what the rows may need.
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
        let padded = geometry.padded_dim();
        let origin = Space::new(&Meta::new(metric, geometry, rotation_seed, &vec![0.0; padded]));
        let mut sum = vec![0.0f64; padded];
        for vector in sample {
            for (sum, x) in sum.iter_mut().zip(origin.rotated(vector)?) {
                *sum += f64::from(x);
            }
        }
        let count = f64::from(u32::try_from(sample.len().max(1)).expect("a sample is small"));
        #[allow(clippy::cast_possible_truncation, reason = "a mean of floats")]
        let center: Vec<f32> = sum.iter().map(|s| (s / count) as f32).collect();
        let meta = Meta::new(metric, geometry, rotation_seed, &center);
        Ok(Self {
            space: Space::new(&meta),
            meta,
            rows: RowSet { dim: padded, codes: Vec::new(), scales: Vec::new(), norms: Vec::new() },
            biases: Vec::new(),
            errors: Vec::new(),
            tids: Vec::new(),
            more_tids: HashMap::new(),
            by_hash: HashMap::new(),
            parameters,
            capacity: memory_bytes / (padded + ROW_BYTES),
            further: 0,
        })
    }

    /// Takes a row.
    ///
    /// # Errors
    /// [`VectorError`] if the index cannot hold the vector.
    pub fn add(&mut self, vector: &[f32], tid: HeapTid) -> Result<Added, VectorError> {
        if self.tids.len() + usize::try_from(self.further / 16).unwrap_or(usize::MAX) >= self.capacity {
            return Ok(Added::Full);
        }
        let Some(q) = self.space.quantize(vector)? else {
            return Ok(Added::NoDirection);
        };
        let mut hash = u64::from(q.scale.to_bits());
        for eight in q.codes.chunks_exact(8) {
            let word = eight.iter().fold(0u64, |w, c| w << 8 | u64::from(c.cast_unsigned()));
            hash = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        }
        let row = u32::try_from(self.tids.len()).expect("memory ends before");
        if let Some(&twin) = self.by_hash.get(&hash)
            && self.rows.codes(twin) == q.codes
            && self.rows.scales[twin as usize].to_bits() == q.scale.to_bits()
        {
            let error = &mut self.errors[twin as usize];
            *error = error.max(q.error);
            self.more_tids.entry(twin).or_default().push(tid);
            self.further += 1;
            return Ok(Added::Stored);
        }
        self.by_hash.entry(hash).or_insert(row);
        self.rows.codes.extend_from_slice(&q.codes);
        self.rows.scales.push(q.scale);
        self.rows.norms.push(q.norm_squared);
        self.biases.push(q.bias);
        self.errors.push(q.error);
        self.tids.push(tid);
        Ok(Added::Stored)
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
        self.by_hash = HashMap::new();
        let (graph, leaves) = graph::build(&self.rows, &self.space, &self.parameters, executor, progress)?;
        progress(Phase::Write);
        let relinked = graph.relinked;
        let pages = write::write(&self, graph, executor, sink)?;
        let nodes = self.tids.len() as u64;
        Ok(Report { rows: nodes + self.further, nodes, leaves, relinked, pages })
    }
}
