//! What can be wrong with a model package.
//!
//! Each variant carries the facts that a message needs. The groups that callers distinguish are
//! missing files, unreadable files, malformed files, and kinds of model that are not supported.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::onnx::{GraphValue, OnnxError};
use super::{Modality, Precision};
use crate::image::SettingsError;

/// Why a model package cannot be used.
#[derive(Debug, Error)]
pub enum PackageError {
    /// The name could leave the model path or holds characters that no model name has.
    #[error("invalid model name \"{name}\"")]
    InvalidName {
        /// The name as given.
        name: String,
    },
    /// No directory on the model path has this name.
    #[error("model \"{name}\" does not exist")]
    NotFound {
        /// The name as given.
        name: String,
        /// The directories in which it was looked for, in order.
        searched: Vec<PathBuf>,
        /// Names of existing packages that are close to it, the closest first.
        similar: Vec<String>,
    },
    /// A file that the package needs is not there.
    #[error("model file \"{}\" is missing", path.display())]
    Missing {
        /// The path that was expected.
        path: PathBuf,
        /// What the file is for.
        role: FileRole,
    },
    /// There is no ONNX graph in any of the places where one is expected.
    #[error("model directory \"{}\" contains no ONNX graph", dir.display())]
    NoGraph {
        /// The package's directory.
        dir: PathBuf,
    },
    /// `imgvec.toml` asks for a precision that is not there.
    #[error("model directory \"{}\" contains no {wanted} graph", dir.display())]
    NoSuchPrecision {
        /// The package's directory.
        dir: PathBuf,
        /// What was asked for.
        wanted: Precision,
        /// The precisions that are there.
        found: Vec<Precision>,
    },
    /// A file or directory is there but cannot be read.
    #[error("could not read model file \"{}\"", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file or the package's directory is a link that leads out of the directories that may be read.
    #[error("model file \"{}\" lies outside the model path", path.display())]
    Outside {
        /// The link, or a path below one.
        path: PathBuf,
    },
    /// A file has content that cannot be understood.
    #[error("malformed model file \"{}\"", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MalformedFile,
    },
    /// A file ends early: it was copied or downloaded half-way.
    #[error("model file \"{}\" is incomplete", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that it should have at least.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// The graph wants an input that we do not know how to feed.
    #[error("graph \"{}\" has an input that is not supported", path.display())]
    UnsupportedInputs {
        /// The graph file.
        path: PathBuf,
        /// All inputs of the graph.
        inputs: Vec<GraphValue>,
        /// Those that cannot be fed.
        unsupported: Vec<String>,
    },
    /// The graph has no output of the wanted name, or none that is an embedding.
    #[error("graph \"{}\" has no usable output", path.display())]
    NoOutput {
        /// The graph file.
        path: PathBuf,
        /// The output named in `imgvec.toml`.
        wanted: Option<String>,
        /// The outputs that are there.
        outputs: Vec<GraphValue>,
    },
    /// Image and text tower give vectors of different length: they are not one model.
    #[error("image and text towers have different dimensions, {image} and {text}")]
    TowersDiffer {
        /// Dimensions of an image embedding.
        image: usize,
        /// Dimensions of a text embedding.
        text: usize,
    },
    /// A tower that is taken from another package cannot be had.
    #[error("{source}")]
    Half {
        /// The tower.
        modality: Modality,
        /// The other package, as `imgvec.toml` names it.
        package: String,
        /// What is wrong with it.
        source: Box<PackageError>,
    },
    /// The other package takes a tower from a package itself, perhaps from this one.
    #[error("model \"{package}\" itself takes a tower from another model")]
    NestedHalf {
        /// The other package.
        package: String,
    },
    /// The other package has no such tower, or none that works by itself.
    #[error("model \"{package}\" has no {} tower of its own", modality.name())]
    NoHalf {
        /// The other package.
        package: String,
        /// The tower that is wanted.
        modality: Modality,
    },
    /// The graph takes images of one size only, and preprocessing makes another.
    #[error("graph \"{}\" takes images of another size than preprocessing produces", path.display())]
    ImageSizeDiffers {
        /// The graph file.
        path: PathBuf,
        /// Width and height that the graph takes.
        graph: (usize, usize),
        /// Width and height that preprocessing makes.
        preprocessing: (usize, usize),
    },
    /// The graph takes patches of another number or size than preprocessing makes.
    #[error("graph \"{}\" takes other patches than preprocessing produces", path.display())]
    PatchesDiffer {
        /// The graph file.
        path: PathBuf,
        /// Patches of an image and values of a patch that the graph takes, where it fixes them.
        graph: [Option<usize>; 2],
        /// Those that preprocessing makes.
        preprocessing: [usize; 2],
    },
    /// The package is of a kind that is not supported.
    #[error("model file \"{}\" needs a feature that is not supported", path.display())]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// What it asks for.
        feature: Unsupported,
    },
}

impl PackageError {
    /// An error of reading `path`: missing or unreadable.
    pub(crate) fn from_io(path: PathBuf, role: FileRole, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            PackageError::Missing { path, role }
        } else {
            PackageError::Unreadable { path, source }
        }
    }

    /// An error of reading the outline of the graph at `path`.
    pub(crate) fn from_onnx(path: PathBuf, error: OnnxError) -> Self {
        match error {
            OnnxError::Io(source) => PackageError::from_io(path, FileRole::Graph, source),
            OnnxError::Truncated { expected, found } => PackageError::Truncated { path, expected, found },
            other @ (OnnxError::NotOnnx { .. }
            | OnnxError::LfsPointer
            | OnnxError::ExternalDataEscapes { .. }) => {
                PackageError::Malformed { path, source: MalformedFile::Onnx(other) }
            }
        }
    }
}

/// What a file of a package is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRole {
    /// An ONNX graph.
    Graph,
    /// Weights beside a graph.
    ExternalData,
    /// `tokenizer.json`.
    Tokenizer,
    /// The image preprocessing: `preprocessor_config.json` or its equivalents.
    Preprocessing,
    /// Weights of a module after the pooling.
    Weights,
    /// Any other configuration file.
    Config,
}

/// What is wrong with a file's content.
#[derive(Debug, Error)]
pub enum MalformedFile {
    /// Not valid JSON, or not of the expected shape.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// Not valid TOML, an unknown key, or a value of the wrong type.
    #[error("{0}")]
    Toml(#[from] Box<toml::de::Error>),
    /// A text file is not UTF-8.
    #[error("the file is not valid UTF-8")]
    NotUtf8,
    /// A configuration file is larger than any real one.
    #[error("the file is {found} bytes long, more than the {limit} that are read")]
    TooLarge {
        /// Its size in bytes.
        found: u64,
        /// The most that is read.
        limit: u64,
    },
    /// Not an ONNX graph.
    #[error(transparent)]
    Onnx(OnnxError),
    /// The image preprocessing cannot be used.
    #[error(transparent)]
    Preprocessing(#[from] SettingsError),
    /// The tokenizer library cannot use the file.
    #[error("{0}")]
    Tokenizer(#[source] tokenizers::Error),
    /// No file of weights in the format safetensors, or not with the tensors that its module has.
    #[error("{0}")]
    Weights(String),
    /// A module takes vectors of another length than the one before it gives.
    #[error("the module takes {found} numbers, but the layer before it returns {expected}")]
    Width {
        /// What comes in.
        expected: usize,
        /// What the module takes.
        found: usize,
    },
    /// The answers of a model are not as many as its scores.
    #[error("\"id2label\" names {answers} answers, and the graph returns {scores} scores")]
    Answers {
        /// Answers that the file names.
        answers: usize,
        /// Scores that the graph gives.
        scores: usize,
    },
    /// A setting is outside its range or contradicts another.
    #[error("\"{setting}\" must be {expected}")]
    Setting {
        /// The key, with its table.
        setting: &'static str,
        /// What is allowed.
        expected: &'static str,
    },
}

/// A feature of a model that we do not have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unsupported {
    /// A sentence-transformers pooling mode.
    #[error("the pooling mode \"{0}\"")]
    Pooling(String),
    /// A sentence-transformers module, or one where it is not expected, such as a dense layer before the pooling.
    #[error("the sentence-transformers module \"{0}\"")]
    Module(String),
    /// What a dense layer is fed with, if that is not the pooled vector.
    #[error("a dense layer of \"{0}\"")]
    ModuleInput(String),
    /// The function at the end of a dense layer.
    #[error("the activation \"{0}\"")]
    Activation(String),
    /// Weights in Python's own format, which is a program.
    #[error("weights in Python's pickle format")]
    Pickle,
    /// A graph for questions about pictures has no input for one of the two.
    #[error("a graph for questions without an input for pixels or for tokens")]
    NoQuestion,
    /// A graph for questions fixes the sides of its pictures, which the model takes in their own shape.
    #[error("a graph for questions that takes pictures of one size only")]
    OneShape,
    /// The graph's input has an element type that we cannot feed.
    #[error("a graph without image or text input")]
    NoModality,
}
