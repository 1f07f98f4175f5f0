//! Finding and loading libonnxruntime, once per process.
//!
//! The binding would load the library by itself, from wherever the system finds it, and panic where
//! it finds none. So it is always told the path, and nothing else of it is called before that.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;

use super::{RuntimeError, threads};
use crate::interrupt::never_interrupted;
use crate::memory;

/// Oldest minor version of ONNX Runtime 1 whose interface we use.
pub const MINIMUM_VERSION: u32 = ort::MINOR_VERSION;

/// Memory that loading and starting the library takes at most: its data, the tables of operators, and the
/// stacks of two threads.
const START_BYTES: usize = 64 << 20;

/// The library that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Where it lies; a bare name if the system found it.
    pub path: PathBuf,
    /// Its version, as `1.32.0`; its build description if the file does not tell.
    pub version: String,
}

struct Loaded {
    /// Never dropped: releasing it while a process exits would race with threads that still use it.
    environment: Environment,
    info: RuntimeInfo,
}

static LOADED: OnceLock<Loaded> = OnceLock::new();
/// Held while loading, so that two threads do not both try.
static LOADING: Mutex<()> = Mutex::new(());

/// Loads the first candidate that exists. A candidate without a slash is looked up by the dynamic
/// linker. After a success every further call returns the same library; after a failure a call with
/// other candidates may succeed.
///
/// # Errors
/// [`RuntimeError::NotFound`] if no candidate exists; [`RuntimeError::NotOnnxRuntime`] or
/// [`RuntimeError::TooOld`] for the first that exists, since falling through to another one would
/// hide a wrong setting.
pub fn init(candidates: &[PathBuf]) -> Result<RuntimeInfo, RuntimeError> {
    if let Some(loaded) = LOADED.get() {
        return Ok(loaded.info.clone());
    }
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = LOADED.get() {
        return Ok(loaded.info.clone());
    }
    for path in candidates {
        let bare = path.components().count() == 1 && !path.is_absolute();
        if !bare && !path.exists() {
            continue;
        }
        // A start that fails half-way cannot be repeated in this process.
        memory::reserve(START_BYTES, "load ONNX Runtime")
            .map_err(|error| RuntimeError::OutOfMemory { path: path.clone(), reason: error.to_string() })?;
        let candidate = path.clone();
        // The environment starts a thread of its own.
        let result = threads::run("imgvec load", never_interrupted, || (), move || load(&candidate))?;
        match result {
            Ok(loaded) => return Ok(LOADED.get_or_init(|| loaded).info.clone()),
            Err(RuntimeError::NotOnnxRuntime { .. }) if bare => {}
            Err(error) => return Err(error),
        }
    }
    Err(RuntimeError::NotFound { candidates: candidates.to_vec() })
}

/// The library that was loaded, if one was.
#[must_use]
pub fn info() -> Option<&'static RuntimeInfo> {
    LOADED.get().map(|loaded| &loaded.info)
}

pub(super) fn environment() -> Result<&'static Environment, RuntimeError> {
    LOADED.get().map(|loaded| &loaded.environment).ok_or(RuntimeError::NotLoaded)
}

fn load(path: &Path) -> Result<Loaded, RuntimeError> {
    use ort::LoadDynamicError;
    let builder = ort::init_from(path).map_err(|error| match error {
        LoadDynamicError::BadVersion { version_str, path } => {
            RuntimeError::TooOld { path, found: version_str, needed: format!("1.{MINIMUM_VERSION}") }
        }
        LoadDynamicError::Dlopen { error, path } => {
            let reason = chain(&error);
            if memory::speaks_of_memory(&reason) {
                RuntimeError::OutOfMemory { path, reason }
            } else {
                RuntimeError::NotOnnxRuntime { path, reason }
            }
        }
        LoadDynamicError::MissingApi { path } => {
            RuntimeError::NotOnnxRuntime { path, reason: "it does not export OrtGetApiBase".to_owned() }
        }
        LoadDynamicError::InvalidVersionString => RuntimeError::NotOnnxRuntime {
            path: path.to_owned(),
            reason: "its version is no text".to_owned(),
        },
    })?;
    // Without a logger of its own the library writes warnings to standard error, which is the
    // server's log. Whatever matters comes back as an error of a call.
    let environment = builder
        .with_name("imgvec")
        .with_telemetry(false)
        .with_logger(Arc::new(|_, _, _, _, _| {}))
        .build()
        .map_err(|error| {
            let (path, reason) = (path.to_owned(), chain(&error));
            if memory::speaks_of_memory(&reason) {
                RuntimeError::OutOfMemory { path, reason }
            } else {
                RuntimeError::Start { path, reason }
            }
        })?;
    environment.set_log_level(LogLevel::Fatal);
    let version = version(path).unwrap_or_else(|| ort::info().to_owned());
    Ok(Loaded { environment, info: RuntimeInfo { path: path.to_owned(), version } })
}

/// An error and what it stems from: the dynamic linker's own words are the source of the binding's.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

/// The version of a library file. The binding does not hand it out, but the library's symbols carry
/// it: the linker script calls them `VERS_1.32.0`, and that name lies in the string table near the
/// start of the file.
fn version(path: &Path) -> Option<String> {
    const MARK: &[u8] = b"\0VERS_1.";
    const MOST: u64 = 16 << 20;
    let mut bytes = Vec::new();
    read_start(path, MOST, &mut bytes).ok()?;
    let start = bytes.windows(MARK.len()).position(|window| window == MARK)? + b"\0VERS_".len();
    let text = bytes[start..].split(|byte| *byte == 0).next()?;
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then(|| text.to_owned())
}

fn read_start(path: &Path, most: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    File::open(path)?.take(most).read_to_end(bytes).map(drop)
}
