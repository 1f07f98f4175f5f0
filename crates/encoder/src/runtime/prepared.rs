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
//! prepared/<package>/=tokenizer-<key>/ tokenizer, manifest.json
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
use crate::interrupt::InterruptCheck;
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
    #[error("\"{}\" has {available} bytes free, but {needed} are needed", path.display())]
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

/// An entry that stays in place while this is held.
pub(crate) struct Prepared {
    /// The file that it is about.
    pub file: PathBuf,
    /// Bytes of the file that is mapped.
    pub mapped_bytes: u64,
    lock: Lock,
}

/// Whether something would be prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// There is nothing to prepare, it is done, somebody is at it, or it cannot be done.
    Nothing,
    /// It would be.
    Wanted,
}

/// What an entry is made for and made of.
pub(crate) struct Entry<'a> {
    /// Where it lies.
    pub place: &'a Place<'a>,
    /// The first part of its name. Entries of one label replace each other.
    pub label: String,
    /// Everything beside the model's digest that decides its bytes.
    pub parts: Vec<Vec<u8>>,
    /// The file without which it is none.
    pub main: &'static str,
    /// The file that is mapped.
    pub mapped: &'static str,
    /// Bytes that it takes at most.
    pub needed: u64,
}

/// Why there is no prepared form.
pub(crate) enum Refusal {
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
    Entry::of_graph(place, graph).obtain(options.interrupt, |dir| optimize(graph, dir, options))
}

/// Whether `graph` would be prepared.
pub(super) fn outlook(place: &Place<'_>, graph: &Graph) -> Outlook {
    if graph.bytes < MIN_BYTES { Outlook::Nothing } else { Entry::of_graph(place, graph).outlook() }
}

impl<'a> Entry<'a> {
    fn of_graph(place: &'a Place<'a>, graph: &Graph) -> Self {
        let version = library::info().map(|info| info.version.as_str()).unwrap_or_default();
        Entry {
            place,
            label: graph.path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            parts: vec![
                graph.file.as_os_str().as_bytes().to_vec(),
                version.as_bytes().to_vec(),
                cpu_features().into_bytes(),
                FORMAT.to_le_bytes().to_vec(),
            ],
            main: GRAPH,
            mapped: WEIGHTS,
            needed: graph.bytes.saturating_mul(SPACE_FACTOR),
        }
    }

    /// The directory of the package's entries.
    fn dir(&self) -> PathBuf {
        self.place.cache_dir.join("prepared").join(&self.place.package_key)
    }

    fn path(&self) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        for part in std::iter::once(&self.place.digest.0[..]).chain(self.parts.iter().map(Vec::as_slice)) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        self.dir().join(format!("{}-{}", self.label, &hasher.finalize().to_hex()[..24]))
    }

    /// The entry, made now by `make` in an empty directory if there is none.
    pub fn obtain(
        &self,
        interrupt: InterruptCheck,
        make: impl Fn(&Path) -> Result<(), Refusal>,
    ) -> Result<Prepared, Refusal> {
        let (dir, entry) = (self.dir(), self.path());
        let lock_file = dir.join(LOCK);
        let take = |hold| match Lock::take(&lock_file, hold, interrupt) {
            Ok(lock) => Ok(lock),
            Err(LockError::Interrupted) => Err(Refusal::Interrupted),
            Err(LockError::Io(error)) => Err(Refusal::from((lock_file.clone(), error))),
        };
        // Once to find none, once to find the one that was made, once more if it was removed in between.
        for _ in 0..3 {
            let lock = take(Hold::Shared)?;
            if let Some(mapped_bytes) = whole(&entry, self.main, self.mapped) {
                return Ok(Prepared { file: entry.join(self.main), mapped_bytes, lock });
            }
            drop(lock);
            let lock = take(Hold::Exclusive)?;
            if whole(&entry, self.main, self.mapped).is_none() {
                self.make(&dir, &entry, &make)?;
                remove_stale(&dir, &self.label, &entry);
                sweep(&self.place.cache_dir.join("prepared"), &dir);
            }
            drop(lock);
        }
        let reason = "it was removed as often as it was made".to_owned();
        Err(Refusal::Warning(PreparationWarning::Failed { path: entry, reason }))
    }

    /// Whether the entry would be made.
    pub fn outlook(&self) -> Outlook {
        let dir = self.dir();
        // Whoever holds the lock alone makes it, or removes it.
        let Ok(lock) = Lock::take(&dir.join(LOCK), Hold::Shared, || true) else { return Outlook::Nothing };
        let is_whole = whole(&self.path(), self.main, self.mapped).is_some();
        drop(lock);
        if is_whole || self.shortage(&dir).is_some() { Outlook::Nothing } else { Outlook::Wanted }
    }

    /// Bytes that are free, if they are fewer than needed.
    fn shortage(&self, dir: &Path) -> Option<u64> {
        let space = nix::sys::statvfs::statvfs(dir).ok()?;
        let available = space.blocks_available() * space.fragment_size();
        (available < self.needed).then_some(available)
    }

    /// Makes the entry. The caller holds the lock exclusively.
    fn make(
        &self,
        dir: &Path,
        entry: &Path,
        make: &impl Fn(&Path) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let unwritable = |path: &Path| {
            let path = path.to_owned();
            move |error| Refusal::from((path.clone(), error))
        };
        if let Some(available) = self.shortage(dir) {
            let (path, needed) = (dir.to_owned(), self.needed);
            return Err(Refusal::Warning(PreparationWarning::NoSpace { path, needed, available }));
        }
        // Whoever left this behind is gone, since we hold the lock.
        let temporary = dir.join("unfinished");
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(unwritable(&temporary))?;
        }
        cache::create_dir(&temporary).map_err(unwritable(&temporary))?;
        let made = make(&temporary).and_then(|()| {
            seal(&temporary).map_err(unwritable(&temporary))?;
            if entry.exists() {
                fs::remove_dir_all(entry).map_err(unwritable(entry))?;
            }
            fs::rename(&temporary, entry).map_err(unwritable(entry))?;
            cache::sync(dir).map_err(unwritable(dir))?;
            let package = self.place.package_dir;
            let source = package.canonicalize().unwrap_or_else(|_| package.to_owned());
            cache::write_file(&dir.join(SOURCE), source.as_os_str().as_bytes()).map_err(unwritable(dir))
        });
        if made.is_err() {
            let _ = fs::remove_dir_all(&temporary);
        }
        made
    }
}

/// Removes an entry that could not be loaded, so that the next process makes it again.
pub(crate) fn discard(prepared: Prepared) {
    let Some(entry) = prepared.file.parent() else { return };
    let lock_file = entry.with_file_name(LOCK);
    drop(prepared.lock);
    // Another process that has it loaded keeps its mapping.
    if let Ok(_lock) = Lock::take(&lock_file, Hold::Exclusive, || true) {
        let _ = fs::remove_dir_all(entry);
    }
}

/// What decides which kernels, and so which order of weights, the library chooses: the processor's
/// features as the kernel lists them. A longer list than needed makes the form again too often, never
/// too rarely.
fn cpu_features() -> String {
    let listed = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let features = listed.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    format!("{} {}", std::env::consts::ARCH, features.unwrap_or_default())
}

/// Size of the mapped file if the entry is there and has the sizes that its manifest says.
fn whole(entry: &Path, main: &str, mapped: &str) -> Option<u64> {
    let manifest: Manifest = serde_json::from_slice(&fs::read(entry.join(MANIFEST)).ok()?).ok()?;
    let matches = |(name, size): (&String, &u64)| {
        entry.join(name).metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == *size)
    };
    let complete = manifest.files.contains_key(main) && manifest.files.iter().all(matches);
    complete.then(|| manifest.files.get(mapped).copied().unwrap_or(0))
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
