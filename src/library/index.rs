//! What an index holds, for functions that answer from all of it: opened, with rights checked, and its nodes in memory.

use super::memory;
use crate::am::inspect::Opened;
use crate::am::opclass::OpClass;
use crate::am::{cache, training, waiting};
use crate::error::index::{damage, not_valid};
use crate::error::{Code, OrRaise, Report};
use crate::fault;
use crate::server::{catalog, is_standby, security, threads, workers};
use imgvec_ann::Metric;
use imgvec_ann::build::executor::{Cancelled, Executor};
use imgvec_ann::graph::near::{LoadError, Nodes};
use pgrx::pg_sys;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Seconds between two messages of how far a call is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Opens an index whose rows the caller may read, all of them.
pub fn open(index: pg_sys::Oid) -> Opened {
    let opened = Opened::new(index, pg_sys::AccessShareLock, |subject| {
        let name = || catalog::name_of(subject.table);
        if !security::may_select(subject.table) {
            Report::new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("permission denied for table {}", name()),
            )
            .detail("The result reveals the table's rows.")
            .hint("Have the table's owner grant SELECT.")
            .raise();
        }
        if security::is_bound_by_policies(subject.table) {
            Report::new(
                Code::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("cannot read an index under row-level security of table \"{}\"", name()),
            )
            .detail("The index ignores policies, so it would reveal rows that they hide.")
            .hint("Use the window functions, such as duplicate_group, on the rows that you see.")
            .raise();
        }
    });
    if !opened.index.is_valid() {
        not_valid(*opened.index).raise();
    }
    opened
}

/// The metric of an index; not that of inner products, which are no distances.
pub fn metric(opened: &Opened) -> Metric {
    let metric = OpClass::of(*opened.index).metric;
    if metric == Metric::InnerProduct {
        Report::new(
            Code::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("index \"{}\" has no distances", opened.index.name()),
        )
        .detail("It orders by inner product, under which a row may be nearer to another row than to itself.")
        .hint("Create an index with imgvec_cosine_ops or imgvec_l2_ops.")
        .raise();
    }
    metric
}

/// The L2 distance in the space of an index that a distance stands for.
pub fn as_l2(metric: Metric, distance: f64) -> f64 {
    match metric {
        // Unit vectors: 1 - cos is half the squared L2 distance.
        Metric::Cosine => (2.0 * distance).sqrt(),
        Metric::L2 | Metric::InnerProduct => distance,
    }
}

/// Reads all nodes; `None` if the index has no row yet.
pub fn load(opened: &Opened) -> Option<Nodes> {
    if waiting::is_waiting(*opened.index) {
        return None;
    }
    fault::point("read an index's nodes");
    let pages = opened.pages();
    cache::require_pages(&pages);
    // Not rebuilt meanwhile.
    let _kept = if is_standby() { None } else { training::keep_off(&pages) };
    let ann = cache::open(&pages);
    let allowed = memory::allowed_bytes();
    Some(match Nodes::load(&pages, &ann, allowed) {
        Ok(nodes) => nodes,
        Err(LoadError::Access(error)) => damage(*opened.index, error).raise(),
        Err(LoadError::TooLarge(bytes)) => {
            let what = format!("Vectors and links of index \"{}\"", opened.index.name());
            memory::exceeded(bytes, allowed, &what, "partition the table").raise()
        }
        Err(LoadError::OutOfMemory) => {
            crate::error::out_of_memory("The vectors of the index do not fit.").raise()
        }
    })
}

/// Memory that is left beside the nodes.
pub fn left_bytes(nodes: &Nodes, node_bytes: usize) -> usize {
    memory::allowed_bytes().saturating_sub(nodes.len() * node_bytes + nodes.row_count() * 16)
}

/// Threads that compute while the backend's own looks for interrupts and tells how far they are.
pub struct Searching {
    cancelled: AtomicBool,
    /// Nodes that are done.
    pub done: AtomicUsize,
    total: usize,
    began: Instant,
}

impl Searching {
    pub fn new(total: usize) -> Self {
        Self { cancelled: AtomicBool::new(false), done: AtomicUsize::new(0), total, began: Instant::now() }
    }
}

impl Executor for Searching {
    fn workers(&self) -> usize {
        threads::maintenance_threads()
    }

    fn run(&self, job: &(dyn Fn() + Sync)) {
        let mut told = Instant::now();
        let mut look = || {
            fault::point("look while nodes are searched around");
            pgrx::check_for_interrupts!();
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tell("searched around", self.done.load(Ordering::Relaxed), self.total, self.began);
            }
        };
        workers::run(self.workers(), &self.cancelled, job, &mut look);
    }

    fn cancelled(&self) -> bool {
        threads::interrupt_pending() || self.cancelled.load(Ordering::Relaxed)
    }
}

/// Work of the backend's own thread: how far it is, told from time to time.
pub struct Steps {
    what: &'static str,
    done: usize,
    total: usize,
    began: Instant,
    told: Instant,
}

impl Steps {
    pub fn new(what: &'static str, total: usize) -> Self {
        Self { what, done: 0, total, began: Instant::now(), told: Instant::now() }
    }

    /// Another one is done.
    pub fn step(&mut self) {
        self.done += 1;
        fault::point("take a step");
        pgrx::check_for_interrupts!();
        if self.done.is_multiple_of(256) && self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            tell(self.what, self.done, self.total, self.began);
        }
    }
}

fn tell(what: &str, done: usize, total: usize, began: Instant) {
    let share = done as f64 / total.max(1) as f64;
    let left = began.elapsed().as_secs_f64() * (1.0 / share.max(1e-6) - 1.0);
    Report::new(
        Code::ERRCODE_SUCCESSFUL_COMPLETION,
        format!("{what} {done} of {total} ({:.0} %), about {left:.0} s left", 100.0 * share),
    )
    .notice();
}

/// An executor that was asked to stop.
pub fn not_cancelled<T>(result: Result<T, Cancelled>) -> T {
    result
        .map_err(|_| {
            // The server's own words first.
            pgrx::check_for_interrupts!();
            crate::error::interrupted()
        })
        .or_raise()
}
