//! Encoders: pictures and texts in, unit vectors out.
//!
//! An [`Encoder`] belongs to one process and loads what it needs when it needs it: the image tower
//! when the first picture comes, tokenizer and text tower with the first text. Work is done in small
//! batches, between and within which it can be interrupted.

mod error;
mod images;
mod pooling;
mod texts;

use std::fmt;
use std::path::PathBuf;

pub use error::EncodeError;

use crate::image::ImageLimits;
use crate::interrupt::InterruptCheck;
use crate::package::{DigestError, Graph, Modality, ModelDigest, Package};
use crate::runtime::{
    self, GraphSession, Place, PreparationWarning, RunCost, SessionOptions, Source, Tensor,
};
use crate::text::TextEncoder;

/// Most items in one run. Larger batches gain nothing measurable for images and little for text, and
/// memory and the time to an interrupt grow with them.
const MAX_BATCH: usize = 8;

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
                write!(formatter, "weights of \"{}\" are not shared: {reason}", graph.display())
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
    options: EncoderOptions,
    digest: Option<ModelDigest>,
    sessions: Vec<Loaded>,
    tokenizer: Option<TextEncoder>,
    dim: Option<usize>,
    warnings: Vec<Warning>,
    counts: EncoderCounts,
}

struct Loaded {
    graph: Graph,
    session: GraphSession,
    source: Source,
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
            package,
            options,
            digest: None,
            sessions: Vec::new(),
            tokenizer: None,
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
        let cache_dir = self.options.cache_dir.as_deref();
        let digest = match self.package.digest_interruptible(cache_dir, self.options.interrupt) {
            Ok(digest) => digest,
            Err(DigestError::Package(error)) => return Err(EncodeError::Package(error)),
            Err(DigestError::Interrupted) => return Err(EncodeError::Interrupted),
        };
        self.digest = Some(digest);
        Ok(digest)
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
        if let Some(place) = self.sessions.iter().position(|loaded| loaded.graph.path == graph.path) {
            return Ok(place);
        }
        let cache_dir = self.options.cache_dir.clone();
        let place = match &cache_dir {
            Some(cache_dir) => Some(Place {
                cache_dir,
                package_key: self.package.path_key(),
                digest: self.digest()?,
                package_dir: &self.package.dir,
            }),
            None => None,
        };
        let options = SessionOptions { threads: self.options.threads, interrupt: self.options.interrupt };
        let loading = runtime::load(graph, place.as_ref(), options)?;
        if let Some(reason) = loading.warning {
            self.warnings.push(Warning::NotShared { graph: graph.path.clone(), reason });
        }
        let loaded = Loaded { graph: graph.clone(), session: loading.session, source: loading.source };
        self.sessions.push(loaded);
        Ok(self.sessions.len() - 1)
    }

    fn check_interrupt(&self) -> Result<(), EncodeError> {
        if (self.options.interrupt)() { Err(EncodeError::Interrupted) } else { Ok(()) }
    }

    /// Pools, cuts, normalizes and proves the output of one run: `mask` has one row per item.
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
        for vector in &mut vectors {
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
