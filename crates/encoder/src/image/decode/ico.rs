//! ICO: a PNG, or a bitmap whose transparency is its fourth byte or a mask of one bit for each pixel.

use super::{Samples, bmp, buffer_len, png};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Ico;
use crate::image::header::ImageInfo;
use crate::image::header::bmp::Bitmap;
use crate::image::header::ico::{Picture, of_icon, picture};
use crate::image::limits::ImageLimits;
use crate::image::reader::Reader;

const ALPHA: u32 = 0xff00_0000;

pub(super) fn decode(
    data: &[u8],
    reader: &mut Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
) -> Result<Samples, ImageError> {
    let mut bitmap = match picture(data)? {
        Picture::Png(data) => return png::decode(reader.over(data), info, limits),
        Picture::Bitmap(bitmap) => bitmap,
    };
    if bitmap.bits == 32 {
        bitmap.masks[3] = ALPHA;
        let samples = bmp::decode_bitmap(&bitmap, reader, info).map_err(of_icon)?;
        // Old programs left the byte empty, and meant the mask.
        if samples.data.chunks_exact(4).any(|pixel| pixel[3] != 0) {
            return Ok(samples);
        }
        bitmap.masks[3] = 0;
    } else {
        bitmap.masks[3] = 0;
    }
    let mut samples = bmp::decode_bitmap(&bitmap, reader, info).map_err(of_icon)?;
    debug_assert_eq!(samples.data.len(), buffer_len(info, Layout::Rgb.channels()));
    whiten(&bitmap, reader, &mut samples.data)?;
    Ok(samples)
}

/// Makes white what the mask hides, which follows the pixels. Without a mask all is seen.
fn whiten(bitmap: &Bitmap<'_>, reader: &mut Reader<'_>, out: &mut [u8]) -> Result<(), ImageError> {
    let (width, height) = (bitmap.width as usize, bitmap.height as usize);
    let of_pixels = (width * usize::from(bitmap.bits)).div_ceil(8).next_multiple_of(4) * height;
    let stride = width.div_ceil(8).next_multiple_of(4);
    let mask = bitmap.pixels.get(of_pixels..).unwrap_or_default();
    if mask.is_empty() {
        return Ok(());
    }
    if mask.len() < stride * height {
        return Err(ImageError::corrupt(Ico, "its mask is cut off"));
    }
    for (y, row) in out.chunks_exact_mut(3 * width).enumerate() {
        reader.checkpoint(stride)?;
        let stored = if bitmap.top_down { y } else { height - 1 - y };
        let mask = &mask[stored * stride..][..stride];
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            if mask[x / 8] & (0x80 >> (x % 8)) != 0 {
                pixel.fill(255);
            }
        }
    }
    Ok(())
}
