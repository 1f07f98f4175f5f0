//! The constants of a build.

/// Constants of the build, with the defaults that were measured. A builder clamps them to what works.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// Most rows of a leaf; 2 to 4,096, as a worker holds all distances of a leaf.
    pub leaf_rows: usize,
    /// Nearest leaders that a row goes to, level by level, each 1 to 8, four levels at most; deeper ones
    /// have 1, so that the copies of a row have a bound.
    pub fan_out: Vec<usize>,
    /// Nearest rows looked at in a leaf, at least 1.
    pub leaf_nearest: usize,
    /// Edges kept per row and leaf, at least 1.
    pub leaf_kept: usize,
    /// Factor of the prune, at least 1 and finite.
    pub alpha: f32,
    /// Where randomness comes from.
    pub seed: u64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            leaf_rows: 1000,
            fan_out: vec![3, 2, 1],
            leaf_nearest: 60,
            leaf_kept: 16,
            alpha: 1.2,
            seed: 0xA17,
        }
    }
}

impl Parameters {
    /// The nearest parameters that a build works with.
    #[must_use]
    pub fn clamped(&self) -> Self {
        let alpha = if self.alpha.is_nan() { Self::default().alpha } else { self.alpha };
        Self {
            leaf_rows: self.leaf_rows.clamp(2, 4096),
            fan_out: self.fan_out.iter().take(4).map(|&fan| fan.clamp(1, 8)).collect(),
            leaf_nearest: self.leaf_nearest.max(1),
            leaf_kept: self.leaf_kept.max(1),
            alpha: alpha.clamp(1.0, f32::MAX),
            seed: self.seed,
        }
    }

    /// Nearest leaders that a row goes to at a level.
    pub(super) fn fan_out(&self, level: usize) -> usize {
        self.fan_out.get(level).copied().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_stay_and_nonsense_is_clamped() {
        assert_eq!(Parameters::default().clamped(), Parameters::default());
        let nonsense = Parameters {
            leaf_rows: 0,
            fan_out: vec![0, 1 << 40, 2, 3, 4],
            leaf_nearest: 0,
            leaf_kept: 0,
            alpha: f32::NAN,
            seed: 7,
        };
        let clamped = Parameters {
            leaf_rows: 2,
            fan_out: vec![1, 8, 2, 3],
            leaf_nearest: 1,
            leaf_kept: 1,
            alpha: 1.2,
            seed: 7,
        };
        assert_eq!(nonsense.clamped(), clamped);
        assert_eq!(clamped.fan_out(3), 3);
        assert_eq!(clamped.fan_out(4), 1);
        assert_eq!(Parameters { alpha: f32::INFINITY, ..clamped.clone() }.clamped().alpha, f32::MAX);
        assert_eq!(Parameters { alpha: 0.0, ..clamped }.clamped().alpha, 1.0);
    }
}
