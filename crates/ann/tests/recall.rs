//! Recall against exact answers on generated sets, after builds, inserts and deletes.

mod common;

use common::{Data, Normal, build, clustered, exact, generate, manifold, row, search, tid};
use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::{Builder, Parameters};
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

/// Recall@10 and hops per query; `live` says which rows count.
fn recall(
    store: &MemStore,
    data: &Data,
    metric: Metric,
    ef: usize,
    live: impl Fn(usize) -> bool,
) -> (f64, f64) {
    let index = Index::open(store).unwrap();
    let numbers: Vec<usize> = (0..data.rows.len()).filter(|&i| live(i)).collect();
    let rows: Vec<Vec<f32>> = numbers.iter().map(|&i| data.rows[i].clone()).collect();
    let (mut hits, mut hops) = (0, 0);
    for query in &data.queries {
        let truth: Vec<usize> = exact(metric, &rows, query, 10).into_iter().map(|i| numbers[i]).collect();
        let (found, _, stats) = search(store, &index, metric, &data.rows, query, 10, ef);
        assert_eq!(found.len(), 10);
        hits += found.iter().filter(|i| truth.contains(i)).count();
        hops += stats.hops;
    }
    let queries = data.queries.len() as f64;
    (hits as f64 / (10.0 * queries), hops as f64 / queries)
}

fn finds_itself(store: &MemStore, data: &Data, metric: Metric, rows: impl Iterator<Item = usize>) -> f64 {
    let index = Index::open(store).unwrap();
    let (mut found, mut all) = (0, 0);
    for i in rows {
        let mut search = Search::new(&index, &data.rows[i], &Options::default()).unwrap();
        let first: Vec<usize> =
            std::iter::from_fn(|| search.next(store, &index).unwrap()).take(3).map(|h| row(h.tid)).collect();
        found += usize::from(first.contains(&i));
        all += 1;
        let _ = metric;
    }
    f64::from(found as u32) / f64::from(all as u32)
}

#[test]
fn tight_clusters_are_connected() {
    // More clusters than entries: without long edges most of them would be islands.
    let data = clustered(128, 20_000, 60, 2500, 5, false);
    let (store, report) = build(Metric::Cosine, &data.rows, 128, 2);
    assert_eq!(report.rows, 20_000);
    let checked = check(&store, |_, _| ()).unwrap();
    assert_eq!((checked.problems, checked.unreachable, checked.live), (vec![], 0, report.nodes));
    let (recall, hops) = recall(&store, &data, Metric::Cosine, 80, |_| true);
    // Clusters have eight rows: a search for 90 looks into many.
    assert!(recall >= 0.97 && hops <= 250.0, "recall {recall}, {hops} hops");
    let own = finds_itself(&store, &data, Metric::Cosine, (0..20_000).step_by(10));
    assert!(own >= 0.999, "{own} find themselves");
}

#[test]
fn cross_modal_queries_find_their_way() {
    let data = clustered(128, 20_000, 60, 400, 6, true);
    let (store, _) = build(Metric::Cosine, &data.rows, 128, 2);
    let (recall, hops) = recall(&store, &data, Metric::Cosine, 120, |_| true);
    assert!(recall >= 0.93, "recall {recall}, {hops} hops");
}

#[test]
fn a_manifold_by_every_metric() {
    let data = manifold(96, 20_000, 60, 16, 7);
    for (metric, wanted) in [(Metric::L2, 0.95), (Metric::Cosine, 0.95), (Metric::InnerProduct, 0.90)] {
        let (store, _) = build(metric, &data.rows, 96, 2);
        let (recall, hops) = recall(&store, &data, metric, 80, |_| true);
        assert!(recall >= wanted, "{metric:?}: recall {recall}, {hops} hops");
    }
}

#[test]
fn inner_products_of_rows_with_any_norms() {
    let (metric, dim, rows) = (Metric::InnerProduct, 48, 6000);
    for norms in ["linear", "lognormal", "factors"] {
        let data = generate::with_norms(dim, rows, 60, norms, 11);
        let (built, _) = build(metric, &data.rows, dim, 2);
        let cancel = AtomicBool::new(false);
        let threads = Threads::new(1, &cancel);
        let mut filled = MemStore::new();
        let geometry = Geometry::new(dim).unwrap();
        let empty = Builder::new(metric, geometry, 42, &[], usize::MAX, Parameters::default()).unwrap();
        empty.finish(&threads, &mut filled, &mut |_| ()).unwrap();
        let (mut index, mut random) = (Index::open(&filled).unwrap(), SplitMix64::new(1));
        for (i, vector) in data.rows.iter().enumerate() {
            insert(&filled, &mut index, vector, tid(i), &mut random).unwrap();
            if is_due(index.meta()) {
                train(&filled, &threads, &mut random).unwrap();
            }
        }
        for (name, store) in [("built", &built), ("filled", &filled)] {
            let (all, hops) = recall(store, &data, metric, 60, |_| true);
            assert!(all >= 0.93, "{norms}, {name}: {all}, {hops} hops");
            assert_eq!(check(store, |_, _| ()).unwrap().unreachable, 0, "{norms}, {name}");
            // The longest rows go, to which everybody had links: up to one in two. Measured: .89 at least.
            let norm = |i: usize| data.rows[i].iter().map(|x| x * x).sum::<f32>();
            let live = |i: usize| norm(i) < 16.0;
            let mut index = Index::open(store).unwrap();
            vacuum::delete(store, &index, |t| !live(row(t))).unwrap();
            vacuum::cleanup(store, &mut index, &mut random).unwrap();
            let (left, hops) = recall(store, &data, metric, 60, live);
            assert!(left >= 0.8, "{norms}, {name}, vacuumed: {left}, {hops} hops");
        }
    }
}

#[test]
fn rows_along_few_lines_differ_by_norm_alone() {
    let (metric, dim) = (Metric::InnerProduct, 8);
    for lines in [1, 3] {
        let axes = generate::with_norms(dim, lines, 1, "factors", 5).rows;
        let rows: Vec<Vec<f32>> = (0..4000)
            .map(|i| axes[i % lines].iter().map(|x| x * (i as f32 - 1000.0) / 100.0).collect())
            .collect();
        let (store, _) = build(metric, &rows, dim, 2);
        let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(2));
        let further: Vec<Vec<f32>> =
            rows.iter().take(1000).map(|row| row.iter().map(|x| x * 7.3).collect()).collect();
        for (i, vector) in further.iter().enumerate() {
            insert(&store, &mut index, vector, tid(4000 + i), &mut random).unwrap();
        }
        let rows: Vec<Vec<f32>> = rows.into_iter().chain(further).collect();
        let queries = vec![axes[0].clone(), axes[lines - 1].iter().map(|x| -x).collect()];
        let data = Data { name: String::new(), dim, rows, queries };
        let (recall, hops) = recall(&store, &data, metric, 60, |_| true);
        assert!(recall >= 0.9, "{lines} lines: {recall}, {hops} hops");
        assert_eq!(check(&store, |_, _| ()).unwrap().unreachable, 0);
    }
}

#[test]
fn inserts_and_deletes_keep_the_recall() {
    let data = manifold(96, 10_000, 100, 16, 8);
    let metric = Metric::L2;
    let (whole, _) = build(metric, &data.rows, 96, 2);
    let (built, _) = recall(&whole, &data, metric, 80, |_| true);
    let (store, _) = build(metric, &data.rows[..8000], 96, 2);
    let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
    let (commits, reads) = (store.commits(), store.reads());
    for (i, vector) in data.rows.iter().enumerate().skip(8000) {
        insert(&store, &mut index, vector, tid(i), &mut random).unwrap();
    }
    let per_insert = |n: u64| n as f64 / 2000.0;
    let (writes, reads) = (per_insert(store.commits() - commits), per_insert(store.reads() - reads));
    assert!(writes <= 36.0 && reads <= 250.0, "{writes} changes, {reads} reads per insert");
    let (inserted, _) = recall(&store, &data, metric, 80, |_| true);
    assert!(inserted >= built - 0.01, "built {built}, with a fifth inserted {inserted}");

    // Deleted in runs, as when a whole topic goes.
    let live = |i: usize| i / 100 % 10 >= 3;
    vacuum::delete(&store, &index, |t| !live(row(t))).unwrap();
    let (marked, _) = recall(&store, &data, metric, 80, live);
    let stats = vacuum::cleanup(&store, &mut index, &mut random).unwrap();
    assert_eq!(stats.freed, 3000);
    let (cleaned, _) = recall(&store, &data, metric, 80, live);
    let left: Vec<Vec<f32>> = (0..10_000).filter(|&i| live(i)).map(|i| data.rows[i].clone()).collect();
    let fresh = Data { name: String::new(), dim: 96, rows: left, queries: data.queries.clone() };
    let (rebuilt_store, _) = build(metric, &fresh.rows, 96, 2);
    let (rebuilt, _) = recall(&rebuilt_store, &fresh, metric, 80, |_| true);
    assert!(cleaned >= rebuilt - 0.01, "rebuilt {rebuilt}, marked {marked}, cleaned {cleaned}");
    let checked = check(&store, |_, _| ()).unwrap();
    assert_eq!((checked.problems, checked.stale_edges, checked.dead), (vec![], 0, 0));
    assert!(checked.unreachable <= 7, "{}", checked.unreachable);
}

#[test]
fn new_clusters_after_the_build_are_found() {
    let data = clustered(64, 12_000, 1, 1500, 9, false);
    // Sorted by their first coordinate, so that what is inserted lies elsewhere than what was built.
    let mut rows = data.rows;
    rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
    let data = Data { rows, ..data };
    let (store, _) = build(Metric::L2, &data.rows[..4000], 64, 2);
    let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
    for (i, vector) in data.rows.iter().enumerate().skip(4000) {
        insert(&store, &mut index, vector, tid(i), &mut random).unwrap();
    }
    let own = finds_itself(&store, &data, Metric::L2, (0..12_000).step_by(5));
    let checked = check(&store, |_, _| ()).unwrap();
    let lost = checked.unreachable;
    assert!(own >= 0.999 && lost <= 12, "{own} find themselves, {lost} of 12000 unreachable");
}

#[test]
fn filters_are_filled_by_going_on() {
    let data = clustered(64, 10_000, 20, 200, 10, false);
    let (store, _) = build(Metric::Cosine, &data.rows, 64, 2);
    let index = Index::open(&store).unwrap();
    for one_in in [10, 100, 1000] {
        let mut hits = 0;
        for query in &data.queries {
            let matching: Vec<Vec<f32>> = data.rows.iter().step_by(one_in).cloned().collect();
            let truth: Vec<usize> =
                exact(Metric::Cosine, &matching, query, 10).into_iter().map(|i| i * one_in).collect();
            let mut search = Search::new(&index, query, &Options::default()).unwrap();
            let found: Vec<usize> = std::iter::from_fn(|| search.next(&store, &index).unwrap())
                .map(|hit| row(hit.tid))
                .filter(|i| i % one_in == 0)
                .take(12)
                .collect();
            assert!(found.len() >= 10, "LIMIT is filled");
            hits += truth.iter().filter(|i| found.contains(i)).count();
        }
        assert!(hits >= 190, "1 in {one_in}: {hits} of 200");
    }
}

/// Clusters round centers without any order among themselves, one whole cluster after another.
fn one_cluster_after_another(dim: usize, clusters: usize, each: usize, spread: f32, seed: u64) -> Data {
    let mut r = Normal::new(seed);
    let (mut rows, mut queries) = (Vec::new(), Vec::new());
    for _ in 0..clusters {
        let center = r.vector(dim, 1.0);
        let mut near = || center.iter().zip(r.vector(dim, spread)).map(|(a, b)| a + b).collect::<Vec<f32>>();
        rows.extend(std::iter::repeat_with(&mut near).take(each));
        queries.push(near());
    }
    Data { name: format!("{clusters} clusters of {each}"), dim, rows, queries }
}

/// The index was created with its table, and rows came by topic, as most loads do: each topic starts where no row is.
#[test]
fn rows_that_come_cluster_by_cluster_into_an_empty_index_are_found() {
    for (clusters, each, spread, may_be_lost) in [(200, 100, 0.5, 2), (1000, 20, 0.2, 100)] {
        let data = one_cluster_after_another(64, clusters, each, spread, 3);
        let n = data.rows.len();
        for metric in [Metric::L2, Metric::Cosine] {
            let (store, _) = build(metric, &[], 64, 1);
            let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(1));
            for (i, vector) in data.rows.iter().enumerate() {
                insert(&store, &mut index, vector, tid(i), &mut random).unwrap();
            }
            let lost = (1.0 - finds_itself(&store, &data, metric, 0..n)) * n as f64;
            let (recall, hops) = recall(&store, &data, metric, 80, |_| true);
            let entries = index.entry_points().count();
            let told = format!(
                "{}, {metric:?}: {lost} lost, recall {recall}, {hops} hops, {entries} entries",
                data.name
            );
            assert!(lost <= f64::from(may_be_lost) + 0.5 && recall >= 0.99 && hops <= 500.0, "{told}");
            assert!((1024 + clusters / 2..=2048).contains(&entries), "one for each region: {told}");
        }
    }
}
