//! What vectors are made of: single-precision numbers, or half-precision ones.
//!
//! All arithmetic is that of single precision. Half-precision elements are widened, which is exact, and results are
//! rounded to the nearest, ties to even: sums, differences and products are then what half-precision arithmetic gives.

use crate::arch;
use half::f16;
use std::borrow::Cow;

/// An element of a vector.
pub trait Element: Copy + PartialOrd + 'static {
    /// As single precision; exact.
    fn to_f32(self) -> f32;

    /// The nearest, ties to even; infinite beyond the range.
    fn from_f32(value: f32) -> Self;

    /// Neither NaN nor infinite.
    fn is_finite(self) -> bool;

    /// All of them as single precision, without a copy where they are that.
    fn widen(elements: &[Self]) -> Cow<'_, [f32]>;

    /// From a message, of as many bytes as an element has.
    ///
    /// # Panics
    /// If there are fewer or more.
    fn from_be_slice(bytes: &[u8]) -> Self;

    /// Appends the bytes of a message.
    fn push_be(self, out: &mut Vec<u8>);
}

impl Element for f32 {
    fn to_f32(self) -> f32 {
        self
    }

    fn from_f32(value: f32) -> Self {
        value
    }

    fn is_finite(self) -> bool {
        self.is_finite()
    }

    fn widen(elements: &[Self]) -> Cow<'_, [f32]> {
        Cow::Borrowed(elements)
    }

    fn from_be_slice(bytes: &[u8]) -> Self {
        Self::from_be_bytes(bytes.try_into().expect("four bytes"))
    }

    fn push_be(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

impl Element for f16 {
    fn to_f32(self) -> f32 {
        self.to_f32()
    }

    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }

    fn is_finite(self) -> bool {
        self.is_finite()
    }

    fn widen(elements: &[Self]) -> Cow<'_, [f32]> {
        let mut singles = vec![0.0; elements.len()];
        arch::widen(elements, &mut singles);
        Cow::Owned(singles)
    }

    fn from_be_slice(bytes: &[u8]) -> Self {
        Self::from_be_bytes(bytes.try_into().expect("two bytes"))
    }

    fn push_be(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_exactly_and_comes_back() {
        let all: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|x| Element::is_finite(*x)).collect();
        let wide = f16::widen(&all);
        for (&half, &single) in all.iter().zip(wide.iter()) {
            // By the definition of the format: sign, five bits of exponent, ten of fraction.
            let bits = half.to_bits();
            let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 0x3ff));
            let magnitude = match exponent {
                0 => fraction * 2f32.powi(-24),
                _ => (1024.0 + fraction) * 2f32.powi(exponent - 25),
            };
            assert_eq!(single.abs(), magnitude, "{bits:#x}");
            assert_eq!(single.is_sign_negative(), bits >> 15 == 1);
            assert_eq!(Element::to_f32(half).to_bits(), single.to_bits());
            assert_eq!(<f16 as Element>::from_f32(single).to_bits(), bits);
        }
        for count in 0..40 {
            assert_eq!(&f16::widen(&all[1..=count])[..], &wide[1..=count], "{count} elements");
        }
    }

    #[test]
    fn rounding_is_to_the_nearest_and_ties_are_even() {
        let rounded = |x: f32| Element::to_f32(<f16 as Element>::from_f32(x));
        assert_eq!([2049.0, 2051.0, 2049.001].map(rounded), [2048.0, 2052.0, 2050.0]);
        assert_eq!([65519.0, -65519.0].map(rounded), [65504.0, -65504.0]);
        assert_eq!([65520.0, -7e4].map(rounded), [f32::INFINITY, f32::NEG_INFINITY]);
        let least = 2f32.powi(-24);
        assert_eq!([least / 2.0, least * 0.500_001, least * 1.5].map(rounded), [0.0, least, 2.0 * least]);
    }
}
