//! What AVIF and HEIC have in common: grids, auxiliary pictures, and properties that crop and turn.

use std::ops::Range;

use super::isobmff::{Meta, Part};
use crate::image::error::ImageError;

/// The kept part of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) struct Crop {
    pub(in crate::image) left: u32,
    pub(in crate::image) top: u32,
    pub(in crate::image) width: u32,
    pub(in crate::image) height: u32,
}

/// Color as a property tells it, by numbers of ITU-T H.273.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) struct Colors {
    pub(in crate::image) primaries: u16,
    pub(in crate::image) matrix: u16,
    pub(in crate::image) is_full_range: bool,
}

/// Cells of the same size, row by row.
pub(super) struct Grid {
    pub(super) columns: u32,
    pub(super) rows: u32,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) cells: Vec<u32>,
}

pub(super) fn grid(meta: &Meta<'_>, id: u32) -> Result<Grid, ImageError> {
    let file = meta.file;
    let places = meta.places(id)?;
    let mut cursor = file.cursor(places[0].clone());
    let version = cursor.u8()?;
    let size = if cursor.u8()? & 1 == 0 { 2 } else { 4 };
    let (rows, columns) = (u32::from(cursor.u8()?) + 1, u32::from(cursor.u8()?) + 1);
    let (width, height) = (cursor.number(size)? as u32, cursor.number(size)? as u32);
    let cells = meta.references.iter().find(|reference| reference.from == id && &reference.kind == b"dimg");
    let cells = cells.map_or(Vec::new(), |reference| reference.to.clone());
    if version != 0 || cells.len() != (rows * columns) as usize {
        return Err(file.damaged("the cells of its grid are not there"));
    }
    Ok(Grid { columns, rows, width, height, cells })
}

/// The item that is the alpha of another, and whether it was multiplied in.
pub(super) fn alpha_of(meta: &Meta<'_>, id: u32) -> Option<(u32, bool)> {
    let auxiliary = meta.references.iter().filter(|reference| &reference.kind == b"auxl");
    let mut of_this =
        auxiliary.filter(|reference| reference.to.contains(&id)).map(|reference| reference.from);
    let alpha =
        of_this.find(|&from| meta.property(from, b"auxC").is_some_and(|body| is_alpha(meta, body)))?;
    let premultiplied = meta
        .references
        .iter()
        .any(|reference| &reference.kind == b"prem" && reference.from == id && reference.to.contains(&alpha));
    Some((alpha, premultiplied))
}

fn is_alpha(meta: &Meta<'_>, body: Range<usize>) -> bool {
    let name = &meta.file.bytes.data[body];
    let name = name.get(4..).unwrap_or_default();
    names_alpha(name.split(|&byte| byte == 0).next().unwrap_or_default())
}

/// Whether a name of an auxiliary picture or track means alpha.
pub(super) fn names_alpha(name: &[u8]) -> bool {
    const NAMES: [&str; 2] = ["urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", "urn:mpeg:hevc:2015:auxid:1"];
    NAMES.iter().any(|known| known.as_bytes() == name)
}

/// The first `nclx` of these properties.
pub(super) fn colors<'a>(
    meta_file: super::isobmff::File<'_>,
    parts: impl Iterator<Item = &'a Part>,
) -> Result<Option<Colors>, ImageError> {
    for part in parts.filter(|part| &part.kind == b"colr") {
        let mut cursor = meta_file.cursor(part.body.clone());
        if &cursor.tag()? == b"nclx" {
            let primaries = cursor.u16()?;
            cursor.skip(2)?;
            let matrix = cursor.u16()?;
            return Ok(Some(Colors { primaries, matrix, is_full_range: cursor.u8()? & 0x80 != 0 }));
        }
    }
    Ok(None)
}

/// The EXIF orientation that does what `irot` and `imir` ask for. EXIF itself does not count in these files.
pub(super) fn orientation(meta: &Meta<'_>, id: u32) -> u8 {
    let byte = |kind: &[u8; 4]| meta.property(id, kind).and_then(|body| meta.file.bytes.u8(body.start));
    // Quarters of a turn against the clock, and then a mirror: 0 exchanges top and bottom, 1 left and right.
    let (angle, axis) = (byte(b"irot").unwrap_or(0) & 3, byte(b"imir").map(|axis| axis & 1));
    match (angle, axis) {
        (0, None) => 1,
        (0, Some(1)) | (2, Some(0)) => 2,
        (2, None) => 3,
        (0, Some(_)) | (2, Some(_)) => 4,
        (1, Some(0)) | (3, Some(1)) => 5,
        (3, None) => 6,
        (1, Some(_)) | (3, Some(_)) => 7,
        _ => 8,
    }
}

/// The part that `clap` keeps of a picture of these sides. A wrong one is passed over, as browsers do.
pub(super) fn crop(meta: &Meta<'_>, id: u32, width: u32, height: u32) -> Result<Option<Crop>, ImageError> {
    let Some(body) = meta.property(id, b"clap") else { return Ok(None) };
    let mut cursor = meta.file.cursor(body);
    let mut ratio = || Ok((cursor.u32()?, cursor.u32()?));
    let [kept_width, kept_height, x, y] = [ratio()?, ratio()?, ratio()?, ratio()?];
    // The offset is that of the middle, a signed number.
    let side = |(n, d): (u32, u32), (offset_n, offset_d): (u32, u32), whole: u32| {
        let (n, d, offset_n) = (i128::from(n), i128::from(d), i128::from(offset_n.cast_signed()));
        let (offset_d, whole) = (i128::from(offset_d), i128::from(whole));
        if d == 0 || offset_d == 0 || n % d != 0 || n == 0 {
            return None;
        }
        let len = n / d;
        // (whole - len) / 2 + offset, over the common denominator.
        let start = (whole - len) * offset_d + 2 * offset_n;
        let is_inside = start >= 0 && start % (2 * offset_d) == 0;
        let start = start / (2 * offset_d);
        (is_inside && start + len <= whole).then_some((start as u32, len as u32))
    };
    let (Some((left, width)), Some((top, height))) =
        (side(kept_width, x, width), side(kept_height, y, height))
    else {
        return Ok(None);
    };
    Ok(Some(Crop { left, top, width, height }))
}
