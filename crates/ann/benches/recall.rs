//! Recall@10 against CPU time, hops and pages on generated sets: `cargo bench -p imgvec-ann --bench recall [-- rows [dimensions] [grown | products | latent | limits]]`;
//! with `grown`, only of indexes that are filled after they were created; with `products`, only inner products of rows whose norms
//! differ; with `latent`, only that set; with `limits`, recall of the first 1 to 300 rows.
//!
//! In process, one thread per search, page accesses without a buffer manager. Times are those of the
//! calling thread; the exact answers come from the same run.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Data, build, clustered, exact, generate, latent, manifold, row, search, tid};
use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::{Builder, Parameters};
use imgvec_ann::graph::calibrate::{TARGETS, calibrate};
use imgvec_ann::graph::check::check;
use imgvec_ann::graph::insert::insert;
use imgvec_ann::graph::search::{Options, Search};
use imgvec_ann::graph::train::{is_due, train};
use imgvec_ann::graph::vacuum;
use imgvec_ann::layout::Geometry;
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Times that the queries are repeated in one measurement.
const ROUNDS: usize = 10;

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let n = numbers.first().copied().unwrap_or(50_000);
    let dim = numbers.get(1).copied().unwrap_or(512);
    println!("kernels {:?}, recall@10 of 200 queries", imgvec_ann::arch::Level::best());
    let only = |part: &str| std::env::args().any(|a| a == part);
    if only("latent") {
        run(&latent(dim, n, 200, dim / 5, 3, false), Metric::Cosine);
        return run(&latent(dim, n, 200, dim / 5, 3, true), Metric::Cosine);
    }
    if only("limits") {
        for like_texts in [false, true] {
            for width in [48, 96, 192] {
                limits(&latent(dim, n, 100, width, 3, like_texts), Metric::Cosine);
            }
            limits(&clustered(dim, n, 100, n / 50, 1, like_texts), Metric::Cosine);
        }
        limits(&generate::sparse(dim, n, 100, 3), Metric::Cosine);
        limits(&manifold(dim, n, 100, 28, 2), Metric::L2);
        return;
    }
    if only("products") {
        for norms in ["linear", "lognormal", "factors"] {
            let data = generate::with_norms(dim, n, 200, norms, 3);
            run(&data, Metric::InnerProduct);
            if !only("built") {
                grow(&data, Metric::InnerProduct);
            }
        }
        return;
    }
    if only("grown") {
        for like_texts in [false, true] {
            grow(&latent(dim, n / 2, 200, dim / 5, 3, like_texts), Metric::Cosine);
        }
        return;
    }
    run(&clustered(dim, n, 200, n / 50, 1, false), Metric::Cosine);
    run(&clustered(dim, n, 200, n / 50, 1, true), Metric::Cosine);
    run(&latent(dim, n, 200, dim / 5, 3, false), Metric::Cosine);
    run(&latent(dim, n, 200, dim / 5, 3, true), Metric::Cosine);
    run(&manifold(dim, n, 200, 28, 2), Metric::L2);
    run(&manifold(dim, n, 200, 28, 2), Metric::InnerProduct);
    change(&manifold(dim, n, 200, 28, 2), Metric::L2);
    for like_texts in [false, true] {
        grow(&latent(dim, n / 2, 200, dim / 5, 3, like_texts), Metric::Cosine);
    }
}

/// Creates an index without rows and fills it, as whoever creates tables first does; what it finds beside one that is built.
fn grow(data: &Data, metric: Metric) {
    let cancel = AtomicBool::new(false);
    let threads = Threads::new(1, &cancel);
    let mut store = MemStore::new();
    let geometry = Geometry::new(data.dim).unwrap();
    let builder = Builder::new(metric, geometry, 42, &[], usize::MAX, Parameters::default()).unwrap();
    builder.finish(&threads, &mut store, &mut |_| ()).unwrap();
    let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
    let (start, reads) = (thread_seconds(), store.reads());
    for (i, vector) in data.rows.iter().enumerate() {
        insert(&store, &mut index, vector, tid(i), &mut random).unwrap();
        if is_due(index.meta()) {
            train(&store, &threads, &mut random).unwrap();
        }
    }
    let n = data.rows.len() as f64;
    println!(
        "\n{}, {metric:?}, created empty: {:.1} us/row CPU, {:.1} page reads per row, {} unreachable",
        data.name,
        (thread_seconds() - start) / n * 1e6,
        (store.reads() - reads) as f64 / n,
        check(&store, |_, _| ()).unwrap().unreachable
    );
    let (built, _) = build(metric, &data.rows, data.dim, 2);
    let truth: Vec<Vec<usize>> = data.queries.iter().map(|q| exact(metric, &data.rows, q, 10)).collect();
    for (name, store) in [("built", &built), ("filled", &store)] {
        let index = Index::open(store).unwrap();
        for ahead in [20, 60] {
            let (mut hits, mut hops) = (0, 0);
            for (query, truth) in data.queries.iter().zip(&truth) {
                let (rows, _, stats) = search(store, &index, metric, &data.rows, query, 10, ahead);
                hits += rows.iter().filter(|row| truth.contains(row)).count();
                hops += stats.hops;
            }
            let q = data.queries.len() as f64;
            println!("{name:6}  {ahead:3}  {:.4}  {:6.1} hops", hits as f64 / (10.0 * q), hops as f64 / q);
        }
    }
}

/// Inserts a fifth of the rows one by one, then deletes three tenths and vacuums.
fn change(data: &Data, metric: Metric) {
    let built = data.rows.len() * 4 / 5;
    let (store, _) = build(metric, &data.rows[..built], data.dim, 2);
    let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
    let (start, reads, pages) = (thread_seconds(), store.reads(), store.written_pages());
    for (i, vector) in data.rows.iter().enumerate().skip(built) {
        insert(&store, &mut index, vector, tid(i), &mut random).unwrap();
    }
    let n = (data.rows.len() - built) as f64;
    println!(
        "\n{} rows inserted into {built}: {:.1} us/row CPU, {:.1} page reads, {:.1} page writes per row",
        n,
        (thread_seconds() - start) / n * 1e6,
        (store.reads() - reads) as f64 / n,
        (store.written_pages() - pages) as f64 / n
    );
    let start = thread_seconds();
    vacuum::delete(&store, &index, |t| row(t) % 10 < 3).unwrap();
    let middle = thread_seconds();
    let stats = vacuum::cleanup(&store, &mut index, &mut random).unwrap();
    println!(
        "{} rows deleted: {:.3} s CPU; cleanup of {} nodes, {} relinked: {:.2} s CPU",
        stats.freed,
        middle - start,
        stats.repaired,
        stats.relinked,
        thread_seconds() - middle
    );
    println!("{} of the rest unreachable", check(&store, |_, _| ()).unwrap().unreachable);
}

/// Recall of the first 1, 10, 30, 100 and 300 rows, and hops for them, by lookahead.
fn limits(data: &Data, metric: Metric) {
    const LIMITS: [usize; 5] = [1, 10, 30, 100, 300];
    let truth: Vec<Vec<usize>> = data.queries.iter().map(|q| exact(metric, &data.rows, q, 300)).collect();
    let (store, _) = build(metric, &data.rows, data.dim, 2);
    let index = Index::open(&store).unwrap();
    let measured = calibrate(&store, &index, &mut SplitMix64::new(7)).unwrap();
    println!("\n{}, calibrated {TARGETS:?}: {:?}", data.name, measured.calibration);
    for ahead in [10, 14, 20, 28, 40, 56, 80, 120] {
        print!("ahead {ahead:4}");
        for limit in LIMITS {
            let (mut hits, mut hops) = (0, 0);
            for (query, truth) in data.queries.iter().zip(&truth) {
                let (rows, _, stats) = search(&store, &index, metric, &data.rows, query, limit, ahead);
                hits += rows.iter().filter(|row| truth[..limit].contains(row)).count();
                hops += stats.hops;
            }
            let q = data.queries.len();
            print!("   {:.3} {:5.0}", hits as f64 / (limit * q) as f64, hops as f64 / q as f64);
        }
        println!();
    }
}

fn run(data: &Data, metric: Metric) {
    let truth: Vec<Vec<usize>> = data.queries.iter().map(|q| exact(metric, &data.rows, q, 10)).collect();
    let (wall, cpu) = (Instant::now(), process_seconds());
    let (store, report) = build(metric, &data.rows, data.dim, 2);
    let index = Index::open(&store).unwrap();
    println!(
        "\n{}, {metric:?}: build {:.2} s CPU, {:.2} s wall, {} leaves, {} relinked, {} B/row",
        data.name,
        process_seconds() - cpu,
        wall.elapsed().as_secs_f64(),
        report.leaves,
        report.relinked,
        report.pages * 8192 / report.rows.max(1)
    );
    let start = thread_seconds();
    let measured = calibrate(&store, &index, &mut SplitMix64::new(7)).unwrap();
    println!("calibrated {TARGETS:?}: {:?} in {:.2} s", measured.calibration, thread_seconds() - start);
    println!("ahead  recall   us/query    hops   fetched  estimates");
    for ef in [20, 40, 60, 100, 200, 400] {
        let (mut hits, mut fetched, mut hops, mut estimates) = (0, 0, 0, 0);
        for (query, truth) in data.queries.iter().zip(&truth) {
            let (rows, count, stats) = search(&store, &index, metric, &data.rows, query, 10, ef);
            hits += rows.iter().filter(|row| truth.contains(row)).count();
            fetched += count;
            hops += stats.hops;
            estimates += stats.estimates;
        }
        // The index alone: the rows that the executor would have fetched on average.
        let per_query = fetched / data.queries.len();
        let mut best = f64::INFINITY;
        for _ in 0..3 {
            let start = thread_seconds();
            // The clock ticks in 20 ms on some kernels: measure a few tenths of a second.
            for query in data.queries.iter().cycle().take(ROUNDS * data.queries.len()) {
                let mut search =
                    Search::new(&index, query, &Options { lookahead: ef, ..Options::default() }).unwrap();
                for _ in 0..per_query {
                    let _ = search.next(&store, &index).unwrap();
                }
            }
            best = best.min((thread_seconds() - start) / ROUNDS as f64);
        }
        let q = data.queries.len() as f64;
        println!(
            "{ef:5}  {:.4}  {:9.1}  {:6.1}  {:8.1}  {:9.0}",
            hits as f64 / (10.0 * q),
            best / q * 1e6,
            hops as f64 / q,
            fetched as f64 / q,
            estimates as f64 / q
        );
    }
}

/// CPU time of the calling thread, by the scheduler's nanoseconds.
fn thread_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|x| x.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// CPU time of this process with all its threads, in hundredths.
fn process_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|x| x.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
