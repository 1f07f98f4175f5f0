//! The identity of a model: a hash over every byte that decides an embedding.
//!
//! Hashing 350 MB takes a tenth of a second and reads every page, so the hash of each file is kept
//! in the cache directory, keyed by the file's path, size, modification time and inode.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::Stamp;
use super::{FileRole, Package, PackageError};
use crate::cache;
use crate::interrupt::InterruptCheck;

/// The model card, the one file that is read and decides no embedding.
pub(super) const CARD: &str = "README.md";
/// Changes whenever the rules of the digest do.
const CONTEXT: &str = "imgvec model package digest, version 1";
/// The same for packages that take a tower from another.
const HALVES_CONTEXT: &str = "imgvec model package digest with towers of other packages, version 1";

/// Identity of a model: equal digests mean equal embeddings, up to the runtime's rounding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelDigest(pub [u8; 32]);

impl fmt::Display for ModelDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for ModelDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ModelDigest({self})")
    }
}

/// Hashes of a package's files, as they are kept in the cache directory.
#[derive(Default, Serialize, Deserialize)]
struct Memo {
    files: BTreeMap<PathBuf, (Stamp, String)>,
}

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// A file could not be read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The caller's interrupt check returned true.
    #[error("hashing was interrupted")]
    Interrupted,
}

impl Package {
    /// The digest over graphs, external data, tokenizer and configuration: each file's name, length
    /// and content, in the order of the names. Independent of where the package lies.
    ///
    /// With a `cache_dir`, files that are unchanged since they were last hashed are not read. A cache
    /// that cannot be read or written costs time, never an error.
    ///
    /// # Errors
    /// [`PackageError::Unreadable`] or [`PackageError::Missing`] for a file that has gone since.
    pub fn digest(&self, cache_dir: Option<&Path>) -> Result<ModelDigest, PackageError> {
        match self.digest_interruptible(cache_dir, crate::interrupt::never_interrupted) {
            Ok(digest) => Ok(digest),
            Err(DigestError::Package(error)) => Err(error),
            Err(DigestError::Interrupted) => unreachable!("the check never asks to stop"),
        }
    }

    /// As [`Package::digest`], stopping within about a millisecond of `interrupt` returning true.
    ///
    /// # Errors
    /// As [`Package::digest`], and [`DigestError::Interrupted`].
    pub fn digest_interruptible(
        &self,
        cache_dir: Option<&Path>,
        interrupt: InterruptCheck,
    ) -> Result<ModelDigest, DigestError> {
        let memo_file = cache_dir.map(|dir| dir.join("digests").join(format!("{}.json", self.path_key())));
        let mut memo: Memo = memo_file
            .as_ref()
            .and_then(|file| std::fs::read(file).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();

        let mut total = blake3::Hasher::new_derive_key(CONTEXT);
        let mut fresh = Memo::default();
        let mut hashed = false;
        for (name, _) in self.files.opened().iter().filter(|(name, _)| name.as_path() != Path::new(CARD)) {
            let (_, file, metadata) = self.files.open(name, FileRole::Config)?;
            let stamp = Stamp::of(&metadata);
            let known = memo.files.remove(name).filter(|(known, _)| *known == stamp);
            let hash = match known {
                Some((_, hash)) => hash,
                None => {
                    hashed = true;
                    hash_file(&self.dir.join(name), file, interrupt)?
                }
            };
            let label = name.to_string_lossy();
            for part in [label.as_bytes(), &stamp.size.to_le_bytes(), hash.as_bytes()] {
                total.update(&(part.len() as u64).to_le_bytes());
                total.update(part);
            }
            fresh.files.insert(name.clone(), (stamp, hash));
        }
        if let (Some(file), true) = (memo_file, hashed)
            && let Ok(bytes) = serde_json::to_vec(&fresh)
        {
            // A cache that cannot be written costs time, never an error.
            let _ = cache::write_file(&file, &bytes);
        }
        let own = *total.finalize().as_bytes();
        if self.lenders().next().is_none() {
            return Ok(ModelDigest(own));
        }
        // What a lender is called does not matter, and where it lies neither.
        let mut total = blake3::Hasher::new_derive_key(HALVES_CONTEXT);
        total.update(&own);
        for (modality, lender) in self.lenders() {
            total.update(modality.name().as_bytes());
            total.update(&lender.digest_interruptible(cache_dir, interrupt)?.0);
        }
        Ok(ModelDigest(*total.finalize().as_bytes()))
    }

    /// A short name for the package's place, for files that belong to it in the cache directory.
    pub(crate) fn path_key(&self) -> String {
        let place = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        blake3::hash(place.as_os_str().as_bytes()).to_hex()[..16].to_owned()
    }
}

/// The hash of a file's content as hexadecimal text, read in pieces of 1 MiB.
fn hash_file(path: &Path, mut file: File, interrupt: InterruptCheck) -> Result<String, DigestError> {
    let unreadable = |source| PackageError::from_io(path.to_owned(), FileRole::Config, source);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        if interrupt() {
            return Err(DigestError::Interrupted);
        }
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            count => hasher.update(&buffer[..count]),
        };
    }
}
