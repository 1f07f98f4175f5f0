//! QOI by its specification, 1.0: each chunk is a color, a change of the one before, one seen lately, or a run.

use super::{Samples, buffer_len};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Qoi;
use crate::image::header::ImageInfo;
use crate::image::header::qoi::HEADER;
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;

pub(super) fn decode(data: &[u8], reader: &mut Reader<'_>, info: &ImageInfo) -> Result<Samples, ImageError> {
    let layout = if info.channels == 4 { Layout::Rgba } else { Layout::Rgb };
    let channels = layout.channels();
    let mut pixels = try_zeroed(buffer_len(info, channels))?;
    let mut bytes = data[HEADER..].iter().copied();
    let mut next = || bytes.next().ok_or_else(|| ImageError::corrupt(Qoi, "the pixels are cut off"));
    let mut seen = [[0u8; 4]; 64];
    let mut color = [0, 0, 0, 255];
    let mut run = 0;
    for row in pixels.chunks_exact_mut(channels * info.width as usize) {
        reader.checkpoint(row.len())?;
        for pixel in row.chunks_exact_mut(channels) {
            if run > 0 {
                run -= 1;
            } else {
                let chunk = next()?;
                match chunk {
                    0x00..=0x3f => color = seen[usize::from(chunk)],
                    // Two bits for each channel, from -2 to 1.
                    0x40..=0x7f => change(&mut color, [chunk >> 4 & 3, chunk >> 2 & 3, chunk & 3], 2),
                    // Green from -32 to 31; red and blue change by as much, and by -8 to 7.
                    0x80..=0xbf => {
                        let (green, others) = (chunk & 0x3f, next()?);
                        change(&mut color, [green, green, green], 32);
                        change(&mut color, [others >> 4, 8, others & 0xf], 8);
                    }
                    0xc0..=0xfd => run = chunk & 0x3f,
                    0xfe => color = [next()?, next()?, next()?, color[3]],
                    0xff => color = [next()?, next()?, next()?, next()?],
                }
                seen[place(color)] = color;
            }
            pixel.copy_from_slice(&color[..channels]);
        }
    }
    Ok(Samples { layout, data: pixels })
}

/// Changes red, green and blue by numbers that are stored with `bias` added; they wrap around.
fn change(color: &mut [u8; 4], by: [u8; 3], bias: u8) {
    color.iter_mut().zip(by).for_each(|(value, by)| *value = value.wrapping_add(by).wrapping_sub(bias));
}

/// Where a color is remembered.
fn place([red, green, blue, alpha]: [u8; 4]) -> usize {
    let sum = usize::from(red) * 3 + usize::from(green) * 5 + usize::from(blue) * 7 + usize::from(alpha) * 11;
    sum % 64
}
