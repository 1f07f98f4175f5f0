//! Memory of the process: how much may be used, how much is used, and what to do when there is none.
//!
//! A failed allocation in Rust ends the process, and with it every session of a database server. So
//! whatever grows with the input is asked for before it is needed ([`reserve`]), and the caller keeps
//! some memory aside for the rest and says when that was touched ([`ProcessMemory::is_short`]).

use std::fs::File;
use std::hint::black_box;
use std::io::Read;

use thiserror::Error;

/// There is not as much memory as something needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("there is not enough memory to {purpose}")]
pub struct OutOfMemory {
    /// What it was for, as "tokenize a text".
    pub purpose: &'static str,
}

/// What an encoder is told about the memory of its process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessMemory {
    /// Bytes that one run of a graph may take.
    pub max_run_bytes: u64,
    /// Gives memory that is free inside the allocator back to the system. Called after runs that took
    /// much, when their memory is free.
    pub give_back: fn(),
    /// Whether an allocation has failed and memory was used that is kept for this case.
    pub is_short: fn() -> bool,
}

impl Default for ProcessMemory {
    /// 256 MiB for a run, and a process that cannot give back or keep aside anything.
    fn default() -> Self {
        ProcessMemory { max_run_bytes: 256 << 20, give_back: || (), is_short: || false }
    }
}

impl ProcessMemory {
    /// # Errors
    /// [`OutOfMemory`] if memory that is kept aside was needed.
    pub(crate) fn check(&self, purpose: &'static str) -> Result<(), OutOfMemory> {
        if (self.is_short)() { Err(OutOfMemory { purpose }) } else { Ok(()) }
    }
}

/// Less than this is not asked for: what is kept aside has room for it, and asking costs short texts a percent.
const LEAST_RESERVED: usize = 64 << 10;

/// Asks for so many bytes and gives them back, so that they can be had right after.
///
/// # Errors
/// [`OutOfMemory`] if the system refuses them.
pub(crate) fn reserve(bytes: usize, purpose: &'static str) -> Result<(), OutOfMemory> {
    if bytes < LEAST_RESERVED {
        return Ok(());
    }
    let mut room: Vec<u8> = Vec::new();
    let result = room.try_reserve_exact(bytes);
    // An allocation that nobody looks at may be left out by the compiler.
    black_box(&mut room);
    result.map_err(|_| OutOfMemory { purpose })
}

/// Bytes of this process that are in no file and present in memory, or `None` where the system does
/// not tell. Two reads of a small file of the kernel, about 5 microseconds.
pub(crate) fn private_bytes() -> Option<u64> {
    // Sizes in pages: all, resident, resident and of a file or shared.
    let mut text = [0; 128];
    let length = File::open("/proc/self/statm").ok()?.read(&mut text).ok()?;
    let mut pages = std::str::from_utf8(&text[..length]).ok()?.split_ascii_whitespace().skip(1);
    let resident: u64 = pages.next()?.parse().ok()?;
    let shared: u64 = pages.next()?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(resident.saturating_sub(shared) * u64::try_from(page).ok()?)
}

/// Whether a library's answer says that it was refused memory. The words are those of the C++ and C
/// libraries, of the dynamic linker, and of ONNX Runtime's allocators.
pub(crate) fn speaks_of_memory(reason: &str) -> bool {
    const WORDS: [&str; 9] = [
        "bad_alloc",
        "bad allocation",
        "Failed to allocate",
        "failed to allocate",
        "Cannot allocate memory",
        "cannot allocate memory",
        "failed to map segment",
        "cannot map zero-fill pages",
        "Out of memory",
    ];
    WORDS.iter().any(|words| reason.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_refused_without_an_abort() {
        assert!(reserve(1 << 20, "test").is_ok());
        assert_eq!(reserve(1 << 50, "test"), Err(OutOfMemory { purpose: "test" }));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn private_memory_is_seen() {
        let before = private_bytes().unwrap();
        let block = black_box(vec![1_u8; 64 << 20]);
        assert!(private_bytes().unwrap() >= before + (48 << 20));
        drop(block);
    }
}
