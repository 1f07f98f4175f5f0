//! The rows that an index holds, sorted, as many at a time as memory allows.
//!
//! They are counted by their place in the table first; then the table's blocks are divided into parts whose rows
//! fit, and for each part the index is read again. Few rows are kept from the first reading, so that they need no
//! other.

use imgvec_ann::filter::key_bytes;
use imgvec_ann::layout::HeapTid;
use std::ops::Range;

/// Equal divisions of the table that rows are counted by. A part is not smaller than one, 8 bytes a row, however little
/// memory there is.
const DIVISIONS: u32 = 4096;

/// A row of an index with what its keys are hashed to: eight bytes in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexRow {
    pub tid: HeapTid,
    pub keys: u16,
}

impl IndexRow {
    /// Of keys as nodes hold them.
    pub fn new(tid: HeapTid, keys: &[u8]) -> Self {
        Self { tid, keys: digest_of_bytes(keys) }
    }
}

/// What the keys of a row are hashed to. One in 65,536 other sets of keys is taken for the same.
pub fn digest(keys: &[u64]) -> u16 {
    digest_of_bytes(&key_bytes(keys))
}

fn digest_of_bytes(keys: &[u8]) -> u16 {
    let words = keys.chunks_exact(8).map(|key| u64::from_le_bytes(key.try_into().expect("eight bytes")));
    let hash = words.fold(0u64, |hash, key| (hash ^ key).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29));
    #[allow(clippy::cast_possible_truncation, reason = "a part of a hash")]
    let part = (hash >> 40) as u16;
    part
}

/// See the head of this file.
pub struct IndexRows {
    blocks_per_division: u32,
    counts: Vec<u64>,
    /// Most rows at a time.
    most: u64,
    total: u64,
    /// All of them, as long as they fit.
    all: Vec<IndexRow>,
}

impl IndexRows {
    /// Of a table with so many blocks, for rows that are held in so much memory.
    pub fn new(table_blocks: u32, memory_bytes: usize) -> Self {
        // A vector that grows has up to twice the room that it needs.
        let most = (memory_bytes / size_of::<IndexRow>() / 2) as u64;
        let blocks_per_division = table_blocks.div_ceil(DIVISIONS).max(1);
        Self { blocks_per_division, counts: vec![0; DIVISIONS as usize], most, total: 0, all: Vec::new() }
    }

    /// Adds a row of the first reading.
    pub fn add(&mut self, row: IndexRow) {
        let tid = row.tid;
        // Rows after the end of the table, which only a damaged index has, belong to the last division.
        self.counts[(tid.block / self.blocks_per_division).min(DIVISIONS - 1) as usize] += 1;
        self.total += 1;
        if self.total <= self.most {
            self.all.push(row);
        } else {
            self.all = Vec::new();
        }
    }

    /// The blocks of the table, part by part; the last has no end.
    pub fn parts(&self) -> Vec<Range<u32>> {
        let mut parts = Vec::new();
        let (mut start, mut sum) = (0, 0);
        for (division, &count) in (0..).zip(&self.counts) {
            if sum > 0 && sum + count > self.most {
                let end = division * self.blocks_per_division;
                parts.push(start..end);
                (start, sum) = (end, 0);
            }
            sum += count;
        }
        parts.push(start..u32::MAX);
        parts
    }

    /// The rows of a part, ascending. `read` reads the index again, and hands over every row.
    pub fn sorted(
        &mut self,
        part: &Range<u32>,
        read: impl FnOnce(&mut dyn FnMut(IndexRow)),
    ) -> Vec<IndexRow> {
        let mut rows = std::mem::take(&mut self.all);
        if rows.is_empty() && self.total > 0 {
            read(&mut |row| {
                if part.contains(&row.tid.block) {
                    rows.push(row);
                }
            });
        }
        rows.sort_unstable();
        rows
    }
}
