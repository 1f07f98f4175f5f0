//! Inside a leaf: all distances by one matrix product, the nearest rows, and a first prune by lookup.

use super::Parameters;
use super::partition::gather_into;
use super::rows::RowSet;
use crate::arch::Kernels;
use crate::graph::beam::Key;
use crate::graph::prune::Pruner;
use crate::layout::NodeId;

/// Rows multiplied with the leaf at once.
const BLOCK: usize = 64;
/// Side of the squares by which the distances are mirrored.
const TILE: usize = 16;
/// Distances from which a bound for the nearest is guessed.
const GUESS_FROM: usize = 128;

/// Memory of one worker, used again from leaf to leaf.
#[derive(Default)]
pub(super) struct Scratch {
    codes: Vec<i8>,
    dots: Vec<i32>,
    distances: Vec<f32>,
    keys: Vec<Key>,
    sorted: Vec<f32>,
    kept: Vec<Key>,
    pruner: Pruner,
}

/// Calls `offer(row, candidates)` for each row of the leaf, with at most `keep` candidates.
pub(super) fn neighbors(
    set: &RowSet,
    leaf: &[u32],
    parameters: &Parameters,
    keep: usize,
    kernels: Kernels,
    scratch: &mut Scratch,
    mut offer: impl FnMut(u32, &[Key]),
) {
    let n = leaf.len();
    if n < 2 {
        return;
    }
    gather_into(set, leaf, &mut scratch.codes);
    all_distances(set, leaf, kernels, scratch);
    let nearest = parameters.leaf_nearest.min(n - 1);
    for (i, &row) in leaf.iter().enumerate() {
        // A row is far from itself.
        scratch.distances[i * n + i] = f32::INFINITY;
        let Scratch { distances, keys, sorted, kept, pruner, .. } = scratch;
        nearest_keys(&distances[i * n..(i + 1) * n], nearest, sorted, keys);
        sorted.clear();
        sorted.extend(keys.iter().map(|key| key.score()));
        let chosen = pruner.select(sorted, parameters.alpha, keep, false, |from, others, out| {
            let from = &distances[keys[from as usize].id().0 as usize * n..][..n];
            out.extend(others.iter().map(|&other| from[keys[other as usize].id().0 as usize]));
        });
        kept.clear();
        kept.extend(chosen.iter().map(|&k| {
            let key = keys[k as usize];
            Key::new(key.score(), NodeId(leaf[key.id().0 as usize]))
        }));
        offer(row, kept);
    }
}

/// Fills in the distances, `[n, n]`: on one side of the diagonal by products, on the other by mirroring.
fn all_distances(set: &RowSet, leaf: &[u32], kernels: Kernels, scratch: &mut Scratch) {
    let n = leaf.len();
    scratch.dots.resize(BLOCK * n, 0);
    scratch.distances.resize(n * n, 0.0);
    for (block, rows) in leaf.chunks(BLOCK).enumerate() {
        let start = block * BLOCK;
        let others = &leaf[start..];
        let codes = &scratch.codes[start * set.dim..];
        let dots = &mut scratch.dots[..rows.len() * others.len()];
        kernels.matrix_i8(&codes[..rows.len() * set.dim], codes, set.dim, dots);
        let target = scratch.distances[start * n..][..rows.len() * n].chunks_exact_mut(n);
        for ((&row, dots), distances) in rows.iter().zip(dots.chunks_exact(others.len())).zip(target) {
            let (scale, norm) = (-2.0 * set.scales[row as usize], set.norms[row as usize]);
            for ((distance, &dot), &other) in distances[start..].iter_mut().zip(dots).zip(others) {
                let product = scale * set.scales[other as usize] * dot as f32;
                *distance = (norm + set.norms[other as usize] + product).max(0.0);
            }
        }
    }
    for top in (0..n).step_by(TILE) {
        for left in (0..top).step_by(TILE) {
            for i in top..n.min(top + TILE) {
                for j in left..left + TILE {
                    scratch.distances[i * n + j] = scratch.distances[j * n + i];
                }
            }
        }
    }
}

/// The `count` smallest of some distances, with their places, in order.
fn nearest_keys(distances: &[f32], count: usize, guess: &mut Vec<f32>, keys: &mut Vec<Key>) {
    let n = distances.len();
    let mut bound = f32::INFINITY;
    if n > 4 * GUESS_FROM {
        // About twice as many as are wanted lie below what twice their share of a sample lies below.
        guess.clear();
        guess.extend(distances.iter().step_by(n / GUESS_FROM));
        let share = (2 * count * guess.len() / n + 1).min(guess.len() - 1);
        bound = *guess.select_nth_unstable_by(share, f32::total_cmp).1;
    }
    loop {
        // Written whether it is wanted or not: there is no branch to guess wrong.
        keys.resize(n, Key::new(0.0, NodeId(0)));
        let mut len = 0;
        for (j, &distance) in (0..).zip(distances) {
            keys[len] = Key::new(distance, NodeId(j));
            len += usize::from(distance <= bound);
        }
        keys.truncate(len);
        if len >= count || bound == f32::INFINITY {
            break;
        }
        bound = f32::INFINITY;
    }
    if count < keys.len() {
        keys.select_nth_unstable(count);
        keys.truncate(count);
    }
    keys.sort_unstable();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn the_nearest_are_found_whatever_is_guessed() {
        let mut random = SplitMix64::new(1);
        let (mut guess, mut keys) = (Vec::new(), Vec::new());
        for (n, count) in [(1, 1), (2, 1), (100, 60), (513, 60), (1000, 60), (1000, 999), (4096, 1)] {
            for spread in [1, 10, 1 << 20] {
                let mut distances: Vec<f32> = (0..n).map(|_| random.below(spread) as f32).collect();
                // Places that the guess looks at are the farthest, or the nearest.
                for sign in [0.0, 1e9, -1e9] {
                    for i in (0..n).step_by((n / GUESS_FROM).max(1)) {
                        distances[i] += sign;
                    }
                    nearest_keys(&distances, count, &mut guess, &mut keys);
                    let mut wanted: Vec<Key> =
                        (0..).zip(&distances).map(|(i, &x)| Key::new(x, NodeId(i))).collect();
                    wanted.sort_unstable();
                    wanted.truncate(count);
                    assert_eq!(keys, wanted, "{count} of {n}");
                }
            }
        }
    }
}
