//! After nearly all rows have gone, those that stay are reached.

mod common;

use common::{Normal, builder_within, row};
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
