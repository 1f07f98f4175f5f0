//! PNG: IHDR, and the few other chunks that say something about the whole (PNG 3rd edition, 11).

use super::bytes::Bytes;
use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::Png;
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::orientation;

const PALETTE: u8 = 3;

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let bytes = Bytes::big(data);
    if bytes.tag(12) != Some(*b"IHDR") {
        return Err(ImageError::corrupt(Png, "it does not start with a header chunk"));
    }
    let header = (|| Some((bytes.u32(16)?, bytes.u32(20)?, bytes.u8(24)?, bytes.u8(25)?)))();
    let (width, height, bits, color) = header.ok_or_else(|| cut_off(Png))?;
    let channels = match color {
        0 => 1,
        4 => 2,
        2 | PALETTE => 3,
        6 => 4,
        _ => return Err(ImageError::corrupt(Png, format_args!("its color type is {color}"))),
    };

    let mut frames = Some(1);
    let mut orientation = 1;
    let mut transparent = false;
    // Chunks: length, tag, body, checksum. EXIF may stand behind the pixels.
    let mut offset = 8;
    while let (Some(len), Some(tag)) = (bytes.u32(offset), bytes.tag(offset + 4)) {
        let body = bytes.slice(offset + 8, len as usize);
        match (&tag, body) {
            (b"IEND", _) => break,
            (b"acTL", Some(_)) => frames = bytes.u32(offset + 8).filter(|&n| n > 0),
            (b"tRNS", Some(_)) => transparent = true,
            // The decoder takes the entries apart without looking.
            (b"PLTE", Some(palette)) if !matches!(palette.len(), 3..=768) || palette.len() % 3 != 0 => {
                let reason = format!("its palette has {} bytes", palette.len());
                return Err(ImageError::corrupt(Png, reason));
            }
            (b"eXIf", Some(exif)) => orientation = orientation::of_exif(exif),
            (_, None) => break,
            _ => {}
        }
        offset += 12 + len as usize;
    }
    let channels = channels + u8::from(transparent && matches!(color, 0 | 2 | PALETTE));
    let layout = match channels {
        1 => Layout::Gray,
        2 => Layout::GrayAlpha,
        3 => Layout::Rgb,
        _ => Layout::Rgba,
    };
    let info = ImageInfo {
        format: Png,
        width,
        height,
        frames,
        orientation,
        channels,
        bits_per_channel: if color == PALETTE { 8 } else { bits },
    };
    let pixels = u64::from(width) * u64::from(height);
    // Behind the samples the decoder keeps two rows of at most eight bytes per pixel and a
    // window of 64 KiB.
    let rows = 2 * 8 * u64::from(width);
    Ok(Header {
        info,
        least_bytes: 0,
        peak_bytes: pixels.saturating_mul(layout.peak_bytes_per_pixel()) + rows,
    })
}
