//! A loaded graph: named tensors in, one float tensor out. A run can be canceled at any time, and its memory is freed
//! afterwards.
//!
//! ONNX Runtime allocates from an arena that grows and otherwise stays as large as the largest run
//! made it. The last of several related runs makes it free what is unused. Without an arena
//! the system would clear every page of every intermediate tensor again: 8 texts of 512 tokens took 5.7 s
//! instead of 2.0 (MiniLM, one thread), and twice the memory. Memory plans by shape are off
//! for texts, because there would be one for each length.

use std::borrow::Cow;
use std::path::Path;
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
use super::watch::{MemoryWatch, Watching};
use super::{LoadError, RuntimeError, library, threads};
use crate::interrupt::InterruptCheck;
use crate::memory;

/// The run option that names the arenas to shrink when a run ends.
const SHRINK_ARENA: &str = "memory.enable_memory_arena_shrinkage";

/// How a session is created.
#[derive(Debug, Clone, Copy)]
pub struct SessionOptions {
    /// Threads that compute one operator, the caller's among them.
    pub threads: usize,
    /// Looked at while the graph loads.
    pub interrupt: InterruptCheck,
    /// Whether inputs have few shapes. A plan of memory is then kept for each, which saves a few percent.
    pub repeats_shapes: bool,
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
    /// CPU time of the threads that computed them.
    pub cpu: Duration,
}

/// What a run may do.
#[derive(Debug, Clone, Copy)]
pub struct RunLimits {
    /// Looked at while it runs.
    pub interrupt: InterruptCheck,
    /// How its memory is watched, if it is.
    pub watch: Option<WatchLimits>,
    /// Whether the memory of this run, and of those before that kept theirs, is given back when it ends.
    /// The next run then takes and clears it again.
    pub gives_back: bool,
}

/// How the memory of a run is watched while it runs.
#[derive(Debug, Clone, Copy)]
pub struct WatchLimits {
    /// Private memory of the process before it, in bytes.
    pub base: u64,
    /// Bytes that it may add.
    pub limit: u64,
    /// Whether nothing is known of the graph yet, so that it is looked at more often.
    pub is_first: bool,
}

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    /// The output that was asked for.
    pub tensor: Tensor,
    /// The most memory that was seen to be taken, if the run was watched.
    pub grown_bytes: u64,
    /// How often it was looked at: short runs end unseen.
    pub looks: u32,
}

/// Why a run gave nothing.
#[derive(Debug, Error)]
pub enum RunError {
    /// The interrupt check returned true.
    #[error("inference was interrupted")]
    Interrupted,
    /// It took more memory than it may, and was stopped.
    #[error("inference took {grown_bytes} bytes of memory")]
    TooLarge {
        /// Bytes that were seen when it was stopped.
        grown_bytes: u64,
    },
    /// The system refused memory.
    #[error("there is not enough memory to run the graph")]
    OutOfMemory,
    /// ONNX Runtime failed.
    #[error("ONNX Runtime failed: {reason}")]
    Failed {
        /// Its answer.
        reason: String,
    },
    /// The output is no tensor of floats.
    #[error("output \"{output}\" is not a float tensor")]
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
    /// For runs that may keep their memory.
    keeping: Arc<RunOptions>,
    /// For runs that give it back.
    shrinking: Arc<RunOptions>,
    /// For runs that give back and end before their first operator.
    ending: RunOptions,
    /// What has the time of all threads that compute a run.
    clock: ClockId,
    cost: RunCost,
}

impl GraphSession {
    /// Loads a graph.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) fn open(input: Input<'_>, options: SessionOptions) -> Result<GraphSession, LoadError> {
        let session = create(input, options, Ok)?;
        let refused = |error: ort::Error| refusal(input.path(), reason(&error));
        let mut keeping = RunOptions::new().map_err(refused)?;
        keeping.set_log_level(LogLevel::Fatal).map_err(refused)?;
        let mut shrinking = RunOptions::new().map_err(refused)?;
        shrinking.set_log_level(LogLevel::Fatal).map_err(refused)?;
        shrinking.set(SHRINK_ARENA, "cpu:0").map_err(refused)?;
        let mut ending = RunOptions::new().map_err(refused)?;
        ending.set_log_level(LogLevel::Fatal).map_err(refused)?;
        ending.set(SHRINK_ARENA, "cpu:0").map_err(refused)?;
        ending.terminate().map_err(refused)?;
        Ok(GraphSession {
            session,
            keeping: Arc::new(keeping),
            shrinking: Arc::new(shrinking),
            ending,
            // The time of all threads is a sum that the system makes again, which short runs would feel.
            clock: if options.threads > 1 {
                ClockId::CLOCK_PROCESS_CPUTIME_ID
            } else {
                ClockId::CLOCK_THREAD_CPUTIME_ID
            },
            cost: RunCost::default(),
        })
    }

    /// Runs the graph and returns the output called `output` as 32-bit floats.
    ///
    /// # Errors
    /// [`RunError`]. After [`RunError::Interrupted`] the session is usable again.
    pub fn run(
        &mut self,
        feeds: &[(&str, &[usize], Feed<'_>)],
        output: &str,
        limits: RunLimits,
    ) -> Result<Ran, RunError> {
        let failed = |error: ort::Error| match reason(&error) {
            reason if memory::speaks_of_memory(&reason) => RunError::OutOfMemory,
            reason => RunError::Failed { reason },
        };
        let inputs = views(feeds).map_err(failed)?;

        let run_options = if limits.gives_back { &self.shrinking } else { &self.keeping };
        let options = Arc::clone(run_options);
        let stop = move || {
            // Setting a flag cannot fail; if it does, the run goes on to its end.
            let _ = options.terminate();
        };
        let watch =
            limits.watch.map(|WatchLimits { base, limit, is_first }| MemoryWatch { base, limit, is_first });
        let watching = Watching::start(limits.interrupt, watch, Arc::new(stop))?;
        let (wall, cpu) = (Instant::now(), cpu_time(self.clock));
        let result = self.session.run_with_options(inputs, run_options);
        self.cost.runs += 1;
        self.cost.wall += wall.elapsed();
        self.cost.cpu += cpu_time(self.clock).saturating_sub(cpu);
        let ended = watching.end();
        if ended.interrupted || ended.over_limit {
            drop(result);
            run_options.unterminate().map_err(failed)?;
            return Err(if ended.interrupted {
                RunError::Interrupted
            } else {
                RunError::TooLarge { grown_bytes: ended.grown }
            });
        }
        let outputs = result.map_err(failed)?;
        let no_floats = || RunError::NoFloats { output: output.to_owned() };
        let tensor = floats(outputs.get(output).ok_or_else(no_floats)?)?.ok_or_else(no_floats)?;
        drop(outputs);
        if limits.gives_back {
            // The output lay in the arena when the run ended, and held what was taken with it: up to half of all.
            self.give_back(feeds);
        }
        Ok(Ran { tensor, grown_bytes: ended.grown, looks: ended.looks })
    }

    /// Gives back what runs have kept, and an output that was in use when the last one ended. `feeds` are what a run takes.
    pub fn give_back(&mut self, feeds: &[(&str, &[usize], Feed<'_>)]) {
        // It fails, as it was told to end; the arena shrinks all the same.
        let _ = views(feeds).and_then(|inputs| self.session.run_with_options(inputs, &self.ending).map(drop));
    }

    /// What the runs so far have cost.
    #[must_use]
    pub fn cost(&self) -> RunCost {
        self.cost
    }
}

/// Named tensors over what is fed.
fn views<'a>(
    feeds: &'a [(&str, &[usize], Feed<'_>)],
) -> ort::Result<Vec<(Cow<'a, str>, SessionInputValue<'a>)>> {
    let named = |(name, shape, feed): &'a (&str, &[usize], Feed<'_>)| {
        feed.view(shape).map(|value| (Cow::Borrowed(*name), value))
    };
    feeds.iter().map(named).collect()
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
            .with_memory_pattern(options.repeats_shapes)?
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
        Err(error) => Err(refusal(input.path(), reason(&error))),
    }
}

fn refusal(path: &Path, reason: String) -> LoadError {
    if memory::speaks_of_memory(&reason) {
        LoadError::OutOfMemory { path: path.to_owned() }
    } else {
        LoadError::Graph { path: path.to_owned(), reason }
    }
}

/// The library's answer on one line.
fn reason(error: &ort::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A copy of a float tensor, or `None` if it is of another type.
fn floats(value: &DynValue) -> Result<Option<Tensor>, RunError> {
    let mut data: Vec<f32> = Vec::new();
    let mut reserve = |count| data.try_reserve_exact(count).map_err(|_| RunError::OutOfMemory);
    let shape = if value.dtype().tensor_type() == Some(TensorElementType::Float16) {
        let Ok((shape, halves)) = value.try_extract_tensor::<f16>() else { return Ok(None) };
        reserve(halves.len())?;
        data.resize(halves.len(), 0.0);
        halves.convert_to_f32_slice(&mut data);
        shape
    } else {
        // Any other type but 32-bit floats is refused here.
        let Ok((shape, floats)) = value.try_extract_tensor::<f32>() else { return Ok(None) };
        reserve(floats.len())?;
        data.extend_from_slice(floats);
        shape
    };
    let shape = shape.iter().map(|&size| usize::try_from(size).ok()).collect::<Option<_>>();
    Ok(shape.map(|shape| Tensor { shape, data }))
}

/// CPU time of the process so far; zero where the system does not report it.
pub fn process_cpu() -> Duration {
    cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

fn cpu_time(clock: ClockId) -> Duration {
    clock_gettime(clock).map(Duration::from).unwrap_or_default()
}
