//! The nearest neighbor, which Pillow takes from its affine transform and not from its filters.

use super::{RgbImage, Window};

/// Writes `window` of the image resized to `width` x `height` into `output`.
pub(super) fn resize(image: &RgbImage, width: u32, height: u32, window: Window, output: &mut [u8]) {
    let turn = image.turn();
    let columns = sources(image.width(), width, window.left, window.width, turn.flip_x);
    let rows = sources(image.height(), height, window.top, window.height, turn.flip_y);
    for (&row, target) in rows.iter().zip(output.chunks_exact_mut(3 * columns.len())) {
        for (&column, pixel) in columns.iter().zip(target.chunks_exact_mut(3)) {
            let (x, y) = if turn.swap { (row, column) } else { (column, row) };
            pixel.copy_from_slice(&image.pixels()[y * image.stride() + 3 * x..][..3]);
        }
    }
}

/// The stored index of every output. Pillow adds the step up in floating point, and so must we:
/// the product differs from the sum by enough to pick another pixel once in a while.
fn sources(from: u32, to: u32, first: u32, count: u32, flip: bool) -> Vec<usize> {
    let step = f64::from(from) / f64::from(to);
    let mut position = step * 0.5;
    for _ in 0..first {
        position += step;
    }
    let last = from as usize - 1;
    (0..count)
        .map(|_| {
            let source = (position as usize).min(last);
            position += step;
            if flip { last - source } else { source }
        })
        .collect()
}
