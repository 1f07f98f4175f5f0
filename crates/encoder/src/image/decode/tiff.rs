//! TIFF: strips and tiles are taken apart here, and unpacked by the libraries of their codecs.
//!
//! The format is a frame around a dozen codecs. What the `tiff` crate makes of tiles, planes,
//! palettes and alpha is refused or wrong for a good part of what libtiff writes, and its size
//! checks come after its allocations; so the frame is ours, and the codecs are `weezl` (LZW), `flate2`
//! (Deflate), `fax` (CCITT) and the JPEG decoders of [`super::jpeg`].

use std::cell::Cell;

use fax::decoder::{DecodeStatus, Group3Decoder, Group4Decoder};
use flate2::{Decompress, FlushDecompress, Status};
use weezl::{BitOrder, LzwStatus};

use super::{Samples, buffer_len, jpeg};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Tiff;
use crate::image::header::ImageInfo;
use crate::image::header::tiff::{self, Alpha, Compression, Page, Photometric};
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

/// Bytes that a codec is fed between two checks for an interrupt.
const SLICE: usize = 4096;

pub(super) fn decode(
    data: &[u8],
    reader: &mut Reader<'_>,
    info: &ImageInfo,
    number: u32,
) -> Result<Samples, ImageError> {
    let page = tiff::page(data, number)?;
    let layout = page.layout();
    let mut out = try_zeroed(buffer_len(info, layout.channels()))?;
    let (width, height) = (page.width as usize, page.height as usize);
    let (chunk_width, chunk_height) = (page.chunk_width as usize, page.chunk_height as usize);
    let (across, down) = (width.div_ceil(chunk_width), height.div_ceil(chunk_height));
    let planes = if page.planar { page.samples } else { 1 };
    let row_len = page.row_len();
    let chunk_len = row_len.checked_mul(chunk_height).ok_or_else(too_large)?;
    let mut chunks = try_zeroed(chunk_len.checked_mul(planes).ok_or_else(too_large)?)?;
    let mut pixels = Pixels { page: &page, palette: page.palette()?, line: Vec::new() };
    for place in 0..across * down {
        let (left, top) = (place % across * chunk_width, place / across * chunk_height);
        let (columns, rows) = (chunk_width.min(width - left), chunk_height.min(height - top));
        // The last strip ends with the picture; tiles are always whole.
        let stored_rows = if page.tiled { chunk_height } else { rows };
        for plane in 0..planes {
            let stored = page.chunk(plane * across * down + place).ok_or_else(cut_off)?;
            let chunk = &mut chunks[plane * chunk_len..][..stored_rows * row_len];
            unpack(&page, stored, reader, stored_rows, chunk)?;
        }
        for row in 0..rows {
            let at = ((top + row) * width + left) * layout.channels();
            let target = &mut out[at..][..columns * layout.channels()];
            let source = (0..planes).map(|plane| &chunks[plane * chunk_len + row * row_len..][..row_len]);
            pixels.convert(source, target);
        }
    }
    Ok(Samples { layout, data: out })
}

fn cut_off() -> ImageError {
    ImageError::corrupt(Tiff, "its pixels are cut off")
}

fn too_large() -> ImageError {
    ImageError::corrupt(Tiff, "its strips or tiles are too large")
}

/// Fills `chunk` with `rows` rows of packed samples, 16-bit ones in the byte order of the file.
fn unpack(
    page: &Page<'_>,
    stored: &[u8],
    reader: &mut Reader<'_>,
    rows: usize,
    chunk: &mut [u8],
) -> Result<(), ImageError> {
    let mut turned = Vec::new();
    let mut stored = stored;
    if page.reversed_bits && page.compression != Compression::Jpeg {
        turned = try_zeroed(stored.len())?;
        turned.iter_mut().zip(stored).for_each(|(to, from)| *to = from.reverse_bits());
        stored = &turned;
    }
    match page.compression {
        Compression::None => {
            reader.checkpoint(chunk.len())?;
            chunk.copy_from_slice(stored.get(..chunk.len()).ok_or_else(cut_off)?);
        }
        Compression::PackBits => pack_bits(stored, reader, chunk)?,
        Compression::Lzw => lzw(stored, reader, chunk)?,
        Compression::Deflate => deflate(stored, reader, chunk)?,
        Compression::Group3 | Compression::Group4 => fax(page, stored, reader, chunk)?,
        Compression::Jpeg => jpeg_chunk(page, stored, reader, rows, chunk)?,
    }
    drop(turned);
    if page.predictor {
        let (row_len, samples) = (page.row_len(), page.chunk_samples());
        for row in chunk.chunks_exact_mut(row_len) {
            if page.bits == 8 {
                (samples..row_len).for_each(|i| row[i] = row[i].wrapping_add(row[i - samples]));
            } else {
                sum_wide(row, samples, page.big_endian());
            }
        }
    }
    Ok(())
}

/// Undoes horizontal differences of 16-bit samples.
fn sum_wide(row: &mut [u8], samples: usize, big_endian: bool) {
    let (row, _) = row.as_chunks_mut::<2>();
    let read = |bytes| if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    let write = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    for i in samples..row.len() {
        row[i] = write(read(row[i]).wrapping_add(read(row[i - samples])));
    }
}

/// Counts and bytes (TIFF 6.0, section 9).
fn pack_bits(mut stored: &[u8], reader: &mut Reader<'_>, mut out: &mut [u8]) -> Result<(), ImageError> {
    while !out.is_empty() {
        reader.checkpoint(2)?;
        let (&head, rest) = stored.split_first().ok_or_else(cut_off)?;
        let count = match head {
            0..=127 => usize::from(head) + 1,
            128 => 0,
            _ => 257 - usize::from(head),
        };
        let (target, later) = out.split_at_mut(count.min(out.len()));
        let used = match head {
            0..=127 => count,
            128 => 0,
            _ => 1,
        };
        let (values, rest) = rest.split_at_checked(used).ok_or_else(cut_off)?;
        match head {
            0..=127 => target.copy_from_slice(&values[..target.len()]),
            128 => {}
            _ => target.fill(values[0]),
        }
        (out, stored) = (later, rest);
    }
    Ok(())
}

/// Writers differ about the code at the end, which nobody needs once the chunk is full.
fn lzw(mut stored: &[u8], reader: &mut Reader<'_>, mut out: &mut [u8]) -> Result<(), ImageError> {
    if matches!(stored, [0, low, ..] if low & 1 == 1) {
        return Err(ImageError::unsupported(Tiff, "with the LZW compression of before 1988"));
    }
    let configuration = weezl::decode::Configuration::with_tiff_size_switch(BitOrder::Msb, 8);
    let mut decoder = configuration.with_yield_on_full_buffer(true).build();
    while !out.is_empty() {
        let slice = &stored[..stored.len().min(SLICE)];
        reader.checkpoint(slice.len())?;
        let result = decoder.decode_bytes(slice, out);
        stored = &stored[result.consumed_in..];
        out = &mut out[result.consumed_out..];
        match result.status {
            Ok(LzwStatus::Ok) => {}
            Ok(LzwStatus::NoProgress) if !stored.is_empty() && !slice.is_empty() => {}
            Ok(LzwStatus::Done) if out.is_empty() => {}
            Ok(LzwStatus::NoProgress | LzwStatus::Done) if !out.is_empty() => return Err(cut_off()),
            Ok(_) => {}
            Err(error) => return Err(ImageError::corrupt(Tiff, error)),
        }
    }
    Ok(())
}

fn deflate(mut stored: &[u8], reader: &mut Reader<'_>, mut out: &mut [u8]) -> Result<(), ImageError> {
    let mut inflate = Decompress::new(true);
    while !out.is_empty() {
        let slice = &stored[..stored.len().min(SLICE)];
        reader.checkpoint(slice.len())?;
        let (before_in, before_out) = (inflate.total_in(), inflate.total_out());
        let status = inflate
            .decompress(slice, out, FlushDecompress::None)
            .map_err(|error| ImageError::corrupt(Tiff, error))?;
        let consumed = (inflate.total_in() - before_in) as usize;
        let made = (inflate.total_out() - before_out) as usize;
        stored = &stored[consumed..];
        out = &mut out[made..];
        if !out.is_empty() && (status == Status::StreamEnd || (consumed == 0 && made == 0)) {
            return Err(cut_off());
        }
    }
    Ok(())
}

/// Rows of black and white runs. White is 0, whatever the page says that means.
fn fax(page: &Page<'_>, stored: &[u8], reader: &mut Reader<'_>, chunk: &mut [u8]) -> Result<(), ImageError> {
    let Ok(width) = u16::try_from(page.chunk_width) else {
        return Err(ImageError::unsupported(Tiff, "with fax compression of rows longer than 65,535 pixels"));
    };
    // A row takes less than two bytes per pixel. The decoder would keep the runs of a longer one, which
    // lead nowhere.
    let allowance = Cell::new(0_usize);
    let per_row = 2 * usize::from(width) + 64;
    // Codes at the very end are looked up with bits after them, and the last row of libtiff's files has
    // no mark of its end: here, marks enough for the end of the page.
    let trailer = [0, 0, 1].iter().cycle().take(3 * 7);
    let trailer = trailer.take(if page.compression == Compression::Group3 { usize::MAX } else { 0 });
    let input = stored.iter().chain(trailer).map(|&byte| {
        allowance.set(allowance.get().checked_sub(1).ok_or(())?);
        Ok::<u8, ()>(byte)
    });
    let damaged = || ImageError::corrupt(Tiff, "its fax compression is damaged");
    allowance.set(per_row);
    let draw = |row: &mut [u8], turns: &[u16]| {
        let mut black_from = None;
        for &turn in turns.iter().chain([&width]) {
            let turn = turn.min(width);
            match black_from.take() {
                None => black_from = Some(turn),
                Some(from) => (from..turn).for_each(|x| row[usize::from(x / 8)] |= 0x80 >> (x % 8)),
            }
        }
    };
    chunk.fill(0);
    let rows = chunk.chunks_exact_mut(page.row_len());
    if page.compression == Compression::Group4 {
        let mut decoder = Group4Decoder::new(input, width).map_err(|()| damaged())?;
        for row in rows {
            reader.checkpoint(SLICE)?;
            allowance.set(per_row);
            match decoder.advance().map_err(|_| damaged())? {
                DecodeStatus::Incomplete => draw(row, decoder.transition()),
                DecodeStatus::End => return Err(cut_off()),
            }
        }
    } else {
        let mut decoder = Group3Decoder::new(input).map_err(|_| damaged())?;
        let mut ended = false;
        for row in rows {
            if ended {
                return Err(cut_off());
            }
            reader.checkpoint(SLICE)?;
            allowance.set(per_row);
            ended = decoder.advance().map_err(|_| damaged())? == DecodeStatus::End;
            let turns = decoder.transitions();
            if turns.last() != Some(&width) {
                return Err(damaged());
            }
            draw(row, turns);
        }
    }
    Ok(())
}

/// A JPEG file of its own, but for tables that all chunks share.
fn jpeg_chunk(
    page: &Page<'_>,
    stored: &[u8],
    reader: &mut Reader<'_>,
    rows: usize,
    chunk: &mut [u8],
) -> Result<(), ImageError> {
    let body = stored.strip_prefix(b"\xff\xd8").ok_or_else(cut_off)?;
    let tables = page.jpeg_tables().unwrap_or(b"\xff\xd8\xff\xd9");
    let tables = tables.strip_suffix(b"\xff\xd9").unwrap_or(tables);
    let len = tables.len() + body.len();
    let mut file = Vec::new();
    file.try_reserve_exact(len).map_err(|_| ImageError::OutOfMemory { bytes: len })?;
    file.extend(tables);
    file.extend(body);
    let color = match (page.photometric, page.chunk_samples()) {
        (_, 1) => jpeg::Color::Gray,
        (Photometric::YCbCr, _) => jpeg::Color::YCbCr,
        _ => jpeg::Color::Rgb,
    };
    let samples = jpeg::decode_part(&file, reader, (page.chunk_width, rows as u32), color)?;
    if samples.data.len() != chunk.len() {
        return Err(ImageError::corrupt(Tiff, "its JPEG chunks have other channels than it says"));
    }
    chunk.copy_from_slice(&samples.data);
    Ok(())
}

/// Turns rows of samples into pixels.
struct Pixels<'p, 'a> {
    page: &'p Page<'a>,
    palette: [[u8; 3]; 256],
    /// Samples of a row, 8 bits each, those of a pixel together.
    line: Vec<u8>,
}

impl Pixels<'_, '_> {
    /// `rows` has one row, or one for each plane.
    fn convert<'r>(&mut self, rows: impl Iterator<Item = &'r [u8]>, target: &mut [u8]) {
        let page = self.page;
        let layout = page.layout();
        let columns = target.len() / layout.channels();
        let samples = page.samples;
        if is_as_wanted(page) {
            let mut rows = rows;
            if let Some(row) = rows.next() {
                target.copy_from_slice(&row[..target.len()]);
            }
            return;
        }
        self.line.resize(columns * samples, 0);
        for (plane, row) in rows.enumerate() {
            if page.planar {
                let line = self.line.iter_mut().skip(plane).step_by(samples);
                widen(page, row, line);
            } else {
                widen(page, row, self.line.iter_mut());
            }
        }
        let white_is_zero = page.photometric == Photometric::WhiteIsZero;
        let colors = page.color_samples();
        for (to, from) in target.chunks_exact_mut(layout.channels()).zip(self.line.chunks_exact(samples)) {
            let mut color = match page.photometric {
                Photometric::BlackIsZero => [from[0]; 3],
                Photometric::WhiteIsZero => [255 - from[0]; 3],
                Photometric::Palette => self.palette[usize::from(from[0])],
                Photometric::Rgb | Photometric::YCbCr => [from[0], from[1], from[2]],
                Photometric::Inks => jpeg::ink_to_rgb([from[0], from[1], from[2], from[3]]),
            };
            match layout {
                Layout::Gray => to[0] = color[0],
                Layout::Rgba => {
                    let alpha = from[colors];
                    if page.alpha == Alpha::Associated {
                        // What was multiplied is the sample, not the brightness.
                        let shown = color.map(|v| if white_is_zero { 255 - v } else { v });
                        let plain = shown.map(|v| divided(v, alpha));
                        color = plain.map(|v| if white_is_zero { 255 - v } else { v });
                    }
                    to[..3].copy_from_slice(&color);
                    to[3] = alpha;
                }
                Layout::GrayAlpha | Layout::Rgb => to.copy_from_slice(&color),
            }
        }
    }
}

/// Whether rows already have the bytes that are wanted.
fn is_as_wanted(page: &Page<'_>) -> bool {
    let layout = page.layout();
    let is_plain =
        matches!(page.photometric, Photometric::Rgb | Photometric::YCbCr | Photometric::BlackIsZero);
    let is_gray = page.photometric == Photometric::BlackIsZero;
    let is_packed = page.bits == 8 && !page.planar && page.samples == layout.channels();
    is_plain && is_packed && is_gray == (layout == Layout::Gray) && page.alpha != Alpha::Associated
}

/// A color that was multiplied by alpha, as it was before; rounded down as in Pillow.
fn divided(value: u8, alpha: u8) -> u8 {
    if alpha == 0 { 0 } else { (u32::from(value) * 255 / u32::from(alpha)).min(255) as u8 }
}

/// Samples of any width as bytes: numbers of a palette as they are, all others stretched or cut.
fn widen<'l>(page: &Page<'_>, row: &[u8], line: impl Iterator<Item = &'l mut u8>) {
    match page.bits {
        8 => line.zip(row).for_each(|(to, &from)| *to = from),
        16 => {
            let upper = if page.big_endian() { 0 } else { 1 };
            line.zip(row[upper..].iter().step_by(2)).for_each(|(to, &from)| *to = from);
        }
        bits => {
            let max = (1_u8 << bits) - 1;
            let factor = if page.photometric == Photometric::Palette { 1 } else { 255 / max };
            for (i, to) in line.enumerate() {
                let at = i * bits;
                *to = (row[at / 8] >> (8 - bits - at % 8) & max) * factor;
            }
        }
    }
}
