//! PNG through the `png` crate, without the chunks that only cost memory.
//!
//! `image` wraps the same crate, but inflates color profiles: one megabyte of input made 517 MB
//! of profile that nobody looks at.

use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use super::{Samples, buffer_len, check_size};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Png;
use crate::image::header::ImageInfo;
use crate::image::limits::ImageLimits;
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

pub(super) fn decode(
    reader: Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
) -> Result<Samples, ImageError> {
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(reader, options);
    decoder.set_limits(Limits { bytes: usize::try_from(limits.max_decoder_bytes).unwrap_or(usize::MAX) });
    // Palettes, 1, 2 and 4 bits and transparent colors become 8-bit channels, and 16 bits keep
    // their upper byte.
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(from_decoder)?;
    let (width, height) = reader.info().size();
    check_size(info, width, height)?;
    let layout = match reader.output_color_type() {
        (ColorType::Grayscale, BitDepth::Eight) => Layout::Gray,
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => Layout::GrayAlpha,
        (ColorType::Rgb, BitDepth::Eight) => Layout::Rgb,
        (ColorType::Rgba, BitDepth::Eight) => Layout::Rgba,
        (color, bits) => return Err(ImageError::unsupported(Png, format_args!("{color:?} {bits:?}"))),
    };
    let mut data = try_zeroed(buffer_len(info, layout.channels()))?;
    reader.next_frame(&mut data).map_err(from_decoder)?;
    Ok(Samples { layout, data })
}

fn from_decoder(error: DecodingError) -> ImageError {
    ImageError::corrupt(Png, error)
}
