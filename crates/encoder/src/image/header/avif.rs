//! AVIF: where the coded pictures lie (AV1 Image File Format 1.1), what they are made into, and what of that costs memory.
//!
//! A file whose major brand is `avis` is an animation: its frames are those of a track. Any other is its primary item, alone or a grid.

use std::ops::Range;

use super::bytes::Bytes;
use super::heif::{self, Colors, Crop};
use super::isobmff::{File, Meta, Part};
use super::{Header, ImageInfo};
use crate::image::ImageFormat::Avif;
use crate::image::error::ImageError;

/// Most frames of an animation.
const MAX_FRAMES: usize = 1 << 16;

/// Bytes of an item or a sample, in pieces of the file.
type Pieces = Vec<Range<usize>>;

/// What is coded, and its sides.
type WithSides = (Coded, (u32, u32));

/// What the configuration of a coded picture says about its samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) struct Samples {
    pub(in crate::image) bits: u8,
    is_gray: bool,
    /// Samples of all planes for 4 pixels.
    of_four: u64,
}

impl Samples {
    fn bytes_of(self, pixels: u64) -> u64 {
        pixels.saturating_mul(self.of_four).div_ceil(4).saturating_mul(if self.bits > 8 { 2 } else { 1 })
    }
}

/// Pictures of one kind: the only one, cells of a grid, or frames.
pub(in crate::image) struct Coded {
    pub(in crate::image) samples: Samples,
    /// Cells of a grid, row by row, or frames of a track.
    pub(in crate::image) parts: Vec<Pieces>,
    pub(in crate::image) columns: u32,
    /// Sides of a cell.
    pub(in crate::image) cell: (u32, u32),
    /// Which layers of a layered picture count.
    pub(in crate::image) operating_point: u8,
    /// Frames that stand by themselves, by number from 0; none where all do.
    pub(in crate::image) sync: Option<Vec<usize>>,
}

/// A picture and all that its pixels are made from.
pub(in crate::image) struct Located {
    /// Sides before the crop.
    pub(in crate::image) width: u32,
    pub(in crate::image) height: u32,
    pub(in crate::image) crop: Option<Crop>,
    pub(in crate::image) color: Coded,
    pub(in crate::image) alpha: Option<Coded>,
    pub(in crate::image) is_premultiplied: bool,
    pub(in crate::image) colors: Option<Colors>,
    pub(in crate::image) is_animation: bool,
    orientation: u8,
}

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let located = locate(data)?;
    let (mut width, mut height) = (located.width, located.height);
    let pixels = u64::from(width) * u64::from(height);
    if let Some(crop) = located.crop {
        (width, height) = (crop.width, crop.height);
    }
    let Coded { samples, columns, ref parts, .. } = located.color;
    let frames = if located.is_animation { parts.len() as u32 } else { 1 };
    let info = ImageInfo {
        format: Avif,
        width,
        height,
        frames: Some(frames),
        orientation: located.orientation,
        channels: if samples.is_gray { 1 } else { 3 } + u8::from(located.alpha.is_some()),
        bits_per_channel: samples.bits,
    };
    // The frame, those it refers to, or the planes of the whole grid; alpha likewise; the result.
    let mut peak_bytes = samples.bytes_of(pixels);
    if let Some(alpha) = &located.alpha {
        peak_bytes = peak_bytes.saturating_add(alpha.samples.bytes_of(pixels));
    }
    let kept: u64 = if located.is_animation { 2 } else { 1 };
    let cells = u64::from(columns > 1 || (!located.is_animation && parts.len() > 1));
    let cell = samples.bytes_of(u64::from(located.color.cell.0) * u64::from(located.color.cell.1));
    let result = pixels.saturating_mul(if located.alpha.is_some() { 4 } else { 3 });
    peak_bytes =
        peak_bytes.saturating_mul(kept).saturating_add(cells.saturating_mul(cell)).saturating_add(result);
    Ok(Header { info, least_bytes: 0, peak_bytes })
}

/// Finds what the picture is made from. Pixels are not looked at.
pub(in crate::image) fn locate(data: &[u8]) -> Result<Located, ImageError> {
    let file = File::new(data, Avif);
    if file.bytes.tag(8) == Some(*b"avis") {
        return animation(file);
    }
    let meta = Meta::read(file)?;
    let id = meta.primary;
    let (color, (width, height)) = coded(&meta, id, true)?;
    let mut is_premultiplied = false;
    let alpha = match heif::alpha_of(&meta, id) {
        None => of_cells(&meta, id)?,
        Some((alpha, premultiplied)) => {
            is_premultiplied = premultiplied;
            Some(coded(&meta, alpha, false)?)
        }
    };
    if alpha.as_ref().is_some_and(|(_, sides)| *sides != (width, height)) {
        return Err(file.damaged("its alpha has another size"));
    }
    let first = if meta.kind(id) == Some(*b"grid") { heif::grid(&meta, id)?.cells[0] } else { id };
    let mut colors = heif::colors(file, meta.properties(id).map(|(part, _)| part))?;
    if colors.is_none() {
        colors = heif::colors(file, meta.properties(first).map(|(part, _)| part))?;
    }
    Ok(Located {
        width,
        height,
        crop: heif::crop(&meta, id, width, height)?,
        color,
        alpha: alpha.map(|(coded, _)| coded),
        is_premultiplied,
        colors,
        is_animation: false,
        orientation: heif::orientation(&meta, id),
    })
}

/// Alpha of a grid whose cells have an alpha each.
fn of_cells(meta: &Meta<'_>, id: u32) -> Result<Option<WithSides>, ImageError> {
    if meta.kind(id) != Some(*b"grid") {
        return Ok(None);
    }
    let grid = heif::grid(meta, id)?;
    // Looked up once for all cells: there may be as many references.
    let auxiliary = meta.references.iter().filter(|reference| &reference.kind == b"auxl");
    let alphas: std::collections::BTreeMap<u32, u32> = auxiliary
        .filter(|reference| {
            let name = meta.property(reference.from, b"auxC").and_then(|body| file_name(meta, body));
            name.is_some_and(heif::names_alpha)
        })
        .flat_map(|reference| reference.to.iter().map(move |&to| (to, reference.from)))
        .collect();
    let cells: Option<Vec<u32>> = grid.cells.iter().map(|cell| alphas.get(cell).copied()).collect();
    let Some(cells) = cells else { return Ok(None) };
    let grid = heif::Grid { cells, ..grid };
    cells_of(meta, &grid, false).map(Some)
}

fn file_name<'a>(meta: &Meta<'a>, body: Range<usize>) -> Option<&'a [u8]> {
    meta.file.bytes.data[body].get(4..)?.split(|&byte| byte == 0).next()
}

/// A coded item or a grid, and its sides.
fn coded(meta: &Meta<'_>, id: u32, is_color: bool) -> Result<WithSides, ImageError> {
    known_properties(meta, id)?;
    match meta.kind(id).as_ref() {
        Some(b"av01") => {
            let sides = meta.sides(id)?;
            let grid = heif::Grid { columns: 1, rows: 1, width: sides.0, height: sides.1, cells: vec![id] };
            cells_of(meta, &grid, is_color)
        }
        Some(b"grid") => {
            let grid = heif::grid(meta, id)?;
            cells_of(meta, &grid, is_color)
        }
        Some(kind) => {
            let kind = String::from_utf8_lossy(kind);
            Err(ImageError::unsupported(Avif, format_args!("of kind \"{kind}\"")))
        }
        None => Err(meta.file.damaged("the picture is not there")),
    }
}

/// Refuses what must be known to show the picture and is not.
fn known_properties(meta: &Meta<'_>, id: u32) -> Result<(), ImageError> {
    const KNOWN: [&[u8; 4]; 11] =
        [b"ispe", b"pixi", b"av1C", b"colr", b"irot", b"imir", b"clap", b"auxC", b"a1op", b"lsel", b"pasp"];
    for (part, is_essential) in meta.properties(id) {
        if is_essential && !KNOWN.contains(&&part.kind) {
            let kind = String::from_utf8_lossy(&part.kind).into_owned();
            return Err(ImageError::unsupported(Avif, format_args!("with the property \"{kind}\"")));
        }
    }
    // Any layer but the finest is a choice that is not offered.
    let layer = meta.property(id, b"lsel").and_then(|body| meta.file.bytes.u16(body.start));
    if layer.is_some_and(|layer| layer != 0xffff) {
        return Err(ImageError::unsupported(Avif, "with a chosen layer"));
    }
    Ok(())
}

fn cells_of(meta: &Meta<'_>, grid: &heif::Grid, is_color: bool) -> Result<WithSides, ImageError> {
    let file = meta.file;
    let first = *grid.cells.first().ok_or_else(|| file.damaged("a grid has no cells"))?;
    let cell = meta.sides(first)?;
    let samples = samples_of(meta, first)?;
    let mut parts = Vec::with_capacity(grid.cells.len());
    for &id in &grid.cells {
        if meta.kind(id) != Some(*b"av01") {
            return Err(ImageError::unsupported(Avif, "with cells that are not AV1"));
        }
        known_properties(meta, id)?;
        if meta.sides(id)? != cell || samples_of(meta, id)? != samples {
            return Err(file.damaged("the cells of its grid differ"));
        }
        parts.push(meta.places(id)?);
    }
    let covers = |cell: u32, count: u32, side: u32| {
        let (cell, count, side) = (u64::from(cell), u64::from(count), u64::from(side));
        cell > 0 && cell * count >= side && cell * (count - 1) < side
    };
    let is_one = grid.columns == 1 && grid.rows == 1;
    if !is_one
        && (!covers(cell.0, grid.columns, grid.width)
            || !covers(cell.1, grid.rows, grid.height)
            || (samples.of_four < 12 && !samples.is_gray && (cell.0 % 2, cell.1 % 2) != (0, 0)))
    {
        return Err(file.damaged("the cells of its grid do not cover the picture"));
    }
    if is_one && cell != (grid.width, grid.height) {
        return Err(file.damaged("the cell of its grid does not cover the picture"));
    }
    let operating_point =
        meta.property(first, b"a1op").and_then(|body| file.bytes.u8(body.start)).filter(|_| is_color);
    let coded = Coded {
        samples,
        parts,
        columns: grid.columns,
        cell,
        operating_point: operating_point.unwrap_or(0),
        sync: None,
    };
    Ok((coded, (grid.width, grid.height)))
}

fn samples_of(meta: &Meta<'_>, id: u32) -> Result<Samples, ImageError> {
    let body = meta.property(id, b"av1C").ok_or_else(|| meta.file.damaged("its coding is not told"))?;
    configuration(meta.file.bytes, body).ok_or_else(|| meta.file.cut_off())
}

/// The third byte of the configuration.
fn configuration(bytes: Bytes<'_>, body: Range<usize>) -> Option<Samples> {
    if body.len() < 4 {
        return None;
    }
    let flags = bytes.u8(body.start + 2)?;
    let bits = match (flags >> 6 & 1, flags >> 5 & 1) {
        (0, _) => 8,
        (_, 0) => 10,
        _ => 12,
    };
    let is_gray = flags & 0x10 != 0;
    let of_four = match (is_gray, flags >> 3 & 1, flags >> 2 & 1) {
        (true, ..) => 4,
        (_, 0, _) => 12,
        (_, _, 0) => 8,
        _ => 6,
    };
    Some(Samples { bits, is_gray, of_four })
}

// --- animations ---------------------------------------------------------------------------------

/// A track of coded frames.
struct Track {
    id: u32,
    width: u32,
    height: u32,
    handler: [u8; 4],
    /// Tracks that this one is for.
    auxiliary_of: Vec<u32>,
    premultiplied_by: Vec<u32>,
    is_alpha: bool,
    colors: Option<Colors>,
    coded: Coded,
}

fn animation(file: File<'_>) -> Result<Located, ImageError> {
    let movie = file.part(file.all(), b"moov").ok_or_else(|| file.damaged("its frames are not there"))?;
    let mut tracks = Vec::new();
    // Pictures and their alpha.
    for part in file.parts(movie).filter(|part| &part.kind == b"trak").take(8) {
        if let Some(track) = track(file, part.body)? {
            tracks.push(track);
        }
    }
    let main = tracks.iter().position(|track| track.auxiliary_of.is_empty() && &track.handler != b"auxv");
    let main = tracks.swap_remove(main.ok_or_else(|| file.damaged("its frames are not there"))?);
    let alpha = tracks.into_iter().find(|track| track.is_alpha && track.auxiliary_of.contains(&main.id));
    if let Some(alpha) = &alpha
        && ((alpha.width, alpha.height) != (main.width, main.height)
            || alpha.coded.parts.len() != main.coded.parts.len())
    {
        return Err(file.damaged("its alpha has another size"));
    }
    let is_premultiplied = alpha.as_ref().is_some_and(|alpha| main.premultiplied_by.contains(&alpha.id));
    Ok(Located {
        width: main.width,
        height: main.height,
        crop: None,
        color: main.coded,
        alpha: alpha.map(|alpha| alpha.coded),
        is_premultiplied,
        colors: main.colors,
        is_animation: true,
        orientation: 1,
    })
}

/// A track, unless it has no frames of AV1.
fn track(file: File<'_>, body: Range<usize>) -> Result<Option<Track>, ImageError> {
    let inside = |place: &Range<usize>, kind: &[u8; 4]| file.part(place.clone(), kind);
    let table = inside(&body, b"mdia").and_then(|media| {
        let handler = inside(&media, b"hdlr")?;
        let table = inside(&inside(&media, b"minf")?, b"stbl")?;
        Some((handler, table))
    });
    let (Some(head), Some((handler, table))) = (inside(&body, b"tkhd"), table) else { return Ok(None) };
    let mut cursor = file.cursor(head);
    let (version, _) = cursor.version()?;
    let of_time = if version == 1 { 8 } else { 4 };
    cursor.skip(2 * of_time)?;
    let id = cursor.u32()?;
    // Reserved, duration; reserved, layer, group, volume, reserved, matrix.
    cursor.skip(4 + of_time + 16 + 36)?;
    let (width, height) = (cursor.u32()? >> 16, cursor.u32()? >> 16);
    let mut cursor = file.cursor(handler);
    cursor.skip(8)?;
    let handler = cursor.tag()?;

    let Some(description) = inside(&table, b"stsd") else { return Ok(None) };
    let mut cursor = file.cursor(description);
    cursor.skip(8)?;
    let Some(entry) = inside(&cursor.place, b"av01") else { return Ok(None) };
    let mut cursor = file.cursor(entry);
    cursor.skip(78)?;
    let parts: Vec<Part> = file.parts(cursor.place).take(64).collect();
    let part = |kind: &[u8; 4]| parts.iter().find(|part| &part.kind == kind).map(|part| part.body.clone());
    let samples = part(b"av1C").and_then(|body| configuration(file.bytes, body));
    let samples = samples.ok_or_else(|| file.damaged("its coding is not told"))?;
    let auxiliary = part(b"auxi").and_then(|body| file.bytes.data[body].get(4..));
    let is_alpha =
        auxiliary.and_then(|name| name.split(|&byte| byte == 0).next()).is_some_and(heif::names_alpha);

    let mut references = [Vec::new(), Vec::new()];
    if let Some(body) = inside(&body, b"tref") {
        for part in file.parts(body) {
            let of_kind = match &part.kind {
                b"auxl" => &mut references[0],
                b"prem" => &mut references[1],
                _ => continue,
            };
            let mut cursor = file.cursor(part.body);
            while of_kind.len() < 64 && cursor.place.len() >= 4 {
                of_kind.push(cursor.u32()?);
            }
        }
    }
    let [auxiliary_of, premultiplied_by] = references;
    let coded = Coded {
        samples,
        parts: frames(file, &table)?,
        columns: 1,
        cell: (width, height),
        operating_point: 0,
        sync: sync(file, &table)?,
    };
    let colors = heif::colors(file, parts.iter())?;
    Ok(Some(Track { id, width, height, handler, auxiliary_of, premultiplied_by, is_alpha, colors, coded }))
}

/// Where the frames of a track lie.
fn frames(file: File<'_>, table: &Range<usize>) -> Result<Vec<Pieces>, ImageError> {
    let damaged = || file.damaged("the places of its frames are not told");
    let inside = |kind: &[u8; 4]| file.part(table.clone(), kind);
    // Lengths.
    let mut cursor = file.cursor(inside(b"stsz").ok_or_else(damaged)?);
    cursor.version()?;
    let (same, count) = (cursor.u32()?, cursor.u32()? as usize);
    if count > MAX_FRAMES {
        return Err(ImageError::unsupported(Avif, "with so many frames"));
    }
    if count == 0 {
        return Err(file.damaged("it has no frames"));
    }
    let lens: Vec<usize> = match same {
        0 => (0..count).map(|_| cursor.u32().map(|len| len as usize)).collect::<Result<_, _>>()?,
        len => vec![len as usize; count],
    };
    // Places of chunks.
    let (body, size) = match (inside(b"stco"), inside(b"co64")) {
        (Some(body), _) => (body, 4),
        (None, Some(body)) => (body, 8),
        (None, None) => return Err(damaged()),
    };
    let mut chunks = file.cursor(body);
    chunks.version()?;
    let chunk_count = u64::from(chunks.u32()?);
    let chunk_count = chunks.count(chunk_count, size)?;
    // How many frames each chunk has, from which chunk on.
    let mut runs = file.cursor(inside(b"stsc").ok_or_else(damaged)?);
    runs.version()?;
    let run_count = u64::from(runs.u32()?);
    let run_count = runs.count(run_count, 12)?;
    let runs: Vec<(u32, u32)> = (0..run_count)
        .map(|_| {
            let run = (runs.u32()?, runs.u32()?);
            runs.skip(4)?;
            Ok(run)
        })
        .collect::<Result<_, ImageError>>()?;
    let mut places = Vec::with_capacity(count);
    let (mut run, mut total) = (0, 0_usize);
    'chunks: for chunk in 1..=chunk_count {
        while runs.get(run + 1).is_some_and(|next| next.0 as usize <= chunk) {
            run += 1;
        }
        let per_chunk = runs.get(run).ok_or_else(damaged)?.1;
        let mut start = usize::try_from(chunks.number(size)?).unwrap_or(usize::MAX);
        for _ in 0..per_chunk {
            let Some(&len) = lens.get(places.len()) else { break 'chunks };
            let end = start.checked_add(len).filter(|&end| end <= file.bytes.data.len());
            let end = end.ok_or_else(|| file.damaged("its frames are cut off"))?;
            total += len;
            if len == 0 || total > file.bytes.data.len() {
                return Err(file.damaged("its frames overlap"));
            }
            places.push(std::iter::once(start..end).collect());
            start = end;
        }
    }
    if places.len() == count { Ok(places) } else { Err(damaged()) }
}

/// Frames that stand by themselves, if the track tells them.
fn sync(file: File<'_>, table: &Range<usize>) -> Result<Option<Vec<usize>>, ImageError> {
    let Some(body) = file.part(table.clone(), b"stss") else { return Ok(None) };
    let mut cursor = file.cursor(body);
    cursor.version()?;
    let count = u64::from(cursor.u32()?);
    let count = cursor.count(count, 4)?;
    let numbers = (0..count).map(|_| cursor.u32().map(|number| (number as usize).saturating_sub(1)));
    numbers.collect::<Result<_, _>>().map(Some)
}
