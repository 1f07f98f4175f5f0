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
//! whose shortest edge shall become 224 would otherwise be 2,240,000 pixels wide.

mod filter;
mod kernel;
mod nearest;
mod weights;

pub use filter::Filter;

use super::error::ImageError;
use super::memory::try_zeroed;
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
            convolve(image, width, height, window, filter, &mut output)?;
        }
    }
    Ok(RgbImage::new(window.width, window.height, output).expect("sized for the window"))
}

/// Both passes, in the order that Pillow would take them.
fn convolve(
    image: &RgbImage,
    width: u32,
    height: u32,
    window: Window,
    filter: Filter,
    output: &mut [u8],
) -> Result<(), ImageError> {
    // A side that keeps its length keeps its pixels.
    let weights = |from, to, first, count| (from != to).then(|| Weights::new(filter, from, to, first, count));
    let across = weights(image.width(), width, window.left, window.width);
    let down = weights(image.height(), height, window.top, window.height);
    // Since Pillow 13 (pull request 9549) an image that loses more than twice as many rows as
    // columns is resized down first. It matters because pixels are rounded between the passes.
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (columns_lost, rows_lost) = (lost(image.width(), width), lost(image.height(), height));
    match (across, down) {
        (Some(across), Some(down)) if rows_lost > 0 && rows_lost > 2 * columns_lost => {
            down_first(image, &across, &down, output)
        }
        (across, down) => across_first(image, across.as_ref(), down.as_ref(), window, output),
    }
}

/// The usual order, strip by strip. A pass without weights copies what the window keeps.
fn across_first(
    image: &RgbImage,
    across: Option<&Weights>,
    down: Option<&Weights>,
    window: Window,
    output: &mut [u8],
) -> Result<(), ImageError> {
    // The source rows that the window needs.
    let rows = match down {
        Some(down) => down.sources(),
        None => window.top as usize..(window.top + window.height) as usize,
    };
    let columns = across.map(|across| (across.sources(), Columns::new(across, across.sources().start)));
    let mut padded = match &columns {
        Some((sources, columns)) => try_zeroed(3 * sources.len() + columns.padding())?,
        None => Vec::new(),
    };
    let strip_max = (STRIP_BYTES / (3 * rows.len())).clamp(1, window.width as usize);
    let mut strip = try_zeroed(3 * strip_max * rows.len())?;
    let out_stride = 3 * window.width as usize;
    for first in (0..window.width as usize).step_by(strip_max) {
        let len = strip_max.min(window.width as usize - first);
        let stride = 3 * len;
        let strip = &mut strip[..stride * rows.len()];
        for (row, target) in rows.clone().zip(strip.chunks_exact_mut(stride)) {
            match &columns {
                Some((sources, columns)) => {
                    let row = &image.row(row)[3 * sources.start..3 * sources.end];
                    padded[..row.len()].copy_from_slice(row);
                    columns.blend(&padded, first, target);
                }
                None => {
                    let left = 3 * (window.left as usize + first);
                    target.copy_from_slice(&image.row(row)[left..left + stride]);
                }
            }
        }
        for (y, target) in output.chunks_exact_mut(out_stride).enumerate() {
            let target = &mut target[3 * first..][..stride];
            match down {
                Some(down) => {
                    let (from, weights) = down.of(y);
                    blend_rows(&strip[(from - rows.start) * stride..], stride, weights, target);
                }
                None => target.copy_from_slice(&strip[y * stride..][..stride]),
            }
        }
    }
    Ok(())
}

/// The other order, row by row of the output.
fn down_first(
    image: &RgbImage,
    across: &Weights,
    down: &Weights,
    output: &mut [u8],
) -> Result<(), ImageError> {
    // The source columns that the window needs.
    let sources = across.sources();
    let columns = Columns::new(across, sources.start);
    let stride = 3 * image.width() as usize;
    let len = 3 * sources.len();
    let mut blended = try_zeroed(len + columns.padding())?;
    for (y, target) in output.chunks_exact_mut(3 * across.len()).enumerate() {
        let (from, weights) = down.of(y);
        blend_rows(
            &image.pixels()[from * stride + 3 * sources.start..],
            stride,
            weights,
            &mut blended[..len],
        );
        columns.blend(&blended, 0, target);
    }
    Ok(())
}
