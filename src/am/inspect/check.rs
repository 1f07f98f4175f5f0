//! `ann_index_check`: whether an index is sound, and has every row of its table.

use super::Opened;
use super::index_rows::IndexRows;
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
#[pg_extern(sql = false)]
fn ann_index_check(index: pg_sys::Oid, heapallindexed: bool) -> NewRecord {
    // SAFETY: plain question.
    let in_recovery = unsafe { pg_sys::RecoveryInProgress() };
    // A standby cannot take a lock that keeps replay away.
    let lock = if in_recovery { pg_sys::AccessShareLock } else { pg_sys::ShareLock };
    let opened = Opened::new(index, lock, |subject| {
        if !security::owns(subject.index) {
            Report::new(Code::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be owner of the index to check it")
                .detail("The check locks the table against writers.")
                .hint("Have the owner check it, or a member of the owner's role.")
                .raise();
        }
    });
    let is_waiting = waiting::is_waiting(*opened.index);
    if !is_waiting {
        cache::require_pages(&opened.pages());
    }
    if heapallindexed && !opened.index.is_valid() {
        not_valid(*opened.index).raise();
    }
    let replayed = replayed();
    let name = opened.index.name();
    let (pages, table_blocks) = (opened.pages(), opened.heap.block_count(pg_sys::ForkNumber::MAIN_FORKNUM));
    let mut rows = IndexRows::new(table_blocks, memory_bytes());
    let report = if is_waiting {
        CheckReport::default()
    } else {
        check::check(&pages, |tid| rows.add(tid)).map_err(|error| damage(*opened.index, error)).or_raise()
    };
    let mut problems = Problems::default();
    for part in rows.parts() {
        let read = |each: &mut dyn FnMut(HeapTid)| {
            check::rows(&pages, each).map_err(|error| damage(*opened.index, error)).or_raise();
        };
        let indexed = rows.sorted(&part, read);
        for tid in indexed.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]) {
            problems.tell(|| format!("row ({},{}) is there twice", tid.block, tid.offset));
        }
        if heapallindexed {
            let missing = |tid: HeapTid| {
                problems.tell(|| format!("row ({},{}) is missing", tid.block, tid.offset));
            };
            find_missing(&opened, &part, &indexed, missing);
        }
    }
    let count = report.problem_count + problems.count;
    let told = report.problems.iter().map(ToString::to_string).chain(problems.told);
    let told: Vec<String> = told.take(LISTED).collect();
    if count > 0 && replayed != self::replayed() {
        Report::new(
            Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("index \"{name}\" cannot be checked while changes are replayed"),
        )
        .detail(
            "A standby cannot keep changes away, and what is read before and after one may not fit together.",
        )
        .hint("Call pg_wal_replay_pause(), check, and call pg_wal_replay_resume(); or check on the primary.")
        .raise();
    }
    if count > 0 {
        Report::new(Code::ERRCODE_INDEX_CORRUPTED, format!("index \"{name}\" is damaged"))
            .detail(format!("{count} problems, such as: {}.", told.join("; ")))
            .hint("REINDEX the index.")
            .raise();
    }
    counts(&report)
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

/// Calls `each` with the rows in a part of the table that have a vector which the index would hold, and are not
/// among those that it has of this part.
fn find_missing(opened: &Opened, part: &Range<u32>, indexed: &[HeapTid], mut each: impl FnMut(HeapTid)) {
    // An index that waits for its first row has missed any.
    let ann = (!waiting::is_waiting(*opened.index)).then(|| cache::open(&opened.pages()));
    let is_left_out =
        |vector: &[f32]| ann.as_ref().is_some_and(|ann| matches!(ann.space().quantize(vector), Ok(None)));
    opened.as_owner(|table| {
        table.scan_part(part, |vector, tid| {
            pgrx::check_for_interrupts!();
            if indexed.binary_search(&tid).is_err() && !is_left_out(vector) {
                each(tid);
            }
        });
    });
}
