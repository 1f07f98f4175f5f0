//! EXIF orientation: reading the tag, and turning pixels upright.
//!
//! Phones store every portrait photograph lying on its side. Turning 12 megapixels takes 60 ms,
//! more than half of decoding them, so decoded pixels stay as stored and the resizer reads them
//! through a [`Turn`]; only its small result is turned.

use super::error::ImageError;
use super::header;
use super::memory::try_zeroed;

/// EXIF tag 0x0112 of a TIFF-shaped EXIF block, 1 when it is absent or senseless.
///
/// Reads the first directory only, at most 65,535 entries of twelve bytes. The standard wants a SHORT;
/// phones and editors also write other integers, which are as good.
pub(super) fn of_exif(exif: &[u8]) -> u8 {
    header::tiff::orientation(exif).unwrap_or(1)
}

/// How the upright picture comes from the stored one.
///
/// Orientations as in EXIF 2.3, section 4.6.4: what the stored row 0 and column 0 are on the
/// upright picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// Upright rows are stored columns.
    pub(super) swap: bool,
    /// An upright row runs from right to left over what is stored.
    pub(super) flip_x: bool,
    /// The upright rows start with the last stored one.
    pub(super) flip_y: bool,
}

impl Turn {
    pub(super) fn from_exif(orientation: u8) -> Self {
        Self {
            swap: matches!(orientation, 5..=8),
            flip_x: matches!(orientation, 2 | 3 | 6 | 7),
            flip_y: matches!(orientation, 3 | 4 | 7 | 8),
        }
    }

    /// Width and height after the turn.
    pub(super) fn sides(self, width: u32, height: u32) -> (u32, u32) {
        if self.swap { (height, width) } else { (width, height) }
    }

    /// Turns `pixels`, stored as `width` x `height` RGB, upright.
    pub(super) fn apply(self, width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>, ImageError> {
        let (w, h) = (width as usize, height as usize);
        let mut upright = try_zeroed(pixels.len())?;
        if self.swap {
            transpose(pixels, w, h, &mut upright, self.flip_x, self.flip_y);
            return Ok(upright);
        }
        for (y, row) in pixels.chunks_exact(3 * w).enumerate() {
            let target = if self.flip_y { h - 1 - y } else { y };
            let target = &mut upright[3 * w * target..][..3 * w];
            if self.flip_x {
                for (to, from) in target.chunks_exact_mut(3).zip(row.rchunks_exact(3)) {
                    to.copy_from_slice(from);
                }
            } else {
                target.copy_from_slice(row);
            }
        }
        Ok(upright)
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
        for (there, back) in [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 8), (7, 7), (8, 6)] {
            let turn = Turn::from_exif(there);
            let turned = turn.apply(width, height, &stored).unwrap();
            let (w, h) = turn.sides(width, height);
            assert_eq!(Turn::from_exif(back).apply(w, h, &turned).unwrap(), stored, "{there}");
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
            let turn = Turn::from_exif(orientation);
            let (width, _) = turn.sides(3, 2);
            let pixels = turn.apply(3, 2, &stored).unwrap();
            let rows: Vec<String> = pixels
                .chunks_exact(3 * width as usize)
                .map(|row| row.chunks_exact(3).map(|p| char::from(p[0])).collect())
                .collect();
            assert_eq!(rows.join(" "), letters, "orientation {orientation}");
        }
    }
}
