//! JPEG through two decoders, each for the shapes of file that it gets right.
//!
//! zune-jpeg in strict mode takes what nearly all files are. `image` wraps the same decoder, but in its
//! lenient mode, which turns the missing half of a truncated photograph into gray and says
//! nothing. jpeg-decoder, without unsafe code and threads, takes the other combinations of scans
//! and sampling factors, which zune-jpeg makes wrong pixels of. Both are given a file that leaves no
//! choice of color space; see [`jpeg::canonical`].

use jpeg_decoder::{ColorTransform, Decoder as GeneralDecoder};
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::{Samples, buffer_len, check_size};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Jpeg;
use crate::image::header::ImageInfo;
pub(super) use crate::image::header::jpeg::Color;
use crate::image::header::jpeg::{self, Decoder, MAX_SCANS};
use crate::image::limits::ImageLimits;
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

pub(super) fn decode(
    data: &[u8],
    reader: &Reader<'_>,
    info: &ImageInfo,
    peak_bytes: u64,
) -> Result<Samples, ImageError> {
    run(data, &jpeg::survey(data)?, reader, info, peak_bytes)
}

/// Decodes a stream that is part of a larger file, which says how large it is and what color space
/// it has. Its samples have the channels of that color.
pub(super) fn decode_part(
    data: &[u8],
    reader: &Reader<'_>,
    sides: (u32, u32),
    color: Color,
) -> Result<Samples, ImageError> {
    let survey = jpeg::survey(data)?.with_color(color);
    let info = survey.info();
    if (info.width, info.height) != sides {
        let reason = format!("a part of {sides:?} pixels has {} x {}", info.width, info.height);
        return Err(ImageError::corrupt(Jpeg, reason));
    }
    run(data, &survey, reader, &info, survey.peak_bytes())
}

fn run(
    data: &[u8],
    survey: &jpeg::Survey,
    reader: &Reader<'_>,
    info: &ImageInfo,
    peak_bytes: u64,
) -> Result<Samples, ImageError> {
    let canonical = jpeg::canonical(data, survey)?;
    let input = reader.over(canonical.as_deref().unwrap_or(data));
    if survey.decoder() == Decoder::General {
        return general(input, info, survey.color, peak_bytes);
    }
    let result = fast(input, info);
    // Nothing was read beyond the first scan of a plain file, where bytes may stray as well.
    if canonical.is_none() && matches!(result, Err(ImageError::Corrupt { .. })) {
        let (file, strayed) = jpeg::rewritten(data, survey)?;
        if strayed {
            return fast(reader.over(&file), info);
        }
    }
    result
}

fn fast(reader: Reader<'_>, info: &ImageInfo) -> Result<Samples, ImageError> {
    // CMYK and YCCK, always Adobe's inverted ones, are converted to RGB by the decoder.
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

/// `peak_bytes` is what the decoder is going to allocate, which it does infallibly: the memory is
/// asked for once before.
fn general(
    reader: Reader<'_>,
    info: &ImageInfo,
    color: Color,
    peak_bytes: u64,
) -> Result<Samples, ImageError> {
    drop(try_zeroed(usize::try_from(peak_bytes).unwrap_or(usize::MAX))?);
    let mut decoder = GeneralDecoder::new(reader);
    decoder.set_color_transform(match color {
        Color::Gray => ColorTransform::Grayscale,
        Color::YCbCr => ColorTransform::YCbCr,
        Color::Rgb => ColorTransform::RGB,
        Color::Cmyk => ColorTransform::CMYK,
        Color::Ycck => ColorTransform::YCCK,
    });
    let mut data = decoder.decode().map_err(|error| match error {
        jpeg_decoder::Error::Unsupported(feature) => {
            ImageError::unsupported(Jpeg, format_args!("with {feature:?}"))
        }
        jpeg_decoder::Error::Format(_) | jpeg_decoder::Error::Io(_) | jpeg_decoder::Error::Internal(_) => {
            ImageError::corrupt(Jpeg, error)
        }
    })?;
    let seen = decoder.info().map(|seen| (u32::from(seen.width), u32::from(seen.height)));
    let (width, height) = seen.unwrap_or_default();
    check_size(info, width, height)?;
    let layout = match color {
        Color::Gray => Layout::Gray,
        Color::YCbCr | Color::Rgb => Layout::Rgb,
        Color::Cmyk | Color::Ycck => {
            inks_to_rgb(&mut data);
            Layout::Rgb
        }
    };
    Ok(Samples { layout, data })
}

/// Turns amounts of cyan, magenta, yellow and black into RGB, in place.
fn inks_to_rgb(data: &mut Vec<u8>) {
    let pixels = data.len() / 4;
    for i in 0..pixels {
        let rgb = ink_to_rgb([0, 1, 2, 3].map(|at| data[4 * i + at]));
        data[3 * i..3 * i + 3].copy_from_slice(&rgb);
    }
    data.truncate(3 * pixels);
}

/// Cyan, magenta, yellow and black as RGB, as Pillow has it.
pub(super) fn ink_to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let paper = 255 - k;
    [c, m, y].map(|ink| paper - scaled(ink, paper))
}

/// `a * b / 255`, rounded.
fn scaled(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    ((product + (product >> 8)) >> 8) as u8
}
