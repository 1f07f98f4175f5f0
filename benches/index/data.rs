//! Data sets: rows, queries of one or several kinds, and rows that are inserted later. Generated with a fixed
//! seed, or read from a file.

use crate::attributes::Attributes;
use crate::generate::{ClipLike, Normal, duplicate, latent, manifold, sparse, with_norms};
use imgvec_vector::distance;
use std::path::Path;

pub const DIM: usize = 512;
const SEED: u64 = 20_26;

/// How distances are taken; decides operator and operator class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    Cosine,
    L2,
    InnerProduct,
}

impl Metric {
    pub fn distance(self, a: &[f32], b: &[f32]) -> f64 {
        match self {
            Self::Cosine => distance::cosine(a, b),
            Self::L2 => distance::l2(a, b),
            Self::InnerProduct => -distance::inner_product(a, b),
        }
    }

    pub fn operator(self) -> &'static str {
        match self {
            Self::Cosine => "<=>",
            Self::L2 => "<->",
            Self::InnerProduct => "<#>",
        }
    }

    /// As in the names of operator classes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::L2 => "l2",
            Self::InnerProduct => "ip",
        }
    }
}

/// Queries of one kind.
pub struct Queries {
    pub kind: &'static str,
    pub vectors: Vec<Vec<f32>>,
}

/// A row's number is its `id` in the tables.
pub struct Set {
    pub name: String,
    pub metric: Metric,
    /// `loaded` rows to begin with, and a fifth more to insert.
    pub rows: Vec<Vec<f32>>,
    pub loaded: usize,
    pub queries: Vec<Queries>,
    /// What filters ask for, of each row.
    pub attributes: Attributes,
}

/// The generated sets.
pub const SETS: [&str; 11] = [
    "latent48",
    "latent96",
    "latent192",
    "clustered",
    "manifold",
    "duplicates",
    "pairs",
    "sparse",
    "linear",
    "lognormal",
    "factors",
];

impl Set {
    pub fn dim(&self) -> usize {
        self.rows[0].len()
    }

    /// One of the generated sets.
    pub fn generate(name: &str, loaded: usize, queries: usize) -> Option<Self> {
        let total = loaded + loaded / 5;
        let one = |kind, vectors| Queries { kind, vectors };
        let (metric, rows, queries) = match name {
            "clustered" | "duplicates" => {
                let world = ClipLike::new(DIM, SEED);
                let mut r = Normal::new(SEED + 1);
                let mut rows: Vec<Vec<f32>> = (0..total).map(|_| world.image(&mut r)).collect();
                let mut kinds = vec![one("images", (0..queries).map(|_| world.image(&mut r)).collect())];
                if name == "clustered" {
                    kinds.push(one("cross-modal", (0..queries).map(|_| world.text(&mut r)).collect()));
                } else {
                    duplicate(&mut rows, 0.3, SEED + 2);
                }
                (Metric::Cosine, rows, kinds)
            }
            "manifold" => {
                let data = manifold(DIM, total, queries, 28, SEED);
                (Metric::L2, data.rows, vec![one("alike", data.queries)])
            }
            "latent48" | "latent96" | "latent192" => {
                let width = name["latent".len()..].parse().expect("a width");
                let data = latent(DIM, total, queries, width, SEED, false);
                let texts = latent(DIM, total, queries, width, SEED, true).queries;
                (Metric::Cosine, data.rows, vec![one("images", data.queries), one("texts", texts)])
            }
            "pairs" => {
                // Each second row is a picture that was saved again.
                let data = latent(DIM, total, queries, 96, SEED + 3, false);
                let mut r = Normal::new(SEED + 4);
                let mut rows = data.rows;
                for i in (1..total).step_by(2) {
                    rows[i] = rows[i - 1].iter().map(|x| x + 2e-3 * r.next()).collect();
                }
                (Metric::Cosine, rows, vec![one("images", data.queries)])
            }
            "sparse" => {
                let data = sparse(DIM, total, queries, SEED);
                (Metric::Cosine, data.rows, vec![one("alike", data.queries)])
            }
            "linear" | "lognormal" | "factors" => {
                let data = with_norms(96, total, queries, name, SEED);
                (Metric::InnerProduct, data.rows, vec![one("any", data.queries)])
            }
            _ => return None,
        };
        let attributes = Attributes::new(&rows, loaded);
        Some(Self { name: name.to_owned(), metric, rows, loaded, queries, attributes })
    }

    /// Vectors of a user, as cosine neighbors: the last `queries` of them, evenly spread, become queries.
    ///
    /// # Panics
    /// If there are too few, or of several dimensions.
    pub fn of_vectors(name: &str, vectors: Vec<Vec<f32>>, queries: usize) -> Self {
        let queries = queries.min(vectors.len() / 5);
        assert!(queries >= 5, "{name} has {} vectors; 25 at least are needed", vectors.len());
        let dim = vectors[0].len();
        assert!(vectors.iter().all(|v| v.len() == dim), "{name} has vectors of several dimensions");
        let step = vectors.len() / queries;
        let (mut rows, mut asked) = (Vec::new(), Vec::new());
        for (i, vector) in vectors.into_iter().enumerate() {
            let is_query = i % step == step - 1 && asked.len() < queries;
            if is_query { &mut asked } else { &mut rows }.push(vector);
        }
        let loaded = rows.len() * 5 / 6;
        let queries = vec![Queries { kind: "held out", vectors: asked }];
        let attributes = Attributes::new(&rows, loaded);
        Self { name: name.to_owned(), metric: Metric::Cosine, rows, loaded, queries, attributes }
    }
}

impl Set {
    /// Adds queries of a kind that are no rows, such as embedded texts: `queries` of them, evenly spread.
    ///
    /// # Panics
    /// If they have another dimension than the rows.
    pub fn ask(&mut self, kind: &'static str, vectors: Vec<Vec<f32>>, queries: usize) {
        assert!(vectors.iter().all(|v| v.len() == self.dim()), "{kind} and rows differ in dimensions");
        let step = (vectors.len() / queries).max(1);
        let vectors = vectors.into_iter().step_by(step).take(queries).collect();
        self.queries.push(Queries { kind, vectors });
    }
}

/// Reads `.fvecs`, or `.npy` of two dimensions and little-endian f4.
///
/// # Panics
/// If the file cannot be read or is of another kind.
pub fn read(path: &Path) -> Vec<Vec<f32>> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    let decoded = match path.extension().and_then(|e| e.to_str()) {
        Some("fvecs") => fvecs(&bytes),
        Some("npy") => npy(&bytes),
        _ => panic!("{} is neither .npy nor .fvecs", path.display()),
    };
    decoded.unwrap_or_else(|| panic!("{} is damaged, or holds no rows of 4-byte floats", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect()
}

/// Each vector after its dimension as a 4-byte integer.
fn fvecs(mut bytes: &[u8]) -> Option<Vec<Vec<f32>>> {
    let mut vectors = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
        let (vector, rest) = rest.split_at_checked(4 * usize::try_from(i32::from_le_bytes(*head)).ok()?)?;
        vectors.push(floats(vector));
        bytes = rest;
    }
    Some(vectors)
}

/// NumPy's format: magic, version, length of a textual header, header, values in C order.
fn npy(bytes: &[u8]) -> Option<Vec<Vec<f32>>> {
    let bytes = bytes.strip_prefix(b"\x93NUMPY")?;
    let (&[major, _], bytes) = bytes.split_first_chunk::<2>()?;
    let (length, bytes) = if major == 1 {
        let (length, bytes) = bytes.split_first_chunk::<2>()?;
        (usize::from(u16::from_le_bytes(*length)), bytes)
    } else {
        let (length, bytes) = bytes.split_first_chunk::<4>()?;
        (usize::try_from(u32::from_le_bytes(*length)).ok()?, bytes)
    };
    let (header, body) = bytes.split_at_checked(length)?;
    let header = std::str::from_utf8(header).ok()?;
    if !header.contains("'<f4'") || !header.contains("'fortran_order': False") {
        return None;
    }
    let shape = header.split_once("'shape': (")?.1.split_once(')')?.0;
    let (_, dim) = shape.split_once(',')?;
    let dim: usize = dim.trim().trim_end_matches(',').parse().ok().filter(|&dim| dim > 0)?;
    Some(floats(body).chunks_exact(dim).map(<[f32]>::to_vec).collect())
}
