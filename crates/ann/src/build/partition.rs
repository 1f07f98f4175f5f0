//! Overlapping random partitions: rows go to the leaves of their nearest random leaders.

use super::Parameters;
use super::executor::{Cancelled, Executor, map};
use super::rows::RowSet;
use crate::graph::key::Key;
use crate::layout::NodeId;
use crate::quantize::Local;
use crate::random::SplitMix64;
use crate::space::Space;

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
    space: &Space,
    random: &mut SplitMix64,
    executor: &dyn Executor,
) -> Result<Vec<Vec<u32>>, Cancelled> {
    let mut leaves = Vec::new();
    let mut open = vec![(rows, 0)];
    while let Some((rows, depth)) = open.pop() {
        executor.check()?;
        if rows.len() <= parameters.leaf_rows {
            if !rows.is_empty() {
                leaves.push(rows);
            }
        } else if depth == MAX_DEPTH {
            leaves.extend(rows.chunks(parameters.leaf_rows).map(<[u32]>::to_vec));
        } else {
            let fan = parameters.fan_out(depth);
            let children = split(set, &rows, fan, parameters, space, random, executor)?;
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
    space: &Space,
    random: &mut SplitMix64,
    executor: &dyn Executor,
) -> Result<Vec<Vec<u32>>, Cancelled> {
    // Leaves are uneven: aiming at half of the limit leaves most below it.
    let wanted = rows.len() * fan * 2 / parameters.leaf_rows;
    let most = MAX_LEADERS.min(rows.len());
    let fan = fan.min(most - 1);
    let leaders = random.sample(rows.len(), wanted.clamp(fan + 1, most));
    let leader_rows: Vec<u32> = leaders.iter().map(|&i| rows[i]).collect();
    let leaders = LeaderSet::new(set, space, &leader_rows);
    let nearest = map(executor, rows.len().div_ceil(BLOCK), LeaderScratch::default, |scratch, block| {
        let rows = &rows[block * BLOCK..rows.len().min((block + 1) * BLOCK)];
        leaders.nearest(set, space, rows.iter().copied(), fan, scratch)
    })?;
    let mut children = vec![Vec::new(); leader_rows.len()];
    for (row, leaders) in rows.iter().zip(nearest.iter().flat_map(|block| block.chunks_exact(fan))) {
        for &leader in leaders {
            children[leader as usize].push(*row);
        }
    }
    Ok(children)
}

/// Rows that others are assigned to, relative to their middle.
pub(super) struct LeaderSet {
    middle: Vec<f32>,
    rows: Local,
}

/// Memory of a worker.
#[derive(Default)]
pub(super) struct LeaderScratch {
    rows: Local,
    dots: Vec<i32>,
    distances: Vec<f32>,
}

impl LeaderSet {
    /// Some rows of a set.
    pub fn new(set: &RowSet, space: &Space, leaders: &[u32]) -> Self {
        let middle = set.middle(space, leaders);
        let mut rows = Local::default();
        set.localize(space, leaders.iter().copied(), &middle, &mut rows);
        Self { middle, rows }
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The `fan` nearest leaders of each of a few rows, nearest first. Equal rows have the same ones.
    pub fn nearest(
        &self,
        set: &RowSet,
        space: &Space,
        rows: impl Iterator<Item = u32> + Clone,
        fan: usize,
        scratch: &mut LeaderScratch,
    ) -> Vec<u32> {
        let LeaderScratch { rows: local, dots, distances } = scratch;
        set.localize(space, rows, &self.middle, local);
        let (leaders, count) = (&self.rows, self.rows.len());
        dots.resize(local.len() * count, 0);
        space.kernels.matrix_i8(local.codes(), leaders.codes(), set.dim, dots);
        let mut nearest = Vec::with_capacity(local.len() * fan);
        let mut best: Vec<Key> = Vec::with_capacity(fan + 1);
        for (scale, dots) in local.scales().iter().zip(dots.chunks_exact(count)) {
            let (scale, of_leaders) = (-2.0 * scale, leaders.norms().iter().zip(leaders.scales()));
            distances.clear();
            distances.extend(
                dots.iter().zip(of_leaders).map(|(&dot, (norm, leader))| norm + scale * leader * dot as f32),
            );
            best.clear();
            let mut bound = f32::INFINITY;
            for (i, &distance) in (0..).zip(distances.iter()) {
                if best.len() == fan && distance >= bound {
                    continue;
                }
                let key = Key::new(distance, NodeId(i));
                best.insert(best.partition_point(|&other| other < key), key);
                best.truncate(fan);
                bound = best[best.len() - 1].score();
            }
            nearest.extend(best.iter().map(|key| key.id().0));
        }
        nearest
    }
}
