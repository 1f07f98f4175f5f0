//! Server processes as the operating system sees them: signals, children, memory.

use std::fs;
use std::process::Command;
use std::time::Duration;

/// Sends a signal, named as for `kill`. A process that is gone already is no error.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid} 2>/dev/null")]).status();
    status.expect("a shell can be started");
}

/// The living children of a process.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let listed = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    listed.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// The kernel's letter for what a process does; `None` once it is gone.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

pub(super) fn is_alive(pid: u32) -> bool {
    // A zombie that nobody has waited for yet holds no memory and no lock.
    state(pid).is_some_and(|state| state != 'Z')
}

/// Whether a process has come to a stop, or is gone.
pub(super) fn is_stopped(pid: u32) -> bool {
    state(pid).is_none_or(|state| matches!(state, 'T' | 'Z'))
}

/// Processor time that a process has used, all its threads together; `None` once it is gone. Unlike the clock it does
/// not go on while other programs have the processor.
pub fn processor_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold spaces.
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    // Linux counts in hundredths of a second for all its programs.
    Some(Duration::from_millis(10 * (ticks()? + ticks()?)))
}

/// Memory of one process in bytes, from the kernel's `smaps_rollup`.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Everything mapped and present, shared or not.
    pub resident: u64,
    /// Pages that are in no file: heap, stacks, and the server's shared memory.
    pub anonymous: u64,
    /// Pages that no other process maps and that were written to.
    pub private_dirty: u64,
    /// Each page divided by the number of processes that map it.
    pub proportional: u64,
}

impl Memory {
    /// # Panics
    /// If the process is gone or belongs to somebody else.
    pub fn of(pid: u32) -> Self {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            1024 * kilobytes.unwrap_or_else(|| panic!("{path} has no {name}"))
        };
        Self {
            resident: field("Rss"),
            anonymous: field("Anonymous"),
            private_dirty: field("Private_Dirty"),
            proportional: field("Pss"),
        }
    }
}
