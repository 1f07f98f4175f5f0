//! The one generator of the crate, frozen: the rotation on disk is made from it.

/// SplitMix64 (Steele, Lea, Flood 2014): a 64-bit counter and a mixing function.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Starts a sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0. The bias is below `bound / 2^64`.
    pub fn below(&mut self, bound: usize) -> usize {
        let product = u128::from(self.next_u64()) * bound as u128;
        usize::try_from(product >> 64).expect("below a usize")
    }

    /// `count` different numbers below `bound`, all of them if there are fewer, in random order.
    pub fn sample(&mut self, bound: usize, count: usize) -> Vec<usize> {
        if count * 4 >= bound {
            let mut all: Vec<usize> = (0..bound).collect();
            for i in 0..count.min(bound) {
                let j = i + self.below(bound - i);
                all.swap(i, j);
            }
            all.truncate(count);
            return all;
        }
        let mut seen = std::collections::HashSet::with_capacity(count);
        std::iter::repeat_with(|| self.below(bound)).filter(|&x| seen.insert(x)).take(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // The first outputs for seed 1234567 as published with the reference implementation.
        let mut random = SplitMix64::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn samples_are_distinct() {
        let mut random = SplitMix64::new(1);
        for (bound, count) in [(10, 20), (10, 10), (1000, 10), (1000, 900)] {
            let mut sample = random.sample(bound, count);
            sample.sort_unstable();
            sample.dedup();
            assert_eq!(sample.len(), count.min(bound));
            assert!(sample.iter().all(|&x| x < bound));
        }
    }
}
