//! What one image may cost, decided by the caller.

use std::path::PathBuf;

/// Bounds that are checked against an image's header before anything is allocated for it.
#[derive(Clone, Copy, Debug)]
pub struct ImageLimits {
    /// Width times height. The default of 50 million holds every phone and most cameras.
    pub max_pixels: u64,
    /// Length of the encoded image in bytes.
    pub max_input_bytes: usize,
    /// What decoding may hold at its peak in bytes, the decoded pixels included, the encoded
    /// input not.
    pub max_decoder_bytes: u64,
    /// The libheif that decodes HEIC: a file, or a name that the dynamic linker looks for. It is asked for when such a picture comes;
    /// `None` refuses the format.
    pub libheif: fn() -> Option<PathBuf>,
}

/// The numbers decide: which function tells the library is settled once for a program.
impl PartialEq for ImageLimits {
    fn eq(&self, other: &Self) -> bool {
        let numbers = |limits: &Self| (limits.max_pixels, limits.max_input_bytes, limits.max_decoder_bytes);
        numbers(self) == numbers(other)
    }
}

impl Eq for ImageLimits {}

impl ImageLimits {
    /// Longest side of any image, whatever its area.
    ///
    /// Resampling keeps coefficients in proportion to the longest side; this bounds them to
    /// some 100 MiB. JPEG, GIF and WebP cannot express more than 65,535 anyway.
    pub const MAX_SIDE: u32 = 1_000_000;

    /// Memory of a decoder for each pixel of [`max_pixels`](Self::max_pixels): enough for everything but
    /// pictures of that size whose format keeps all coefficients (progressive JPEG without
    /// chroma subsampling, 9 bytes) or samples beside the result (TIFF of 16 bits, up to 12).
    const DECODER_BYTES_PER_PIXEL: u64 = 8;

    /// Limits for pictures of `max_pixels` at most, with the memory that they take, at least 256 MiB.
    pub fn of_pixels(max_pixels: u64) -> Self {
        let max_decoder_bytes = max_pixels.saturating_mul(Self::DECODER_BYTES_PER_PIXEL).max(256 << 20);
        Self { max_pixels, max_input_bytes: 64 << 20, max_decoder_bytes, libheif: Self::system_libheif }
    }

    /// The libheif that the dynamic linker finds.
    pub fn system_libheif() -> Option<PathBuf> {
        Some(PathBuf::from("libheif.so.1"))
    }
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self::of_pixels(50_000_000)
    }
}
