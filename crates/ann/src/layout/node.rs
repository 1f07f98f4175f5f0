//! Node pages: `slots` nodes in fixed places, no line pointers.
//!
//! Slot `s` starts at byte `s * node_bytes`. With K = key columns, P = 8 K + padded dim, C = code dim and p = planes:
//!
//! | offset | width | type | field |
//! |---|---|---|---|
//! | 0 | 4 + 2 | u32, u16 | heap tid: block, offset; offset 0 if that row is gone |
//! | 6 | 1 | u8 | degree, 0 to 32 |
//! | 7 | 1 | u8 | state: 0 free, 1 live, 2 dead |
//! | 8 | 2 | bf16 | lead: what the leading `lead dim` codes are multiplied by |
//! | 10 | 2 | bf16 | trail: what the others are multiplied by |
//! | 12 | 4 | f32 | bias: squared norm of what the codes stand for; for inner product the norm of the row |
//! | 16 | 2 | bf16 | error: norm of what quantizing lost, rounded up |
//! | 18 | 2 | u16 | version, changes whenever the slot's vector, state or rows change |
//! | 20 | 4 | u32 | protected edges, bit i for edge i: never evicted for a nearer neighbor |
//! | 24 | 4 | u32 | first cell of further heap tids with the same vector, 0 if none |
//! | 28 | 2 | u16 | generation, changes whenever the slot gets another vector |
//! | 30 | 2 | u16 | reference: number of the leader that the vector is relative to, 0 for the center |
//! | 32 | 8 K | u64 | keys of the row, see `filter` |
//! | 32 + 8 K | padded dim | i8 | vector in the basis of the index, less center and reference, divided by lead or trail |
//! | 32 + P | 32 * 4 | u32 | neighbor ids |
//! | 160 + P | 32 * 2 | bf16 | neighbor factors: add |
//! | 224 + P | 32 * 2 | bf16 | neighbor factors: scale |
//! | 288 + P | 32 * 2 | bf16 | squared distance of each neighbor |
//! | 352 + P | 32 * 2 | bf16 | norms of the neighbors: inner product alone, W = 64, else W = 0 |
//! | 352 + P + W | 32 K | u8 | sketches of the neighbors, 32 for each column |
//! | 352 + P + W + 32 K | 4 p C | bits | neighbor codes, one FastScan block a plane |
//!
//! Inner product stores the directions of rows, unit vectors, and squared distances are between these.
//! Entries of the arrays after the degree mean nothing. In format 1 an f32 at 8 is the one scale of all elements, and
//! the reference is 0; inner product has the vectors themselves, and for bias their products with the center.

use super::bytes::{get_f32, get_u16, get_u32, put_f32, put_u16, put_u32};
use super::geometry::NODE_HEADER_BYTES;
use super::{Geometry, HeapTid, Kind, MAX_DEGREE, NodeId, PAGE_BYTES, Page, PageError, bf16, check, expect};
use crate::filter::{KEY_BYTES, Sketches};
use crate::quantize::Stored;
use zerocopy::FromBytes;

/// Whether a slot holds a node, and whether its row may still be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No node. No edge that matters leads here.
    Free,
    /// At least one row.
    Live,
    /// All rows are gone; searches still walk through.
    Dead,
}

/// The first 32 bytes of a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    /// The row, or an invalid tid if that row is gone.
    pub tid: HeapTid,
    /// Number of neighbors.
    pub degree: usize,
    /// See [`State`].
    pub state: State,
    /// Step of the leading 8-bit elements.
    pub lead: f32,
    /// Step of the others; the same in format 1.
    pub trail: f32,
    /// The part of the distance that needs no query.
    pub bias: f32,
    /// Upper bound on the norm of the quantizing error.
    pub error: f32,
    /// Changes with vector, state and rows.
    pub version: u16,
    /// Bit i: edge i must stay.
    pub protected: u32,
    /// First cell of further rows, 0 if none.
    pub tids: u32,
    /// Changes with the vector.
    pub generation: u16,
    /// The leader that the vector is relative to.
    pub reference: u16,
}

impl Header {
    /// The vector that codes stand for.
    #[must_use]
    pub fn stored<'a>(self, codes: &'a [i8], keys: &'a [u8]) -> Stored<'a> {
        let Self { lead, trail, reference, bias, .. } = self;
        Stored { codes, lead, trail, reference, bias, keys }
    }

    /// An empty slot, as on a fresh page.
    pub const FREE: Header = Header {
        tid: HeapTid::INVALID,
        degree: 0,
        state: State::Free,
        lead: 0.0,
        trail: 0.0,
        bias: 0.0,
        error: 0.0,
        version: 0,
        protected: 0,
        tids: 0,
        generation: 0,
        reference: 0,
    };
}

/// One neighbor of a node, without its code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Edge {
    /// The neighbor.
    pub id: NodeId,
    /// What the estimate adds to the node's own score.
    pub add: f32,
    /// What the estimate multiplies the code sum by.
    pub scale: f32,
    /// Squared L2 distance between the two quantized vectors.
    pub distance_squared: f32,
    /// The neighbor's norm where vectors are stored as directions; else 1.
    pub weight: f32,
    /// What its keys are like.
    pub sketches: Sketches,
}

/// Byte offsets of a node's arrays.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    vector: usize,
    ids: usize,
    adds: usize,
    scales: usize,
    distances: usize,
    weights: Option<usize>,
    sketches: usize,
    columns: usize,
    codes: usize,
    end: usize,
    format: u8,
    leaders: u16,
}

impl Offsets {
    fn of(g: &Geometry) -> Self {
        let columns = g.key_bytes() / KEY_BYTES;
        let vector = NODE_HEADER_BYTES + g.key_bytes();
        let ids = vector + g.padded_dim();
        let adds = ids + 4 * MAX_DEGREE;
        let scales = adds + 2 * MAX_DEGREE;
        let distances = scales + 2 * MAX_DEGREE;
        let behind = distances + 2 * MAX_DEGREE;
        let (weights, sketches) =
            if g.is_weighted() { (Some(behind), behind + 2 * MAX_DEGREE) } else { (None, behind) };
        let codes = sketches + columns * MAX_DEGREE;
        Self {
            vector,
            ids,
            adds,
            scales,
            distances,
            weights,
            sketches,
            columns,
            codes,
            end: g.node_bytes(),
            format: g.format(),
            leaders: g.leaders(),
        }
    }
}

/// An empty node page.
#[must_use]
pub fn empty_page(g: &Geometry) -> Page {
    let mut page = [0; PAGE_BYTES];
    init(&mut page, g);
    page
}

/// Makes `page` an empty node page.
pub fn init(page: &mut Page, g: &Geometry) {
    super::init(page, Kind::Node, capacity(g), g.epoch());
}

fn capacity(g: &Geometry) -> u16 {
    u16::try_from(g.slots()).expect("at most 16")
}

/// A node on a page, for reading.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    bytes: &'a [u8],
    at: Offsets,
    header: Header,
}

impl<'a> Node<'a> {
    /// The node in a slot, which may be free.
    ///
    /// # Errors
    /// [`PageError`] if the page holds no nodes of this geometry, or the slot's header makes no sense.
    pub fn read(page: &'a Page, g: &Geometry, slot: usize) -> Result<Self, PageError> {
        expect(page, Kind::Node, capacity(g))?;
        let at = Offsets::of(g);
        let bytes = &page[slot * at.end..(slot + 1) * at.end];
        Ok(Self { bytes, at, header: decode_header(bytes, g.format(), g.leaders())? })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The 8-bit vector, `[padded_dim]`.
    #[must_use]
    pub fn vector(&self) -> &'a [i8] {
        <[i8]>::ref_from_bytes(&self.bytes[self.at.vector..self.at.ids]).expect("i8 has no alignment")
    }

    /// The keys, eight bytes for each column.
    #[must_use]
    pub fn keys(&self) -> &'a [u8] {
        &self.bytes[NODE_HEADER_BYTES..self.at.vector]
    }

    /// What neighbors are like in one key column; after the degree it means nothing.
    #[must_use]
    pub fn sketches(&self, column: usize) -> &'a [u8] {
        debug_assert!(column < self.at.columns);
        &self.bytes[self.at.sketches + column * MAX_DEGREE..][..MAX_DEGREE]
    }

    /// The vector with all that its elements mean.
    #[must_use]
    pub fn stored(&self) -> Stored<'a> {
        self.header.stored(self.vector(), self.keys())
    }

    /// Id of neighbor `i`.
    #[must_use]
    pub fn id(&self, i: usize) -> NodeId {
        debug_assert!(i < self.header.degree);
        NodeId(get_u32(self.bytes, self.at.ids + 4 * i))
    }

    /// The neighbor ids.
    pub fn ids(self) -> impl ExactSizeIterator<Item = NodeId> + use<'a> {
        (0..self.header.degree).map(move |i| self.id(i))
    }

    /// Neighbor `i`.
    #[must_use]
    pub fn edge(&self, i: usize) -> Edge {
        let number = |at: usize| bf16::to_f32(get_u16(self.bytes, at + 2 * i));
        Edge {
            id: self.id(i),
            add: number(self.at.adds),
            scale: number(self.at.scales),
            distance_squared: number(self.at.distances),
            weight: self.at.weights.map_or(1.0, number),
            sketches: std::array::from_fn(|column| {
                if column < self.at.columns { self.sketches(column)[i] } else { 0 }
            }),
        }
    }

    /// The factors of all 32 places, `(add, scale)`; after the degree they mean nothing.
    #[must_use]
    pub fn factors(&self) -> ([f32; MAX_DEGREE], [f32; MAX_DEGREE]) {
        let read = |at: usize| {
            let bytes = &self.bytes[at..at + 2 * MAX_DEGREE];
            std::array::from_fn(|i| bf16::to_f32(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])))
        };
        (read(self.at.adds), read(self.at.scales))
    }

    /// The norms of all 32 neighbors, where the index tells them.
    #[must_use]
    pub fn weights(&self) -> Option<[f32; MAX_DEGREE]> {
        let at = self.at.weights?;
        Some(std::array::from_fn(|i| bf16::to_f32(get_u16(self.bytes, at + 2 * i))))
    }

    /// The FastScan block of the neighbor codes.
    #[must_use]
    pub fn codes(&self) -> &'a [u8] {
        &self.bytes[self.at.codes..]
    }
}

/// A node on a page, for writing.
pub struct NodeMut<'a> {
    bytes: &'a mut [u8],
    at: Offsets,
}

impl<'a> NodeMut<'a> {
    /// The node in a slot.
    ///
    /// # Errors
    /// As [`Node::read`].
    pub fn open(page: &'a mut Page, g: &Geometry, slot: usize) -> Result<Self, PageError> {
        expect(page, Kind::Node, capacity(g))?;
        let at = Offsets::of(g);
        let bytes = &mut page[slot * at.end..(slot + 1) * at.end];
        decode_header(bytes, g.format(), g.leaders())?;
        Ok(Self { bytes, at })
    }

    /// The node as it is now.
    #[must_use]
    pub fn as_node(&self) -> Node<'_> {
        let header = decode_header(self.bytes, self.at.format, self.at.leaders)
            .expect("checked when opened, written by us since");
        Node { bytes: self.bytes, at: self.at, header }
    }

    /// Replaces the header.
    pub fn set_header(&mut self, h: &Header) {
        assert!(h.degree <= MAX_DEGREE);
        let b = &mut *self.bytes;
        put_u32(b, 0, h.tid.block);
        put_u16(b, 4, h.tid.offset);
        b[6] = u8::try_from(h.degree).expect("at most 32");
        b[7] = match h.state {
            State::Free => 0,
            State::Live => 1,
            State::Dead => 2,
        };
        if self.at.format == 1 {
            put_f32(b, 8, h.lead);
        } else {
            put_u16(b, 8, bf16::nearest(h.lead));
            put_u16(b, 10, bf16::nearest(h.trail));
        }
        put_f32(b, 12, h.bias);
        put_u16(b, 16, bf16::at_least(h.error));
        put_u16(b, 18, h.version);
        put_u32(b, 20, h.protected);
        put_u32(b, 24, h.tids);
        put_u16(b, 28, h.generation);
        put_u16(b, 30, h.reference);
    }

    /// Replaces the keys.
    pub fn set_keys(&mut self, keys: &[u8]) {
        self.bytes[NODE_HEADER_BYTES..self.at.vector].copy_from_slice(keys);
    }

    /// Replaces the vector, `[padded_dim]`.
    pub fn set_vector(&mut self, vector: &[i8]) {
        for (byte, &code) in self.bytes[self.at.vector..self.at.ids].iter_mut().zip(vector) {
            *byte = code.cast_unsigned();
        }
    }

    /// Writes neighbor `i`; `bits` has a bit per coded dimension and plane. The degree is the caller's to raise.
    pub fn set_edge(&mut self, i: usize, edge: &Edge, bits: &[u8]) {
        assert!(i < MAX_DEGREE);
        let b = &mut *self.bytes;
        put_u32(b, self.at.ids + 4 * i, edge.id.0);
        put_u16(b, self.at.adds + 2 * i, bf16::nearest(edge.add));
        put_u16(b, self.at.scales + 2 * i, bf16::nearest(edge.scale));
        put_u16(b, self.at.distances + 2 * i, bf16::nearest(edge.distance_squared));
        if let Some(at) = self.at.weights {
            put_u16(b, at + 2 * i, bf16::nearest(edge.weight));
        }
        for (column, &sketch) in edge.sketches.iter().enumerate().take(self.at.columns) {
            b[self.at.sketches + column * MAX_DEGREE + i] = sketch;
        }
        crate::quantize::fastscan::set_code(&mut b[self.at.codes..], i, bits);
    }

    /// Takes edge `i` out by moving the last one into its place.
    pub fn remove_edge(&mut self, i: usize) {
        let mut header = *self.as_node().header();
        let last = header.degree - 1;
        if i != last {
            let edge = self.as_node().edge(last);
            let bits = crate::quantize::fastscan::get_code(self.as_node().codes(), last);
            self.set_edge(i, &edge, &bits);
        }
        let moved = header.protected >> last & 1;
        header.protected = header.protected & !(1 << last) & !(1 << i);
        if i != last {
            header.protected |= moved << i;
        }
        header.degree = last;
        self.set_header(&header);
    }
}

fn decode_header(b: &[u8], format: u8, leaders: u16) -> Result<Header, PageError> {
    let state = match b[7] {
        0 => State::Free,
        1 => State::Live,
        2 => State::Dead,
        found => return Err(PageError::Field { field: "state", found: found.into(), low: 0, high: 2 }),
    };
    check("degree", b[6].into(), 0, MAX_DEGREE as u64)?;
    let number = |at| bf16::to_f32(get_u16(b, at));
    let (lead, trail, reference) = match format {
        1 => (get_f32(b, 8), get_f32(b, 8), 0),
        _ => (number(8), number(10), get_u16(b, 30)),
    };
    check("reference", reference.into(), 0, leaders.into())?;
    // Any bound is one, but none is negative; a negative number, or none, would be taken for a smaller one.
    let error = number(16);
    if error.is_nan() || error.is_sign_negative() {
        return Err(PageError::NotFinite { field: "error" });
    }
    Ok(Header {
        tid: HeapTid { block: get_u32(b, 0), offset: get_u16(b, 4) },
        degree: b[6].into(),
        state,
        lead,
        trail,
        bias: get_f32(b, 12),
        error,
        version: get_u16(b, 18),
        protected: get_u32(b, 20),
        tids: get_u32(b, 24),
        generation: get_u16(b, 28),
        reference,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(degree: usize) -> Header {
        Header {
            tid: HeapTid { block: 70_000, offset: 3 },
            degree,
            state: State::Live,
            lead: 0.25,
            trail: 0.125,
            bias: 17.5,
            error: 0.5,
            version: 9,
            protected: 0b101,
            tids: 129,
            generation: 2,
            reference: 7,
        }
    }

    fn edge(i: usize) -> Edge {
        let x = f32::from(u8::try_from(i).unwrap());
        Edge {
            id: NodeId(1000 + u32::try_from(i).unwrap()),
            add: -x,
            scale: x + 1.0,
            distance_squared: 2.0 * x,
            weight: 1.0,
            sketches: Sketches::default(),
        }
    }

    fn bits(g: &Geometry, i: usize) -> Vec<u8> {
        (0..g.code_bytes()).map(|j| ((i * 37 + j * 11) % 256) as u8).collect()
    }

    #[test]
    fn nodes_round_trip_side_by_side() {
        for dim in [3, 128, 192, 256, 512, 784, 4000] {
            let g = Geometry::new(dim).unwrap().with_leaders(7);
            let mut page = empty_page(&g);
            for slot in 0..g.slots() {
                let vector: Vec<i8> =
                    (0..g.padded_dim()).map(|i| ((i * 7 + slot) % 255) as u8 as i8).collect();
                let mut node = NodeMut::open(&mut page, &g, slot).unwrap();
                node.set_header(&Header { version: u16::try_from(slot).unwrap(), ..header(MAX_DEGREE) });
                node.set_vector(&vector);
                for i in 0..MAX_DEGREE {
                    node.set_edge(i, &edge(i), &bits(&g, i + slot));
                }
            }
            for slot in 0..g.slots() {
                let node = Node::read(&page, &g, slot).unwrap();
                assert_eq!(node.header(), &Header { version: slot as u16, ..header(MAX_DEGREE) });
                assert_eq!(node.vector()[1], ((7 + slot) % 255) as u8 as i8);
                assert_eq!(node.ids().len(), MAX_DEGREE);
                for i in 0..MAX_DEGREE {
                    assert_eq!(node.edge(i), edge(i));
                    let code = crate::quantize::fastscan::get_code(node.codes(), i);
                    assert_eq!(code, bits(&g, i + slot), "{dim} dimensions, edge {i}");
                }
            }
        }
    }

    #[test]
    fn removing_an_edge_keeps_the_others() {
        let g = Geometry::new(64).unwrap().with_leaders(7);
        let mut page = empty_page(&g);
        let mut node = NodeMut::open(&mut page, &g, 2).unwrap();
        node.set_header(&Header { protected: 0b1001, ..header(4) });
        for i in 0..4 {
            node.set_edge(i, &edge(i), &bits(&g, i));
        }
        node.remove_edge(1);
        let ids: Vec<u32> = node.as_node().ids().map(|id| id.0).collect();
        assert_eq!(ids, [1000, 1003, 1002]);
        assert_eq!(node.as_node().header().protected, 0b011, "protection moves with its edge");
        assert_eq!(crate::quantize::fastscan::get_code(node.as_node().codes(), 1), bits(&g, 3));
        node.remove_edge(2);
        node.remove_edge(0);
        assert_eq!(node.as_node().ids().collect::<Vec<_>>(), [NodeId(1003)]);
        assert_eq!(node.as_node().header().protected, 1);
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 400), slot in 0usize..12) {
            let g = Geometry::new(64).unwrap().with_leaders(7);
            let mut page = empty_page(&g);
            page[slot * g.node_bytes()..][..400].copy_from_slice(&bytes);
            if let Ok(node) = Node::read(&page, &g, slot) {
                prop_assert!(node.ids().len() <= MAX_DEGREE);
                let _ = (node.factors(), node.vector(), node.codes());
            }
        }
    }
}
