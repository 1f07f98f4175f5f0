//! The space of an index: how a user's vector becomes codes, and how a query scores them.

use crate::arch::Kernels;
use crate::filter::Columns;
use crate::layout::meta::Meta;
use crate::layout::node::Node;
use crate::layout::{Geometry, MAX_DEGREE};
use crate::metric::Metric;
use crate::quantize::fastscan::Table;
use crate::quantize::{Basis, Leaders, Stored, int8};
use std::cell::OnceCell;

/// A vector that this index cannot hold or search for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VectorError {
    /// Another number of dimensions than the index was made for.
    #[error("expected {expected} dimensions, not {found}")]
    Dimensions {
        /// Dimensions of the index.
        expected: usize,
        /// Dimensions of the vector.
        found: usize,
    },
    /// Squared distances would leave the range of a 32-bit float.
    #[error("norm of the vector is beyond {MAX_NORM:e}")]
    TooLong,
    /// Not a number, or infinite.
    #[error("vector is not finite")]
    NotFinite,
}

/// The longest vector that can be indexed by L2 or inner product: squares stay within f32. Queries may be longer.
pub const MAX_NORM: f64 = 1e18;

/// How vectors of one index are turned into the basis, centered and compared.
#[derive(Clone, Debug)]
pub struct Space {
    pub(crate) metric: Metric,
    pub(crate) geometry: Geometry,
    pub(crate) center: Vec<f32>,
    pub(crate) kernels: Kernels,
    pub(crate) leaders: Leaders,
    pub(crate) columns: Columns,
    basis: Basis,
    center_norm: f64,
}

/// A vector as the index stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// `[padded_dim]`.
    pub codes: Vec<i8>,
    /// What leading codes are multiplied by.
    pub lead: f32,
    /// What the others are multiplied by.
    pub trail: f32,
    /// The leader that it is relative to.
    pub reference: u16,
    /// Upper bound on the norm of what is lost; more than any could be where a caller's cosine is not to be foreseen.
    pub error: f32,
    /// The field of the node header.
    pub bias: f32,
    /// Keys of the row, eight bytes for each column: the caller's to add.
    pub keys: Vec<u8>,
}

impl Quantized {
    pub(crate) fn stored(&self) -> Stored<'_> {
        let Self { codes, lead, trail, reference, bias, keys, .. } = self;
        Stored { codes, lead: *lead, trail: *trail, reference: *reference, bias: *bias, keys }
    }

    /// Whether a node holds the same vector with the same keys.
    pub(crate) fn is_same(&self, node: Stored) -> bool {
        let Stored { codes, lead, trail, reference, bias, keys } = node;
        (lead, trail, reference, bias) == (self.lead, self.trail, self.reference, self.bias)
            && codes == self.codes
            && keys == self.keys
    }
}

impl Space {
    /// The space that a metapage and the pages after it describe: `reflectors` of the basis, `[n, padded_dim]`, and
    /// `leaders`, `[n, padded_dim]`, less the center.
    #[must_use]
    pub fn new(meta: &Meta, reflectors: Vec<f32>, leaders: &[f32]) -> Self {
        let (center, padded) = (meta.center.clone(), meta.geometry.padded_dim());
        Self {
            metric: meta.metric,
            geometry: meta.geometry,
            basis: Basis::new(padded, meta.seed, reflectors),
            leaders: Leaders::new(padded, leaders),
            columns: Columns::new(&meta.geometry.columns()),
            center_norm: norm(&center),
            center,
            kernels: Kernels::best(),
        }
    }

    /// The key columns.
    #[must_use]
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Sizes of the pages.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// What distance means.
    #[must_use]
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// The basis.
    pub(crate) fn basis(&self) -> &Basis {
        &self.basis
    }

    /// Whether vectors are stored as directions, with their norms beside: inner product, from format 2 on.
    #[must_use]
    pub fn is_weighted(&self) -> bool {
        self.geometry.is_weighted()
    }

    /// Whether vectors are scaled to unit length.
    fn has_directions(&self) -> bool {
        self.metric == Metric::Cosine || self.is_weighted()
    }

    /// A row's norm where vectors are stored as directions; else 1.
    pub(crate) fn weight(&self, stored: Stored) -> f32 {
        if self.is_weighted() { stored.bias } else { 1.0 }
    }

    /// Scales to unit length where directions are stored, and turns into the basis. Answers the turned vector, not centered, and the
    /// norm before scaling; a vector of zeros stays as it is.
    fn turn(&self, vector: &[f32]) -> Result<(Vec<f32>, f64), VectorError> {
        if vector.len() != self.geometry.dim() {
            return Err(VectorError::Dimensions { expected: self.geometry.dim(), found: vector.len() });
        }
        let length = norm(vector);
        if !length.is_finite() {
            return Err(VectorError::NotFinite);
        }
        let mut turned = vec![0.0; self.geometry.padded_dim()];
        if self.has_directions() && length > 0.0 {
            #[allow(clippy::cast_possible_truncation, reason = "elements of a unit vector")]
            let unit: Vec<f32> = vector.iter().map(|&x| (f64::from(x) / length) as f32).collect();
            self.basis.apply(&unit, &mut turned);
        } else if length > MAX_NORM {
            return Err(VectorError::TooLong);
        } else {
            self.basis.apply(vector, &mut turned);
        }
        Ok((turned, length))
    }

    /// The vector in the basis before centering; what a builder's sample is averaged over.
    pub(crate) fn turned(&self, vector: &[f32]) -> Result<Vec<f32>, VectorError> {
        Ok(self.turn(vector)?.0)
    }

    /// A row's codes; `None` for a vector of zeros under cosine, which has no direction and is not indexed.
    ///
    /// # Errors
    /// [`VectorError`] if the index cannot hold the vector.
    pub fn quantize(&self, vector: &[f32]) -> Result<Option<Quantized>, VectorError> {
        let (turned, length) = self.turn(vector)?;
        if self.metric == Metric::Cosine && length == 0.0 {
            return Ok(None);
        }
        if self.is_weighted() && length > MAX_NORM {
            return Err(VectorError::TooLong);
        }
        Ok(Some(self.quantize_turned(turned, length)))
    }

    /// The codes of a vector that is scaled, rotated, and of a known length before it was scaled.
    pub(crate) fn quantize_rotated(&self, mut rotated: Vec<f32>, length: f64) -> Quantized {
        self.basis.reflect(&mut rotated);
        self.quantize_turned(rotated, length)
    }

    /// A stored vector before the basis reflected it: scaled, rotated, not centered.
    pub(crate) fn rotated(&self, stored: Stored) -> Vec<f32> {
        let mut vector = self.decoded(stored);
        self.kernels.add_scaled(&mut vector, 1.0, &self.center);
        self.basis.reflect_back(&mut vector);
        vector
    }

    fn quantize_turned(&self, mut turned: Vec<f32>, length: f64) -> Quantized {
        for (x, c) in turned.iter_mut().zip(&self.center) {
            *x -= c;
        }
        let reference = self.leaders.nearest(&turned);
        if reference != 0 {
            self.kernels.add_scaled(&mut turned, -1.0, self.leaders.vector(reference));
        }
        let mut codes = vec![0; turned.len()];
        let (lead, trail) = if self.geometry.format() == 1 {
            let q = int8::quantize(&turned, &mut codes);
            (q, int8::Int8 { error: 0.0, norm_squared: 0.0, ..q })
        } else {
            let at = self.geometry.lead_dim();
            let (codes, behind) = codes.split_at_mut(at);
            let lead = int8::quantize_in_steps(&turned[..at], codes);
            (lead, int8::quantize_in_steps(&turned[at..], behind))
        };
        #[allow(clippy::cast_possible_truncation, reason = "a small number, rounded up")]
        let error = match self.metric {
            Metric::Cosine if !COSINE_NORMS.contains(&length) => UNCLAIMED_ERROR as f32,
            Metric::Cosine | Metric::L2 | Metric::InnerProduct if trail.error == 0.0 => lead.error,
            Metric::Cosine | Metric::L2 | Metric::InnerProduct => {
                (f64::from(lead.error).hypot(f64::from(trail.error)) * (1.0 + 1e-7)) as f32
            }
        };
        let mut q = Quantized {
            keys: Vec::new(),
            codes,
            lead: lead.scale,
            trail: trail.scale,
            reference,
            error,
            bias: lead.norm_squared + trail.norm_squared,
        };
        if self.is_weighted() {
            #[allow(clippy::cast_possible_truncation, reason = "at most 1e18")]
            let norm = length as f32;
            q.bias = norm;
        } else if self.metric == Metric::InnerProduct {
            q.bias = self.center_product(q.stored());
        }
        q
    }

    /// Inner product of the center and a stored vector.
    fn center_product(&self, stored: Stored) -> f32 {
        let reference = self.kernels.dot_f32(&self.center, self.leaders.vector(stored.reference));
        reference + self.dot(&self.center, stored)
    }

    /// Inner product of a vector and what the codes of a stored one stand for.
    #[inline]
    fn dot(&self, vector: &[f32], stored: Stored) -> f32 {
        let at = self.geometry.lead_dim();
        let lead = stored.lead * self.kernels.dot_f32_i8(&vector[..at], &stored.codes[..at]);
        if at == vector.len() {
            return lead;
        }
        lead + stored.trail * self.kernels.dot_f32_i8(&vector[at..], &stored.codes[at..])
    }

    /// Squared norm of what the codes of a stored vector stand for.
    fn offset_norm_squared(&self, stored: Stored) -> f32 {
        let at = self.geometry.lead_dim();
        #[allow(clippy::cast_precision_loss, reason = "the scale is no exacter")]
        let square = |codes: &[i8], scale: f32| scale * scale * self.kernels.dot_i8(codes, codes) as f32;
        square(&stored.codes[..at], stored.lead) + square(&stored.codes[at..], stored.trail)
    }

    /// No vector is longer than this, less the center.
    fn most_norm(&self, stored: Stored) -> (f64, f64) {
        let at = self.geometry.lead_dim();
        #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
        let part = |scale: f32, count: usize| f64::from(scale.abs()) * 127.0 * (count as f64).sqrt();
        let offset = part(stored.lead, at).hypot(part(stored.trail, stored.codes.len() - at));
        (offset, f64::from(self.leaders.norm_squared(stored.reference)).sqrt() * (1.0 + 1e-6))
    }

    /// Writes a stored vector, less the center and a leader, into `out`, `[padded_dim]`.
    pub(crate) fn decode(&self, stored: Stored, leader: u16, out: &mut [f32]) {
        self.decode_from(stored, self.leaders.vector(leader), out);
    }

    /// Writes a stored vector, less the center and an origin, into `out`, all `[padded_dim]`. Answers the size of its largest element.
    pub(crate) fn decode_from(&self, stored: Stored, origin: &[f32], out: &mut [f32]) -> f32 {
        let (at, base) = (self.geometry.lead_dim(), self.leaders.vector(stored.reference));
        let (lead, trail) = out.split_at_mut(at);
        let lead = self.kernels.decode(&base[..at], &origin[..at], &stored.codes[..at], stored.lead, lead);
        let trail = self.kernels.decode(&base[at..], &origin[at..], &stored.codes[at..], stored.trail, trail);
        lead.max(trail)
    }

    /// A stored vector, less the center.
    pub(crate) fn decoded(&self, stored: Stored) -> Vec<f32> {
        let mut out = vec![0.0; self.geometry.padded_dim()];
        self.decode(stored, 0, &mut out);
        out
    }

    /// Squared L2 distance between two vectors less the center.
    pub(crate) fn between(&self, a: &[f32], b: &[f32]) -> f32 {
        let difference: Vec<f32> = a.iter().zip(b).map(|(x, y)| x - y).collect();
        self.kernels.dot_f32(&difference, &difference)
    }
}

/// What a query scores by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Measure {
    /// Squared L2 distance: indexes by L2 and cosine.
    Distance,
    /// Negative inner product less the center's part: inner product of format 1.
    Product,
    /// Squared L2 distance in such an index, whose codes are made for products.
    DistanceAmongProducts,
    /// Negative inner product of the query's direction with a row: the product of directions times the row's norm.
    Weighted,
    /// Squared L2 distance of directions in such an index.
    DistanceAmongWeighted,
}

/// A vector to search for.
#[derive(Clone, Debug)]
pub struct Query {
    measure: Measure,
    kernels: Kernels,
    /// In the basis of the index, less the center.
    turned: Vec<f32>,
    /// What is known of the query relative to each leader that was met.
    relatives: Vec<OnceCell<Relative>>,
    norm: f64,
    center_norm: f64,
    center_dot: f64,
    no_direction: bool,
    /// The norm before it was scaled to unit length.
    length: f64,
    /// What the vector was divided by to be no longer than [`MAX_NORM`]: a power of two, so that nothing is rounded.
    shrunk: f64,
}

/// A query relative to a leader: small numbers for near leaders, wherever both lie.
#[derive(Clone, Debug)]
struct Relative {
    /// The query less the leader.
    offset: Vec<f32>,
    /// Score of the leader itself: squared distance, or the negative inner product less the center's part.
    base: f32,
    table: Table,
}

impl Query {
    /// Prepares a search by the metric of the index. The vector may be longer than those of rows.
    ///
    /// # Errors
    /// [`VectorError`] if the vector does not fit the index.
    pub fn new(space: &Space, vector: &[f32]) -> Result<Self, VectorError> {
        let length = norm(vector);
        if !space.has_directions() && length.is_finite() && length > MAX_NORM {
            let shrunk = (length / MAX_NORM).log2().ceil().exp2();
            #[allow(clippy::cast_possible_truncation, reason = "no larger than it was")]
            let vector: Vec<f32> = vector.iter().map(|&x| (f64::from(x) / shrunk) as f32).collect();
            return Ok(Self { shrunk, ..Self::new(space, &vector)? });
        }
        let (turned, length) = space.turn(vector)?;
        let mut query = Self::centered(space, turned);
        query.no_direction = space.metric == Metric::Cosine && length == 0.0;
        query.length = length;
        Ok(query)
    }

    fn centered(space: &Space, mut turned: Vec<f32>) -> Self {
        let (norm_before, center_dot) = (norm(&turned), dot(&turned, &space.center));
        for (x, c) in turned.iter_mut().zip(&space.center) {
            *x -= c;
        }
        let measure = match space.metric {
            Metric::Cosine | Metric::L2 => Measure::Distance,
            Metric::InnerProduct if space.is_weighted() => Measure::Weighted,
            Metric::InnerProduct => Measure::Product,
        };
        Self { norm: norm_before, center_dot, ..Self::relative_to_center(space, measure, turned) }
    }

    /// Prepares a search for the nearest by L2 of a vector that the index holds, less the center.
    pub(crate) fn stored(space: &Space, vector: Vec<f32>) -> Self {
        let measure = match space.metric {
            Metric::Cosine | Metric::L2 => Measure::Distance,
            Metric::InnerProduct if space.is_weighted() => Measure::DistanceAmongWeighted,
            Metric::InnerProduct => Measure::DistanceAmongProducts,
        };
        Self::relative_to_center(space, measure, vector)
    }

    /// Prepares a search by the metric of the index for a vector that is turned and centered as stored ones are; where directions
    /// are stored it is made a unit vector. `None` if it has no direction, or is too long.
    pub(crate) fn of_stored(space: &Space, vector: &[f32]) -> Option<Self> {
        let mut turned: Vec<f32> = vector.iter().zip(&space.center).map(|(x, c)| x + c).collect();
        let length = norm(&turned);
        if length == 0.0 || length.is_nan() || length > MAX_NORM {
            return None;
        }
        if space.has_directions() {
            #[allow(clippy::cast_possible_truncation, reason = "elements of a unit vector")]
            turned.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
        Some(Self::centered(space, turned))
    }

    /// A query that is turned and centered already; what depends on its norm before is left out.
    fn relative_to_center(space: &Space, measure: Measure, turned: Vec<f32>) -> Self {
        Self {
            measure,
            kernels: space.kernels,
            relatives: vec![OnceCell::new(); space.leaders.count()],
            norm: 0.0,
            center_norm: space.center_norm,
            center_dot: 0.0,
            turned,
            no_direction: false,
            length: 1.0,
            shrunk: 1.0,
        }
    }

    /// Whether scores are distances by L2 in an index whose codes are made for whole inner products.
    pub(crate) fn is_among_products(&self) -> bool {
        self.measure == Measure::DistanceAmongProducts
    }

    /// The query relative to a leader.
    #[inline]
    fn relative(&self, space: &Space, leader: u16) -> &Relative {
        self.relatives[usize::from(leader)].get_or_init(|| {
            let mut offset = self.turned.clone();
            let vector = space.leaders.vector(leader);
            if leader != 0 {
                self.kernels.add_scaled(&mut offset, -1.0, vector);
            }
            let base = match self.measure {
                Measure::Product | Measure::Weighted => -self.kernels.dot_f32(&self.turned, vector),
                Measure::Distance | Measure::DistanceAmongProducts | Measure::DistanceAmongWeighted => {
                    self.kernels.dot_f32(&offset, &offset)
                }
            };
            let mut table = Table::new(space.geometry.code_dim());
            table.fill(&offset);
            Relative { offset, base, table }
        })
    }

    /// The score of a node: squared L2 distance, or the negative inner product less the center's part, with the query's direction where
    /// vectors are stored as directions.
    #[inline]
    #[must_use]
    pub fn score(&self, space: &Space, stored: Stored) -> f32 {
        let base = self.base(space, stored);
        if self.measure == Measure::Weighted { stored.bias * base } else { base }
    }

    /// The score of a vector of such an inner product with the query, both less the center; `squares` is the sum of their squared
    /// norms, `bias` the field of the node.
    pub(crate) fn score_of_product(&self, product: f32, squares: f32, bias: f32) -> f32 {
        match self.measure {
            Measure::Distance | Measure::DistanceAmongProducts | Measure::DistanceAmongWeighted => {
                squares - 2.0 * product
            }
            Measure::Product => -product - bias,
            Measure::Weighted => -product * bias,
        }
    }

    /// What estimates of neighbors start from: the score, but for the norm.
    #[inline]
    pub(crate) fn base(&self, space: &Space, stored: Stored) -> f32 {
        let relative = self.relative(space, stored.reference);
        let distance = |bias: f32| relative.base + bias - 2.0 * space.dot(&relative.offset, stored);
        match self.measure {
            Measure::Distance => distance(stored.bias),
            Measure::DistanceAmongProducts | Measure::DistanceAmongWeighted => {
                distance(space.offset_norm_squared(stored))
            }
            Measure::Product => relative.base - space.dot(&self.turned, stored) - stored.bias,
            Measure::Weighted => relative.base - space.dot(&self.turned, stored),
        }
    }

    /// A node's score and estimated scores of its 32 neighbors; after the degree they mean nothing.
    #[inline]
    #[must_use]
    pub fn estimates(&self, space: &Space, node: &Node) -> (f32, [f32; MAX_DEGREE]) {
        let stored = node.stored();
        let base = self.base(space, stored);
        let (adds, scales) = node.factors();
        let estimates = self.estimates_from(space, stored.reference, base, &adds, &scales, node.codes());
        match node.weights() {
            Some(weights) if self.measure == Measure::Weighted => {
                (stored.bias * base, std::array::from_fn(|i| weights[i] * estimates[i]))
            }
            _ => (base, estimates),
        }
    }

    /// Estimates for 32 codes relative to `leader`, from a base; not times any norm.
    #[inline]
    fn estimates_from(
        &self,
        space: &Space,
        leader: u16,
        base: f32,
        adds: &[f32; MAX_DEGREE],
        scales: &[f32; MAX_DEGREE],
        codes: &[u8],
    ) -> [f32; MAX_DEGREE] {
        let sums = self.relative(space, leader).table.sums(self.kernels, codes);
        // Twice the product that the factors are made for: all vectors are about as long.
        let factor = if self.measure == Measure::DistanceAmongWeighted { 2.0 } else { 1.0 };
        std::array::from_fn(|i| base + factor * (adds[i] + scales[i] * sums[i]))
    }

    /// Estimated scores of 32 entries of a leader; without their weights, where there are none.
    #[inline]
    pub(crate) fn entry_estimates(
        &self,
        space: &Space,
        leader: u16,
        adds: &[f32; MAX_DEGREE],
        scales: &[f32; MAX_DEGREE],
        weights: Option<&[f32; MAX_DEGREE]>,
        codes: &[u8],
    ) -> [f32; MAX_DEGREE] {
        let base = self.leader_score(space, leader);
        let estimates = self.estimates_from(space, leader, base, adds, scales, codes);
        match weights {
            Some(weights) if self.measure == Measure::Weighted => {
                std::array::from_fn(|i| weights[i] * estimates[i])
            }
            _ => estimates,
        }
    }

    /// About the scores of all leaders, in their order; of directions, where these are stored.
    pub(crate) fn leader_scores<'a>(&'a self, space: &'a Space) -> impl Iterator<Item = f32> + 'a {
        let by_product = matches!(self.measure, Measure::Product | Measure::Weighted);
        space.leaders.dots(&self.turned).zip(0u16..).map(move |(dot, leader)| {
            if by_product { -dot } else { space.leaders.norm_squared(leader) - 2.0 * dot }
        })
    }

    /// Whether rows are the better the longer they are.
    pub(crate) fn is_weighted(&self) -> bool {
        self.measure == Measure::Weighted
    }

    /// The score of a leader, which entries are relative to; of directions, where these are stored.
    fn leader_score(&self, space: &Space, leader: u16) -> f32 {
        let base = self.relative(space, leader).base;
        match self.measure {
            Measure::Distance | Measure::DistanceAmongProducts | Measure::Weighted => base,
            // The leader is shorter than the vectors that it stands for.
            Measure::DistanceAmongWeighted => base + 1.0 - space.leaders.norm_squared(leader),
            Measure::Product => base - self.kernels.dot_f32(&space.center, space.leaders.vector(leader)),
        }
    }

    /// The vector in the basis of the index, less the center, `[padded_dim]`.
    pub(crate) fn turned(&self) -> &[f32] {
        &self.turned
    }

    /// What the caller's distance of a row is never below and never above, given its node's score, scale and error
    /// bound. An upper bound of infinity says that nothing is known: the lower one then only tells where the row
    /// belongs by geometry (see [`Hit::claimed_bound`](crate::graph::search::Hit::claimed_bound)).
    ///
    /// The true vector lies within `error` of the quantized one, so by the triangle inequality an L2
    /// distance differs by at most `error`, and an inner product by at most `error * |query|`. What f32
    /// arithmetic loses on the way comes on top: in proportion (sums of products 1e-6 of norms that are overstated
    /// fourfold, the rotation 4e-6 of them, [`caller_rounding`] in the caller's own sums), and absolutely, where
    /// products leave the range of f32 at its lower end ([`TINY`] for each). NaN if
    /// the query has no direction: then the exact distances are NaN, too.
    ///
    /// A query that was shrunk scales inner products alone. L2 distances from so far away differ by less than those
    /// roundings unless rows are as long, so nothing is said of them, and the caller's own distances decide.
    /// Nothing is said either where the caller's sums may overflow, nor under cosine of vectors that are so long or so
    /// short that their squares leave f32 ([`COSINE_NORMS`]): a caller may then arrive at 0, 1, 2 or NaN.
    #[must_use]
    pub fn bounds(&self, space: &Space, stored: Stored, score: f32, error: f32) -> [f64; 2] {
        if self.no_direction {
            return [f64::NAN; 2];
        }
        if self.shrunk > 1.0 && space.metric == Metric::L2 {
            return [0.0, f64::INFINITY];
        }
        let (score, error) = (f64::from(score), f64::from(error));
        #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
        let dim = self.turned.len() as f64;
        let (offset_norm, leader_norm) = space.most_norm(stored);
        let row_norm = offset_norm + leader_norm;
        // Sums of products lose this much at the lower end of f32, and a rotated vector is off by that length.
        let (tiny_sum, tiny_norm) = (2.0 * dim * TINY, 256.0 * dim.sqrt() * TINY);
        let rounding =
            self.turning_error(space) * (self.norm + self.center_norm + row_norm) + 2.0 * tiny_norm;
        let callers = caller_rounding(self.turned.len());
        let l2 = |sign: f64| {
            let base = f64::from(self.relative(space, stored.reference).base.max(0.0));
            let lost = 1e-6 * (base + offset_norm.powi(2)) + tiny_sum;
            let distance = (score + sign * lost).max(0.0).sqrt() + sign * (error + rounding);
            (distance * (1.0 + sign * callers)).max(0.0)
        };
        let [lower, upper] = [-1.0, 1.0].map(|sign| match space.metric {
            // The caller's squares may have vanished, each of them.
            Metric::L2 => (l2(sign).powi(2) + sign * tiny_sum).max(0.0).sqrt(),
            // Unit vectors: 1 - cos is half the squared L2 distance.
            Metric::Cosine => (l2(sign).powi(2) / 2.0 + sign * callers).max(0.0),
            Metric::InnerProduct if space.is_weighted() => {
                // Directions first: what is lost of one, and the caller's own sums.
                let row = f64::from(stored.bias);
                let lost = (error + rounding + callers * (1.0 + error)) * row * self.length + tiny_sum
                    // A norm at the lower end of f32 has fewer digits.
                    + f64::from(f32::from_bits(1)) * self.length;
                score * self.length + sign * lost
            }
            Metric::InnerProduct => {
                let reach = self.norm + self.center_norm;
                let lost = (self.norm + tiny_norm) * error
                    + rounding * reach
                    + tiny_norm * row_norm
                    + callers * reach * (row_norm + error + reach)
                    + tiny_sum;
                (score - self.center_dot + sign * lost) * self.shrunk
            }
        });
        let is_known = match space.metric {
            Metric::L2 => true,
            Metric::Cosine => error < UNCLAIMED_ERROR && COSINE_NORMS.contains(&self.length),
            Metric::InnerProduct if space.is_weighted() => {
                let most = self.length * f64::from(stored.bias) * (1.0 + error);
                most <= f64::from(f32::MAX) / 2.0
            }
            Metric::InnerProduct => {
                let most =
                    (self.norm + self.center_norm) * (row_norm + error + self.center_norm) * self.shrunk;
                most <= f64::from(f32::MAX) / 2.0
            }
        };
        [lower, if is_known { upper } else { f64::INFINITY }]
    }

    /// What turning a vector into the basis loses of its norm: some 1e-7 in each of its steps.
    #[allow(clippy::cast_precision_loss, reason = "a few hundred")]
    fn turning_error(&self, space: &Space) -> f64 {
        4e-6 + 1e-7 * space.basis.count() as f64
    }
}

/// What a product of two numbers loses at most where it leaves the range of f32 at its lower end, or
/// is taken for zero there.
const TINY: f64 = f32::MIN_POSITIVE as f64;

/// Under cosine a caller that sums squares and products in single precision is right for norms in this range, to what
/// [`caller_rounding`] says: products of two such norms are within f32, and large beside what [`TINY`] products lose.
const COSINE_NORMS: std::ops::Range<f64> = 1e-12..1e18;

/// The error bound of a row under cosine whose norm is not within [`COSINE_NORMS`]. No unit vector is quantized that badly.
const UNCLAIMED_ERROR: f64 = 4.0;

/// What a caller's own distance may lose, as a share of the sums that it is made of.
///
/// pgvector sums in single precision, in four lanes or more, two at least: that loses up to `dim / 2` halves of
/// 1.2e-7, were every addition rounded to the same side and every sum as large as the last. Three
/// sums make a cosine, the norms by their roots.
#[allow(clippy::cast_precision_loss, reason = "a few thousand")]
fn caller_rounding(dim: usize) -> f64 {
    (dim as f64 * 3e-8).max(1e-5)
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}
