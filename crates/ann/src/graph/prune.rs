//! Choosing neighbors: the relative-neighborhood rule with a factor, as in Vamana (DiskANN).

/// Default of the factor, on squared distances.
pub const ALPHA: f32 = 1.2;

/// Indices of the candidates to keep, at most `keep`. Candidates come nearest first with their squared
/// distance; one is left out if a kept one is nearer to it than it is to us, by the factor: the search will
/// find its way through that one. With `fill`, places left over go to the nearest of those left out.
pub fn select(
    distances: &[f32],
    alpha: f32,
    keep: usize,
    fill: bool,
    mut between: impl FnMut(usize, usize) -> f32,
) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::with_capacity(keep);
    let mut left_out = Vec::new();
    for (i, &distance) in distances.iter().enumerate() {
        if kept.len() == keep {
            break;
        }
        if kept.iter().any(|&k| alpha * between(k, i) <= distance) {
            left_out.push(i);
        } else {
            kept.push(i);
        }
    }
    if fill {
        let room = keep - kept.len();
        kept.extend(left_out.into_iter().take(room));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_one_per_direction() {
        // Points on a line seen from 0: 1, 2, 3 to the right, -1.5 to the left.
        let points = [1.0f32, -1.5, 2.0, 3.0];
        let distances: Vec<f32> = points.iter().map(|x| x * x).collect();
        let between = |a: usize, b: usize| (points[a] - points[b]).powi(2);
        assert_eq!(select(&distances, 1.2, 4, false, between), [0, 1]);
        assert_eq!(select(&distances, 1.2, 3, true, between), [0, 1, 2]);
        assert_eq!(select(&distances, 1.2, 1, true, between), [0]);
    }

    #[test]
    fn copies_occlude_each_other() {
        assert_eq!(select(&[0.0, 0.0, 1.0], 1.2, 3, false, |_, _| 0.0), [0]);
    }
}
