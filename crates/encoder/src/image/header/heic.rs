//! HEIC: sides, orientation and the coding of its primary picture (ISO 23008-12), and a look into the stream of HEVC.
//!
//! libheif decodes it, and takes memory for the sides that the stream tells. So the stream must tell those of the file, and hold one picture.

use std::ops::Range;

use super::heif;
use super::isobmff::{File, Meta};
use super::{Header, ImageInfo};
use crate::image::ImageFormat::Heic;
use crate::image::error::ImageError;
use crate::image::orientation::Turn;

/// By how much coded sides may exceed those that are shown: one block of the largest size.
const SLACK: u64 = 64;

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let file = File::new(data, Heic);
    let meta = Meta::read(file)?;
    let id = meta.primary;
    let (width, height) = meta.sides(id)?;
    let cells = match meta.kind(id).as_ref() {
        Some(b"hvc1") => vec![id],
        Some(b"grid") => {
            let grid = heif::grid(&meta, id)?;
            if (grid.width, grid.height) != (width, height) {
                return Err(file.damaged("its headers disagree about its size"));
            }
            grid.cells
        }
        Some(kind) => {
            let kind = String::from_utf8_lossy(kind);
            return Err(ImageError::unsupported(Heic, format_args!("of kind \"{kind}\"")));
        }
        None => return Err(file.damaged("the picture is not there")),
    };
    let coding = coding(&meta, &cells, u64::from(width) * u64::from(height))?;
    let alpha = heif::alpha_of(&meta, id).map(|(alpha, _)| alpha);
    if let Some(alpha) = alpha {
        let cells =
            if meta.kind(alpha) == Some(*b"grid") { heif::grid(&meta, alpha)?.cells } else { vec![alpha] };
        self::coding(&meta, &cells, u64::from(width) * u64::from(height))?;
    }
    let whole = u64::from(width) * u64::from(height);
    let crop = heif::crop(&meta, id, width, height)?;
    let (width, height) = crop.map_or((width, height), |crop| (crop.width, crop.height));
    // libheif turns.
    let (width, height) = Turn::from_exif(heif::orientation(&meta, id)).sides(width, height);
    let info = ImageInfo {
        format: Heic,
        width,
        height,
        frames: Some(1),
        orientation: 1,
        channels: if coding.is_gray { 1 } else { 3 } + u8::from(alpha.is_some()),
        bits_per_channel: coding.bits,
    };
    // Interleaved samples beside planes, or beside the result.
    let channels: u64 = if alpha.is_some() { 4 } else { 3 };
    let per_pixel = if coding.bits > 8 { 3 * channels } else { 2 * channels };
    Ok(Header { info, least_bytes: 0, peak_bytes: whole.saturating_mul(per_pixel) })
}

/// What a stream says about its samples.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Coding {
    bits: u8,
    is_gray: bool,
}

/// Looks into all cells, and returns the coding of the first.
fn coding(meta: &Meta<'_>, cells: &[u32], pixels: u64) -> Result<Coding, ImageError> {
    let file = meta.file;
    let mut first = None;
    let (mut total, mut bytes) = (0_u64, 0_usize);
    // Cells mostly share their configuration.
    let mut known: Option<(Range<usize>, (u32, u32), usize)> = None;
    for &id in cells {
        if meta.kind(id) != Some(*b"hvc1") {
            return Err(ImageError::unsupported(Heic, "with parts that are not HEVC"));
        }
        let sides = meta.sides(id)?;
        total = total.saturating_add(u64::from(sides.0) * u64::from(sides.1));
        let body = meta.property(id, b"hvcC").ok_or_else(|| file.damaged("its coding is not told"))?;
        let prefix = match &known {
            Some((place, of, prefix)) if *place == body && *of == sides => *prefix,
            _ => {
                let (coding, prefix) = configuration(file, body.clone(), sides)?;
                first.get_or_insert(coding);
                known = Some((body, sides, prefix));
                prefix
            }
        };
        bytes = bytes.saturating_add(one_picture(meta, id, prefix, sides)?);
        // Each cell is walked through once, so that this takes no longer than the file.
        if bytes > file.bytes.data.len() {
            return Err(file.damaged("its pieces overlap"));
        }
    }
    // Cells reach over the right and lower edge by less than themselves.
    if cells.len() > 1 && total > pixels.saturating_mul(4).saturating_add(1 << 22) {
        return Err(file.damaged("its cells are larger than the picture"));
    }
    first.ok_or_else(|| file.damaged("a grid has no cells"))
}

/// The coding, and the length of what stands before each unit of the stream.
fn configuration(
    file: File<'_>,
    body: Range<usize>,
    sides: (u32, u32),
) -> Result<(Coding, usize), ImageError> {
    let mut cursor = file.cursor(body);
    cursor.skip(16)?;
    let is_gray = cursor.u8()? & 3 == 0;
    let bits = 8 + (cursor.u8()? & 7);
    cursor.skip(3)?;
    let prefix = usize::from(cursor.u8()? & 3) + 1;
    for _ in 0..cursor.u8()? {
        cursor.skip(1)?;
        for _ in 0..cursor.u16()? {
            let len = usize::from(cursor.u16()?);
            let start = cursor.place.start;
            cursor.skip(len)?;
            unit(file, &file.bytes.data[start..start + len], sides)?;
        }
    }
    Ok((Coding { bits, is_gray }, prefix))
}

/// What a unit is: the start of a picture or not. One that tells sides must tell these.
fn unit(file: File<'_>, unit: &[u8], sides: (u32, u32)) -> Result<bool, ImageError> {
    const SEQUENCE: u8 = 33;
    let Some(&[head, _]) = unit.first_chunk::<2>() else { return Ok(false) };
    let kind = head >> 1 & 63;
    if kind == SEQUENCE {
        let (width, height) =
            coded_sides(&unit[2..]).ok_or_else(|| file.damaged("its stream has no sides"))?;
        if width > u64::from(sides.0) + SLACK || height > u64::from(sides.1) + SLACK {
            return Err(file.damaged("its headers disagree about its size"));
        }
    }
    Ok(kind < 32 && unit.get(2).is_some_and(|byte| byte & 0x80 != 0))
}

/// Walks through the units of an item, which must be one picture, and returns their bytes.
fn one_picture(meta: &Meta<'_>, id: u32, prefix: usize, sides: (u32, u32)) -> Result<usize, ImageError> {
    let file = meta.file;
    let places = meta.places(id)?;
    // Units may lie across pieces; files of several pieces are rare.
    let joined: Vec<u8>;
    let data = match &places[..] {
        [place] => &file.bytes.data[place.clone()],
        several => {
            let len = several.iter().map(Range::len).sum();
            let mut all = Vec::new();
            all.try_reserve_exact(len).map_err(|_| ImageError::OutOfMemory { bytes: len })?;
            several.iter().for_each(|place| all.extend_from_slice(&file.bytes.data[place.clone()]));
            joined = all;
            &joined
        }
    };
    let (mut rest, mut pictures) = (data, 0);
    while rest.len() > prefix {
        let (len, behind) = rest.split_at(prefix);
        let len = len.iter().fold(0, |len, &byte| len << 8 | usize::from(byte));
        let part = behind.get(..len).ok_or_else(|| file.damaged("the picture's data are cut off"))?;
        pictures += u32::from(unit(file, part, sides)?);
        rest = &behind[len..];
    }
    match pictures {
        0 => Err(file.damaged("the picture has no data")),
        1 => Ok(data.len()),
        _ => Err(file.damaged("one of its pictures is several")),
    }
}

/// Bits of a unit without the bytes that only keep its start codes apart.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    zeros: u32,
    byte: u8,
    left: u32,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u64> {
        if self.left == 0 {
            let mut byte = *self.bytes.get(self.at)?;
            self.at += 1;
            if self.zeros >= 2 && byte == 3 {
                self.zeros = 0;
                byte = *self.bytes.get(self.at)?;
                self.at += 1;
            }
            self.zeros = if byte == 0 { self.zeros + 1 } else { 0 };
            (self.byte, self.left) = (byte, 8);
        }
        self.left -= 1;
        Some(u64::from(self.byte >> self.left & 1))
    }

    fn bits(&mut self, count: u32) -> Option<u64> {
        (0..count).try_fold(0, |value, _| Some(value << 1 | self.bit()?))
    }

    /// An exponential Golomb code.
    fn code(&mut self) -> Option<u64> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 32 {
                return None;
            }
        }
        Some((1 << zeros) - 1 + self.bits(zeros)?)
    }
}

/// Width and height of a sequence parameter set (ITU-T H.265, 7.3.2.2).
fn coded_sides(unit: &[u8]) -> Option<(u64, u64)> {
    let mut bits = Bits { bytes: unit, at: 0, zeros: 0, byte: 0, left: 0 };
    bits.bits(4)?;
    let layers = bits.bits(3)? as u32;
    bits.bits(1)?;
    // Profile and level, and those of lower layers.
    skip(&mut bits, 96)?;
    let mut present = Vec::with_capacity(8);
    for _ in 0..layers {
        present.push((bits.bits(1)?, bits.bits(1)?));
    }
    if layers > 0 {
        skip(&mut bits, 2 * (8 - layers))?;
    }
    for (profile, level) in present {
        skip(&mut bits, if profile == 1 { 88 } else { 0 } + if level == 1 { 8 } else { 0 })?;
    }
    bits.code()?;
    if bits.code()? == 3 {
        bits.bits(1)?;
    }
    Some((bits.code()?, bits.code()?))
}

fn skip(bits: &mut Bits<'_>, count: u32) -> Option<()> {
    (0..count).try_for_each(|_| bits.bit().map(drop))
}
