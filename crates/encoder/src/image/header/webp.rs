//! WebP: RIFF chunks down to the first frame's bitstream (RFC 9649).

use super::bytes::Bytes;
use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::WebP;
use crate::image::error::ImageError;
use crate::image::orientation;

/// Sides and alpha of a VP8 or VP8L bitstream.
#[derive(Clone, Copy)]
struct Bitstream {
    width: u32,
    height: u32,
    alpha: bool,
    lossless: bool,
}

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let bytes = Bytes::little(data);
    let tag = bytes.tag(12).ok_or_else(|| cut_off(WebP))?;
    if &tag != b"VP8X" {
        let stream = bitstream(bytes, tag, 20)?;
        return Ok(header(stream.width, stream.height, stream, Extended::default()));
    }
    let canvas = (|| Some((bytes.u8(20)?, bytes.u24_le(24)? + 1, bytes.u24_le(27)? + 1)))();
    let (flags, width, height) = canvas.ok_or_else(|| cut_off(WebP))?;
    let mut extended =
        Extended { alpha: flags & 0x10 != 0, animated: flags & 0x02 != 0, orientation: 1, frames: Some(0) };
    let mut first = None;
    let mut offset = 12 + 8 + padded(bytes.u32(16).ok_or_else(|| cut_off(WebP))?);
    while let (Some(tag), Some(len)) = (bytes.tag(offset), bytes.u32(offset + 4)) {
        let body = offset + 8;
        match &tag {
            b"VP8 " | b"VP8L" if !extended.animated && first.is_none() => {
                first = Some(bitstream(bytes, tag, body)?);
                extended.frames = Some(1);
            }
            b"ANMF" if extended.animated => {
                if first.is_none() {
                    first = Some(frame(bytes, body)?);
                }
                // The last chunk of a file that was cut off.
                extended.frames =
                    extended.frames.filter(|_| bytes.slice(body, len as usize).is_some()).map(|n| n + 1);
            }
            b"EXIF" => {
                if let Some(exif) = bytes.slice(body, len as usize) {
                    // Some writers keep the prefix that JPEG needs.
                    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
                    extended.orientation = orientation::of_exif(exif);
                }
            }
            _ => {}
        }
        offset = body.saturating_add(padded(len));
    }
    let stream = first.ok_or_else(|| ImageError::corrupt(WebP, "it has no frame"))?;
    let fits = if extended.animated {
        stream.width <= width && stream.height <= height
    } else {
        (stream.width, stream.height) == (width, height)
    };
    if !fits {
        return Err(ImageError::corrupt(
            WebP,
            format_args!(
                "a frame of {} x {} is on a canvas of {width} x {height}",
                stream.width, stream.height
            ),
        ));
    }
    Ok(header(width, height, stream, extended))
}

struct Extended {
    alpha: bool,
    animated: bool,
    orientation: u8,
    frames: Option<u32>,
}

impl Default for Extended {
    fn default() -> Self {
        Self { alpha: false, animated: false, orientation: 1, frames: Some(1) }
    }
}

fn header(width: u32, height: u32, stream: Bitstream, extended: Extended) -> Header {
    let alpha = stream.alpha || extended.alpha;
    let pixels = u64::from(width) * u64::from(height);
    let frame_pixels = u64::from(stream.width) * u64::from(stream.height);
    // Output; planes of a lossy frame (4:2:0) or RGBA of a lossless one, which is also how
    // alpha is coded; canvas and frame copy of an animation.
    let output = if alpha { 4 } else { 3 };
    let planes = if stream.lossless { 4 } else { 2 } + if alpha && !stream.lossless { 6 } else { 0 };
    let canvas = if extended.animated { 4 * pixels + 4 * frame_pixels } else { 0 };
    let info = ImageInfo {
        format: WebP,
        width,
        height,
        frames: extended.frames,
        orientation: extended.orientation,
        channels: output,
        bits_per_channel: 8,
    };
    Header { info, least_bytes: 0, peak_bytes: u64::from(output) * pixels + planes * frame_pixels + canvas }
}

/// Length of a chunk's body with the byte that pads it to even length.
fn padded(len: u32) -> usize {
    len as usize + (len as usize & 1)
}

/// The header of a VP8 (RFC 6386, 9.1) or VP8L (RFC 9649, 3.4) bitstream at `offset`.
fn bitstream(bytes: Bytes<'_>, tag: [u8; 4], offset: usize) -> Result<Bitstream, ImageError> {
    match &tag {
        b"VP8 " => {
            let sides =
                (|| Some((bytes.u24_le(offset + 3)?, bytes.u16(offset + 6)?, bytes.u16(offset + 8)?)))();
            let (start_code, width, height) = sides.ok_or_else(|| cut_off(WebP))?;
            if start_code != 0x2a_01_9d {
                return Err(ImageError::corrupt(WebP, "its first frame is not a key frame"));
            }
            // The two upper bits ask for scaling, which decoders leave to the viewer.
            let side = |side: u16| u32::from(side & 0x3fff);
            Ok(Bitstream { width: side(width), height: side(height), alpha: false, lossless: false })
        }
        b"VP8L" => {
            let (signature, packed) =
                bytes.u8(offset).zip(bytes.u32(offset + 1)).ok_or_else(|| cut_off(WebP))?;
            if signature != 0x2f {
                return Err(ImageError::corrupt(WebP, "its lossless data has no signature"));
            }
            Ok(Bitstream {
                width: (packed & 0x3fff) + 1,
                height: (packed >> 14 & 0x3fff) + 1,
                alpha: packed >> 28 & 1 != 0,
                lossless: true,
            })
        }
        _ => Err(ImageError::corrupt(WebP, "a frame starts with an unknown chunk")),
    }
}

/// The first frame of an animation: its bitstream, which must be as large as its place.
fn frame(bytes: Bytes<'_>, offset: usize) -> Result<Bitstream, ImageError> {
    let place = (|| Some((bytes.u24_le(offset + 6)? + 1, bytes.u24_le(offset + 9)? + 1)))();
    let (width, height) = place.ok_or_else(|| cut_off(WebP))?;
    let mut body = offset + 16;
    let mut alpha = false;
    let mut tag = bytes.tag(body).ok_or_else(|| cut_off(WebP))?;
    if &tag == b"ALPH" {
        alpha = true;
        body += 8 + padded(bytes.u32(body + 4).ok_or_else(|| cut_off(WebP))?);
        tag = bytes.tag(body).ok_or_else(|| cut_off(WebP))?;
    }
    let mut stream = bitstream(bytes, tag, body + 8)?;
    stream.alpha |= alpha;
    if (stream.width, stream.height) != (width, height) {
        return Err(ImageError::corrupt(WebP, "its first frame has two sizes"));
    }
    Ok(stream)
}
