//! From the sample layouts that decoders produce to RGB, translucent pixels on white.
//!
//! `transformers` pastes an image with alpha on a white page (`convert_to_rgb`), and so do we;
//! the rounding is that of Pillow's `MULDIV255`.

use super::error::ImageError;
use super::memory::try_zeroed;

/// 8-bit samples as a decoder delivers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
}

impl Layout {
    pub(super) fn channels(self) -> usize {
        match self {
            Self::Gray => 1,
            Self::GrayAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }

    /// Bytes per pixel held at once while [`to_rgb`] works on an image of this layout.
    pub(super) fn peak_bytes_per_pixel(self) -> u64 {
        match self {
            Self::Gray => 1 + 3,
            Self::GrayAlpha => 2 + 3,
            // Converted in place.
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

/// Blends a sample with white: `(value * alpha + 255 * (255 - alpha)) / 255`, rounded.
#[inline]
fn on_white(value: u8, alpha: u8) -> u8 {
    let sum = u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 128;
    // Exact division by 255 for sums below 2^16; at most 255 * 255 + 128 here.
    ((sum + (sum >> 8)) >> 8) as u8
}

/// Converts `samples` to RGB triples.
pub(super) fn to_rgb(layout: Layout, mut samples: Vec<u8>) -> Result<Vec<u8>, ImageError> {
    match layout {
        Layout::Rgb => Ok(samples),
        Layout::Rgba => {
            let pixels = samples.len() / 4;
            for i in 0..pixels {
                let [r, g, b, a] = [0, 1, 2, 3].map(|c| samples[4 * i + c]);
                samples[3 * i..3 * i + 3].copy_from_slice(&[r, g, b].map(|v| on_white(v, a)));
            }
            samples.truncate(3 * pixels);
            Ok(samples)
        }
        Layout::Gray | Layout::GrayAlpha => {
            let channels = layout.channels();
            let mut rgb = try_zeroed(samples.len() / channels * 3)?;
            for (triple, pixel) in rgb.chunks_exact_mut(3).zip(samples.chunks_exact(channels)) {
                triple.fill(if channels == 1 { pixel[0] } else { on_white(pixel[0], pixel[1]) });
            }
            Ok(rgb)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blending_rounds_the_exact_quotient() {
        for value in 0..=255_u8 {
            for alpha in 0..=255_u8 {
                let exact = f64::from(value) * f64::from(alpha) / 255.0 + 255.0 - f64::from(alpha);
                assert_eq!(on_white(value, alpha), (exact + 0.5).floor() as u8, "{value} {alpha}");
            }
        }
    }

    #[test]
    fn every_layout_becomes_triples() {
        assert_eq!(to_rgb(Layout::Gray, vec![7, 9]).unwrap(), [7, 7, 7, 9, 9, 9]);
        assert_eq!(to_rgb(Layout::GrayAlpha, vec![7, 255, 9, 0]).unwrap(), [7, 7, 7, 255, 255, 255]);
        assert_eq!(to_rgb(Layout::Rgba, vec![1, 2, 3, 255, 0, 0, 0, 51]).unwrap(), [1, 2, 3, 204, 204, 204]);
    }
}
