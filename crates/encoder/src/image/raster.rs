//! Decoded pixels.

use std::borrow::Cow;

use super::error::ImageError;
use super::memory::try_zeroed;
use super::orientation::Turn;
use super::region::Region;

/// An 8-bit RGB image that looks upright from outside.
///
/// Inside, the pixels lie as the file stored them, together with the turn that EXIF asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    /// Sides as stored.
    width: u32,
    height: u32,
    pixels: Vec<u8>,
    turn: Turn,
}

impl RgbImage {
    /// Wraps `pixels`, which hold `height` rows of `width` RGB triples from top to bottom,
    /// without padding.
    ///
    /// Returns `None` when a side is zero or the length is not `3 * width * height`.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Option<Self> {
        Self::stored(width, height, pixels, Turn::default())
    }

    /// As [`RgbImage::new`], for pixels that lie as stored.
    pub(super) fn stored(width: u32, height: u32, pixels: Vec<u8>, turn: Turn) -> Option<Self> {
        let expected = usize::try_from(3 * u128::from(width) * u128::from(height)).ok()?;
        (expected > 0 && pixels.len() == expected).then_some(Self { width, height, pixels, turn })
    }

    /// Width of the upright picture in pixels, at least one.
    pub fn width(&self) -> u32 {
        self.turn.sides(self.width, self.height).0
    }

    /// Height of the upright picture in pixels, at least one.
    pub fn height(&self) -> u32 {
        self.turn.sides(self.width, self.height).1
    }

    /// All samples of the upright picture, `R G B R G B ...`, rows from top to bottom.
    ///
    /// Borrows when EXIF asks for no turn, and otherwise takes memory and time for a copy; the
    /// resizer does without.
    ///
    /// # Errors
    /// [`ImageError::OutOfMemory`].
    pub fn upright_pixels(&self) -> Result<Cow<'_, [u8]>, ImageError> {
        if self.turn == Turn::default() {
            return Ok(Cow::Borrowed(&self.pixels));
        }
        self.turn.apply(self.width, self.height, &self.pixels).map(Cow::Owned)
    }

    /// The pixels of a region of the upright picture.
    ///
    /// Borrows when the region is the whole picture, and otherwise takes memory for a copy.
    ///
    /// # Errors
    /// [`ImageError::OutOfMemory`].
    ///
    /// # Panics
    /// When the region is empty or reaches beyond the picture.
    pub fn part(&self, region: Region) -> Result<Cow<'_, RgbImage>, ImageError> {
        if region == Region::whole(self) {
            return Ok(Cow::Borrowed(self));
        }
        let across = (region.left, region.width, self.turn.flip_x);
        let down = (region.top, region.height, self.turn.flip_y);
        // On a picture that lies on its side, a stored row is an upright column.
        let (columns, rows) = if self.turn.swap { (down, across) } else { (across, down) };
        let first = |(first, count, is_mirrored): (u32, u32, bool), side: u32| {
            let end = first.checked_add(count).filter(|&end| count > 0 && end <= side);
            let end = end.expect("a region inside the picture");
            if is_mirrored { side - end } else { first }
        };
        let left = first(columns, self.width) as usize;
        let top = first(rows, self.height) as usize;
        let len = 3 * columns.1 as usize;
        let mut pixels = try_zeroed(len * rows.1 as usize)?;
        for (row, target) in (top..).zip(pixels.chunks_exact_mut(len)) {
            target.copy_from_slice(&self.pixels[row * self.stride() + 3 * left..][..len]);
        }
        let part = Self::stored(columns.1, rows.1, pixels, self.turn);
        Ok(Cow::Owned(part.expect("sized for the region")))
    }

    /// How the stored pixels become upright.
    pub(super) fn turn(&self) -> Turn {
        self.turn
    }

    /// The stored pixels.
    pub(super) fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Samples of a stored row.
    pub(super) fn stride(&self) -> usize {
        3 * self.width as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cutting and turning may change places.
    #[test]
    fn a_part_is_that_of_the_upright_picture_in_every_orientation() {
        let (width, height) = (7, 5);
        let pixels: Vec<u8> = (0..3 * width * height).map(|sample| sample as u8).collect();
        for orientation in 1..=8 {
            let turn = Turn::from_exif(orientation);
            let image = RgbImage::stored(width, height, pixels.clone(), turn).unwrap();
            let upright =
                RgbImage::new(image.width(), image.height(), image.upright_pixels().unwrap().into_owned());
            let upright = upright.unwrap();
            for region in [
                Region { left: 1, top: 2, width: 3, height: 2 },
                Region { left: 0, top: 0, width: 1, height: 5 },
                Region { left: 4, top: 4, width: 1, height: 1 },
                Region::whole(&image),
            ] {
                let part = image.part(region).unwrap();
                assert_eq!((part.width(), part.height()), (region.width, region.height));
                let expected = upright.part(region).unwrap();
                assert_eq!(part.upright_pixels().unwrap(), expected.pixels(), "{orientation} {region:?}");
                let first = 3 * (region.top * image.width() + region.left) as usize;
                assert_eq!(expected.pixels()[..3], upright.pixels()[first..first + 3]);
            }
        }
    }
}
