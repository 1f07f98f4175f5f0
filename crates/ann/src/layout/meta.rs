//! The metapage, block 0: everything that a search must know before it reads a node.
//!
//! | offset | width | type | field |
//! |---|---|---|---|
//! | 0 | 4 | u32 | magic, `MAGIC` |
//! | 4 | 2 | u16 | format version |
//! | 6 | 1 | u8 | metric: 1 cosine, 2 L2, 3 inner product |
//! | 7 | 1 | u8 | nodes per page |
//! | 8 | 2 | u16 | dim |
//! | 10 | 2 | u16 | padded dim |
//! | 12 | 2 | u16 | code dim |
//! | 14 | 2 | u16 | max degree, 32 |
//! | 16 | 8 | u64 | seed of the rotation |
//! | 24 | 4 | u32 | first entry page, 0 if none |
//! | 28 | 4 | u32 | last entry page, 0 if none |
//! | 32 | 4 | u32 | entries ever appended, holes included |
//! | 36 | 4 | u32 | generation of the entry table; a cached copy of another generation is stale |
//! | 40 | 4 | u32 | first tid page with a free cell, 0 if none |
//! | 44 | 4 | u32 | rows when the index was built |
//! | 48 | 4 * 2 | u16 | lookahead for each of `calibrate::TARGETS`; 0 if not measured |
//! | 56 | 4 | u32 | first page of the reflections of the basis, 0 if none |
//! | 60 | 2 | u16 | reflections |
//! | 62 | 1 | u8 | planes: bits of a code for each dimension |
//! | 63 | 1 | u8 | lead dim / 64 |
//! | 64 | 4 | u32 | first page of leaders, 0 if none |
//! | 68 | 2 | u16 | leaders, the center not among them |
//! | 70 | 2 | u16 | epoch of the pages, see `graph/train.rs` |
//! | 72 | 2 | u16 | epoch that was begun last: where it differs, a training did not end |
//! | 74 | 1 | u8 | key columns |
//! | 75 | 1 | u8 | bit i: keys of column i are signatures |
//! | 76 | 4 | u32 | first of as many pages with bounds of the columns as there are columns, 0 if none |
//! | 80 | 2 | u16 | recall last measured, in 1/10,000, plus 1; 0 if never |
//! | 82 | 2 | u16 | nearest rows that each of its queries asked for |
//! | 84 | 4 | u32 | when: seconds since 1970 |
//! | 88 | 8 | - | 0 |
//! | 96 | 2 each | bf16 | center in the basis of the index, padded dim elements |
//!
//! Format 1 has zeros at 56 to 63 and the center at 64: one plane, no reflections, no leaders, no recall.

use super::bytes::{get_u16, get_u32, get_u64, put_u16, put_u32, put_u64};
use super::geometry::{DIM_STEP, Stated};
use super::{FORMAT_VERSION, Geometry, Kind, MAX_DEGREE, Page, PageError, bf16, check, expect, init};
use crate::graph::calibrate::Calibration;
use crate::metric::Metric;

/// "ann1" in a little-endian dump.
pub const MAGIC: u32 = u32::from_le_bytes(*b"ann1");
const CALIBRATION: usize = 48;
const REFLECTIONS: usize = 56;
const LEADERS: usize = 64;
const EPOCH: usize = 70;
const COLUMNS: usize = 74;
const RECALL: usize = 80;
const CENTER: usize = 96;
const CENTER_1: usize = 64;
const _: () = assert!(CALIBRATION + size_of::<Calibration>() <= REFLECTIONS);
const _: () = assert!(CENTER + 2 * super::MAX_DIM.next_multiple_of(64) <= super::BODY_BYTES);

/// Parts of a recall of 1 that the metapage counts.
const RECALL_PARTS: u16 = 10_000;

/// A recall that was measured, as the metapage keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredRecall {
    /// In 1/10,000, at most 10,000.
    parts: u16,
    /// Nearest rows that each query asked for.
    pub k: u16,
    /// When it was measured, in seconds since 1970.
    pub at: u32,
}

impl MeasuredRecall {
    /// A recall from 0 to 1, rounded to what the page can hold.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    pub fn new(recall: f64, k: u16, at: u32) -> Self {
        let parts = (recall.clamp(0.0, 1.0) * f64::from(RECALL_PARTS)).round() as u16;
        Self { parts, k, at }
    }

    /// The recall, from 0 to 1.
    #[must_use]
    pub fn recall(self) -> f64 {
        f64::from(self.parts) / f64::from(RECALL_PARTS)
    }
}

/// The metapage, decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Meta {
    /// What distance means in this index.
    pub metric: Metric,
    /// Sizes of the other pages.
    pub geometry: Geometry,
    /// Seed of the rotation.
    pub seed: u64,
    /// First entry page, 0 if none.
    pub entry_first: u32,
    /// Last entry page, 0 if none.
    pub entry_last: u32,
    /// Entries ever appended, holes included.
    pub entry_count: u32,
    /// Changes with every change of the entry table.
    pub entry_generation: u32,
    /// First tid page with a free cell, 0 if none.
    pub tids_free: u32,
    /// Rows when the index was built.
    pub built_rows: u32,
    /// Lookahead of searches; zeros if it was not measured.
    pub calibration: Calibration,
    /// First page of the reflections of the basis, 0 if none.
    pub reflections_first: u32,
    /// How many there are.
    pub reflections: u16,
    /// First page of leaders, 0 if none.
    pub leaders_first: u32,
    /// The epoch that was begun last.
    pub epoch_begun: u16,
    /// First page of the bounds of the key columns, 0 if none.
    pub bounds_first: u32,
    /// The recall that was measured last. Format 1 has no place for it.
    pub recall: Option<MeasuredRecall>,
    /// Subtracted from every rotated vector before it is quantized; `[padded_dim]`, bf16 values.
    pub center: Vec<f32>,
}

/// Where the center begins.
fn center_at(format: u8) -> usize {
    if format == 1 { CENTER_1 } else { CENTER }
}

/// The format version that a metapage tells.
#[must_use]
pub fn version(page: &Page) -> u16 {
    get_u16(page, 4)
}

impl Meta {
    /// The metapage of an index without rows. The center is rounded to what the page can hold.
    #[must_use]
    pub fn new(metric: Metric, geometry: Geometry, seed: u64, center: &[f32]) -> Self {
        assert_eq!(center.len(), geometry.padded_dim());
        Self {
            metric,
            geometry: geometry.for_metric(metric),
            seed,
            entry_first: 0,
            entry_last: 0,
            entry_count: 0,
            entry_generation: 0,
            tids_free: 0,
            built_rows: 0,
            calibration: Calibration::default(),
            reflections_first: 0,
            reflections: 0,
            leaders_first: 0,
            epoch_begun: geometry.epoch(),
            bounds_first: 0,
            recall: None,
            center: center.iter().map(|&x| bf16::to_f32(bf16::nearest(x))).collect(),
        }
    }

    /// Writes the page.
    pub fn encode(&self, page: &mut Page) {
        let g = &self.geometry;
        let small = |n: usize| u16::try_from(n).expect("a geometry's sizes fit 16 bits");
        init(page, Kind::Meta, 0, 0);
        put_u32(page, 0, MAGIC);
        put_u16(page, 4, g.format().into());
        page[6] = self.metric.code();
        page[7] = u8::try_from(g.slots()).expect("at most 16");
        put_u16(page, 8, small(g.dim()));
        put_u16(page, 10, small(g.padded_dim()));
        put_u16(page, 12, small(g.code_dim()));
        put_u16(page, 14, small(MAX_DEGREE));
        put_u64(page, 16, self.seed);
        self.encode_links(page);
        if g.format() > 1 {
            put_u32(page, REFLECTIONS, self.reflections_first);
            put_u16(page, REFLECTIONS + 4, self.reflections);
            page[REFLECTIONS + 6] = u8::try_from(g.planes()).expect("one or two");
            page[REFLECTIONS + 7] = u8::try_from(g.lead_dim() / DIM_STEP).expect("at most 63");
            put_u32(page, LEADERS, self.leaders_first);
            put_u16(page, LEADERS + 4, g.leaders());
            put_u16(page, EPOCH, g.epoch());
            put_u16(page, EPOCH + 2, self.epoch_begun);
            (page[COLUMNS], page[COLUMNS + 1]) = g.stated_columns();
            put_u32(page, COLUMNS + 2, self.bounds_first);
        }
        for (i, &x) in self.center.iter().enumerate() {
            put_u16(page, center_at(g.format()) + 2 * i, bf16::nearest(x));
        }
    }

    /// Writes the fields that change after the build into a page that holds the others.
    pub fn encode_links(&self, page: &mut Page) {
        for (at, value) in [
            (24, self.entry_first),
            (28, self.entry_last),
            (32, self.entry_count),
            (36, self.entry_generation),
            (40, self.tids_free),
            (44, self.built_rows),
        ] {
            put_u32(page, at, value);
        }
        for (i, &lookahead) in self.calibration.iter().enumerate() {
            put_u16(page, CALIBRATION + 2 * i, lookahead);
        }
        if self.geometry.format() > 1 {
            put_u16(page, RECALL, self.recall.map_or(0, |measured| measured.parts + 1));
            put_u16(page, RECALL + 2, self.recall.map_or(0, |measured| measured.k));
            put_u32(page, RECALL + 4, self.recall.map_or(0, |measured| measured.at));
        }
    }

    /// Reads the page.
    ///
    /// # Errors
    /// [`PageError`] if it is no metapage, or one whose geometry this release would not have chosen.
    pub fn decode(page: &Page) -> Result<Self, PageError> {
        expect(page, Kind::Meta, 0)?;
        let magic = get_u32(page, 0);
        if magic != MAGIC {
            return Err(PageError::Magic { found: magic });
        }
        check("version", get_u16(page, 4).into(), 1, FORMAT_VERSION.into())?;
        let format = if get_u16(page, 4) == 1 { 1 } else { FORMAT_VERSION };
        let metric = Metric::from_code(page[6]).ok_or(PageError::Field {
            field: "metric",
            found: page[6].into(),
            low: 1,
            high: 3,
        })?;
        let (padded_dim, first) = (get_u16(page, 10), format == 1);
        let geometry = Geometry::checked(&Stated {
            format,
            dim: get_u16(page, 8),
            padded_dim,
            lead_dim: if first { padded_dim } else { u16::from(page[REFLECTIONS + 7]) * DIM_STEP as u16 },
            code_dim: get_u16(page, 12),
            planes: if first { 1 } else { page[REFLECTIONS + 6] },
            slots: page[7],
            leaders: if first { 0 } else { get_u16(page, LEADERS + 4) },
            epoch: if first { 0 } else { get_u16(page, EPOCH) },
            columns: if first { 0 } else { page[COLUMNS] },
            signatures: if first { 0 } else { page[COLUMNS + 1] },
            is_weighted: metric == Metric::InnerProduct && !first,
        })?;
        check("max_degree", get_u16(page, 14).into(), MAX_DEGREE as u64, MAX_DEGREE as u64)?;
        let center: Vec<f32> = (0..geometry.padded_dim())
            .map(|i| bf16::to_f32(get_u16(page, center_at(format) + 2 * i)))
            .collect();
        if center.iter().any(|x| !x.is_finite()) {
            return Err(PageError::NotFinite { field: "center" });
        }
        let later = |at| if first { 0 } else { get_u32(page, at) };
        let count = |at| if first { 0 } else { get_u16(page, at) };
        check("reflections", count(REFLECTIONS + 4).into(), 0, padded_dim.into())?;
        check("recall", count(RECALL).into(), 0, u64::from(RECALL_PARTS) + 1)?;
        let recall = count(RECALL).checked_sub(1).map(|parts| MeasuredRecall {
            parts,
            k: count(RECALL + 2),
            at: later(RECALL + 4),
        });
        Ok(Self {
            metric,
            geometry,
            seed: get_u64(page, 16),
            entry_first: get_u32(page, 24),
            entry_last: get_u32(page, 28),
            entry_count: get_u32(page, 32),
            entry_generation: get_u32(page, 36),
            tids_free: get_u32(page, 40),
            built_rows: get_u32(page, 44),
            calibration: std::array::from_fn(|i| get_u16(page, CALIBRATION + 2 * i)),
            reflections_first: later(REFLECTIONS),
            reflections: count(REFLECTIONS + 4),
            leaders_first: later(LEADERS),
            epoch_begun: count(EPOCH + 2),
            bounds_first: later(COLUMNS + 2),
            recall,
            center,
        })
    }

    /// What decides whether a cached copy is still of use, without the center and all else.
    ///
    /// # Errors
    /// [`PageError`] if it is no metapage.
    pub fn stamp(page: &Page) -> Result<Stamp, PageError> {
        expect(page, Kind::Meta, 0)?;
        Ok(Stamp {
            seed: get_u64(page, 16),
            built_rows: get_u32(page, 44),
            entry_count: get_u32(page, 32),
            entry_generation: get_u32(page, 36),
            epoch: if version(page) == 1 { 0 } else { get_u16(page, EPOCH) },
        })
    }
}

/// What tells one index from another that was built in its place, and one entry table from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    seed: u64,
    built_rows: u32,
    entry_count: u32,
    entry_generation: u32,
    epoch: u16,
}

/// What happened to an entry table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EntryChanges {
    /// Entries that were appended.
    pub appended: u32,
    /// Entries that others took the place of, or that were taken away.
    pub replaced: u32,
}

impl Stamp {
    /// Of decoded metadata.
    #[must_use]
    pub fn of(meta: &Meta) -> Self {
        Self {
            seed: meta.seed,
            built_rows: meta.built_rows,
            entry_count: meta.entry_count,
            entry_generation: meta.entry_generation,
            epoch: meta.geometry.epoch(),
        }
    }

    /// Changes of the entry table since an earlier stamp; `None` if the index was rebuilt.
    #[must_use]
    pub fn changes_since(self, earlier: Self) -> Option<EntryChanges> {
        let (own, other) =
            ((self.seed, self.built_rows, self.epoch), (earlier.seed, earlier.built_rows, earlier.epoch));
        if own != other {
            return None;
        }
        // The table never becomes shorter.
        let appended = self.entry_count.checked_sub(earlier.entry_count)?;
        let all = self.entry_generation.wrapping_sub(earlier.entry_generation);
        Some(EntryChanges { appended, replaced: all.saturating_sub(appended) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::Kind;
    use proptest::prelude::*;

    fn example(dim: usize) -> Meta {
        let geometry = Geometry::new(dim)
            .unwrap()
            .with_columns(&[Kind::Ordered, Kind::Signature])
            .for_metric(Metric::InnerProduct)
            .with_leaders(255)
            .in_epoch(3);
        let center: Vec<f32> = (0..geometry.padded_dim()).map(|i| (i as f32).sin()).collect();
        let mut meta = Meta::new(Metric::InnerProduct, geometry, 0x1234_5678_9ABC_DEF0, &center);
        (meta.entry_first, meta.entry_last, meta.entry_count) = (1, 9, 1024);
        (meta.entry_generation, meta.tids_free, meta.built_rows) = (3, 77, 50_000);
        meta.calibration = [20, 40, 100, 65_535];
        (meta.reflections_first, meta.reflections) = (17, 40);
        (meta.leaders_first, meta.epoch_begun, meta.bounds_first) = (19, 4, 21);
        meta.recall = Some(MeasuredRecall::new(0.9871, 10, 1_800_000_000));
        meta
    }

    #[test]
    fn round_trips() {
        for dim in [1, 64, 512, 784, 4000] {
            let (meta, mut page) = (example(dim), [0; super::super::PAGE_BYTES]);
            meta.encode(&mut page);
            assert_eq!(Meta::decode(&page).unwrap(), meta);
            assert_eq!(Meta::stamp(&page), Ok(Stamp::of(&meta)));
        }
    }

    #[test]
    fn a_recall_is_kept_within_a_ten_thousandth() {
        for recall in [0.0, 0.00004, 0.5, 0.98765, 1.0] {
            let mut page = [0; super::super::PAGE_BYTES];
            let mut meta = example(64);
            meta.recall = Some(MeasuredRecall::new(recall, 1000, u32::MAX));
            meta.encode(&mut page);
            let read = Meta::decode(&page).unwrap().recall.unwrap();
            assert!((read.recall() - recall).abs() <= 0.5001 / f64::from(RECALL_PARTS), "{recall}: {read:?}");
            assert_eq!((read.k, read.at), (1000, u32::MAX));
            meta.recall = None;
            meta.encode_links(&mut page);
            assert_eq!(Meta::decode(&page).unwrap().recall, None);
        }
    }

    proptest! {
        #[test]
        fn damaged_bytes_never_panic(at in 0usize..96, value: u8) {
            let mut page = [0; super::super::PAGE_BYTES];
            example(512).encode(&mut page);
            page[at] = value;
            // Other widths than this release would choose are read, if they fit a page.
            if let Ok(meta) = Meta::decode(&page) {
                let g = meta.geometry;
                prop_assert_eq!(g.padded_dim(), 512);
                prop_assert!(g.slots() * g.node_bytes() <= super::super::BODY_BYTES);
            }
        }
    }
}
