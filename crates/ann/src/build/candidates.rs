//! Bounded candidate lists: for each row the nearest few rows that any leaf proposed.

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
            // Looking at all of them without leaving early is done several at a time.
            let id = key.id().0;
            if rows[..len].iter().fold(false, |known, &row| known | (row == id)) {
                // Leaves see the same distance a little differently: the least counts, whichever comes first.
                let at = rows[..len].iter().position(|&row| row == id).expect("it is there");
                distances[at] = distances[at].min(key.score());
                continue;
            }
            let mut at = len;
            if len < LIST_LEN {
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
}
