//! Bounded candidate lists: for each row the nearest few rows that any leaf proposed, and those with the highest products, where such
//! are proposed.

use super::products;
use crate::graph::key::Key;
use crate::layout::NodeId;
use std::sync::Mutex;

/// Most candidates of a row. 64 gave the same recall at all efforts, on clusters and manifolds of 512 dimensions.
pub const LIST_LEN: usize = 40;
/// Bytes of a row's list.
pub const LIST_BYTES: usize = LIST_LEN * 8 + 1;
/// Rows that share a lock.
const CHUNK: usize = 128;

/// Lists of keys (squared distance and row), filled by several threads.
pub struct Lists {
    chunks: Vec<Mutex<Chunk>>,
}

struct Chunk {
    /// `[CHUNK, LIST_LEN]`; apart from the distances, so that looking for a row reads half as much.
    rows: Vec<u32>,
    /// As many.
    distances: Vec<f32>,
    lens: [u8; CHUNK],
}

impl Lists {
    /// Empty lists for `rows` rows.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        let chunk = || {
            let (rows, distances) = (vec![0; CHUNK * LIST_LEN], vec![0.0; CHUNK * LIST_LEN]);
            Mutex::new(Chunk { rows, distances, lens: [0; CHUNK] })
        };
        Self { chunks: (0..rows.div_ceil(CHUNK)).map(|_| chunk()).collect() }
    }

    /// Offers candidates to a row, itself not among them; the nearest [`LIST_LEN`] different ones stay. What
    /// stays does not depend on the order of offers.
    pub fn offer(&self, row: u32, candidates: impl IntoIterator<Item = Key>) {
        let (chunk, place) = (row as usize / CHUNK, row as usize % CHUNK);
        let mut guard = self.chunks[chunk].lock().expect("workers do not panic");
        let Chunk { rows, distances, lens } = &mut *guard;
        let list = place * LIST_LEN..(place + 1) * LIST_LEN;
        let (rows, distances) = (&mut rows[list.clone()], &mut distances[list]);
        let mut len = usize::from(lens[place]);
        for key in candidates {
            let lowest = if products::is_product(key) { full(&rows[..len], &distances[..len]) } else { None };
            // Looking at all of them without leaving early is done several at a time.
            let id = key.id().0;
            if rows[..len].iter().fold(false, |known, &row| known | (row == id)) {
                let at = rows[..len].iter().position(|&row| row == id).expect("it is there");
                let is_new_product = products::is_product(key) && distances[at] >= 0.0;
                if !is_new_product || lowest.is_some_and(|(lowest, _)| lowest <= key) {
                    // Leaves see the same distance a little differently: the least counts, whichever comes first.
                    if !is_new_product {
                        distances[at] = distances[at].min(key.score());
                    }
                    continue;
                }
                // It was near, and stays for its product, in place of the lowest one if there are as many as may be.
                distances[at] = key.score();
                if let Some((_, i)) = lowest {
                    len -= 1;
                    (rows[i], distances[i]) = (rows[len], distances[len]);
                }
                continue;
            }
            let mut at = len;
            if let Some((lowest, i)) = lowest {
                if lowest <= key {
                    continue;
                }
                at = i;
            } else if len < LIST_LEN {
                len += 1;
            } else {
                let keys = rows.iter().zip(distances.iter()).map(|(&row, &x)| Key::new(x, NodeId(row)));
                let (farthest, i) = keys.zip(0..).max().expect("a full list is not empty");
                if farthest <= key {
                    continue;
                }
                at = i;
            }
            (rows[at], distances[at]) = (id, key.score());
        }
        lens[place] = u8::try_from(len).expect("a short list");
    }

    /// Calls `each` with a row's candidates, in no order.
    pub fn each(&self, row: u32, each: impl FnMut(u32)) {
        let (chunk, place) = (row as usize / CHUNK, row as usize % CHUNK);
        let guard = self.chunks[chunk].lock().expect("workers do not panic");
        let list = &guard.rows[place * LIST_LEN..][..usize::from(guard.lens[place])];
        list.iter().copied().for_each(each);
    }

    /// A row's candidates, nearest first.
    #[must_use]
    pub fn sorted(&self, row: u32) -> Vec<Key> {
        let (chunk, place) = (row as usize / CHUNK, row as usize % CHUNK);
        let guard = self.chunks[chunk].lock().expect("workers do not panic");
        let list = place * LIST_LEN..place * LIST_LEN + usize::from(guard.lens[place]);
        let pairs = guard.rows[list.clone()].iter().zip(&guard.distances[list]);
        let mut keys: Vec<Key> = pairs.map(|(&row, &distance)| Key::new(distance, NodeId(row))).collect();
        drop(guard);
        keys.sort_unstable();
        keys
    }
}

/// Of as many products as a list may have the lowest, and its place; `None` if there are fewer.
fn full(rows: &[u32], distances: &[f32]) -> Option<(Key, usize)> {
    let mut lowest: Option<(Key, usize)> = None;
    let mut count = 0;
    for ((&row, &x), i) in rows.iter().zip(distances).zip(0..) {
        if x < 0.0 {
            count += 1;
            lowest = lowest.max(Some((Key::new(x, NodeId(row)), i)));
        }
    }
    lowest.filter(|_| count == products::MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_nearest_once() {
        let lists = Lists::new(300);
        let key = |i: u32| Key::new(i as f32, NodeId(i));
        lists.offer(200, (0..100).rev().map(key));
        lists.offer(200, (0..100).map(key));
        assert_eq!(lists.sorted(200), (0..40).map(key).collect::<Vec<_>>());
        lists.offer(200, [Key::new(0.5, NodeId(39))]);
        assert_eq!(lists.sorted(200)[1], Key::new(0.5, NodeId(39)), "the least distance counts");
        lists.offer(5, (0..10).map(key));
        let mut some = Vec::new();
        lists.each(5, |row| some.push(row));
        some.sort_unstable();
        assert_eq!(some, (0..10).collect::<Vec<_>>());
        assert!(lists.sorted(6).is_empty());
    }

    #[test]
    fn products_have_places_of_their_own() {
        let lists = Lists::new(1);
        let near = |i: u32| Key::new(i as f32, NodeId(i));
        let product = |i: u32| products::key(i as f32, 0.0, i).unwrap();
        lists.offer(0, (0..100).map(near));
        // Some are near as well.
        lists.offer(0, (1..60).rev().map(product));
        let sorted = lists.sorted(0);
        assert_eq!(sorted.len(), LIST_LEN);
        assert_eq!(sorted[..16], (44..60).rev().map(product).collect::<Vec<_>>(), "the highest");
        assert_eq!(sorted[16..], (0..24).map(near).collect::<Vec<_>>(), "and the nearest");
        lists.offer(0, (0..100).map(near));
        assert_eq!(lists.sorted(0), sorted);
    }
}
