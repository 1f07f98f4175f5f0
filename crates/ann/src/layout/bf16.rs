//! bfloat16: the upper half of an f32. Full f32 range, relative error 1/256 at most.
//!
//! The factors of an edge code carry an error of several percent by nature, so eight bits of precision
//! are enough; half floats would overflow on unnormalized data and need a scale per index.

/// Nearest value, ties to even. Overflow saturates at the largest finite value; NaN is not expected.
#[inline]
#[must_use]
pub fn nearest(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + ((bits >> 16) & 1)) >> 16;
    let code = u16::try_from(rounded & 0xFFFF).expect("masked");
    if code & 0x7F80 == 0x7F80 { (code & 0x8000) | 0x7F7F } else { code }
}

/// Smallest representable value that is not below `x`, which is not negative. Saturates.
#[must_use]
pub fn at_least(x: f32) -> u16 {
    debug_assert!(x >= 0.0);
    let code = u16::try_from(x.to_bits() >> 16).expect("shifted");
    let code = if to_f32(code) < x { code + 1 } else { code };
    code.min(0x7F7F)
}

/// The value.
#[inline]
#[must_use]
pub fn to_f32(code: u16) -> f32 {
    f32::from_bits(u32::from(code) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounds_within_its_precision(x in -1e30f32..1e30) {
            let back = to_f32(nearest(x));
            prop_assert!((back - x).abs() <= x.abs() / 256.0);
            let up = to_f32(at_least(x.abs()));
            prop_assert!(up >= x.abs() && up <= x.abs() * (1.0 + 1.0 / 128.0));
        }
    }

    #[test]
    fn known_answers() {
        assert_eq!(nearest(1.0), 0x3F80);
        assert_eq!(nearest(-2.0), 0xC000);
        assert_eq!(nearest(0.0), 0);
        assert_eq!(nearest(f32::MAX), 0x7F7F);
        assert_eq!(nearest(f32::NEG_INFINITY), 0xFF7F);
        assert_eq!(to_f32(at_least(1.000_001)), 1.007_812_5);
    }
}
