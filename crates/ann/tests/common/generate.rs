//! Generated data sets with the geometry of real embeddings, the same on every machine.

#![allow(dead_code, reason = "each test binary uses its part")]

use imgvec_ann::random::SplitMix64;

/// Normal deviates from the frozen generator.
pub struct Normal(pub SplitMix64);

impl Normal {
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u64() >> 40) as f32 / 16_777_216.0
    }

    /// Box-Muller, one of the pair.
    pub fn next(&mut self) -> f32 {
        let (u, v) = (self.uniform().max(1e-9), self.uniform());
        (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
    }

    pub fn vector(&mut self, dim: usize, scale: f32) -> Vec<f32> {
        (0..dim).map(|_| scale * self.next()).collect()
    }
}

pub struct Data {
    pub name: String,
    pub dim: usize,
    pub rows: Vec<Vec<f32>>,
    pub queries: Vec<Vec<f32>>,
}

fn add(a: &mut [f32], b: &[f32], factor: f32) {
    for (x, y) in a.iter_mut().zip(b) {
        *x += factor * y;
    }
}

/// CLIP-like: tight low-rank clusters of power-law sizes round super-centers, and a common offset that
/// makes random pairs similar. `cross_modal` queries have another offset.
pub fn clustered(
    dim: usize,
    n: usize,
    queries: usize,
    clusters: usize,
    seed: u64,
    cross_modal: bool,
) -> Data {
    let mut r = Normal::new(seed);
    let unit = 1.0 / (dim as f32).sqrt();
    let offset = r.vector(dim, 1.1 * unit);
    let other = r.vector(dim, 1.1 * unit);
    let supers: Vec<Vec<f32>> = (0..clusters.div_ceil(20)).map(|_| r.vector(dim, 0.7 * unit)).collect();
    const RANK: usize = 24;
    let shared: Vec<Vec<Vec<f32>>> =
        supers.iter().map(|_| (0..RANK).map(|_| r.vector(dim, unit)).collect()).collect();
    let centers: Vec<(usize, Vec<f32>)> = (0..clusters)
        .map(|c| {
            let s = c % supers.len();
            let mut center = supers[s].clone();
            add(&mut center, &r.vector(dim, 0.5 * unit), 1.0);
            (s, center)
        })
        .collect();
    let mut one = |offset: &[f32]| {
        // Cluster k is drawn in proportion to about 1 / sqrt(k).
        let c = ((r.uniform().powi(2)) * clusters as f32) as usize % clusters;
        let (s, center) = &centers[c];
        let mut x = center.clone();
        add(&mut x, offset, 1.0);
        for axis in &shared[*s] {
            add(&mut x, axis, 0.35 / (RANK as f32).sqrt() * r.next());
        }
        add(&mut x, &r.vector(dim, 0.12 * unit), 1.0);
        x
    };
    let rows = (0..n).map(|_| one(&offset)).collect();
    let from = if cross_modal { &other } else { &offset };
    let queries = (0..queries).map(|_| one(from)).collect();
    let kind = if cross_modal { "clustered, cross-modal" } else { "clustered" };
    Data { name: format!("{kind} {n} x {dim}, {clusters} clusters"), dim, rows, queries }
}

/// A smooth manifold: a random network over `latent` normal numbers, with noise.
pub fn manifold(dim: usize, n: usize, queries: usize, latent: usize, seed: u64) -> Data {
    const HIDDEN: usize = 64;
    let mut r = Normal::new(seed);
    let w1: Vec<Vec<f32>> = (0..HIDDEN).map(|_| r.vector(latent, 1.0 / (latent as f32).sqrt())).collect();
    let w2: Vec<Vec<f32>> = (0..HIDDEN).map(|_| r.vector(dim, 1.0 / (HIDDEN as f32).sqrt())).collect();
    let mut one = || {
        let z = r.vector(latent, 1.0);
        let mut x = r.vector(dim, 0.05);
        for (a, b) in w1.iter().zip(&w2) {
            let h: f32 = a.iter().zip(&z).map(|(a, z)| a * z).sum();
            add(&mut x, b, (1.5 * h).tanh());
        }
        x
    };
    let rows = (0..n).map(|_| one()).collect();
    let queries = (0..queries).map(|_| one()).collect();
    Data { name: format!("manifold {n} x {dim}, {latent} latent"), dim, rows, queries }
}

/// A world of image embeddings like CLIP's: 2,000 clusters of power-law sizes round 100 super-centers.
/// Each super-center has a subspace of 60 dimensions that its clusters share; each cluster varies within
/// 30 to 60 dimensions of its own as well; all share an offset, and noise goes everywhere. Measured at
/// 100,000 x 512: random pairs have cosine .58, nearest neighbors .90.
///
/// Nearer to real data, and harder, than [`clustered`]: clusters are wide and overlap.
pub struct ClipLike {
    dim: usize,
    image_offset: Vec<f32>,
    text_offset: Vec<f32>,
    supers: Vec<Vec<f32>>,
    /// For each super-center the axes of its clusters, by numbers of `axes`.
    shared: Vec<Vec<usize>>,
    clusters: Vec<Cluster>,
    axes: Vec<Vec<f32>>,
}

struct Cluster {
    super_center: usize,
    center: Vec<f32>,
    /// Axes of its own, by numbers of `axes`.
    own: Vec<usize>,
}

impl ClipLike {
    const SUPERS: usize = 100;
    const CLUSTERS: usize = 2_000;
    const SHARED_RANK: usize = 60;
    /// Shares of the squared norm, which is about 1.
    const OFFSET: f32 = 0.58;
    const SUPER: f32 = 0.13;
    const CENTER: f32 = 0.09;
    const SHARED: f32 = 0.08;
    const OWN: f32 = 0.09;
    const NOISE: f32 = 0.03;

    pub fn new(dim: usize, seed: u64) -> Self {
        let mut r = Normal::new(seed);
        let unit = 1.0 / (dim as f32).sqrt();
        let image_offset = r.vector(dim, Self::OFFSET.sqrt() * unit);
        let text_offset = r.vector(dim, Self::OFFSET.sqrt() * unit);
        // Subspaces are drawn from a few thousand directions, so that all fit a processor's cache.
        let axes: Vec<Vec<f32>> = (0..3_000).map(|_| r.vector(dim, unit)).collect();
        let supers = (0..Self::SUPERS).map(|_| r.vector(dim, Self::SUPER.sqrt() * unit)).collect();
        let shared = (0..Self::SUPERS).map(|_| r.0.sample(axes.len(), Self::SHARED_RANK)).collect();
        let clusters = (0..Self::CLUSTERS)
            .map(|c| {
                let rank = 30 + r.0.below(31);
                Cluster {
                    super_center: c % Self::SUPERS,
                    center: r.vector(dim, Self::CENTER.sqrt() * unit),
                    own: r.0.sample(axes.len(), rank),
                }
            })
            .collect();
        Self { dim, image_offset, text_offset, supers, shared, clusters, axes }
    }

    /// The embedding of an image.
    pub fn image(&self, r: &mut Normal) -> Vec<f32> {
        self.draw(&self.image_offset, r)
    }

    /// The embedding of a text: the same world, seen from elsewhere; its nearest image has cosine .35.
    pub fn text(&self, r: &mut Normal) -> Vec<f32> {
        self.draw(&self.text_offset, r)
    }

    fn draw(&self, offset: &[f32], r: &mut Normal) -> Vec<f32> {
        // Cluster k is drawn in proportion to about 1 / sqrt(k).
        let number = (r.uniform().powi(2) * Self::CLUSTERS as f32) as usize;
        let cluster = &self.clusters[number.min(Self::CLUSTERS - 1)];
        let mut x = r.vector(self.dim, (Self::NOISE / self.dim as f32).sqrt());
        for part in [offset, &self.supers[cluster.super_center], &cluster.center] {
            add(&mut x, part, 1.0);
        }
        for (axes, share) in [(&self.shared[cluster.super_center], Self::SHARED), (&cluster.own, Self::OWN)] {
            // Variances fall as 1 / i along the axes, as those of real clusters do.
            let sum: f32 = (1..=axes.len()).map(|i| 1.0 / i as f32).sum();
            for (i, &axis) in axes.iter().enumerate() {
                add(&mut x, &self.axes[axis], (share / sum / (i + 1) as f32).sqrt() * r.next());
            }
        }
        x
    }
}

/// Embeddings of one shared latent space: clusters that overlap in `latent` of `dim` dimensions with variances that fall
/// slowly, a little noise everywhere, and an offset common to all. Queries like texts have another offset and twice
/// the noise: what they are off by lies mostly at right angles to all rows.
pub fn latent(dim: usize, n: usize, queries: usize, latent: usize, seed: u64, like_texts: bool) -> Data {
    let mut r = Normal::new(seed);
    let unit = 1.0 / (dim as f32).sqrt();
    let (offset, other) = (r.vector(dim, 1.2 * unit), r.vector(dim, 1.2 * unit));
    let axes: Vec<Vec<f32>> = (0..latent).map(|_| r.vector(dim, unit)).collect();
    let widths: Vec<f32> = (0..latent).map(|i| (1.0 + 6.0 * i as f32 / latent as f32).powf(-0.5)).collect();
    let clusters: Vec<Vec<f32>> = (0..(n / 100).clamp(20, 4000)).map(|_| r.vector(latent, 0.8)).collect();
    let mut one = |offset: &[f32], noise: f32| {
        let center = &clusters[(r.uniform().powf(1.5) * clusters.len() as f32) as usize % clusters.len()];
        let mut x = r.vector(dim, noise * unit);
        add(&mut x, offset, 1.0);
        for ((axis, width), c) in axes.iter().zip(&widths).zip(center) {
            add(&mut x, axis, width * (c + 0.6 * r.next()) * 1.4 / (latent as f32).sqrt());
        }
        x
    };
    let rows = (0..n).map(|_| one(&offset, 0.2)).collect();
    let from = if like_texts { (&other, 0.4) } else { (&offset, 0.2) };
    let queries = (0..queries).map(|_| one(from.0, from.1)).collect();
    let kind = if like_texts { "texts" } else { "images" };
    Data { name: format!("latent {latent} of {dim}, {n} rows, {kind}"), dim, rows, queries }
}

/// Sparse rows without negative elements, as counts of features are: each of a few topics of its cluster turns on a part of the
/// dimensions.
pub fn sparse(dim: usize, n: usize, queries: usize, seed: u64) -> Data {
    let mut r = Normal::new(seed);
    let topics: Vec<Vec<f32>> = (0..dim).map(|_| r.vector(dim, 1.0)).collect();
    let mut one = || {
        let mut x = r.vector(dim, 0.3);
        for _ in 0..6 {
            let topic = (r.uniform().powi(2) * topics.len() as f32) as usize % topics.len();
            let weight = 0.3 + r.uniform();
            add(&mut x, &topics[topic], weight);
        }
        x.iter().map(|v| (v - 1.0).max(0.0)).collect()
    };
    let rows = (0..n).map(|_| one()).collect();
    let queries = (0..queries).map(|_| one()).collect();
    Data { name: format!("sparse, {n} rows"), dim, rows, queries }
}

/// Rows whose norms differ, for inner products: directions without structure and norms from .1 to 10 (`linear`) or log-normal
/// (`lognormal`), or clusters as learned factors form them (`factors`). Queries have norm 1.
pub fn with_norms(dim: usize, n: usize, queries: usize, norms: &str, seed: u64) -> Data {
    let mut r = Normal::new(seed);
    let centers: Vec<Vec<f32>> = (0..200).map(|_| r.vector(dim, 1.0)).collect();
    let unit = |v: Vec<f32>| {
        let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-9);
        v.into_iter().map(|x| x / norm).collect::<Vec<f32>>()
    };
    let direction = |r: &mut Normal| {
        let mut x = r.vector(dim, if norms == "factors" { 0.7 } else { 1.0 });
        if norms == "factors" {
            let center = &centers[(r.uniform() * centers.len() as f32) as usize % centers.len()];
            add(&mut x, center, 1.0);
        }
        unit(x)
    };
    let rows = (0..n).map(|_| {
        let x = direction(&mut r);
        let norm = match norms {
            "linear" => 0.1 + 9.9 * r.uniform(),
            "lognormal" => r.next().exp(),
            _ => (0.5 * r.next()).exp(),
        };
        x.into_iter().map(|v| v * norm).collect()
    });
    let rows = rows.collect();
    let queries = (0..queries).map(|_| direction(&mut r)).collect();
    Data { name: format!("{norms} norms, {n} rows"), dim, rows, queries }
}

/// Turns a fraction of the rows into copies of others, in groups: one of 1,000 copies for each 10,000
/// copied rows at least, the rest of 2 to 10. The order is random.
pub fn duplicate(rows: &mut [Vec<f32>], fraction: f32, seed: u64) {
    let mut r = SplitMix64::new(seed);
    let count = (rows.len() as f32 * fraction) as usize;
    let chosen = r.sample(rows.len(), count);
    let large = count.div_ceil(10_000).min(count / 1_000);
    let mut rest = chosen.as_slice();
    for group in 0.. {
        let size = if group < large { 1_000 } else { 2 + r.below(9) };
        let Some((&original, copies)) = rest.get(..size.min(rest.len())).and_then(<[usize]>::split_first)
        else {
            break;
        };
        for &copy in copies {
            rows[copy] = rows[original].clone();
        }
        rest = &rest[copies.len() + 1..];
    }
}
