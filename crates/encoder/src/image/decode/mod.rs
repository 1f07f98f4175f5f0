//! From the bytes of an image to upright RGB pixels.
//!
//! 1. The header is read and checked against the limits ([`super::header`]).
//! 2. The decoder of the format runs on a [`Reader`], which stops it when the caller wants, and
//!    writes into a buffer that we allocated. It must agree with the header about the size.
//! 3. Samples become RGB, translucent ones on white ([`super::alpha`]).
//! 4. The EXIF orientation is noted; the resizer applies it ([`super::orientation`]).

mod avif;
mod bmp;
mod canvas;
mod gif;
mod heic;
mod ico;
mod jpeg;
mod jxl;
mod png;
mod pnm;
mod qoi;
mod tiff;
mod webp;
mod yuv;

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(super) use canvas::BYTES_PER_PIXEL as CANVAS_BYTES_PER_PIXEL;

use super::alpha::{self, Layout};
use super::error::ImageError;
use super::format::ImageFormat;
use super::header::{self, ImageInfo};
use super::limits::ImageLimits;
use super::orientation::Turn;
use super::raster::RgbImage;
use super::reader::Reader;
use crate::interrupt::InterruptCheck;

/// What a decoder hands over: `width * height` pixels of `layout`, as stored.
struct Samples {
    layout: Layout,
    data: Vec<u8>,
}

/// Decodes the first frame of an image.
///
/// The result is upright (EXIF orientation applies), 8-bit RGB without color management, and
/// translucent pixels are blended with white. Samples of 16 bits lose their lower byte.
///
/// # Errors
/// As [`info`](super::info); and when the pixels are damaged or cut off, the format has a
/// feature that is not supported, memory is refused, or `interrupt` returned true.
///
/// Damaged data never panics here: a panic inside a decoder is caught and reported as damage.
pub fn decode(data: &[u8], limits: &ImageLimits, interrupt: InterruptCheck) -> Result<RgbImage, ImageError> {
    decode_frame(data, 1, limits, interrupt)
}

/// As [`decode()`], of frame number `frame` of an animation, or of that page of a TIFF. The first is 1.
///
/// Frames of GIF, PNG and WebP build on those before them, which are decoded as well.
///
/// # Errors
/// As [`decode()`], and [`ImageError::NoFrame`].
pub fn decode_frame(
    data: &[u8],
    frame: u32,
    limits: &ImageLimits,
    interrupt: InterruptCheck,
) -> Result<RgbImage, ImageError> {
    let header = header::read(data, frame, limits)?;
    let data = ImageFormat::without_lead(data);
    let info = header.info;
    let interrupted = Cell::new(false);
    let mut reader = Reader::new(data, interrupt, &interrupted);
    let result = catch_unwind(AssertUnwindSafe(|| match info.format {
        ImageFormat::Jpeg => jpeg::decode(data, &reader, &info, header.peak_bytes),
        ImageFormat::Png if frame > 1 => png::decode_frame(reader, &info, limits, frame),
        ImageFormat::Gif if frame > 1 => gif::decode_frame(reader, &info, limits, frame),
        ImageFormat::WebP if frame > 1 => webp::decode_frame(data, &mut reader, &info, limits, frame),
        ImageFormat::Png => png::decode(reader, &info, limits),
        ImageFormat::Gif => gif::decode(reader, &info, limits),
        ImageFormat::WebP => webp::decode(data, &reader, &info, limits),
        ImageFormat::Bmp => bmp::decode(data, &mut reader, &info),
        ImageFormat::Tiff => tiff::decode(data, &mut reader, &info, frame),
        ImageFormat::Pnm => pnm::decode(data, &mut reader, &info),
        ImageFormat::Qoi => qoi::decode(data, &mut reader, &info),
        ImageFormat::Ico => ico::decode(data, &mut reader, &info, limits),
        ImageFormat::JpegXl => jxl::decode(data, &mut reader, &info, limits, frame),
        ImageFormat::Avif => avif::decode(data, &mut reader, &info, limits, frame, interrupt),
        ImageFormat::Heic => heic::decode(data, &info, limits, interrupt),
        ImageFormat::Jpeg2000 => Err(ImageError::unsupported(info.format, "data")),
    }));
    // An interrupt makes a decoder fail in any way it likes.
    if interrupted.get() || interrupt() {
        return Err(ImageError::Interrupted);
    }
    let samples = result.unwrap_or_else(|panic| Err(from_panic(info.format, &*panic)))?;
    let rgb = alpha::to_rgb(samples.layout, samples.data)?;
    RgbImage::stored(info.width, info.height, rgb, Turn::from_exif(info.orientation))
        .ok_or_else(|| ImageError::corrupt(info.format, "the decoder made too few pixels"))
}

/// Fails when the decoder sees another size than the header parser: one of them is being fooled.
fn check_size(info: &ImageInfo, width: u32, height: u32) -> Result<(), ImageError> {
    if (width, height) == (info.width, info.height) {
        return Ok(());
    }
    let reason =
        format!("its headers disagree: {} x {} and {width} x {height} pixels", info.width, info.height);
    Err(ImageError::corrupt(info.format, reason))
}

/// Length of a buffer for all samples, which the limits have bounded.
fn buffer_len(info: &ImageInfo, bytes_per_pixel: usize) -> usize {
    info.width as usize * info.height as usize * bytes_per_pixel
}

/// Takes alpha out of the colors of RGBA pixels, into which it was multiplied.
fn divided(pixels: &mut [u8]) {
    for [red, green, blue, alpha] in pixels.as_chunks_mut::<4>().0 {
        let alpha = u32::from(*alpha);
        for level in [red, green, blue] {
            let whole = (u32::from(*level) * 255 + alpha / 2).checked_div(alpha);
            *level = whole.map_or(0, |whole| whole.min(255) as u8);
        }
    }
}

/// The error of an animation that ends before a frame that its header, or nothing, promises.
fn no_frame(frame: u32) -> ImageError {
    ImageError::NoFrame { frame: frame.into(), frames: None }
}

fn from_panic(format: ImageFormat, panic: &(dyn Any + Send)) -> ImageError {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    ImageError::corrupt(format, format_args!("the decoder failed ({message})"))
}
