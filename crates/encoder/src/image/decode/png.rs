//! PNG through the `png` crate, without the chunks that only cost memory.
//!
//! `image` wraps the same crate, but inflates color profiles: one megabyte of input made 517 MB
//! of profile that nobody looks at.

use png::{
    BitDepth, BlendOp, ColorType, DecodeOptions, Decoder, DecodingError, DisposeOp, Limits, Transformations,
};

use super::canvas::{Canvas, Disposal, Place};
use super::{Samples, buffer_len, check_size};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Png;
use crate::image::header::ImageInfo;
use crate::image::limits::ImageLimits;
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

/// A reader of samples of 8 bits, and their layout.
fn open<'a>(
    reader: Reader<'a>,
    info: &ImageInfo,
    limits: &ImageLimits,
) -> Result<(png::Reader<Reader<'a>>, Layout), ImageError> {
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(reader, options);
    decoder.set_limits(Limits { bytes: usize::try_from(limits.max_decoder_bytes).unwrap_or(usize::MAX) });
    // Palettes, 1, 2 and 4 bits and transparent colors become 8-bit channels, and 16 bits keep
    // their upper byte.
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let reader = decoder.read_info().map_err(from_decoder)?;
    let (width, height) = reader.info().size();
    check_size(info, width, height)?;
    let layout = match reader.output_color_type() {
        (ColorType::Grayscale, BitDepth::Eight) => Layout::Gray,
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => Layout::GrayAlpha,
        (ColorType::Rgb, BitDepth::Eight) => Layout::Rgb,
        (ColorType::Rgba, BitDepth::Eight) => Layout::Rgba,
        (color, bits) => return Err(ImageError::unsupported(Png, format_args!("{color:?} {bits:?}"))),
    };
    Ok((reader, layout))
}

pub(super) fn decode(
    reader: Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
) -> Result<Samples, ImageError> {
    let (mut reader, layout) = open(reader, info, limits)?;
    let mut data = try_zeroed(buffer_len(info, layout.channels()))?;
    reader.next_frame(&mut data).map_err(from_decoder)?;
    Ok(Samples { layout, data })
}

/// Frame number `wanted`, above 1, with all before it. A picture that is shown where animations are not is the first.
pub(super) fn decode_frame(
    reader: Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
    wanted: u32,
) -> Result<Samples, ImageError> {
    let (mut reader, layout) = open(reader, info, limits)?;
    let channels = layout.channels();
    let mut data = try_zeroed(buffer_len(info, channels))?;
    let mut canvas = Canvas::new(info.width, info.height)?;
    for number in 1..=wanted {
        let frame = match reader.next_frame(&mut data) {
            Ok(frame) => frame,
            Err(DecodingError::Parameter(_)) => return Err(super::no_frame(wanted)),
            Err(error) => return Err(from_decoder(error)),
        };
        // The first picture need not belong to the animation.
        let Some(control) = reader.info().frame_control else { continue };
        let [left, top, width, height] =
            [control.x_offset, control.y_offset, frame.width, frame.height].map(|number| number as usize);
        if left + width > info.width as usize || top + height > info.height as usize {
            return Err(ImageError::corrupt(Png, "a frame lies beside the picture"));
        }
        let drawn = to_rgba(layout, &data[..width * height * channels])?;
        let disposal = match control.dispose_op {
            DisposeOp::None => Disposal::Keep,
            DisposeOp::Background => Disposal::Clear,
            // Before the first frame nothing was there.
            DisposeOp::Previous => Disposal::Restore,
        };
        let blends = control.blend_op == BlendOp::Over;
        canvas.draw(Place { left, top, width, height }, &drawn, blends, disposal, number == wanted)?;
    }
    Ok(Samples { layout: Layout::Rgba, data: canvas.into_pixels() })
}

fn to_rgba(layout: Layout, samples: &[u8]) -> Result<Vec<u8>, ImageError> {
    let channels = layout.channels();
    let mut pixels = try_zeroed(samples.len() / channels * 4)?;
    for (to, from) in pixels.as_chunks_mut::<4>().0.iter_mut().zip(samples.chunks_exact(channels)) {
        *to = match from {
            [gray] => [*gray, *gray, *gray, 255],
            [gray, alpha] => [*gray, *gray, *gray, *alpha],
            [red, green, blue] => [*red, *green, *blue, 255],
            _ => [from[0], from[1], from[2], from[3]],
        };
    }
    Ok(pixels)
}

fn from_decoder(error: DecodingError) -> ImageError {
    ImageError::corrupt(Png, error)
}
