//! One copy of the weights for all processes.
//!
//! A session that loads a plain file keeps the weights twice in private memory: as they were read and
//! in the order that the processor's kernels want. The prepared form is the optimized graph with its
//! weights in a file beside it, already in that order. Sessions map that file, so that any number of
//! processes share one copy in the page cache, at the same speed and with the same results.
//!
//! It is made once per model, library version and processor, in the cache directory:
//!
//! ```text
//! prepared/<package>/lock           shared while loading, exclusive while making or removing
//! prepared/<package>/source         the package's directory
//! prepared/<package>/<graph>-<key>/ model.onnx, model.onnx_data, manifest.json
//! ```
//!
//! An entry is made under another name, flushed and renamed, so that it is whole or absent. Making one
//! removes the entries of the same graph with other keys, and those of packages that are gone.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::input::Input;
use super::{LoadError, SessionOptions, library, session};
use crate::cache::{self, Hold, Lock, LockError};
use crate::package::{Graph, ModelDigest};

/// Graphs below this size are loaded as they are. Preparing pays early, since the prepared form is not
/// optimized again: a graph of convolutions of 5 MB loads in 6 instead of 105 ms of CPU and keeps 2
/// instead of 23 MB, a table of 4 MB loads in 5 instead of 12 ms and keeps 1.5 instead of 5 MB (ONNX
/// Runtime 1.32, one thread).
pub(super) const MIN_BYTES: u64 = 1 << 20;
/// Changes whenever the way of preparing does.
const FORMAT: u32 = 1;
/// The prepared form has the weights twice: 1.6 to 2 times the plain file for transformers. Weights of
/// small convolutions are stored transformed, which made 4 times of one network.
const SPACE_FACTOR: u64 = 5;
/// Weights smaller than this stay in the graph file, in bytes.
const MIN_WEIGHT_BYTES: &str = "1024";

const GRAPH: &str = "model.onnx";
const WEIGHTS: &str = "model.onnx_data";
const MANIFEST: &str = "manifest.json";
const LOCK: &str = "lock";
const SOURCE: &str = "source";

/// Which form of a graph a session has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The package's own file; the weights are private to the process.
    Plain,
    /// The prepared form; the weights are mapped and shared.
    Prepared {
        /// Size of the mapped file in bytes.
        mapped_bytes: u64,
    },
}

/// Why a graph is loaded from its plain file although sharing was wanted. It works, with more memory.
#[derive(Debug, Error)]
pub enum PreparationWarning {
    /// The cache directory cannot be written.
    #[error("could not write to \"{}\"", path.display())]
    NotWritable {
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file system of the cache directory is too full.
    #[error("\"{}\" has {available} bytes free, and {needed} are needed", path.display())]
    NoSpace {
        /// The cache directory.
        path: PathBuf,
        /// Bytes that the prepared form takes at most.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// ONNX Runtime could not make the prepared form, or not load it.
    #[error("could not use the prepared form in \"{}\": {reason}", path.display())]
    Failed {
        /// The entry.
        path: PathBuf,
        /// ONNX Runtime's answer.
        reason: String,
    },
}

/// What identifies the prepared form of a graph.
#[derive(Debug, Clone)]
pub(crate) struct Place<'a> {
    /// The cache directory.
    pub cache_dir: &'a Path,
    /// Short name of the package's place.
    pub package_key: String,
    /// The package's directory.
    pub package_dir: &'a Path,
    /// The model.
    pub digest: ModelDigest,
}

/// A prepared graph that stays in place while this is held.
pub(super) struct Prepared {
    pub graph: PathBuf,
    pub mapped_bytes: u64,
    _lock: Lock,
}

/// Why there is no prepared form.
pub(super) enum Refusal {
    Interrupted,
    OutOfMemory,
    Warning(PreparationWarning),
}

impl From<(PathBuf, io::Error)> for Refusal {
    fn from((path, source): (PathBuf, io::Error)) -> Self {
        Refusal::Warning(PreparationWarning::NotWritable { path, source })
    }
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    /// Size of each file of the entry in bytes.
    files: BTreeMap<String, u64>,
}

/// The prepared form of `graph`, made now if there is none.
pub(super) fn obtain(place: &Place<'_>, graph: &Graph, options: SessionOptions) -> Result<Prepared, Refusal> {
    let dir = place.cache_dir.join("prepared").join(&place.package_key);
    let label = graph.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let entry = dir.join(format!("{label}-{}", key(place, graph)));
    let lock_file = dir.join(LOCK);
    let take = |hold| match Lock::take(&lock_file, hold, options.interrupt) {
        Ok(lock) => Ok(lock),
        Err(LockError::Interrupted) => Err(Refusal::Interrupted),
        Err(LockError::Io(error)) => Err(Refusal::from((lock_file.clone(), error))),
    };
    // Once to find none, once to find the one that was made, once more if it was removed in between.
    for _ in 0..3 {
        let lock = take(Hold::Shared)?;
        if let Some(mapped_bytes) = whole(&entry) {
            return Ok(Prepared { graph: entry.join(GRAPH), mapped_bytes, _lock: lock });
        }
        drop(lock);
        let lock = take(Hold::Exclusive)?;
        if whole(&entry).is_none() {
            make(place, graph, &dir, &entry, options)?;
            remove_stale(&dir, &label, &entry);
            sweep(&place.cache_dir.join("prepared"), &dir);
        }
        drop(lock);
    }
    let reason = "it was removed as often as it was made".to_owned();
    Err(Refusal::Warning(PreparationWarning::Failed { path: entry, reason }))
}

/// Removes an entry that could not be loaded, so that the next process makes it anew.
pub(super) fn discard(prepared: Prepared) {
    let Some(entry) = prepared.graph.parent() else { return };
    let lock_file = entry.with_file_name(LOCK);
    drop(prepared._lock);
    // Another process that has it loaded keeps its mapping.
    if let Ok(_lock) = Lock::take(&lock_file, Hold::Exclusive, || true) {
        let _ = fs::remove_dir_all(entry);
    }
}

/// Everything that the bytes of a prepared form depend on.
fn key(place: &Place<'_>, graph: &Graph) -> String {
    let version = library::info().map(|info| info.version.as_str()).unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    for part in [
        &place.digest.0[..],
        graph.file.as_os_str().as_bytes(),
        version.as_bytes(),
        cpu_features().as_bytes(),
        &FORMAT.to_le_bytes(),
    ] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().to_hex()[..24].to_owned()
}

/// What decides which kernels, and so which order of weights, the library chooses: the processor's
/// features as the kernel lists them. A longer list than needed makes the form anew too often, never
/// too rarely.
fn cpu_features() -> String {
    let listed = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let features = listed.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    format!("{} {}", std::env::consts::ARCH, features.unwrap_or_default())
}

/// Size of the mapped file if the entry is there and has the sizes that its manifest says.
fn whole(entry: &Path) -> Option<u64> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(entry.join(MANIFEST)).ok()?).ok()?;
    let matches = |(name, size): (&String, &u64)| {
        entry.join(name).metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == *size)
    };
    let complete = manifest.files.contains_key(GRAPH) && manifest.files.iter().all(matches);
    complete.then(|| manifest.files.get(WEIGHTS).copied().unwrap_or(0))
}

/// Makes an entry. The caller holds the lock exclusively.
fn make(
    place: &Place<'_>,
    graph: &Graph,
    dir: &Path,
    entry: &Path,
    options: SessionOptions,
) -> Result<(), Refusal> {
    let unwritable = |path: &Path| {
        let path = path.to_owned();
        move |error| Refusal::from((path.clone(), error))
    };
    let needed = graph.bytes.saturating_mul(SPACE_FACTOR);
    if let Ok(space) = nix::sys::statvfs::statvfs(dir) {
        let available = space.blocks_available() * space.fragment_size();
        if available < needed {
            let path = dir.to_owned();
            return Err(Refusal::Warning(PreparationWarning::NoSpace { path, needed, available }));
        }
    }
    // Whoever left this behind is gone, since we hold the lock.
    let temporary = dir.join("unfinished");
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(unwritable(&temporary))?;
    }
    cache::create_dir(&temporary).map_err(unwritable(&temporary))?;
    let made = optimize(graph, &temporary, options).and_then(|()| {
        seal(&temporary).map_err(unwritable(&temporary))?;
        if entry.exists() {
            fs::remove_dir_all(entry).map_err(unwritable(entry))?;
        }
        fs::rename(&temporary, entry).map_err(unwritable(entry))?;
        cache::sync(dir).map_err(unwritable(dir))?;
        let source = place.package_dir.canonicalize().unwrap_or_else(|_| place.package_dir.to_owned());
        cache::write_file(&dir.join(SOURCE), source.as_os_str().as_bytes()).map_err(unwritable(dir))
    });
    if made.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    made
}

/// Lets ONNX Runtime write the optimized graph and its weights into `dir`.
fn optimize(graph: &Graph, dir: &Path, options: SessionOptions) -> Result<(), Refusal> {
    let target = dir.join(GRAPH);
    let adjust = move |builder: ort::session::builder::SessionBuilder| {
        Ok(builder
            .with_optimized_model_path(target)?
            .with_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)?
            .with_config_entry(
                "session.optimized_model_external_initializers_min_size_in_bytes",
                MIN_WEIGHT_BYTES,
            )?
            .with_config_entry("session.save_external_prepacked_constant_initializers", "1")?)
    };
    match session::create(Input::Package(graph), options, adjust) {
        Ok(_) => Ok(()),
        Err(LoadError::Interrupted) => Err(Refusal::Interrupted),
        Err(LoadError::OutOfMemory { .. }) => Err(Refusal::OutOfMemory),
        Err(LoadError::Graph { reason, .. }) => {
            let path = graph.path.clone();
            Err(Refusal::Warning(PreparationWarning::Failed { path, reason }))
        }
        Err(LoadError::Runtime(error)) => {
            let path = graph.path.clone();
            Err(Refusal::Warning(PreparationWarning::Failed { path, reason: error.to_string() }))
        }
    }
}

/// Makes the files private, flushes them, and writes the manifest that declares the entry whole.
fn seal(dir: &Path) -> io::Result<()> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        fs::set_permissions(entry.path(), Permissions::from_mode(0o600))?;
        cache::sync(&entry.path())?;
        files.insert(entry.file_name().to_string_lossy().into_owned(), entry.metadata()?.len());
    }
    let manifest = serde_json::to_vec(&Manifest { files }).map_err(io::Error::other)?;
    cache::write_file(&dir.join(MANIFEST), &manifest)?;
    cache::sync(dir)
}

/// Removes entries of the same graph with other keys. A process that has one loaded keeps its
/// mapping; the space is free when the last of them ends.
fn remove_stale(dir: &Path, label: &str, keep: &Path) {
    let key_length = keep.file_name().map_or(0, |name| name.len());
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let same_graph = name.to_string_lossy().strip_prefix(label).is_some_and(|rest| rest.starts_with('-'));
        if same_graph && name.len() == key_length && entry.path() != keep {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes everything of packages whose directory is gone. What another process is using right now is
/// left for the next time.
fn sweep(all: &Path, keep: &Path) {
    for package in fs::read_dir(all).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let Ok(source) = fs::read(package.join(SOURCE)) else { continue };
        if package == keep || Path::new(std::ffi::OsStr::from_bytes(&source)).is_dir() {
            continue;
        }
        if let Ok(_lock) = Lock::take(&package.join(LOCK), Hold::Exclusive, || true) {
            let _ = fs::remove_dir_all(&package);
        }
    }
}
