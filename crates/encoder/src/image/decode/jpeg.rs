//! JPEG through zune-jpeg in strict mode.
//!
//! `image` wraps the same decoder, but in its lenient mode, which turns the missing half of a
//! truncated photograph into gray and says nothing.

use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{Samples, buffer_len, check_size};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Jpeg;
use crate::image::header::ImageInfo;
use crate::image::limits::ImageLimits;
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

/// Scans of a progressive image. Encoders write about ten; each one costs a pass over the
/// picture, however few bytes it has.
const MAX_SCANS: usize = 100;

pub(super) fn decode(reader: Reader<'_>, info: &ImageInfo) -> Result<Samples, ImageError> {
    // CMYK and YCCK, also Adobe's inverted ones, are converted to RGB by the decoder.
    let layout = if info.channels == 1 { Layout::Gray } else { Layout::Rgb };
    let color = if info.channels == 1 { ColorSpace::Luma } else { ColorSpace::RGB };
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(ImageLimits::MAX_SIDE as usize)
        .set_max_height(ImageLimits::MAX_SIDE as usize)
        .jpeg_set_max_scans(MAX_SCANS)
        .jpeg_set_out_colorspace(color);
    let corrupt = |error: zune_jpeg::errors::DecodeErrors| ImageError::corrupt(Jpeg, error);
    let mut decoder = JpegDecoder::new_with_options(reader, options);
    decoder.decode_headers().map_err(corrupt)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    check_size(info, side(width), side(height))?;
    let mut data = try_zeroed(buffer_len(info, layout.channels()))?;
    decoder.decode_into(&mut data).map_err(corrupt)?;
    Ok(Samples { layout, data })
}
