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

/// A picture's chunks.
pub(in crate::image) struct Frame<'a> {
    stream: Bitstream,
    body: &'a [u8],
    /// The body of the chunk that has the alpha of a lossy picture.
    alpha: Option<&'a [u8]>,
}

impl Frame<'_> {
    pub(in crate::image) fn width(&self) -> u32 {
        self.stream.width
    }

    pub(in crate::image) fn height(&self) -> u32 {
        self.stream.height
    }
}

/// The first frame, and where it lies on the canvas.
pub(in crate::image) struct Located<'a> {
    pub(in crate::image) frame: Frame<'a>,
    pub(in crate::image) left: u32,
    pub(in crate::image) top: u32,
    /// The file says that it has alpha. If not, what alpha there is does not count.
    pub(in crate::image) shows_alpha: bool,
    canvas: (u32, u32),
    animated: bool,
    orientation: u8,
    frames: Option<u32>,
}

impl Located<'_> {
    /// The frame as a file of its own, whose flags agree with its chunks.
    pub(in crate::image) fn container(&self) -> Result<Vec<u8>, ImageError> {
        let Frame { stream, body, alpha } = &self.frame;
        let alpha = alpha.filter(|_| self.shows_alpha && !stream.lossless);
        let len = body.len() + alpha.map_or(0, <[u8]>::len) + 64;
        let mut out = Vec::new();
        out.try_reserve_exact(len).map_err(|_| ImageError::OutOfMemory { bytes: len })?;
        out.extend(b"RIFF\0\0\0\0WEBP");
        if let Some(alpha) = alpha {
            let side = |side: u32| (side - 1).to_le_bytes();
            let ([w0, w1, w2, _], [h0, h1, h2, _]) = (side(stream.width), side(stream.height));
            push_chunk(&mut out, b"VP8X", &[0x10, 0, 0, 0, w0, w1, w2, h0, h1, h2]);
            push_chunk(&mut out, b"ALPH", alpha);
        }
        push_chunk(&mut out, if stream.lossless { b"VP8L" } else { b"VP8 " }, body);
        let riff_len = u32::try_from(out.len() - 8).unwrap_or(u32::MAX);
        out[4..8].copy_from_slice(&riff_len.to_le_bytes());
        Ok(out)
    }
}

fn push_chunk(out: &mut Vec<u8>, tag: &[u8; 4], body: &[u8]) {
    out.extend(tag);
    out.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(body);
    if !body.len().is_multiple_of(2) {
        out.push(0);
    }
}

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let located = locate(data)?;
    let Located { frame: Frame { stream, alpha, .. }, canvas: (width, height), .. } = located;
    let pixels = u64::from(width) * u64::from(height);
    let frame_pixels = u64::from(stream.width) * u64::from(stream.height);
    // Output; planes of a lossy frame (4:2:0) or RGBA of a lossless one, which is also how
    // alpha is coded; canvas of an animation.
    let output: u64 = if stream.alpha || alpha.is_some() { 4 } else { 3 };
    let planes = if stream.lossless { 4 } else { 2 } + if alpha.is_some() { 6 } else { 0 };
    let canvas = if located.animated { output * pixels } else { 0 };
    let info = ImageInfo {
        format: WebP,
        width,
        height,
        frames: located.frames,
        orientation: located.orientation,
        channels: if located.shows_alpha { 4 } else { 3 },
        bits_per_channel: 8,
    };
    let peak_bytes = (output + planes) * frame_pixels + canvas;
    Ok(Header { info, least_bytes: 0, peak_bytes })
}

/// Finds the first frame. Flags of the extended header promise chunks that some writers leave out
/// later; here a promise without its chunk is overlooked, and what is not promised is not used.
pub(in crate::image) fn locate(data: &[u8]) -> Result<Located<'_>, ImageError> {
    let bytes = Bytes::little(data);
    let tag = bytes.tag(12).ok_or_else(|| cut_off(WebP))?;
    if &tag != b"VP8X" {
        let (_, chunk) = Chunks { bytes, offset: 12 }.next().ok_or_else(|| cut_off(WebP))?;
        let stream = bitstream(tag, chunk)?;
        return Ok(Located {
            frame: Frame { stream, body: chunk, alpha: None },
            left: 0,
            top: 0,
            shows_alpha: stream.alpha,
            canvas: (stream.width, stream.height),
            animated: false,
            orientation: 1,
            frames: Some(1),
        });
    }
    let header = (|| Some((bytes.u8(20)?, bytes.u24_le(24)? + 1, bytes.u24_le(27)? + 1)))();
    let (flags, width, height) = header.ok_or_else(|| cut_off(WebP))?;
    let animated = flags & 0x02 != 0;
    let mut chunks = Chunks { bytes, offset: 12 };
    let _ = chunks.next();
    let (mut first, mut alpha, mut place) = (None, None, (0, 0));
    let (mut orientation, mut frames) = (1, Some(0));
    while let Some((tag, body)) = chunks.next() {
        match &tag {
            b"ALPH" if !animated => alpha = Some(body),
            b"VP8 " | b"VP8L" if !animated && first.is_none() => {
                first = Some(Frame { stream: bitstream(tag, body)?, body, alpha });
                frames = Some(1);
            }
            b"ANMF" if animated => {
                if first.is_none() {
                    let (frame, left, top) = animation_frame(body)?;
                    first = Some(frame);
                    place = (left, top);
                }
                // The last chunk of a file that was cut off.
                frames = frames.filter(|_| chunks.offset <= data.len() + 1).map(|n| n + 1);
            }
            // As in libwebp, EXIF that the header does not promise does not count.
            b"EXIF" if flags & 0x08 != 0 => {
                // Some writers keep the prefix that JPEG needs.
                let exif = body.strip_prefix(b"Exif\0\0").unwrap_or(body);
                orientation = orientation::of_exif(exif);
            }
            _ => {}
        }
    }
    let frame = first.ok_or_else(|| ImageError::corrupt(WebP, "it has no frame"))?;
    let (left, top) = place;
    let (own_width, own_height) = (frame.width(), frame.height());
    let fits = if animated {
        left + own_width <= width && top + own_height <= height
    } else {
        (own_width, own_height) == (width, height)
    };
    if !fits {
        return Err(ImageError::corrupt(
            WebP,
            format_args!("a frame of {own_width} x {own_height} is on a canvas of {width} x {height}"),
        ));
    }
    let shows_alpha = flags & 0x10 != 0;
    Ok(Located { frame, left, top, shows_alpha, canvas: (width, height), animated, orientation, frames })
}

/// A frame of an animation: its chunks, where it lies, whether it is blended with what is there, and whether its place
/// becomes transparent before the next one.
pub(in crate::image) struct Cel<'a> {
    pub(in crate::image) located: Located<'a>,
    pub(in crate::image) blends: bool,
    pub(in crate::image) clears: bool,
}

/// The frames of an animation, of a file whose first one was found.
pub(in crate::image) fn cels(data: &[u8]) -> impl Iterator<Item = Result<Cel<'_>, ImageError>> {
    let mut chunks = Chunks { bytes: Bytes::little(data), offset: 12 };
    let header = chunks.next().map_or(&[][..], |(_, body)| body);
    let bytes = Bytes::little(header);
    let flags = bytes.u8(0).unwrap_or(0);
    let side = |at| bytes.u24_le(at).map_or(0, |side| side + 1);
    let canvas = (side(4), side(7));
    chunks.filter(|(tag, _)| tag == b"ANMF").map(move |(_, body)| {
        let (frame, left, top) = animation_frame(body)?;
        if left + frame.width() > canvas.0 || top + frame.height() > canvas.1 {
            return Err(ImageError::corrupt(WebP, "a frame lies beside its canvas"));
        }
        let how = body.get(15).copied().unwrap_or(0);
        let shows_alpha = flags & 0x10 != 0;
        let located =
            Located { frame, left, top, shows_alpha, canvas, animated: true, orientation: 1, frames: None };
        Ok(Cel { located, blends: how & 2 == 0, clears: how & 1 != 0 })
    })
}

/// Walks over chunks; the last one may be cut off.
struct Chunks<'a> {
    bytes: Bytes<'a>,
    offset: usize,
}

impl<'a> Iterator for Chunks<'a> {
    type Item = ([u8; 4], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let tag = self.bytes.tag(self.offset)?;
        let len = self.bytes.u32(self.offset + 4)? as usize;
        let start = self.offset + 8;
        let end = start.saturating_add(len);
        self.offset = end.saturating_add(len & 1);
        Some((tag, &self.bytes.data[start..end.min(self.bytes.data.len())]))
    }
}

/// The first frame of an animation, which must be as large as its place, and its left and upper edge.
fn animation_frame(body: &[u8]) -> Result<(Frame<'_>, u32, u32), ImageError> {
    let bytes = Bytes::little(body);
    let place =
        (|| Some((bytes.u24_le(0)? * 2, bytes.u24_le(3)? * 2, bytes.u24_le(6)? + 1, bytes.u24_le(9)? + 1)))();
    let (left, top, width, height) = place.ok_or_else(|| cut_off(WebP))?;
    let mut alpha = None;
    for (tag, body) in (Chunks { bytes, offset: 16 }) {
        match &tag {
            b"ALPH" => alpha = Some(body),
            b"VP8 " | b"VP8L" => {
                let stream = bitstream(tag, body)?;
                if (stream.width, stream.height) != (width, height) {
                    return Err(ImageError::corrupt(WebP, "its first frame has two sizes"));
                }
                return Ok((Frame { stream, body, alpha }, left, top));
            }
            _ => {}
        }
    }
    Err(ImageError::corrupt(WebP, "its first frame has no picture"))
}

/// The header of a VP8 (RFC 6386, 9.1) or VP8L (RFC 9649, 3.4) bitstream.
fn bitstream(tag: [u8; 4], body: &[u8]) -> Result<Bitstream, ImageError> {
    let bytes = Bytes::little(body);
    match &tag {
        b"VP8 " => {
            let sides = (|| Some((bytes.u24_le(3)?, bytes.u16(6)?, bytes.u16(8)?)))();
            let (start_code, width, height) = sides.ok_or_else(|| cut_off(WebP))?;
            if start_code != 0x2a_01_9d {
                return Err(ImageError::corrupt(WebP, "its first frame is not a key frame"));
            }
            // The two upper bits ask for scaling, which decoders leave to the viewer.
            let side = |side: u16| u32::from(side & 0x3fff);
            Ok(Bitstream { width: side(width), height: side(height), alpha: false, lossless: false })
        }
        b"VP8L" => {
            let (signature, packed) = bytes.u8(0).zip(bytes.u32(1)).ok_or_else(|| cut_off(WebP))?;
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
