//! `ann_index_check`: whether an index is sound, and has every row of its table.

use super::Opened;
use super::index_rows::{IndexRow, IndexRows, digest};
use crate::am::build::memory_bytes;
use crate::am::{cache, waiting};
use crate::error::index::{damage, not_valid};
use crate::error::{Code, OrRaise, Report};
use crate::server::security;
use crate::types::datum::NewRecord;
use imgvec_ann::graph::check::{self, CheckReport};
use imgvec_ann::layout::HeapTid;
use pgrx::prelude::*;
use std::ops::Range;

/// Problems that an error lists.
const LISTED: usize = 5;

/// Verifies an index page by page and node by node, and, when asked, that every row of the table is in it.
///
/// What changes meanwhile may look wrong, and so may a row that is being written. So a check of the rows keeps writers
/// away. Without it the index is read beside them, and only what looks wrong then is looked at again without them.
#[pg_extern(sql = false)]
fn ann_index_check(index: pg_sys::Oid, heapallindexed: bool) -> NewRecord {
    // SAFETY: plain question.
    let in_recovery = unsafe { pg_sys::RecoveryInProgress() };
    // A standby cannot take a lock that keeps replay away.
    if in_recovery || !heapallindexed {
        let opened = open(index, pg_sys::AccessShareLock);
        let replayed = replayed();
        match examine(&opened, heapallindexed) {
            Ok(found) if found.count() == 0 => return counts(&found.report),
            found if in_recovery => {
                if replayed != self::replayed() {
                    is_replaying(&opened);
                }
                found.or_raise().raise(&opened);
            }
            _ => {}
        }
    }
    let opened = open(index, pg_sys::ShareLock);
    let found = examine(&opened, heapallindexed).or_raise();
    if found.count() > 0 {
        found.raise(&opened);
    }
    counts(&found.report)
}

fn open(index: pg_sys::Oid, lock: u32) -> Opened {
    Opened::new(index, lock, |subject| {
        if !security::owns(subject.index) {
            Report::new(Code::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of the index to check it")
                .detail("The check reads the whole index, and may lock the table against writers.")
                .hint("Have the owner check it, or a member of the owner's role.")
                .raise();
        }
    })
}

/// What a check found.
struct Found {
    report: CheckReport,
    /// Of the rows.
    problems: Problems,
}

impl Found {
    fn count(&self) -> u64 {
        self.report.problem_count + self.problems.count
    }

    fn raise(self, opened: &Opened) -> ! {
        let count = self.count();
        let told = self.report.problems.iter().map(ToString::to_string).chain(self.problems.told);
        let told: Vec<String> = told.take(LISTED).collect();
        Report::new(Code::ERRCODE_INDEX_CORRUPTED, format!("index \"{}\" is damaged", opened.index.name()))
            .detail(format!("Problems found: {count}, such as: {}.", told.join("; ")))
            .hint("REINDEX the index.")
            .raise()
    }
}

/// # Errors
/// A report of a page that cannot be read.
fn examine(opened: &Opened, heapallindexed: bool) -> Result<Found, Report> {
    let is_waiting = waiting::is_waiting(*opened.index);
    if !is_waiting {
        cache::require_pages(&opened.pages());
    }
    if heapallindexed && !opened.index.is_valid() {
        not_valid(*opened.index).raise();
    }
    let (pages, table_blocks) = (opened.pages(), opened.heap.block_count(pg_sys::ForkNumber::MAIN_FORKNUM));
    let mut rows = IndexRows::new(table_blocks, memory_bytes());
    let mut problems = Problems::default();
    let report = if is_waiting {
        CheckReport::default()
    } else {
        let row = |tid: HeapTid, keys: &[u8]| {
            if !opened.heap.has_block(tid.block) {
                problems
                    .tell(|| format!("row ({},{}) lies beyond the end of the table", tid.block, tid.offset));
            }
            rows.add(IndexRow::new(tid, keys));
        };
        check::check(&pages, row).map_err(|error| damage(*opened.index, error))?
    };
    for part in rows.parts() {
        let mut read = Ok(());
        let indexed = rows.sorted(&part, |each| {
            read = check::rows(&pages, |tid, keys| each(IndexRow::new(tid, keys)))
                .map_err(|error| damage(*opened.index, error));
        });
        read?;
        for tid in indexed.windows(2).filter(|pair| pair[0].tid == pair[1].tid).map(|pair| pair[0].tid) {
            problems.tell(|| format!("row ({},{}) is indexed twice", tid.block, tid.offset));
        }
        if heapallindexed {
            let wrong = |tid: HeapTid, what: &str| {
                problems.tell(|| format!("row ({},{}) {what}", tid.block, tid.offset));
            };
            find_wrong(opened, &part, &indexed, wrong);
        }
    }
    Ok(Found { report, problems })
}

fn is_replaying(opened: &Opened) -> ! {
    Report::new(
        Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("index \"{}\" cannot be checked while changes are replayed", opened.index.name()),
    )
    .detail("A standby cannot block changes, and pages read before and after a change may not fit together.")
    .hint("Call pg_wal_replay_pause(), check, and call pg_wal_replay_resume(); or check on the primary.")
    .raise()
}

/// How far a standby has replayed the log; 0 on a primary.
fn replayed() -> pg_sys::XLogRecPtr {
    // SAFETY: plain questions.
    unsafe {
        if pg_sys::RecoveryInProgress() { pg_sys::GetXLogReplayRecPtr(std::ptr::null_mut()) } else { 0 }
    }
}

fn counts(report: &CheckReport) -> NewRecord {
    let number = |n: u64| Some(i64::try_from(n).expect("a count"));
    NewRecord::new()
        .column(number(report.live))
        .column(number(report.dead))
        .column(number(report.free))
        .column(number(report.rows))
        .column(number(report.edges))
        .column(number(report.stale_edges))
        .column(number(report.unreachable))
}

/// Problems with rows: how many, and the first of them in words.
#[derive(Default)]
struct Problems {
    count: u64,
    told: Vec<String>,
}

impl Problems {
    fn tell(&mut self, words: impl FnOnce() -> String) {
        self.count += 1;
        if self.told.len() < LISTED {
            self.told.push(words());
        }
    }
}

/// Calls `each` with what is wrong with rows in a part of the table: those that have a vector which the index would hold, and are not
/// among those that it has of this part, or are with other keys.
fn find_wrong(opened: &Opened, part: &Range<u32>, indexed: &[IndexRow], mut each: impl FnMut(HeapTid, &str)) {
    // An index that waits for its first row has missed any.
    let ann = (!waiting::is_waiting(*opened.index)).then(|| cache::open(&opened.pages()));
    let is_left_out =
        |vector: &[f32]| ann.as_ref().is_some_and(|ann| matches!(ann.space().quantize(vector), Ok(None)));
    opened.as_owner(|table| {
        table.scan_part(part, |row| {
            pgrx::check_for_interrupts!();
            let from = indexed.partition_point(|indexed| indexed.tid < row.tid);
            match indexed.get(from).filter(|indexed| indexed.tid == row.tid) {
                Some(indexed) if indexed.keys == digest(row.keys) => {}
                Some(_) => each(row.tid, "has keys other than those in the table"),
                None if is_left_out(row.vector) => {}
                None => each(row.tid, "is missing"),
            }
        });
    });
}
