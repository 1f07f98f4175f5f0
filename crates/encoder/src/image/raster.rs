//! Decoded pixels.

use std::borrow::Cow;

use super::error::ImageError;
use super::orientation::Turn;

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
