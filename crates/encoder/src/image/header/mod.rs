//! What an image says about itself before any pixel is decoded.
//!
//! We read headers with our own code, one small file per format, and not through the decoders:
//! some of those allocate while they read a header, none bounds the pixels it will produce, and
//! a limit is only worth something when it is checked before the decoder first runs. [`decode`]
//! checks that the decoder then agrees about the size.
//!
//! Every function here borrows the input, allocates a few hundred kilobytes at most and takes at most
//! time in proportion to the length of the input.
//!
//! [`decode`]: super::decode()

pub(super) mod avif;
pub(super) mod bmp;
mod bytes;
mod gif;
mod heic;
pub(super) mod heif;
pub(super) mod ico;
mod isobmff;
pub(super) mod jpeg;
pub(super) mod jxl;
mod png;
pub(super) mod pnm;
pub(super) mod qoi;
pub(super) mod tiff;
pub(super) mod webp;

use super::decode::CANVAS_BYTES_PER_PIXEL;
use super::error::{Head, ImageError};
use super::format::ImageFormat;
use super::limits::ImageLimits;

/// Facts from the header of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// Recognized format.
    pub format: ImageFormat,
    /// Width in pixels as stored, that is before `orientation` is applied.
    pub width: u32,
    /// Height in pixels as stored, that is before `orientation` is applied.
    pub height: u32,
    /// Frames of an animation, pages of a TIFF, otherwise 1. `None` when the file is damaged
    /// after its first frame, so that they cannot be counted.
    pub frames: Option<u32>,
    /// EXIF orientation, 1 to 8; 1 when the image has none.
    pub orientation: u8,
    /// Channels of one pixel, alpha included; a palette counts as the color it stands for.
    pub channels: u8,
    /// Bits of one channel, 1 to 64; those of the palette entries (8) for an image with a palette.
    pub bits_per_channel: u8,
}

/// A header together with what decoding needs to know and nobody else.
pub(super) struct Header {
    pub(super) info: ImageInfo,
    /// Fewest bytes that an image of this size can have, 0 where the format sets no bound.
    pub(super) least_bytes: u64,
    /// Bytes that the decoder holds at its peak, its output included. A bound, exact
    /// enough to compare with a limit of hundreds of megabytes.
    pub(super) peak_bytes: u64,
}

/// Reads the header of an image and checks it against `limits`.
///
/// # Errors
/// The data is empty, too long, of no known format, of a format that is not decoded, damaged
/// in its header, or announces more pixels than the limits allow. The pixels themselves are not
/// looked at: an image that passes may still turn out to be damaged.
pub fn info(data: &[u8], limits: &ImageLimits) -> Result<ImageInfo, ImageError> {
    read(data, 1, limits).map(|header| header.info)
}

/// Does the work of [`info`], for one frame. Pages of a TIFF have sizes of their own.
pub(super) fn read(data: &[u8], frame: u32, limits: &ImageLimits) -> Result<Header, ImageError> {
    if data.is_empty() {
        return Err(ImageError::Empty);
    }
    if data.len() > limits.max_input_bytes {
        return Err(ImageError::InputTooLarge { len: data.len(), limit: limits.max_input_bytes });
    }
    let data = ImageFormat::without_lead(data);
    let Some(format) = ImageFormat::sniff(data) else {
        return Err(ImageError::UnknownFormat { len: data.len(), head: Head::of(data) });
    };
    let mut header = match format {
        ImageFormat::Jpeg => jpeg::read(data),
        ImageFormat::Png => png::read(data),
        ImageFormat::Gif => gif::read(data),
        ImageFormat::WebP => webp::read(data),
        ImageFormat::Bmp => bmp::read(data),
        ImageFormat::Tiff => tiff::read(data, frame),
        ImageFormat::Pnm => pnm::read(data),
        ImageFormat::Qoi => qoi::read(data),
        ImageFormat::Ico => ico::read(data),
        ImageFormat::JpegXl => jxl::read(data),
        ImageFormat::Avif => avif::read(data),
        ImageFormat::Heic => heic::read(data),
        ImageFormat::Jpeg2000 => Err(ImageError::unsupported(format, "data")),
    }?;
    let ImageInfo { width, height, frames, .. } = header.info;
    let may_have_more = matches!(
        format,
        ImageFormat::Png
            | ImageFormat::Gif
            | ImageFormat::WebP
            | ImageFormat::Tiff
            | ImageFormat::JpegXl
            | ImageFormat::Avif
    );
    let frames = if may_have_more { frames } else { Some(1) };
    if frame == 0 || frames.is_some_and(|frames| frame > frames) {
        return Err(ImageError::NoFrame { frame: frame.into(), frames });
    }
    if frame > 1 && matches!(format, ImageFormat::Png | ImageFormat::Gif | ImageFormat::WebP) {
        let pixels = u64::from(width) * u64::from(height);
        header.peak_bytes = header.peak_bytes.saturating_add(pixels.saturating_mul(CANVAS_BYTES_PER_PIXEL));
    }
    if width == 0 || height == 0 {
        return Err(ImageError::corrupt(format, format_args!("its size is {width} x {height} pixels")));
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return Err(ImageError::TooManyPixels { width, height, limit: limits.max_pixels });
    }
    if width.max(height) > ImageLimits::MAX_SIDE {
        return Err(ImageError::SideTooLong { width, height, limit: ImageLimits::MAX_SIDE });
    }
    if header.peak_bytes > limits.max_decoder_bytes {
        return Err(ImageError::DecoderMemory {
            format,
            bytes: header.peak_bytes,
            limit: limits.max_decoder_bytes,
        });
    }
    if header.least_bytes > data.len() as u64 {
        let reason = format!("{} bytes are too few for {width} x {height} pixels", data.len());
        return Err(ImageError::corrupt(format, reason));
    }
    Ok(header)
}

/// The error of a header that ends too early.
fn cut_off(format: ImageFormat) -> ImageError {
    ImageError::corrupt(format, "the header is cut off")
}
