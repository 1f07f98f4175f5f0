//! From a graph's output to one vector per item.

use thiserror::Error;

use crate::package::Pooling;
use crate::runtime::Tensor;

/// Which tokens of a batch are no padding.
#[derive(Debug, Clone, Copy)]
pub enum Mask<'a> {
    /// All of them: images have no padding.
    All,
    /// Ones and zeros, `[rows, tokens]` row-major.
    Rows(&'a [i64]),
}

/// What is wrong with a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Flaw {
    /// An element is NaN or infinite.
    #[error("an element is not finite")]
    NotFinite,
    /// All elements are zero.
    #[error("all elements are zero")]
    Zero,
}

/// One vector per row of the batch, or `None` if the shape is none that can be pooled:
/// `[rows, dim]`, `[dim]` of a single row, `[rows, tokens, dim]` or `[rows, dim, height, width]`.
pub(super) fn pool(tensor: &Tensor, pooling: Pooling, mask: Mask<'_>, rows: usize) -> Option<Vec<Vec<f32>>> {
    let data = &tensor.data;
    if data.is_empty() {
        return None;
    }
    match tensor.shape[..] {
        [_] if rows == 1 => Some(vec![data.clone()]),
        [found, dim] if found >= rows => Some(data.chunks_exact(dim).map(<[f32]>::to_vec).collect()),
        [found, tokens, dim] if found >= rows => {
            let pool_row = |(row, item): (usize, &[f32])| {
                let kept: Vec<&[f32]> = match mask {
                    Mask::All => item.chunks_exact(dim).collect(),
                    Mask::Rows(mask) => {
                        let mask = mask.get(row * tokens..(row + 1) * tokens)?;
                        item.chunks_exact(dim)
                            .zip(mask)
                            .filter(|(_, keep)| **keep != 0)
                            .map(|(v, _)| v)
                            .collect()
                    }
                };
                pool_tokens(&kept, dim, pooling)
            };
            data.chunks_exact(tokens * dim).take(rows).enumerate().map(pool_row).collect()
        }
        [found, dim, height, width] if found >= rows => {
            let mean = |plane: &[f32]| plane.iter().sum::<f32>() / (height * width) as f32;
            let planes: Vec<f32> = data.chunks_exact(height * width).map(mean).collect();
            Some(planes.chunks_exact(dim).map(<[f32]>::to_vec).collect())
        }
        _ => None,
    }
}

fn pool_tokens(tokens: &[&[f32]], dim: usize, pooling: Pooling) -> Option<Vec<f32>> {
    let fold = |start: f32, combine: fn(f32, f32) -> f32| {
        tokens.iter().fold(vec![start; dim], |mut total, token| {
            total.iter_mut().zip(*token).for_each(|(total, value)| *total = combine(*total, *value));
            total
        })
    };
    let scaled = |scale: f32| fold(0.0, |a, b| a + b).into_iter().map(|sum| sum * scale).collect();
    if tokens.is_empty() {
        return None;
    }
    Some(match pooling {
        Pooling::First => tokens.first()?.to_vec(),
        Pooling::Last => tokens.last()?.to_vec(),
        Pooling::Mean => scaled(1.0 / tokens.len() as f32),
        Pooling::MeanSqrtLength => scaled(1.0 / (tokens.len() as f32).sqrt()),
        Pooling::Max => fold(f32::NEG_INFINITY, f32::max),
    })
}

/// Proves that a vector is usable and scales it to unit length if wanted. The norm is summed in
/// double precision, so that vectors of any scale keep their direction.
pub(super) fn prove(vector: &mut [f32], normalize: bool) -> Result<(), Flaw> {
    if !vector.iter().all(|value| value.is_finite()) {
        return Err(Flaw::NotFinite);
    }
    let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    if norm == 0.0 {
        return Err(Flaw::Zero);
    }
    if normalize {
        vector.iter_mut().for_each(|value| *value = (f64::from(*value) / norm) as f32);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of three tokens with two dimensions; the second row has one padding token.
    fn tokens() -> (Tensor, [i64; 6]) {
        let data = vec![1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 10.0, 20.0, 30.0, 0.0, 99.0, 99.0];
        (Tensor { shape: vec![2, 3, 2], data }, [1, 1, 1, 1, 1, 0])
    }

    #[test]
    fn every_pooling_ignores_padding() {
        let (tensor, mask) = tokens();
        let sqrt3 = 3_f32.sqrt();
        let sqrt2 = 2_f32.sqrt();
        for (pooling, expected) in [
            (Pooling::First, [[1.0, 2.0], [10.0, 20.0]]),
            (Pooling::Last, [[5.0, 0.0], [30.0, 0.0]]),
            (Pooling::Mean, [[3.0, 2.0], [20.0, 10.0]]),
            (Pooling::MeanSqrtLength, [[9.0 / sqrt3, 6.0 / sqrt3], [40.0 / sqrt2, 20.0 / sqrt2]]),
            (Pooling::Max, [[5.0, 4.0], [30.0, 20.0]]),
        ] {
            let pooled = pool(&tensor, pooling, Mask::Rows(&mask), 2).unwrap();
            for (pooled, expected) in pooled.iter().flatten().zip(expected.iter().flatten()) {
                assert!((pooled - expected).abs() < 1e-5, "{pooling:?}: {pooled} {expected}");
            }
        }
    }

    #[test]
    fn feature_maps_are_averaged_and_odd_shapes_refused() {
        let map = Tensor { shape: vec![1, 2, 2, 2], data: vec![1., 2., 3., 6., 0., 0., 0., 4.] };
        assert_eq!(pool(&map, Pooling::First, Mask::All, 1), Some(vec![vec![3.0, 1.0]]));
        let single = Tensor { shape: vec![3], data: vec![1., 2., 3.] };
        assert_eq!(pool(&single, Pooling::First, Mask::All, 1), Some(vec![vec![1.0, 2.0, 3.0]]));
        assert_eq!(pool(&single, Pooling::First, Mask::All, 2), None);
        let odd = Tensor { shape: vec![1, 1, 1, 1, 2], data: vec![1., 2.] };
        assert_eq!(pool(&odd, Pooling::First, Mask::All, 1), None);
        let empty = Tensor { shape: vec![1, 0], data: vec![] };
        assert_eq!(pool(&empty, Pooling::First, Mask::All, 1), None);
    }

    #[test]
    fn flaws_are_found_and_tiny_vectors_keep_their_direction() {
        assert_eq!(prove(&mut [1.0, f32::NAN], true), Err(Flaw::NotFinite));
        assert_eq!(prove(&mut [0.0, 0.0], true), Err(Flaw::Zero));
        let mut tiny = [3e-30_f32, 4e-30];
        prove(&mut tiny, true).unwrap();
        assert!((tiny[0] - 0.6).abs() < 1e-6 && (tiny[1] - 0.8).abs() < 1e-6, "{tiny:?}");
    }
}
