//! CREATE INDEX and REINDEX: read the table, build in memory with threads, write the pages.

use super::insert::{insert, seed};
use super::opclass;
use super::table::Table;
use super::threads::BuildThreads;
use crate::error::index::{geometry as bad_geometry, no_dimensions, vector as bad_vector};
use crate::error::{Code, OrRaise, Report, interrupted};
use crate::storage::{Fork, NewPages, Relation};
use imgvec_ann::Metric;
use imgvec_ann::build::{Added, BuildError, Builder, Parameters, Phase};
use imgvec_ann::layout::{Geometry, HeapTid};
use pgrx::{pg_guard, pg_sys};
use std::ffi::CStr;

/// Vectors whose mean becomes the center.
const SAMPLE_ROWS: usize = 2000;

/// Rows between reports of progress.
const REPORT_EVERY: u64 = 1000;

/// Phases in `pg_stat_progress_create_index`; the first number is the server's.
const PHASES: [&CStr; 8] = [
    c"initializing",
    c"sampling vectors",
    c"loading vectors",
    c"partitioning vectors",
    c"finding neighbors",
    c"choosing edges",
    c"connecting the graph",
    c"writing pages",
];
const SAMPLING: usize = 2;
const LOADING: usize = 3;

fn phase_number(phase: Phase) -> usize {
    match phase {
        Phase::Partition => 4,
        Phase::Leaves => 5,
        Phase::Prune => 6,
        Phase::Connect => 7,
        Phase::Write => 8,
    }
}

/// Name of a phase.
#[pg_guard]
pub unsafe extern "C-unwind" fn ambuildphasename(phase: i64) -> *mut std::ffi::c_char {
    let name = usize::try_from(phase).ok().and_then(|n| PHASES.get(n.wrapping_sub(1)));
    // The server copies it.
    name.map_or(std::ptr::null_mut(), |name| name.as_ptr().cast_mut())
}

fn report(parameter: u32, value: usize) {
    let value = i64::try_from(value).expect("a count");
    // SAFETY: writes this backend's progress.
    unsafe { pg_sys::pgstat_progress_update_param(i32::try_from(parameter).expect("small"), value) }
}

fn report_phase(phase: usize) {
    report(pg_sys::PROGRESS_CREATEIDX_SUBPHASE, phase);
}

/// Metric and page sizes of a new index.
fn shape(index: Relation) -> (Metric, Geometry) {
    let Ok(dim @ 1..) = usize::try_from(index.type_modifier(0)) else {
        no_dimensions(index).raise();
    };
    let geometry = Geometry::new(dim).map_err(|error| bad_geometry(index, error, dim)).or_raise();
    (opclass::metric(index), geometry)
}

/// Memory for the rows of a build.
fn memory_bytes() -> usize {
    // SAFETY: plain read of a server setting.
    usize::try_from(unsafe { pg_sys::maintenance_work_mem }).expect("positive").saturating_mul(1024)
}

/// Builds the index of a table.
#[pg_guard]
pub unsafe extern "C-unwind" fn ambuild(
    heap: pg_sys::Relation,
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
) -> *mut pg_sys::IndexBuildResult {
    // SAFETY: the server passes open relations and their description.
    unsafe {
        let table = Table::new(Relation::from_raw(heap), Relation::from_raw(index), info);
        let (heap_rows, index_rows) = build(&table);
        let result =
            pg_sys::palloc0(size_of::<pg_sys::IndexBuildResult>()).cast::<pg_sys::IndexBuildResult>();
        (*result).heap_tuples = heap_rows;
        #[allow(clippy::cast_precision_loss, reason = "statistics are floats")]
        {
            (*result).index_tuples = index_rows as f64;
        }
        result
    }
}

/// Writes the fork that an unlogged index is reset to after a crash.
#[pg_guard]
pub unsafe extern "C-unwind" fn ambuildempty(index: pg_sys::Relation) {
    // SAFETY: the server passes an open relation.
    let index = unsafe { Relation::from_raw(index) };
    let (metric, geometry) = shape(index);
    let builder = new_builder(index, metric, geometry, &[]);
    write(builder, index, Fork::Init);
}

fn build(table: &Table) -> (f64, u64) {
    let index = table.index();
    if index.block_count(pg_sys::ForkNumber::MAIN_FORKNUM) != 0 {
        Report::new(
            Code::ERRCODE_INTERNAL_ERROR,
            format!("index \"{}\" already contains data", index.name()),
        )
        .raise();
    }
    let (metric, geometry) = shape(index);
    report_phase(SAMPLING);
    let sample = table.sample(geometry.dim(), SAMPLE_ROWS);
    let views: Vec<&[f32]> = sample.iter().map(|row| row.vector.as_slice()).collect();
    let builder = new_builder(index, metric, geometry, &views);
    drop(sample);

    report_phase(LOADING);
    let mut loading = Loading { index, state: Some(builder), rows: 0, late_rows: 0 };
    let heap_rows = table.scan(|vector, tid| loading.add(vector, tid));
    if let Some(builder) = loading.state.take() {
        write(builder, index, Fork::Main);
    }
    (heap_rows, loading.rows)
}

fn new_builder(index: Relation, metric: Metric, geometry: Geometry, sample: &[&[f32]]) -> Builder {
    Builder::new(metric, geometry, seed(), sample, memory_bytes(), Parameters::default())
        .map_err(|error| bad_vector(index, error))
        .or_raise()
}

/// Rows on their way into the index.
struct Loading<'a> {
    index: Relation<'a>,
    /// Nothing once the memory limit was reached and the index is written: rows are inserted then.
    state: Option<Builder>,
    rows: u64,
    late_rows: u64,
}

impl Loading<'_> {
    fn add(&mut self, vector: &[f32], tid: HeapTid) {
        pgrx::check_for_interrupts!();
        if let Some(builder) = &mut self.state {
            match builder.add(vector, tid).map_err(|error| bad_vector(self.index, error)).or_raise() {
                Added::Stored => {
                    self.rows += 1;
                    if self.rows.is_multiple_of(REPORT_EVERY) {
                        report(
                            pg_sys::PROGRESS_CREATEIDX_TUPLES_DONE,
                            usize::try_from(self.rows).expect("a count"),
                        );
                    }
                }
                Added::NoDirection => {}
                Added::Full => {
                    let builder = self.state.take().expect("matched above");
                    write(builder, self.index, Fork::Main);
                    report_phase(LOADING);
                }
            }
        }
        if self.state.is_none() {
            insert(self.index, vector, tid);
            self.rows += 1;
            self.late_rows += 1;
        }
    }
}

/// Builds the graph and writes a fork.
fn write(builder: Builder, index: Relation, fork: Fork) {
    let threads = BuildThreads::new();
    let mut pages = NewPages::new(index, fork);
    let mut progress = |phase| report_phase(phase_number(phase));
    match builder.finish(&threads, &mut pages, &mut progress) {
        Ok(_) => pages.finish(),
        Err(BuildError::Store(never)) => match never {},
        Err(BuildError::Cancelled) => {
            pgrx::check_for_interrupts!();
            interrupted().raise();
        }
        Err(BuildError::TooManyRows) => {
            Report::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many rows for one ann index")
                .detail("An ann index holds at most 2^32 - 1 different vectors.")
                .hint("Partition the table, and index the partitions.")
                .raise()
        }
    }
}
