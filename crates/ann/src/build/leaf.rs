//! Inside a leaf: all distances by one matrix product, the nearest rows, and a first prune by lookup.

use super::Parameters;
use super::partition::gather_into;
use super::rows::RowSet;
use crate::arch::Kernels;
use crate::graph::beam::Key;
use crate::graph::prune;
use crate::layout::NodeId;

/// Rows multiplied with the whole leaf at once.
const BLOCK: usize = 64;

/// Memory of one worker, used again from leaf to leaf.
#[derive(Default)]
pub(super) struct Scratch {
    codes: Vec<i8>,
    dots: Vec<i32>,
    distances: Vec<f32>,
    keys: Vec<Key>,
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
    scratch.dots.resize(BLOCK * n, 0);
    scratch.distances.resize(n * n, 0.0);
    for (block, rows) in leaf.chunks(BLOCK).enumerate() {
        let codes = &scratch.codes[block * BLOCK * set.dim..][..rows.len() * set.dim];
        let dots = &mut scratch.dots[..rows.len() * n];
        kernels.matrix_i8(codes, &scratch.codes, set.dim, dots);
        let target = scratch.distances[block * BLOCK * n..][..rows.len() * n].chunks_exact_mut(n);
        for ((&row, dots), distances) in rows.iter().zip(dots.chunks_exact(n)).zip(target) {
            let (scale, norm) = (-2.0 * set.scales[row as usize], set.norms[row as usize]);
            for ((distance, &dot), &other) in distances.iter_mut().zip(dots).zip(leaf) {
                let product = scale * set.scales[other as usize] * dot as f32;
                *distance = (norm + set.norms[other as usize] + product).max(0.0);
            }
        }
    }
    let nearest = parameters.leaf_nearest.min(n - 1);
    for (i, &row) in leaf.iter().enumerate() {
        let distances = &scratch.distances[i * n..(i + 1) * n];
        let place = |j: usize| NodeId(u32::try_from(j).expect("a leaf is small"));
        scratch.keys.clear();
        scratch.keys.extend((0..n).filter(|&j| j != i).map(|j| Key::new(distances[j], place(j))));
        let keys = &mut scratch.keys;
        if nearest < keys.len() {
            keys.select_nth_unstable(nearest);
            keys.truncate(nearest);
        }
        keys.sort_unstable();
        let sorted: Vec<f32> = keys.iter().map(|key| key.score()).collect();
        let at = |k: usize| keys[k].id().0 as usize;
        let kept = prune::select(&sorted, parameters.alpha, keep, false, |a, b| {
            scratch.distances[at(a) * n + at(b)]
        });
        let kept: Vec<Key> = kept.into_iter().map(|k| Key::new(sorted[k], NodeId(leaf[at(k)]))).collect();
        offer(row, &kept);
    }
}
