//! Patches instead of a tensor of fixed size: some vision encoders take a picture in its own shape.
//!
//! A picture is scaled so that it has about as many patches as fit into a budget. Its patches go out in rows; what is left
//! of the budget is filled with zeros. How sides become whole patches differs ([`Fit`]): the rules are those of the image
//! processors of Gemma 4 and of SigLIP 2 (NaFlex) in `transformers`.

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

/// Where the bisection of [`Fit::Cover`] ends.
const SCALE_STEP: f64 = 1e-5;

/// The largest scale that it tries.
const MAX_SCALE: f64 = 100.0;

/// How a picture becomes patches.
#[derive(Clone, Debug, PartialEq)]
pub struct Patching {
    /// Pixels of a patch's side.
    pub patch: u32,
    /// How its sides become whole patches.
    pub fit: Fit,
    /// Filter of the resize.
    pub filter: Filter,
    /// From bytes to floats.
    pub normalization: Normalization,
}

/// How the sides of a picture become whole patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Gemma 4: patches are pooled to soft tokens. Sides are rounded down to whole ones of the largest area within the budget.
    Pool {
        /// Patches of a soft token's side.
        kernel: u32,
        /// Most soft tokens of a picture.
        soft_tokens: u32,
    },
    /// SigLIP 2: sides are rounded up to whole patches, at the largest scale that is within the budget.
    Cover {
        /// Most patches of a picture.
        patches: u32,
    },
}

/// Rows and columns of a picture's patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Patches from top to bottom, at least one.
    pub rows: usize,
    /// Patches from left to right, at least one.
    pub columns: usize,
}

/// A picture as patches.
#[derive(Clone, Debug, PartialEq)]
pub struct Patches {
    /// `[patches, patch * patch * 3]`: rows, columns and channels of each patch, then zeros up to the budget.
    pub pixels: Vec<f32>,
    /// How the patches lie.
    pub grid: Grid,
}

impl Grid {
    /// The smallest.
    pub const ONE: Grid = Grid { rows: 1, columns: 1 };

    /// Number of patches.
    #[must_use]
    pub fn patches(self) -> usize {
        self.rows * self.columns
    }

    /// `[patches, 2]`: column and row of each patch, and -1 from there up to so many.
    #[must_use]
    pub fn positions(self, patches: usize) -> Vec<i64> {
        let row = |row| (0..self.columns).flat_map(move |column| [column as i64, row as i64]);
        let mut positions: Vec<i64> = (0..self.rows).flat_map(row).collect();
        positions.resize(2 * patches, -1);
        positions
    }
}

impl Fit {
    /// Patches that each picture is filled up to.
    fn patches(self) -> u32 {
        match self {
            Fit::Pool { kernel, soft_tokens } => soft_tokens * kernel * kernel,
            Fit::Cover { patches } => patches,
        }
    }

    /// The patches of a picture, whose sides have so many pixels each.
    fn grid(self, from: Size, patch: u32) -> Grid {
        let (height, width, patch) = (f64::from(from.height), f64::from(from.width), f64::from(patch));
        match self {
            Fit::Pool { kernel, soft_tokens } => {
                let side = f64::from(kernel) * patch;
                let pixels = f64::from(self.patches()) * patch * patch;
                let factor = (pixels / (height * width)).sqrt();
                let units = |length: f64| ((factor * length) / side).floor();
                let most = f64::from(soft_tokens);
                // The area is at most the budget, so that one of the sides has at least one unit.
                let (rows, columns) = match (units(height), units(width)) {
                    (0.0, _) => (1.0, (width / height).floor().min(most)),
                    (_, 0.0) => ((height / width).floor().min(most), 1.0),
                    units => units,
                };
                let patches = |units: f64| units as usize * kernel as usize;
                Grid { rows: patches(rows), columns: patches(columns) }
            }
            Fit::Cover { patches } => {
                let most = f64::from(patches);
                let cover = |scale: f64| {
                    let units = |length: f64| (length * scale / patch).ceil().max(1.0);
                    (units(height), units(width))
                };
                let (mut scale, mut above) = (SCALE_STEP / 10.0, MAX_SCALE);
                while above - scale >= SCALE_STEP {
                    let middle = (scale + above) / 2.0;
                    let (rows, columns) = cover(middle);
                    if rows * columns <= most { scale = middle } else { above = middle }
                }
                let (rows, columns) = cover(scale);
                // The smallest scale leaves a side of millions of pixels too long, which the reference refuses.
                let rows = rows.min(most);
                Grid { rows: rows as usize, columns: columns.min((most / rows).floor()) as usize }
            }
        }
    }
}

impl Patching {
    /// Reads the settings of Gemma's image processor.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn gemma_from_hf(value: &Value) -> Result<Patching, SettingsError> {
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
            fit: Fit::Pool {
                kernel: side("pooling_kernel_size", 3)?.min(MAX_KERNEL),
                soft_tokens: soft_tokens.map_or(280, |count| count as u32),
            },
            filter: filter.unwrap_or(Filter::Bicubic),
            normalization: Normalization { scale, offset: 0.0, mean, std },
        })
    }

    /// Patches that each picture is filled up to.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.fit.patches() as usize
    }

    /// Settings of `max_soft_tokens` below today's, largest first, with the patches that each picture is then filled up to. None where
    /// pictures have no soft tokens.
    pub fn fewer_soft_tokens(&self) -> impl Iterator<Item = (u64, usize)> + use<> {
        let (now, kernel) = match self.fit {
            Fit::Pool { kernel, soft_tokens } => (u64::from(soft_tokens), kernel),
            Fit::Cover { .. } => (0, 0),
        };
        let patches = move |tokens: u64| Fit::Pool { kernel, soft_tokens: tokens as u32 }.patches() as usize;
        let fewer = SOFT_TOKENS.into_iter().rev().filter(move |&tokens| tokens < now);
        fewer.map(move |tokens| (tokens, patches(tokens)))
    }

    /// Floats of a patch.
    #[must_use]
    pub fn patch_len(&self) -> usize {
        (self.patch * self.patch * 3) as usize
    }

    /// Soft tokens that an encoder makes of so many patches.
    #[must_use]
    pub fn soft_tokens(&self, grid: Grid) -> usize {
        match self.fit {
            Fit::Pool { kernel, .. } => grid.patches() / (kernel * kernel) as usize,
            Fit::Cover { .. } => grid.patches(),
        }
    }

    /// The patches of `image`.
    ///
    /// # Errors
    /// Memory is refused.
    pub fn apply(&self, image: &RgbImage) -> Result<Patches, PreprocessError> {
        let floats = self.patches() * self.patch_len();
        let bytes = floats * size_of::<f32>();
        let mut pixels: Vec<f32> = Vec::new();
        pixels.try_reserve_exact(floats).map_err(|_| ImageError::OutOfMemory { bytes })?;
        pixels.resize(floats, 0.0);
        let grid = self.apply_to(image, &mut pixels)?;
        Ok(Patches { pixels, grid })
    }

    /// Writes the patches of `image` into `out`, `[patches, patch * patch * 3]`, which is filled up with zeros.
    ///
    /// # Errors
    /// `out` has the wrong length, or memory is refused.
    pub fn apply_to(&self, image: &RgbImage, out: &mut [f32]) -> Result<Grid, PreprocessError> {
        let expected = self.patches() * self.patch_len();
        if out.len() != expected {
            return Err(PreprocessError::OutputLength { expected, found: out.len() });
        }
        let grid = self.fit.grid(Size { height: image.height(), width: image.width() }, self.patch);
        // A grid is within the budget, whose sides are far below 2^32.
        let (height, width) = (grid.rows as u32 * self.patch, grid.columns as u32 * self.patch);
        let window = Window { left: 0, top: 0, width, height };
        let scaled = resample::resize(image, width, height, window, self.filter)?;
        let samples = scaled.upright_pixels()?;

        let patch = self.patch as usize;
        let tables = self.normalization.tables();
        let stride = 3 * width as usize;
        let (used, rest) = out.split_at_mut(grid.patches() * self.patch_len());
        for (number, values) in used.chunks_exact_mut(self.patch_len()).enumerate() {
            let (row, column) = (number / grid.columns, number % grid.columns);
            for (y, line) in values.chunks_exact_mut(3 * patch).enumerate() {
                let start = (row * patch + y) * stride + column * patch * 3;
                let samples = samples[start..start + 3 * patch].chunks_exact(3);
                for (pixel, rgb) in line.chunks_exact_mut(3).zip(samples) {
                    for (channel, value) in pixel.iter_mut().enumerate() {
                        *value = tables[channel][usize::from(rgb[channel])];
                    }
                }
            }
        }
        rest.fill(0.0);
        Ok(grid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gemma() -> Patching {
        Patching::gemma_from_hf(&serde_json::json!({ "image_processor_type": "Gemma4ImageProcessor" }))
            .unwrap()
    }

    #[test]
    fn pictures_keep_their_shape_within_the_budget() {
        let target = |width, height| {
            let Grid { rows, columns } = gemma().fit.grid(Size { height, width }, 16);
            Size { height: 16 * rows as u32, width: 16 * columns as u32 }
        };
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
            Patching::gemma_from_hf(&settings)
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

    fn naflex(settings: &[(&str, Value)]) -> Result<Patching, SettingsError> {
        let mut all = serde_json::json!({ "image_processor_type": "Siglip2ImageProcessorFast" });
        for (key, value) in settings {
            all[*key] = value.clone();
        }
        Patching::naflex_from_hf(&all)
    }

    #[test]
    fn patches_cover_pictures_within_the_budget() {
        let naflex = naflex(&[]).unwrap();
        let grid = |width, height| {
            let Grid { rows, columns } = naflex.fit.grid(Size { height, width }, 16);
            (rows, columns)
        };
        // What the reference gives.
        assert_eq!(grid(48, 48), (16, 16));
        assert_eq!(grid(640, 480), (14, 18));
        assert_eq!(grid(1, 3000), (256, 1));
        assert_eq!(grid(1500, 61), (3, 74));
        // No picture is enlarged more than a hundred times.
        assert_eq!(grid(1, 1), (7, 7));
        for budget in [1, 2, 3, 255, 256, 4096] {
            let fit = Fit::Cover { patches: budget };
            for (width, height) in
                [(1, 1), (3, 7), (50_000_000, 1), (1, u32::MAX), (7071, 7071), (u32::MAX, u32::MAX)]
            {
                for patch in [1, 16, 64] {
                    let grid = fit.grid(Size { height, width }, patch);
                    assert!(grid.rows > 0 && grid.columns > 0, "{width} x {height}, {patch}, {budget}");
                    assert!(grid.patches() <= budget as usize, "{width} x {height}, {patch}, {budget}");
                }
            }
        }
    }

    #[test]
    fn patches_are_filled_up_with_zeros() {
        let patching = naflex(&[("patch_size", 2.into()), ("max_num_patches", 5.into())]).unwrap();
        assert_eq!((patching.patches(), patching.patch_len()), (5, 12));
        let pixels: Vec<u8> = (0..24).map(|value| 10 * value).collect();
        let image = RgbImage::new(4, 2, pixels).unwrap();
        let mut out = vec![9.0; 60];
        assert_eq!(patching.apply_to(&image, &mut out).unwrap(), Grid { rows: 1, columns: 2 });
        // The second patch has the two right pixels of both rows, red, green and blue of each.
        let bytes: Vec<u32> =
            out[12..24].iter().map(|value| ((value + 1.0) * 127.5).round() as u32).collect();
        assert_eq!(bytes, [60, 70, 80, 90, 100, 110, 180, 190, 200, 210, 220, 230]);
        assert_eq!(out[24..], [0.0; 36]);
        assert_eq!(patching.apply(&image).unwrap().pixels, out);
        assert!(patching.apply_to(&image, &mut out[1..]).is_err());
        assert_eq!(Grid { rows: 2, columns: 1 }.positions(3), [0, 0, 0, 1, -1, -1]);
    }

    #[test]
    fn settings_of_naflex_are_checked() {
        for (key, value) in [
            ("max_num_patches", Value::from(0)),
            ("max_num_patches", 4097.into()),
            ("max_num_patches", "many".into()),
            ("patch_size", 0.into()),
            ("patch_size", 65.into()),
            ("patch_size", 1.5.into()),
            ("resample", 99.into()),
            ("do_resize", false.into()),
            ("do_center_crop", true.into()),
            ("image_std", 0.into()),
            ("image_processor_type", "SiglipImageProcessor".into()),
            ("do_something_else", true.into()),
        ] {
            let error = naflex(&[(key, value.clone())]).expect_err("the setting makes no sense");
            assert!(error.to_string().contains(key), "{key} {value}: {error}");
        }
        let nulls = ["size", "do_center_crop", "data_format", "size_divisor"].map(|key| (key, Value::Null));
        assert_eq!(naflex(&nulls).unwrap(), naflex(&[]).unwrap());
    }
}
