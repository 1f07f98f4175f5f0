//! One batch: rows are claimed, read, embedded and written in one transaction, which ends with the batch.
//!
//! A claim is the lock on a row of the queue. Whatever ends the transaction gives it up, and the row waits as before. The
//! rows of the table are not locked while the model runs: all of the batch are embedded first (`read.rs`), and written at
//! its end (`write.rs`), each only if its source is still what was embedded.

use super::column::{Column, Extension, Key};
use super::definition::Kind;
use super::outdated::{self, Noted};
use super::query::array;
use crate::embed::Embedding;
use crate::error::Report;
use crate::server::spi;
use std::time::{Duration, Instant};

/// How long a batch should take: cancelling loses no more, and the oldest transaction is no older.
const BATCH_TIME: Duration = Duration::from_millis(1000);
/// Most rows that one batch claims.
const MOST_CLAIMED: usize = 10_000;
/// Bytes of embeddings that wait to be written. A batch that has them ends.
const MOST_BYTES: usize = 32 << 20;

/// Rows that one statement reads and one run of the model embeds.
fn together(kind: Kind) -> usize {
    match kind {
        Kind::Image => 32,
        Kind::Text => 256,
    }
}

/// What a session remembers between batches of a column.
pub struct Pace {
    /// The block of the queue where the last batch ended. Dead rows before it are not looked at again.
    block: u32,
    /// Rows to claim next.
    claim: usize,
    /// Whether this pass through the queue, from its start, took anything out of it.
    has_moved: bool,
    noted: Noted,
}

impl Pace {
    pub fn new(kind: Kind) -> Self {
        Self { block: 0, claim: together(kind), has_moved: false, noted: Noted::default() }
    }

    /// Begins another pass through the queue; tells whether the one before took anything out of it.
    pub fn restart(&mut self) -> bool {
        self.block = 0;
        std::mem::take(&mut self.has_moved)
    }

    pub fn is_at_start(&self) -> bool {
        self.block == 0
    }
}

/// What a batch did.
#[derive(Default, Clone, Copy)]
pub struct Done {
    pub claimed: u64,
    /// Rows whose embedding was written, NULL for NULL included.
    pub embedded: u64,
    pub failed: u64,
    /// Rows that are tried again later.
    pub later: u64,
    /// Rows taken out of the queue.
    pub resolved: u64,
    /// Rows whose embedding took the place of another one.
    pub replaced: u64,
}

/// The batch that runs.
pub struct Batch<'a> {
    pub extension: &'a Extension,
    pub column: &'a Column,
    pub key: &'a Key,
    pub done: Done,
    /// What is to become of claimed rows, in the order of their claims.
    pub ready: Vec<Ready>,
}

/// A claimed row of the queue, and what is to be written for it.
pub struct Ready {
    /// Place in the queue.
    pub claim: String,
    /// None if there is no such row.
    pub row: Option<Row>,
}

/// A row of the table as it was read.
pub struct Row {
    pub version: Version,
    /// Whether it has no embedding.
    pub is_empty: bool,
    /// A digest of its source; none of NULL, and of a source that could not be evaluated.
    pub source: Option<blake3::Hash>,
    pub answer: Result<Option<Embedding>, Report>,
}

/// The version of a row that was read.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Version {
    pub place: String,
    /// The partition's oid.
    pub relation: String,
    /// The transaction that wrote it.
    pub writer: String,
}

/// Claims rows, embeds them and writes. No rows mean that the pass has come to the end of the queue.
///
/// # Errors
/// What keeps all rows from being embedded: the model, the source, a right. What was embedded before is written then.
pub fn run(extension: &Extension, column: &Column, key: &Key, pace: &mut Pace) -> Result<Done, Report> {
    let begin = Instant::now();
    let claims = claim(column, pace);
    let Some(last) = claims.last() else { return Ok(Done::default()) };
    let last_block = block(last);
    let done = Done { claimed: claims.len() as u64, ..Done::default() };
    let mut batch = Batch { extension, column, key, done, ready: Vec::with_capacity(claims.len()) };
    let mut processed = 0;
    let mut result = Ok(());
    for chunk in claims.chunks(together(column.definition.kind)) {
        result = batch.embed(chunk);
        if result.is_err() {
            break;
        }
        processed += chunk.len();
        if begin.elapsed() >= BATCH_TIME || batch.bytes() >= MOST_BYTES {
            break;
        }
    }
    batch.write()?;
    result?;
    let done = batch.done;
    if done.embedded + done.failed > 0 {
        batch.note(begin.elapsed());
        outdated::note(column, &mut pace.noted, done.embedded, done.replaced);
    }
    // Claims that there was no time for are the next batch's first.
    let share = begin.elapsed().as_secs_f64() / processed as f64;
    let rate = BATCH_TIME.as_secs_f64() / share.max(1e-6);
    // Not more than four times as many as before: rows that were no work say little of those that are.
    pace.claim = (rate as usize).clamp(together(column.definition.kind), MOST_CLAIMED).min(4 * pace.claim);
    pace.block = if processed < claims.len() { block(&claims[processed]) } else { last_block };
    pace.has_moved |= done.resolved > 0;
    // A batch that resolved nothing must not stay where it is.
    if done.resolved == 0 && processed == claims.len() {
        pace.block += 1;
    }
    Ok(done)
}

/// The block number of a place such as `(7,12)`.
fn block(place: &str) -> u32 {
    place.trim_start_matches('(').split(',').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Places in the queue that are ours until the transaction ends.
fn claim(column: &Column, pace: &Pace) -> Vec<String> {
    let sql = format!(
        "SELECT ctid::text FROM {} WHERE ctid >= '({},0)'::tid LIMIT {} FOR UPDATE SKIP LOCKED",
        column.queue(),
        pace.block,
        pace.claim
    );
    spi::rows(&sql, &[], |row| row.string(1))
}

/// The array of these places.
pub fn places<'a>(claims: impl Iterator<Item = &'a str>) -> String {
    array(claims, "tid")
}

impl Batch<'_> {
    /// Bytes of the embeddings that wait to be written.
    fn bytes(&self) -> usize {
        let embedding = |ready: &Ready| ready.row.as_ref()?.answer.as_ref().ok()?.as_ref().map(|it| it.len());
        self.ready.iter().filter_map(embedding).sum::<usize>() * size_of::<f32>()
    }

    /// A line of how fast it goes, for `imgvec_progress`; those of a few minutes are kept.
    fn note(&self, elapsed: Duration) {
        let log = self.column.log();
        let done = self.done.embedded + self.done.failed;
        spi::run(
            &format!(
                "INSERT INTO {log} (kind, at, rows, message) VALUES ('batch', clock_timestamp(), {done}, '{:.3}')",
                elapsed.as_secs_f64()
            ),
            &[],
        );
        spi::run(
            &format!(
                "DELETE FROM {log} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {log} WHERE kind = 'batch'
                 AND at < clock_timestamp() - interval '3 minutes' FOR UPDATE SKIP LOCKED))
                 OR kind = 'error' AND ctid = ANY (ARRAY(SELECT ctid FROM {log} WHERE kind = 'error' FOR UPDATE SKIP LOCKED))"
            ),
            &[],
        );
    }
}

/// Cancelling ends the whole work.
pub fn stop_if_cancelled(report: &Report) {
    pgrx::check_for_interrupts!();
    if report.is_interrupt() {
        Report::new(report.code(), report.summary()).raise();
    }
}

/// A failure that may pass by itself: memory, files, a run of the library, another transaction.
pub fn may_pass(report: &Report) -> bool {
    matches!(&report.sqlstate()[..2], "53" | "58" | "08" | "38" | "40" | "55")
}

/// An error that all rows would give: of the query, of a right, of the server.
pub fn concerns_all(report: &Report) -> bool {
    matches!(&report.sqlstate()[..2], "42" | "3F" | "25")
}

pub fn is_conflict(report: &Report) -> bool {
    matches!(report.sqlstate().as_str(), "40001" | "40P01" | "55P03")
}
