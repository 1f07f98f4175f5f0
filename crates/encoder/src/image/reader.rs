//! The input of every decoder: a byte slice that asks, while it is being read, whether to stop.
//!
//! Decoders offer no way to cancel them, but all of them read, and all of them give up when
//! reading fails. A hostile image can make much work out of few bytes (one byte of a progressive
//! JPEG may stand for thousands of blocks), so the check runs every few hundred bytes and the
//! buffered slices handed out are short.

use std::cell::Cell;
use std::io::{self, BufRead, Read, Seek, SeekFrom};

use super::error::ImageError;
use crate::interrupt::InterruptCheck;

/// Bytes, or seeks, between two checks. A check is a load and a call, a few nanoseconds.
const CHECK_EVERY: usize = 256;
/// Longest slice that `fill_buf` shows: inflate can turn it into 4 MiB, 10 ms of work.
const SLICE: usize = 4096;

/// Reads from a slice and fails, once and for good, when the caller wants to stop.
///
/// Failing for good matters: JPEG's bit reader ignores a single failed read.
pub(super) struct Reader<'a> {
    data: &'a [u8],
    position: usize,
    until_check: usize,
    interrupt: InterruptCheck,
    interrupted: &'a Cell<bool>,
}

impl<'a> Reader<'a> {
    /// `interrupted` tells afterwards why the decoder failed.
    pub(super) fn new(data: &'a [u8], interrupt: InterruptCheck, interrupted: &'a Cell<bool>) -> Self {
        Self { data, position: 0, until_check: 0, interrupt, interrupted }
    }

    /// A reader of other data that the same caller waits for.
    pub(super) fn over<'b>(&self, data: &'b [u8]) -> Reader<'b>
    where
        'a: 'b,
    {
        Reader::new(data, self.interrupt, self.interrupted)
    }

    /// For decoders that read no bytes through this: counts `amount` of them.
    #[inline]
    pub(super) fn checkpoint(&mut self, amount: usize) -> Result<(), ImageError> {
        self.spend(amount.max(1)).map_err(|_| ImageError::Interrupted)
    }

    #[inline]
    fn spend(&mut self, amount: usize) -> io::Result<()> {
        match self.until_check.checked_sub(amount) {
            Some(left) => {
                self.until_check = left;
                Ok(())
            }
            None => self.check(),
        }
    }

    #[cold]
    fn check(&mut self) -> io::Result<()> {
        if self.interrupted.get() || (self.interrupt)() {
            self.interrupted.set(true);
            // The budget stays empty, so that every later read comes here again.
            self.until_check = 0;
            return Err(io::Error::other("interrupted"));
        }
        self.until_check = CHECK_EVERY;
        Ok(())
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.data.get(self.position..).unwrap_or_default()
    }
}

impl Read for Reader<'_> {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.rest();
        let len = buffer.len().min(rest.len());
        self.spend(len.max(1))?;
        if len == 1 {
            buffer[0] = rest[0];
        } else {
            buffer[..len].copy_from_slice(&rest[..len]);
        }
        self.position += len;
        Ok(len)
    }
}

impl BufRead for Reader<'_> {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.spend(1)?;
        let rest = self.rest();
        Ok(&rest[..rest.len().min(SLICE)])
    }

    #[inline]
    fn consume(&mut self, amount: usize) {
        self.position += amount;
        self.until_check = self.until_check.saturating_sub(amount);
    }
}

impl Seek for Reader<'_> {
    #[inline]
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.spend(1)?;
        let (base, offset) = match to {
            SeekFrom::Start(offset) => (0, i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?),
            SeekFrom::End(offset) => (self.data.len(), offset),
            SeekFrom::Current(offset) => (self.position, offset),
        };
        let position = isize::try_from(offset).ok().and_then(|offset| base.checked_add_signed(offset));
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::never_interrupted;

    #[test]
    fn reads_and_seeks_like_a_cursor() {
        let interrupted = Cell::new(false);
        let data: Vec<u8> = (0..=255).cycle().take(10_000).collect();
        let mut reader = Reader::new(&data, never_interrupted, &interrupted);
        let mut copy = Vec::new();
        reader.read_to_end(&mut copy).unwrap();
        assert_eq!(copy, data);
        assert_eq!(reader.seek(SeekFrom::End(-3)).unwrap(), 9_997);
        assert_eq!(reader.fill_buf().unwrap(), &data[9_997..]);
        reader.seek(SeekFrom::Start(1)).unwrap();
        assert_eq!(reader.fill_buf().unwrap().len(), SLICE);
        assert!(reader.seek(SeekFrom::Current(-2)).is_err());
        // Past the end is allowed, as it is for files, and reads nothing.
        reader.seek(SeekFrom::Start(20_000)).unwrap();
        assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0);
    }

    #[test]
    fn an_interrupt_fails_every_later_read() {
        let interrupted = Cell::new(false);
        let mut reader = Reader::new(&[7; 5_000], || true, &interrupted);
        assert!(reader.read(&mut [0; 1]).is_err());
        assert!(reader.fill_buf().is_err());
        assert!(reader.seek(SeekFrom::Start(0)).is_err());
        assert!(interrupted.get());
    }
}
