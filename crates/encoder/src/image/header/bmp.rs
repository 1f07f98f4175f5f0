//! BMP: the sizes that the information header states.

use super::bytes::Bytes;
use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::Bmp;
use crate::image::error::ImageError;

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let bytes = Bytes::little(data);
    let (width, height, bits) = read_sides(bytes).ok_or_else(|| cut_off(Bmp))?;
    if width < 0 {
        return Err(ImageError::corrupt(Bmp, format_args!("its width is {width}")));
    }
    let (width, height) = (width.unsigned_abs(), height.unsigned_abs());
    let (channels, bits_per_channel) = match bits {
        1..=8 | 24 => (3, 8),
        16 => (3, 5),
        32 => (4, 8),
        _ => return Err(ImageError::corrupt(Bmp, format_args!("it has {bits} bits per pixel"))),
    };
    let info =
        ImageInfo { format: Bmp, width, height, frames: Some(1), orientation: 1, channels, bits_per_channel };
    Ok(Header { info, least_bytes: 0, peak_bytes: 4 * u64::from(width) * u64::from(height) })
}

/// Width, height (negative when the rows run downwards) and bits per pixel.
fn read_sides(bytes: Bytes<'_>) -> Option<(i32, i32, u16)> {
    // The oldest header has 16-bit sides.
    if bytes.u32(14)? == 12 {
        return Some((i32::from(bytes.u16(18)?), i32::from(bytes.u16(20)?), bytes.u16(24)?));
    }
    Some((bytes.u32(18)?.cast_signed(), bytes.u32(22)?.cast_signed(), bytes.u16(28)?))
}
