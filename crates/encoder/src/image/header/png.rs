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
    // Whether the first frame of an animation comes before the pixels.
    let mut begins = None;
    let mut exif = None;
    let mut profile = None;
    let mut transparent = false;
    // Chunks: length, tag, body, checksum. EXIF may stand after the pixels.
    let mut offset = 8;
    while let (Some(len), Some(tag)) = (bytes.u32(offset), bytes.tag(offset + 4)) {
        let body = bytes.slice(offset + 8, len as usize);
        match (&tag, body) {
            (b"IEND", _) => break,
            (b"acTL", Some(_)) => frames = bytes.u32(offset + 8).filter(|&n| n > 0),
            (b"fcTL", _) => begins = begins.or(Some(true)),
            (b"IDAT", _) => begins = begins.or(Some(false)),
            (b"tRNS", Some(_)) => transparent = true,
            // The decoder takes the entries apart without looking.
            (b"PLTE", Some(palette)) if !matches!(palette.len(), 3..=768) || palette.len() % 3 != 0 => {
                let reason = format!("its palette has {} bytes", palette.len());
                return Err(ImageError::corrupt(Png, reason));
            }
            (b"eXIf", Some(body)) => exif = Some(orientation::of_exif(body)),
            (b"tEXt" | b"zTXt" | b"iTXt", Some(body)) => profile = raw_profile(tag, body).or(profile),
            (_, None) => break,
            _ => {}
        }
        offset += 12 + len as usize;
    }
    // Otherwise these are a picture of its own, shown where animations are not.
    if frames != Some(1) && begins == Some(false) {
        frames = frames.and_then(|frames| frames.checked_add(1));
    }
    // ImageMagick and old programs write EXIF as text, which counts where the chunk of today is absent.
    let orientation = exif.or_else(|| Some(orientation::of_exif(&profile?.exif()?))).unwrap_or(1);
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
    // After the samples the decoder keeps two rows of at most eight bytes per pixel and a
    // window of 64 KiB.
    let rows = 2 * 8 * u64::from(width);
    Ok(Header {
        info,
        least_bytes: 0,
        peak_bytes: pixels.saturating_mul(layout.peak_bytes_per_pixel()).saturating_add(rows),
    })
}

/// Bytes of text that are looked at: those of the largest EXIF block that JPEG can hold, in hexadecimal.
const MAX_PROFILE: usize = 160 << 10;

/// EXIF as text.
#[derive(Clone, Copy)]
struct RawProfile<'a> {
    text: &'a [u8],
    compressed: bool,
}

/// The text of a chunk, if its keyword says that it is EXIF.
fn raw_profile(tag: [u8; 4], body: &[u8]) -> Option<RawProfile<'_>> {
    let rest = body.strip_prefix(b"Raw profile type exif\0")?;
    match &tag {
        b"tEXt" => Some(RawProfile { text: rest, compressed: false }),
        // The method, of which there is one.
        b"zTXt" => Some(RawProfile { text: rest.get(1..)?, compressed: true }),
        _ => {
            let compressed = rest.first()? == &1;
            // Language and translated keyword.
            let mut parts = rest.get(2..)?.splitn(3, |&byte| byte == 0);
            Some(RawProfile { text: parts.nth(2)?, compressed })
        }
    }
}

impl RawProfile<'_> {
    /// The bytes after "\nexif\n    LENGTH\n", which are written in hexadecimal, in lines.
    fn exif(self) -> Option<Vec<u8>> {
        let mut inflated = Vec::new();
        let text = if self.compressed {
            inflated.resize(MAX_PROFILE, 0);
            let mut inflate = flate2::Decompress::new(true);
            // What was inflated before an error, or before the room ran out, is good.
            let _ = inflate.decompress(self.text, &mut inflated, flate2::FlushDecompress::Finish);
            inflated.truncate(usize::try_from(inflate.total_out()).ok()?);
            &inflated[..]
        } else {
            self.text.get(..MAX_PROFILE).unwrap_or(self.text)
        };
        let digits = text.splitn(4, |&byte| byte == b'\n').nth(3)?;
        let mut digits = digits.iter().filter_map(|&byte| char::from(byte).to_digit(16));
        let mut exif = Vec::new();
        while let (Some(high), Some(low)) = (digits.next(), digits.next()) {
            exif.push((high << 4 | low) as u8);
        }
        let start = if exif.starts_with(b"Exif\0\0") { 6 } else { 0 };
        exif.drain(..start);
        Some(exif)
    }
}
