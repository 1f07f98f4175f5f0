//! The space of an index: how a user's vector becomes codes, and how a query scores them.

use crate::arch::{Kernels, Scaled};
use crate::layout::meta::Meta;
use crate::layout::node::Node;
use crate::layout::{Geometry, MAX_DEGREE};
use crate::metric::Metric;
use crate::quantize::fastscan::Table;
use crate::quantize::{Rotation, int8};

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

/// How vectors of one index are rotated, centered and compared.
#[derive(Clone, Debug)]
pub struct Space {
    pub(crate) metric: Metric,
    pub(crate) geometry: Geometry,
    pub(crate) center: Vec<f32>,
    pub(crate) kernels: Kernels,
    rotation: Rotation,
    center_norm: f64,
}

/// A vector as the index stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// `[padded_dim]`.
    pub codes: Vec<i8>,
    /// What codes are multiplied by.
    pub scale: f32,
    /// Upper bound on the norm of what is lost; more than any could be where a caller's cosine is not to be foreseen.
    pub error: f32,
    /// Squared norm of `scale * codes`.
    pub norm_squared: f32,
    /// The field of the node header.
    pub bias: f32,
}

impl Quantized {
    pub(crate) fn scaled(&self) -> Scaled<'_> {
        Scaled { codes: &self.codes, scale: self.scale }
    }
}

impl Space {
    /// The space that a metapage describes.
    #[must_use]
    pub fn new(meta: &Meta) -> Self {
        let center = meta.center.clone();
        Self {
            metric: meta.metric,
            geometry: meta.geometry,
            rotation: Rotation::new(meta.geometry.padded_dim(), meta.seed),
            center_norm: norm(&center),
            center,
            kernels: Kernels::best(),
        }
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

    /// Scales to unit length under cosine and rotates. Answers the rotated vector, not centered, and the
    /// norm before scaling; a vector of zeros stays as it is.
    fn rotate(&self, vector: &[f32]) -> Result<(Vec<f32>, f64), VectorError> {
        if vector.len() != self.geometry.dim() {
            return Err(VectorError::Dimensions { expected: self.geometry.dim(), found: vector.len() });
        }
        let length = norm(vector);
        if !length.is_finite() {
            return Err(VectorError::NotFinite);
        }
        let mut rotated = vec![0.0; self.geometry.padded_dim()];
        if self.metric == Metric::Cosine && length > 0.0 {
            #[allow(clippy::cast_possible_truncation, reason = "elements of a unit vector")]
            let unit: Vec<f32> = vector.iter().map(|&x| (f64::from(x) / length) as f32).collect();
            self.rotation.apply(&unit, &mut rotated);
        } else if length > MAX_NORM {
            return Err(VectorError::TooLong);
        } else {
            self.rotation.apply(vector, &mut rotated);
        }
        Ok((rotated, length))
    }

    /// The rotated vector before centering; what a builder's sample is averaged over.
    pub(crate) fn rotated(&self, vector: &[f32]) -> Result<Vec<f32>, VectorError> {
        Ok(self.rotate(vector)?.0)
    }

    /// A row's codes; `None` for a vector of zeros under cosine, which has no direction and is not indexed.
    ///
    /// # Errors
    /// [`VectorError`] if the index cannot hold the vector.
    pub fn quantize(&self, vector: &[f32]) -> Result<Option<Quantized>, VectorError> {
        let (mut rotated, length) = self.rotate(vector)?;
        if self.metric == Metric::Cosine && length == 0.0 {
            return Ok(None);
        }
        for (x, c) in rotated.iter_mut().zip(&self.center) {
            *x -= c;
        }
        let mut codes = vec![0; rotated.len()];
        let q = int8::quantize(&rotated, &mut codes);
        let bias = match self.metric {
            Metric::Cosine | Metric::L2 => q.norm_squared,
            Metric::InnerProduct => q.scale * self.kernels.dot_f32_i8(&self.center, &codes),
        };
        #[allow(clippy::cast_possible_truncation, reason = "a small integer")]
        let error = match self.metric {
            Metric::Cosine if !COSINE_NORMS.contains(&length) => UNCLAIMED_ERROR as f32,
            Metric::Cosine | Metric::L2 | Metric::InnerProduct => q.error,
        };
        Ok(Some(Quantized { codes, scale: q.scale, error, norm_squared: q.norm_squared, bias }))
    }

    /// Squared L2 distance between two stored vectors.
    pub(crate) fn between(&self, a: Scaled, a_norm: f32, b: Scaled, b_norm: f32) -> f32 {
        #[allow(clippy::cast_precision_loss, reason = "a product of two codes' scales is no exacter")]
        let dot = self.kernels.dot_i8(a.codes, b.codes) as f32;
        (a_norm + b_norm - 2.0 * a.scale * b.scale * dot).max(0.0)
    }

    /// Squared norm of a stored vector.
    pub(crate) fn norm_squared(&self, node: &Node) -> f32 {
        match self.metric {
            Metric::Cosine | Metric::L2 => node.header().bias,
            #[allow(clippy::cast_precision_loss, reason = "the scale is no exacter")]
            Metric::InnerProduct => {
                let scale = node.header().scale;
                scale * scale * self.kernels.dot_i8(node.vector(), node.vector()) as f32
            }
        }
    }
}

/// A vector to search for.
#[derive(Clone, Debug)]
pub struct Query {
    metric: Metric,
    kernels: Kernels,
    rotated: Vec<f32>,
    table: Table,
    norm_squared: f32,
    norm: f64,
    center_norm: f64,
    center_dot: f64,
    no_direction: bool,
    /// The norm before it was scaled to unit length.
    length: f64,
    /// What the vector was divided by to be no longer than [`MAX_NORM`]: a power of two, so that nothing is rounded.
    shrunk: f64,
}

impl Query {
    /// Prepares a search by the metric of the index. The vector may be longer than those of rows.
    ///
    /// # Errors
    /// [`VectorError`] if the vector does not fit the index.
    pub fn new(space: &Space, vector: &[f32]) -> Result<Self, VectorError> {
        let length = norm(vector);
        if space.metric != Metric::Cosine && length.is_finite() && length > MAX_NORM {
            let shrunk = (length / MAX_NORM).log2().ceil().exp2();
            #[allow(clippy::cast_possible_truncation, reason = "no larger than it was")]
            let vector: Vec<f32> = vector.iter().map(|&x| (f64::from(x) / shrunk) as f32).collect();
            return Ok(Self { shrunk, ..Self::new(space, &vector)? });
        }
        let (rotated, length) = space.rotate(vector)?;
        let mut query = Self::centered(space, space.metric, rotated);
        query.no_direction = space.metric == Metric::Cosine && length == 0.0;
        query.length = length;
        Ok(query)
    }

    /// Prepares a search for the nearest by L2 of a vector that was rotated and not yet centered.
    pub(crate) fn nearest(space: &Space, vector: &[f32]) -> Result<Self, VectorError> {
        let (rotated, _) = space.rotate(vector)?;
        Ok(Self::centered(space, Metric::L2, rotated))
    }

    fn centered(space: &Space, metric: Metric, mut rotated: Vec<f32>) -> Self {
        let (norm_before, center_dot) = (norm(&rotated), dot(&rotated, &space.center));
        for (x, c) in rotated.iter_mut().zip(&space.center) {
            *x -= c;
        }
        Self { norm: norm_before, center_dot, ..Self::relative(space, metric, rotated) }
    }

    /// Prepares a search for the nearest by L2 of a vector that the index holds.
    pub(crate) fn stored(space: &Space, vector: Scaled) -> Self {
        let centered = vector.codes.iter().map(|&c| f32::from(c) * vector.scale).collect();
        Self::relative(space, Metric::L2, centered)
    }

    /// Prepares a search by the metric of the index for a vector that is rotated and centered as stored ones are; under
    /// cosine it is made a unit vector. `None` if it has no direction, or is too long.
    pub(crate) fn of_stored(space: &Space, vector: &[f32]) -> Option<Self> {
        let mut rotated: Vec<f32> = vector.iter().zip(&space.center).map(|(x, c)| x + c).collect();
        let length = norm(&rotated);
        if length == 0.0 || length.is_nan() || length > MAX_NORM {
            return None;
        }
        if space.metric == Metric::Cosine {
            #[allow(clippy::cast_possible_truncation, reason = "elements of a unit vector")]
            rotated.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
        }
        Some(Self::centered(space, space.metric, rotated))
    }

    /// A query that is rotated and centered already; what depends on its norm before is left out.
    fn relative(space: &Space, metric: Metric, rotated: Vec<f32>) -> Self {
        let mut table = Table::new(space.geometry.code_dim());
        table.fill(&rotated);
        #[allow(clippy::cast_possible_truncation, reason = "rounding; the range was checked")]
        let norm_squared = dot(&rotated, &rotated) as f32;
        Self {
            metric,
            kernels: space.kernels,
            table,
            norm_squared,
            norm: 0.0,
            center_norm: space.center_norm,
            center_dot: 0.0,
            rotated,
            no_direction: false,
            length: 1.0,
            shrunk: 1.0,
        }
    }

    /// The score of a node: squared L2 distance, or the negative inner product less the center's part.
    #[inline]
    #[must_use]
    pub fn score(&self, scale: f32, bias: f32, codes: &[i8]) -> f32 {
        let dot = scale * self.kernels.dot_f32_i8(&self.rotated, codes);
        match self.metric {
            Metric::Cosine | Metric::L2 => self.norm_squared + bias - 2.0 * dot,
            Metric::InnerProduct => -dot - bias,
        }
    }

    /// Estimated scores of 32 neighbors of a node that scored `base`.
    #[inline]
    #[must_use]
    pub fn estimates(
        &self,
        base: f32,
        adds: &[f32; MAX_DEGREE],
        scales: &[f32; MAX_DEGREE],
        codes: &[u8],
    ) -> [f32; MAX_DEGREE] {
        let sums = self.table.sums(self.kernels, codes);
        std::array::from_fn(|i| base + adds[i] + scales[i] * sums[i])
    }

    /// The score of the center, which entries are relative to.
    #[must_use]
    pub fn center_score(&self) -> f32 {
        match self.metric {
            Metric::Cosine | Metric::L2 => self.norm_squared,
            Metric::InnerProduct => 0.0,
        }
    }

    /// The rotated, centered vector, `[padded_dim]`.
    pub(crate) fn rotated(&self) -> &[f32] {
        &self.rotated
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
    pub fn bounds(&self, score: f32, scale: f32, error: f32) -> [f64; 2] {
        if self.no_direction {
            return [f64::NAN; 2];
        }
        if self.shrunk > 1.0 && self.metric == Metric::L2 {
            return [0.0, f64::INFINITY];
        }
        let (score, error) = (f64::from(score), f64::from(error));
        #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
        let dim = self.rotated.len() as f64;
        let row_norm = f64::from(scale.abs()) * 127.0 * dim.sqrt();
        // Sums of products lose this much at the lower end of f32, and a rotated vector is off by that length.
        let (tiny_sum, tiny_norm) = (2.0 * dim * TINY, 256.0 * dim.sqrt() * TINY);
        let rounding = 4e-6 * (self.norm + self.center_norm + row_norm) + 2.0 * tiny_norm;
        let callers = caller_rounding(self.rotated.len());
        let l2 = |sign: f64| {
            let lost = 1e-6 * (f64::from(self.norm_squared) + row_norm.powi(2)) + tiny_sum;
            let distance = (score + sign * lost).max(0.0).sqrt() + sign * (error + rounding);
            (distance * (1.0 + sign * callers)).max(0.0)
        };
        let [lower, upper] = [-1.0, 1.0].map(|sign| match self.metric {
            // The caller's squares may have vanished, each of them.
            Metric::L2 => (l2(sign).powi(2) + sign * tiny_sum).max(0.0).sqrt(),
            // Unit vectors: 1 - cos is half the squared L2 distance.
            Metric::Cosine => (l2(sign).powi(2) / 2.0 + sign * callers).max(0.0),
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
        let is_known = match self.metric {
            Metric::L2 => true,
            Metric::Cosine => error < UNCLAIMED_ERROR && COSINE_NORMS.contains(&self.length),
            Metric::InnerProduct => {
                let most =
                    (self.norm + self.center_norm) * (row_norm + error + self.center_norm) * self.shrunk;
                most <= f64::from(f32::MAX) / 2.0
            }
        };
        [lower, if is_known { upper } else { f64::INFINITY }]
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
