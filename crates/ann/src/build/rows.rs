//! Quantized rows: in memory, where equal ones are folded into one, and as records in temporary files.
//!
//! | offset | width | type | record |
//! |---|---|---|---|
//! | 0 | 4 each | f32 | scale, squared norm, bias, error bound |
//! | 16 | 4, 2 | u32, u16 | heap tid |
//! | 22 | 2 | - | 0 |
//! | 24 | 4 | u32 | number of the row |
//! | 28 | 4 | u32 | how many further tids it has, in a file of tids |
//! | 32 | padded dim | i8 | codes |

use super::spill::{Log, Spill};
use crate::arch::Scaled;
use crate::layout::HeapTid;
use crate::layout::bytes::{get_f32, get_u16, get_u32, put_f32, put_u16, put_u32};
use std::collections::HashMap;
use std::io;
use std::ops::Range;

/// Vectors, quantized, side by side.
#[derive(Clone, Default)]
pub(crate) struct RowSet {
    pub dim: usize,
    pub codes: Vec<i8>,
    pub scales: Vec<f32>,
    pub norms: Vec<f32>,
}

impl RowSet {
    pub fn new(dim: usize) -> Self {
        Self { dim, ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.scales.len()
    }

    pub fn codes(&self, row: u32) -> &[i8] {
        &self.codes[row as usize * self.dim..(row as usize + 1) * self.dim]
    }

    pub fn scaled(&self, row: u32) -> Scaled<'_> {
        Scaled { codes: self.codes(row), scale: self.scales[row as usize] }
    }

    fn push(&mut self, row: &Row) {
        if self.codes.capacity() - self.codes.len() < self.dim {
            // By an eighth, not by doubling: codes are the bulk of a build's memory.
            self.codes.reserve_exact((self.codes.len() / 8).max(64 * self.dim));
        }
        self.codes.extend_from_slice(row.codes);
        self.scales.push(row.scale);
        self.norms.push(row.norm_squared);
    }

    /// Puts the rows into another order: the new row `i` is the old row `order[i]`. In place, but for one row.
    pub fn reorder(&mut self, order: &[u32]) {
        let dim = self.dim;
        let mut moved = vec![false; order.len()];
        for start in 0..order.len() {
            if std::mem::replace(&mut moved[start], true) {
                continue;
            }
            // Along the cycle: each place takes what comes from the next.
            let first = self.codes[start * dim..(start + 1) * dim].to_vec();
            let mut to = start;
            loop {
                let from = order[to] as usize;
                if std::mem::replace(&mut moved[from], true) {
                    break;
                }
                self.codes.copy_within(from * dim..(from + 1) * dim, to * dim);
                to = from;
            }
            self.codes[to * dim..(to + 1) * dim].copy_from_slice(&first);
        }
        self.scales = reordered(&self.scales, order);
        self.norms = reordered(&self.norms, order);
    }

    /// Some of the rows.
    pub fn subset(&self, rows: &[u32]) -> Self {
        let mut subset = Self::new(self.dim);
        subset.codes.reserve_exact(rows.len() * self.dim);
        for &row in rows {
            subset.codes.extend_from_slice(self.codes(row));
            subset.scales.push(self.scales[row as usize]);
            subset.norms.push(self.norms[row as usize]);
        }
        subset
    }
}

/// The items in another order: `order` names the old places.
pub(super) fn reordered<T: Copy>(items: &[T], order: &[u32]) -> Vec<T> {
    order.iter().map(|&old| items[old as usize]).collect()
}

/// New places by old ones.
pub(super) fn inverse(order: &[u32]) -> Vec<u32> {
    let mut inverse = vec![0; order.len()];
    for (new, &old) in (0..).zip(order) {
        inverse[old as usize] = new;
    }
    inverse
}

/// One row: what a node's header and vector are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub codes: &'a [i8],
    pub scale: f32,
    pub norm_squared: f32,
    pub bias: f32,
    pub error: f32,
    pub tid: HeapTid,
}

impl Row<'_> {
    /// The same for equal codes and scales.
    pub fn hash(&self) -> u64 {
        let mut hash = u64::from(self.scale.to_bits());
        for eight in self.codes.chunks_exact(8) {
            let word = eight.iter().fold(0u64, |w, c| w << 8 | u64::from(c.cast_unsigned()));
            hash = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        }
        hash
    }
}

/// Rows of which no two are equal.
#[derive(Default)]
pub(super) struct Folded {
    pub set: RowSet,
    pub biases: Vec<f32>,
    pub errors: Vec<f32>,
    pub tids: Vec<HeapTid>,
    /// Rows by a hash of their codes; collisions are told apart by comparing.
    by_hash: HashMap<u64, u32>,
}

impl Folded {
    pub fn new(dim: usize) -> Self {
        Self { set: RowSet::new(dim), ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.tids.len()
    }

    /// The place of a row that is equal.
    pub fn twin(&self, row: &Row, hash: u64) -> Option<u32> {
        self.by_hash.get(&hash).copied().filter(|&twin| {
            self.set.codes(twin) == row.codes
                && self.set.scales[twin as usize].to_bits() == row.scale.to_bits()
        })
    }

    /// Takes a row that has no twin.
    pub fn push(&mut self, row: &Row, hash: u64) -> u32 {
        let place = u32::try_from(self.len()).expect("memory ends before");
        self.by_hash.entry(hash).or_insert(place);
        self.set.push(row);
        self.biases.push(row.bias);
        self.errors.push(row.error);
        self.tids.push(row.tid);
        place
    }

    /// Lets a row's error bound cover another row that shares its node.
    pub fn cover(&mut self, place: u32, error: f32) {
        let own = &mut self.errors[place as usize];
        *own = own.max(error);
    }

    /// Frees what only taking rows needs.
    pub fn seal(&mut self) {
        self.by_hash = HashMap::new();
    }

    /// Puts all but the set of vectors, which is reordered already, into another order.
    pub fn follow(&mut self, order: &[u32]) {
        self.biases = reordered(&self.biases, order);
        self.errors = reordered(&self.errors, order);
        self.tids = reordered(&self.tids, order);
    }

    pub fn row(&self, place: u32) -> Row<'_> {
        let i = place as usize;
        Row {
            codes: self.set.codes(place),
            scale: self.set.scales[i],
            norm_squared: self.set.norms[i],
            bias: self.biases[i],
            error: self.errors[i],
            tid: self.tids[i],
        }
    }
}

const HEAD_BYTES: usize = 32;
/// Bytes of a further tid in its file.
pub(super) const TID_BYTES: usize = 6;

/// Rows in a file, with their further tids in another.
pub(super) struct Records {
    dim: usize,
    rows: Log,
    tids: Option<Log>,
    count: u64,
    record: Vec<u8>,
}

impl Records {
    pub fn new(dim: usize, spill: &mut dyn Spill) -> io::Result<Self> {
        let record = vec![0; HEAD_BYTES + dim];
        Ok(Self { dim, rows: Log::new(spill)?, tids: None, count: 0, record })
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Appends a row, with the bytes of its further tids.
    pub fn append(&mut self, row: &Row, number: u32, tids: &[u8], spill: &mut dyn Spill) -> io::Result<()> {
        let bytes = self.record.as_mut_slice();
        for (i, x) in [row.scale, row.norm_squared, row.bias, row.error].into_iter().enumerate() {
            put_f32(bytes, 4 * i, x);
        }
        put_u32(bytes, 16, row.tid.block);
        put_u16(bytes, 20, row.tid.offset);
        put_u32(bytes, 24, number);
        put_u32(bytes, 28, u32::try_from(tids.len() / TID_BYTES).expect("a part of a table"));
        for (byte, code) in bytes[HEAD_BYTES..].iter_mut().zip(row.codes) {
            *byte = code.cast_unsigned();
        }
        self.rows.append(&self.record)?;
        self.count += 1;
        if !tids.is_empty() {
            let log = match &mut self.tids {
                Some(log) => log,
                none => none.insert(Log::new(spill)?),
            };
            log.append(tids)?;
        }
        Ok(())
    }

    /// Reads consecutive rows.
    pub fn read(&mut self, places: Range<u64>) -> io::Result<Batch> {
        let count = usize::try_from(places.end - places.start).expect("a batch");
        let mut bytes = vec![0; count * self.record.len()];
        self.rows.read_at(places.start * self.record.len() as u64, &mut bytes)?;
        let mut batch = Batch { set: RowSet::new(self.dim), heads: Vec::with_capacity(count) };
        batch.set.codes.reserve_exact(count * self.dim);
        for record in bytes.chunks_exact(self.record.len()) {
            let tid = HeapTid { block: get_u32(record, 16), offset: get_u16(record, 20) };
            let row = Row {
                codes: &[],
                scale: get_f32(record, 0),
                norm_squared: get_f32(record, 4),
                bias: get_f32(record, 8),
                error: get_f32(record, 12),
                tid,
            };
            batch.set.codes.extend(record[HEAD_BYTES..].iter().map(|byte| byte.cast_signed()));
            batch.set.scales.push(row.scale);
            batch.set.norms.push(row.norm_squared);
            let (number, further) = (get_u32(record, 24), get_u32(record, 28));
            batch.heads.push(Head { bias: row.bias, error: row.error, tid, number, further });
        }
        Ok(batch)
    }

    /// Reads the vectors at some places, which ascend.
    pub fn gather(&mut self, places: &[u32]) -> io::Result<RowSet> {
        /// Places that are read over rather than apart.
        const GAP: u32 = 4;
        let mut set = RowSet::new(self.dim);
        set.codes.reserve_exact(places.len() * self.dim);
        let mut rest = places;
        while let Some(&first) = rest.first() {
            let run = (1..rest.len().min(256)).find(|&i| rest[i] - rest[i - 1] > GAP);
            let (run, behind) = rest.split_at(run.unwrap_or(rest.len().min(256)));
            let batch = self.read(u64::from(first)..u64::from(run[run.len() - 1]) + 1)?;
            for &place in run {
                let i = place - first;
                set.codes.extend_from_slice(batch.set.codes(i));
                set.scales.push(batch.set.scales[i as usize]);
                set.norms.push(batch.set.norms[i as usize]);
            }
            rest = behind;
        }
        Ok(set)
    }

    /// Reads further tids, as bytes, from an offset that is the sum of the bytes of the rows before.
    pub fn tids(&mut self, at: u64, count: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count as usize * TID_BYTES];
        if let (Some(log), 1..) = (&mut self.tids, count) {
            log.read_at(at, &mut bytes)?;
        }
        Ok(bytes)
    }
}

/// Consecutive rows of a file.
pub(super) struct Batch {
    pub set: RowSet,
    pub heads: Vec<Head>,
}

/// What a record says besides its vector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub bias: f32,
    pub error: f32,
    pub tid: HeapTid,
    pub number: u32,
    pub further: u32,
}

impl Batch {
    pub fn row(&self, i: usize) -> Row<'_> {
        let (place, head) = (u32::try_from(i).expect("a batch"), self.heads[i]);
        Row {
            codes: self.set.codes(place),
            scale: self.set.scales[i],
            norm_squared: self.set.norms[i],
            bias: head.bias,
            error: head.error,
            tid: head.tid,
        }
    }
}

/// A tid as it lies in a file.
pub(super) fn tid_bytes(tid: HeapTid) -> [u8; TID_BYTES] {
    let mut bytes = [0; TID_BYTES];
    put_u32(&mut bytes, 0, tid.block);
    put_u16(&mut bytes, 4, tid.offset);
    bytes
}

/// The tid that lies in a file.
pub(super) fn tid_from(bytes: &[u8]) -> HeapTid {
    HeapTid { block: get_u32(bytes, 0), offset: get_u16(bytes, 4) }
}

#[cfg(test)]
mod tests {
    use super::super::spill::MemorySpill;
    use super::*;

    fn row(codes: &[i8], i: u16) -> Row<'_> {
        let x = f32::from(i);
        let tid = HeapTid { block: u32::from(i), offset: i + 1 };
        Row { codes, scale: 1.0 + x, norm_squared: 2.0 + x, bias: 3.0 + x, error: x, tid }
    }

    #[test]
    fn records_come_back() {
        let codes: Vec<i8> = (0..100 * 64).map(|i| (i % 251 - 125) as i8).collect();
        let mut records = Records::new(64, &mut MemorySpill).unwrap();
        for (i, codes) in (0u16..).zip(codes.chunks_exact(64)) {
            let tids = tid_bytes(HeapTid { block: 7, offset: i }).repeat(usize::from(i % 3));
            records.append(&row(codes, i), u32::from(i) * 2, &tids, &mut MemorySpill).unwrap();
        }
        let batch = records.read(10..20).unwrap();
        for (i, head) in (10u16..).zip(&batch.heads) {
            let (got, wanted) = (batch.row(usize::from(i) - 10), row(&codes[usize::from(i) * 64..][..64], i));
            assert_eq!(format!("{got:?}"), format!("{wanted:?}"));
            assert_eq!((head.number, head.further), (u32::from(i) * 2, u32::from(i % 3)));
        }
        // Two of row 2, one of row 4, two of row 5 are before those of row 7; row 1 has one.
        let tids = records.tids(6 * 6, 1).unwrap();
        assert_eq!(tid_from(&tids), HeapTid { block: 7, offset: 7 });
        let places = [0, 1, 5, 40, 41, 99];
        let set = records.gather(&places).unwrap();
        assert_eq!(set.len(), places.len());
        for (i, &place) in (0u32..).zip(&places) {
            assert_eq!(set.codes(i), &codes[place as usize * 64..][..64]);
            assert_eq!(set.scales[i as usize], 1.0 + place as f32);
        }
    }

    #[test]
    fn rows_follow_an_order() {
        let codes: Vec<i8> = (0..100).flat_map(|i| [i; 64]).collect();
        let mut folded = Folded::new(64);
        for (i, codes) in (0u16..).zip(codes.chunks_exact(64)) {
            folded.push(&row(codes, i), u64::from(i));
        }
        let mut random = crate::random::SplitMix64::new(1);
        let order: Vec<u32> = random.sample(100, 100).into_iter().map(|i| i as u32).collect();
        folded.set.reorder(&order);
        folded.follow(&order);
        let places = inverse(&order);
        for (i, codes) in (0u16..).zip(codes.chunks_exact(64)) {
            let (got, wanted) = (folded.row(places[usize::from(i)]), row(codes, i));
            assert_eq!(format!("{got:?}"), format!("{wanted:?}"));
        }
    }

    #[test]
    fn equal_rows_are_twins() {
        let (a, b) = ([1i8; 64], [2i8; 64]);
        let mut folded = Folded::new(64);
        let hash = row(&a, 0).hash();
        assert_eq!(folded.twin(&row(&a, 0), hash), None);
        assert_eq!(folded.push(&row(&a, 0), hash), 0);
        assert_eq!(folded.twin(&row(&a, 0), hash), Some(0));
        assert_eq!(folded.twin(&row(&b, 0), hash), None, "a collision of hashes");
        assert_eq!(folded.twin(&row(&a, 1), hash), None, "another scale");
        folded.cover(0, 0.5);
        folded.cover(0, 0.25);
        assert_eq!(folded.row(0).error, 0.5);
    }
}
