//! Distances and norms of f32 vectors, `f64` out.
//!
//! The fast path is simsimd, which picks a kernel for the processor at run time and accumulates in
//! f32. Where its result says that f32 was not enough (overflow, underflow, a zero vector), the scalar
//! f64 twin decides; the twins are also what the tests judge the kernels by. Inputs are finite, as
//! every constructor of a vector checks; lengths are equal, as the caller checks.

use simsimd::SpatialSimilarity;

/// Squared Euclidean distance.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn l2_squared(a: &[f32], b: &[f32]) -> f64 {
    match f32::l2sq(a, b) {
        Some(d) if F32_RELIABLE.contains(&d) => d,
        _ => scalar::l2_squared(a, b),
    }
}

/// Euclidean distance.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn l2(a: &[f32], b: &[f32]) -> f64 {
    l2_squared(a, b).sqrt()
}

/// Inner product; larger is nearer.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn inner_product(a: &[f32], b: &[f32]) -> f64 {
    match <f32 as SpatialSimilarity>::dot(a, b) {
        Some(d) if F32_RELIABLE.contains(&d.abs()) => d,
        _ => wide_inner_product(a, b),
    }
}

/// The inner product in f64, in sums that the compiler may keep in vector registers: zeros between sparse vectors are
/// no exception.
fn wide_inner_product(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = scalar::inner_product(a_chunks.remainder(), b_chunks.remainder());
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            sums[i] += f64::from(x[i]) * f64::from(y[i]);
        }
    }
    sums.iter().sum::<f64>() + tail
}

/// Cosine distance, `1 - cos`, within `0..=2`, and exactly 0 between equal vectors. NaN if either vector
/// is zero: a zero vector has no direction, and NaN sorts after every number, as in pgvector.
///
/// Three inner products rather than simsimd's fused kernel, which approximates the square root: at 512
/// dimensions that costs 60 ns more, and buys a distance to itself of 0 instead of about 1e-8.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = <f32 as SpatialSimilarity>::dot;
    match (dot(a, b), dot(a, a), dot(b, b)) {
        (Some(ab), Some(aa), Some(bb))
            if ab.is_finite() && F32_RELIABLE.contains(&aa) && F32_RELIABLE.contains(&bb) =>
        {
            1.0 - (ab / (aa * bb).sqrt()).clamp(-1.0, 1.0)
        }
        _ => scalar::cosine(a, b),
    }
}

/// The inner product of a vector with itself, for [`cosine_by_squares`].
#[must_use]
pub fn square(a: &[f32]) -> f64 {
    <f32 as SpatialSimilarity>::dot(a, a).unwrap_or(f64::NAN)
}

/// Exactly [`cosine`], with the [`square`] of each vector known: it takes a third of the time.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn cosine_by_squares(a: &[f32], b: &[f32], aa: f64, bb: f64) -> f64 {
    match <f32 as SpatialSimilarity>::dot(a, b) {
        Some(ab) if ab.is_finite() && F32_RELIABLE.contains(&aa) && F32_RELIABLE.contains(&bb) => {
            1.0 - (ab / (aa * bb).sqrt()).clamp(-1.0, 1.0)
        }
        _ => scalar::cosine(a, b),
    }
}

/// Manhattan distance: the sum of absolute differences.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn l1(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of one length");
    // Independent sums, so that the compiler may keep them in vector registers. simsimd has no L1.
    const LANES: usize = 16;
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail = scalar::l1(a_chunks.remainder(), b_chunks.remainder());
    for (x, y) in a_chunks.zip(b_chunks) {
        for i in 0..LANES {
            sums[i] += (x[i] - y[i]).abs();
        }
    }
    let sum = sums.iter().copied().map(f64::from).sum::<f64>() + tail;
    if sum.is_finite() { sum } else { scalar::l1(a, b) }
}

/// Euclidean norm, accumulated in f64 (as pgvector's `vector_norm`).
#[must_use]
pub fn norm(a: &[f32]) -> f64 {
    scalar::inner_product(a, a).sqrt()
}

/// Angular distance of two unit vectors, `acos(a.b) / pi`, within `0..=1`.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn spherical(a: &[f32], b: &[f32]) -> f64 {
    inner_product(a, b).clamp(-1.0, 1.0).acos() / std::f64::consts::PI
}

/// Sums of squares outside may have lost addends: f32 squares of elements below about 1e-19 are
/// subnormal or zero, and of elements above about 1e19 infinite.
const F32_RELIABLE: std::ops::Range<f64> = 1e-30..3e38;

/// The references: plain loops in f64.
pub mod scalar {
    fn pairs<'a>(a: &'a [f32], b: &'a [f32]) -> impl Iterator<Item = (f64, f64)> + 'a {
        assert_eq!(a.len(), b.len(), "vectors of one length");
        a.iter().zip(b).map(|(&x, &y)| (f64::from(x), f64::from(y)))
    }

    /// See [`super::l2_squared`].
    #[must_use]
    pub fn l2_squared(a: &[f32], b: &[f32]) -> f64 {
        pairs(a, b).map(|(x, y)| (x - y) * (x - y)).sum()
    }

    /// See [`super::inner_product`].
    #[must_use]
    pub fn inner_product(a: &[f32], b: &[f32]) -> f64 {
        pairs(a, b).map(|(x, y)| x * y).sum()
    }

    /// See [`super::l1`].
    #[must_use]
    pub fn l1(a: &[f32], b: &[f32]) -> f64 {
        pairs(a, b).map(|(x, y)| (x - y).abs()).sum()
    }

    /// See [`super::cosine`].
    #[must_use]
    pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let norms = inner_product(a, a).sqrt() * inner_product(b, b).sqrt();
        if norms == 0.0 {
            return f64::NAN;
        }
        1.0 - (inner_product(a, b) / norms).clamp(-1.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        (1usize..200).prop_flat_map(|n| {
            (proptest::collection::vec(-10.0f32..10.0, n), proptest::collection::vec(-10.0f32..10.0, n))
        })
    }

    proptest! {
        #[test]
        fn kernels_agree_with_their_scalar_twins((a, b) in vectors()) {
            let scale = norm(&a) * norm(&b);
            prop_assert!((inner_product(&a, &b) - scalar::inner_product(&a, &b)).abs() <= 1e-5 * scale + 1e-12);
            let exact = scalar::l2_squared(&a, &b);
            prop_assert!((l2_squared(&a, &b) - exact).abs() <= 1e-5 * exact);
            let exact = scalar::l1(&a, &b);
            prop_assert!((l1(&a, &b) - exact).abs() <= 1e-5 * exact);
            prop_assert!((cosine(&a, &b) - scalar::cosine(&a, &b)).abs() <= 1e-5);
        }

        #[test]
        fn a_vector_is_nearest_to_itself((a, _) in vectors()) {
            prop_assert_eq!(l2(&a, &a), 0.0);
            prop_assert_eq!(l1(&a, &a), 0.0);
            if norm(&a) > 0.0 {
                prop_assert_eq!(cosine(&a, &a), 0.0);
            }
        }

        #[test]
        fn distances_are_symmetric((a, b) in vectors()) {
            prop_assert_eq!(l2(&a, &b), l2(&b, &a));
            prop_assert_eq!(l1(&a, &b), l1(&b, &a));
            prop_assert_eq!(cosine(&a, &b), cosine(&b, &a));
            prop_assert_eq!(cosine(&a, &b), cosine_by_squares(&a, &b, square(&a), square(&b)));
        }
    }

    #[test]
    fn known_answers_at_every_kernel_width() {
        for n in 1u8..=130 {
            let a: Vec<f32> = (0..n).map(f32::from).collect();
            let b: Vec<f32> = (0..n).map(|i| f32::from(i) + 2.0).collect();
            assert_eq!(l2(&a, &b), 2.0 * f64::from(n).sqrt(), "{n} dimensions");
            assert_eq!(l1(&a, &b), 2.0 * f64::from(n), "{n} dimensions");
            let expected: f64 = (0..i64::from(n)).map(|i| (i * (i + 2)) as f64).sum();
            assert_eq!(inner_product(&a, &b), expected, "{n} dimensions");
        }
    }

    #[test]
    fn zero_vectors_have_no_cosine() {
        assert!(cosine(&[0.0, 0.0], &[1.0, 2.0]).is_nan());
        assert!(cosine(&[1.0, 2.0], &[0.0, 0.0]).is_nan());
        assert!(cosine(&[0.0], &[0.0]).is_nan());
        assert!(cosine_by_squares(&[0.0], &[0.0], 0.0, 0.0).is_nan());
    }

    #[test]
    fn orthogonal_and_opposite() {
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 1.0]), 1.0);
        assert_eq!(cosine(&[1.0, 1.0], &[-1.0, -1.0]), 2.0);
        assert_eq!(spherical(&[1.0, 0.0], &[0.0, 1.0]), 0.5);
    }

    #[test]
    fn f32_overflow_and_underflow_fall_back_to_f64() {
        assert!((l2(&[3e38], &[-3e38]) / 6e38 - 1.0).abs() < 1e-6);
        assert!((l1(&[3e38], &[-3e38]) / 6e38 - 1.0).abs() < 1e-6);
        assert!((inner_product(&[3e38], &[3e38]) / 9e76 - 1.0).abs() < 1e-6);
        assert!(cosine(&[3e38, 3e38], &[3e38, 3e38]).abs() < 1e-9);
        assert!((l2(&[3e-30], &[0.0]) / 3e-30 - 1.0).abs() < 1e-6);
        assert!(cosine(&[1e-30, 1e-30], &[2e-30, 2e-30]).abs() < 1e-9);
        assert!((cosine(&[1e-30, 0.0], &[0.0, 1e-30]) - 1.0).abs() < 1e-9);
        for n in 1..40 {
            // Products of single precision would all be zero: rows would tie that do not.
            let (near, far, query) = (vec![-3.89e-24; n], vec![-6.89e-24; n], vec![3.01e-24; n]);
            assert!((inner_product(&near, &query) / (-1.17089e-47 * n as f64) - 1.0).abs() < 1e-6);
            assert!(inner_product(&far, &query) < inner_product(&near, &query));
        }
    }

    #[test]
    #[should_panic(expected = "vectors of one length")]
    fn lengths_must_agree() {
        let _ = l2(&[1.0], &[1.0, 2.0]);
    }
}
