//! Pairs within a distance and nearest neighbors, by one pass over an index, against exact ones.

mod common;

use common::{Data, build, clustered, distance, latent, manifold, row};
use imgvec_ann::build::executor::Threads;
use imgvec_ann::graph::near::{LoadError, NO_NEIGHBOR, Nodes, Pairs};
use imgvec_ann::{Index, Metric};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

fn load(data: &Data, metric: Metric) -> Nodes {
    let (store, _) = build(metric, &data.rows, data.rows[0].len(), 2);
    Nodes::load(&store, &Index::open(&store).unwrap(), usize::MAX).unwrap()
}

/// The L2 distance that stands for a distance.
fn as_l2(metric: Metric, distance: f64) -> f64 {
    if metric == Metric::Cosine { (2.0 * distance).sqrt() } else { distance }
}

/// Asks for the distance below which there are about `wanted` pairs a row: all but few are found.
fn assert_finds(data: &Data, metric: Metric, wanted: f64, least: f64) {
    let rows = &data.rows;
    let mut all: Vec<(f64, (usize, usize))> = Vec::new();
    for (i, a) in rows.iter().enumerate() {
        all.extend(rows.iter().enumerate().skip(i + 1).map(|(j, b)| (distance(metric, a, b), (i, j))));
    }
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let exact = &all[..(wanted * rows.len() as f64) as usize];
    let bound = exact[exact.len() - 1].0;
    let nodes = load(data, metric);
    assert_eq!(nodes.row_count(), rows.len());
    let (cancel, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let found = nodes.pairs(as_l2(metric, bound), usize::MAX / 2, &Threads::new(2, &cancel), &done).unwrap();
    assert_eq!(done.into_inner(), nodes.len());
    let Pairs::All(found) = found else { panic!("{found:?}") };
    assert!(found.is_sorted() && found.windows(2).all(|pair| pair[0] != pair[1]));
    let mut of_rows: HashSet<(usize, usize)> = HashSet::new();
    let mut add = |a: usize, b: usize| of_rows.insert((a.min(b), a.max(b)));
    for &(a, b) in &found {
        nodes.rows(a).iter().for_each(|&a| nodes.rows(b).iter().for_each(|&b| _ = add(row(a), row(b))));
    }
    for node in 0..nodes.len() as u32 {
        assert_eq!(nodes.has_copies(node), nodes.rows(node).len() > 1);
        for (at, &a) in nodes.rows(node).iter().enumerate() {
            nodes.rows(node)[at + 1..].iter().for_each(|&b| _ = add(row(a), row(b)));
        }
    }
    let hits = exact.iter().filter(|(_, pair)| of_rows.contains(pair)).count();
    let recall = hits as f64 / exact.len() as f64;
    println!(
        "{metric:?}, {wanted} pairs a row: recall {recall}, {} candidates for {}",
        of_rows.len(),
        exact.len()
    );
    assert!(recall >= least, "{metric:?}: {recall} of {} pairs within {bound}", exact.len());
}

#[test]
fn pairs_of_three_families_are_found() {
    for wanted in [0.5, 5.0] {
        assert_finds(&manifold(96, 1500, 1, 16, 3), Metric::Cosine, wanted, 0.99);
        assert_finds(&clustered(128, 1500, 1, 150, 4, false), Metric::L2, wanted, 0.99);
        assert_finds(&latent(64, 1500, 1, 24, 5, false), Metric::Cosine, wanted, 0.99);
    }
}

/// The same of pairs of every tenth row, in a larger set.
fn assert_finds_of_some(data: &Data, metric: Metric, least: f64) {
    let rows = &data.rows;
    let asked: Vec<usize> = (0..rows.len()).step_by(10).collect();
    let mut all: Vec<(f64, (usize, usize))> = Vec::new();
    for &i in &asked {
        let mut own: Vec<(f64, (usize, usize))> = (0..rows.len())
            .filter(|&j| j != i)
            .map(|j| (distance(metric, &rows[i], &rows[j]), (i.min(j), i.max(j))))
            .collect();
        // No row has so many.
        own.select_nth_unstable_by(1000, |x, y| x.0.total_cmp(&y.0));
        all.extend_from_slice(&own[..1000]);
    }
    all.sort_by(|x, y| x.0.total_cmp(&y.0));
    let nodes = load(data, metric);
    for wanted in [0.5, 5.0, 18.0] {
        let exact = &all[..(2.0 * wanted * asked.len() as f64) as usize];
        let bound = exact[exact.len() - 1].0;
        let (cancel, done) = (AtomicBool::new(false), AtomicUsize::new(0));
        let threads = Threads::new(2, &cancel);
        let found = nodes.pairs(as_l2(metric, bound), usize::MAX / 2, &threads, &done).unwrap();
        let Pairs::All(found) = found else { panic!("{found:?}") };
        let found: HashSet<(usize, usize)> = found
            .iter()
            .map(|&(a, b)| (row(nodes.rows(a)[0]), row(nodes.rows(b)[0])))
            .map(|(a, b)| (a.min(b), a.max(b)))
            .collect();
        let hits = exact.iter().filter(|(_, pair)| found.contains(pair)).count();
        let recall = hits as f64 / exact.len() as f64;
        println!("{}, {wanted} pairs a row: recall {recall}", data.name);
        assert!(recall >= least, "{}: {recall} of {} pairs within {bound}", data.name, exact.len());
    }
}

#[test]
fn pairs_of_clusters_that_overlap_are_found() {
    assert_finds_of_some(&latent(128, 5000, 1, 64, 1, false), Metric::Cosine, 0.995);
    assert_finds_of_some(&clustered(128, 5000, 1, 40, 2, false), Metric::L2, 0.995);
    assert_finds_of_some(&manifold(128, 5000, 1, 12, 2), Metric::Cosine, 0.995);
}

#[test]
fn copies_are_pairs_of_one_node() {
    let mut data = manifold(64, 300, 1, 8, 1);
    let copy = data.rows[7].clone();
    data.rows.extend(vec![copy; 20]);
    let nodes = load(&data, Metric::L2);
    assert_eq!((nodes.len(), nodes.row_count()), (300, 320));
    assert_eq!((0..300).filter(|&node| nodes.has_copies(node)).count(), 1);
    assert_finds(&data, Metric::L2, 0.65, 1.0);
}

#[test]
fn too_many_are_counted_and_too_large_is_said() {
    let data = manifold(64, 2000, 1, 8, 2);
    let nodes = load(&data, Metric::Cosine);
    let (cancel, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let found = nodes.pairs(2.0, 10_000, &Threads::new(2, &cancel), &done).unwrap();
    let Pairs::TooMany(count) = found else { panic!("found all") };
    // All pairs are within that: about 2,000,000.
    assert!((500_000..8_000_000).contains(&count), "{count}");
    assert!(done.into_inner() < 2000);
    let (store, _) = build(Metric::Cosine, &data.rows, 64, 1);
    let index = Index::open(&store).unwrap();
    for bytes in [0, 100_000, 300_000] {
        let Err(LoadError::TooLarge(wanted)) = Nodes::load(&store, &index, bytes) else { panic!("{bytes}") };
        assert!(wanted > bytes && wanted < 4_000_000, "{wanted}");
        assert!(Nodes::load(&store, &index, 4_000_000).is_ok());
    }
    cancel.store(true, Ordering::Relaxed);
    assert!(nodes.pairs(0.1, 10_000, &Threads::new(2, &cancel), &AtomicUsize::new(0)).is_err());
    assert!(nodes.nearest(5, &Threads::new(2, &cancel), &AtomicUsize::new(0)).is_err());
}

#[test]
fn the_nearest_of_every_node_are_found() {
    let data = manifold(96, 3000, 1, 16, 6);
    let nodes = load(&data, Metric::L2);
    let cancel = AtomicBool::new(false);
    let k = 10;
    let nearest = nodes.nearest(k, &Threads::new(2, &cancel), &AtomicUsize::new(0)).unwrap();
    assert_eq!(nearest.lists.len(), nodes.len() * k);
    let mut hits = 0;
    for (node, list) in nearest.lists.chunks(k).enumerate() {
        assert!(list.is_sorted_by(|x, y| x.1 <= y.1));
        let own = row(nodes.rows(node as u32)[0]);
        let mut all: Vec<(f64, usize)> = (0..data.rows.len())
            .filter(|&other| other != own)
            .map(|other| (distance(Metric::L2, &data.rows[own], &data.rows[other]), other))
            .collect();
        all.sort_by(|x, y| x.0.total_cmp(&y.0));
        let found: Vec<usize> =
            list.iter().filter(|&&n| n != NO_NEIGHBOR).map(|n| row(nodes.rows(n.0)[0])).collect();
        hits += all[..k].iter().filter(|(_, other)| found.contains(other)).count();
    }
    let recall = hits as f64 / nearest.lists.len() as f64;
    println!("recall of neighbors {recall}");
    assert!(recall > 0.97, "{recall}");
}
