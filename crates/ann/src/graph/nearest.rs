//! The scores of the nearest nodes so far: how many of them lie below a candidate decides whether to look at it.

use super::key::Key;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The best of what was offered, as many as were asked for, with all others kept in case more are asked for.
#[derive(Debug, Default)]
pub struct Nearest {
    best: BinaryHeap<Key>,
    others: BinaryHeap<Reverse<Key>>,
}

impl Nearest {
    /// Adds a node by its score.
    #[inline]
    pub fn offer(&mut self, key: Key) {
        if self.best.peek().is_some_and(|&worst| key < worst) {
            self.best.push(key);
            self.others.extend(self.best.pop().map(Reverse));
        } else {
            self.others.push(Reverse(key));
        }
    }

    /// The score of the `count`th best node from 1, or infinity if there are not as many.
    #[inline]
    pub fn score_of(&mut self, count: usize) -> f32 {
        while self.best.len() < count
            && let Some(Reverse(key)) = self.others.pop()
        {
            self.best.push(key);
        }
        while self.best.len() > count
            && let Some(key) = self.best.pop()
        {
            self.others.push(Reverse(key));
        }
        match self.best.peek() {
            Some(key) if self.best.len() >= count => key.score(),
            _ => f32::INFINITY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::NodeId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_score_is_that_of_a_sorted_list(
            // None asks for more, Some brings a score.
            steps in proptest::collection::vec(proptest::option::weighted(0.8, 0u16..40), 1..200)
        ) {
            let (mut nearest, mut twin, mut count) = (Nearest::default(), Vec::new(), 1);
            for (id, step) in (0..).zip(steps) {
                match step {
                    Some(score) => {
                        nearest.offer(Key::new(f32::from(score), NodeId(id)));
                        twin.push(f32::from(score));
                        twin.sort_by(f32::total_cmp);
                    }
                    None => count = count * 7 % 23 + 1,
                }
                prop_assert_eq!(nearest.score_of(count), twin.get(count - 1).copied().unwrap_or(f32::INFINITY));
            }
        }
    }
}
