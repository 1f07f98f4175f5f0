//! TIFF and BigTIFF: the first directory, and a count of the others (TIFF 6.0, section 2).

use super::bytes::{Bytes, Endian};
use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::Tiff;
use crate::image::alpha::Layout;
use crate::image::error::ImageError;

/// Pages that are counted. A chain that is longer, or runs in a circle, counts as unknown.
const MAX_PAGES: u32 = 4096;

const IMAGE_WIDTH: u16 = 256;
const IMAGE_LENGTH: u16 = 257;
const BITS_PER_SAMPLE: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const ORIENTATION: u16 = 274;
const SAMPLES_PER_PIXEL: u16 = 277;

const PHOTOMETRIC_PALETTE: u64 = 3;

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let file = File::new(data).ok_or_else(|| cut_off(Tiff))?;
    let first = file.first_directory().ok_or_else(|| cut_off(Tiff))?;
    let value = |tag| file.value(first, tag);
    let side = |tag| {
        let side = value(tag).ok_or_else(|| ImageError::corrupt(Tiff, "its first page has no size"))?;
        u32::try_from(side).map_err(|_| ImageError::corrupt(Tiff, format_args!("one side is {side} pixels")))
    };
    let (width, height) = (side(IMAGE_WIDTH)?, side(IMAGE_LENGTH)?);
    let samples = u8::try_from(value(SAMPLES_PER_PIXEL).unwrap_or(1)).unwrap_or(u8::MAX);
    let bits = u8::try_from(value(BITS_PER_SAMPLE).unwrap_or(1)).unwrap_or(u8::MAX);
    // JPEG strips carry sizes of their own, which the TIFF decoder allocates for unseen.
    if matches!(value(COMPRESSION), Some(6 | 7)) {
        return Err(ImageError::unsupported(Tiff, "with JPEG compression"));
    }
    let palette = value(PHOTOMETRIC) == Some(PHOTOMETRIC_PALETTE);
    let info = ImageInfo {
        format: Tiff,
        width,
        height,
        frames: file.count_directories(),
        orientation: match value(ORIENTATION) {
            Some(orientation @ 1..=8) => u8::try_from(orientation).expect("at most eight"),
            _ => 1,
        },
        channels: if palette { 3 } else { samples },
        bits_per_channel: if palette { 8 } else { bits },
    };
    // The decoder's samples and their copy in our buffer; or, for gray ones, the RGB made of them.
    let sample_bytes = (u64::from(bits) * u64::from(samples)).div_ceil(8);
    let bytes_per_pixel = (2 * sample_bytes).max(Layout::Gray.peak_bytes_per_pixel());
    let peak_bytes = (u64::from(width) * u64::from(height)).saturating_mul(bytes_per_pixel);
    Ok(Header { info, least_bytes: 0, peak_bytes })
}

#[derive(Clone, Copy)]
struct File<'a> {
    bytes: Bytes<'a>,
    big: bool,
}

impl<'a> File<'a> {
    fn new(data: &'a [u8]) -> Option<Self> {
        let endian = if data.first()? == &b'I' { Endian::Little } else { Endian::Big };
        let bytes = Bytes { data, endian };
        Some(Self { bytes, big: bytes.u16(2)? == 43 })
    }

    /// An offset, or a count, of the width that this kind of TIFF has.
    fn word(self, offset: usize) -> Option<usize> {
        if self.big {
            usize::try_from(self.bytes.u64(offset)?).ok()
        } else {
            Some(self.bytes.u32(offset)? as usize)
        }
    }

    fn first_directory(self) -> Option<usize> {
        self.word(if self.big { 8 } else { 4 })
    }

    /// Where the entries of a directory start, and how many there are.
    fn entries(self, directory: usize) -> Option<(usize, usize)> {
        if self.big {
            Some((directory.checked_add(8)?, usize::try_from(self.bytes.u64(directory)?).ok()?))
        } else {
            Some((directory.checked_add(2)?, usize::from(self.bytes.u16(directory)?)))
        }
    }

    fn entry_len(self) -> usize {
        if self.big { 20 } else { 12 }
    }

    /// First value of an integer entry.
    fn value(self, directory: usize, tag: u16) -> Option<u64> {
        let (start, count) = self.entries(directory)?;
        let end = start.checked_add(count.checked_mul(self.entry_len())?)?;
        let entry = (start..end.min(self.bytes.data.len()))
            .step_by(self.entry_len())
            .find(|&entry| self.bytes.u16(entry) == Some(tag))?;
        let kind = self.bytes.u16(entry + 2)?;
        let (values, inline) = if self.big {
            (self.bytes.u64(entry + 4)?, entry + 12)
        } else {
            (u64::from(self.bytes.u32(entry + 4)?), entry + 8)
        };
        let width = match kind {
            1 => 1,
            3 => 2,
            4 => 4,
            16 if self.big => 8,
            _ => return None,
        };
        let room = if self.big { 8 } else { 4 };
        let at = if values.checked_mul(width)? <= room { inline } else { self.word(inline)? };
        match width {
            1 => self.bytes.u8(at).map(u64::from),
            2 => self.bytes.u16(at).map(u64::from),
            4 => self.bytes.u32(at).map(u64::from),
            _ => self.bytes.u64(at),
        }
    }

    fn count_directories(self) -> Option<u32> {
        let mut directory = self.first_directory()?;
        for pages in 1..=MAX_PAGES {
            let (start, count) = self.entries(directory)?;
            directory = self.word(start.checked_add(count.checked_mul(self.entry_len())?)?)?;
            if directory == 0 {
                return Some(pages);
            }
        }
        None
    }
}
