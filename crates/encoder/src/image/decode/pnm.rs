//! PNM: samples as they are, scaled to 255 as Pillow does.

use super::{Samples, buffer_len, check_size};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Pnm;
use crate::image::header::ImageInfo;
use crate::image::header::pnm::{self, Map, Numbers, is_blank};
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

pub(super) fn decode(data: &[u8], reader: &mut Reader<'_>, info: &ImageInfo) -> Result<Samples, ImageError> {
    let map = pnm::map(data)?;
    check_size(info, map.width, map.height)?;
    let layout = if map.channels == 3 { Layout::Rgb } else { Layout::Gray };
    let mut pixels = try_zeroed(buffer_len(info, layout.channels()))?;
    let stride = layout.channels() * map.width as usize;
    let mut text = Numbers { rest: map.samples };
    for (y, row) in pixels.chunks_exact_mut(stride).enumerate() {
        reader.checkpoint(row.len())?;
        if map.is_text {
            text_row(&map, &mut text, row)?;
        } else {
            byte_row(&map, y, row)?;
        }
    }
    Ok(Samples { layout, data: pixels })
}

fn cut_off() -> ImageError {
    ImageError::corrupt(Pnm, "the pixels are cut off")
}

/// A sample of 0 to `most` as one of 0 to 255, as Pillow rounds it. The value is at most `most`.
fn scaled(sample: u16, most: u16) -> u8 {
    if most == 255 {
        return sample as u8;
    }
    (f64::from(sample) / f64::from(most) * 255.0).round_ties_even() as u8
}

fn text_row(map: &Map<'_>, text: &mut Numbers<'_>, row: &mut [u8]) -> Result<(), ImageError> {
    for sample in row {
        // Bits may stand side by side.
        let number = text.next(if map.is_bitmap { 1 } else { 5 }).ok_or_else(cut_off)?;
        let ends = map.is_bitmap || text.rest.first().is_none_or(|&byte| is_blank(byte) || byte == b'#');
        let number = u16::try_from(number).ok().filter(|&number| number <= map.most && ends);
        let number =
            number.ok_or_else(|| ImageError::corrupt(Pnm, "a sample is larger than the largest value"))?;
        *sample = scaled(if map.is_bitmap { 1 - number } else { number }, map.most);
    }
    Ok(())
}

fn byte_row(map: &Map<'_>, y: usize, row: &mut [u8]) -> Result<(), ImageError> {
    if map.is_bitmap {
        let stride = row.len().div_ceil(8);
        let bits = map.samples.get(y * stride..(y + 1) * stride).ok_or_else(cut_off)?;
        for (x, sample) in row.iter_mut().enumerate() {
            let is_black = bits[x / 8] >> (7 - x % 8) & 1 == 1;
            *sample = if is_black { 0 } else { 255 };
        }
        return Ok(());
    }
    let width = 1 + usize::from(map.most > 255);
    let start = y * row.len() * width;
    let bytes = map.samples.get(start..start + row.len() * width).ok_or_else(cut_off)?;
    for (sample, bytes) in row.iter_mut().zip(bytes.chunks_exact(width)) {
        let value = bytes.iter().fold(0, |value, &byte| value << 8 | u16::from(byte));
        *sample = scaled(value.min(map.most), map.most);
    }
    Ok(())
}
