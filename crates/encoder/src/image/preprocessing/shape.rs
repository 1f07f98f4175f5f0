//! Pictures in their own shape: ViLT takes a tensor as wide and high as the picture's sides have it.
//!
//! The shorter side gets its length unless the longer one would become too long for it, and then both are rounded down
//! to a multiple of a patch. The rules are those of ViLT's image processor in `transformers`.

use super::geometry::Size;
use super::{Normalization, PreprocessError};
use crate::image::error::ImageError;
use crate::image::raster::RgbImage;
use crate::image::resample::{self, Filter, Window};

/// The longer side is at most this much of the shorter one's length: the usual sizes of COCO's pictures.
const LONGER: f64 = 1333.0 / 800.0;

/// How a picture becomes a tensor of its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Shaping {
    /// Length of the shorter side, if the longer one allows it.
    pub shorter: u32,
    /// Sides are multiples of this, and at least as long.
    pub divisor: u32,
    /// Filter of the resize.
    pub filter: Filter,
    /// From bytes to floats.
    pub normalization: Normalization,
}

/// A picture as a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Shaped {
    /// `[3, height, width]`.
    pub pixels: Vec<f32>,
    /// Height and width.
    pub size: Size,
}

impl Shaping {
    /// The size of the tensor of a picture.
    #[must_use]
    pub fn target(&self, image: &RgbImage) -> Size {
        self.target_of(Size { height: image.height(), width: image.width() })
    }

    fn target_of(&self, from: Size) -> Size {
        let (height, width) = (f64::from(from.height), f64::from(from.width));
        let shorter = f64::from(self.shorter);
        let longest = (LONGER * shorter).floor();
        let scale = shorter / height.min(width);
        let (mut height, mut width) =
            if height < width { (shorter, scale * width) } else { (scale * height, shorter) };
        let longer = height.max(width);
        if longer > longest {
            let scale = longest / longer;
            (height, width) = (scale * height, scale * width);
        }
        // A very thin picture would lose a side, which the reference refuses; one patch is kind.
        let side = |length: f64| ((length + 0.5) as u32 / self.divisor * self.divisor).max(self.divisor);
        Size { height: side(height), width: side(width) }
    }

    /// The tensor of `image`.
    ///
    /// # Errors
    /// Memory is refused.
    pub fn apply(&self, image: &RgbImage) -> Result<Shaped, PreprocessError> {
        let size = self.target(image);
        let window = Window { left: 0, top: 0, width: size.width, height: size.height };
        let scaled = resample::resize(image, size.width, size.height, window, self.filter)?;
        let samples = scaled.upright_pixels()?;
        let mut pixels: Vec<f32> = Vec::new();
        let bytes = samples.len() * size_of::<f32>();
        pixels.try_reserve_exact(samples.len()).map_err(|_| ImageError::OutOfMemory { bytes })?;
        for (channel, table) in self.normalization.tables().iter().enumerate() {
            pixels.extend(samples[channel..].iter().step_by(3).map(|&sample| table[usize::from(sample)]));
        }
        Ok(Shaped { pixels, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn vilt() -> Shaping {
        let settings =
            json!({ "feature_extractor_type": "ViltFeatureExtractor", "size": 384, "size_divisor": 32 });
        Shaping::from_hf(&settings).unwrap()
    }

    #[test]
    fn sides_are_multiples_of_a_patch_and_the_longer_one_is_bounded() {
        let target = |width, height| {
            let Size { height, width } = vilt().target_of(Size { height, width });
            (width, height)
        };
        assert_eq!(target(640, 480), (512, 384));
        assert_eq!(target(480, 640), (384, 512));
        assert_eq!(target(500, 500), (384, 384));
        assert_eq!(target(1, 1), (384, 384));
        // 639 is the longest side, and 608 the multiple below it.
        assert_eq!(target(4000, 1000), (608, 160));
        assert_eq!(target(1, 50_000), (32, 608));
        assert_eq!(target(50_000, 2), (608, 32));
    }

    #[test]
    fn settings_are_those_of_the_class_unless_a_file_says_otherwise() {
        let shaping = vilt();
        assert_eq!((shaping.shorter, shaping.divisor, shaping.filter), (384, 32, Filter::Bicubic));
        assert_eq!(shaping.normalization.mean, [0.5; 3]);
        let read = |key: &str, value: Value| {
            let mut settings = json!({ "image_processor_type": "ViltImageProcessorFast" });
            settings[key] = value;
            Shaping::from_hf(&settings)
        };
        assert_eq!(read("size", json!({ "shortest_edge": 48 })).unwrap().shorter, 48);
        for (key, value) in [
            ("size", json!({ "height": 384, "width": 384 })),
            ("size", json!({ "shortest_edge": 48, "longest_edge": 90 })),
            ("size", json!({ "shortest_edge": 0 })),
            ("size", json!(5000)),
            ("size_divisor", json!(0)),
            ("size_divisor", json!(1000)),
            ("do_resize", json!(false)),
            ("do_center_crop", json!(true)),
            ("image_std", json!([0.5, 0.0, 0.5])),
            ("image_processor_type", json!("CLIPImageProcessor")),
            ("something_new", json!(3)),
        ] {
            assert!(read(key, value.clone()).is_err(), "{key} {value}");
        }
    }
}
