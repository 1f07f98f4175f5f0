//! Encoders: from images and texts to unit vectors.
//!
//! An [`Encoder`] belongs to one process and loads parts on demand: the image tower
//! with the first image, tokenizer and text tower with the first text. It works in small
//! batches, and can be interrupted between and within them.

mod answers;
mod budget;
mod error;
mod images;
mod layers;
mod parts;
mod patches;
mod pooling;
mod prepare;
mod texts;
mod values;

use std::fmt;
use std::path::{Path, PathBuf};

use budget::{Architecture, Footprint};
pub use error::{EncodeError, RunSize};
use layers::TextLayer;
pub use parts::Part;

use crate::image::ImageLimits;
use crate::interrupt::InterruptCheck;
use crate::memory::{self, ProcessMemory};
use crate::package::{
    DigestError, Graph, Modality, ModelDigest, Package, Padding, PatchInput, PixelInput, TextTower,
    TokenInput,
};
use crate::runtime::{
    self, Feed, GraphSession, Place, PreparationWarning, RunCost, RunError, RunLimits, SessionOptions,
    Source, Tensor, WatchLimits,
};
use crate::text::{MapFile, TextEncoder};

/// Most items in one run. Larger batches gain nothing measurable for images and little for text, and
/// memory and the time to an interrupt grow with them.
const MAX_BATCH: usize = 8;
/// Bytes of a run's result that are worth asking the allocator for: giving back what is free takes up to a millisecond.
const LARGE_BYTES: usize = 8 << 20;

/// What an encoder is given from outside.
#[derive(Debug, Clone)]
pub struct EncoderOptions {
    /// Threads that compute, the caller's among them.
    pub threads: usize,
    /// Where prepared graphs and hashes are kept; `None` keeps none, and nothing is shared.
    pub cache_dir: Option<PathBuf>,
    /// Looked at while work is under way.
    pub interrupt: InterruptCheck,
    /// Bounds of a picture.
    pub image_limits: ImageLimits,
    /// What runs may take, and how the process keeps house.
    pub memory: ProcessMemory,
    /// Maps a file of the cache directory, read-only; `None` reads it. This crate has no unsafe code.
    pub map: Option<MapFile>,
}

/// Something that works, but not as well as it should.
#[derive(Debug)]
pub enum Warning {
    /// A graph's weights are private to this process instead of shared.
    NotShared {
        /// The graph file.
        graph: PathBuf,
        /// Why.
        reason: PreparationWarning,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::NotShared { graph, reason } => {
                write!(formatter, "\"{}\" is not shared: {reason}", graph.display())
            }
        }
    }
}

/// One graph that an encoder has loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedGraph {
    /// The graph file.
    pub path: PathBuf,
    /// Bytes of its weights and nodes on disk.
    pub bytes: u64,
    /// Whether the weights are shared with other processes.
    pub source: Source,
    /// What its runs have cost.
    pub cost: RunCost,
}

/// What an encoder has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EncoderCounts {
    /// Pictures that were embedded.
    pub images: u64,
    /// Texts that were embedded.
    pub texts: u64,
}

/// A model that embeds pictures, text or both.
pub struct Encoder {
    package: Package,
    architectures: Architectures,
    options: EncoderOptions,
    digest: Option<ModelDigest>,
    sessions: Vec<Loaded>,
    /// By the graph's path.
    footprints: Vec<(PathBuf, Footprint)>,
    tokenizer: Option<TextEncoder>,
    /// What follows the pooling of a text, loaded with the first one.
    layers: Option<Vec<TextLayer>>,
    dim: Option<usize>,
    warnings: Vec<Warning>,
    counts: EncoderCounts,
}

struct Loaded {
    graph: Graph,
    session: GraphSession,
    source: Source,
    kept: Option<Kept>,
}

/// Memory that runs of a graph have left to the next.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// Private memory of the process before them, in bytes.
    base: u64,
    /// What they added.
    bytes: u64,
}

/// What is expected of a run, and of the one that the same call makes after it.
#[derive(Debug, Clone, Copy)]
struct Expected {
    /// Bytes that it is estimated to take.
    bytes: u64,
    /// The same of the next one, if there is one.
    next: Option<u64>,
}

/// Entries of plans of memory that a session may collect: each node of a graph has one for each shape of the input.
const MAX_PLANNED: u64 = 32_768;

/// Whether a text graph sees so few shapes that a plan of memory can be kept for each. To a graph of a dozen nodes that
/// is worth a tenth of its time, and to one of hundreds, whose runs take milliseconds, nothing that shows.
fn repeats_shapes(tower: &TextTower) -> bool {
    let widths = match tower.padding {
        Padding::Fixed(_) => return true,
        Padding::Longest => tower.max_length,
    };
    let batch = images::batch_size(None, tower.graph.outline.dynamic_quantization);
    let shapes = (widths as u64).saturating_mul(batch.items as u64);
    shapes.saturating_mul(tower.graph.outline.nodes) <= MAX_PLANNED
}

/// The digest of a package.
fn digest(package: &Package, options: &EncoderOptions) -> Result<ModelDigest, EncodeError> {
    match package.digest_interruptible(options.cache_dir.as_deref(), options.interrupt) {
        Ok(digest) => Ok(digest),
        Err(DigestError::Package(error)) => Err(EncodeError::Package(error)),
        Err(DigestError::Interrupted) => Err(EncodeError::Interrupted),
    }
}

/// Whether two paths are spelled alike. Comparing them part by part would cost short runs a percent.
fn is_same(left: &Path, right: &Path) -> bool {
    left.as_os_str() == right.as_os_str()
}

/// Why a run gave nothing: what every run may meet, or ONNX Runtime's answer, which the tower words.
enum Failure {
    Encode(EncodeError),
    Run(RunError),
}

impl Failure {
    /// The error, ONNX Runtime's answer worded by `word`.
    fn or_word(self, word: impl FnOnce(RunError) -> EncodeError) -> EncodeError {
        match self {
            Failure::Encode(error) => error,
            Failure::Run(error) => word(error),
        }
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        Failure::Encode(error)
    }
}

/// The towers' sizes that decide their memory.
#[derive(Debug, Clone, Copy)]
struct Architectures {
    image: Architecture,
    text: Architecture,
}

impl Architectures {
    fn of(package: &Package) -> Self {
        let read = |modality| Architecture::read(&package.owner_of(modality).dir, modality);
        Architectures { image: read(Modality::Image), text: read(Modality::Text) }
    }

    /// Bytes that the unwanted text half of a combined graph takes.
    fn of_placeholder_tokens(&self, inputs: &[TokenInput], rows: usize) -> u64 {
        let largest = |input: &TokenInput| {
            let (rows, tokens) = (input.batch.unwrap_or(rows), input.tokens.unwrap_or(2));
            self.text.of_tokens(rows as u64, tokens as u64)
        };
        inputs.iter().map(largest).max().unwrap_or(0)
    }

    /// Bytes that the unwanted image half of a combined graph takes.
    fn of_placeholder_pixels(&self, input: &PixelInput, rows: usize, width: usize, height: usize) -> u64 {
        self.image.of_pixels(input.batch.unwrap_or(rows) as u64, height as u64, width as u64)
    }

    /// The same of one that takes patches.
    fn of_placeholder_patches(&self, input: &PatchInput, rows: usize) -> u64 {
        let [rows, patches, length] = patches::placeholder_sizes(input, rows);
        self.image.of_patches(rows as u64, patches as u64, length as u64)
    }
}

impl Encoder {
    /// An encoder for `package`. Loads nothing yet, but asks that ONNX Runtime be there.
    ///
    /// # Errors
    /// [`EncodeError::Runtime`] if [`runtime::init`] has not succeeded.
    pub fn open(package: Package, options: EncoderOptions) -> Result<Encoder, EncodeError> {
        if runtime::info().is_none() {
            return Err(EncodeError::Runtime(runtime::RuntimeError::NotLoaded));
        }
        Ok(Encoder {
            dim: package.dim,
            architectures: Architectures::of(&package),
            package,
            options,
            digest: None,
            sessions: Vec::new(),
            footprints: Vec::new(),
            tokenizer: None,
            layers: None,
            warnings: Vec::new(),
            counts: EncoderCounts::default(),
        })
    }

    /// Dimensions of the embeddings: what the package says, or else what the first embedding had.
    #[must_use]
    pub fn dim(&self) -> Option<usize> {
        self.dim
    }

    /// The package.
    #[must_use]
    pub fn package(&self) -> &Package {
        &self.package
    }

    /// The package's digest, computed once.
    ///
    /// # Errors
    /// [`EncodeError::Package`] or [`EncodeError::Interrupted`].
    pub fn digest(&mut self) -> Result<ModelDigest, EncodeError> {
        if let Some(digest) = self.digest {
            return Ok(digest);
        }
        let digest = digest(&self.package, &self.options)?;
        self.digest = Some(digest);
        Ok(digest)
    }

    /// The digest of the package whose directory has a graph: what it shares is shared by all that take a tower from it.
    fn digest_of(&mut self, graph: &Graph) -> Result<ModelDigest, EncodeError> {
        if self.package.lenders().next().is_none() {
            return self.digest();
        }
        let owner = self.package.owner_of_graph(graph);
        digest(owner, &self.options)
    }

    /// The error of a model that does not embed a kind of input.
    fn no_tower(&self, modality: Modality) -> EncodeError {
        let (model, answers) = (self.package.name.clone(), self.package.answers.is_some());
        EncodeError::NoTower { model, modality, answers }
    }

    /// Gives the warnings since the last call.
    pub fn take_warnings(&mut self) -> Vec<Warning> {
        std::mem::take(&mut self.warnings)
    }

    /// The graphs that are loaded, with their memory and the cost of their runs.
    #[must_use]
    pub fn loaded(&self) -> Vec<LoadedGraph> {
        let describe = |loaded: &Loaded| LoadedGraph {
            path: loaded.graph.path.clone(),
            bytes: loaded.graph.bytes,
            source: loaded.source,
            cost: loaded.session.cost(),
        };
        self.sessions.iter().map(describe).collect()
    }

    /// What the bare runs of all graphs have cost.
    #[must_use]
    pub fn cost(&self) -> RunCost {
        self.sessions.iter().map(|loaded| loaded.session.cost()).fold(RunCost::default(), |total, cost| {
            RunCost { runs: total.runs + cost.runs, wall: total.wall + cost.wall, cpu: total.cpu + cost.cpu }
        })
    }

    /// How much has been embedded.
    #[must_use]
    pub fn counts(&self) -> EncoderCounts {
        self.counts
    }

    /// Changes the number of threads; graphs that are loaded are loaded again when they are needed.
    pub fn set_threads(&mut self, threads: usize) {
        if threads != self.options.threads {
            self.options.threads = threads;
            self.sessions.clear();
        }
    }

    /// The place of `graph` among the sessions, loaded now if need be.
    fn session(&mut self, graph: &Graph) -> Result<usize, EncodeError> {
        if let Some(place) = self.sessions.iter().position(|loaded| is_same(&loaded.graph.path, &graph.path))
        {
            return Ok(place);
        }
        let cache_dir = self.options.cache_dir.clone();
        let place = match &cache_dir {
            Some(cache_dir) => {
                let digest = self.digest_of(graph)?;
                let owner = self.package.owner_of_graph(graph);
                Some(Place { cache_dir, package_key: owner.path_key(), digest, package_dir: &owner.dir })
            }
            None => None,
        };
        let text = self.package.text.as_ref().filter(|tower| tower.graph.path == graph.path);
        // Pictures of all shapes beside questions of all lengths do not come again.
        let answers = self.package.graph_of_answers().is_some_and(|own| own.path == graph.path);
        let options = SessionOptions {
            threads: self.options.threads,
            interrupt: self.options.interrupt,
            repeats_shapes: !answers && text.is_none_or(|tower| repeats_shapes(tower)),
        };
        let loading = runtime::load(graph, place.as_ref(), options)?;
        if let Some(reason) = loading.warning {
            self.warnings.push(Warning::NotShared { graph: graph.path.clone(), reason });
        }
        let (session, source) = (loading.session, loading.source);
        let loaded = Loaded { graph: graph.clone(), session, source, kept: None };
        self.sessions.push(loaded);
        Ok(self.sessions.len() - 1)
    }

    /// Whether work may go on.
    fn check(&self) -> Result<(), EncodeError> {
        if (self.options.interrupt)() {
            return Err(EncodeError::Interrupted);
        }
        Ok(self.options.memory.check("embed")?)
    }

    /// What is known of a graph's memory. It outlives the loaded graph.
    fn footprint(&mut self, graph: &Graph) -> &mut Footprint {
        let place = self.footprints.iter().position(|(path, _)| is_same(path, &graph.path));
        let place = place.unwrap_or_else(|| {
            let is_text = self.package.text.as_ref().is_some_and(|tower| tower.graph.path == graph.path);
            let architecture = if is_text { self.architectures.text } else { self.architectures.image };
            let footprint = Footprint::new(architecture, self.options.memory.max_run_bytes);
            self.footprints.push((graph.path.clone(), footprint));
            self.footprints.len() - 1
        });
        &mut self.footprints[place].1
    }

    /// Runs a graph and takes note of its memory.
    ///
    /// Memory is given back by the last run of a call, and by one before it if the next would not fit beside
    /// what it leaves.
    fn run(
        &mut self,
        graph: &Graph,
        feeds: &[(&str, &[usize], Feed<'_>)],
        output: &str,
        expected: Expected,
        size: RunSize,
    ) -> Result<Tensor, Failure> {
        self.check()?;
        let estimate = expected.bytes;
        let footprint = *self.footprint(graph);
        let mut place = self.session(graph)?;
        let held = |loaded: &Loaded| loaded.kept.map_or(0, |kept| kept.bytes);
        if !footprint.fits_beside(held(&self.sessions[place]), estimate) && held(&self.sessions[place]) > 0 {
            // What was learned since makes it larger than was planned.
            self.sessions.swap_remove(place);
            place = self.session(graph)?;
        }
        let (kept, held) = (self.sessions[place].kept, held(&self.sessions[place]));
        let measures = footprint.measures(estimate);
        // The last run of a call keeps its memory for a look at it, and no longer.
        let looks = expected.next.is_none() && measures && footprint.wants_a_look_afterwards(estimate);
        let keeps = looks || expected.next.is_some_and(|next| footprint.may_keep(held, estimate, next));
        if measures && (footprint.is_unknown() || looks) {
            // Otherwise it could use what is free without being seen.
            (self.options.memory.give_back)();
        }
        let base = kept.map(|kept| kept.base).or_else(|| measures.then(memory::private_bytes)?);
        let limit = footprint.stop_at();
        let is_first = footprint.is_unknown();
        let watch = base.filter(|_| measures && footprint.watches(held, estimate));
        let limits = RunLimits {
            interrupt: self.options.interrupt,
            watch: watch.map(|base| WatchLimits { base, limit, is_first }),
            gives_back: base.is_some() && !keeps,
        };
        let result = self.sessions[place].session.run(feeds, output, limits);
        let left = base.filter(|_| keeps).and_then(|base| Some((base, memory::private_bytes()?)));
        let left = left.map(|(base, now)| Kept { base, bytes: now.saturating_sub(base).max(1) });
        match &result {
            Ok(ran) if measures && kept.is_none() => {
                let grown = left.map_or(0, |left| left.bytes).max(ran.grown_bytes);
                let is_sure = left.is_some() || ran.looks > 1;
                self.footprint(graph).learn(estimate, grown, is_sure);
            }
            Err(RunError::TooLarge { grown_bytes }) => {
                self.footprint(graph).learn(estimate, *grown_bytes, true);
            }
            Ok(_) | Err(_) => {}
        }
        if let Err(RunError::TooLarge { .. } | RunError::OutOfMemory) = &result {
            // What such a run leaves in its arena is not known; the next one loads the graph again.
            self.sessions.swap_remove(place);
        } else if looks {
            let loaded = &mut self.sessions[place];
            loaded.session.give_back(feeds);
            loaded.kept = None;
        } else {
            self.sessions[place].kept = left;
        }
        if limits.gives_back || looks {
            (self.options.memory.give_back)();
        }
        match result {
            Ok(ran) => Ok(ran.tensor),
            Err(RunError::TooLarge { grown_bytes }) => {
                Err(Failure::Encode(self.too_large(grown_bytes, size)))
            }
            Err(error) => Err(Failure::Run(error)),
        }
    }

    /// After a call that failed between two runs: memory that the first left to the second goes with its graph,
    /// which is loaded again when it is needed.
    fn drop_kept<T>(&mut self, result: Result<T, EncodeError>) -> Result<T, EncodeError> {
        if result.is_err() && self.sessions.iter().any(|loaded| loaded.kept.is_some()) {
            self.sessions.retain(|loaded| loaded.kept.is_none());
            (self.options.memory.give_back)();
        }
        result
    }

    /// The error of a run that takes too much.
    fn too_large(&self, needed_bytes: u64, size: RunSize) -> EncodeError {
        let limit_bytes = self.options.memory.max_run_bytes;
        EncodeError::RunTooLarge { model: self.package.name.clone(), size, needed_bytes, limit_bytes }
    }

    /// Frees what a run returned. The allocator would keep a large one: up to 32 MB of the C library's, for any later use.
    fn free(&self, tensor: Tensor) {
        let is_large = size_of_val(&tensor.data[..]) >= LARGE_BYTES;
        drop(tensor);
        if is_large {
            (self.options.memory.give_back)();
        }
    }

    /// Pools, passes through the layers after the pooling, cuts, normalizes and proves the output of one run: `mask`
    /// has one row per item.
    fn finish(
        &mut self,
        modality: Modality,
        tensor: &Tensor,
        mask: pooling::Mask<'_>,
        rows: usize,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let output = match modality {
            Modality::Image => self.package.image.as_ref().map(|tower| (&tower.graph, &tower.output)),
            Modality::Text => self.package.text.as_ref().map(|tower| (&tower.graph, &tower.output)),
        };
        let (graph, output) = output.expect("the tower has just run");
        let wrong_shape = || EncodeError::OutputShape {
            graph: graph.path.clone(),
            output: output.name.clone(),
            shape: tensor.shape.clone(),
        };
        let mut vectors = pooling::pool(tensor, output.pooling, mask, rows).ok_or_else(wrong_shape)?;
        vectors.truncate(rows);
        let layers = self.layers.as_deref().filter(|_| modality == Modality::Text).unwrap_or_default();
        for vector in &mut vectors {
            for layer in layers {
                if (self.options.interrupt)() {
                    return Err(EncodeError::Interrupted);
                }
                *vector = layer.apply(vector).map_err(|expected| EncodeError::Dimensions {
                    graph: graph.path.clone(),
                    expected,
                    found: vector.len(),
                })?;
            }
            if let Some(keep) = self.package.truncate_dims {
                if vector.len() < keep {
                    return Err(wrong_shape());
                }
                vector.truncate(keep);
            }
            let found = vector.len();
            match self.dim {
                Some(expected) if expected != found => {
                    return Err(EncodeError::Dimensions { graph: graph.path.clone(), expected, found });
                }
                _ => self.dim = Some(found),
            }
            pooling::prove(vector, self.package.normalize)
                .map_err(|flaw| EncodeError::Flawed { graph: graph.path.clone(), flaw })?;
        }
        Ok(vectors)
    }
}
