//! One bit for each node: what a pass over a whole index remembers of them.

/// A set of numbers below a bound that it is made with. Numbers may come from damaged pages: those beyond are
/// never in it.
#[derive(Clone, Debug, Default)]
pub struct Bits(Vec<u64>);

impl Bits {
    /// None of `count` numbers.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// Whether it has a number.
    #[must_use]
    pub fn has(&self, i: u32) -> bool {
        self.0.get(i as usize / 64).is_some_and(|word| word >> (i % 64) & 1 == 1)
    }

    /// Adds a number.
    pub fn set(&mut self, i: u32) {
        if let Some(word) = self.0.get_mut(i as usize / 64) {
            *word |= 1 << (i % 64);
        }
    }

    /// Takes a number out.
    pub fn unset(&mut self, i: u32) {
        if let Some(word) = self.0.get_mut(i as usize / 64) {
            *word &= !(1 << (i % 64));
        }
    }

    /// 64 numbers in each word.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.0
    }

    /// Whether it has no number.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Its numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        (0u32..).zip(&self.0).flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                (left != 0).then(|| {
                    left &= left - 1;
                    at * 64 + bit
                })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(
            count in 0usize..300,
            steps in proptest::collection::vec((any::<bool>(), 0u32..400), 0..100)
        ) {
            let (mut bits, mut twin) = (Bits::new(count), BTreeSet::new());
            let end = u32::try_from(count.div_ceil(64) * 64).unwrap();
            for (add, i) in steps {
                if add {
                    bits.set(i);
                    twin.extend((i < end).then_some(i));
                } else {
                    bits.unset(i);
                    twin.remove(&i);
                }
                prop_assert_eq!(bits.has(i), twin.contains(&i));
            }
            prop_assert_eq!((bits.is_empty(), bits.iter().count()), (twin.is_empty(), twin.len()));
            prop_assert_eq!(bits.iter().collect::<Vec<_>>(), twin.into_iter().collect::<Vec<_>>());
        }
    }
}
