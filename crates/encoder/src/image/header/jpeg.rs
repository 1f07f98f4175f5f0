//! JPEG: walks the marker segments up to the first scan (ITU T.81, annex B).

use super::bytes::Bytes;
use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::Jpeg;
use crate::image::error::ImageError;
use crate::image::orientation;

const SOF_BASELINE: u8 = 0xc0;
const SOF_EXTENDED: u8 = 0xc1;
const SOF_PROGRESSIVE: u8 = 0xc2;
const DHT: u8 = 0xc4;
const JPG: u8 = 0xc8;
const DAC: u8 = 0xcc;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const APP1: u8 = 0xe1;

/// A start-of-frame segment.
struct Frame {
    progressive: bool,
    precision: u8,
    width: u32,
    height: u32,
    components: u8,
    /// 8x8 blocks of all components, each padded to whole MCUs.
    blocks: u64,
}

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let bytes = Bytes::big(data);
    let mut offset = 2;
    let mut frame = None;
    let mut exif = None;
    loop {
        let marker = bytes.u8(offset + 1).filter(|_| bytes.u8(offset) == Some(0xff));
        let Some(marker) = marker else {
            // Not at a marker: the decoder decides whether it forgives stray bytes.
            offset = next_marker(data, offset).ok_or_else(|| cut_off(Jpeg))?;
            continue;
        };
        // Fill bytes, and markers that stand alone.
        if matches!(marker, 0xff) {
            offset += 1;
            continue;
        }
        if matches!(marker, 0x00 | 0x01 | 0xd0..=0xd8) {
            offset += 2;
            continue;
        }
        if marker == EOI {
            return Err(ImageError::corrupt(Jpeg, "it ends before its first scan"));
        }
        let len = usize::from(bytes.u16(offset + 2).ok_or_else(|| cut_off(Jpeg))?);
        let Some(body_len) = len.checked_sub(2) else {
            return Err(ImageError::corrupt(Jpeg, format_args!("a segment announces {len} bytes")));
        };
        let body = bytes.slice(offset + 4, body_len).ok_or_else(|| cut_off(Jpeg))?;
        match marker {
            SOF_BASELINE | SOF_EXTENDED | SOF_PROGRESSIVE => {
                if frame.is_some() {
                    return Err(ImageError::corrupt(Jpeg, "it has two frame headers"));
                }
                frame = Some(read_frame(body, marker == SOF_PROGRESSIVE)?);
            }
            DHT | JPG => {}
            DAC | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Err(ImageError::unsupported(Jpeg, "arithmetic coding"));
            }
            0xc3 => return Err(ImageError::unsupported(Jpeg, "lossless coding")),
            0xc5..=0xc7 => return Err(ImageError::unsupported(Jpeg, "hierarchical coding")),
            APP1 if exif.is_none() => exif = body.strip_prefix(b"Exif\0\0"),
            SOS => break,
            _ => {}
        }
        offset += 2 + len;
    }
    let frame =
        frame.ok_or_else(|| ImageError::corrupt(Jpeg, "its first scan comes before its frame header"))?;
    let scan_components = bytes.u8(offset + 4).unwrap_or(0);
    // Every block has a code for its DC coefficient, and one for the end of its AC coefficients
    // unless those come in other scans; no code is shorter than a bit. A file with fewer bits
    // lies about its size, and a decoder would fill up what is missing with gray.
    let bits_per_block = if frame.progressive { 1 } else { 2 };
    let least_bytes = offset as u64 + (frame.blocks * bits_per_block).div_ceil(8);
    let pixels = u64::from(frame.width) * u64::from(frame.height);
    // An image that comes in several scans keeps all its coefficients, two bytes each.
    let coefficients =
        if frame.progressive || scan_components != frame.components { 2 * 64 * frame.blocks } else { 0 };
    let info = ImageInfo {
        format: Jpeg,
        width: frame.width,
        height: frame.height,
        frames: Some(1),
        orientation: exif.map_or(1, orientation::of_exif),
        channels: frame.components,
        bits_per_channel: frame.precision,
    };
    Ok(Header { info, least_bytes, peak_bytes: 3 * pixels + coefficients })
}

/// Offset of the next 0xff at or behind `offset`.
fn next_marker(data: &[u8], offset: usize) -> Option<usize> {
    let rest = data.get(offset + 1..)?;
    rest.iter().position(|&byte| byte == 0xff).map(|at| offset + 1 + at)
}

/// Parses the body of a start-of-frame segment (T.81, B.2.2).
fn read_frame(body: &[u8], progressive: bool) -> Result<Frame, ImageError> {
    let bytes = Bytes::big(body);
    let header = (|| Some((bytes.u8(0)?, bytes.u16(1)?, bytes.u16(3)?, bytes.u8(5)?)))();
    let (precision, height, width, components) = header.ok_or_else(|| cut_off(Jpeg))?;
    if precision != 8 {
        return Err(ImageError::unsupported(Jpeg, format_args!("with {precision} bits per channel")));
    }
    if height == 0 {
        return Err(ImageError::unsupported(Jpeg, "with its height behind the pixels"));
    }
    if !matches!(components, 1 | 3 | 4) {
        return Err(ImageError::unsupported(Jpeg, format_args!("with {components} components")));
    }
    let mut factors = [(1_u64, 1_u64); 4];
    for (i, factor) in factors.iter_mut().enumerate().take(usize::from(components)) {
        let byte = bytes.u8(6 + 3 * i + 1).ok_or_else(|| cut_off(Jpeg))?;
        *factor = (u64::from(byte >> 4), u64::from(byte & 15));
        if !matches!(factor, (1..=4, 1..=4)) {
            return Err(ImageError::corrupt(Jpeg, "a sampling factor is not between 1 and 4"));
        }
    }
    let factors = &factors[..usize::from(components)];
    let h_max = factors.iter().map(|f| f.0).max().expect("at least one component");
    let v_max = factors.iter().map(|f| f.1).max().expect("at least one component");
    let mcus = u64::from(width).div_ceil(8 * h_max) * u64::from(height).div_ceil(8 * v_max);
    let blocks = factors.iter().map(|(h, v)| mcus * h * v).sum();
    Ok(Frame {
        progressive,
        precision,
        width: u32::from(width),
        height: u32::from(height),
        components,
        blocks,
    })
}
