//! Vectors that lie near one another, as 8-bit integers relative to one origin: for many distances among them.

use crate::arch::Kernels;

/// A set of such vectors, used again from one set to the next.
#[derive(Clone, Debug, Default)]
pub struct Local {
    dim: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    norms: Vec<f32>,
}

impl Local {
    /// Empties the set, for vectors of so many dimensions, a multiple of 64.
    pub fn clear(&mut self, dim: usize) {
        self.dim = dim;
        self.codes.clear();
        self.scales.clear();
        self.norms.clear();
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// Adds a vector, less the origin, whose largest element is of such a size.
    pub fn push(&mut self, kernels: Kernels, vector: &[f32], largest: f32) {
        let start = self.codes.len();
        self.codes.resize(start + self.dim, 0);
        let (scale, norm_squared) = kernels.quantize(vector, largest, &mut self.codes[start..]);
        self.scales.push(scale);
        self.norms.push(norm_squared);
    }

    /// The codes of all, `[len, dim]`.
    #[must_use]
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// The codes of one.
    #[must_use]
    pub fn codes_of(&self, place: u32) -> &[i8] {
        &self.codes[place as usize * self.dim..][..self.dim]
    }

    /// What codes are multiplied by.
    #[must_use]
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Squared norms.
    #[must_use]
    pub fn norms(&self) -> &[f32] {
        &self.norms
    }

    /// Appends the squared distances from one vector to some others.
    pub fn distances(&self, kernels: Kernels, from: u32, others: &[u32], out: &mut Vec<f32>) {
        const AT_ONCE: usize = 16;
        let (at, own) = (from as usize, self.codes_of(from));
        let (norm, scale) = (self.norms[at], -2.0 * self.scales[at]);
        let mut dots = [0; AT_ONCE];
        for others in others.chunks(AT_ONCE) {
            let dots = &mut dots[..others.len()];
            kernels.dots_i8(own, &self.codes, others, dots);
            #[allow(clippy::cast_precision_loss, reason = "the scales are no exacter")]
            out.extend(others.iter().zip(&*dots).map(|(&other, &dot)| {
                let other = other as usize;
                (norm + self.norms[other] + scale * self.scales[other] * dot as f32).max(0.0)
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn distances_are_those_of_the_vectors() {
        let (mut random, kernels, mut local) = (SplitMix64::new(9), Kernels::best(), Local::default());
        local.clear(128);
        let vectors: Vec<Vec<f32>> = (0..40)
            .map(|_| (0..128).map(|_| (random.next_u64() >> 40) as f32 / 16_777_216.0 - 0.5).collect())
            .collect();
        vectors.iter().for_each(|v| local.push(kernels, v, kernels.largest(v)));
        let others: Vec<u32> = (0..40).collect();
        let mut distances = Vec::new();
        local.distances(kernels, 7, &others, &mut distances);
        for (other, distance) in vectors.iter().zip(distances) {
            let wanted: f32 = vectors[7].iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum();
            assert!((distance - wanted).abs() <= 0.02 * (1.0 + wanted), "{distance} {wanted}");
        }
    }
}
