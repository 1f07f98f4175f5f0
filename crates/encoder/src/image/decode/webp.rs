//! WebP through `image-webp`, one frame at a time.
//!
//! The decoder reads a container by its flags and stops at flags without chunks, of which there are
//! many files. So the frame is given to it in a container of its own, as [`webp::locate`] found it.

use image_webp::{DecodingError, WebPDecoder};

use super::canvas::{Canvas, Disposal, Place};
use super::{Samples, buffer_len};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::WebP;
use crate::image::header::ImageInfo;
use crate::image::header::webp::{self, Cel, Located};
use crate::image::limits::ImageLimits;
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

pub(super) fn decode(
    data: &[u8],
    reader: &Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
) -> Result<Samples, ImageError> {
    let located = webp::locate(data)?;
    let Samples { layout, data } = decode_located(&located, reader, limits)?;
    if (located.frame.width(), located.frame.height()) == (info.width, info.height) {
        return Ok(Samples { layout, data });
    }
    on_canvas(&located, info, layout.channels(), &data).map(|data| Samples { layout, data })
}

/// Frame number `wanted`, above 1, with all before it.
pub(super) fn decode_frame(
    data: &[u8],
    reader: &mut Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
    wanted: u32,
) -> Result<Samples, ImageError> {
    let mut canvas = Canvas::new(info.width, info.height)?;
    let mut cels = webp::cels(data);
    let mut shows_alpha = true;
    for number in 1..=wanted {
        reader.checkpoint(1 << 16)?;
        let Cel { located, blends, clears } = cels.next().ok_or_else(|| super::no_frame(wanted))??;
        let samples = decode_located(&located, reader, limits)?;
        let place = Place {
            left: located.left as usize,
            top: located.top as usize,
            width: located.frame.width() as usize,
            height: located.frame.height() as usize,
        };
        let drawn = if samples.layout == Layout::Rgba { samples.data } else { opaque(&samples.data)? };
        let disposal = if clears { Disposal::Clear } else { Disposal::Keep };
        canvas.draw(place, &drawn, blends, disposal, number == wanted)?;
        shows_alpha = located.shows_alpha;
    }
    let mut data = canvas.into_pixels();
    if !shows_alpha {
        data.chunks_exact_mut(4).for_each(|pixel| pixel[3] = 255);
    }
    Ok(Samples { layout: Layout::Rgba, data })
}

fn opaque(rgb: &[u8]) -> Result<Vec<u8>, ImageError> {
    let mut pixels = try_zeroed(rgb.len() / 3 * 4)?;
    for (to, from) in pixels.as_chunks_mut::<4>().0.iter_mut().zip(rgb.as_chunks::<3>().0) {
        *to = [from[0], from[1], from[2], 255];
    }
    Ok(pixels)
}

/// The pixels of a frame alone.
fn decode_located(
    located: &Located<'_>,
    reader: &Reader<'_>,
    limits: &ImageLimits,
) -> Result<Samples, ImageError> {
    let container = located.container()?;
    let mut decoder = WebPDecoder::new(reader.over(&container)).map_err(from_decoder)?;
    decoder.set_memory_limit(usize::try_from(limits.max_decoder_bytes).unwrap_or(usize::MAX));
    let (width, height) = (located.frame.width(), located.frame.height());
    if decoder.dimensions() != (width, height) {
        return Err(ImageError::corrupt(WebP, "its headers disagree about its size"));
    }
    let layout = if decoder.has_alpha() { Layout::Rgba } else { Layout::Rgb };
    let channels = layout.channels();
    let mut data = try_zeroed(width as usize * height as usize * channels)?;
    decoder.read_image(&mut data).map_err(from_decoder)?;
    if layout == Layout::Rgba && !located.shows_alpha {
        data.chunks_exact_mut(4).for_each(|pixel| pixel[3] = 255);
    }
    Ok(Samples { layout, data })
}

/// The first frame of an animation on its canvas, which is transparent, or black where the file
/// says that it has no alpha.
fn on_canvas(
    located: &Located<'_>,
    info: &ImageInfo,
    channels: usize,
    frame: &[u8],
) -> Result<Vec<u8>, ImageError> {
    let mut canvas = try_zeroed(buffer_len(info, channels))?;
    if located.shows_alpha && channels == 3 {
        canvas.fill(255);
    }
    if !located.shows_alpha && channels == 4 {
        canvas.chunks_exact_mut(4).for_each(|pixel| pixel[3] = 255);
    }
    let row_len = channels * located.frame.width() as usize;
    let stride = channels * info.width as usize;
    let rows = canvas.chunks_exact_mut(stride).skip(located.top as usize);
    for (row, source) in rows.zip(frame.chunks_exact(row_len)) {
        row[channels * located.left as usize..][..row_len].copy_from_slice(source);
    }
    Ok(canvas)
}

fn from_decoder(error: DecodingError) -> ImageError {
    ImageError::corrupt(WebP, error)
}
