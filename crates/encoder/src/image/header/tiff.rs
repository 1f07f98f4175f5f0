//! TIFF and BigTIFF: the directory of a page, and a count of all (TIFF 6.0, section 2).

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
const FILL_ORDER: u16 = 266;
const STRIP_OFFSETS: u16 = 273;
const ORIENTATION: u16 = 274;
const SAMPLES_PER_PIXEL: u16 = 277;
const ROWS_PER_STRIP: u16 = 278;
const STRIP_BYTE_COUNTS: u16 = 279;
const PLANAR_CONFIGURATION: u16 = 284;
const T4_OPTIONS: u16 = 292;
const T6_OPTIONS: u16 = 293;
const PREDICTOR: u16 = 317;
const COLOR_MAP: u16 = 320;
const TILE_WIDTH: u16 = 322;
const TILE_LENGTH: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTE_COUNTS: u16 = 325;
const INK_SET: u16 = 332;
const EXTRA_SAMPLES: u16 = 338;
const SAMPLE_FORMAT: u16 = 339;
const JPEG_TABLES: u16 = 347;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) enum Compression {
    None,
    PackBits,
    Lzw,
    Deflate,
    /// CCITT, as for fax machines: one bit per pixel.
    Group3,
    Group4,
    Jpeg,
}

/// What samples mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Inks,
    /// With JPEG alone, whose decoder makes RGB of it.
    YCbCr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) enum Alpha {
    /// None, or samples that do not say what they are.
    None,
    /// Colors have been multiplied by it.
    Associated,
    Unassociated,
}

/// A page, in every field that decoding depends on.
pub(in crate::image) struct Page<'a> {
    file: File<'a>,
    directory: usize,
    pub(in crate::image) width: u32,
    pub(in crate::image) height: u32,
    /// Of a sample: 1, 2, 4, 8 or 16.
    pub(in crate::image) bits: usize,
    /// Of a pixel, those included that are not looked at.
    pub(in crate::image) samples: usize,
    pub(in crate::image) compression: Compression,
    pub(in crate::image) photometric: Photometric,
    pub(in crate::image) alpha: Alpha,
    /// Horizontal differences.
    pub(in crate::image) predictor: bool,
    /// Each chunk has one sample of its pixels.
    pub(in crate::image) planar: bool,
    /// The first pixel is in the lowest bit.
    pub(in crate::image) reversed_bits: bool,
    pub(in crate::image) tiled: bool,
    /// Sides of a tile or strip.
    pub(in crate::image) chunk_width: u32,
    pub(in crate::image) chunk_height: u32,
    offsets: Entry,
    byte_counts: Option<Entry>,
    orientation: u8,
}

impl<'a> Page<'a> {
    pub(in crate::image) fn big_endian(&self) -> bool {
        self.file.bytes.endian == Endian::Big
    }

    /// Samples of a pixel within one chunk.
    pub(in crate::image) fn chunk_samples(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }

    /// Samples that make a color.
    pub(in crate::image) fn color_samples(&self) -> usize {
        match self.photometric {
            Photometric::WhiteIsZero | Photometric::BlackIsZero | Photometric::Palette => 1,
            Photometric::Rgb | Photometric::YCbCr => 3,
            Photometric::Inks => 4,
        }
    }

    pub(in crate::image) fn layout(&self) -> Layout {
        match (self.alpha, self.color_samples(), self.photometric) {
            (Alpha::Associated | Alpha::Unassociated, ..) => Layout::Rgba,
            (Alpha::None, 1, Photometric::WhiteIsZero | Photometric::BlackIsZero) => Layout::Gray,
            (Alpha::None, ..) => Layout::Rgb,
        }
    }

    /// Bytes of a row of a chunk.
    pub(in crate::image) fn row_len(&self) -> usize {
        (self.chunk_width as usize).saturating_mul(self.bits * self.chunk_samples()).div_ceil(8)
    }

    /// The stored bytes of a chunk, which may be cut off.
    pub(in crate::image) fn chunk(&self, index: usize) -> Option<&'a [u8]> {
        let data = self.file.bytes.data;
        let start = usize::try_from(self.file.get(self.offsets, index)?).ok()?;
        let rest = data.get(start..)?;
        // Some writers leave the lengths out.
        let len = self.byte_counts.and_then(|counts| self.file.get(counts, index)).filter(|&len| len > 0);
        let len = len.and_then(|len| usize::try_from(len).ok()).unwrap_or(usize::MAX);
        Some(&rest[..len.min(rest.len())])
    }

    /// Colors of a palette; black where pixels have no use for one.
    pub(in crate::image) fn palette(&self) -> Result<[[u8; 3]; 256], ImageError> {
        let mut palette = [[0; 3]; 256];
        if self.photometric != Photometric::Palette {
            return Ok(palette);
        }
        let map = self.entry(COLOR_MAP).ok_or_else(|| ImageError::corrupt(Tiff, "it has no palette"))?;
        let colors = 1 << self.bits.min(8);
        for (i, color) in palette.iter_mut().enumerate().take(colors) {
            for (c, level) in color.iter_mut().enumerate() {
                let value = self.file.get(map, c * colors + i).ok_or_else(|| cut_off(Tiff))?;
                *level = (value >> 8) as u8;
            }
        }
        Ok(palette)
    }

    /// Tables that all JPEG chunks share, a stream of its own.
    pub(in crate::image) fn jpeg_tables(&self) -> Option<&'a [u8]> {
        let entry = self.entry(JPEG_TABLES)?;
        self.file.bytes.slice(entry.at, usize::try_from(entry.count).ok()?)
    }

    fn entry(&self, tag: u16) -> Option<Entry> {
        self.file.entry(self.directory, tag)
    }

    /// Bytes of all chunks of one place, as they are held together.
    fn chunk_bytes(&self) -> u64 {
        let planes = if self.planar { self.samples as u64 } else { 1 };
        (self.row_len() as u64).saturating_mul(u64::from(self.chunk_height)).saturating_mul(planes)
    }
}

pub(super) fn read(data: &[u8], number: u32) -> Result<Header, ImageError> {
    let page = page(data, number)?;
    let palette = page.photometric == Photometric::Palette;
    let info = ImageInfo {
        format: Tiff,
        width: page.width,
        height: page.height,
        frames: page.file.count_directories(),
        orientation: page.orientation,
        channels: if palette { 3 } else { u8::try_from(page.samples).unwrap_or(u8::MAX) },
        bits_per_channel: if palette { 8 } else { u8::try_from(page.bits).expect("at most 16") },
    };
    let layout = page.layout();
    let pixels = u64::from(page.width) * u64::from(page.height);
    // JPEG chunks: what its decoder holds at most, all coefficients and planes of 4:4:4.
    let jpeg = if page.compression == Compression::Jpeg { page.chunk_bytes().saturating_mul(12) } else { 0 };
    // Beside the result, the chunks of one place and a row; later, for gray, RGB.
    let chunks = page.chunk_bytes().saturating_add(jpeg);
    let row = 8 * u64::from(page.width) * page.samples as u64;
    let peak = pixels.saturating_mul(layout.channels() as u64).saturating_add(chunks).saturating_add(row);
    let peak_bytes = peak.max(pixels.saturating_mul(layout.peak_bytes_per_pixel()));
    Ok(Header { info, least_bytes: 0, peak_bytes })
}

/// Reads the page of this number, from 1.
pub(in crate::image) fn page(data: &[u8], number: u32) -> Result<Page<'_>, ImageError> {
    let file = File::new(data).ok_or_else(|| cut_off(Tiff))?;
    let mut directory = file.first_directory().ok_or_else(|| cut_off(Tiff))?;
    let no_page = || ImageError::NoFrame { frame: number.into(), frames: file.count_directories() };
    for _ in 1..number.min(MAX_PAGES + 1) {
        // A chain that is too short, or whose rest is damaged.
        let next = file.next_directory(directory).filter(|&next| next != 0);
        directory = next.ok_or_else(no_page)?;
    }
    if number == 0 || number > MAX_PAGES {
        return Err(no_page());
    }
    // A field whose values are cut off is no field that is absent.
    let value = |tag| match file.entry(directory, tag) {
        Some(entry) if entry.count > 0 => file.get(entry, 0).map(Some).ok_or_else(|| cut_off(Tiff)),
        _ => Ok(None),
    };
    let number = |tag, default: u64| Ok(value(tag)?.unwrap_or(default));
    let side = |tag| {
        let side = value(tag)?.ok_or_else(|| ImageError::corrupt(Tiff, "its page has no size"))?;
        u32::try_from(side).map_err(|_| ImageError::corrupt(Tiff, format_args!("one side is {side} pixels")))
    };
    let unsupported = |feature: String| Err(ImageError::unsupported(Tiff, feature));
    let (width, height) = (side(IMAGE_WIDTH)?, side(IMAGE_LENGTH)?);
    let samples = usize::try_from(number(SAMPLES_PER_PIXEL, 1)?).unwrap_or(usize::MAX);
    if !matches!(samples, 1..=64) {
        return unsupported(format!("with {samples} samples per pixel"));
    }

    let bits = number(BITS_PER_SAMPLE, 1)?;
    let all = |tag, expected| {
        let entry = file.entry(directory, tag);
        entry.is_none_or(|entry| {
            let stated = samples.min(usize::try_from(entry.count).unwrap_or(samples));
            (0..stated).all(|i| file.get(entry, i) == Some(expected))
        })
    };
    if !all(BITS_PER_SAMPLE, bits) {
        return unsupported("with samples of different widths".into());
    }
    let format = number(SAMPLE_FORMAT, 1)?;
    if !matches!(format, 1 | 4) || !all(SAMPLE_FORMAT, format) {
        let kind = if format == 3 { "floating-point" } else { "signed or complex" };
        return unsupported(format!("with {kind} samples"));
    }
    if !matches!(bits, 1 | 2 | 4 | 8 | 16) {
        return unsupported(format!("with {bits} bits per sample"));
    }
    let bits = bits as usize;

    let compression = match number(COMPRESSION, 1)? {
        1 => Compression::None,
        3 if number(T4_OPTIONS, 0)? & 3 == 0 => Compression::Group3,
        3 => return unsupported("with two-dimensional Group 3 compression".into()),
        4 if number(T6_OPTIONS, 0)? & 2 == 0 => Compression::Group4,
        4 => return unsupported("with uncompressed parts in Group 4 compression".into()),
        5 => Compression::Lzw,
        7 => Compression::Jpeg,
        8 | 32_946 => Compression::Deflate,
        32_773 => Compression::PackBits,
        other => return unsupported(format!("with {} compression", compression_name(other))),
    };
    let photometric = match number(PHOTOMETRIC, 1)? {
        0 => Photometric::WhiteIsZero,
        1 => Photometric::BlackIsZero,
        2 => Photometric::Rgb,
        3 if bits <= 8 => Photometric::Palette,
        5 if number(INK_SET, 1)? == 1 && compression != Compression::Jpeg => Photometric::Inks,
        6 if compression == Compression::Jpeg => Photometric::YCbCr,
        6 => return unsupported("with YCbCr samples outside of JPEG".into()),
        8..=10 => return unsupported("in the Lab color space".into()),
        other => return unsupported(format!("with photometric interpretation {other}")),
    };
    let chunk_samples_are_bits = bits == 1 && samples == 1;
    if matches!(compression, Compression::Group3 | Compression::Group4) && !chunk_samples_are_bits {
        return unsupported("with fax compression of more than one bit per pixel".into());
    }
    let reversed_bits = number(FILL_ORDER, 1)? == 2;
    let planar = number(PLANAR_CONFIGURATION, 1)? == 2 && samples > 1;
    if compression == Compression::Jpeg && (bits != 8 || (planar && photometric == Photometric::YCbCr)) {
        return unsupported("with this kind of JPEG compression".into());
    }
    let predicted = matches!(compression, Compression::Lzw | Compression::Deflate);
    let predictor = match number(PREDICTOR, 1)? {
        2 if predicted && bits >= 8 => true,
        2 | 3 if predicted => return unsupported("with a predictor for such samples".into()),
        _ => false,
    };

    let tiled = value(TILE_WIDTH)?.is_some();
    let (chunk_width, chunk_height) = if tiled {
        (side(TILE_WIDTH)?, side(TILE_LENGTH)?)
    } else {
        let rows = number(ROWS_PER_STRIP, u64::from(height))?.min(u64::from(height));
        (width, u32::try_from(rows).expect("at most the height"))
    };
    if (chunk_width == 0 || chunk_height == 0) && width > 0 && height > 0 {
        return Err(ImageError::corrupt(Tiff, "its strips or tiles are empty"));
    }
    let own = if tiled { (TILE_OFFSETS, TILE_BYTE_COUNTS) } else { (STRIP_OFFSETS, STRIP_BYTE_COUNTS) };
    let offsets = file.entry(directory, own.0).or_else(|| file.entry(directory, STRIP_OFFSETS));
    let offsets = offsets.ok_or_else(|| ImageError::corrupt(Tiff, "it does not say where its pixels are"))?;
    let byte_counts = file.entry(directory, own.1).or_else(|| file.entry(directory, STRIP_BYTE_COUNTS));

    let mut page = Page {
        directory,
        file,
        width,
        height,
        bits,
        samples,
        compression,
        photometric,
        alpha: Alpha::None,
        predictor,
        planar,
        reversed_bits,
        tiled,
        chunk_width,
        chunk_height,
        offsets,
        byte_counts,
        orientation: file.orientation(directory).unwrap_or(1),
    };
    if samples < page.color_samples() {
        let reason =
            format_args!("its colors have {} samples and its pixels {samples}", page.color_samples());
        return Err(ImageError::corrupt(Tiff, reason));
    }
    // One sample more than the color has, of no stated kind, is taken for alpha, as Pillow takes it.
    let extra = value(EXTRA_SAMPLES)?;
    if samples > page.color_samples() && photometric != Photometric::Inks {
        page.alpha = match extra {
            Some(1) => Alpha::Associated,
            Some(2 | 999) => Alpha::Unassociated,
            None if samples == page.color_samples() + 1 => Alpha::Unassociated,
            _ => Alpha::None,
        };
    }
    if compression == Compression::Jpeg && !planar && samples != page.color_samples() {
        return unsupported("with more than colors in JPEG compression".into());
    }
    Ok(page)
}

fn compression_name(number: u64) -> String {
    match number {
        2 | 32_771 => "CCITT run-length".into(),
        6 => "old-style JPEG".into(),
        32_809 => "ThunderScan".into(),
        34_661 => "JBIG".into(),
        34_676 | 34_677 => "SGI Log".into(),
        34_712 => "JPEG 2000".into(),
        34_887 => "LERC".into(),
        34_925 => "LZMA".into(),
        50_000 => "ZSTD".into(),
        50_001 => "WebP".into(),
        _ => format!("unknown ({number})"),
    }
}

/// The orientation that an EXIF block or a TIFF file has in its first directory, if that is 1 to 8.
pub(in crate::image) fn orientation(data: &[u8]) -> Option<u8> {
    let file = File::new(data)?;
    file.orientation(file.first_directory()?)
}

/// A field of a directory.
#[derive(Clone, Copy)]
struct Entry {
    /// Bytes of a value.
    width: usize,
    count: u64,
    /// Offset of the first value.
    at: usize,
}

#[derive(Clone, Copy)]
struct File<'a> {
    bytes: Bytes<'a>,
    big: bool,
}

impl<'a> File<'a> {
    fn new(data: &'a [u8]) -> Option<Self> {
        let endian = match data.get(..2)? {
            b"II" => Endian::Little,
            b"MM" => Endian::Big,
            _ => return None,
        };
        let bytes = Bytes { data, endian };
        let version = bytes.u16(2)?;
        matches!(version, 42 | 43).then_some(Self { bytes, big: version == 43 })
    }

    fn orientation(self, directory: usize) -> Option<u8> {
        let orientation = u8::try_from(self.value(directory, ORIENTATION)?).ok()?;
        matches!(orientation, 1..=8).then_some(orientation)
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
        self.get(self.entry(directory, tag)?, 0)
    }

    fn entry(self, directory: usize, tag: u16) -> Option<Entry> {
        let (start, count) = self.entries(directory)?;
        let end = start.checked_add(count.checked_mul(self.entry_len())?)?;
        let entry = (start..end.min(self.bytes.data.len()))
            .step_by(self.entry_len())
            .find(|&entry| self.bytes.u16(entry) == Some(tag))?;
        let kind = self.bytes.u16(entry + 2)?;
        let (count, inline) = if self.big {
            (self.bytes.u64(entry + 4)?, entry + 12)
        } else {
            (u64::from(self.bytes.u32(entry + 4)?), entry + 8)
        };
        let width = match kind {
            // Signed types too: no tag that is read here can be negative, and what is turns out too large.
            1 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 13 => 4,
            16..=18 => 8,
            _ => return None,
        };
        let room = if self.big { 8 } else { 4 };
        let at = if count.checked_mul(width)? <= room { inline } else { self.word(inline)? };
        Some(Entry { width: width as usize, count, at })
    }

    /// Value `index` of an entry.
    fn get(self, entry: Entry, index: usize) -> Option<u64> {
        if index as u64 >= entry.count {
            return None;
        }
        let at = entry.at.checked_add(index.checked_mul(entry.width)?)?;
        match entry.width {
            1 => self.bytes.u8(at).map(u64::from),
            2 => self.bytes.u16(at).map(u64::from),
            4 => self.bytes.u32(at).map(u64::from),
            _ => self.bytes.u64(at),
        }
    }

    fn count_directories(self) -> Option<u32> {
        let mut directory = self.first_directory()?;
        for pages in 1..=MAX_PAGES {
            directory = self.next_directory(directory)?;
            if directory == 0 {
                return Some(pages);
            }
        }
        None
    }

    /// Where the directory after this one is; 0 where none is.
    fn next_directory(self, directory: usize) -> Option<usize> {
        let (start, count) = self.entries(directory)?;
        self.word(start.checked_add(count.checked_mul(self.entry_len())?)?)
    }
}
