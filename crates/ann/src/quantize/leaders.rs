//! Leaders: vectors that stand for regions of the data. Stored vectors are relative to the nearest one, and entries
//! are grouped by them.
//!
//! An 8-bit vector relative to a leader near it resolves local differences, wherever the data lies and however it moves.

use super::Screen;
use crate::arch::Kernels;
use crate::random::SplitMix64;

/// Most leaders that a build takes.
pub const MAX_LEADERS: usize = 256;
/// Vectors of a sample for each leader.
const SAMPLE_PER_LEADER: usize = 16;
/// Rounds of Lloyd's algorithm; more change little.
const ROUNDS: usize = 5;

/// The leaders of an index, less its center. Number 0 is the center itself.
#[derive(Clone, Debug)]
pub struct Leaders {
    kernels: Kernels,
    dim: usize,
    /// `[count, dim]`.
    vectors: Vec<f32>,
    /// Squared norms.
    norms: Vec<f32>,
    screen: Screen,
}

impl Leaders {
    /// The center, and the leaders that `vectors`, `[n, padded_dim]`, hold.
    #[must_use]
    pub fn new(padded_dim: usize, vectors: &[f32]) -> Self {
        let kernels = Kernels::best();
        let mut all = vec![0.0; padded_dim];
        all.extend_from_slice(vectors);
        let norms = all.chunks_exact(padded_dim).map(|v| kernels.dot_f32(v, v)).collect();
        let screen = Screen::new(padded_dim, all.chunks_exact(padded_dim));
        Self { kernels, dim: padded_dim, vectors: all, norms, screen }
    }

    /// How many there are, the center among them.
    #[must_use]
    pub fn count(&self) -> usize {
        self.norms.len()
    }

    /// A leader.
    #[must_use]
    pub fn vector(&self, number: u16) -> &[f32] {
        &self.vectors[usize::from(number) * self.dim..][..self.dim]
    }

    /// All but the center, one after another.
    #[must_use]
    pub fn stored(&self) -> &[f32] {
        &self.vectors[self.dim..]
    }

    /// The squared norm of a leader.
    #[must_use]
    pub fn norm_squared(&self, number: u16) -> f32 {
        self.norms[usize::from(number)]
    }

    /// Inner products of all leaders with a vector.
    pub fn dots<'a>(&'a self, vector: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        self.vectors.chunks_exact(self.dim).map(move |leader| self.kernels.dot_f32(leader, vector))
    }

    /// The number of the leader that is nearest to a vector; of equally near ones the first.
    #[must_use]
    pub fn nearest(&self, vector: &[f32]) -> u16 {
        if self.count() == 1 {
            return 0;
        }
        self.nearest_from(0, vector)
    }

    /// As [`Leaders::nearest`], without those before `first`.
    fn nearest_from(&self, first: u16, vector: &[f32]) -> u16 {
        let leaders = || (first..).zip(&self.norms[first.into()..]);
        // Products of 8-bit vectors say between which bounds each distance lies: few can be the least.
        let intervals = self.screen.intervals(vector);
        let bounds = leaders().zip(&intervals[first.into()..]);
        let most = bounds.clone().map(|((_, norm), [low, _])| norm - 2.0 * low).fold(f32::INFINITY, f32::min);
        let (mut best, mut nearest) = (f32::INFINITY, 0);
        for ((number, norm), [_, high]) in bounds {
            if norm - 2.0 * high > most {
                continue;
            }
            let distance = norm - 2.0 * self.kernels.dot_f32(self.vector(number), vector);
            if distance < best {
                (best, nearest) = (distance, number);
            }
        }
        nearest
    }

    /// Leaders for a sample of vectors, `[n, padded_dim]`, by k-means; `round` says what a page can hold of an element.
    #[must_use]
    pub fn choose(
        padded_dim: usize,
        sample: &[f32],
        round: impl Fn(f32) -> f32,
        random: &mut SplitMix64,
    ) -> Self {
        let rows = sample.len() / padded_dim;
        let count = (rows / SAMPLE_PER_LEADER).min(MAX_LEADERS);
        if count < 2 {
            return Self::new(padded_dim, &[]);
        }
        let row = |i: usize| &sample[i * padded_dim..(i + 1) * padded_dim];
        let mut vectors: Vec<f32> =
            random.sample(rows, count).into_iter().flat_map(|i| row(i).to_vec()).collect();
        for _ in 0..ROUNDS {
            let leaders = Self::new(padded_dim, &vectors);
            let (mut sums, mut counts) = (vec![0.0f32; count * padded_dim], vec![0u32; count]);
            for i in 0..rows {
                // All rows are nearer to the center than to most other rows: it is no cluster of its own.
                let at = usize::from(leaders.nearest_from(1, row(i))) - 1;
                leaders.kernels.add_scaled(&mut sums[at * padded_dim..(at + 1) * padded_dim], 1.0, row(i));
                counts[at] += 1;
            }
            for ((vector, sum), &count) in
                vectors.chunks_exact_mut(padded_dim).zip(sums.chunks_exact(padded_dim)).zip(&counts)
            {
                if count > 0 {
                    #[allow(clippy::cast_precision_loss, reason = "of a sample")]
                    vector.iter_mut().zip(sum).for_each(|(x, s)| *x = s / count as f32);
                }
            }
        }
        vectors.iter_mut().for_each(|x| *x = round(*x));
        Self::new(padded_dim, &vectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaders_find_the_clusters_of_a_sample() {
        let mut random = SplitMix64::new(1);
        let mut uniform = || (random.next_u64() >> 40) as f32 / 16_777_216.0 - 0.5;
        let (dim, clusters) = (64, 8);
        let centers: Vec<f32> = (0..clusters * dim).map(|_| 10.0 * uniform()).collect();
        let sample: Vec<f32> = (0..640)
            .flat_map(|i| {
                let center = &centers[i % clusters * dim..][..dim];
                center.iter().map(|c| c + 0.1 * uniform()).collect::<Vec<f32>>()
            })
            .collect();
        let leaders = Leaders::choose(dim, &sample, |x| x, &mut SplitMix64::new(2));
        assert_eq!(leaders.count(), 41, "and the center");
        let near = sample.chunks_exact(dim).filter(|x| {
            let leader = leaders.vector(leaders.nearest(x));
            x.iter().zip(leader).map(|(x, l)| (x - l).powi(2)).sum::<f32>() < 1.0
        });
        // Drawn at random, leaders may miss a cluster; half of them missed would be a fault.
        assert!(near.count() > 320);
        assert_eq!(
            Leaders::choose(dim, &sample[..20 * dim], |x| x, &mut random).count(),
            1,
            "too few to tell"
        );
    }
}
