//! Indexes that are created first and filled later: they are trained on the way, and become what a build makes.

mod common;

use common::{Data, Normal, build, exact, latent, row, search, tid};
use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::{Builder, Parameters};
use imgvec_ann::graph::check::check;
use imgvec_ann::graph::insert::insert;
use imgvec_ann::graph::search::{Options, Search};
use imgvec_ann::graph::train::{Trained, is_due, is_trainable, train};
use imgvec_ann::graph::vacuum;
use imgvec_ann::layout::Geometry;
use imgvec_ann::random::SplitMix64;
use imgvec_ann::store::mem::MemStore;
use imgvec_ann::{Index, Metric};
use std::sync::atomic::AtomicBool;

/// An index without rows.
fn empty(metric: Metric, dim: usize) -> MemStore {
    let geometry = Geometry::new(dim).unwrap();
    let builder = Builder::new(metric, geometry, 42, &[], usize::MAX, Parameters::default()).unwrap();
    let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
    builder.finish(&Threads::new(1, &cancel), &mut store, &mut |_| ()).unwrap();
    store
}

/// Trains as whoever inserts does; answers how often.
fn train_if_due(store: &MemStore, index: &Index, random: &mut SplitMix64) -> usize {
    let cancel = AtomicBool::new(false);
    let due = is_due(index.meta());
    usize::from(due && train(store, &Threads::new(1, &cancel), random).unwrap() == Trained::Done)
}

fn fill(store: &MemStore, rows: &[Vec<f32>], first: usize) -> usize {
    let (mut index, mut random, mut trained) = (Index::open(store).unwrap(), SplitMix64::new(9), 0);
    for (i, vector) in rows.iter().enumerate().skip(first) {
        insert(store, &mut index, vector, tid(i), &mut random).unwrap();
        trained += train_if_due(store, &index, &mut random);
    }
    trained
}

fn recall(store: &MemStore, metric: Metric, data: &Data) -> f64 {
    let index = Index::open(store).unwrap();
    let mut hits = 0;
    for query in &data.queries {
        let truth = exact(metric, &data.rows, query, 10);
        let (found, _, _) = search(store, &index, metric, &data.rows, query, 10, 60);
        hits += found.iter().filter(|row| truth.contains(row)).count();
    }
    hits as f64 / (10 * data.queries.len()) as f64
}

/// All rows that a search gives, by number.
fn all(store: &MemStore, query: &[f32]) -> Vec<usize> {
    let index = Index::open(store).unwrap();
    let mut search = Search::new(&index, query, &Options::default()).unwrap();
    let mut rows = Vec::new();
    while let Some(hit) = search.next(store, &index).unwrap() {
        rows.push(row(hit.tid));
    }
    rows.sort_unstable();
    rows
}

fn assert_sound(store: &MemStore, rows: usize) {
    let report = check(store, |_, _| ()).unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
    assert_eq!((report.rows, report.unreachable), (rows as u64, 0), "{report:?}");
}

#[test]
fn what_is_filled_later_is_as_good_as_what_is_built() {
    const ROWS: usize = 5000;
    for texts in [false, true] {
        let data = latent(128, ROWS, 100, 40, 11, texts);
        let (built, _) = build(Metric::Cosine, &data.rows, 128, 2);
        let filled = empty(Metric::Cosine, 128);
        assert!(is_trainable(Index::open(&filled).unwrap().meta()));
        assert_eq!(fill(&filled, &data.rows, 0), 2, "with some rows and with enough");
        let index = Index::open(&filled).unwrap();
        assert!(!is_trainable(index.meta()));
        assert_eq!(
            index.space().geometry().planes(),
            Index::open(&built).unwrap().space().geometry().planes()
        );
        let (built, filled_recall) =
            (recall(&built, Metric::Cosine, &data), recall(&filled, Metric::Cosine, &data));
        println!("texts {texts}: built {built}, filled {filled_recall}");
        assert!(filled_recall >= built - 0.03, "texts {texts}: built {built}, filled {filled_recall}");
        assert_sound(&filled, ROWS);
    }
}

#[test]
fn rows_far_from_zero_are_found() {
    const ROWS: usize = 4000;
    for (dim, offset) in [(64, 8.0f32), (64, 30.0), (3, 30.0), (2, 8.0)] {
        for metric in [Metric::Cosine, Metric::L2] {
            let mut normal = Normal::new(13);
            let direction = normal.vector(dim, offset);
            let one = |normal: &mut Normal| -> Vec<f32> {
                normal.vector(dim, 1.0).iter().zip(&direction).map(|(x, o)| x + o).collect()
            };
            let rows: Vec<Vec<f32>> = (0..ROWS).map(|_| one(&mut normal)).collect();
            let queries: Vec<Vec<f32>> = (0..50).map(|_| one(&mut normal)).collect();
            let data = Data { name: String::new(), dim, rows, queries };
            let store = empty(metric, dim);
            fill(&store, &data.rows, 0);
            let found = recall(&store, metric, &data);
            println!("{dim} dimensions, offset {offset}, {metric:?}: {found}");
            assert!(found >= 0.93, "{dim} dimensions, offset {offset}, {metric:?}: {found}");
            assert_sound(&store, ROWS);
        }
    }
}

#[test]
fn copies_of_rows_from_before_a_training_share_their_second_node() {
    const ROWS: usize = 1500;
    let data = latent(128, ROWS, 20, 40, 19, false);
    let rows: Vec<Vec<f32>> = (0..3 * ROWS).map(|i| data.rows[i % ROWS].clone()).collect();
    let store = empty(Metric::Cosine, 128);
    let mut live = [1, 2, 3].map(|times| {
        fill(&store, &rows[..times * ROWS], (times - 1) * ROWS);
        check(&store, |_, _| ()).unwrap().live
    });
    println!("{live:?}");
    // What a training took over is known to eight bits, which equal vectors cannot be told from near ones by.
    let first = live[0];
    live.iter_mut().for_each(|nodes| *nodes -= first);
    assert!(live[1] <= 1100 && live[2] <= live[1] + 15, "{live:?} nodes more than rows");
    // Bounds hold, as `search` asserts.
    let index = Index::open(&store).unwrap();
    for query in &data.queries {
        assert_eq!(search(&store, &index, Metric::Cosine, &rows, query, 20, 60).0.len(), 20);
    }
}

#[test]
fn a_few_rows_far_away_cost_the_others_nothing() {
    const ROWS: usize = 6000;
    let mut normal = Normal::new(17);
    let one = |normal: &mut Normal, scale: f32| normal.vector(32, scale);
    let rows: Vec<Vec<f32>> =
        (0..ROWS).map(|i| one(&mut normal, if i % 500 == 7 { 1e6 } else { 1.0 })).collect();
    let queries: Vec<Vec<f32>> = (0..40).map(|_| one(&mut normal, 1.0)).collect();
    let (built, _) = build(Metric::L2, &rows, 32, 2);
    let filled = empty(Metric::L2, 32);
    fill(&filled, &rows, 0);
    for (name, store) in [("built", &built), ("filled", &filled)] {
        let index = Index::open(store).unwrap();
        let (mut hits, mut fetched) = (0, 0);
        for query in &queries {
            let truth = exact(Metric::L2, &rows, query, 10);
            let (found, count, _) = search(store, &index, Metric::L2, &rows, query, 10, 60);
            hits += found.iter().filter(|row| truth.contains(row)).count();
            fetched += count;
        }
        let (recall, fetched) = (hits as f64 / 400.0, fetched as f64 / 40.0);
        println!("{name}: recall {recall}, {fetched} rows fetched");
        assert!(recall >= 0.9 && fetched < 40.0, "{name}: recall {recall}, {fetched} rows fetched");
    }
}

#[test]
fn a_training_that_ends_anywhere_loses_and_doubles_nothing() {
    const ROWS: usize = 128;
    let mut normal = Normal::new(3);
    let rows: Vec<Vec<f32>> = (0..ROWS + 40).map(|_| normal.vector(20, 1.0)).collect();
    // Two rows share a vector, one goes again.
    let mut crashes = 0;
    for commits in 0.. {
        let store = empty(Metric::L2, 20);
        let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(9));
        for (i, vector) in rows[..ROWS].iter().enumerate() {
            insert(&store, &mut index, vector, tid(i), &mut random).unwrap();
        }
        index.refresh(&store).unwrap();
        assert!(is_due(index.meta()));
        let begun = {
            let mut search = Search::new(&index, &rows[5], &Options::default()).unwrap();
            let first = search.next(&store, &index).unwrap().unwrap();
            (search, row(first.tid))
        };
        store.crash_after(commits);
        let cancel = AtomicBool::new(false);
        let result = train(&store, &Threads::new(1, &cancel), &mut random);
        let store = if result.is_err() {
            crashes += 1;
            store.restart()
        } else {
            // A search that began before the training goes on in the old pages.
            let (mut search, first) = begun;
            let mut rest = vec![first];
            while let Some(hit) = search.next(&store, &index).unwrap() {
                rest.push(row(hit.tid));
            }
            rest.sort_unstable();
            assert_eq!(rest, (0..ROWS).collect::<Vec<_>>());
            store.restart()
        };
        assert_eq!(all(&store, &rows[3]), (0..ROWS).collect::<Vec<_>>(), "after {commits} commits");
        // It goes on, and is trained at last.
        let mut index = Index::open(&store).unwrap();
        for (i, vector) in rows.iter().enumerate().skip(ROWS) {
            insert(&store, &mut index, vector, tid(i), &mut random).unwrap();
            train_if_due(&store, &index, &mut random);
        }
        vacuum::delete(&store, &index, |t| row(t) % 5 == 2).unwrap();
        vacuum::cleanup(&store, &mut index, &mut random).unwrap();
        let wanted: Vec<usize> = (0..rows.len()).filter(|i| i % 5 != 2).collect();
        assert_eq!(all(&store, &rows[3]), wanted, "after {commits} commits");
        assert!(Index::open(&store).unwrap().meta().built_rows >= 128);
        assert_sound(&store, wanted.len());
        if result.is_ok() {
            break;
        }
    }
    assert!(crashes > 10, "a training is many changes: {crashes}");
}

/// Data whose middle moves on, by ten spreads in all or far more, and data half of which is replaced again and again by rows elsewhere.
#[test]
fn data_that_moves_is_found_as_if_it_were_built() {
    const ROWS: usize = 4000;
    let dim = 64;
    for (metric, step) in [(Metric::L2, 10.0f32), (Metric::L2, 200.0), (Metric::Cosine, 10.0)] {
        let mut normal = Normal::new(17);
        let (start, way) = (normal.vector(dim, 3.0), normal.vector(dim, 1.0));
        let one = |normal: &mut Normal, moved: f32| -> Vec<f32> {
            let at = start.iter().zip(&way).map(|(s, w)| s + moved * w);
            normal.vector(dim, 1.0).iter().zip(at).map(|(x, at)| x + at).collect()
        };
        // Drift: each row a little further than the one before.
        let moved = |i: usize| step * i as f32 / ROWS as f32;
        let rows: Vec<Vec<f32>> = (0..ROWS).map(|i| one(&mut normal, moved(i))).collect();
        let queries: Vec<Vec<f32>> = (0..60).map(|i| one(&mut normal, moved(i * ROWS / 60))).collect();
        let data = Data { name: String::new(), dim, rows, queries };
        let (built, _) = build(metric, &data.rows, dim, 2);
        let filled = empty(metric, dim);
        fill(&filled, &data.rows, 0);
        let (of_built, of_filled) = (recall(&built, metric, &data), recall(&filled, metric, &data));
        println!("{metric:?}, drift by {step}: built {of_built}, filled {of_filled}");
        assert!(of_filled >= of_built - 0.03, "drift by {step}: built {of_built}, filled {of_filled}");
        assert_sound(&filled, ROWS);

        // Half replaced, eight times: what is left at last lies far from what the index learned from.
        let (store, _) = build(metric, &data.rows[..2000], dim, 2);
        let (mut index, mut random) = (Index::open(&store).unwrap(), SplitMix64::new(3));
        let mut live: Vec<(usize, Vec<f32>)> = data.rows[..2000].iter().cloned().enumerate().collect();
        let mut next = 2000;
        for round in 1..=8u8 {
            let gone: Vec<usize> = live.iter().step_by(2).map(|(i, _)| *i).collect();
            vacuum::delete(&store, &index, |t| gone.binary_search(&row(t)).is_ok()).unwrap();
            vacuum::cleanup(&store, &mut index, &mut random).unwrap();
            live.retain(|(i, _)| gone.binary_search(i).is_err());
            for _ in 0..gone.len() {
                let vector = one(&mut normal, step * f32::from(round));
                insert(&store, &mut index, &vector, tid(next), &mut random).unwrap();
                live.push((next, vector));
                next += 1;
            }
            assert_sound(&store, 2000);
        }
        let rows: Vec<Vec<f32>> = live.iter().map(|(_, vector)| vector.clone()).collect();
        let queries: Vec<Vec<f32>> = (0..60).map(|_| one(&mut normal, step * 8.0)).collect();
        let (rebuilt, _) = build(metric, &rows, dim, 2);
        let of = |store: &MemStore, numbers: &dyn Fn(usize) -> usize| {
            let index = Index::open(store).unwrap();
            let mut hits = 0;
            for query in &queries {
                let truth = exact(metric, &rows, query, 10);
                let options = Options::default();
                let mut search = Search::new(&index, query, &options).unwrap();
                let mut found: Vec<(f64, usize)> = Vec::new();
                // As the executor does: true distances of what comes, until no bound is below the tenth.
                while let Some(hit) = search.next(store, &index).unwrap() {
                    let place = numbers(row(hit.tid));
                    let distance = common::distance(metric, &rows[place], query);
                    if found.len() >= 10 && hit.lower_bound > found[9].0 {
                        break;
                    }
                    found.push((distance, place));
                    found.sort_by(|a, b| a.0.total_cmp(&b.0));
                    found.truncate(10);
                }
                hits += found.iter().filter(|(_, place)| truth.contains(place)).count();
            }
            hits as f64 / (10 * queries.len()) as f64
        };
        let place = |number: usize| live.binary_search_by_key(&number, |(i, _)| *i).unwrap();
        let (of_built, of_changed) = (of(&rebuilt, &|i| i), of(&store, &place));
        println!("{metric:?}, half replaced, {step} apart: built {of_built}, changed {of_changed}");
        assert!(of_changed >= of_built - 0.03, "{step} apart: built {of_built}, changed {of_changed}");
    }
}
