//! WebP through `image-webp`, one frame at a time.
//!
//! The decoder reads a container by its flags and stops at flags without chunks, of which there are
//! many files. So the frame is given to it in a container of its own, as [`webp::locate`] found it.

use image_webp::{DecodingError, WebPDecoder};

use super::{Samples, buffer_len};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::WebP;
use crate::image::header::ImageInfo;
use crate::image::header::webp::{self, Located};
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
    if (width, height) == (info.width, info.height) {
        return Ok(Samples { layout, data });
    }
    on_canvas(&located, info, channels, &data).map(|data| Samples { layout, data })
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
