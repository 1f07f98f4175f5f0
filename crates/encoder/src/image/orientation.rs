//! EXIF orientation: reading the tag, and turning pixels upright.

use super::error::ImageError;
use super::memory::try_zeroed;

/// EXIF tag 0x0112 of a TIFF-shaped EXIF block, 1 when it is absent or senseless.
///
/// Reads the first directory only, at most 65,535 entries of twelve bytes.
pub(super) fn of_exif(exif: &[u8]) -> u8 {
    image::metadata::Orientation::from_exif_chunk(exif).map_or(1, image::metadata::Orientation::to_exif)
}

/// Whether `orientation` exchanges width and height.
pub(super) fn swaps_sides(orientation: u8) -> bool {
    matches!(orientation, 5..=8)
}

/// Turns `pixels`, stored as `width` x `height` RGB, upright. Returns new sides and pixels.
///
/// Orientations 2 to 8 as in EXIF 2.3, section 4.6.4: what the stored row 0 and column 0 are on
/// the upright picture.
pub(super) fn apply(
    orientation: u8,
    width: u32,
    height: u32,
    pixels: Vec<u8>,
) -> Result<(u32, u32, Vec<u8>), ImageError> {
    if !matches!(orientation, 2..=8) {
        return Ok((width, height, pixels));
    }
    let (w, h) = (width as usize, height as usize);
    let mut upright = try_zeroed(pixels.len())?;
    if swaps_sides(orientation) {
        let flip_x = matches!(orientation, 6 | 7);
        let flip_y = matches!(orientation, 7 | 8);
        transpose(&pixels, w, h, &mut upright, flip_x, flip_y);
        Ok((height, width, upright))
    } else {
        let flip_x = matches!(orientation, 2 | 3);
        let flip_y = matches!(orientation, 3 | 4);
        for (y, row) in pixels.chunks_exact(3 * w).enumerate() {
            let target = if flip_y { h - 1 - y } else { y };
            let target = &mut upright[3 * w * target..][..3 * w];
            if flip_x {
                for (to, from) in target.chunks_exact_mut(3).zip(row.rchunks_exact(3)) {
                    to.copy_from_slice(from);
                }
            } else {
                target.copy_from_slice(row);
            }
        }
        Ok((width, height, upright))
    }
}

/// Writes stored column x as upright row x, or as row `w - 1 - x` with `flip_y`; a row runs
/// along the stored column, backwards with `flip_x`.
///
/// Works in square tiles, so that the lines of cache that are written to stay there until they
/// are full.
fn transpose(pixels: &[u8], w: usize, h: usize, upright: &mut [u8], flip_x: bool, flip_y: bool) {
    const TILE: usize = 16;
    let (stored, _) = pixels.as_chunks::<3>();
    let (upright, _) = upright.as_chunks_mut::<3>();
    for y0 in (0..h).step_by(TILE) {
        let tile_height = TILE.min(h - y0);
        for x0 in (0..w).step_by(TILE) {
            for x in x0..(x0 + TILE).min(w) {
                let row = if flip_y { w - 1 - x } else { x };
                let column = if flip_x { h - y0 - tile_height } else { y0 };
                let target = &mut upright[h * row + column..][..tile_height];
                let source = stored[w * y0 + x..].iter().step_by(w);
                if flip_x {
                    target.iter_mut().rev().zip(source).for_each(|(to, from)| *to = *from);
                } else {
                    target.iter_mut().zip(source).for_each(|(to, from)| *to = *from);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sides that are no multiple of a tile: every pixel must arrive, and turning back undoes it.
    #[test]
    fn turning_there_and_back_keeps_every_pixel() {
        let (width, height) = (37, 50);
        let stored: Vec<u8> = (0..3 * width * height).map(|i| (i * 7 % 251) as u8).collect();
        for (there, back) in [(2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (7, 7), (8, 6)] {
            let (w, h, turned) = apply(there, width, height, stored.clone()).unwrap();
            assert_eq!((w, h), if swaps_sides(there) { (height, width) } else { (width, height) });
            assert_eq!(apply(back, w, h, turned).unwrap(), (width, height, stored.clone()), "{there}");
        }
    }

    /// A 3 x 2 picture of the letters ABC / DEF, turned every way.
    #[test]
    fn all_eight_orientations_of_six_letters() {
        let stored: Vec<u8> = b"ABCDEF".iter().flat_map(|&c| [c, c, c]).collect();
        let expected = [
            (1, "ABC DEF"),
            (2, "CBA FED"),
            (3, "FED CBA"),
            (4, "DEF ABC"),
            (5, "AD BE CF"),
            (6, "DA EB FC"),
            (7, "FC EB DA"),
            (8, "CF BE AD"),
        ];
        for (orientation, letters) in expected {
            let (width, _, pixels) = apply(orientation, 3, 2, stored.clone()).unwrap();
            let rows: Vec<String> = pixels
                .chunks_exact(3 * width as usize)
                .map(|row| row.chunks_exact(3).map(|p| char::from(p[0])).collect())
                .collect();
            assert_eq!(rows.join(" "), letters, "orientation {orientation}");
        }
    }
}
