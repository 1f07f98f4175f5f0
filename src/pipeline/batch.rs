//! One batch: rows are claimed, read, embedded and written in one transaction.
//!
//! A claim is the lock on a row of the queue. If the transaction ends in any way, the claim ends and the row waits as before. Rows
//! of the table are not locked while the model runs. All rows of the batch are embedded first (`read.rs`), and written at
//! the end (`write.rs`), each only if its source has not changed.

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
/// Rows that the first batch claims. A batch claims at most four times as many as the one before, since nobody knows what rows
/// cost.
const FIRST_CLAIMED: usize = 4;
/// Most rows that one batch claims.
const MOST_CLAIMED: usize = 10_000;
/// Seconds that a row costs at least, so that a division has an answer.
const LEAST_COST: f64 = 1e-6;
/// Bytes of embeddings that wait to be written. A batch that has them ends.
const MOST_BYTES: usize = 32 << 20;

/// Rows that one statement reads and one run of the model embeds, at most.
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
    /// Rows to read and embed at once: one at first.
    run: usize,
    /// Seconds that it took to read and embed a row lately.
    cost: f64,
    /// Whether this pass through the queue, from its start, took anything out of it.
    has_moved: bool,
    noted: Noted,
}

impl Pace {
    pub fn new() -> Self {
        Self { block: 0, claim: FIRST_CLAIMED, run: 1, cost: 0.0, has_moved: false, noted: Noted::default() }
    }

    /// Rows that can be read and embedded in this time.
    fn fitting(&self, time: Duration) -> usize {
        ((time.as_secs_f64() / self.cost.max(LEAST_COST)) as usize).min(self.run)
    }

    /// Learns from a run of so many rows. Runs grow fourfold at most, and none should take longer than a batch.
    fn learn(&mut self, rows: usize, elapsed: Duration, most: usize) {
        self.cost = elapsed.as_secs_f64() / rows as f64;
        let longest = (BATCH_TIME.as_secs_f64() / self.cost.max(LEAST_COST)) as usize;
        self.run = longest.clamp(1, most).min(self.run.max(4 * rows));
    }

    /// Begins another pass through the queue; returns whether the one before took anything out of it.
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
    /// When no further row is to be begun.
    pub deadline: Instant,
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

/// Claims rows, embeds them and writes. No rows mean that the pass has come to the end of the queue. A batch ends after about a
/// second, or at `end`: a row whose turn did not come waits. The first one's always comes.
///
/// # Errors
/// What keeps all rows from being embedded: the model, the source, a right. What was embedded before is written then.
pub fn run(
    extension: &Extension,
    column: &Column,
    key: &Key,
    pace: &mut Pace,
    end: Option<Instant>,
) -> Result<Done, Report> {
    let begin = Instant::now();
    let claims = claim(column, pace);
    let Some(last) = claims.last() else { return Ok(Done::default()) };
    let last_block = block(last);
    let deadline = end.map_or(begin + BATCH_TIME, |end| end.min(begin + BATCH_TIME));
    let done = Done { claimed: claims.len() as u64, ..Done::default() };
    let mut batch = Batch { extension, column, key, done, ready: Vec::with_capacity(claims.len()), deadline };
    let mut processed = 0;
    let mut result = Ok(());
    while processed < claims.len() {
        let begin = Instant::now();
        let fitting = pace.fitting(deadline.saturating_duration_since(begin));
        // What is left of the time is not worth a run.
        if processed > 0 && 2 * fitting < pace.run {
            break;
        }
        let rest = &claims[processed..];
        let rows = &rest[..rest.len().min(fitting.max(1))];
        match batch.embed(rows) {
            Ok(count) => {
                processed += count;
                pace.learn(count.max(1), begin.elapsed(), together(column.definition.kind));
                if count < rows.len() {
                    break;
                }
            }
            Err(report) => {
                result = Err(report);
                break;
            }
        }
        if batch.is_late() || batch.bytes() >= MOST_BYTES {
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
    let share = begin.elapsed().as_secs_f64() / processed.max(1) as f64;
    let rate = BATCH_TIME.as_secs_f64() / share.max(LEAST_COST);
    // Rows that were no work say little of those that are.
    pace.claim = (rate as usize).clamp(FIRST_CLAIMED, MOST_CLAIMED).min(4 * pace.claim);
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

/// Whether a row waits that nobody holds.
pub fn is_waiting(column: &Column) -> bool {
    let sql = format!("SELECT FROM {} LIMIT 1 FOR UPDATE SKIP LOCKED", column.queue());
    spi::first(&sql, &[], |_| ()).is_some()
}

/// The array of these places.
pub fn places<'a>(claims: impl Iterator<Item = &'a str>) -> String {
    array(claims, "tid")
}

impl Batch<'_> {
    /// Whether no further row is to be begun.
    pub fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

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
