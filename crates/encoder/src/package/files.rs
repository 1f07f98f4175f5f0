//! Reading a package's small files, and remembering what was read.
//!
//! Every file that was opened and every directory that was listed is stamped. The stamps tell later whether the
//! package is still the one that was opened.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{FileRole, MalformedFile, PackageError};
use super::onnx::Outline;
use super::place::{Bounds, Refusal, open_regular};

/// Largest configuration file that is read, in bytes. Gemma's `tokenizer.json`, the largest in use,
/// has 34 MB and is not read by this module.
const MAX_CONFIG_BYTES: u64 = 8 * 1024 * 1024;

/// Largest file that a package may have, in bytes. Whoever needs more has no model for one server.
const MAX_FILE_BYTES: u64 = 64 << 30;

/// Most directory entries that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// Identity of a file's content without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Time of the last change of content, name or rights in nanoseconds since 1970. The system sets it, so
    /// that content replaced under an old modification time shows too.
    pub ctime_ns: i128,
    /// Inode number.
    pub inode: u64,
}

impl Stamp {
    /// The stamp of a file, from its metadata.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let time = |seconds, nanoseconds| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Stamp {
            size: metadata.len(),
            mtime_ns: time(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: time(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }
}

/// The files of one package directory, stamped as they are looked at.
#[derive(Debug, Clone)]
pub struct PackageFiles {
    dir: PathBuf,
    bounds: Bounds,
    /// Files that were opened, by path relative to `dir`.
    opened: BTreeMap<PathBuf, Stamp>,
    /// Directories that were listed, by path relative to `dir`.
    listed: BTreeMap<PathBuf, Listing>,
}

/// Names in one directory. A directory that does not exist has no names and no stamp.
#[derive(Debug, Clone, Default)]
struct Listing {
    stamp: Option<Stamp>,
    names: BTreeSet<OsString>,
}

impl PackageFiles {
    /// The files of `dir`, none of them looked at yet. Links may lead anywhere within `bounds`.
    #[must_use]
    pub fn new(dir: &Path, bounds: Bounds) -> Self {
        PackageFiles { dir: dir.to_owned(), bounds, opened: BTreeMap::new(), listed: BTreeMap::new() }
    }

    /// The file without links, opened, with its metadata. It is a regular file within the bounds.
    ///
    /// # Errors
    /// [`PackageError::Missing`], [`PackageError::Unreadable`], [`PackageError::Outside`] or
    /// [`PackageError::Malformed`] for one that is too large.
    pub fn open(&self, name: &Path, role: FileRole) -> Result<(PathBuf, File, Metadata), PackageError> {
        let path = self.dir.join(name);
        let found = self.bounds.resolve(&path).and_then(|real| {
            let (file, metadata) = open_regular(&real)?;
            Ok((real, file, metadata))
        });
        match found {
            Ok((_, _, metadata)) if metadata.len() > MAX_FILE_BYTES => {
                let source = MalformedFile::TooLarge { found: metadata.len(), limit: MAX_FILE_BYTES };
                Err(PackageError::Malformed { path, source })
            }
            Ok(found) => Ok(found),
            Err(Refusal::Outside) => Err(PackageError::Outside { path }),
            Err(Refusal::Io(source)) => Err(PackageError::from_io(path, role, source)),
        }
    }

    /// Where a file lies with links resolved.
    ///
    /// # Errors
    /// As [`PackageFiles::open`].
    pub fn real(&self, name: &Path, role: FileRole) -> Result<PathBuf, PackageError> {
        self.open(name, role).map(|(real, _, _)| real)
    }

    /// The package's directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether an entry of this name exists. Each directory is read once.
    ///
    /// # Errors
    /// [`PackageError::Unreadable`] if the directory does not let us look.
    pub fn exists(&mut self, name: &Path) -> Result<bool, PackageError> {
        let parent = name.parent().unwrap_or(Path::new(""));
        if !self.listed.contains_key(parent) {
            let path = self.dir.join(parent);
            let listing = match list(&path) {
                Ok(listing) => listing,
                Err(error) if is_absent(&error) => Listing::default(),
                Err(source) => return Err(PackageError::Unreadable { path, source }),
            };
            self.listed.insert(parent.to_owned(), listing);
        }
        let names = &self.listed[parent].names;
        Ok(name.file_name().is_some_and(|name| names.contains(name)))
    }

    /// Size of a file in bytes, after proving that it can be opened for reading.
    ///
    /// # Errors
    /// As [`PackageFiles::open`].
    pub fn require(&mut self, name: &Path, role: FileRole) -> Result<u64, PackageError> {
        self.take(name, role).map(|(_, size)| size)
    }

    /// Opens a file and remembers its stamp. Gives its size in bytes, too.
    ///
    /// # Errors
    /// As [`PackageFiles::open`].
    pub fn take(&mut self, name: &Path, role: FileRole) -> Result<(File, u64), PackageError> {
        let (_, file, metadata) = self.open(name, role)?;
        self.opened.insert(name.to_owned(), Stamp::of(&metadata));
        Ok((file, metadata.len()))
    }

    /// The text of a configuration file, `None` if it does not exist.
    ///
    /// # Errors
    /// [`PackageError::Unreadable`] or [`PackageError::Malformed`].
    pub fn text(&mut self, name: &Path) -> Result<Option<String>, PackageError> {
        if !self.exists(name)? {
            return Ok(None);
        }
        let (file, size) = self.take(name, FileRole::Config)?;
        let path = self.dir.join(name);
        if size > MAX_CONFIG_BYTES {
            let source = MalformedFile::TooLarge { found: size, limit: MAX_CONFIG_BYTES };
            return Err(PackageError::Malformed { path, source });
        }
        let mut bytes = Vec::new();
        match file.take(MAX_CONFIG_BYTES).read_to_end(&mut bytes) {
            Ok(_) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(PackageError::Malformed { path, source: MalformedFile::NotUtf8 }),
            },
            Err(source) => Err(PackageError::from_io(path, FileRole::Config, source)),
        }
    }

    /// A JSON configuration file, `None` if it does not exist.
    ///
    /// # Errors
    /// [`PackageError::Unreadable`] or [`PackageError::Malformed`].
    pub fn json(&mut self, name: &Path) -> Result<Option<Value>, PackageError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match serde_json::from_str(&text) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                Err(PackageError::Malformed { path: self.dir.join(name), source: MalformedFile::Json(error) })
            }
        }
    }

    /// The outline of a graph, after proving that the graph and its external data are whole and
    /// readable.
    ///
    /// # Errors
    /// [`PackageError::Missing`], [`PackageError::Unreadable`], [`PackageError::Truncated`] or
    /// [`PackageError::Malformed`].
    pub fn outline(&mut self, graph: &Path) -> Result<Outline, PackageError> {
        let (file, length) = self.take(graph, FileRole::Graph)?;
        let path = self.dir.join(graph);
        let outline = Outline::read(file, length).map_err(|error| PackageError::from_onnx(path, error))?;
        let beside = graph.parent().unwrap_or(Path::new(""));
        for (location, &expected) in &outline.external {
            let name = beside.join(location);
            let found = self.require(&name, FileRole::ExternalData)?;
            if found < expected {
                return Err(PackageError::Truncated { path: self.dir.join(name), expected, found });
            }
        }
        Ok(outline)
    }

    /// The files that were opened, by name, sorted.
    #[must_use]
    pub fn opened(&self) -> &BTreeMap<PathBuf, Stamp> {
        &self.opened
    }

    /// Whether a file that was opened has changed, or any file has appeared or vanished in a
    /// directory that was listed. Costs one `stat` for each.
    #[must_use]
    pub fn changed(&self) -> bool {
        let now = |name: &Path| self.dir.join(name).metadata().ok().map(|metadata| Stamp::of(&metadata));
        self.opened.iter().any(|(name, stamp)| now(name) != Some(*stamp))
            || self.listed.iter().any(|(name, listing)| now(name) != listing.stamp)
    }
}

fn list(dir: &Path) -> io::Result<Listing> {
    let stamp = Some(Stamp::of(&dir.metadata()?));
    let names = fs::read_dir(dir)?
        .take(MAX_ENTRIES)
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect::<io::Result<_>>()?;
    Ok(Listing { stamp, names })
}

/// Whether an error of looking at a path means that nothing is there.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
