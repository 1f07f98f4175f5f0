//! Inside a leaf: all distances by one matrix product, the nearest rows, and a first prune by lookup.

use super::rows::RowSet;
use super::{Parameters, products};
use crate::graph::key::Key;
use crate::graph::prune::Pruner;
use crate::layout::NodeId;
use crate::quantize::Local;
use crate::space::Space;

/// Rows multiplied with the leaf at once.
const BLOCK: usize = 64;
/// Side of the squares by which the distances are mirrored.
const TILE: usize = 16;
/// Distances from which a bound for the nearest is guessed.
const GUESS_FROM: usize = 128;

/// Memory of one worker, used again from leaf to leaf.
#[derive(Default)]
pub(super) struct Scratch {
    local: Local,
    dots: Vec<i32>,
    distances: Vec<f32>,
    places: Vec<u32>,
    keys: Vec<Key>,
    sorted: Vec<f32>,
    kept: Vec<Key>,
    products: Vec<Key>,
    pruner: Pruner,
}

/// Calls `offer(row, candidates)` for each row of the leaf, with at most `keep` near candidates, and if wanted those with the highest inner
/// products.
#[allow(clippy::too_many_arguments, reason = "one phase of the build over shared inputs")]
pub(super) fn neighbors(
    set: &RowSet,
    leaf: &[u32],
    parameters: &Parameters,
    keep: usize,
    with_products: bool,
    space: &Space,
    scratch: &mut Scratch,
    mut offer: impl FnMut(u32, &[Key]),
) {
    let n = leaf.len();
    if n < 2 {
        return;
    }
    let middle = set.middle(space, leaf);
    set.localize(space, leaf.iter().copied(), &middle, &mut scratch.local);
    all_distances(n, set.dim, space, scratch);
    let nearest = parameters.leaf_nearest.min(n - 1);
    for (i, &row) in leaf.iter().enumerate() {
        // A row is far from itself.
        scratch.distances[i * n + i] = f32::INFINITY;
        let Scratch { distances, places, keys, sorted, kept, pruner, .. } = scratch;
        nearest_keys(&distances[i * n..(i + 1) * n], nearest, sorted, places, keys);
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
        if with_products {
            let all = &distances[i * n..(i + 1) * n];
            highest_products(set, leaf, all, &mut scratch.products);
            kept.append(&mut scratch.products);
        }
        offer(row, kept);
    }
}

/// The keys of those rows of a leaf that have the highest inner products with one of them, at these distances from it.
fn highest_products(set: &RowSet, leaf: &[u32], distances: &[f32], keys: &mut Vec<Key>) {
    keys.clear();
    keys.extend(
        leaf.iter().zip(distances).filter_map(|(&row, &far)| products::key(set.stored(row).bias, far, row)),
    );
    if keys.len() > products::MOST {
        keys.select_nth_unstable(products::MOST);
        keys.truncate(products::MOST);
    }
}

/// Fills in the distances, `[n, n]`: on one side of the diagonal by products, on the other by mirroring.
fn all_distances(n: usize, dim: usize, space: &Space, scratch: &mut Scratch) {
    let Scratch { local, dots, distances, .. } = scratch;
    let (scales, norms) = (local.scales(), local.norms());
    dots.resize(BLOCK * n, 0);
    distances.resize(n * n, 0.0);
    for start in (0..n).step_by(BLOCK) {
        let (rows, others) = (start..n.min(start + BLOCK), n - start);
        let codes = &local.codes()[start * dim..];
        let dots = &mut dots[..rows.len() * others];
        space.kernels.matrix_i8(&codes[..rows.len() * dim], codes, dim, dots);
        for (i, dots) in rows.zip(dots.chunks_exact(others)) {
            let (scale, norm) = (-2.0 * scales[i], norms[i]);
            let target = &mut distances[i * n + start..(i + 1) * n];
            let with = scales[start..].iter().zip(&norms[start..]);
            for ((distance, &dot), (other_scale, other_norm)) in target.iter_mut().zip(dots).zip(with) {
                *distance = (norm + other_norm + scale * other_scale * dot as f32).max(0.0);
            }
        }
    }
    for top in (0..n).step_by(TILE) {
        for left in (0..top).step_by(TILE) {
            for i in top..n.min(top + TILE) {
                for j in left..left + TILE {
                    distances[i * n + j] = distances[j * n + i];
                }
            }
        }
    }
}

/// The `count` smallest of some distances, with their places, in order.
fn nearest_keys(
    distances: &[f32],
    count: usize,
    guess: &mut Vec<f32>,
    places: &mut Vec<u32>,
    keys: &mut Vec<Key>,
) {
    let n = distances.len();
    let mut bound = f32::INFINITY;
    if n > 4 * GUESS_FROM {
        // About twice as many as are wanted lie below what twice their share of a sample lies below.
        guess.clear();
        guess.extend(distances.iter().step_by(n / GUESS_FROM));
        let share = (2 * count * guess.len() / n + 1).min(guess.len() - 1);
        bound = *guess.select_nth_unstable_by(share, f32::total_cmp).1;
    }
    places.resize(n, 0);
    let mut len = below(distances, bound, places);
    if len < count {
        len = below(distances, f32::INFINITY, places);
    }
    keys.clear();
    keys.extend(places[..len].iter().map(|&i| Key::new(distances[i as usize], NodeId(i))));
    if count < keys.len() {
        keys.select_nth_unstable(count);
        keys.truncate(count);
    }
    keys.sort_unstable();
}

/// Writes the places of all distances up to a bound and answers how many. There is no branch to guess wrong: a place
/// that is not wanted is written over.
fn below(distances: &[f32], bound: f32, places: &mut [u32]) -> usize {
    let mut len = 0;
    for (i, &distance) in (0..).zip(distances) {
        places[len] = i;
        len += usize::from(distance <= bound);
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn the_nearest_are_found_whatever_is_guessed() {
        let mut random = SplitMix64::new(1);
        let (mut guess, mut places, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for (n, count) in [(1, 1), (2, 1), (100, 60), (513, 60), (1000, 60), (1000, 999), (4096, 1)] {
            for spread in [1, 10, 1 << 20] {
                let mut distances: Vec<f32> = (0..n).map(|_| random.below(spread) as f32).collect();
                // Places that the guess looks at are the farthest, or the nearest.
                for sign in [0.0, 1e9, -1e9] {
                    for i in (0..n).step_by((n / GUESS_FROM).max(1)) {
                        distances[i] += sign;
                    }
                    nearest_keys(&distances, count, &mut guess, &mut places, &mut keys);
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
