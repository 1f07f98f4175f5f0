//! Why something could not be embedded.

use std::path::PathBuf;

use thiserror::Error;

use super::pooling::Flaw;
use crate::image::{ImageError, RegionError};
use crate::memory::OutOfMemory;
use crate::package::{Modality, PackageError};
use crate::runtime::{LoadError, RunError, RuntimeError};
use crate::text::TextError;

/// How large a run is, in words of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunSize {
    /// Rows of the batch, those that only fill up a fixed one included.
    pub rows: usize,
    /// Tokens of a row, if it is text.
    pub tokens: Option<usize>,
    /// Most tokens with which a run of one text may start, if fewer would do.
    pub fitting_tokens: Option<usize>,
    /// Most soft tokens of an image with which one would fit, if it has more now and the package's settings may say so.
    pub fitting_soft_tokens: Option<u64>,
}

impl RunSize {
    pub(super) fn pictures(rows: usize) -> Self {
        RunSize { rows, tokens: None, fitting_tokens: None, fitting_soft_tokens: None }
    }
}

/// Failure of an [`Encoder`](super::Encoder).
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The caller's interrupt check returned true.
    #[error("embedding was interrupted")]
    Interrupted,
    /// The model embeds other things only.
    #[error("model \"{model}\" does not embed {}", match modality { Modality::Image => "images", Modality::Text => "text" })]
    NoTower {
        /// The model's name.
        model: String,
        /// What was to be embedded.
        modality: Modality,
        /// Whether the model answers questions, and embeds nothing at all.
        answers: bool,
    },
    /// The model has no answers of its own.
    #[error("model \"{model}\" has no answers of its own")]
    NoAnswers {
        /// The model's name.
        model: String,
    },
    /// The graph gives another number of scores than there are answers.
    #[error("graph \"{}\" returns {found} scores for {expected} answers", graph.display())]
    AnswersDiffer {
        /// The graph file.
        graph: PathBuf,
        /// Answers that the package names.
        expected: usize,
        /// Scores that the graph gave.
        found: usize,
    },
    /// The model does not take pictures and words in one input.
    #[error("model \"{model}\" does not embed images and text together")]
    NoJointInput {
        /// The model's name.
        model: String,
    },
    /// Pictures alone make an input longer than the model reads.
    #[error("the input has too many images for model \"{model}\"")]
    TooManyTokens {
        /// The model's name.
        model: String,
        /// Tokens that the pictures take.
        tokens: usize,
        /// Tokens that an input may have.
        limit: usize,
    },
    /// A picture could not be decoded.
    #[error("could not decode image")]
    Image {
        /// Its place among the pictures, from 0.
        index: usize,
        /// What is wrong with it.
        source: ImageError,
    },
    /// A region has nothing of its picture.
    #[error("the region does not lie within the image")]
    Region(#[from] RegionError),
    /// A picture is too extreme for the model's preprocessing.
    #[error("could not preprocess image")]
    Preprocess {
        /// Its place among the pictures, from 0.
        index: usize,
        /// What is wrong with it.
        source: crate::image::PreprocessError,
    },
    /// A text could not be tokenized.
    #[error("could not tokenize text")]
    Text {
        /// Its place among the texts, from 0.
        index: usize,
        /// What is wrong.
        source: TextError,
    },
    /// A file of the package went missing or is malformed.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// ONNX Runtime is not there.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// ONNX Runtime refused the graph.
    #[error("could not load graph \"{}\"", graph.display())]
    Load {
        /// The graph file.
        graph: PathBuf,
        /// ONNX Runtime's answer.
        reason: String,
    },
    /// ONNX Runtime failed while it computed.
    #[error("could not run graph \"{}\"", graph.display())]
    Run {
        /// The graph file.
        graph: PathBuf,
        /// ONNX Runtime's answer.
        reason: String,
    },
    /// The smallest run that does the work takes more memory than a run may.
    #[error("a run of model \"{model}\" takes too much memory")]
    RunTooLarge {
        /// The model's name.
        model: String,
        /// What the run is over.
        size: RunSize,
        /// Bytes that it takes, about; those that it had when it was stopped, if it was.
        needed_bytes: u64,
        /// Bytes that it may take.
        limit_bytes: u64,
    },
    /// The system refused memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The tokenizer gives ids that the graph has no vector for: they are not one model.
    #[error("tokenizer \"{}\" does not belong to graph \"{}\"", tokenizer.display(), graph.display())]
    TokenizerMismatch {
        /// The graph file.
        graph: PathBuf,
        /// The tokenizer file.
        tokenizer: PathBuf,
        /// ONNX Runtime's answer.
        reason: String,
    },
    /// The output has a shape that is no embedding.
    #[error("output \"{output}\" of graph \"{}\" is not an embedding", graph.display())]
    OutputShape {
        /// The graph file.
        graph: PathBuf,
        /// The output.
        output: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The embedding has other dimensions than the package says, or than the other tower's.
    #[error("graph \"{}\" returns {found} dimensions instead of {expected}", graph.display())]
    Dimensions {
        /// The graph file.
        graph: PathBuf,
        /// Dimensions that the package or the other tower has.
        expected: usize,
        /// Dimensions that the graph gave.
        found: usize,
    },
    /// The embedding is no usable vector.
    #[error("graph \"{}\" returns an unusable vector", graph.display())]
    Flawed {
        /// The graph file.
        graph: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
}

impl From<LoadError> for EncodeError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Runtime(error) => EncodeError::Runtime(error),
            LoadError::Graph { path, reason } => EncodeError::Load { graph: path, reason },
            LoadError::OutOfMemory { .. } => {
                EncodeError::OutOfMemory(OutOfMemory { purpose: "load a graph" })
            }
            LoadError::Interrupted => EncodeError::Interrupted,
        }
    }
}

impl EncodeError {
    pub(super) fn from_run(graph: PathBuf, error: RunError) -> Self {
        match error {
            RunError::Interrupted => EncodeError::Interrupted,
            RunError::OutOfMemory => EncodeError::OutOfMemory(OutOfMemory { purpose: "run a graph" }),
            // The encoder says this with the size of the run.
            RunError::TooLarge { .. } => EncodeError::Run { graph, reason: error.to_string() },
            RunError::Failed { reason } => EncodeError::Run { graph, reason },
            RunError::NoFloats { output } => EncodeError::OutputShape { graph, output, shape: Vec::new() },
            RunError::Runtime(error) => EncodeError::Runtime(error),
        }
    }
}
