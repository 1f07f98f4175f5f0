//! Preparing models in a background worker.
//!
//! A large model takes seconds to prepare. Done inside the statement that needs it first, the work would be lost
//! with the statement: under a `statement_timeout` below that time the model would never become usable. So the
//! statement starts a worker, which lives on when the statement is cancelled, and waits for it. Where no worker can be
//! had (`max_worker_processes` is used up), the statement prepares the model itself.
//!
//! The worker connects to no database. It gets settings and the model's name in a segment of shared memory, since
//! a session's settings are not its own.

use super::cache::Kind;
use super::session;
use crate::error::encoder::{encode_error, warning};
use crate::error::paths::printable;
use crate::guc;
use crate::types::datum::Text;
use imgvec_encoder::image::ImageLimits;
use imgvec_encoder::memory::ProcessMemory;
use imgvec_encoder::package::Modality;
use imgvec_encoder::package::Package;
use imgvec_encoder::runtime;
use imgvec_encoder::{EncodeError, Encoder, EncoderOptions};
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, SignalWakeFlags};
use pgrx::prelude::*;
use pgrx::{IntoDatum, pg_sys};
use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Longest name of a model that fits into the name of a process.
const MAX_NAME_BYTES: usize = 60;

/// What a worker is to prepare, and by which settings.
struct Job {
    model: String,
    model_path: Vec<PathBuf>,
    cache_dir: PathBuf,
    libraries: Vec<PathBuf>,
    threads: usize,
}

thread_local! {
    /// The segment of the last job, kept until the next one: a cancelled statement must not take it away from a
    /// worker that is still starting.
    static SEGMENT: Cell<*mut pg_sys::dsm_segment> = const { Cell::new(std::ptr::null_mut()) };
}

/// Has a worker do the job, and waits until it has ended, well or not. Does nothing if none can be had.
///
/// Cancelling the statement ends the wait and leaves the worker at work.
fn run(job: &Job) {
    let bytes = job.encode();
    // SAFETY: inside a statement, where segments may be made; the segment has room for length and bytes, and nobody
    // else knows it yet. It stays mapped when the statement ends, and the one before is not used any more.
    let handle = unsafe {
        let flags = i32::try_from(pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS).expect("a flag");
        let segment = pg_sys::dsm_create(bytes.len() + size_of::<usize>(), flags);
        if segment.is_null() {
            return;
        }
        let target: *mut u8 = pg_sys::dsm_segment_address(segment).cast();
        target.cast::<usize>().write(bytes.len());
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.add(size_of::<usize>()), bytes.len());
        pg_sys::dsm_pin_mapping(segment);
        let before = SEGMENT.replace(segment);
        if !before.is_null() {
            pg_sys::dsm_detach(before);
        }
        pg_sys::dsm_segment_handle(segment)
    };
    let mut name = format!("imgvec prepare {}", printable(&job.model));
    while name.len() > MAX_NAME_BYTES {
        name.pop();
    }
    // SAFETY: a plain read of the server's variable.
    let pid = unsafe { pg_sys::MyProcPid };
    let worker = BackgroundWorkerBuilder::new(&name)
        .set_type("imgvec prepare")
        .set_library("$libdir/imgvec")
        .set_function("imgvec_prepare_main")
        .enable_shmem_access(None)
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .set_restart_time(None)
        .set_argument(i64::from(handle).into_datum())
        .set_notify_pid(pid)
        .load_dynamic();
    // Whatever was not done is left to us.
    if let Ok(worker) = worker {
        let _ = worker.wait_for_shutdown();
    }
}

/// Has a worker prepare what embedding inputs of a kind would prepare in this statement.
pub fn before_use(name: &str, encoder: &mut Encoder, kind: Kind) -> Result<(), EncodeError> {
    let modality = match kind {
        Kind::Image | Kind::Region | Kind::Frame | Kind::Parts => Modality::Image,
        Kind::Text | Kind::PromptedText | Kind::Label => Modality::Text,
        Kind::Question => {
            if encoder.wants_preparing_answers()? {
                run_for(name);
            }
            return Ok(());
        }
    };
    if encoder.wants_preparing(modality)? {
        run_for(name);
    }
    Ok(())
}

fn run_for(name: &str) {
    let Some(cache_dir) = guc::cache_directory() else { return };
    run(&Job {
        model: name.to_owned(),
        model_path: guc::model_path(),
        cache_dir,
        libraries: guc::onnxruntime_candidates(),
        threads: guc::threads(),
    });
}

#[pg_extern]
fn imgvec_prepare(model: Text<'_>) {
    let name = model.as_str();
    session::with(|session| {
        let encoder = &mut session.model(name)?.encoder;
        let report = |error| encode_error(error, |_| None);
        let mut is_wanted = encoder.wants_preparing_answers().map_err(report)?;
        for modality in encoder.package().modalities.clone() {
            is_wanted |= encoder.wants_preparing(modality).map_err(report)?;
        }
        if is_wanted {
            run_for(name);
        }
        // What no worker did, and why it cannot be done.
        encoder.prepare().map_err(report)?;
        for reason in encoder.take_warnings() {
            warning(&reason, name).warn();
        }
        Ok(())
    });
}

impl Job {
    fn fields(&self) -> Vec<Vec<Vec<u8>>> {
        let path = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
        vec![
            vec![self.model.clone().into_bytes()],
            self.model_path.iter().map(path).collect(),
            vec![path(&self.cache_dir)],
            self.libraries.iter().map(path).collect(),
            vec![self.threads.to_string().into_bytes()],
        ]
    }

    /// Lists, each ended by an empty value; values ended by NUL, which neither a name nor a path has.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for list in self.fields() {
            for value in list {
                bytes.extend(value);
                bytes.push(0);
            }
            bytes.push(0);
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut values = bytes.split(|&byte| byte == 0).map(<[u8]>::to_vec);
        let mut list = || -> Vec<Vec<u8>> { values.by_ref().take_while(|value| !value.is_empty()).collect() };
        let paths =
            |list: Vec<Vec<u8>>| list.into_iter().map(|path| OsString::from_vec(path).into()).collect();
        let text = |list: Vec<Vec<u8>>| String::from_utf8(list.into_iter().next()?).ok();
        Some(Job {
            model: text(list())?,
            model_path: paths(list()),
            cache_dir: OsStr::from_bytes(list().first()?).into(),
            libraries: paths(list()),
            threads: text(list())?.parse().ok()?,
        })
    }
}

/// The postmaster: when it dies, we become somebody else's child.
static PARENT: AtomicU32 = AtomicU32::new(0);

/// Whether the worker is to end. May be asked by any thread.
fn is_ending() -> bool {
    // SAFETY: an aligned integer of the server that lives as long as the process; the handler of the signal sets it.
    let asked = unsafe { std::ptr::read_volatile(&raw const pg_sys::ShutdownRequestPending) != 0 };
    asked || std::os::unix::process::parent_id() != PARENT.load(Ordering::Relaxed)
}

/// Where a worker begins. It ends by returning.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn imgvec_prepare_main(argument: pg_sys::Datum) {
    PARENT.store(std::os::unix::process::parent_id(), Ordering::Relaxed);
    // The server's own handler would end the process from within the handler, in the middle of anything.
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGTERM);
    let Some(job) = u32::try_from(argument.value()).ok().and_then(read_job) else { return };
    match work(&job) {
        Ok(warnings) => {
            for warning in warnings {
                log(&format!("model \"{}\" could not be prepared for sharing: {warning}", job.model));
            }
        }
        // Whoever waits meets the same and tells it to a user.
        Err(reason) if !is_ending() => log(&format!("could not prepare model \"{}\": {reason}", job.model)),
        Err(_) => {}
    }
}

/// The job in a segment of shared memory, if the segment is still there.
fn read_job(handle: u32) -> Option<Job> {
    // SAFETY: the handle is of a segment that `run` made: a length, and as many bytes.
    let bytes = unsafe {
        let segment = pg_sys::dsm_attach(handle);
        if segment.is_null() {
            return None;
        }
        let source: *const u8 = pg_sys::dsm_segment_address(segment).cast();
        let length = source.cast::<usize>().read();
        let bytes = std::slice::from_raw_parts(source.add(size_of::<usize>()), length).to_vec();
        pg_sys::dsm_detach(segment);
        bytes
    };
    Job::decode(&bytes)
}

fn work(job: &Job) -> Result<Vec<String>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let package = Package::find(&job.model_path, &job.model).map_err(|error| text(&error))?;
    runtime::init(&job.libraries).map_err(|error| text(&error))?;
    let options = EncoderOptions {
        threads: job.threads,
        cache_dir: Some(job.cache_dir.clone()),
        interrupt: is_ending,
        image_limits: ImageLimits::default(),
        map: None,
        memory: ProcessMemory::default(),
    };
    let mut encoder = Encoder::open(package, options).map_err(|error| text(&error))?;
    encoder.prepare().map_err(|error| text(&error))?;
    Ok(encoder.take_warnings().iter().map(ToString::to_string).collect())
}

/// A line in the server's log. There is no database here, and so no look at roles.
fn log(message: &str) {
    pgrx::ereport!(PgLogLevel::LOG, PgSqlErrorCode::ERRCODE_WARNING, printable(message).into_owned());
}
