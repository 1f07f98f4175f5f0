//! Choosing neighbors: the relative-neighborhood rule with a factor, as in Vamana (DiskANN).

/// Default of the factor, on squared distances.
pub const ALPHA: f32 = 1.2;

/// Kept candidates that another one is compared with at once.
const AT_ONCE: usize = 8;

/// The memory of a prune, used again from one to the next.
#[derive(Debug, Default)]
pub struct Pruner {
    kept: Vec<u32>,
    left_out: Vec<u32>,
    distances: Vec<f32>,
}

impl Pruner {
    /// Indices of the candidates to keep, at most `keep`. Candidates come nearest first with their squared
    /// distance; one is left out if a kept one is nearer to it than it is to us, by the factor: the search will
    /// find its way through that one. With `fill`, places left over go to the nearest of those left out.
    ///
    /// `from` tells the squared distances from one candidate to up to eight others, which is faster than one by
    /// one.
    pub fn select(
        &mut self,
        distances: &[f32],
        alpha: f32,
        keep: usize,
        fill: bool,
        mut from: impl FnMut(u32, &[u32], &mut Vec<f32>),
    ) -> &[u32] {
        let Self { kept, left_out, distances: between } = self;
        kept.clear();
        left_out.clear();
        for (i, &distance) in (0..).zip(distances) {
            if kept.len() == keep {
                break;
            }
            let occluded = kept.chunks(AT_ONCE).any(|others| {
                between.clear();
                from(i, others, between);
                between.iter().any(|between| alpha * between <= distance)
            });
            if occluded { left_out.push(i) } else { kept.push(i) }
        }
        if fill {
            let room = keep - kept.len();
            kept.extend(left_out.iter().take(room));
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_one_per_direction() {
        // Points on a line seen from 0: 1, 2, 3 to the right, -1.5 to the left.
        let points = [1.0f32, -1.5, 2.0, 3.0];
        let distances: Vec<f32> = points.iter().map(|x| x * x).collect();
        let between = |a: u32, others: &[u32], out: &mut Vec<f32>| {
            out.extend(others.iter().map(|&b| (points[a as usize] - points[b as usize]).powi(2)));
        };
        let mut pruner = Pruner::default();
        assert_eq!(pruner.select(&distances, 1.2, 4, false, between), [0, 1]);
        assert_eq!(pruner.select(&distances, 1.2, 3, true, between), [0, 1, 2]);
        assert_eq!(pruner.select(&distances, 1.2, 1, true, between), [0]);
        assert_eq!(pruner.select(&distances, 1.2, 0, true, between), [0; 0]);
        assert_eq!(pruner.select(&[], 1.2, 4, true, between), [0; 0]);
    }

    #[test]
    fn copies_occlude_each_other() {
        let same = |_, others: &[u32], out: &mut Vec<f32>| out.resize(others.len(), 0.0);
        assert_eq!(Pruner::default().select(&[0.0, 0.0, 1.0], 1.2, 3, false, same), [0]);
        assert_eq!(Pruner::default().select(&[0.0, 0.0, 1.0], 1.2, 2, true, same), [0, 1]);
    }
}
