//! ICO: the directory of a Windows icon, and the picture in it that is taken: a PNG, or a bitmap without its file header.

use super::bytes::Bytes;
use super::{Header, ImageInfo, bmp, cut_off, png};
use crate::image::ImageFormat::Ico;
use crate::image::error::ImageError;
use crate::image::header::bmp::{Bitmap, Compression};

const DIRECTORY: usize = 6;
const ENTRY: usize = 16;
/// What is before the bitmap's header in a file of its own.
const FILE_HEADER: usize = 14;
/// More than the longest header, masks and palette of a bitmap.
const LONGEST_HEAD: usize = 4096;

/// The picture that is taken.
pub(in crate::image) enum Picture<'a> {
    Png(&'a [u8]),
    /// A bitmap, and after its pixels the mask of what is seen.
    Bitmap(Box<Bitmap<'a>>),
}

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    match picture(data)? {
        Picture::Png(data) => {
            let header = png::read(data)?;
            Ok(Header { info: ImageInfo { format: Ico, frames: Some(1), ..header.info }, ..header })
        }
        Picture::Bitmap(bitmap) => {
            let (width, height) = (bitmap.width, bitmap.height);
            let info = ImageInfo {
                format: Ico,
                width,
                height,
                frames: Some(1),
                orientation: 1,
                channels: 4,
                bits_per_channel: 8,
            };
            // Once with alpha, and once without if that was empty.
            let peak_bytes = (u64::from(width) * u64::from(height)).saturating_mul(4 + 3);
            Ok(Header { info, least_bytes: 0, peak_bytes })
        }
    }
}

/// The largest picture, of several that of most colors. Pillow takes that of fewest.
pub(in crate::image) fn picture(data: &[u8]) -> Result<Picture<'_>, ImageError> {
    let bytes = Bytes::little(data);
    let count = usize::from(bytes.u16(4).ok_or_else(|| cut_off(Ico))?);
    let mut best: Option<((u32, u16), &[u8])> = None;
    for index in 0..count {
        let at = DIRECTORY + ENTRY * index;
        let entry = (|| {
            Some((
                bytes.u8(at)?,
                bytes.u8(at + 1)?,
                bytes.u16(at + 6)?,
                bytes.u32(at + 8)?,
                bytes.u32(at + 12)?,
            ))
        })();
        let (width, height, bits, len, offset) = entry.ok_or_else(|| cut_off(Ico))?;
        let side = |side: u8| if side == 0 { 256 } else { u32::from(side) };
        let rank = (side(width) * side(height), bits);
        let (offset, len) = (offset as usize, len as usize);
        let Some(rest) = data.get(offset..).filter(|rest| len > 0 && !rest.is_empty()) else { continue };
        let rest = &rest[..len.min(rest.len())];
        if best.is_none_or(|(known, _)| rank > known) {
            best = Some((rank, rest));
        }
    }
    let (_, data) = best.ok_or_else(|| ImageError::corrupt(Ico, "it has no picture"))?;
    if data.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(Picture::Png(data));
    }
    bitmap(data).map(|bitmap| Picture::Bitmap(Box::new(bitmap)))
}

/// The bitmap at the start of `data`. Its header counts the rows of the mask, too.
fn bitmap(data: &[u8]) -> Result<Bitmap<'_>, ImageError> {
    let bytes = Bytes::little(data);
    let header = (|| Some((bytes.u32(0)?, bytes.u32(8)?.cast_signed())))();
    let (header_len, rows) = header.ok_or_else(|| cut_off(Ico))?;
    if !(40..=124).contains(&header_len) {
        let reason = format!("its picture starts with {header_len}, which is neither PNG nor a bitmap");
        return Err(ImageError::corrupt(Ico, reason));
    }
    let mut head = vec![0; FILE_HEADER];
    head.extend(&data[..data.len().min(LONGEST_HEAD)]);
    head[FILE_HEADER + 8..FILE_HEADER + 12].copy_from_slice(&(rows / 2).to_le_bytes());
    let parsed = bmp::bitmap(&head).map_err(of_icon)?;
    if parsed.compression != Compression::None {
        return Err(ImageError::unsupported(Ico, "with run-length coding"));
    }
    let start = head.len() - parsed.pixels.len() - FILE_HEADER;
    Ok(Bitmap {
        width: parsed.width,
        height: parsed.height,
        top_down: parsed.top_down,
        bits: parsed.bits,
        compression: parsed.compression,
        masks: parsed.masks,
        palette: parsed.palette,
        pixels: data.get(start..).ok_or_else(|| cut_off(Ico))?,
    })
}

/// An error of the bitmap, said of the icon.
pub(in crate::image) fn of_icon(error: ImageError) -> ImageError {
    if let ImageError::Corrupt { reason, .. } = error {
        return ImageError::corrupt(Ico, reason);
    }
    if let ImageError::Unsupported { feature, .. } = error {
        return ImageError::unsupported(Ico, feature);
    }
    error
}
