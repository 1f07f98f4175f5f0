//! Decoded pixels.

/// An upright 8-bit RGB image, rows from top to bottom, `R G B R G B ...` without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RgbImage {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

impl RgbImage {
    /// Wraps `pixels`, which hold `height` rows of `width` RGB triples.
    ///
    /// Returns `None` when a side is zero or the length is not `3 * width * height`.
    pub fn new(width: u32, height: u32, pixels: Vec<u8>) -> Option<Self> {
        let expected = usize::try_from(3 * u128::from(width) * u128::from(height)).ok()?;
        (expected > 0 && pixels.len() == expected).then_some(Self { width, height, pixels })
    }

    /// Width in pixels, at least one.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least one.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// All samples, `3 * width * height` bytes.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Samples of row `y`, `3 * width` bytes.
    ///
    /// # Panics
    /// When `y` is not below the height.
    pub fn row(&self, y: usize) -> &[u8] {
        let stride = 3 * self.width as usize;
        &self.pixels[y * stride..][..stride]
    }

    /// Gives the samples away.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }
}
