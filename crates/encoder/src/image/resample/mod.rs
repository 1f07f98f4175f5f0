//! Resampling that gives the very bytes that Pillow gives.
//!
//! The reference is `Image.resize` of Pillow 13 for 8-bit images (`src/libImaging/Resample.c`,
//! and `Geometry.c` for the nearest neighbor): two passes, along rows and along columns, weights
//! in fixed point of 22 bits, and the pixels between the passes rounded to bytes. Models are
//! trained and measured on its output, and being equal to the bit costs little: the README has
//! timings.
//!
//! Unlike Pillow, only a window of the result is computed, namely what the crop will keep. That
//! is a saving for photographs and a bound for hostile sides: an image of 10000 x 1 pixels
//! whose shortest edge should become 224 would otherwise be 2,240,000 pixels wide.

mod filter;
mod kernel;
mod nearest;
mod weights;

pub use filter::Filter;

use super::error::ImageError;
use super::memory::try_zeroed;
use super::orientation::Turn;
use super::raster::RgbImage;
use kernel::{Columns, blend_rows};
use weights::Weights;

/// Memory for the pixels between the two passes, in bytes. A picture of a million rows would
/// need hundreds of megabytes for them, so it is resized in strips of columns.
const STRIP_BYTES: usize = 8 << 20;

/// A part of the resized image, in its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns, at least one.
    pub width: u32,
    /// Rows, at least one.
    pub height: u32,
}

/// Resizes `image` to `width` x `height` pixels and returns the part in `window`.
///
/// Takes time in proportion to the pixels of `image` that the window covers, and holds 8 MiB
/// besides the result and the weights (at most 100 bytes per pixel of the longest side).
///
/// # Errors
/// [`ImageError::OutOfMemory`].
///
/// # Panics
/// When the window is empty or reaches beyond the resized image.
pub fn resize(
    image: &RgbImage,
    width: u32,
    height: u32,
    window: Window,
    filter: Filter,
) -> Result<RgbImage, ImageError> {
    let within =
        |first: u32, len: u32, side: u32| len > 0 && first.checked_add(len).is_some_and(|end| end <= side);
    assert!(
        within(window.left, window.width, width) && within(window.top, window.height, height),
        "{window:?} is not inside {width} x {height}"
    );
    let mut output = try_zeroed(3 * window.width as usize * window.height as usize)?;
    match filter {
        Filter::Nearest => nearest::resize(image, width, height, window, &mut output),
        Filter::Box | Filter::Bilinear | Filter::Hamming | Filter::Bicubic | Filter::Lanczos => {
            output = convolve(image, width, height, window, filter, output)?;
        }
    }
    Ok(RgbImage::new(window.width, window.height, output).expect("sized for the window"))
}

/// Both passes, in the order that Pillow would take them on the upright picture.
fn convolve(
    image: &RgbImage,
    width: u32,
    height: u32,
    window: Window,
    filter: Filter,
    mut output: Vec<u8>,
) -> Result<Vec<u8>, ImageError> {
    let turn = image.turn();
    let weights = |from, to, first, count, flip| {
        // A side that keeps its length keeps its pixels.
        let weights = if from == to {
            Weights::identity(first, count)
        } else {
            Weights::new(filter, from, to, first, count)
        };
        if flip { weights.mirrored(from) } else { weights }
    };
    let across = weights(image.width(), width, window.left, window.width, turn.flip_x);
    let down = weights(image.height(), height, window.top, window.height, turn.flip_y);
    // Since Pillow 13 (pull request 9549) an image that loses more than twice as many rows as
    // columns is resized down first. It matters because pixels are rounded between the passes.
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (columns_lost, rows_lost) = (lost(image.width(), width), lost(image.height(), height));
    let down_first = columns_lost != 0 && rows_lost > 0 && rows_lost > 2 * columns_lost;

    // On a picture that lies on its side, a stored row is an upright column.
    let (along_rows, along_columns) = if turn.swap { (&down, &across) } else { (&across, &down) };
    if down_first == turn.swap {
        rows_first(image, along_rows, along_columns, &mut output)?;
    } else {
        columns_first(image, along_rows, along_columns, &mut output)?;
    }
    if turn.swap {
        let upright = Turn { swap: true, flip_x: false, flip_y: false };
        return upright.apply(window.height, window.width, &output);
    }
    Ok(output)
}

/// Along the stored rows, then along the columns, strip by strip.
///
/// `output` has a row for each output of `along_columns`, and pixels for those of `along_rows`.
fn rows_first(
    image: &RgbImage,
    along_rows: &Weights,
    along_columns: &Weights,
    output: &mut [u8],
) -> Result<(), ImageError> {
    // The part of the source that the window needs.
    let (columns, rows) = (along_rows.sources(), along_columns.sources());
    let pass = Columns::new(along_rows, columns.start);
    let len = 3 * columns.len();
    let mut padded = try_zeroed(len + pass.padding())?;
    let width = along_rows.len();
    let strip_max = (STRIP_BYTES / (3 * rows.len())).clamp(1, width);
    let mut strip = try_zeroed(3 * strip_max * rows.len())?;
    for first in (0..width).step_by(strip_max) {
        let stride = 3 * strip_max.min(width - first);
        let strip = &mut strip[..stride * rows.len()];
        for (row, target) in rows.clone().zip(strip.chunks_exact_mut(stride)) {
            let start = row * image.stride() + 3 * columns.start;
            padded[..len].copy_from_slice(&image.pixels()[start..start + len]);
            pass.blend(&padded, first, target);
        }
        for (y, target) in output.chunks_exact_mut(3 * width).enumerate() {
            let (from, weights) = along_columns.of(y);
            let strip = &strip[(from - rows.start) * stride..];
            blend_rows(strip, stride, weights, &mut target[3 * first..][..stride]);
        }
    }
    Ok(())
}

/// Along the stored columns, then along the rows, row by row of the output.
fn columns_first(
    image: &RgbImage,
    along_rows: &Weights,
    along_columns: &Weights,
    output: &mut [u8],
) -> Result<(), ImageError> {
    let columns = along_rows.sources();
    let pass = Columns::new(along_rows, columns.start);
    let len = 3 * columns.len();
    let mut blended = try_zeroed(len + pass.padding())?;
    for (y, target) in output.chunks_exact_mut(3 * along_rows.len()).enumerate() {
        let (from, weights) = along_columns.of(y);
        let rows = &image.pixels()[from * image.stride() + 3 * columns.start..];
        blend_rows(rows, image.stride(), weights, &mut blended[..len]);
        pass.blend(&blended, 0, target);
    }
    Ok(())
}
