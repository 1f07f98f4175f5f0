//! GIF, WebP, BMP and TIFF through the `image` crate.

use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use image::error::ImageError as DecoderError;
use image::{ColorType, ImageDecoder, Limits};

use super::{Samples, buffer_len, check_size};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat;
use crate::image::header::ImageInfo;
use crate::image::limits::ImageLimits;
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

pub(super) fn decode(
    reader: Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
) -> Result<Samples, ImageError> {
    let failed = |error| from_decoder(info.format, error);
    match info.format {
        ImageFormat::Gif => run(GifDecoder::new(reader).map_err(failed)?, info, limits),
        ImageFormat::WebP => run(WebPDecoder::new(reader).map_err(failed)?, info, limits),
        ImageFormat::Bmp => run(BmpDecoder::new(reader).map_err(failed)?, info, limits),
        ImageFormat::Tiff => run(TiffDecoder::new(reader).map_err(failed)?, info, limits),
        ImageFormat::Jpeg
        | ImageFormat::Png
        | ImageFormat::Avif
        | ImageFormat::Heic
        | ImageFormat::JpegXl
        | ImageFormat::Jpeg2000 => Err(ImageError::unsupported(info.format, "data")),
    }
}

fn run(
    mut decoder: impl ImageDecoder,
    info: &ImageInfo,
    limits: &ImageLimits,
) -> Result<Samples, ImageError> {
    let format = info.format;
    let (width, height) = decoder.dimensions();
    check_size(info, width, height)?;
    let mut decoder_limits = Limits::default();
    decoder_limits.max_alloc = Some(limits.max_decoder_bytes);
    decoder.set_limits(decoder_limits).map_err(|error| from_decoder(format, error))?;
    #[allow(clippy::wildcard_enum_match_arm, reason = "color types may be added, and then fail here")]
    let (layout, bytes_per_channel) = match decoder.color_type() {
        ColorType::L8 => (Layout::Gray, 1),
        ColorType::La8 => (Layout::GrayAlpha, 1),
        ColorType::Rgb8 => (Layout::Rgb, 1),
        ColorType::Rgba8 => (Layout::Rgba, 1),
        ColorType::L16 => (Layout::Gray, 2),
        ColorType::La16 => (Layout::GrayAlpha, 2),
        ColorType::Rgb16 => (Layout::Rgb, 2),
        ColorType::Rgba16 => (Layout::Rgba, 2),
        // Floating point has no agreed range to map to 0..255.
        _ => return Err(ImageError::unsupported(format, "with floating-point samples")),
    };
    let mut data = try_zeroed(buffer_len(info, layout.channels() * bytes_per_channel))?;
    decoder.read_image(&mut data).map_err(|error| from_decoder(format, error))?;
    if bytes_per_channel == 2 {
        keep_upper_bytes(&mut data);
    }
    Ok(Samples { layout, data })
}

/// Turns native-endian 16-bit samples into 8-bit ones, in place.
fn keep_upper_bytes(data: &mut Vec<u8>) {
    let samples = data.len() / 2;
    for i in 0..samples {
        data[i] = (u16::from_ne_bytes([data[2 * i], data[2 * i + 1]]) >> 8) as u8;
    }
    data.truncate(samples);
}

fn from_decoder(format: ImageFormat, error: DecoderError) -> ImageError {
    match error {
        DecoderError::Unsupported(error) => ImageError::unsupported(format, format_args!("data ({error})")),
        DecoderError::Decoding(_)
        | DecoderError::Encoding(_)
        | DecoderError::Parameter(_)
        | DecoderError::Limits(_)
        | DecoderError::IoError(_) => ImageError::corrupt(format, error),
    }
}
