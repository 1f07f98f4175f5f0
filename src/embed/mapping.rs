//! Files of the cache directory as memory that processes share.

use imgvec_encoder::text::Bytes;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// A file, mapped read-only until this is dropped.
struct Mapping {
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: memory that nobody writes may be read by any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: mapped for `length` bytes until dropped. The file is the server's own and is never written again
        // once it has its name: a new one takes its place.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nothing borrowed from it is left.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

/// Maps a file that the server made.
pub fn map(file: &File) -> io::Result<Box<dyn Bytes>> {
    let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    let size = NonZeroUsize::new(length).ok_or(io::ErrorKind::UnexpectedEof)?;
    // SAFETY: a new mapping at a place of the system's choice overlaps with nothing.
    let start = unsafe { mmap(None, size, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0) }?;
    Ok(Box::new(Mapping { start, length }))
}
