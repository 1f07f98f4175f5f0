//! BMP: the headers of Windows and OS/2, down to palette, masks and the place of the pixels.

use super::bytes::Bytes;
use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::Bmp;
use crate::image::error::ImageError;

const FILE_HEADER: usize = 14;
/// The oldest header: 16-bit sides, palette entries of three bytes.
const CORE_HEADER: usize = 12;
const INFO_HEADER: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) enum Compression {
    /// Rows of packed pixels.
    None,
    Rle4,
    Rle8,
    /// OS/2 alone.
    Rle24,
}

/// All that decoding needs.
#[derive(Debug)]
pub(in crate::image) struct Bitmap<'a> {
    pub(in crate::image) width: u32,
    pub(in crate::image) height: u32,
    pub(in crate::image) top_down: bool,
    /// Of a pixel: 1, 2, 4, 8, 16, 24 or 32.
    pub(in crate::image) bits: u16,
    pub(in crate::image) compression: Compression,
    /// Red, green, blue and alpha within 16 or 32 bits.
    pub(in crate::image) masks: [u32; 4],
    pub(in crate::image) palette: [[u8; 3]; 256],
    /// From the first pixel to the end of the file.
    pub(in crate::image) pixels: &'a [u8],
}

impl Bitmap<'_> {
    pub(in crate::image) fn has_alpha(&self) -> bool {
        self.bits >= 16 && self.masks[3] != 0
    }
}

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let bitmap = bitmap(data)?;
    let (channels, bits_per_channel) = match bitmap.bits {
        16 => (3 + u8::from(bitmap.has_alpha()), 5),
        32 => (4, 8),
        _ => (3, 8),
    };
    let (width, height) = (bitmap.width, bitmap.height);
    let info =
        ImageInfo { format: Bmp, width, height, frames: Some(1), orientation: 1, channels, bits_per_channel };
    Ok(Header { info, least_bytes: 0, peak_bytes: (u64::from(width) * u64::from(height)).saturating_mul(4) })
}

pub(in crate::image) fn bitmap(data: &[u8]) -> Result<Bitmap<'_>, ImageError> {
    let bytes = Bytes::little(data);
    let u16 = |offset| bytes.u16(offset).ok_or_else(|| cut_off(Bmp));
    let u32 = |offset| bytes.u32(offset).ok_or_else(|| cut_off(Bmp));
    let header_len = u32(FILE_HEADER)? as usize;
    // A short header of OS/2 leaves out what has its default.
    let field = |offset: usize| if header_len >= offset - FILE_HEADER + 4 { u32(offset) } else { Ok(0) };
    let core = header_len == CORE_HEADER;
    let (width, height, bits) = if core {
        (i32::from(u16(18)?), i32::from(u16(20)?), u16(24)?)
    } else {
        // The number of planes is a constant that some programs leave 0.
        (u32(18)?.cast_signed(), u32(22)?.cast_signed(), u16(28)?)
    };
    if width < 0 {
        return Err(ImageError::corrupt(Bmp, format_args!("its width is {width}")));
    }
    let (code, colors) = if core { (0, 0) } else { (field(30)?, field(46)?) };
    let os2 = header_len == 64 || header_len < INFO_HEADER;
    let compression = match (code, bits) {
        (0, _) => Compression::None,
        (1, 8) => Compression::Rle8,
        (2, 4) => Compression::Rle4,
        (4, 24) if os2 => Compression::Rle24,
        (3 | 6, 16 | 24 | 32) if !os2 => Compression::None,
        (3, _) if os2 => return Err(ImageError::unsupported(Bmp, "with Huffman coding")),
        (4, _) => return Err(ImageError::unsupported(Bmp, "with JPEG inside")),
        (5, _) => return Err(ImageError::unsupported(Bmp, "with PNG inside")),
        (1 | 2, _) => {
            let reason = format_args!("its compression {code} does not go with {bits} bits per pixel");
            return Err(ImageError::corrupt(Bmp, reason));
        }
        _ => return Err(ImageError::unsupported(Bmp, format_args!("with compression {code}"))),
    };
    if !matches!(bits, 1 | 2 | 4 | 8 | 16 | 24 | 32) {
        return Err(ImageError::unsupported(Bmp, format_args!("with {bits} bits per pixel")));
    }

    let mut end = FILE_HEADER.checked_add(header_len).ok_or_else(|| cut_off(Bmp))?;
    // Masks belong to the larger headers and stand after the smaller one.
    let has_masks = matches!(code, 3 | 6) && !os2;
    let mut masks = match bits {
        16 => [0x7c00, 0x03e0, 0x001f, 0],
        _ => [0x00ff_0000, 0x0000_ff00, 0x0000_00ff, 0],
    };
    if has_masks {
        let alpha = code == 6 || header_len >= 56;
        for (i, mask) in masks.iter_mut().enumerate().take(if alpha { 4 } else { 3 }) {
            *mask = u32(FILE_HEADER + INFO_HEADER + 4 * i)?;
        }
        if header_len == INFO_HEADER {
            end += if code == 6 { 16 } else { 12 };
        }
        if masks == [0; 4] {
            masks = [0x00ff_0000, 0x0000_ff00, 0x0000_00ff, 0xff00_0000];
        }
        let in_one_piece = |mask: u32| {
            let low = if mask == 0 { 0 } else { mask >> mask.trailing_zeros() };
            low & low.wrapping_add(1) == 0
        };
        if !masks.into_iter().all(in_one_piece) {
            return Err(ImageError::unsupported(Bmp, "with a color mask in pieces"));
        }
        if bits == 24 && masks != [0x00ff_0000, 0x0000_ff00, 0x0000_00ff, 0] {
            return Err(ImageError::unsupported(Bmp, "with color masks for 24 bits"));
        }
    }

    let stated = u32(10)? as usize;
    let entry_len = if core { 3 } else { 4 };
    let mut entries = 0;
    if bits <= 8 {
        let all = 1_usize << bits;
        entries = if colors == 0 { all } else { (colors as usize).min(256) };
        // Some writers leave out colors that no pixel has.
        if stated > end {
            entries = entries.min((stated - end) / entry_len);
        }
    }
    let mut palette = [[0; 3]; 256];
    for (i, color) in palette.iter_mut().enumerate().take(entries) {
        let entry = bytes.slice(end + entry_len * i, 3).ok_or_else(|| cut_off(Bmp))?;
        *color = [entry[2], entry[1], entry[0]];
    }
    // An offset that points into the headers cannot be meant: then pixels follow the palette.
    let offset = if stated > end || (stated == end && bits > 8) { stated } else { end + entry_len * entries };
    let pixels = data.get(offset..).ok_or_else(|| cut_off(Bmp))?;
    Ok(Bitmap {
        width: width.unsigned_abs(),
        height: height.unsigned_abs(),
        top_down: height < 0,
        bits,
        compression,
        masks,
        palette,
        pixels,
    })
}
