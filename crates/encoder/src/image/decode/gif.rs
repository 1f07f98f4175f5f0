//! GIF through the `gif` crate: the first frame on its screen, or a later one on those before it.

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, DisposalMethod, MemoryLimit};
use std::io::{Cursor, Read};

use super::canvas::{Canvas, Disposal, Place};
use super::{Samples, buffer_len};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Gif;
use crate::image::header::ImageInfo;
use crate::image::limits::ImageLimits;
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

/// Bytes before the global color table, and where its flags are.
const HEAD: usize = 13;
const FLAGS: usize = 10;
/// A table of 256 colors follows.
const FULL_TABLE: u8 = 0x87;

/// Without any table a number is a shade of gray, as in Pillow.
fn gray() -> Vec<u8> {
    (0..=255).flat_map(|shade| [shade; 3]).collect()
}

/// A decoder of color numbers.
fn open<'a>(mut reader: Reader<'a>, limits: &ImageLimits) -> Result<Decoder<Box<dyn Read + 'a>>, ImageError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(
        limits.max_decoder_bytes.try_into().map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes),
    );
    let mut head = [0; HEAD];
    reader.read_exact(&mut head).map_err(|error| corrupt(error.into()))?;
    // The decoder wants a table: a file without one gets it on the way.
    let has_table = head[FLAGS] & 0x80 != 0;
    let table = if has_table { Vec::new() } else { gray() };
    if !has_table {
        head[FLAGS] = FULL_TABLE;
    }
    let whole: Box<dyn Read + 'a> = Box::new(Cursor::new(head).chain(Cursor::new(table)).chain(reader));
    options.read_info(whole).map_err(corrupt)
}

fn corrupt(error: DecodingError) -> ImageError {
    ImageError::corrupt(Gif, error)
}

/// The colors of the current frame.
fn palette(colors: Option<&[u8]>, global: Option<&[u8]>) -> [[u8; 3]; 256] {
    let mut palette: [[u8; 3]; 256] = std::array::from_fn(|i| [i as u8; 3]);
    let table = colors.or(global).unwrap_or_default();
    palette.iter_mut().zip(table.chunks_exact(3)).for_each(|(color, entry)| color.copy_from_slice(entry));
    palette
}

/// Frame number `wanted`, above 1, with all before it.
pub(super) fn decode_frame(
    reader: Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
    wanted: u32,
) -> Result<Samples, ImageError> {
    let mut decoder = open(reader, limits)?;
    let mut canvas = Canvas::new(info.width, info.height)?;
    for number in 1..=wanted {
        let frame = decoder.next_frame_info().map_err(corrupt)?.ok_or_else(|| super::no_frame(wanted))?;
        let (left, top) = (usize::from(frame.left), usize::from(frame.top));
        let (width, height) = (usize::from(frame.width), usize::from(frame.height));
        let (transparent, dispose) = (frame.transparent, frame.dispose);
        let colors = frame.palette.clone();
        let palette = palette(colors.as_deref(), decoder.global_palette());
        let pixels = u64::from(info.width) * u64::from(info.height);
        // Frames may be larger than the screen; what they may take was not in the header of the file.
        if (width as u64 * height as u64) > pixels.max(1 << 20) {
            return Err(ImageError::unsupported(Gif, "with a frame that is larger than its screen"));
        }
        let mut indices = try_zeroed(width * height)?;
        decoder.read_into_buffer(&mut indices).map_err(corrupt)?;
        // What lies beside the screen is not seen.
        let columns = width.min((info.width as usize).saturating_sub(left));
        let rows = height.min((info.height as usize).saturating_sub(top));
        let mut drawn = try_zeroed(4 * columns * rows)?;
        if columns > 0 {
            for (to, from) in drawn.chunks_exact_mut(4 * columns).zip(indices.chunks_exact(width)) {
                for (to, &index) in to.as_chunks_mut::<4>().0.iter_mut().zip(from) {
                    let [red, green, blue] = palette[usize::from(index)];
                    *to = [red, green, blue, if transparent == Some(index) { 0 } else { 255 }];
                }
            }
        }
        let disposal = match dispose {
            DisposalMethod::Any | DisposalMethod::Keep => Disposal::Keep,
            DisposalMethod::Background => Disposal::Clear,
            DisposalMethod::Previous => Disposal::Restore,
        };
        canvas.draw(
            Place { left, top, width: columns, height: rows },
            &drawn,
            true,
            disposal,
            number == wanted,
        )?;
    }
    Ok(Samples { layout: Layout::Rgba, data: canvas.into_pixels() })
}

pub(super) fn decode(
    reader: Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
) -> Result<Samples, ImageError> {
    let mut decoder = open(reader, limits)?;
    let no_frame = || ImageError::corrupt(Gif, "it has no frame");
    let frame = decoder.next_frame_info().map_err(corrupt)?.ok_or_else(no_frame)?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (width, height) = (usize::from(frame.width), usize::from(frame.height));
    if left + width > info.width as usize || top + height > info.height as usize {
        return Err(ImageError::corrupt(Gif, "its headers disagree about its size"));
    }
    let transparent = frame.transparent;
    let colors = frame.palette.clone();
    let mut palette = palette(colors.as_deref(), decoder.global_palette());
    if let Some(index) = transparent {
        palette[usize::from(index)] = [255; 3];
    }

    let mut indices = try_zeroed(width * height)?;
    decoder.read_into_buffer(&mut indices).map_err(corrupt)?;
    // What the frame leaves free is white, like all that is transparent.
    let stride = 3 * info.width as usize;
    let mut data = try_zeroed(buffer_len(info, 3))?;
    if (width, height) != (info.width as usize, info.height as usize) {
        data.fill(255);
    }
    if width > 0 {
        for (row, source) in data.chunks_exact_mut(stride).skip(top).zip(indices.chunks_exact(width)) {
            let (target, _) = row[3 * left..][..3 * width].as_chunks_mut::<3>();
            target.iter_mut().zip(source).for_each(|(to, &index)| *to = palette[usize::from(index)]);
        }
    }
    Ok(Samples { layout: Layout::Rgb, data })
}
