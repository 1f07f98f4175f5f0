//! What the processor does better than portable code: half precision to single, eight at a time, where it can (F16C). The
//! crate `half` uses the same instructions, but calls a function for every eight elements, which takes longer than they do.
#![allow(unsafe_code, reason = "the one place of the crate for it")]

use half::f16;
use half::slice::HalfFloatSliceExt as _;

/// Converts; exact.
///
/// # Panics
/// If the lengths differ.
pub fn widen(halves: &[f16], out: &mut [f32]) {
    assert_eq!(halves.len(), out.len(), "a place for each element");
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("f16c") && std::arch::is_x86_feature_detected!("avx") {
        // SAFETY: the processor has these instructions.
        unsafe { x86::widen(halves, out) };
        return;
    }
    halves.convert_to_f32_slice(out);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use half::f16;
    use half::slice::HalfFloatSliceExt as _;
    use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};

    /// See [`super::widen`].
    #[target_feature(enable = "avx,f16c")]
    pub fn widen(halves: &[f16], out: &mut [f32]) {
        let (eights, rest) = halves.as_chunks::<8>();
        let (places, last) = out.as_chunks_mut::<8>();
        for (eight, place) in eights.iter().zip(places) {
            // SAFETY: 16 bytes are read and 32 written, which the arrays have; neither needs to be aligned.
            unsafe {
                let bits = _mm_loadu_si128(eight.as_ptr().cast());
                _mm256_storeu_ps(place.as_mut_ptr(), _mm256_cvtph_ps(bits));
            }
        }
        rest.convert_to_f32_slice(last);
    }
}
