//! CREATE INDEX and REINDEX: read the table, build with threads, write the pages.

use super::insert::seed;
use super::keys::{KeyColumns, TableRow};
use super::opclass::OpClass;
use super::table::{Table, may_be_sampled};
use super::threads::BuildThreads;
use super::waiting::declared_dim;
use crate::error::index::{
    added, damage, geometry as bad_geometry, temporary_file, too_many_rows, vector as bad_vector,
};
use crate::error::{Code, OrRaise, Report, interrupted};
use crate::fault;
use crate::server::security;
use crate::storage::{Fork, Mode, NewPages, Pages, Relation, TemporaryFiles};
use imgvec_ann::build::{Added, BuildError, Builder, Parameters, Phase};
use imgvec_ann::graph::calibrate;
use imgvec_ann::layout::meta::Meta;
use imgvec_ann::layout::{BlockNumber, Geometry, HeapTid, PAGE_BYTES, Page};
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::PageSink;
use imgvec_ann::{Index, Metric};
use pgrx::{pg_guard, pg_sys};
use std::convert::Infallible;
use std::ffi::CStr;

/// Vectors whose mean becomes the center.
const SAMPLE_ROWS: usize = 2000;

/// Share of the memory of a build that rows may take which wait for others to make up a sample.
const HELD_SHARE: usize = 8;

/// Rows between reports of progress.
const REPORT_EVERY: u64 = 1000;

/// Phases in `pg_stat_progress_create_index`; the first number is the server's.
const PHASES: [&CStr; 9] = [
    c"initializing",
    c"sampling vectors",
    c"loading vectors",
    c"dividing vectors into shards",
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
        Phase::Shard => 4,
        Phase::Partition => 5,
        Phase::Leaves => 6,
        Phase::Prune => 7,
        Phase::Connect => 8,
        Phase::Write => 9,
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
    fault::point("report progress");
    // SAFETY: writes this backend's progress.
    unsafe { pg_sys::pgstat_progress_update_param(i32::try_from(parameter).expect("small"), value) }
}

fn report_phase(phase: usize) {
    report(pg_sys::PROGRESS_CREATEIDX_SUBPHASE, phase);
}

/// Page sizes of a new index.
pub fn new_geometry(index: Relation, dim: usize) -> Geometry {
    let geometry = Geometry::new(dim).map_err(|error| bad_geometry(index, error, dim)).or_raise();
    geometry.with_columns(&KeyColumns::of(index).kinds())
}

/// Memory for the rows of a build, or of a check.
pub fn memory_bytes() -> usize {
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
        // The server has set the user already; the search path it leaves alone before 17.
        let owner = Relation::from_raw(heap).owner();
        let (heap_rows, index_rows) = security::restricted(owner, || build(&table));
        fault::point("return from a build");
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
    // Without dimensions it waits for its first row, with an empty file.
    if let Some(dim) = declared_dim(index) {
        let builder = new_builder(index, OpClass::of(index).metric, new_geometry(index, dim), &[], &[]);
        write(builder, index, Fork::Init);
    }
}

/// The pages of an index without rows.
pub fn empty_pages(index: Relation, metric: Metric, geometry: Geometry) -> Vec<Box<Page>> {
    let mut pages = Collected(Vec::new());
    let builder = new_builder(index, metric, geometry, &[], &[]);
    // Nothing is computed, so nothing is cancelled, spilled or too large.
    let result = builder.finish(&BuildThreads::new(), &mut pages, &mut |_| {});
    assert!(result.is_ok(), "no rows are no work");
    pages.0
}

/// Pages in memory.
struct Collected(Vec<Box<Page>>);

impl PageSink for Collected {
    type Error = Infallible;

    fn append(&mut self, page: &Page) -> Result<(), Infallible> {
        self.0.push(Box::new(*page));
        Ok(())
    }
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
    let mut loading = Loading {
        index,
        metric: OpClass::of(index).metric,
        dim: declared_dim(index),
        builder: None,
        held: table.is_costly().then(Vec::new),
        rows: 0,
    };
    report_phase(SAMPLING);
    if loading.held.is_none() {
        loading.dim = loading.dim.or_else(|| table.first_dim());
        if let Some(dim) = loading.dim {
            let (vectors, keys) = table.sample(dim, SAMPLE_ROWS);
            loading.start(dim, &vectors, &keys);
        }
    }
    report_phase(LOADING);
    let heap_rows = table.scan(|row| {
        pgrx::check_for_interrupts!();
        loading.take(row);
    });
    loading.add_held();
    let rows = loading.rows;
    if let Some(builder) = loading.builder {
        if let Some(wanted) = builder.memory_wanted() {
            tell_of_files(index, wanted);
        }
        write(builder, index, Fork::Main);
    }
    (heap_rows, rows)
}

/// Vector, keys and place of a row.
type Held = (Vec<f32>, Vec<u64>, HeapTid);

/// The rows of a table on their way into a builder.
struct Loading<'a> {
    index: Relation<'a>,
    metric: Metric,
    dim: Option<usize>,
    builder: Option<Builder>,
    /// The first rows, where the sample must come from them: what computes a vector from a row may be a model that takes
    /// a second, and must run once a row.
    held: Option<Vec<Held>>,
    rows: u64,
}

impl Loading<'_> {
    fn start(&mut self, dim: usize, sample: &[Vec<f32>], keys: &[u64]) {
        let views: Vec<&[f32]> = sample.iter().map(Vec::as_slice).collect();
        // SAFETY: the files are gone when the build ends, or the statement.
        let files = Box::new(unsafe { TemporaryFiles::new() });
        let geometry = new_geometry(self.index, dim);
        self.builder = Some(new_builder(self.index, self.metric, geometry, &views, keys).spill_to(files));
    }

    fn take(&mut self, row: &TableRow) {
        let Some(held) = &mut self.held else {
            self.add(row);
            return;
        };
        held.push((row.vector.to_vec(), row.keys.to_vec(), row.tid));
        let is_enough =
            held.len() * (size_of_val(row.vector) + size_of_val(row.keys)) >= memory_bytes() / HELD_SHARE;
        if is_enough || held.len() == SAMPLE_ROWS {
            self.add_held();
        }
    }

    /// Starts a build from the rows that were held, if any were to be.
    fn add_held(&mut self) {
        let Some(held) = self.held.take() else { return };
        let Some(dim) = self.dim.or_else(|| held.first().map(|(vector, ..)| vector.len())) else { return };
        let sample = held.iter().filter(|(vector, ..)| may_be_sampled(vector, dim));
        let (vectors, keys): (Vec<_>, Vec<_>) =
            sample.map(|(vector, keys, _)| (vector.clone(), keys.as_slice())).unzip();
        self.start(dim, &vectors, &keys.concat());
        for (vector, keys, tid) in held {
            self.add(&TableRow { vector: &vector, keys: &keys, tid });
        }
    }

    fn add(&mut self, row: &TableRow) {
        let TableRow { vector, keys, tid } = *row;
        let index = self.index;
        // A build beside writers may meet the first vector only now.
        if self.builder.is_none() {
            self.start(vector.len(), &[], &[]);
        }
        let builder = self.builder.as_mut().expect("started above");
        if builder.add_with_keys(vector, keys, tid).map_err(|error| added(index, error)).or_raise()
            == Added::Stored
        {
            self.rows += 1;
            if self.rows.is_multiple_of(REPORT_EVERY) {
                report(pg_sys::PROGRESS_CREATEIDX_TUPLES_DONE, usize::try_from(self.rows).expect("a count"));
            }
        }
    }
}

/// Says that a build would be faster with more memory.
fn tell_of_files(index: Relation, wanted_bytes: u64) {
    let megabytes = |bytes: u64| bytes.div_ceil(1 << 20);
    Report::new(
        Code::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("vectors of index \"{}\" do not fit into maintenance_work_mem", index.name()),
    )
    .detail(format!(
        "The build continues with temporary files and takes two to three times as long. In memory it needs {} MB.",
        megabytes(wanted_bytes)
    ))
    .hint(format!("Set maintenance_work_mem to {} MB or more for the next build.", megabytes(wanted_bytes)))
    .notice();
}

fn new_builder(
    index: Relation,
    metric: Metric,
    geometry: Geometry,
    sample: &[&[f32]],
    keys: &[u64],
) -> Builder {
    Builder::new(metric, geometry, seed(), sample, memory_bytes(), Parameters::default())
        .map_err(|error| bad_vector(index, error))
        .or_raise()
        .with_sample_of_keys(keys)
}

/// Builds the graph and writes a fork.
fn write(builder: Builder, index: Relation, fork: Fork) {
    let threads = BuildThreads::new();
    let mut pages = NewPages::new(index, fork);
    let mut progress = |phase| report_phase(phase_number(phase));
    match builder.finish(&threads, &mut pages, &mut progress) {
        Ok(_) => {
            if fork == Fork::Main {
                calibrate(index, &mut pages);
            }
            pages.finish();
        }
        Err(BuildError::Store(never)) => match never {},
        Err(BuildError::Cancelled) => {
            pgrx::check_for_interrupts!();
            interrupted().raise();
        }
        Err(BuildError::Spill(error)) => temporary_file(&error).raise(),
        Err(BuildError::TooManyRows) => too_many_rows().raise(),
    }
}

/// Measures how far searches must look ahead, and keeps it on the metapage.
fn calibrate(index: Relation, pages: &mut NewPages) {
    let store = Pages::new(index, Mode::Normal);
    let measured = Index::open(&store).and_then(|ann| {
        let measured = calibrate::calibrate(&store, &ann, &mut SplitMix64::new(seed()))?;
        Ok(Meta { calibration: measured.calibration, ..ann.meta().clone() })
    });
    let meta = measured.map_err(|error| damage(index, error)).or_raise();
    let mut page = [0; PAGE_BYTES];
    meta.encode(&mut page);
    pages.replace(BlockNumber(0), &page);
}
