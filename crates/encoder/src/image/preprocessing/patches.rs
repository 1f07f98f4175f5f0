//! Patches instead of a tensor of fixed size: Gemma's vision encoders take a picture in its own shape.
//!
//! A picture is scaled so that it has as many patches as fit into a budget, each side a multiple of a patch times
//! the kernel by which patches are pooled. Its patches go out in rows, with their places; what is left of the budget
//! is filled with zeros at place -1. The rules are those of the image processor of Gemma 4 in `transformers`.

use serde_json::Value;

use super::geometry::Size;
use super::settings::{Settings, SettingsError};
use super::{Normalization, PreprocessError};
use crate::image::error::ImageError;
use crate::image::raster::RgbImage;
use crate::image::resample::{self, Filter, Window};

/// What one picture may become: the choices that the model was trained with.
const SOFT_TOKENS: [u64; 5] = [70, 140, 280, 560, 1120];

/// Larger kernels than any model has would only make room for absurd numbers of patches.
const MAX_KERNEL: u32 = 4;

/// How a picture becomes patches.
#[derive(Clone, Debug, PartialEq)]
pub struct Patching {
    /// Pixels of a patch's side.
    pub patch: u32,
    /// Patches of a soft token's side.
    pub kernel: u32,
    /// Most soft tokens of a picture.
    pub soft_tokens: u32,
    /// Filter of the resize.
    pub filter: Filter,
    /// From bytes to floats.
    pub normalization: Normalization,
}

/// A picture as patches.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// `[patches, patch * patch * 3]`: rows, columns and channels of each patch.
    pub pixels: Vec<f32>,
    /// `[patches, 2]`: column and row of each patch, -1 for filling.
    pub positions: Vec<i64>,
    /// Soft tokens that the vision encoder makes of it.
    pub soft_tokens: usize,
}

impl Patching {
    /// Reads the image processor's settings.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn from_hf(value: &Value) -> Result<Patching, SettingsError> {
        let settings = Settings::new(value)?;
        let side = |key: &str, unless_told: u32| {
            let read = |value: &Value| value.as_u64().filter(|side| (1..=32).contains(side));
            let told = settings.read(key, "a number from 1 to 32", read)?;
            Ok::<u32, SettingsError>(told.map_or(unless_told, |side| side as u32))
        };
        let read = |value: &Value| value.as_u64().filter(|count| SOFT_TOKENS.contains(count));
        let soft_tokens = settings.read("max_soft_tokens", "70, 140, 280, 560 or 1120", read)?;
        let scale = settings.number("rescale_factor")?.unwrap_or(1.0 / 255.0);
        let is_on = |key: &str, unless_told| settings.bool(key).map(|told| told.unwrap_or(unless_told));
        let (mean, std) = if is_on("do_normalize", false)? {
            let mean = settings.channels("image_mean")?.unwrap_or([0.0; 3]);
            (mean, settings.channels("image_std")?.unwrap_or([1.0; 3]))
        } else {
            ([0.0; 3], [1.0; 3])
        };
        let scale = if is_on("do_rescale", true)? { scale } else { 1.0 };
        if !is_on("do_resize", true)? || std.contains(&0.0) {
            let (key, value) = ("do_resize".to_owned(), "false".to_owned());
            return Err(SettingsError::Unsupported { key, value });
        }
        let filter =
            settings.read("resample", "a filter of Pillow", |value| Filter::from_pillow(value.as_u64()?))?;
        Ok(Patching {
            patch: side("patch_size", 16)?,
            kernel: side("pooling_kernel_size", 3)?.min(MAX_KERNEL),
            soft_tokens: soft_tokens.map_or(280, |count| count as u32),
            filter: filter.unwrap_or(Filter::Bicubic),
            normalization: Normalization { scale, offset: 0.0, mean, std },
        })
    }

    /// Patches that each picture is filled up to.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.soft_tokens as usize * (self.kernel * self.kernel) as usize
    }

    /// Floats of a patch.
    #[must_use]
    pub fn patch_len(&self) -> usize {
        (self.patch * self.patch * 3) as usize
    }

    /// The size to which a picture is scaled. Its area is at most the budget, so that one of its sides has at least
    /// one unit.
    fn target(&self, from: Size) -> Size {
        let (height, width) = (f64::from(from.height), f64::from(from.width));
        let side = f64::from(self.kernel * self.patch);
        let pixels = self.patches() as f64 * f64::from(self.patch * self.patch);
        let factor = (pixels / (height * width)).sqrt();
        let units = |length: f64| ((factor * length) / side).floor();
        let most = f64::from(self.soft_tokens);
        let (rows, columns) = match (units(height), units(width)) {
            (0.0, _) => (1.0, (width / height).floor().min(most)),
            (_, 0.0) => ((height / width).floor().min(most), 1.0),
            units => units,
        };
        Size { height: (rows * side) as u32, width: (columns * side) as u32 }
    }

    /// The patches of `image`.
    ///
    /// # Errors
    /// Memory is refused.
    pub fn apply(&self, image: &RgbImage) -> Result<Patches, PreprocessError> {
        let from = Size { height: image.height(), width: image.width() };
        let size = self.target(from);
        let window = Window { left: 0, top: 0, width: size.width, height: size.height };
        let scaled = resample::resize(image, size.width, size.height, window, self.filter)?;
        let samples = scaled.upright_pixels()?;

        let (patch, patch_len) = (self.patch as usize, self.patch_len());
        let (rows, columns) = (size.height as usize / patch, size.width as usize / patch);
        let floats = self.patches() * patch_len;
        let mut pixels: Vec<f32> = Vec::new();
        let bytes = floats * size_of::<f32>();
        pixels.try_reserve_exact(floats).map_err(|_| ImageError::OutOfMemory { bytes })?;
        let tables = self.normalization.tables();
        let stride = 3 * size.width as usize;
        for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
            for y in 0..patch {
                let start = (row * patch + y) * stride + column * patch * 3;
                let line = samples[start..start + 3 * patch].chunks_exact(3);
                pixels.extend(
                    line.flat_map(|rgb| [0, 1, 2].map(|channel| tables[channel][usize::from(rgb[channel])])),
                );
            }
        }
        pixels.resize(floats, 0.0);
        let places =
            (0..rows).flat_map(|row| (0..columns).flat_map(move |column| [column as i64, row as i64]));
        let mut positions: Vec<i64> = places.collect();
        positions.resize(2 * self.patches(), -1);
        let soft_tokens = rows * columns / (self.kernel * self.kernel) as usize;
        Ok(Patches { pixels, positions, soft_tokens })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gemma() -> Patching {
        Patching::from_hf(&serde_json::json!({ "image_processor_type": "Gemma4ImageProcessor" })).unwrap()
    }

    #[test]
    fn pictures_keep_their_shape_within_the_budget() {
        let target = |width, height| gemma().target(Size { height, width });
        // The budget is 280 squares of 48 pixels.
        assert_eq!(target(48, 48), Size { height: 768, width: 768 });
        assert_eq!(target(640, 480), Size { height: 672, width: 912 });
        assert_eq!(target(1, 3000), Size { height: 280 * 48, width: 48 });
        assert_eq!(target(3000, 2), Size { height: 48, width: 280 * 48 });
        for (width, height) in [(1, 1), (7, 3), (9999, 1), (1, 281), (50_000, 1000), (333, 1000)] {
            let Size { height, width } = target(width, height);
            assert!(height % 48 == 0 && width % 48 == 0 && height > 0 && width > 0);
            assert!(u64::from(height) * u64::from(width) <= 280 * 48 * 48, "{width} x {height}");
        }
    }

    #[test]
    fn settings_are_checked() {
        let read = |key: &str, value: Value| {
            let mut settings = serde_json::json!({});
            settings[key] = value;
            Patching::from_hf(&settings)
        };
        assert_eq!(read("max_soft_tokens", 140.into()).unwrap().patches(), 1260);
        for (key, value) in [
            ("max_soft_tokens", Value::from(100)),
            ("patch_size", 0.into()),
            ("pooling_kernel_size", 1000.into()),
            ("resample", 99.into()),
            ("do_resize", false.into()),
        ] {
            assert!(read(key, value.clone()).is_err(), "{key} {value}");
        }
    }
}
