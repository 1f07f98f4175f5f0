//! Entry pages: a chain of sampled nodes with codes, from which a search starts.
//!
//! | offset | width | type | field |
//! |---|---|---|---|
//! | 0 | 4 | u32 | next entry page, 0 if this is the last |
//! | 4 | 2 | u16 | entries on this page, holes included |
//! | 6 | 2 | - | 0 |
//! | 8 | B each | | blocks of 32 entries |
//!
//! A block, with C = code dim, p = planes, K = key columns, W = 64 for inner product and else 0, and
//! B = 320 + W + 32 K + 4 p C:
//!
//! | offset | width | type | field |
//! |---|---|---|---|
//! | 0 | 32 * 4 | u32 | node ids; all ones is a hole |
//! | 128 | 32 * 2 | bf16 | factors: add |
//! | 192 | 32 * 2 | bf16 | factors: scale |
//! | 256 | 32 * 2 | u16 | numbers of the leaders that codes and factors are relative to |
//! | 320 | W | bf16 | norms of the rows |
//! | 320 + W | 32 K | u8 | sketches, 32 for each of K key columns |
//! | 320 + W + 32 K | 4 p C | bits | codes, one FastScan block a plane |
//!
//! Format 1 has no numbers of leaders: codes are relative to the center and follow at 256.

use super::bytes::{get_u16, get_u32, put_u16, put_u32};
use super::geometry::{ENTRY_BLOCK, ENTRY_HEADER_BYTES};
use super::{Geometry, Kind, NodeId, Page, PageError, bf16, check, expect};
use crate::filter::{KEY_BYTES, Sketches};
use crate::quantize::fastscan;

const ADDS: usize = 4 * ENTRY_BLOCK;
const SCALES: usize = ADDS + 2 * ENTRY_BLOCK;
const LEADERS: usize = SCALES + 2 * ENTRY_BLOCK;
const WEIGHTS: usize = LEADERS + 2 * ENTRY_BLOCK;

/// One sampled node, without its code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// The node, or [`NodeId::NONE`] for a hole.
    pub id: NodeId,
    /// What the estimate adds to the query's own part.
    pub add: f32,
    /// What the estimate multiplies the code sum by.
    pub scale: f32,
    /// The leader that both are relative to.
    pub leader: u16,
    /// The node's norm where vectors are stored as directions; else 1.
    pub weight: f32,
    /// What its keys are like.
    pub sketches: Sketches,
}

/// Makes `page` an entry page without entries.
pub fn init(page: &mut Page, g: &Geometry) {
    super::init(page, Kind::Entry, capacity(g), g.epoch());
}

fn capacity(g: &Geometry) -> u16 {
    u16::try_from(g.entries_per_page()).expect("a page holds fewer than 1,000")
}

fn columns(g: &Geometry) -> usize {
    g.key_bytes() / KEY_BYTES
}

/// Where sketches begin within a block.
fn sketches_at(g: &Geometry) -> usize {
    WEIGHTS + if g.is_weighted() { 2 * ENTRY_BLOCK } else { 0 }
}

/// Where codes begin within a block.
fn codes_at(g: &Geometry) -> usize {
    g.entry_block_bytes() - g.code_block_bytes()
}

fn block_start(g: &Geometry, i: usize) -> usize {
    ENTRY_HEADER_BYTES + i / ENTRY_BLOCK * g.entry_block_bytes()
}

/// Next page of the chain and number of entries on this one.
///
/// # Errors
/// [`PageError`] if it is no entry page of this geometry.
pub fn header(page: &Page, g: &Geometry) -> Result<(u32, usize), PageError> {
    expect(page, Kind::Entry, capacity(g))?;
    let count = get_u16(page, 4);
    check("entries", count.into(), 0, capacity(g).into())?;
    Ok((get_u32(page, 0), count.into()))
}

/// Links the next page.
pub fn set_next(page: &mut Page, next: u32) {
    put_u32(page, 0, next);
}

/// Entry `i`; the caller has compared `i` with the page's count.
#[must_use]
pub fn get(page: &Page, g: &Geometry, i: usize) -> Entry {
    let (start, row) = (block_start(g, i), i % ENTRY_BLOCK);
    Entry {
        id: NodeId(get_u32(page, start + 4 * row)),
        add: bf16::to_f32(get_u16(page, start + ADDS + 2 * row)),
        scale: bf16::to_f32(get_u16(page, start + SCALES + 2 * row)),
        leader: if g.format() == 1 { 0 } else { get_u16(page, start + LEADERS + 2 * row) },
        weight: if g.is_weighted() { bf16::to_f32(get_u16(page, start + WEIGHTS + 2 * row)) } else { 1.0 },
        sketches: std::array::from_fn(|column| {
            if column < columns(g) { page[start + sketches_at(g) + column * ENTRY_BLOCK + row] } else { 0 }
        }),
    }
}

/// The FastScan block that holds entry `i` and its 31 companions.
#[must_use]
pub fn codes<'a>(page: &'a Page, g: &Geometry, i: usize) -> &'a [u8] {
    &page[block_start(g, i) + codes_at(g)..block_start(g, i) + g.entry_block_bytes()]
}

/// Writes entry `i`, at most one after the last.
pub fn set(page: &mut Page, g: &Geometry, i: usize, entry: &Entry, bits: &[u8]) {
    let (start, row) = (block_start(g, i), i % ENTRY_BLOCK);
    put_u32(page, start + 4 * row, entry.id.0);
    put_u16(page, start + ADDS + 2 * row, bf16::nearest(entry.add));
    put_u16(page, start + SCALES + 2 * row, bf16::nearest(entry.scale));
    if g.format() > 1 {
        put_u16(page, start + LEADERS + 2 * row, entry.leader);
    }
    if g.is_weighted() {
        put_u16(page, start + WEIGHTS + 2 * row, bf16::nearest(entry.weight));
    }
    for (column, &sketch) in entry.sketches.iter().enumerate().take(columns(g)) {
        page[start + sketches_at(g) + column * ENTRY_BLOCK + row] = sketch;
    }
    fastscan::set_code(&mut page[start + codes_at(g)..start + g.entry_block_bytes()], row, bits);
    let count = usize::from(get_u16(page, 4)).max(i + 1);
    put_u16(page, 4, u16::try_from(count).expect("within the capacity"));
}

/// Makes entry `i` a hole.
pub fn clear(page: &mut Page, g: &Geometry, i: usize) {
    put_u32(page, block_start(g, i) + 4 * (i % ENTRY_BLOCK), NodeId::NONE.0);
}

#[cfg(test)]
mod tests {
    use super::super::PAGE_BYTES;
    use super::*;
    use crate::metric::Metric;

    #[test]
    fn entries_round_trip() {
        let metrics = [Metric::Cosine, Metric::InnerProduct];
        for (dim, metric) in
            [2, 128, 192, 256, 512, 4000].into_iter().flat_map(|dim| metrics.map(|m| (dim, m)))
        {
            let g = Geometry::new(dim).unwrap().with_columns(&[crate::filter::Kind::Ordered; 2]);
            let g = g.for_metric(metric);
            let mut page = [0; PAGE_BYTES];
            init(&mut page, &g);
            set_next(&mut page, 12);
            let n = g.entries_per_page();
            let bits = |i: usize| vec![(i * 31 % 256) as u8; g.code_bytes()];
            let sketches = |i: usize| {
                let mut sketches = Sketches::default();
                sketches[..2].copy_from_slice(&[(i % 256) as u8, (i / 3 % 256) as u8]);
                sketches
            };
            let entry = |i: usize| {
                let (id, leader) = (NodeId(u32::try_from(i).unwrap() * 3), i as u16 % 7);
                let weight = if g.is_weighted() { 1.0 + (i % 4) as f32 } else { 1.0 };
                Entry { id, add: i as f32, scale: 0.5, leader, weight, sketches: sketches(i) }
            };
            for i in 0..n {
                set(&mut page, &g, i, &entry(i), &bits(i));
            }
            assert_eq!(header(&page, &g), Ok((12, n)));
            clear(&mut page, &g, 5);
            for i in 0..n {
                let wanted = if i == 5 { NodeId::NONE } else { entry(i).id };
                assert_eq!(get(&page, &g, i).id, wanted);
                assert_eq!(get(&page, &g, i).leader, entry(i).leader);
                assert_eq!(get(&page, &g, i).weight, entry(i).weight);
                assert_eq!(get(&page, &g, i).sketches, entry(i).sketches);
                assert!((get(&page, &g, i).add - entry(i).add).abs() <= entry(i).add / 256.0);
                assert_eq!(fastscan::get_code(codes(&page, &g, i), i % ENTRY_BLOCK), bits(i));
            }
        }
    }

    #[test]
    fn counts_beyond_the_page_are_refused() {
        let g = Geometry::new(512).unwrap();
        let mut page = [0; PAGE_BYTES];
        init(&mut page, &g);
        put_u16(&mut page, 4, u16::MAX);
        assert!(matches!(header(&page, &g), Err(PageError::Field { field: "entries", .. })));
    }
}
