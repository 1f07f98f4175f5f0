//! After nearly all rows have gone, those that stay are reached.

mod common;

use common::{Normal, build, builder_within, row};
use imgvec_ann::build::executor::Threads;
use imgvec_ann::graph::{check, vacuum};
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};
use std::sync::atomic::AtomicBool;

#[test]
fn few_rows_that_stay_of_many_are_reached() {
    const ROWS: usize = 20_000;
    const DIM: usize = 8;
    for seed in 0..3 {
        for keep in [0.5, 0.1, 0.02] {
            let mut normal = Normal::new(seed);
            let vectors: Vec<Vec<f32>> = (0..ROWS).map(|_| normal.vector(DIM, 1.0)).collect();
            let builder = builder_within(usize::MAX, Metric::L2, &vectors, DIM);
            let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
            builder.finish(&Threads::new(2, &cancel), &mut store, &mut |_| ()).unwrap();
            let mut index = Index::open(&store).unwrap();
            let mut random = SplitMix64::new(seed);
            let stays: Vec<bool> =
                (0..ROWS).map(|_| (random.below(10_000) as f64) < keep * 10_000.0).collect();
            vacuum::delete(&store, &index, |tid| !stays[row(tid)]).unwrap();
            vacuum::cleanup(&store, &mut index, &mut random).unwrap();
            let report = check::check(&store, |_, _| ()).unwrap();
            assert_eq!(report.problems, []);
            assert_eq!(report.live, stays.iter().filter(|&&stays| stays).count() as u64);
            assert_eq!(report.unreachable, 0, "of {} that stay of {ROWS}, seed {seed}", report.live);
        }
    }
}

#[test]
fn a_vacuum_that_ends_anywhere_cuts_no_row_off() {
    // More than entries: those are reached whatever links do.
    const ROWS: usize = 6000;
    // Two dimensions: hundreds of rows are as near as the next, and links between clusters are few.
    for (dim, metric) in [(2, Metric::L2), (12, Metric::Cosine)] {
        let mut normal = Normal::new(11);
        let rows: Vec<Vec<f32>> = (0..ROWS)
            .map(|i| {
                let center = (i / 6 % 7) as f32 * 4.0;
                normal.vector(dim, 1.0).into_iter().map(|x| x + center).collect()
            })
            .collect();
        let is_dead = |row: usize| row % 6 != 1;
        let mut ended = false;
        for commits in (0u64..).map(|step| 4 * step * step + 30 * step) {
            let (store, _) = build(metric, &rows, dim, 1);
            let mut index = Index::open(&store).unwrap();
            vacuum::delete(&store, &index, |t| is_dead(row(t))).unwrap();
            store.crash_after(commits);
            ended = vacuum::cleanup(&store, &mut index, &mut SplitMix64::new(1)).is_ok();
            let report = check::check(&store.restart(), |_, _| ()).unwrap();
            assert_eq!(
                (report.problems, report.unreachable),
                (vec![], 0),
                "{dim} dimensions, {commits} commits"
            );
            assert_eq!(report.rows, ROWS as u64 / 6);
            if ended {
                break;
            }
        }
        assert!(ended);
    }
}
