//! Files in the cache directory: private to the server, whole or absent, one writer at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use crate::interrupt::InterruptCheck;

/// How often a waiting process looks whether a lock is free, and whether it should stop.
const POLL: Duration = Duration::from_millis(20);

/// Creates a directory and those above it, readable by the owner only.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Writes a small file under a temporary name, flushes it to disk and renames it, so that a reader
/// or a crash meets the old file or the new one.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    create_dir(dir)?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let result = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Flushes a file or directory to disk.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// How a lock is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Together with other readers.
    Shared,
    /// Alone.
    Exclusive,
}

/// Why a lock was not taken.
pub(crate) enum LockError {
    /// The caller's interrupt check returned true.
    Interrupted,
    /// The lock file cannot be created or locked.
    Io(io::Error),
}

/// A lock on a file of the cache directory, free again when it is dropped or the process ends.
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock, never read")] File);

impl Lock {
    /// Takes the lock, waiting for others without ignoring an interrupt.
    pub(crate) fn take(path: &Path, hold: Hold, interrupt: InterruptCheck) -> Result<Lock, LockError> {
        if let Some(dir) = path.parent() {
            create_dir(dir).map_err(LockError::Io)?;
        }
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(LockError::Io)?;
        loop {
            let attempt = match hold {
                Hold::Shared => file.try_lock_shared(),
                Hold::Exclusive => file.try_lock(),
            };
            match attempt {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
                Err(TryLockError::WouldBlock) if interrupt() => return Err(LockError::Interrupted),
                Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
            }
        }
    }
}
