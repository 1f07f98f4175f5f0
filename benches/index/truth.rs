//! Exact answers by brute force, and how much of them an answer holds.

use crate::data::{Metric, Set};
use std::thread;

pub const K: usize = 10;
/// Neighbors of the statistics.
const STATISTICS_K: usize = 20;
/// Distances of a server and ours are summed in different orders.
const TOLERANCE: f64 = 1e-6;

/// For each query the distances of its nearest rows, ascending; of the rows that `live` tells.
pub fn nearest(set: &Set, queries: &[Vec<f32>], live: &(dyn Fn(usize) -> bool + Sync)) -> Vec<Vec<f64>> {
    nearest_few(set, queries, STATISTICS_K, live)
}

/// The same for so many rows.
pub fn nearest_few(
    set: &Set,
    queries: &[Vec<f32>],
    count: usize,
    live: &(dyn Fn(usize) -> bool + Sync),
) -> Vec<Vec<f64>> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut answers = vec![Vec::new(); queries.len()];
    let share = queries.len().div_ceil(threads).max(1);
    thread::scope(|scope| {
        for (queries, answers) in queries.chunks(share).zip(answers.chunks_mut(share)) {
            scope.spawn(move || {
                for (query, answer) in queries.iter().zip(answers) {
                    *answer = nearest_of(set, query, count, live);
                }
            });
        }
    });
    answers
}

fn nearest_of(set: &Set, query: &[f32], count: usize, live: &dyn Fn(usize) -> bool) -> Vec<f64> {
    let mut best: Vec<f64> = Vec::with_capacity(count + 1);
    for (_, row) in set.rows.iter().enumerate().filter(|&(i, _)| live(i)) {
        let distance = set.metric.distance(row, query);
        if best.len() < count || distance < best[count - 1] {
            best.insert(best.partition_point(|&d| d <= distance), distance);
            best.truncate(count);
        }
    }
    best
}

/// Recall@10 by distance: a row counts if it is no farther than the tenth nearest, so that equals count alike. Ids are
/// row numbers; an id that comes twice counts once.
pub fn recall(set: &Set, queries: &[Vec<f32>], truth: &[Vec<f64>], answers: &[Vec<usize>]) -> f64 {
    recall_of(set, queries, truth, answers, K)
}

/// The same for so many rows.
pub fn recall_of(
    set: &Set,
    queries: &[Vec<f32>],
    truth: &[Vec<f64>],
    answers: &[Vec<usize>],
    count: usize,
) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    for ((query, truth), answer) in queries.iter().zip(truth).zip(answers) {
        let k = count.min(truth.len());
        wanted += k;
        let Some(last) = k.checked_sub(1).map(|i| truth[i]) else { continue };
        let mut answer = answer.clone();
        answer.sort_unstable();
        answer.dedup();
        let near = |&&id: &&usize| {
            set.metric.distance(&set.rows[id], query) <= last + TOLERANCE * last.abs().max(1e-3)
        };
        found += answer.iter().filter(near).count().min(k);
    }
    found as f64 / f64::from(u32::try_from(wanted.max(1)).expect("thousands"))
}

/// What kind of data this is: similarity of the nearest row, and local intrinsic dimension (maximum likelihood, Levina and
/// Bickel 2004, of the 20 nearest). Similarity is the cosine, or for L2 the distance.
pub fn describe(metric: Metric, truth: &[Vec<f64>]) -> String {
    let n = truth.len() as f64;
    let first = truth.iter().filter_map(|t| t.first()).sum::<f64>() / n;
    // Cosine distance grows with the square of the angle.
    let half = if metric == Metric::Cosine { 0.5 } else { 1.0 };
    let inverse = truth.iter().filter_map(|t| {
        let last = *t.last()?;
        let logarithms: Vec<f64> =
            t[..t.len() - 1].iter().filter(|&&d| d > 0.0).map(|d| half * (last / d).ln()).collect();
        let mean = logarithms.iter().sum::<f64>() / logarithms.len() as f64;
        (mean > 0.0).then_some(mean)
    });
    let inverse: Vec<f64> = inverse.collect();
    let dimension = inverse.len() as f64 / inverse.iter().sum::<f64>();
    let nearest = if metric == Metric::Cosine {
        format!("cosine to the nearest {:.2}", 1.0 - first)
    } else {
        format!("distance to the nearest {first:.2}")
    };
    format!("{nearest}, intrinsic dimension {dimension:.0}")
}
