//! Running the settings on an image.

use super::{ChannelOrder, Normalization, Preprocessing, Size};
use crate::image::error::ImageError;
use crate::image::raster::RgbImage;
use crate::image::resample::{self, Window};

/// Why an image could not be turned into a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreprocessError {
    /// The output slice has not the length of the tensor.
    #[error("the tensor has {expected} values, and there is room for {found}")]
    OutputLength {
        /// `3 * height * width` of the output size.
        expected: usize,
        /// Length of the slice.
        found: usize,
    },
    /// There is not enough memory to resize.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl Preprocessing {
    /// Height and width of the tensor.
    pub fn output_size(&self) -> (u32, u32) {
        (self.crop.size.height, self.crop.size.width)
    }

    /// Values of the tensor of one image, `3 * height * width`.
    pub fn output_len(&self) -> usize {
        3 * self.crop.size.height as usize * self.crop.size.width as usize
    }

    /// Writes the tensor of `image`, `[3, height, width]`, into `out`.
    ///
    /// Needs no interrupt check: the image is bounded by the limits of its decoding, and 50
    /// megapixels take less than a tenth of a second.
    ///
    /// # Errors
    /// `out` has the wrong length, or memory is refused.
    pub fn apply(&self, image: &RgbImage, out: &mut [f32]) -> Result<(), PreprocessError> {
        if out.len() != self.output_len() {
            return Err(PreprocessError::OutputLength { expected: self.output_len(), found: out.len() });
        }
        let from = Size { height: image.height(), width: image.width() };
        let resized = self.resize.target(from);
        let Size { height, width } = self.crop.size;
        let down = self.crop.rounding.span(resized.height, height);
        let across = self.crop.rounding.span(resized.width, width);
        let window = Window { left: across.source, top: down.source, width: across.len, height: down.len };
        let kept = resample::resize(image, resized.width, resized.height, window, self.filter)?;

        let tables = self.normalization.tables();
        let plane_len = height as usize * width as usize;
        for (plane, values) in out.chunks_exact_mut(plane_len).enumerate() {
            let channel = match self.channels {
                ChannelOrder::Rgb => plane,
                ChannelOrder::Bgr => 2 - plane,
            };
            let table = &tables[channel];
            if (down.len, across.len) != (height, width) {
                values.fill(table[usize::from(self.crop.fill[channel])]);
            }
            let rows = values.chunks_exact_mut(width as usize).skip(down.target as usize);
            for (y, row) in rows.take(down.len as usize).enumerate() {
                let row = &mut row[across.target as usize..][..across.len as usize];
                let samples = &kept.pixels()[y * kept.stride()..][..kept.stride()];
                let samples = samples[channel..].iter().step_by(3);
                for (value, &sample) in row.iter_mut().zip(samples) {
                    *value = table[usize::from(sample)];
                }
            }
        }
        Ok(())
    }
}

impl Normalization {
    /// The value of every byte, per channel, rounded as `transformers` rounds: the product in
    /// double precision, then single precision for mean and deviation.
    pub(super) fn tables(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|channel| {
            let (mean, std) = (self.mean[channel] as f32, self.std[channel] as f32);
            std::array::from_fn(|byte| {
                let scaled = (byte as f64 * self.scale) as f32 + self.offset as f32;
                (scaled - mean) / std
            })
        })
    }
}
