//! Temporary files of a build: the server's own, so that `temp_file_limit` and `temp_tablespaces` hold, and that
//! nothing stays when a statement fails.

use crate::fault;
use imgvec_ann::build::spill::{Spill, SpillFile};
use pgrx::pg_sys;
use std::io;
use std::thread::panicking;

/// The server's files have segments of this size, and positions are told by segment and offset.
const SEGMENT_BYTES: u64 = 1 << 30;

/// Makes temporary files of the current transaction.
pub struct TemporaryFiles {
    context: pg_sys::MemoryContext,
}

impl TemporaryFiles {
    /// # Safety
    /// The files are dropped before the current memory context and the current resource owner are released.
    pub unsafe fn new() -> Self {
        // SAFETY: plain read of a global of the server.
        Self { context: unsafe { pg_sys::CurrentMemoryContext } }
    }
}

impl Spill for TemporaryFiles {
    fn create(&mut self) -> io::Result<Box<dyn SpillFile>> {
        fault::point("create a temporary file");
        // SAFETY: the context is alive by the contract of `new`. The current one may be that of a single row,
        // which would take the file's buffer with it.
        let file = unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.context);
            let file = pg_sys::BufFileCreateTemp(false);
            pg_sys::MemoryContextSwitchTo(before);
            file
        };
        Ok(Box::new(TemporaryFile { file, at: 0 }))
    }
}

struct TemporaryFile {
    file: *mut pg_sys::BufFile,
    /// Where the server's position is: going there again would cost the buffer.
    at: u64,
}

impl TemporaryFile {
    fn seek(&mut self, at: u64) -> io::Result<()> {
        if self.at == at {
            return Ok(());
        }
        let segment = i32::try_from(at / SEGMENT_BYTES).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let offset = (at % SEGMENT_BYTES).cast_signed();
        fault::point("seek in a temporary file");
        // SAFETY: an open file.
        if unsafe { pg_sys::BufFileSeek(self.file, segment, offset, 0) } != 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at = at;
        Ok(())
    }
}

impl SpillFile for TemporaryFile {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        fault::point("write a temporary file");
        pgrx::check_for_interrupts!();
        self.seek(at)?;
        // SAFETY: an open file; the server only reads the bytes.
        unsafe { pg_sys::BufFileWrite(self.file, bytes.as_ptr().cast_mut().cast(), bytes.len()) };
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        fault::point("read a temporary file");
        pgrx::check_for_interrupts!();
        self.seek(at)?;
        // SAFETY: an open file; the slice takes as many bytes.
        let count = unsafe { pg_sys::BufFileRead(self.file, bytes.as_mut_ptr().cast(), bytes.len()) };
        self.at += count as u64;
        if count < bytes.len() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // After an error the server closes its files itself.
        if !panicking() {
            // SAFETY: an open file that nobody uses any more.
            unsafe { pg_sys::BufFileClose(self.file) };
        }
    }
}
