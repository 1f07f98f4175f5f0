//! PNM: the portable bitmap, graymap and pixmap of Netpbm, as numbers in text (P1 to P3) or in bytes (P4 to P6).

use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::Pnm;
use crate::image::error::ImageError;

/// Longest header that is read, comments included.
const LONGEST_HEADER: usize = 64 << 10;

/// All that decoding needs.
pub(in crate::image) struct Map<'a> {
    pub(in crate::image) width: u32,
    pub(in crate::image) height: u32,
    /// 1 or 3.
    pub(in crate::image) channels: u8,
    /// What white is, up to 65,535; 1 of a bitmap.
    pub(in crate::image) most: u16,
    pub(in crate::image) is_bitmap: bool,
    pub(in crate::image) is_text: bool,
    pub(in crate::image) samples: &'a [u8],
}

/// Numbers in text, between blanks and comments.
pub(in crate::image) struct Numbers<'a> {
    pub(in crate::image) rest: &'a [u8],
}

impl Numbers<'_> {
    /// The next number, of at most `digits` digits.
    pub(in crate::image) fn next(&mut self, digits: usize) -> Option<u32> {
        loop {
            match self.rest {
                [b'#', rest @ ..] => {
                    let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
                    self.rest = &rest[end..];
                }
                [blank, rest @ ..] if is_blank(*blank) => self.rest = rest,
                _ => break,
            }
        }
        let count = self.rest.iter().take(digits).take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(count);
        self.rest = rest;
        std::str::from_utf8(number).ok()?.parse().ok()
    }
}

pub(in crate::image) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let map = map(data)?;
    let (width, height, channels) = (map.width, map.height, map.channels);
    let bits_per_channel = if map.is_bitmap { 1 } else { 8 + 8 * u8::from(map.most > 255) };
    let info =
        ImageInfo { format: Pnm, width, height, frames: Some(1), orientation: 1, channels, bits_per_channel };
    let pixels = u64::from(width) * u64::from(height);
    let samples = pixels.saturating_mul(channels.into());
    let of_samples = match (map.is_text, map.is_bitmap) {
        // Digits of a text bitmap need nothing between them.
        (true, true) => pixels,
        (true, false) => samples.saturating_mul(2).saturating_sub(1),
        (false, true) => u64::from(width.div_ceil(8)) * u64::from(height),
        (false, false) => samples.saturating_mul(1 + u64::from(map.most > 255)),
    };
    let least_bytes = of_samples.saturating_add((data.len() - map.samples.len()) as u64);
    let peak_bytes = pixels.saturating_mul(if channels == 1 { 4 } else { 3 });
    Ok(Header { info, least_bytes, peak_bytes })
}

pub(in crate::image) fn map(data: &[u8]) -> Result<Map<'_>, ImageError> {
    let kind = data.get(1).copied().unwrap_or_default();
    let start = &data[2.min(data.len())..data.len().min(LONGEST_HEADER)];
    let mut numbers = Numbers { rest: start };
    let is_bitmap = matches!(kind, b'1' | b'4');
    let mut number = || numbers.next(10).ok_or_else(|| cut_off(Pnm));
    let (width, height) = (number()?, number()?);
    let most = if is_bitmap { 1 } else { number()? };
    let most = u16::try_from(most).ok().filter(|&most| most > 0);
    let most =
        most.ok_or_else(|| ImageError::corrupt(Pnm, "its largest value is not within 1 and 65,535"))?;
    // A single blank comes before the samples.
    let used = start.len() - numbers.rest.len() + 2;
    match data.get(used) {
        Some(&blank) if is_blank(blank) => {}
        _ => return Err(cut_off(Pnm)),
    }
    Ok(Map {
        width,
        height,
        channels: if matches!(kind, b'3' | b'6') { 3 } else { 1 },
        most,
        is_bitmap,
        is_text: matches!(kind, b'1' | b'2' | b'3'),
        samples: &data[used + 1..],
    })
}
