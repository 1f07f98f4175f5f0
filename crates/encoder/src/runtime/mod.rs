//! ONNX Runtime: loading the library, sessions that can be interrupted, weights that are shared.

mod error;
mod input;
mod library;
mod load;
mod prepared;
mod session;
mod threads;
mod watch;

pub use error::{LoadError, RuntimeError};
pub use library::{MINIMUM_VERSION, RuntimeInfo, info, init};
pub(crate) use load::{load, outlook, prepare};
pub(crate) use prepared::{Entry, Outlook, Place, Prepared, Refusal, discard};
pub use prepared::{PreparationWarning, Source};
pub use session::{
    Feed, GraphSession, Ran, RunCost, RunError, RunLimits, SessionOptions, Tensor, WatchLimits, process_cpu,
};
