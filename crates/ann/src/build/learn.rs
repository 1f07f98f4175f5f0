//! What a build learns from a sample of the rows before it takes the first one: center, basis, widths of codes, leaders.

use crate::layout::geometry::MAX_DIRECTIONS;
use crate::layout::meta::Meta;
use crate::layout::{Geometry, bf16};
use crate::metric::Metric;
use crate::quantize::Leaders;
use crate::quantize::principal::{ROWS_PER_DIRECTION, directions};
use crate::random::SplitMix64;
use crate::space::Space;

/// Fewer vectors say too little of directions.
const FEWEST: usize = 32 * ROWS_PER_DIRECTION;

/// The space of an index whose rows are like those of a sample, `[n, padded_dim]`, scaled and rotated.
pub(super) fn space(metric: Metric, geometry: Geometry, seed: u64, rows: Vec<f32>) -> (Meta, Space) {
    let padded = geometry.padded_dim();
    let geometry = geometry.for_metric(metric);
    let mut rows = without_outliers(rows, padded);
    let mut random = SplitMix64::new(seed ^ 0x5A17);
    let (mut geometry, mut reflectors) = (geometry, Vec::new());
    let is_earlier = geometry.format() == 1;
    if rows.len() / padded >= FEWEST && !is_earlier {
        let mut centered = rows.clone();
        subtract(&mut centered, &mean(&rows, padded));
        let found = directions(&centered, padded, MAX_DIRECTIONS, &mut random);
        geometry = geometry.for_data(&found.spectrum);
        // Codes of all directions need none to the front, nor do those of more than are known.
        if geometry.code_dim() <= found.spectrum.leading.len() && geometry.code_dim() < padded {
            reflectors = found.reflectors(geometry.code_dim(), &mut random);
        }
    }
    if reflectors.is_empty() {
        // No element is larger than another: one scale does.
        geometry = geometry.with_one_scale();
    } else {
        let basis = crate::quantize::Basis::new(padded, seed, reflectors.clone());
        rows.chunks_exact_mut(padded).for_each(|row| basis.reflect(row));
    }
    // Products of directions are taken as they are.
    let center = if geometry.is_weighted() { vec![0.0; padded] } else { mean(&rows, padded) };
    let mut meta = Meta::new(metric, geometry, seed, &center);
    subtract(&mut rows, &meta.center);
    let round = |x| bf16::to_f32(bf16::nearest(x));
    let sample = if is_earlier { &[] } else { rows.as_slice() };
    let leaders = Leaders::choose(padded, sample, round, &mut random);
    meta.geometry = geometry.with_leaders(u16::try_from(leaders.count() - 1).expect("at most 256"));
    let space = Space::new(&meta, reflectors, leaders.stored());
    (meta, space)
}

/// Rows that tell where the middle of a sample is.
const MIDDLE_OF: usize = 200;
/// A row is left out if it lies more times as far from the middle as half of the rows do.
const FAR: f64 = 4.0;

/// Rows `[n, dim]` without those that lie far away, which would move the center and turn the directions to themselves.
fn without_outliers(rows: Vec<f32>, dim: usize) -> Vec<f32> {
    let all: Vec<&[f32]> = rows.chunks_exact(dim).collect();
    let some: Vec<&[f32]> = all.iter().step_by(all.len().div_ceil(MIDDLE_OF).max(1)).copied().collect();
    if some.is_empty() {
        return rows;
    }
    // The median of each element: no minority moves it far.
    let middle: Vec<f32> = (0..dim)
        .map(|i| {
            let mut elements: Vec<f32> = some.iter().map(|row| row[i]).collect();
            let half = elements.len() / 2;
            *elements.select_nth_unstable_by(half, f32::total_cmp).1
        })
        .collect();
    let distances: Vec<f64> = all
        .iter()
        .map(|row| row.iter().zip(&middle).map(|(x, m)| (f64::from(*x) - f64::from(*m)).powi(2)).sum())
        .collect();
    let mut sorted = distances.clone();
    let half = sorted.len() / 2;
    let limit = FAR * FAR * *sorted.select_nth_unstable_by(half, f64::total_cmp).1;
    let near = all.iter().zip(&distances).filter(|&(_, &distance)| distance <= limit);
    near.flat_map(|(row, _)| row.iter().copied()).collect()
}

/// The mean of vectors, `[n, dim]`; zeros without any.
fn mean(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut sum = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        sum.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    #[allow(clippy::cast_precision_loss, reason = "a sample")]
    let count = (rows.len() / dim).max(1) as f64;
    #[allow(clippy::cast_possible_truncation, reason = "a mean of floats")]
    sum.into_iter().map(|sum| (sum / count) as f32).collect()
}

fn subtract(rows: &mut [f32], center: &[f32]) {
    for row in rows.chunks_exact_mut(center.len()) {
        row.iter_mut().zip(center).for_each(|(x, c)| *x -= c);
    }
}
