//! Where files of packages may lie, and how they are opened.
//!
//! Links are followed, since the cache of Hugging Face consists of them, but not out of the directories
//! that the caller allows: a package that was unpacked from an archive must not name files of the server.
//! Only regular files are opened. Opening a pipe waits for a writer, and opening a device may do anything.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Directories that files may lie below, with links resolved.
#[derive(Debug, Clone)]
pub struct Bounds(Vec<PathBuf>);

/// Why a file was not found where it may lie.
#[derive(Debug)]
pub enum Refusal {
    /// The system's answer, or that it is no regular file.
    Io(io::Error),
    /// With links resolved it lies elsewhere.
    Outside,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::Io(error)
    }
}

impl Bounds {
    /// Bounds of `directories`. Those that do not exist allow nothing.
    ///
    /// The cache of Hugging Face keeps `snapshots/<revision>/<file>` as links to `../../blobs/<hash>`: a
    /// directory of snapshots, or one snapshot, allows the blobs beside it.
    pub fn of<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut bounds = Vec::new();
        for directory in directories.into_iter().filter_map(|directory| directory.canonicalize().ok()) {
            let snapshots = directory.ancestors().take(2).find(|above| above.ends_with("snapshots"));
            let blobs = snapshots.and_then(|snapshots| snapshots.with_file_name("blobs").canonicalize().ok());
            bounds.extend(blobs);
            bounds.push(directory);
        }
        Bounds(bounds)
    }

    /// The path without links, if it lies within.
    pub fn resolve(&self, path: &Path) -> Result<PathBuf, Refusal> {
        let real = path.canonicalize()?;
        if self.0.iter().any(|bound| real.starts_with(bound)) { Ok(real) } else { Err(Refusal::Outside) }
    }
}

/// Opens a regular file at a path without links.
pub(crate) fn open_regular(real: &Path) -> io::Result<(File, Metadata)> {
    let no_file = || io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
    if !real.symlink_metadata()?.is_file() {
        return Err(no_file());
    }
    // Whatever takes its place in between does not make us wait either.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(real)?;
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok((file, metadata)) } else { Err(no_file()) }
}
