//! What a walk under a filter does besides: it visits whatever may pass, and of the others as many as lead the way.
//!
//! Let *m* be the mean number of neighbors that may pass, of 32, over the visited nodes that pass.
//!
//! - A candidate that may pass is visited as it would be without a filter; any other only if fewer nodes than are wanted,
//!   of those that were visited whether they pass or not, score better.
//! - Where *m* is 3 or more, what passes holds together by itself: the filter is wide, or goes with the vectors. A node that
//!   passes and shows fewer than 12 that may lends the way to its nearest other neighbors, to as many as let one expect 12.
//! - Where it is less, what passes is scattered. One other candidate in 4 leads the way, or one in 2 if *m* is below 2;
//!   which, follows from its number alone, so that all paths agree. A row that passes is met if one of the few nodes that link to it
//!   from near by is visited: with one candidate in 8, three rows in ten of those that one in a hundred passes were missed.
//! - Rows in one region need more lookahead, as many of them are about as far from the query, and the nearest of them lie apart
//!   from each other. The lookahead grows by the square root of a ratio: the share of the neighbors of nodes that pass which may pass,
//!   divided by the share of the entries, counted from the query outwards. Scattered rows have a ratio of about 1. The smaller the
//!   region, and the farther from the query, the larger it is.
//! - Scattered rows need less lookahead, as the walk has looked everywhere on its way: half of it, but never less than
//!   [`LEAST_LOOKAHEAD`].
//!
//! `benches/filters.rs` measures these rules, with filters that one row in 2 to one in 1,000 passes, scattered, in one region, and in
//! the region that is farthest from the query.

use super::frontier::Frontier;
use super::key::{IdSet, Key};
use super::nearest::Nearest;
use crate::filter::Filter;
use crate::layout::node::Node;
use crate::layout::{MAX_DEGREE, NodeId};

/// Least mean number of neighbors that may pass, of 32, where what passes holds together.
const TOGETHER: f64 = 3.0;
/// Neighbors that may pass, to so many of which a node that passes should lead.
const LED_TO: f64 = 12.0;
/// One candidate in so many leads the way where few neighbors pass, and where hardly any does.
const THINNED: u32 = 4;
const THINNED_LESS: u32 = 2;
const HARDLY_ANY: f64 = 2.0;
/// From this ratio on, what passes lies in a region.
const IN_REGION: f64 = 3.0;
/// The lookahead in a region is multiplied by this times the square root of the ratio.
const BY_REGION: f64 = 2.0;
/// Most that the lookahead is multiplied by.
const MOST_SHARE: f64 = 12.0;
/// Least share of the lookahead where few neighbors pass.
pub const LEAST_SHARE: f64 = 0.5;
/// Least lookahead under a filter: one that was measured without a filter may be shorter.
pub const LEAST_LOOKAHEAD: usize = 40;
/// Entries that may pass which are visited before all others, to know what the filter is like.
const FIRST_ENTRIES: usize = 10;

/// See the head of this file.
#[derive(Debug)]
pub struct Filtered {
    filter: Filter,
    /// Candidates that do not pass and were not chosen to lead the way.
    others: Frontier,
    /// Live nodes of any kind that were visited.
    any: Nearest,
    /// Visited nodes that pass.
    passed: u64,
    /// Neighbors of those that may pass.
    shown: u64,
    /// Entries that are still to be visited before anything else.
    first: usize,
    /// Share of the entries, from the query outwards, that may pass.
    expected: f64,
}

/// How many nodes must score better than a candidate to make it needless.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Rows, with the one that is to be returned.
    pub rows: usize,
    /// Nodes beyond these.
    pub lookahead: usize,
    /// Whether a row waits that could be returned. Else any candidate is wanted.
    pub due: bool,
}

impl Filtered {
    /// Nothing was visited yet.
    pub fn new(filter: Filter) -> Self {
        let (others, any) = (Frontier::default(), Nearest::default());
        Self { filter, others, any, passed: 0, shown: 0, first: FIRST_ENTRIES, expected: 1.0 }
    }

    /// The filter.
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Tells which share of the entries may pass, from the query outwards.
    pub fn expect_share(&mut self, share: f64) {
        self.expected = share;
    }

    /// Takes an entry that does not pass for a candidate.
    pub fn push_other(&mut self, key: Key) {
        self.others.push(key);
    }

    /// Offers a live node that was visited.
    pub fn offer(&mut self, key: Key) {
        self.any.offer(key);
    }

    /// Mean number of neighbors that may pass.
    #[allow(clippy::cast_precision_loss, reason = "counts of visits")]
    fn together(&self) -> f64 {
        self.shown as f64 / self.passed.max(1) as f64
    }

    /// How much of the lookahead rows that pass need.
    fn share_of_lookahead(&self) -> f64 {
        share_of_lookahead(self.together(), self.expected)
    }

    /// Takes out the next candidate; `frontier` has those that may pass or lead the way, `passing` the visited
    /// nodes that pass.
    pub fn next(
        &mut self,
        wanted: Wanted,
        frontier: &mut Frontier,
        passing: &mut Nearest,
        visited: &IdSet,
    ) -> Option<Key> {
        if self.first > 0 {
            self.first -= 1;
            if let Some(key) = frontier.pop_below(Key::LAST, visited) {
                return Some(key);
            }
            self.first = 0;
        }
        let lookahead = wanted.lookahead.max(LEAST_LOOKAHEAD);
        let ahead = rows_ahead(self.share_of_lookahead(), lookahead);
        let limit =
            if wanted.due { below(passing.score_of(wanted.rows.saturating_add(ahead))) } else { Key::LAST };
        let of_any = below(self.any.score_of(wanted.rows.saturating_add(lookahead))).min(limit);
        let best = frontier.best_below(limit, visited);
        let other = self.others.best_below(of_any, visited);
        match (best, other) {
            (Some(best), Some(other)) if other < best => self.others.pop_best(),
            (Some(_), _) => frontier.pop_best(),
            (None, Some(_)) => self.others.pop_best(),
            // Better any way on than none, until so many were visited that all pages are read instead.
            (None, None) if !wanted.due => self.others.pop_below(Key::LAST, visited),
            (None, None) => None,
        }
    }

    /// Takes the neighbors of a visited node, with their estimates, for candidates.
    pub fn expand(
        &mut self,
        node: &Node,
        passes: bool,
        estimates: &[f32; MAX_DEGREE],
        frontier: &mut Frontier,
    ) {
        let may = self.filter.may_admit(node);
        let degree = node.header().degree;
        let shown = may[..degree].iter().filter(|&&may| may).count();
        if passes {
            self.passed += 1;
            self.shown += shown as u64;
        }
        let together = self.together();
        let mut others = [Key::LAST; MAX_DEGREE];
        let mut count = 0;
        for (i, id) in node.ids().enumerate() {
            let key = Key::new(estimates[i], id);
            if may[i] {
                frontier.push(key);
            } else {
                others[count] = key;
                count += 1;
            }
        }
        let others = &mut others[..count];
        if together < TOGETHER {
            let share = if together < HARDLY_ANY { THINNED_LESS } else { THINNED };
            for &key in others.iter() {
                if is_chosen(key.id(), share) {
                    frontier.push(key);
                } else {
                    self.others.push(key);
                }
            }
            return;
        }
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "at most 32")]
        #[allow(clippy::cast_sign_loss, reason = "no less than zero")]
        let lent = if passes { ((LED_TO - shown as f64).max(0.0) / together).ceil() as usize } else { 0 };
        let lent = lent.min(count);
        if lent > 0 && lent < count {
            others.select_nth_unstable(lent - 1);
        }
        for (i, &key) in others.iter().enumerate() {
            if i < lent {
                frontier.push(key);
            } else {
                self.others.push(key);
            }
        }
    }
}

/// What to multiply the lookahead by. `together` is the mean number of neighbors, of 32, that may pass, over the nodes that pass;
/// `expected` the share of entries that may pass, above zero.
fn share_of_lookahead(together: f64, expected: f64) -> f64 {
    if together < TOGETHER {
        return (together / TOGETHER).max(LEAST_SHARE);
    }
    let shown = together / MAX_DEGREE as f64;
    let ratio = shown / expected;
    let wide = 2.0 - shown;
    if ratio < IN_REGION { wide } else { (BY_REGION * ratio.sqrt()).clamp(wide, MOST_SHARE) }
}

/// How many rows that pass are looked ahead at, with such a share of the lookahead.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
#[allow(clippy::cast_precision_loss, reason = "some thousand")]
fn rows_ahead(share: f64, lookahead: usize) -> usize {
    ((share * lookahead as f64) as usize).max(LEAST_LOOKAHEAD)
}

/// Candidates whose keys lie below this one are estimated better than a score.
pub fn below(score: f32) -> Key {
    // Of equal scores none is better; without any, even candidates without a number are wanted.
    if score == f32::INFINITY { Key::LAST } else { Key::new(score, NodeId(0)) }
}

/// Whether a node is one of one in `share`.
fn is_chosen(id: NodeId, share: u32) -> bool {
    (id.0.wrapping_mul(0x9E37_79B1) >> 16).is_multiple_of(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scattered_rows_need_less_than_rows_in_a_region() {
        // One row in a hundred, scattered and in a region; half of the rows; all of them.
        assert!(share_of_lookahead(0.32, 0.01) < 1.0);
        assert!(share_of_lookahead(16.0, 0.01) > 10.0);
        assert!((share_of_lookahead(16.0, 0.5) - 1.5).abs() < 1e-9);
        assert!((share_of_lookahead(32.0, 1.0) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn scattered_rows_are_looked_ahead_at_as_far_as_any_of_a_short_lookahead() {
        assert_eq!(rows_ahead(LEAST_SHARE, 200), 100);
        assert_eq!(rows_ahead(LEAST_SHARE, 63), LEAST_LOOKAHEAD);
        assert_eq!(rows_ahead(MOST_SHARE, 50), 600);
    }

    proptest! {
        #[test]
        fn the_lookahead_is_bounded_and_grows_as_the_region_shrinks(
            together in 0.0f64..=32.0, expected in 1e-6f64..=1.0, smaller in 0.01f64..1.0
        ) {
            let share = share_of_lookahead(together, expected);
            prop_assert!((LEAST_SHARE..=MOST_SHARE).contains(&share));
            prop_assert!(share_of_lookahead(together, expected * smaller) >= share);
        }
    }
}
