//! Overlapping random partitions: rows go to the leaves of their nearest random leaders.

use super::executor::{Cancelled, Executor, map};
use super::{Parameters, RowSet};
use crate::arch::Kernels;
use crate::graph::beam::Key;
use crate::layout::NodeId;
use crate::random::SplitMix64;

/// Rows compared with the leaders at once.
const BLOCK: usize = 256;
/// Most leaders of a level.
const MAX_LEADERS: usize = 1000;
/// Levels after which rows are dealt out blindly: they are all alike.
const MAX_DEPTH: usize = 12;

/// Leaves of at most `leaf_rows` rows that cover `rows`, most rows several times. Neighboring leaves are
/// near each other in the list.
pub(super) fn partition(
    set: &RowSet,
    rows: Vec<u32>,
    parameters: &Parameters,
    kernels: Kernels,
    random: &mut SplitMix64,
    executor: &dyn Executor,
) -> Result<Vec<Vec<u32>>, Cancelled> {
    let mut leaves = Vec::new();
    let mut open = vec![(rows, 0)];
    while let Some((rows, depth)) = open.pop() {
        if rows.len() <= parameters.leaf_rows {
            if !rows.is_empty() {
                leaves.push(rows);
            }
        } else if depth == MAX_DEPTH {
            leaves.extend(rows.chunks(parameters.leaf_rows).map(<[u32]>::to_vec));
        } else {
            let fan = parameters.fan_out.get(depth).or(parameters.fan_out.last()).copied().unwrap_or(1);
            let children = split(set, &rows, fan, parameters, kernels, random, executor)?;
            open.extend(children.into_iter().rev().map(|child| (child, depth + 1)));
        }
    }
    Ok(leaves)
}

fn split(
    set: &RowSet,
    rows: &[u32],
    fan: usize,
    parameters: &Parameters,
    kernels: Kernels,
    random: &mut SplitMix64,
    executor: &dyn Executor,
) -> Result<Vec<Vec<u32>>, Cancelled> {
    // Leaves are uneven: aiming at half of the limit leaves most below it.
    let wanted = rows.len() * fan * 2 / parameters.leaf_rows;
    let leaders = random.sample(rows.len(), wanted.clamp(fan + 1, MAX_LEADERS.min(rows.len())));
    let leader_rows: Vec<u32> = leaders.iter().map(|&i| rows[i]).collect();
    let leader_codes = gather(set, &leader_rows);
    let nearest = map(
        executor,
        rows.len().div_ceil(BLOCK),
        || (Vec::new(), vec![0i32; BLOCK * leader_rows.len()], Vec::new()),
        |(codes, dots, keys), block| {
            let rows = &rows[block * BLOCK..rows.len().min((block + 1) * BLOCK)];
            gather_into(set, rows, codes);
            let dots = &mut dots[..rows.len() * leader_rows.len()];
            kernels.matrix_i8(codes, &leader_codes, set.dim, dots);
            let mut nearest = Vec::with_capacity(rows.len() * fan);
            for (row, dots) in rows.iter().zip(dots.chunks_exact(leader_rows.len())) {
                let scale = -2.0 * set.scales[*row as usize];
                keys.clear();
                keys.extend(dots.iter().zip(&leader_rows).enumerate().map(|(i, (&dot, &leader))| {
                    let distance =
                        set.norms[leader as usize] + scale * set.scales[leader as usize] * dot as f32;
                    Key::new(distance, NodeId(u32::try_from(i).expect("at most 1,000")))
                }));
                let (front, _, _) = keys.select_nth_unstable(fan - 1);
                front.sort_unstable();
                nearest.extend(keys[..fan].iter().map(|key| key.id().0));
            }
            nearest
        },
    )?;
    let mut children = vec![Vec::new(); leader_rows.len()];
    for (row, leaders) in rows.iter().zip(nearest.iter().flat_map(|block| block.chunks_exact(fan))) {
        for &leader in leaders {
            children[leader as usize].push(*row);
        }
    }
    Ok(children)
}

/// The codes of some rows side by side.
pub(super) fn gather(set: &RowSet, rows: &[u32]) -> Vec<i8> {
    let mut codes = Vec::new();
    gather_into(set, rows, &mut codes);
    codes
}

pub(super) fn gather_into(set: &RowSet, rows: &[u32], codes: &mut Vec<i8>) {
    codes.clear();
    for &row in rows {
        codes.extend_from_slice(set.codes(row));
    }
}
