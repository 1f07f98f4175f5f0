//! BMP, decoded here: the format is a page of rules, and the decoder of `image` reads some headers
//! of OS/2 and some misplaced pixels wrongly.

use super::{Samples, buffer_len};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Bmp;
use crate::image::header::ImageInfo;
use crate::image::header::bmp::{self, Bitmap, Compression};
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

pub(super) fn decode(data: &[u8], reader: &mut Reader<'_>, info: &ImageInfo) -> Result<Samples, ImageError> {
    decode_bitmap(&bmp::bitmap(data)?, reader, info)
}

/// The pixels of a bitmap whose header was read.
pub(super) fn decode_bitmap(
    bitmap: &Bitmap<'_>,
    reader: &mut Reader<'_>,
    info: &ImageInfo,
) -> Result<Samples, ImageError> {
    let layout = if bitmap.has_alpha() { Layout::Rgba } else { Layout::Rgb };
    let mut out = try_zeroed(buffer_len(info, layout.channels()))?;
    match bitmap.compression {
        Compression::None => rows(bitmap, reader, layout.channels(), &mut out)?,
        Compression::Rle4 | Compression::Rle8 | Compression::Rle24 => runs(bitmap, reader, &mut out)?,
    }
    Ok(Samples { layout, data: out })
}

fn cut_off() -> ImageError {
    ImageError::corrupt(Bmp, "its pixels are cut off")
}

/// Rows of packed pixels, each filled up to four bytes; the last one may lack the filling.
fn rows(
    bitmap: &Bitmap<'_>,
    reader: &mut Reader<'_>,
    channels: usize,
    out: &mut [u8],
) -> Result<(), ImageError> {
    let (width, height, bits) = (bitmap.width as usize, bitmap.height as usize, usize::from(bitmap.bits));
    let row_len = (width * bits).div_ceil(8);
    let stride = row_len.next_multiple_of(4);
    let shares = bitmap.masks.map(Share::new);
    for (y, target) in out.chunks_exact_mut(width * channels).enumerate() {
        reader.checkpoint(stride)?;
        let row = if bitmap.top_down { y } else { height - 1 - y };
        let source = row.checked_mul(stride).and_then(|start| bitmap.pixels.get(start..)?.get(..row_len));
        let source = source.ok_or_else(cut_off)?;
        match bits {
            24 => {
                for (to, from) in target.chunks_exact_mut(3).zip(source.chunks_exact(3)) {
                    to.copy_from_slice(&[from[2], from[1], from[0]]);
                }
            }
            16 => {
                for (to, from) in target.chunks_exact_mut(channels).zip(source.chunks_exact(2)) {
                    let pixel = u32::from(u16::from_le_bytes([from[0], from[1]]));
                    to.iter_mut().zip(&shares).for_each(|(to, share)| *to = share.of(pixel));
                }
            }
            32 => {
                for (to, from) in target.chunks_exact_mut(channels).zip(source.chunks_exact(4)) {
                    let pixel = u32::from_le_bytes([from[0], from[1], from[2], from[3]]);
                    to.iter_mut().zip(&shares).for_each(|(to, share)| *to = share.of(pixel));
                }
            }
            8 => {
                for (to, &index) in target.chunks_exact_mut(3).zip(source) {
                    to.copy_from_slice(&bitmap.palette[usize::from(index)]);
                }
            }
            _ => {
                let per_byte = 8 / bits;
                for (x, to) in target.chunks_exact_mut(3).enumerate() {
                    let shift = 8 - bits * (x % per_byte + 1);
                    let index = source[x / per_byte] >> shift & ((1_u16 << bits) - 1) as u8;
                    to.copy_from_slice(&bitmap.palette[usize::from(index)]);
                }
            }
        }
    }
    Ok(())
}

/// The part of a pixel that one channel has.
struct Share {
    mask: u32,
    shift: u32,
    max: u64,
}

impl Share {
    fn new(mask: u32) -> Self {
        let shift = mask.trailing_zeros() & 31;
        Self { mask, shift, max: u64::from(mask >> shift) }
    }

    /// The channel stretched to eight bits, rounded down as Pillow does.
    #[inline]
    fn of(&self, pixel: u32) -> u8 {
        let value = (pixel & self.mask) >> self.shift;
        match self.max {
            0 => 0,
            255 => value as u8,
            max => (u64::from(value) * 255 / max) as u8,
        }
    }
}

/// Run-length coding: pairs of count and value, and escapes. Pixels that it skips have color 0.
fn runs(bitmap: &Bitmap<'_>, reader: &mut Reader<'_>, out: &mut [u8]) -> Result<(), ImageError> {
    let (width, height) = (bitmap.width as usize, bitmap.height as usize);
    let whole_color = bitmap.compression == Compression::Rle24;
    let nibbles = bitmap.compression == Compression::Rle4;
    if !whole_color {
        out.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&bitmap.palette[0]));
    }
    let mut put = |x: usize, y: usize, color: [u8; 3]| {
        if x < width && y < height {
            let row = if bitmap.top_down { y } else { height - 1 - y };
            out[3 * (row * width + x)..][..3].copy_from_slice(&color);
        }
    };
    // The color of the pixel at `i` in `bytes`, which repeat for a run.
    let color = |bytes: &[u8], i: usize| {
        if whole_color {
            let at = 3 * i % bytes.len();
            [bytes[at + 2], bytes[at + 1], bytes[at]]
        } else if nibbles {
            let pair = bytes[i / 2 % bytes.len()];
            bitmap.palette[usize::from(if i.is_multiple_of(2) { pair >> 4 } else { pair & 15 })]
        } else {
            bitmap.palette[usize::from(bytes[i % bytes.len()])]
        }
    };
    let value_len = if whole_color { 3 } else { 1 };
    let mut input = bitmap.pixels;
    let mut take = |len: usize| {
        let (bytes, rest) = input.split_at_checked(len)?;
        input = rest;
        Some(bytes)
    };
    let (mut x, mut y) = (0, 0);
    while y < height {
        reader.checkpoint(2)?;
        let Some(&[count]) = take(1) else {
            // Nothing is missing after the last pixel.
            return if y + 1 == height && x >= width { Ok(()) } else { Err(cut_off()) };
        };
        if count > 0 {
            let value = take(value_len).ok_or_else(cut_off)?;
            (0..usize::from(count)).for_each(|i| put(x + i, y, color(value, i)));
            x += usize::from(count);
            continue;
        }
        match take(1).ok_or_else(cut_off)?[0] {
            0 => (x, y) = (0, y + 1),
            1 => return Ok(()),
            2 => {
                let step = take(2).ok_or_else(cut_off)?;
                x += usize::from(step[0]);
                y += usize::from(step[1]);
            }
            count => {
                let count = usize::from(count);
                let len = if nibbles { count.div_ceil(2) } else { value_len * count };
                let values = take(len).ok_or_else(cut_off)?;
                (0..count).for_each(|i| put(x + i, y, color(values, i)));
                x += count;
                if !len.is_multiple_of(2) {
                    // The filling of the last pixels may be missing.
                    let _ = take(1);
                }
            }
        }
    }
    Ok(())
}
