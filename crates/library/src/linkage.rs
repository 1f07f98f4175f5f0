//! Groups out of pairs that are near each other.
//!
//! [`single`] chains: whoever is near a member belongs to the group. [`complete`] does not: all members of a group are near
//! each other. It is agglomerative clustering with complete linkage (Sørensen 1948; the update of Lance and Williams 1967 is
//! the maximum), cut at the greatest distance of the pairs: two groups may join if every pair across them is given, and the
//! nearest two join first.
//!
//! Where distances tie, the groups with the smallest rows join first, so that the answer depends on nothing but the pairs.

use crate::Check;
use crate::sets::Sets;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Two different rows and their distance, which is a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// A row.
    pub a: u32,
    /// Another row.
    pub b: u32,
    /// How far they are apart.
    pub distance: f64,
}

/// How groups come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linkage {
    /// A member is near another member.
    Single,
    /// All members are near each other.
    Complete,
}

/// Group of each of `count` rows; `None` for rows that are in no pair of their group. Groups are numbered from 0 in the
/// order of their first rows. Each pair is given once, in any order.
///
/// Beside the pairs it takes 12 bytes a row, and for complete linkage up to 64 bytes for each pair of the largest chain.
pub fn groups(count: usize, pairs: &mut [Pair], linkage: Linkage, check: Check) -> Vec<Option<u32>> {
    let mut sets = Sets::new(count);
    for pair in &*pairs {
        sets.join(pair.a, pair.b);
    }
    if linkage == Linkage::Single {
        return numbered((0..count).map(|row| sets.find(row_number(row))));
    }
    // Chains are independent of each other.
    for pair in &mut *pairs {
        if pair.a > pair.b {
            std::mem::swap(&mut pair.a, &mut pair.b);
        }
    }
    check();
    let mut roots: Vec<u32> = (0..count).map(|row| sets.find(row_number(row))).collect();
    pairs.sort_unstable_by_key(|pair| (roots[pair.a as usize], pair.a, pair.b));
    check();
    let mut group: Vec<u32> = (0..count).map(row_number).collect();
    for chain in pairs.chunk_by(|x, y| roots[x.a as usize] == roots[y.a as usize]) {
        check();
        join_completely(chain, &mut group, check);
    }
    roots.clear();
    numbered(group.into_iter())
}

fn row_number(row: usize) -> u32 {
    u32::try_from(row).expect("rows are numbered by 32 bits")
}

/// Numbers from 0 in the order of first rows; none for what stands alone.
fn numbered(labels: impl ExactSizeIterator<Item = u32>) -> Vec<Option<u32>> {
    let labels: Vec<u32> = labels.collect();
    let mut members = vec![0u32; labels.len()];
    labels.iter().for_each(|&label| members[label as usize] += 1);
    let mut number = vec![None; labels.len()];
    let mut next = 0;
    labels
        .iter()
        .map(|&label| {
            let label = label as usize;
            if members[label] < 2 {
                return None;
            }
            if number[label].is_none() {
                number[label] = Some(next);
                next += 1;
            }
            number[label]
        })
        .collect()
}

/// A group while groups grow: a row, or two that joined.
struct Group {
    /// Groups near this one throughout, with the greatest distance of a pair across; ascending, some of them gone since.
    near: Vec<(u32, f64)>,
    first: u32,
    is_there: bool,
}

/// Two groups that may join; the least joins first.
#[derive(PartialEq)]
struct Candidate {
    distance: f64,
    first: (u32, u32),
    groups: (u32, u32),
}

impl Eq for Candidate {}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.distance
            .total_cmp(&other.distance)
            .then(self.first.cmp(&other.first))
            .then(self.groups.cmp(&other.groups))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Joins the rows of one chain. `group` answers for each of its rows the first row of its group.
///
/// A group keeps the groups that it may join. Where two join, only those near both remain: a third that was near but one of
/// them has a pair that is too far, for good. So each join ends as many entries as it reads, and the whole takes time in
/// proportion to the pairs, but for the queue.
fn join_completely(pairs: &[Pair], group: &mut [u32], check: Check) {
    let mut rows: Vec<u32> = pairs.iter().flat_map(|pair| [pair.a, pair.b]).collect();
    rows.sort_unstable();
    rows.dedup();
    let local = |row: u32| row_number(rows.binary_search(&row).expect("a row of the chain"));
    let mut groups: Vec<Group> =
        rows.iter().map(|&first| Group { near: Vec::new(), first, is_there: true }).collect();
    let mut queue = BinaryHeap::with_capacity(pairs.len());
    for pair in pairs {
        let (a, b) = (local(pair.a), local(pair.b));
        groups[a as usize].near.push((b, pair.distance));
        groups[b as usize].near.push((a, pair.distance));
        queue.push(Reverse(Candidate { distance: pair.distance, first: (pair.a, pair.b), groups: (a, b) }));
    }
    for group in &mut groups {
        group.near.sort_unstable_by_key(|&(other, _)| other);
    }
    let mut parent: Vec<Option<u32>> = vec![None; rows.len()];
    while let Some(Reverse(Candidate { groups: (a, b), .. })) = queue.pop() {
        if !groups[a as usize].is_there || !groups[b as usize].is_there {
            continue;
        }
        check();
        let new = row_number(groups.len());
        let [of_a, of_b] = [a, b].map(|old| {
            groups[old as usize].is_there = false;
            std::mem::take(&mut groups[old as usize].near)
        });
        let near = common(&of_a, &of_b, |other| groups[other as usize].is_there);
        let first = groups[a as usize].first.min(groups[b as usize].first);
        for &(other, distance) in &near {
            let entry = &mut groups[other as usize];
            // The new number is the greatest yet.
            entry.near.push((new, distance));
            let firsts = (first.min(entry.first), first.max(entry.first));
            queue.push(Reverse(Candidate { distance, first: firsts, groups: (other, new) }));
        }
        groups.push(Group { near, first, is_there: true });
        parent.push(None);
        parent[a as usize] = Some(new);
        parent[b as usize] = Some(new);
    }
    // Parents come after their parts.
    let mut top: Vec<u32> = vec![0; groups.len()];
    for at in (0..groups.len()).rev() {
        top[at] = parent[at].map_or(groups[at].first, |parent| top[parent as usize]);
    }
    for (at, &row) in rows.iter().enumerate() {
        group[row as usize] = top[at];
    }
}

/// Entries of both lists, which are ascending, with the greater distance.
fn common(a: &[(u32, f64)], b: &[(u32, f64)], is_there: impl Fn(u32) -> bool) -> Vec<(u32, f64)> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    let mut found = Vec::new();
    while let (Some(&&(x, from_a)), Some(&&(y, from_b))) = (a.peek(), b.peek()) {
        if x <= y {
            a.next();
        }
        if y <= x {
            b.next();
        }
        if x == y && is_there(x) {
            found.push((x, from_a.max(from_b)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs_of(points: &[f64], bound: f64) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for (i, x) in points.iter().enumerate() {
            for (j, y) in points.iter().enumerate().skip(i + 1) {
                let distance = (x - y).abs();
                if distance <= bound {
                    pairs.push(Pair { a: i as u32, b: j as u32, distance });
                }
            }
        }
        pairs
    }

    fn of(points: &[f64], bound: f64, linkage: Linkage) -> Vec<Option<u32>> {
        groups(points.len(), &mut pairs_of(points, bound), linkage, &mut || ())
    }

    #[test]
    fn a_chain_is_one_group_or_its_nearest_parts() {
        // Steps of 1, 1.1, 1, 1.2: a chain within 1.5.
        let points = [0.0, 1.0, 2.1, 3.1, 4.3];
        assert_eq!(of(&points, 1.5, Linkage::Single), vec![Some(0); 5]);
        let two = of(&points, 1.5, Linkage::Complete);
        assert_eq!(two, [Some(0), Some(0), Some(1), Some(1), None]);
    }

    #[test]
    fn whoever_is_alone_has_no_group_and_numbers_follow_first_rows() {
        let points = [50.0, 9.0, 0.0, 9.1, 0.1, 20.0];
        for linkage in [Linkage::Single, Linkage::Complete] {
            let found = of(&points, 0.5, linkage);
            assert_eq!(found, [None, Some(0), Some(1), Some(0), Some(1), None]);
        }
        assert_eq!(of(&[], 1.0, Linkage::Complete), []);
        assert_eq!(of(&[1.0], 1.0, Linkage::Single), [None]);
        assert_eq!(of(&[1.0, 1.0], 0.0, Linkage::Complete), [Some(0), Some(0)]);
    }

    /// Complete linkage by the book: the two groups with the least greatest distance join, over and over.
    fn naive(points: &[f64], bound: f64) -> Vec<Option<u32>> {
        let mut groups: Vec<Vec<usize>> = (0..points.len()).map(|i| vec![i]).collect();
        loop {
            let mut best: Option<(f64, usize, usize, usize, usize)> = None;
            for i in 0..groups.len() {
                for j in i + 1..groups.len() {
                    let greatest = groups[i]
                        .iter()
                        .flat_map(|&x| groups[j].iter().map(move |&y| (points[x] - points[y]).abs()))
                        .fold(0.0, f64::max);
                    let (x, y) = (groups[i].iter().min().unwrap(), groups[j].iter().min().unwrap());
                    let key = (greatest, *x.min(y), *x.max(y), i, j);
                    if greatest <= bound
                        && best.is_none_or(|best| (key.0, key.1, key.2) < (best.0, best.1, best.2))
                    {
                        best = Some(key);
                    }
                }
            }
            let Some((.., i, j)) = best else { break };
            let other = groups.remove(j);
            groups[i].extend(other);
        }
        let mut label = vec![0; points.len()];
        for group in &groups {
            group.iter().for_each(|&row| label[row] = *group.iter().min().unwrap() as u32);
        }
        numbered(label.into_iter())
    }

    proptest! {
        #[test]
        fn complete_linkage_is_that_of_the_book(points in proptest::collection::vec(0u8..40, 0..30), bound in 0u8..12) {
            // Whole numbers tie often.
            let points: Vec<f64> = points.into_iter().map(f64::from).collect();
            prop_assert_eq!(of(&points, bound.into(), Linkage::Complete), naive(&points, bound.into()));
        }

        #[test]
        fn groups_hold_what_their_linkage_promises(points in proptest::collection::vec(0.0..20.0f64, 0..40), bound in 0.0..4.0f64) {
            let single = of(&points, bound, Linkage::Single);
            let complete = of(&points, bound, Linkage::Complete);
            for i in 0..points.len() {
                for j in 0..points.len() {
                    let near = (points[i] - points[j]).abs() <= bound;
                    if i != j && near {
                        prop_assert!(single[i].is_some() && single[i] == single[j]);
                        // Whoever has a near one in no group is in one itself.
                        prop_assert!(complete[i].is_some() || complete[j].is_some());
                    }
                    if complete[i].is_some() && complete[i] == complete[j] {
                        prop_assert!(near);
                    }
                }
            }
        }
    }
}
