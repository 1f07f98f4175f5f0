//! Quantized rows: in memory, where equal ones are folded into one, and as records in temporary files.
//!
//! | offset | width | type | record |
//! |---|---|---|---|
//! | 0 | 4 each | f32 | scales of leading and of other elements, bias, error bound |
//! | 16 | 4, 2 | u32, u16 | heap tid |
//! | 22 | 2 | u16 | number of the leader that the vector is relative to |
//! | 24 | 4 | u32 | number of the row |
//! | 28 | 4 | u32 | how many further tids it has, in a file of tids |
//! | 32 | 8 K | u64 | keys of K columns |
//! | 32 + 8 K | padded dim | i8 | codes |

use super::spill::{Log, Spill};
use crate::arch::prefetch;
use crate::layout::bytes::{get_f32, get_u16, get_u32, put_f32, put_u16, put_u32};
use crate::layout::{Geometry, HeapTid};
use crate::quantize::{Local, Stored};
use crate::space::Space;
use std::collections::HashMap;
use std::io;
use std::ops::Range;

/// Vectors, quantized, side by side.
#[derive(Clone, Default)]
pub(crate) struct RowSet {
    pub dim: usize,
    key_bytes: usize,
    pub codes: Vec<i8>,
    keys: Vec<u8>,
    scales: Vec<Scales>,
}

/// What describes the codes of one vector; see [`Stored`].
#[derive(Clone, Copy)]
struct Scales {
    lead: f32,
    trail: f32,
    bias: f32,
    reference: u16,
}

/// Rows that tell well enough where the middle of many is.
const MIDDLE_OF: usize = 16;

impl RowSet {
    pub fn new(g: &Geometry) -> Self {
        Self { dim: g.padded_dim(), key_bytes: g.key_bytes(), ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.scales.len()
    }

    pub fn codes(&self, row: u32) -> &[i8] {
        &self.codes[row as usize * self.dim..(row as usize + 1) * self.dim]
    }

    pub fn stored(&self, row: u32) -> Stored<'_> {
        let i = row as usize;
        let Scales { lead, trail, bias, reference } = self.scales[i];
        let keys = &self.keys[i * self.key_bytes..(i + 1) * self.key_bytes];
        Stored { codes: self.codes(row), lead, trail, reference, bias, keys }
    }

    fn push(&mut self, row: Stored) {
        if self.codes.capacity() - self.codes.len() < self.dim {
            // By an eighth, not by doubling: codes are the bulk of a build's memory.
            self.codes.reserve_exact((self.codes.len() / 8).max(64 * self.dim));
        }
        self.codes.extend_from_slice(row.codes);
        self.describe(row);
    }

    /// As `push`; `None` if the system refuses the memory.
    pub fn try_push(&mut self, row: Stored) -> Option<()> {
        if self.codes.capacity() - self.codes.len() < self.dim {
            self.codes.try_reserve_exact((self.codes.len() / 8).max(64 * self.dim)).ok()?;
        }
        self.push(row);
        Some(())
    }

    /// Adds what a row has besides its codes.
    fn describe(&mut self, row: Stored) {
        let Stored { lead, trail, reference, bias, .. } = row;
        self.scales.push(Scales { lead, trail, bias, reference });
        self.keys.extend_from_slice(row.keys);
    }

    /// About the middle of some rows, less the center of the index.
    pub fn middle(&self, space: &Space, rows: &[u32]) -> Vec<f32> {
        let (mut middle, mut vector) = (vec![0.0; self.dim], vec![0.0; self.dim]);
        let some = rows.iter().step_by(rows.len().div_ceil(MIDDLE_OF).max(1));
        let share = 1.0 / some.len().max(1) as f32;
        for &row in some {
            space.decode(self.stored(row), 0, &mut vector);
            space.kernels.add_scaled(&mut middle, share, &vector);
        }
        middle
    }

    /// Fills `local` with some rows relative to an origin.
    pub fn localize(
        &self,
        space: &Space,
        rows: impl Iterator<Item = u32> + Clone,
        origin: &[f32],
        local: &mut Local,
    ) {
        /// Rows that are fetched ahead.
        const AHEAD: usize = 8;
        local.clear(self.dim);
        let mut vector = vec![0.0; self.dim];
        let mut ahead = rows.clone().skip(AHEAD);
        for row in rows {
            if let Some(row) = ahead.next() {
                prefetch(self.codes(row));
            }
            let largest = space.decode_from(self.stored(row), origin, &mut vector);
            local.push(space.kernels, &vector, largest);
        }
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
        if self.key_bytes > 0 {
            let keys: Vec<&[u8]> = self.keys.chunks_exact(self.key_bytes).collect();
            self.keys = order.iter().flat_map(|&old| keys[old as usize]).copied().collect();
        }
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
    pub stored: Stored<'a>,
    pub error: f32,
    pub tid: HeapTid,
}

impl Row<'_> {
    /// The same for equal codes, scales, biases and keys.
    pub fn hash(&self) -> u64 {
        let Stored { codes, lead, trail, reference, bias, keys } = self.stored;
        let mut hash =
            u64::from(lead.to_bits()) ^ u64::from(trail.to_bits()) << 32 ^ u64::from(reference) << 7;
        hash ^= u64::from(bias.to_bits()).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for key in keys.chunks_exact(8) {
            let word = key.iter().fold(0u64, |w, &byte| w << 8 | u64::from(byte));
            hash = (hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        }
        for eight in codes.chunks_exact(8) {
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
    pub errors: Vec<f32>,
    pub tids: Vec<HeapTid>,
    /// Rows by a hash of their codes; collisions are distinguished by comparing.
    by_hash: HashMap<u64, u32>,
}

impl Folded {
    pub fn new(g: &Geometry) -> Self {
        Self { set: RowSet::new(g), ..Self::default() }
    }

    pub fn len(&self) -> usize {
        self.tids.len()
    }

    /// The place of a row that is equal.
    pub fn twin(&self, row: &Row, hash: u64) -> Option<u32> {
        self.by_hash.get(&hash).copied().filter(|&twin| {
            let Stored { codes, lead, trail, reference, bias, keys } = self.set.stored(twin);
            let own = row.stored;
            (lead.to_bits(), trail.to_bits(), reference, bias.to_bits())
                == (own.lead.to_bits(), own.trail.to_bits(), own.reference, own.bias.to_bits())
                && codes == own.codes
                && keys == own.keys
        })
    }

    /// Takes a row that has no twin.
    pub fn push(&mut self, row: &Row, hash: u64) -> u32 {
        let place = u32::try_from(self.len()).expect("memory ends before");
        self.by_hash.entry(hash).or_insert(place);
        self.set.push(row.stored);
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
        self.errors = reordered(&self.errors, order);
        self.tids = reordered(&self.tids, order);
    }

    pub fn row(&self, place: u32) -> Row<'_> {
        let i = place as usize;
        Row { stored: self.set.stored(place), error: self.errors[i], tid: self.tids[i] }
    }
}

const HEAD_BYTES: usize = 32;
/// Bytes of a further tid in its file.
pub(super) const TID_BYTES: usize = 6;

/// Rows in a file, with their further tids in another.
pub(super) struct Records {
    geometry: Geometry,
    rows: Log,
    tids: Option<Log>,
    count: u64,
    record: Vec<u8>,
}

impl Records {
    pub fn new(g: &Geometry, spill: &mut dyn Spill) -> io::Result<Self> {
        let record = vec![0; HEAD_BYTES + g.key_bytes() + g.padded_dim()];
        Ok(Self { geometry: *g, rows: Log::new(spill)?, tids: None, count: 0, record })
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    /// Appends a row, with the bytes of its further tids.
    pub fn append(&mut self, row: &Row, number: u32, tids: &[u8], spill: &mut dyn Spill) -> io::Result<()> {
        let bytes = self.record.as_mut_slice();
        let Stored { codes, lead, trail, reference, bias, keys } = row.stored;
        bytes[HEAD_BYTES..HEAD_BYTES + keys.len()].copy_from_slice(keys);
        for (i, x) in [lead, trail, bias, row.error].into_iter().enumerate() {
            put_f32(bytes, 4 * i, x);
        }
        put_u32(bytes, 16, row.tid.block);
        put_u16(bytes, 20, row.tid.offset);
        put_u16(bytes, 22, reference);
        put_u32(bytes, 24, number);
        put_u32(bytes, 28, u32::try_from(tids.len() / TID_BYTES).expect("a part of a table"));
        for (byte, code) in bytes[HEAD_BYTES + keys.len()..].iter_mut().zip(codes) {
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
        let mut batch = Batch { set: RowSet::new(&self.geometry), heads: Vec::with_capacity(count) };
        batch.set.codes.reserve_exact(count * self.geometry.padded_dim());
        let vector = HEAD_BYTES + self.geometry.key_bytes();
        for record in bytes.chunks_exact(self.record.len()) {
            let tid = HeapTid { block: get_u32(record, 16), offset: get_u16(record, 20) };
            batch.set.codes.extend(record[vector..].iter().map(|byte| byte.cast_signed()));
            let (lead, trail, reference) = (get_f32(record, 0), get_f32(record, 4), get_u16(record, 22));
            let keys = &record[HEAD_BYTES..vector];
            let (bias, error) = (get_f32(record, 8), get_f32(record, 12));
            batch.set.describe(Stored { codes: &[], lead, trail, reference, bias, keys });
            let (number, further) = (get_u32(record, 24), get_u32(record, 28));
            batch.heads.push(Head { error, tid, number, further });
        }
        Ok(batch)
    }

    /// Reads the vectors at some places, which ascend.
    pub fn gather(&mut self, places: &[u32]) -> io::Result<RowSet> {
        /// Places that are read over rather than apart.
        const GAP: u32 = 4;
        let mut set = RowSet::new(&self.geometry);
        set.codes.reserve_exact(places.len() * self.geometry.padded_dim());
        let mut rest = places;
        while let Some(&first) = rest.first() {
            let run = (1..rest.len().min(256)).find(|&i| rest[i] - rest[i - 1] > GAP);
            let (run, behind) = rest.split_at(run.unwrap_or(rest.len().min(256)));
            let batch = self.read(u64::from(first)..u64::from(run[run.len() - 1]) + 1)?;
            for &place in run {
                let i = place - first;
                let row = batch.set.stored(i);
                set.codes.extend_from_slice(row.codes);
                set.describe(row);
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
    pub error: f32,
    pub tid: HeapTid,
    pub number: u32,
    pub further: u32,
}

impl Batch {
    pub fn row(&self, i: usize) -> Row<'_> {
        let (place, head) = (u32::try_from(i).expect("a batch"), self.heads[i]);
        Row { stored: self.set.stored(place), error: head.error, tid: head.tid }
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
    use crate::filter::Kind;

    const KEYS: [u8; 32] = *b"keys of one row keys of another ";

    /// 64 dimensions and two key columns.
    fn geometry() -> Geometry {
        Geometry::new(64).unwrap().with_columns(&[Kind::Ordered; 2])
    }

    fn row(codes: &[i8], i: u16) -> Row<'_> {
        let x = f32::from(i);
        let tid = HeapTid { block: u32::from(i), offset: i + 1 };
        let keys = &KEYS[usize::from(i % 2) * 16..][..16];
        let stored = Stored { codes, lead: 1.0 + x, trail: 2.0 + x, reference: i, bias: 3.0 + x, keys };
        Row { stored, error: x, tid }
    }

    #[test]
    fn records_come_back() {
        let codes: Vec<i8> = (0..100 * 64).map(|i| (i % 251 - 125) as i8).collect();
        let mut records = Records::new(&geometry(), &mut MemorySpill).unwrap();
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
            assert_eq!(set.stored(i).lead, 1.0 + place as f32);
        }
    }

    #[test]
    fn rows_follow_an_order() {
        let codes: Vec<i8> = (0..100).flat_map(|i| [i; 64]).collect();
        let mut folded = Folded::new(&geometry());
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
        let mut folded = Folded::new(&geometry());
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
