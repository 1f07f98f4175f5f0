//! A loaded graph: named tensors in, one float tensor out, stoppable at any time.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use half::f16;
use half::slice::HalfFloatSliceExt;
use nix::time::{ClockId, clock_gettime};
use ort::logging::LogLevel;
use ort::session::builder::{LoadCanceler, SessionBuilder};
use ort::session::{RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, TensorElementType, TensorRef};
use thiserror::Error;

use super::input::Input;
use super::watch::Watching;
use super::{LoadError, RuntimeError, library, threads};
use crate::interrupt::InterruptCheck;

/// How a session is created.
#[derive(Debug, Clone, Copy)]
pub struct SessionOptions {
    /// Threads that compute one operator, the caller's among them.
    pub threads: usize,
    /// Looked at while the graph loads.
    pub interrupt: InterruptCheck,
}

/// A tensor to feed, row-major, in the element type that the graph wants.
#[derive(Debug, Clone, Copy)]
pub enum Feed<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 16-bit floats.
    F16(&'a [f16]),
    /// 64-bit integers.
    I64(&'a [i64]),
    /// 32-bit integers.
    I32(&'a [i32]),
}

/// A float tensor that a graph gave, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes of its axes.
    pub shape: Vec<usize>,
    /// Its elements.
    pub data: Vec<f32>,
}

/// What the bare runs of a session have cost, without anything that we do before and after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCost {
    /// Number of runs.
    pub runs: u64,
    /// Time that passed.
    pub wall: Duration,
    /// CPU time of the whole process while they ran.
    pub cpu: Duration,
}

/// Why a run gave nothing.
#[derive(Debug, Error)]
pub enum RunError {
    /// The interrupt check returned true.
    #[error("inference was interrupted")]
    Interrupted,
    /// ONNX Runtime failed.
    #[error("ONNX Runtime failed: {reason}")]
    Failed {
        /// Its answer.
        reason: String,
    },
    /// The output is no tensor of floats.
    #[error("output \"{output}\" is no float tensor")]
    NoFloats {
        /// The output's name.
        output: String,
    },
    /// The watching thread could not be started.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// A loaded graph.
pub struct GraphSession {
    session: Session,
    run_options: Arc<RunOptions>,
    cost: RunCost,
}

impl GraphSession {
    /// Loads a graph.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) fn open(input: Input<'_>, options: SessionOptions) -> Result<GraphSession, LoadError> {
        let session = create(input, options, Ok)?;
        let refused =
            |error: ort::Error| LoadError::Graph { path: input.path().to_owned(), reason: reason(&error) };
        let mut run_options = RunOptions::new().map_err(refused)?;
        run_options.set_log_level(LogLevel::Fatal).map_err(refused)?;
        Ok(GraphSession { session, run_options: Arc::new(run_options), cost: RunCost::default() })
    }

    /// Runs the graph and returns the output called `output` as 32-bit floats.
    ///
    /// # Errors
    /// [`RunError`]. After [`RunError::Interrupted`] the session is usable again.
    pub fn run(
        &mut self,
        feeds: &[(&str, &[usize], Feed<'_>)],
        output: &str,
        interrupt: InterruptCheck,
    ) -> Result<Tensor, RunError> {
        let failed = |error: ort::Error| RunError::Failed { reason: reason(&error) };
        let inputs = feeds
            .iter()
            .map(|(name, shape, feed)| feed.view(shape).map(|value| (Cow::Borrowed(*name), value)))
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;

        let options = Arc::clone(&self.run_options);
        let stop = move || {
            // Setting a flag cannot fail; if it does, the run goes on to its end.
            let _ = options.terminate();
        };
        let watching = Watching::start(interrupt, Arc::new(stop))?;
        let (wall, cpu) = (Instant::now(), process_cpu());
        let result = self.session.run_with_options(inputs, &self.run_options);
        self.cost.runs += 1;
        self.cost.wall += wall.elapsed();
        self.cost.cpu += process_cpu().saturating_sub(cpu);
        if watching.end() {
            drop(result);
            self.run_options.unterminate().map_err(failed)?;
            return Err(RunError::Interrupted);
        }
        let outputs = result.map_err(failed)?;
        let no_floats = || RunError::NoFloats { output: output.to_owned() };
        floats(outputs.get(output).ok_or_else(no_floats)?).ok_or_else(no_floats)
    }

    /// What the runs so far have cost.
    #[must_use]
    pub fn cost(&self) -> RunCost {
        self.cost
    }
}

impl Feed<'_> {
    fn view<'a>(&'a self, shape: &'a [usize]) -> ort::Result<SessionInputValue<'a>> {
        Ok(match self {
            Feed::F32(data) => TensorRef::from_array_view((shape, *data))?.into(),
            Feed::F16(data) => TensorRef::from_array_view((shape, *data))?.into(),
            Feed::I64(data) => TensorRef::from_array_view((shape, *data))?.into(),
            Feed::I32(data) => TensorRef::from_array_view((shape, *data))?.into(),
        })
    }
}

/// Creates a session on a thread that takes no signals, so that the session's own threads take none.
/// `adjust` may add options.
pub(super) fn create(
    input: Input<'_>,
    options: SessionOptions,
    adjust: impl FnOnce(SessionBuilder) -> ort::Result<SessionBuilder> + Send + 'static,
) -> Result<Session, LoadError> {
    let environment = library::environment()?;
    let canceler: Arc<OnceLock<LoadCanceler>> = Arc::default();
    let publish = Arc::clone(&canceler);
    let cancel = move || {
        if let Some(canceler) = canceler.get() {
            // If it cannot be cancelled it is waited for.
            let _ = canceler.cancel();
        }
    };
    let content = input.content(options.interrupt)?;
    let work = move || -> ort::Result<Session> {
        let builder = Session::builder(environment)?
            .with_intra_threads(options.threads.max(1))?
            .with_inter_threads(1)?
            // Idle threads of a backend must not burn the server's CPU.
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_log_level(LogLevel::Fatal)?;
        let builder = adjust(builder)?;
        let _ = publish.set(builder.canceler());
        content.commit(builder)
    };
    let result = threads::run("imgvec load", options.interrupt, cancel, work)?;
    match result {
        Ok(session) if (options.interrupt)() => {
            drop(session);
            Err(LoadError::Interrupted)
        }
        Ok(session) => Ok(session),
        Err(_) if (options.interrupt)() => Err(LoadError::Interrupted),
        Err(error) => Err(LoadError::Graph { path: input.path().to_owned(), reason: reason(&error) }),
    }
}

/// The library's answer on one line.
fn reason(error: &ort::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn floats(value: &DynValue) -> Option<Tensor> {
    let element = value.dtype().tensor_type()?;
    let (shape, data) = if element == TensorElementType::Float16 {
        let (shape, data) = value.try_extract_tensor::<f16>().ok()?;
        (shape, data.to_f32_vec())
    } else {
        // Any other type but 32-bit floats is refused here.
        let (shape, data) = value.try_extract_tensor::<f32>().ok()?;
        (shape, data.to_vec())
    };
    let shape = shape.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>()?;
    Some(Tensor { shape, data })
}

/// CPU time of the process so far; zero where the system does not tell.
pub fn process_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
