//! The sizes of the parts of a page: computed from the dimension and, if there is a sample of the rows, from the distribution of their
//! variance.
//!
//! A node never spans pages, so the width of its neighbor codes is chosen to fill the pages. The estimate of an
//! inner product from a code of C dimensions has an error with a variance of about
//!
//! ```text
//! (1 / S - 1)^2 A + B + e / C
//! ```
//!
//! times the squared norms. S is the share of the variance in the coded dimensions. A and B are the sums of the squared
//! shares of the directions that are coded and that are not. e is .571 with one bit and .133 with two (Max 1960). If the
//! leading directions of the rows come first, S is large for a small C.
//!
//! *Without a sample*, all dimensions are equally good. They get one bit each. The page has the most nodes whose codes still cover
//! 11/16 of the dimensions, at least 96 (or all) and at most `max(256, dim / 3)`, and then the widest codes for that number of nodes.
//! *With a sample*, there are two bits for leading directions or one for all, whichever has the smaller error. The page has the most nodes
//! for which that error is half of the variance of an index without a sample, and at least as many nodes as there.

use super::{BODY_BYTES, BlockNumber, FORMAT_VERSION, MAX_DEGREE, NodeId, PageError, check};
use crate::filter::{KEY_BYTES, Kind, MAX_COLUMNS};
use crate::metric::Metric;
use crate::quantize::principal::Spectrum;

/// The largest dimension of an indexed vector; one more would leave too little of the page to codes.
pub const MAX_DIM: usize = 4000;
/// Codes cover at most this many dimensions: sums of 256 one-byte table entries fit 16 bits.
pub const MAX_CODE_DIM: usize = 1024;
/// Dimensions are padded in these steps: a 64-byte register of 8-bit elements.
pub const DIM_STEP: usize = 64;
/// Codes of fewer dimensions than [`FINE_CODE_DIM`] are sized in these steps: a byte of a code, 32 bytes of a
/// FastScan block. The last step of the AVX-512 kernel is a half one then, which costs less than what steps
/// of 16 would leave unused: with 104 of 128 dimensions instead of 96 an estimate's variance is a seventh less.
pub const CODE_STEP: usize = 8;
/// From here on codes are sized in steps of [`DIM_STEP`].
pub const FINE_CODE_DIM: usize = 256;
/// Bytes of a node before its vector.
pub const NODE_HEADER_BYTES: usize = 32;
/// Bytes of an edge besides its code: id, two factors, distance.
pub const EDGE_BYTES: usize = 4 + 2 + 2 + 2;
/// Entries that share one FastScan block.
pub const ENTRY_BLOCK: usize = 32;
/// Directions that a basis brings to the front at most: each costs a reflection of every vector.
pub const MAX_DIRECTIONS: usize = 256;
/// Bytes of an entry page before its blocks.
pub const ENTRY_HEADER_BYTES: usize = 8;

/// Sizes of an index for vectors of one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    format: u8,
    dim: usize,
    padded_dim: usize,
    lead_dim: usize,
    code_dim: usize,
    planes: usize,
    slots: usize,
    leaders: u16,
    epoch: u16,
    columns: u8,
    /// Bit i: the keys of column i are signatures.
    signatures: u8,
    /// Whether vectors are stored as directions, and links tell the norms: inner product, from format 2 on.
    is_weighted: bool,
}

/// What a metapage says of its geometry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stated {
    pub format: u8,
    pub dim: u16,
    pub padded_dim: u16,
    pub lead_dim: u16,
    pub code_dim: u16,
    pub planes: u8,
    pub slots: u8,
    pub leaders: u16,
    pub epoch: u16,
    pub columns: u8,
    pub signatures: u8,
    pub is_weighted: bool,
}

/// A dimension that cannot be indexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// There is nothing to compare.
    #[error("cannot index a vector of 0 dimensions")]
    Empty,
    /// A node would not fit a page.
    #[error("cannot index vectors of {dim} dimensions, the limit is {MAX_DIM}")]
    TooManyDimensions {
        /// The dimension asked for.
        dim: usize,
    },
}

impl Geometry {
    /// The geometry of vectors with `dim` elements.
    ///
    /// # Errors
    /// [`GeometryError`] unless `1 <= dim <= MAX_DIM`.
    pub fn new(dim: usize) -> Result<Self, GeometryError> {
        Self::of(dim, 0, false)
    }

    /// As [`Geometry::new`], with so many key columns, and with norms of neighbors.
    fn of(dim: usize, columns: u8, is_weighted: bool) -> Result<Self, GeometryError> {
        match dim {
            0 => return Err(GeometryError::Empty),
            1..=MAX_DIM => {}
            _ => return Err(GeometryError::TooManyDimensions { dim }),
        }
        let padded_dim = dim.next_multiple_of(DIM_STEP);
        let widest = padded_dim.min(MAX_CODE_DIM);
        let wanted = (padded_dim * 11 / 16).max(96).min(256.max(dim / 3)).min(widest);
        let (slots, code_dim) = (1..=16)
            .rev()
            .filter_map(|slots| Some((slots, fitting(padded_dim, columns, is_weighted, slots, 1)?)))
            .find(|&(slots, code_dim)| code_dim >= wanted || slots == 1)
            .expect("one node fits a page at MAX_DIM");
        let format = FORMAT_VERSION;
        Ok(Self {
            format,
            dim,
            padded_dim,
            lead_dim: padded_dim,
            code_dim,
            planes: 1,
            slots,
            leaders: 0,
            epoch: 0,
            columns,
            signatures: 0,
            is_weighted,
        })
    }

    /// The same dimension with key columns, eight at most.
    #[must_use]
    pub fn with_columns(self, kinds: &[Kind]) -> Self {
        assert!(kinds.len() <= MAX_COLUMNS);
        let columns = u8::try_from(kinds.len()).expect("a few");
        let signatures = (0..8).zip(kinds).filter(|(_, kind)| **kind == Kind::Signature);
        let signatures = signatures.fold(0, |all, (i, _)| all | 1 << i);
        let of = Self::of(self.dim, columns, self.is_weighted).expect("there is room for keys at MAX_DIM");
        Self { signatures, ..of }
    }

    /// The same for an index over a metric: inner product wants the norms of neighbors.
    #[must_use]
    pub fn for_metric(self, metric: Metric) -> Self {
        let is_weighted = metric == Metric::InnerProduct && self.format > 1;
        if is_weighted == self.is_weighted {
            return self;
        }
        let of = Self::of(self.dim, self.columns, is_weighted).expect("there is room for norms at MAX_DIM");
        Self {
            signatures: self.signatures,
            format: self.format,
            epoch: self.epoch,
            leaders: self.leaders,
            ..of
        }
    }

    /// Whether vectors are stored as directions, and links tell the norms of neighbors.
    #[must_use]
    pub fn is_weighted(&self) -> bool {
        self.is_weighted
    }

    /// What the keys of each column are.
    #[must_use]
    pub fn columns(&self) -> Vec<Kind> {
        let kind = |i| if self.signatures >> i & 1 == 1 { Kind::Signature } else { Kind::Ordered };
        (0..self.columns).map(kind).collect()
    }

    /// Number of columns, and a bit for each whose keys are signatures.
    pub(crate) fn stated_columns(&self) -> (u8, u8) {
        (self.columns, self.signatures)
    }

    /// Bytes of a row's keys.
    #[must_use]
    pub fn key_bytes(&self) -> usize {
        KEY_BYTES * usize::from(self.columns)
    }

    /// The same dimension, with codes that fit the data.
    #[must_use]
    pub fn for_data(self, spectrum: &Spectrum) -> Self {
        let most_directions = MAX_DIRECTIONS.min(spectrum.leading.len());
        let without = variance(&Spectrum { leading: Vec::new(), ..*spectrum }, self.code_dim, 1);
        let best = |slots: usize| {
            let fitting = |planes| fitting(self.padded_dim, self.columns, self.is_weighted, slots, planes);
            let two = fitting(2).map(|width| (width.min(most_directions), 2));
            let leading = fitting(1).map(|width| (width.min(most_directions), 1));
            let any = fitting(1).map(|width| (width, 0));
            let all = fitting(2).filter(|&width| width == self.padded_dim).map(|w| (w, 2));
            let sized = |(width, planes): (usize, usize)| {
                let code_dim = width / CODE_STEP * CODE_STEP;
                // Codes of any direction are made of rotated vectors without directions to the front.
                let flat = Spectrum { leading: Vec::new(), ..*spectrum };
                let variance = match planes {
                    0 => variance(&flat, code_dim, 1),
                    planes => variance(spectrum, code_dim, planes),
                };
                (code_dim > 0).then_some((variance, code_dim, planes.max(1)))
            };
            let choices = [two, leading, any, all].into_iter().flatten().filter_map(sized);
            choices.min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let fits = |slots: usize| Some((slots, best(slots)?));
        // Products of long rows magnify what estimates err by: there exact codes are worth some nodes a page.
        let fewest = if self.is_weighted { self.slots.div_ceil(2) } else { self.slots };
        let good =
            (fewest..=16).rev().filter_map(fits).find(|(_, (variance, ..))| *variance <= without / 2.0);
        let Some((slots, (_, code_dim, planes))) = good.or_else(|| fits(self.slots)) else { return self };
        // The leading elements are the large ones: they and the others have a scale each.
        let lead_dim = code_dim.next_multiple_of(DIM_STEP).min(self.padded_dim);
        Self { lead_dim, code_dim, planes, slots, ..self }
    }

    /// The geometry that the metapage names: one that fits the page, not only what this release would choose, as
    /// an earlier one chose other widths.
    pub(crate) fn checked(stated: &Stated) -> Result<Self, PageError> {
        let Stated {
            format,
            dim,
            padded_dim,
            lead_dim,
            code_dim,
            planes,
            slots,
            leaders,
            epoch,
            columns,
            signatures,
            is_weighted,
        } = *stated;
        check("dim", dim.into(), 1, MAX_DIM as u64)?;
        check("key columns", columns.into(), 0, MAX_COLUMNS as u64)?;
        check("signatures", u64::from(signatures) >> columns, 0, 0)?;
        let usual = Self::of(dim.into(), columns, is_weighted).expect("checked above");
        check("padded_dim", padded_dim.into(), usual.padded_dim as u64, usual.padded_dim as u64)?;
        let widest = usual.padded_dim.min(MAX_CODE_DIM);
        check("code_dim", code_dim.into(), CODE_STEP as u64, widest as u64)?;
        check("code_dim % 8", u64::from(code_dim) % CODE_STEP as u64, 0, 0)?;
        check("lead_dim", lead_dim.into(), DIM_STEP as u64, usual.padded_dim as u64)?;
        check("lead_dim % 64", u64::from(lead_dim) % DIM_STEP as u64, 0, 0)?;
        check("planes", planes.into(), 1, 2)?;
        let (lead_dim, code_dim, planes) = (lead_dim.into(), code_dim.into(), planes.into());
        let geometry = Self {
            format,
            lead_dim,
            code_dim,
            planes,
            slots: slots.into(),
            leaders,
            epoch,
            signatures,
            ..usual
        };
        let most = (BODY_BYTES.checked_div(geometry.node_bytes()).unwrap_or(0)) as u64;
        check("slots", slots.into(), 1, most)?;
        Ok(geometry)
    }

    /// The format version of the pages.
    #[must_use]
    pub fn format(&self) -> u8 {
        self.format
    }

    /// The same in format 1, which indexes of release 0.1 have: what tests of reading them are made with.
    #[must_use]
    pub fn in_format_1(self) -> Self {
        let of = Self::of(self.dim, self.columns, false).expect("the index has them");
        Self { format: 1, planes: 1, leaders: 0, epoch: self.epoch, signatures: self.signatures, ..of }
    }

    /// The same with one scale for all elements of a vector.
    #[must_use]
    pub fn with_one_scale(self) -> Self {
        Self { lead_dim: self.padded_dim, ..self }
    }

    /// The same with so many leaders beside the center, which vectors may be relative to.
    #[must_use]
    pub fn with_leaders(self, leaders: u16) -> Self {
        Self { leaders, ..self }
    }

    /// The same in another epoch.
    #[must_use]
    pub fn in_epoch(self, epoch: u16) -> Self {
        Self { epoch, ..self }
    }

    /// What the opaque area of the index's pages says: others are of an earlier life of the index.
    #[must_use]
    pub fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Leaders, the center not among them.
    #[must_use]
    pub fn leaders(&self) -> u16 {
        self.leaders
    }

    /// Elements of a vector as the user sees it.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Elements of a rotated vector: `dim` rounded up to 64.
    #[must_use]
    pub fn padded_dim(&self) -> usize {
        self.padded_dim
    }

    /// Leading elements that share a scale, a multiple of 64; the others have another one.
    #[must_use]
    pub fn lead_dim(&self) -> usize {
        self.lead_dim
    }

    /// Bits of a code for each dimension that it covers, one or two.
    #[must_use]
    pub fn planes(&self) -> usize {
        self.planes
    }

    /// Bytes of a code.
    #[must_use]
    pub fn code_bytes(&self) -> usize {
        self.planes * self.code_dim / 8
    }

    /// Leading rotated dimensions that neighbor codes cover, a multiple of 8.
    #[must_use]
    pub fn code_dim(&self) -> usize {
        self.code_dim
    }

    /// Nodes per page.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes of a FastScan block of 32 codes.
    #[must_use]
    pub fn code_block_bytes(&self) -> usize {
        MAX_DEGREE * self.code_bytes()
    }

    /// Bytes of a node.
    #[must_use]
    pub fn node_bytes(&self) -> usize {
        fixed_bytes(self.padded_dim, self.columns, self.is_weighted) + self.code_block_bytes()
    }

    /// Bytes of 32 entries of the entry table: ids, two factors each, numbers of leaders, norms, sketches, codes.
    #[must_use]
    pub fn entry_block_bytes(&self) -> usize {
        let own = if self.format == 1 {
            8
        } else {
            10 + weight_bytes(self.is_weighted) + usize::from(self.columns)
        };
        ENTRY_BLOCK * own + self.code_block_bytes()
    }

    /// Entries per page of the entry table.
    #[must_use]
    pub fn entries_per_page(&self) -> usize {
        (BODY_BYTES - ENTRY_HEADER_BYTES) / self.entry_block_bytes() * ENTRY_BLOCK
    }

    /// Page of a node.
    #[must_use]
    pub fn block_of(&self, id: NodeId) -> BlockNumber {
        BlockNumber(id.0 / self.slots_u32())
    }

    /// Place of a node within its page.
    #[must_use]
    pub fn slot_of(&self, id: NodeId) -> usize {
        id.0 as usize % self.slots
    }

    /// Id of the node at a place; `None` after the last of the 2^32 - 1 ids.
    #[must_use]
    pub fn node_id(&self, block: BlockNumber, slot: usize) -> Option<NodeId> {
        debug_assert!(slot < self.slots);
        let id = u64::from(block.0) * self.slots as u64 + slot as u64;
        u32::try_from(id).ok().map(NodeId).filter(|&id| id != NodeId::NONE)
    }

    fn slots_u32(&self) -> u32 {
        u32::try_from(self.slots).expect("at most 16")
    }
}

/// The widest code of so many planes with which so many nodes fit a page.
fn fitting(padded_dim: usize, columns: u8, is_weighted: bool, slots: usize, planes: usize) -> Option<usize> {
    let code_bytes = (BODY_BYTES / slots).checked_sub(fixed_bytes(padded_dim, columns, is_weighted))?;
    let code_dim = code_bytes * 8 / (MAX_DEGREE * planes);
    let step = if code_dim < FINE_CODE_DIM { CODE_STEP } else { DIM_STEP };
    Some((code_dim / step * step).min(padded_dim).min(MAX_CODE_DIM))
}

/// How far an estimate is off: see the head of the module.
#[allow(clippy::cast_precision_loss, reason = "a few thousand")]
fn variance(spectrum: &Spectrum, code_dim: usize, planes: usize) -> f64 {
    let (share, coded, others) = spectrum.shares(code_dim);
    let lost = if planes == 1 { 0.571 } else { 0.133 };
    (1.0 / share.max(1e-9) - 1.0).powi(2) * coded + others + lost / code_dim as f64
}

/// Bytes of a neighbor's norm.
fn weight_bytes(is_weighted: bool) -> usize {
    if is_weighted { 2 } else { 0 }
}

/// Bytes of a node apart from its codes.
fn fixed_bytes(padded_dim: usize, columns: u8, is_weighted: bool) -> usize {
    let columns = usize::from(columns);
    NODE_HEADER_BYTES
        + KEY_BYTES * columns
        + padded_dim
        + MAX_DEGREE * (EDGE_BYTES + weight_bytes(is_weighted) + columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_geometries() {
        // dim, code_dim, node bytes, nodes per page: changing any of these changes the format.
        for (dim, code, bytes, slots) in [
            (1, 64, 672, 12),
            (64, 64, 672, 12),
            (65, 104, 896, 9),
            (128, 104, 896, 9),
            (192, 152, 1152, 7),
            (256, 184, 1344, 6),
            (320, 240, 1632, 5),
            (321, 320, 2016, 4),
            (384, 320, 2016, 4),
            (512, 256, 1888, 4),
            (768, 384, 2656, 3),
            (769, 384, 2720, 3),
            (784, 384, 2720, 3),
            (1024, 640, 3936, 2),
            (1536, 512, 3936, 2),
            (2048, 1024, 6496, 1),
            (3072, 1024, 7520, 1),
            (4000, 896, 7968, 1),
        ] {
            let g = Geometry::new(dim).unwrap();
            assert_eq!((g.code_dim(), g.node_bytes(), g.slots()), (code, bytes, slots), "{dim} dimensions");
        }
    }

    #[test]
    fn pages_of_earlier_widths_are_read() {
        // What release 0.1.0 chose.
        let stated = |dim: u16, padded_dim, code_dim, slots| {
            let lead_dim = padded_dim;
            Geometry::checked(&Stated {
                format: 1,
                dim,
                padded_dim,
                lead_dim,
                code_dim,
                planes: 1,
                slots,
                leaders: 0,
                epoch: 0,
                columns: 0,
                signatures: 0,
                is_weighted: false,
            })
        };
        for (dim, code, slots) in [(128, 128, 8), (192, 192, 6), (256, 256, 5), (320, 256, 4)] {
            let g = stated(dim, dim, code, slots).unwrap();
            assert_eq!((g.code_dim(), g.slots()), (code.into(), slots.into()), "{dim} dimensions");
            assert_ne!(g, Geometry::new(dim.into()).unwrap(), "then this tests nothing");
        }
        for (padded, code, slots) in
            [(256, 256, 6), (256, 260, 5), (256, 320, 5), (256, 0, 5), (256, 256, 0), (192, 184, 6)]
        {
            assert!(stated(256, padded, code, slots).is_err(), "{padded} {code} {slots}");
        }
    }

    #[test]
    fn every_dimension_fits() {
        for dim in 1..=MAX_DIM {
            let g = Geometry::new(dim).unwrap();
            assert!(g.slots() * g.node_bytes() <= BODY_BYTES, "{dim} dimensions");
            let widest = g.padded_dim().min(MAX_CODE_DIM);
            assert!(
                (256.min(96.max(g.padded_dim() * 11 / 16)).min(widest)..=widest).contains(&g.code_dim()),
                "{dim} dimensions"
            );
            assert_eq!(g.code_dim() % if g.code_dim() < FINE_CODE_DIM { CODE_STEP } else { DIM_STEP }, 0);
            assert!(g.entries_per_page() >= ENTRY_BLOCK);
        }
        assert_eq!(Geometry::new(0), Err(GeometryError::Empty));
        assert_eq!(Geometry::new(MAX_DIM + 1), Err(GeometryError::TooManyDimensions { dim: MAX_DIM + 1 }));
    }

    /// Variances that fall with a power of the number, and a little everywhere.
    fn spectrum(dim: usize, rank: usize, power: f64, noise: f64) -> Spectrum {
        let leading: Vec<f64> = (0..rank).map(|i| (1.0 + i as f64).powf(-power) + noise).collect();
        let total = leading.iter().sum::<f64>() + (dim - rank) as f64 * noise;
        Spectrum { leading, total, dim }
    }

    #[test]
    fn codes_fit_the_data() {
        // What is chosen: dimension, spectrum, code, bits, nodes per page.
        for (spectrum, wanted) in [
            // Most of the variance in a hundred directions, as embeddings have it.
            (spectrum(512, 128, 1.0, 0.0001), (96, 2, 5)),
            // All alike: there is nothing to gain.
            (spectrum(512, 256, 0.0, 1.0), (256, 1, 4)),
            (spectrum(64, 64, 0.3, 0.01), (64, 1, 12)),
        ] {
            let usual = Geometry::new(spectrum.dim).unwrap();
            let g = usual.for_data(&spectrum);
            assert_eq!((g.code_dim(), g.planes(), g.slots()), wanted, "{spectrum:?}");
            assert!(g.slots() >= usual.slots() && g.slots() * g.node_bytes() <= BODY_BYTES);
        }
        for dim in (1..=MAX_DIM).step_by(37) {
            let usual = Geometry::new(dim).unwrap();
            for rank in [0, 1, 10, 200] {
                let padded = usual.padded_dim();
                let g = usual.for_data(&spectrum(padded, rank.min(padded), 1.0, 1e-6));
                assert!(
                    g.slots() >= usual.slots() && g.slots() * g.node_bytes() <= BODY_BYTES,
                    "{dim} {rank}"
                );
                assert!(g.code_dim() > 0 && g.lead_dim() >= g.code_dim() && g.lead_dim() <= padded);
            }
        }
    }

    #[test]
    fn ids_and_places_correspond() {
        let g = Geometry::new(512).unwrap();
        let id = g.node_id(BlockNumber(10), 3).unwrap();
        assert_eq!((id, g.block_of(id), g.slot_of(id)), (NodeId(43), BlockNumber(10), 3));
        assert_eq!(g.node_id(BlockNumber(u32::MAX), 0), None);
        assert_eq!(g.node_id(BlockNumber(u32::MAX / 4), 3), None, "the id that means none");
    }
}
