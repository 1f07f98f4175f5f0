//! What can go wrong with ONNX Runtime itself, and with loading a graph into it.

use std::path::PathBuf;

use thiserror::Error;

/// Why ONNX Runtime is not there.
#[derive(Debug, Clone, Error)]
pub enum RuntimeError {
    /// None of the candidates exists.
    #[error("could not find the ONNX Runtime library")]
    NotFound {
        /// The paths and names that were tried, in order.
        candidates: Vec<PathBuf>,
    },
    /// A candidate exists but is no usable ONNX Runtime.
    #[error("\"{}\" is not a usable ONNX Runtime library", path.display())]
    NotOnnxRuntime {
        /// The library.
        path: PathBuf,
        /// The dynamic linker's or the library's answer.
        reason: String,
    },
    /// The library is older than the interface that we are built for.
    #[error("ONNX Runtime {found} in \"{}\" is too old", path.display())]
    TooOld {
        /// The library.
        path: PathBuf,
        /// Its version.
        found: String,
        /// The oldest version that works, as `1.24`.
        needed: String,
    },
    /// The library was loaded but does not start.
    #[error("could not start ONNX Runtime")]
    Start {
        /// The library.
        path: PathBuf,
        /// Its answer.
        reason: String,
    },
    /// The system refused memory to load the library or to start it.
    #[error("there is not enough memory to load ONNX Runtime from \"{}\"", path.display())]
    OutOfMemory {
        /// The library.
        path: PathBuf,
        /// The dynamic linker's or the library's answer.
        reason: String,
    },
    /// A session was asked for before [`init`](super::init) succeeded.
    #[error("ONNX Runtime is not loaded")]
    NotLoaded,
    /// The system refused to start a thread.
    #[error("could not start a thread: {reason}")]
    Thread {
        /// The system's answer.
        reason: String,
    },
}

/// Why a graph could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// ONNX Runtime is not there.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// ONNX Runtime refused the graph.
    #[error("could not load graph \"{}\"", path.display())]
    Graph {
        /// The graph file.
        path: PathBuf,
        /// ONNX Runtime's answer.
        reason: String,
    },
    /// The system refused memory. The graph is not to blame.
    #[error("there is not enough memory to load graph \"{}\"", path.display())]
    OutOfMemory {
        /// The graph file.
        path: PathBuf,
    },
    /// The caller's interrupt check returned true.
    #[error("loading was interrupted")]
    Interrupted,
}
