//! What those who run a server do with it: dump, replicate, pool connections, partition, spread over several
//! servers, upgrade. Each module tells one story; the pages that recommend something take their SQL from here.

mod dump;
pub(crate) mod pages;
mod partitions;
mod pooler;
mod replication;
mod shards;
mod statements;
mod upgrade;

use std::thread;
use std::time::{Duration, Instant};

/// Waits until `condition` holds, for a minute at most.
#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited a minute for this: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
