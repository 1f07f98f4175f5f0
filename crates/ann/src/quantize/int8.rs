//! A vector as 8-bit integers with one scale, and an exact bound on what that loses.

/// What besides the codes describes a quantized vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Int8 {
    /// What codes are multiplied by: the factor that makes the error smallest.
    pub scale: f32,
    /// Upper bound on the norm of `vector - scale * codes`.
    pub error: f32,
    /// Squared norm of `scale * codes`.
    pub norm_squared: f32,
}

/// Quantizes `vector` into `codes` of the same length. Finite elements whose squares add up to a finite
/// f32 give finite results; a vector of zeros has scale 0.
#[allow(clippy::cast_possible_truncation, reason = "values within -127 to 127; f64 results rounded to f32")]
pub fn quantize(vector: &[f32], codes: &mut [i8]) -> Int8 {
    assert_eq!(vector.len(), codes.len());
    let largest = vector.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    if largest < f32::MIN_POSITIVE {
        codes.fill(0);
        let error = norm(vector.iter().map(|&x| f64::from(x)));
        return Int8 { scale: 0.0, error: rounded_up(error), norm_squared: 0.0 };
    }
    let inverse = 127.0 / largest;
    // A largest element near the bottom of f32 has an infinite inverse; f64 does not.
    if inverse.is_finite() {
        for (code, &x) in codes.iter_mut().zip(vector) {
            *code = nearest(x * inverse);
        }
    } else {
        for (code, &x) in codes.iter_mut().zip(vector) {
            *code = (f64::from(x) * 127.0 / f64::from(largest)).round_ties_even() as i8;
        }
    }
    let (mut dot, mut squares) = (0.0f64, 0i64);
    for (chunk, codes) in vector.chunks(64).zip(codes.chunks(64)) {
        let (mut part, mut square) = ([0.0f32; 16], 0i32);
        for (x, c) in chunk.chunks(16).zip(codes.chunks(16)) {
            for ((sum, &x), &c) in part.iter_mut().zip(x).zip(c) {
                *sum += x * f32::from(c);
                square += i32::from(c) * i32::from(c);
            }
        }
        dot += part.iter().map(|&x| f64::from(x)).sum::<f64>();
        squares += i64::from(square);
    }
    let scale = (dot / squares as f64) as f32;
    let mut error = [0.0f32; 16];
    for (x, c) in vector.chunks(16).zip(codes.chunks(16)) {
        for ((sum, &x), &c) in error.iter_mut().zip(x).zip(c) {
            let e = (x - scale * f32::from(c)) / largest;
            *sum += e * e;
        }
    }
    // Each f32 sum of up to 250 squares is right to 1e-5, its root to half of that; the subtraction of
    // rounded products adds up to 2^-23 of the largest element per dimension.
    let sum: f64 = error.iter().map(|&x| f64::from(x)).sum();
    let lost = (sum.sqrt() * (1.0 + 1e-4) + 2.4e-7 * (vector.len() as f64).sqrt()) * f64::from(largest);
    let norm_squared = f64::from(scale) * f64::from(scale) * squares as f64;
    Int8 { scale, error: rounded_up(lost), norm_squared: norm_squared as f32 }
}

/// The nearest integer, the even one of two. `x` is within -127 to 127. With 1.5 * 2^23 added, a float has no bits for
/// fractions and the integer in its last bits; unlike a call of `rint`, this is done for several numbers at once.
#[allow(clippy::cast_possible_truncation, reason = "the last byte is meant")]
fn nearest(x: f32) -> i8 {
    ((x + 12_582_912.0).to_bits() as u8).cast_signed()
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

#[allow(clippy::cast_possible_truncation, reason = "rounded, then moved up")]
fn rounded_up(x: f64) -> f32 {
    if x == 0.0 { 0.0 } else { ((x * (1.0 + 1e-6)) as f32).max(f32::MIN_POSITIVE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_integer_is_that_of_the_reference() {
        for i in -127 * 64..=127 * 64 {
            let x = i as f32 / 64.0;
            for x in [x, x.next_up().min(127.0), x.next_down().max(-127.0)] {
                assert_eq!(nearest(x), x.round_ties_even() as i8, "{x}");
            }
        }
    }
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_error_bound_holds(v in proptest::collection::vec(-1.0f32..1.0, 1..600), power in -30i32..17) {
            let v: Vec<f32> = v.iter().map(|x| x * 10f32.powi(power)).collect();
            let mut codes = vec![0; v.len()];
            let q = quantize(&v, &mut codes);
            let exact = norm(v.iter().zip(&codes).map(|(&x, &c)| f64::from(x) - f64::from(q.scale) * f64::from(c)));
            let size = norm(v.iter().map(|&x| f64::from(x)));
            prop_assert!(exact <= f64::from(q.error), "{} {}", exact, q.error);
            prop_assert!(f64::from(q.error) <= 0.02 * size * (v.len() as f64).sqrt() + 1e-37, "useful");
        }
    }

    #[test]
    fn known_answers() {
        let mut codes = [0; 4];
        let q = quantize(&[127.0, -64.0, 0.0, 1.0], &mut codes);
        assert_eq!((codes, q.scale), ([127, -64, 0, 1], 1.0));
        assert!(q.error < 1e-3);
        assert_eq!(q.norm_squared, 127.0 * 127.0 + 64.0 * 64.0 + 1.0);
    }

    #[test]
    fn zeros_and_subnormals() {
        let mut codes = [1; 64];
        assert_eq!(quantize(&[0.0; 64], &mut codes), Int8 { scale: 0.0, error: 0.0, norm_squared: 0.0 });
        assert_eq!(codes, [0; 64]);
        let q = quantize(&[1e-40; 64], &mut codes);
        assert!(q.scale == 0.0 && q.error > 0.0 && codes == [0; 64]);
        let q = quantize(&[2e-38; 64], &mut codes);
        assert!(q.scale.is_finite() && codes == [127; 64]);
    }
}
