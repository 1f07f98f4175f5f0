//! Element-wise arithmetic that refuses to leave the range of its elements.

use crate::element::Element;

/// A result that is no finite element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// Too large.
    #[error("value out of range: overflow")]
    Overflow,
    /// Not zero, but too small.
    #[error("value out of range: underflow")]
    Underflow,
}

fn combine<T: Element>(
    a: &[T],
    b: &[T],
    out: &mut [T],
    op: impl Fn(f32, f32) -> f32,
) -> Result<(), RangeError> {
    assert!(a.len() == b.len() && a.len() == out.len(), "vectors of one length");
    for ((&x, &y), o) in a.iter().zip(b).zip(out.iter_mut()) {
        *o = T::from_f32(op(x.to_f32(), y.to_f32()));
    }
    if out.iter().all(|v| v.is_finite()) { Ok(()) } else { Err(RangeError::Overflow) }
}

/// `out = a + b`.
///
/// # Errors
/// [`RangeError::Overflow`].
///
/// # Panics
/// If the lengths differ.
pub fn add<T: Element>(a: &[T], b: &[T], out: &mut [T]) -> Result<(), RangeError> {
    combine(a, b, out, |x, y| x + y)
}

/// `out = a - b`.
///
/// # Errors
/// [`RangeError::Overflow`].
///
/// # Panics
/// If the lengths differ.
pub fn subtract<T: Element>(a: &[T], b: &[T], out: &mut [T]) -> Result<(), RangeError> {
    combine(a, b, out, |x, y| x - y)
}

/// `out = a * b`, element by element.
///
/// # Errors
/// [`RangeError`]; a product of non-zero elements that becomes zero is an underflow.
///
/// # Panics
/// If the lengths differ.
pub fn multiply<T: Element>(a: &[T], b: &[T], out: &mut [T]) -> Result<(), RangeError> {
    combine(a, b, out, |x, y| x * y)?;
    let is_zero = |x: T| x.to_f32() == 0.0;
    let lost = a.iter().zip(b).zip(out.iter()).any(|((&x, &y), &o)| is_zero(o) && !is_zero(x) && !is_zero(y));
    if lost { Err(RangeError::Underflow) } else { Ok(()) }
}

/// `out = a * factor`.
///
/// # Errors
/// [`RangeError`]; a product of non-zero numbers that becomes zero is an underflow.
///
/// # Panics
/// If the lengths differ.
pub fn scale<T: Element>(a: &[T], factor: f64, out: &mut [T]) -> Result<(), RangeError> {
    assert_eq!(a.len(), out.len(), "vectors of one length");
    for (o, &x) in out.iter_mut().zip(a) {
        *o = T::from_f32((f64::from(x.to_f32()) * factor) as f32);
        if !o.is_finite() {
            return Err(RangeError::Overflow);
        }
        if o.to_f32() == 0.0 && x.to_f32() != 0.0 && factor != 0.0 {
            return Err(RangeError::Underflow);
        }
    }
    Ok(())
}

/// Adds the direction of `a`, `weight` times: `sum += weight * a / |a|`. Returns the magnitude of what it added: the zero
/// vector adds nothing.
///
/// # Panics
/// If the lengths differ.
pub fn add_direction(a: &[f32], weight: f64, sum: &mut [f64]) -> f64 {
    assert_eq!(a.len(), sum.len(), "vectors of one length");
    let norm = crate::distance::norm(a);
    if norm == 0.0 {
        return 0.0;
    }
    sum.iter_mut().zip(a).for_each(|(sum, &x)| *sum += weight * (f64::from(x) / norm));
    weight.abs()
}

/// The unit vector of a sum of directions whose weights have magnitudes of `total` together. `false`, with nothing
/// written, if they cancel each other, so that what is left is rounding.
///
/// # Panics
/// If the lengths differ.
pub fn unit_of_sum(sum: &[f64], total: f64, out: &mut [f32]) -> bool {
    assert_eq!(sum.len(), out.len(), "vectors of one length");
    // Elements come from single precision: what is left of equal directions is of this order.
    const ROUNDING: f64 = 1e-6;
    let norm = sum.iter().map(|x| (x / total).powi(2)).sum::<f64>().sqrt();
    if norm.is_nan() || norm <= ROUNDING {
        return false;
    }
    for (o, &x) in out.iter_mut().zip(sum) {
        *o = (x / total / norm) as f32;
    }
    true
}

/// `out = a / |a|`; the zero vector stays zero.
///
/// # Panics
/// If the lengths differ.
pub fn normalize<T: Element>(a: &[T], out: &mut [T]) {
    assert_eq!(a.len(), out.len(), "vectors of one length");
    let a = T::widen(a);
    let norm = crate::distance::norm(&a);
    if norm == 0.0 {
        out.fill(T::from_f32(0.0));
        return;
    }
    for (o, &x) in out.iter_mut().zip(a.iter()) {
        *o = T::from_f32((f64::from(x) / norm) as f32);
    }
}

/// Lexicographic order by value, shorter first on a common prefix: the btree order of the type.
/// `-0.0` equals `0.0`.
#[must_use]
pub fn compare<T: Element>(a: &[T], b: &[T]) -> std::cmp::Ordering {
    a.partial_cmp(b).expect("elements of a vector are never NaN")
}

/// The bits of an element as hashing sees them: equal elements have equal bits.
#[must_use]
pub fn hash_bits<T: Element>(element: T) -> u32 {
    let element = element.to_f32();
    if element == 0.0 { 0 } else { element.to_bits() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use std::cmp::Ordering;

    #[test]
    fn range_is_checked() {
        let mut out = [0.0f32; 1];
        assert_eq!(add(&[3e38], &[3e38], &mut out), Err(RangeError::Overflow));
        assert_eq!(subtract(&[3e38], &[-3e38], &mut out), Err(RangeError::Overflow));
        assert_eq!(multiply(&[1e30], &[1e30], &mut out), Err(RangeError::Overflow));
        assert_eq!(multiply(&[1e-30], &[1e-30], &mut out), Err(RangeError::Underflow));
        assert_eq!(multiply(&[0.0], &[1e-30], &mut out), Ok(()));
        assert_eq!(add(&[1.5], &[2.0], &mut out), Ok(()));
        assert_eq!(out, [3.5]);
    }

    #[test]
    fn halves_have_their_own_range() {
        let half = |x: f32| [f16::from_f32(x)];
        let mut out = half(9.0);
        assert_eq!(add(&half(65504.0), &half(16.0), &mut out), Err(RangeError::Overflow));
        assert_eq!(add(&half(65504.0), &half(15.0), &mut out), Ok(()));
        assert_eq!(out, half(65504.0));
        assert_eq!(subtract(&half(-65504.0), &half(65504.0), &mut out), Err(RangeError::Overflow));
        assert_eq!(multiply(&half(256.0), &half(256.0), &mut out), Err(RangeError::Overflow));
        assert_eq!(multiply(&half(1e-4), &half(1e-4), &mut out), Err(RangeError::Underflow));
        assert_eq!(scale(&half(1.0), 1e-9, &mut out), Err(RangeError::Underflow));
        assert_eq!(scale(&half(2.0), 1e5, &mut out), Err(RangeError::Overflow));
        assert_eq!(scale(&half(2.0), -0.25, &mut out), Ok(()));
        assert_eq!(out, half(-0.5));
        // The sum of squares is beyond the range, the norm and its quotient are not.
        let mut unit = [f16::ZERO; 2];
        normalize(&[3e4, 4e4].map(f16::from_f32), &mut unit);
        assert_eq!(unit, [0.6, 0.8].map(f16::from_f32));
        assert_eq!(compare(&[-0.0, 1.0].map(f16::from_f32), &[0.0, 2.0].map(f16::from_f32)), Ordering::Less);
        assert_eq!(hash_bits(f16::from_f32(-0.0)), hash_bits(f16::from_f32(0.0)));
    }

    #[test]
    fn normalize_is_safe_at_the_edges() {
        let mut out = [9.0f32; 2];
        normalize(&[3.0, 4.0], &mut out);
        assert_eq!(out, [0.6, 0.8]);
        normalize(&[0.0, 0.0], &mut out);
        assert_eq!(out, [0.0, 0.0]);
        normalize(&[3e38, 0.0], &mut out);
        assert_eq!(out, [1.0, 0.0]);
        normalize(&[0.0, 1e-40], &mut out);
        assert_eq!(out, [0.0, 1.0]);
    }

    #[test]
    fn scaling_is_checked() {
        let mut out = [0.0f32; 2];
        assert_eq!(scale(&[1.5, -2.0], 2.0, &mut out), Ok(()));
        assert_eq!(out, [3.0, -4.0]);
        assert_eq!(scale(&[1.0, 2.0], 0.0, &mut out), Ok(()));
        assert_eq!(scale(&[1.0, 3e38], 2.0, &mut out), Err(RangeError::Overflow));
        assert_eq!(scale(&[1.0, 1.0], f64::NAN, &mut out), Err(RangeError::Overflow));
        assert_eq!(scale(&[1.0, 1e-30], 1e-30, &mut out), Err(RangeError::Underflow));
    }

    #[test]
    fn directions_are_mixed_whatever_their_lengths_and_cancelling_ones_are_noticed() {
        let (mut sum, mut out) = ([0.0; 2], [0.0; 2]);
        let added = [
            add_direction(&[3e38, 0.0], 3e300, &mut sum),
            add_direction(&[0.0, 1e-40], -4e300, &mut sum),
            add_direction(&[0.0, 0.0], 1e300, &mut sum),
        ];
        assert_eq!(added, [3e300, 4e300, 0.0]);
        assert!(unit_of_sum(&sum, 7e300, &mut out));
        assert_eq!(out, [0.6, -0.8]);
        let mut sum = [0.0; 2];
        add_direction(&[0.6, 0.8], 0.5, &mut sum);
        add_direction(&[0.3, 0.4], -0.5, &mut sum);
        assert!(!unit_of_sum(&sum, 1.0, &mut out));
        assert!(!unit_of_sum(&[0.0; 2], 0.0, &mut out));
    }

    #[test]
    fn order_is_lexicographic() {
        assert_eq!(compare(&[1.0f32, 2.0], &[1.0, 3.0]), Ordering::Less);
        assert_eq!(compare(&[1.0f32], &[1.0, 0.0]), Ordering::Less);
        assert_eq!(compare(&[2.0f32], &[1.0, 9.0]), Ordering::Greater);
        assert_eq!(compare(&[-0.0f32], &[0.0]), Ordering::Equal);
        assert_eq!(hash_bits(-0.0f32), hash_bits(0.0f32));
    }
}
