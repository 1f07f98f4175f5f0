//! A vector as 8-bit integers with one scale, and an exact bound on what that loses.

use crate::arch::scalar::nearest;
use crate::layout::bf16;

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
    described(vector, codes, (dot / squares as f64) as f32, squares, largest)
}

/// As [`quantize`], with a scale that bfloat16 can hold: not the best one, but the smallest that reaches the largest element.
#[allow(clippy::cast_possible_truncation, reason = "values within -127 to 127")]
pub fn quantize_in_steps(vector: &[f32], codes: &mut [i8]) -> Int8 {
    assert_eq!(vector.len(), codes.len());
    let largest = vector.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let scale = bf16::to_f32(bf16::at_least(largest / 127.0));
    // Below this, products of codes and scale leave f32.
    if scale < f32::MIN_POSITIVE {
        codes.fill(0);
        let error = norm(vector.iter().map(|&x| f64::from(x)));
        return Int8 { scale: 0.0, error: rounded_up(error), norm_squared: 0.0 };
    }
    let inverse = 1.0 / f64::from(scale);
    let mut squares = 0i64;
    #[allow(clippy::cast_possible_truncation, reason = "within f32 unless infinite, which is asked for")]
    let short = inverse as f32;
    for (codes, x) in codes.chunks_mut(64).zip(vector.chunks(64)) {
        let mut square = 0i32;
        for (code, &x) in codes.iter_mut().zip(x) {
            *code = nearest(if short.is_finite() { x * short } else { (f64::from(x) * inverse) as f32 });
            square += i32::from(*code) * i32::from(*code);
        }
        squares += i64::from(square);
    }
    described(vector, codes, scale, squares, largest)
}

/// What quantizing lost. `squares` is the sum of the squared codes, `largest` the size of the largest element.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "f64 results rounded to f32")]
fn described(vector: &[f32], codes: &[i8], scale: f32, squares: i64, largest: f32) -> Int8 {
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
    use crate::arch::scalar::nearest;

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

            let q = quantize_in_steps(&v, &mut codes);
            let exact = norm(v.iter().zip(&codes).map(|(&x, &c)| f64::from(x) - f64::from(q.scale) * f64::from(c)));
            prop_assert!(exact <= f64::from(q.error), "{} {}", exact, q.error);
            prop_assert!(f64::from(q.error) <= 0.02 * size * (v.len() as f64).sqrt() + 1e-35, "useful");
            prop_assert_eq!(q.scale, bf16::to_f32(bf16::nearest(q.scale)));
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
