//! Files for what does not fit the memory of a build, as the caller provides them.
//!
//! A server has temporary files of its own, with limits and tablespaces, that vanish when a statement fails;
//! [`MemorySpill`] is for tests. Only the thread that calls the builder touches them.

use std::io;

/// Makes temporary files.
pub trait Spill {
    /// A new, empty file. It is gone when it is dropped.
    ///
    /// # Errors
    /// Those of the file system.
    fn create(&mut self) -> io::Result<Box<dyn SpillFile>>;
}

/// A temporary file.
pub trait SpillFile {
    /// Writes at an offset that is not after the end.
    ///
    /// # Errors
    /// Those of the file system.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Reads what was written.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::UnexpectedEof`] after the end.
    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// Files in memory, for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemorySpill;

impl Spill for MemorySpill {
    fn create(&mut self) -> io::Result<Box<dyn SpillFile>> {
        Ok(Box::new(MemoryFile(Vec::new())))
    }
}

struct MemoryFile(Vec<u8>);

impl MemoryFile {
    fn range(&self, at: u64, len: usize) -> Option<std::ops::Range<usize>> {
        let at = usize::try_from(at).ok()?;
        (at <= self.0.len()).then_some(at..at.checked_add(len)?)
    }
}

impl SpillFile for MemoryFile {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let range = self.range(at, bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        if range.end > self.0.len() {
            self.0.resize(range.end, 0);
        }
        self.0[range].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let range = self.range(at, bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(self.0.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// A file that grows at its end.
pub(super) struct Log {
    file: Box<dyn SpillFile>,
    len: u64,
}

impl Log {
    pub fn new(spill: &mut dyn Spill) -> io::Result<Self> {
        Ok(Self { file: spill.create()?, len: 0 })
    }

    /// Bytes written.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(self.len, bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    pub fn overwrite(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(at + bytes.len() as u64 <= self.len);
        self.file.write_at(at, bytes)
    }

    pub fn read_at(&mut self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_at(at, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut log = Log::new(&mut MemorySpill).unwrap();
        log.append(b"hello").unwrap();
        log.append(b", world").unwrap();
        log.overwrite(1, b"a").unwrap();
        let mut bytes = [0; 12];
        log.read_at(0, &mut bytes).unwrap();
        assert_eq!((&bytes, log.len()), (b"hallo, world", 12));
        assert_eq!(log.read_at(8, &mut bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let mut file = MemorySpill.create().unwrap();
        assert_eq!(file.write_at(1, b"x").unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
