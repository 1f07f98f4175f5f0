//! GIF through the `gif` crate: the first frame on its screen.

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};
use std::io::Read;

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

pub(super) fn decode(
    mut reader: Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
) -> Result<Samples, ImageError> {
    let corrupt = |error: DecodingError| ImageError::corrupt(Gif, error);
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
    let mut decoder =
        options.read_info(head.as_slice().chain(table.as_slice()).chain(reader)).map_err(corrupt)?;
    let no_frame = || ImageError::corrupt(Gif, "it has no frame");
    let frame = decoder.next_frame_info().map_err(corrupt)?.ok_or_else(no_frame)?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (width, height) = (usize::from(frame.width), usize::from(frame.height));
    if left + width > info.width as usize || top + height > info.height as usize {
        return Err(ImageError::corrupt(Gif, "its headers disagree about its size"));
    }
    let transparent = frame.transparent;
    let colors = frame.palette.clone();
    let mut palette: [[u8; 3]; 256] = std::array::from_fn(|i| [i as u8; 3]);
    let table = colors.as_deref().or_else(|| decoder.global_palette()).unwrap_or_default();
    palette.iter_mut().zip(table.chunks_exact(3)).for_each(|(color, entry)| color.copy_from_slice(entry));
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
