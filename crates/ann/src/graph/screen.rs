//! Rules out stored vectors that are far from all but a few of many queries, by products of 8-bit vectors: a sixth of the time of
//! exact scores.
//!
//! With `x` and `q` as 8-bit vectors `x'` and `q'`, the triangle inequality says `|<q, x> - <q', x'>| <= |q| |x - x'| + |q - q'| |x'|`.
//! Scores fall with the inner product, so the largest that it can be gives a bound below the score.

use crate::arch::Kernels;
use crate::quantize::{Stored, int8};
use crate::space::{Query, Space};

/// What sums of products in single precision lose, as a share of the vectors' norms; 4,000 of them lose less.
const ROUNDING: f32 = 1e-4;

/// Queries, quantized, and space for one vector.
pub struct Screen {
    kernels: Kernels,
    /// `[queries, padded_dim]`.
    codes: Vec<i8>,
    sketches: Vec<Sketch>,
    /// Numbers of the queries.
    all: Vec<u32>,
    dots: Vec<i32>,
    decoded: Vec<f32>,
    code: Vec<i8>,
}

/// What is known of a vector besides its 8-bit codes.
#[derive(Clone, Copy)]
struct Sketch {
    scale: f32,
    norm: f32,
    /// Upper bound on the norm of what the codes lose.
    error: f32,
}

impl Sketch {
    fn new(kernels: Kernels, vector: &[f32], codes: &mut [i8]) -> Self {
        let q = int8::quantize(vector, codes);
        Self { scale: q.scale, norm: kernels.dot_f32(vector, vector).sqrt(), error: q.error }
    }
}

impl Screen {
    /// For queries of an index.
    pub fn new<'a>(space: &Space, queries: impl IntoIterator<Item = &'a Query>) -> Self {
        let (kernels, dim) = (space.kernels, space.geometry.padded_dim());
        let (mut codes, mut sketches) = (Vec::new(), Vec::new());
        for query in queries {
            let start = codes.len();
            codes.resize(start + dim, 0);
            sketches.push(Sketch::new(kernels, query.turned(), &mut codes[start..]));
        }
        let all = (0..).take(sketches.len()).collect();
        let dots = vec![0; sketches.len()];
        Self { kernels, codes, sketches, all, dots, decoded: vec![0.0; dim], code: vec![0; dim] }
    }

    /// Takes a stored vector; answers for each query, in their order, what its score is not below.
    pub fn scores_at_least<'a>(
        &'a mut self,
        space: &Space,
        stored: Stored,
        queries: impl Iterator<Item = &'a Query> + 'a,
    ) -> impl Iterator<Item = f32> + 'a {
        space.decode(stored, 0, &mut self.decoded);
        let x = Sketch::new(self.kernels, &self.decoded, &mut self.code);
        self.kernels.dots_i8(&self.code, &self.codes, &self.all, &mut self.dots);
        let bias = stored.bias;
        queries.zip(&self.sketches).zip(&self.dots).map(move |((query, q), &dot)| {
            let lost = q.norm * x.error + q.error * (x.norm + x.error) + ROUNDING * q.norm * x.norm;
            #[allow(clippy::cast_precision_loss, reason = "covered by what is lost")]
            let product = q.scale * x.scale * dot as f32 + lost;
            query.score_of_product(product, (q.norm * q.norm + x.norm * x.norm) * (1.0 - ROUNDING), bias)
        })
    }
}
