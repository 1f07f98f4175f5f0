//! The rows that an index holds, sorted, as many at a time as memory allows.
//!
//! They are counted by their place in the table first; then the table's blocks are divided into parts whose rows
//! fit, and for each part the index is read again. Few rows are kept from the first reading, so that they need no
//! other.

use imgvec_ann::layout::HeapTid;
use std::ops::Range;

/// Equal divisions of the table that rows are counted by. A part is not smaller than one, 8 bytes a row, however little
/// memory there is.
const DIVISIONS: u32 = 4096;

/// See the head of this file.
pub struct IndexRows {
    blocks_per_division: u32,
    counts: Vec<u64>,
    /// Most rows at a time.
    most: u64,
    total: u64,
    /// All of them, as long as they fit.
    all: Vec<HeapTid>,
}

impl IndexRows {
    /// Of a table with so many blocks, for rows that are held in so much memory.
    pub fn new(table_blocks: u32, memory_bytes: usize) -> Self {
        // A vector that grows has up to twice the room that it needs.
        let most = (memory_bytes / size_of::<HeapTid>() / 2) as u64;
        let blocks_per_division = table_blocks.div_ceil(DIVISIONS).max(1);
        Self { blocks_per_division, counts: vec![0; DIVISIONS as usize], most, total: 0, all: Vec::new() }
    }

    /// Adds a row of the first reading.
    pub fn add(&mut self, tid: HeapTid) {
        // Rows behind the end of the table, which only a damaged index has, belong to the last division.
        self.counts[(tid.block / self.blocks_per_division).min(DIVISIONS - 1) as usize] += 1;
        self.total += 1;
        if self.total <= self.most {
            self.all.push(tid);
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
    pub fn sorted(&mut self, part: &Range<u32>, read: impl FnOnce(&mut dyn FnMut(HeapTid))) -> Vec<HeapTid> {
        let mut rows = std::mem::take(&mut self.all);
        if rows.is_empty() && self.total > 0 {
            read(&mut |tid| {
                if part.contains(&tid.block) {
                    rows.push(tid);
                }
            });
        }
        rows.sort_unstable();
        rows
    }
}
