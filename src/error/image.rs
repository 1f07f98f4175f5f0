//! Words for images that were refused.

use super::{Code, Report, paths};
use imgvec_encoder::image::{ImageError, ImageFormat};

/// Formats that are decoded, most common first.
const FORMATS: [ImageFormat; 11] = [
    ImageFormat::Jpeg,
    ImageFormat::Png,
    ImageFormat::Gif,
    ImageFormat::WebP,
    ImageFormat::Bmp,
    ImageFormat::Tiff,
    ImageFormat::Pnm,
    ImageFormat::Qoi,
    ImageFormat::Ico,
    ImageFormat::JpegXl,
    ImageFormat::Avif,
];

/// What to supply instead of data of format `but`, which is not among it.
fn formats(but: Option<ImageFormat>) -> String {
    let names: Vec<&str> =
        FORMATS.into_iter().filter(|&format| Some(format) != but).map(ImageFormat::name).collect();
    let (last, others) = names.split_last().expect("at least five formats");
    format!("Supply {} or {last} data in a bytea value.", others.join(", "))
}

impl From<ImageError> for Report {
    fn from(error: ImageError) -> Self {
        let detail = sentence(&error);
        match error {
            ImageError::Empty | ImageError::UnknownFormat { .. } => {
                Self::new(Code::ERRCODE_INVALID_BINARY_REPRESENTATION, "could not decode image")
                    .detail(detail)
                    .hint(formats(None))
            }
            ImageError::Corrupt { .. } => {
                Self::new(Code::ERRCODE_INVALID_BINARY_REPRESENTATION, "could not decode image")
                    .detail(detail)
                    .hint("Check that the file was stored completely, or save it again with an image editor.")
            }
            ImageError::Unsupported { format, .. } => {
                Self::new(Code::ERRCODE_FEATURE_NOT_SUPPORTED, "image is of a kind that is not supported")
                    .detail(detail)
                    .hint(formats(Some(format)))
            }
            ImageError::NoDecoder { format, .. } => {
                let hint = format!(
                    "Install libheif (Debian's packages libheif1 and, from Debian 13 on, libheif-plugin-libde265), have a superuser set imgvec.libheif_library, or convert the image. {}",
                    formats(Some(format))
                );
                paths::for_role(
                    Self::new(
                        Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                        "image is of a kind that is not supported",
                    )
                    .detail(detail)
                    .hint(hint),
                )
            }
            ImageError::NoFrame { .. } => {
                Self::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "there is no such frame in the image")
                    .detail(detail)
                    .hint("Frames and pages are counted from 1; image_info() returns their number.")
            }
            ImageError::InputTooLarge { len, limit } => too_large(len, limit),
            ImageError::TooManyPixels { .. } | ImageError::DecoderMemory { .. } => {
                Self::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "image is too large")
                    .detail(detail)
                    .hint("Scale the image down, or have a superuser raise imgvec.max_image_pixels.")
            }
            ImageError::SideTooLong { .. } => {
                Self::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "image is too large")
                    .detail(detail)
                    .hint("Scale the image down before it is stored.")
            }
            ImageError::OutOfMemory { .. } => Self::new(Code::ERRCODE_OUT_OF_MEMORY, "out of memory")
                .detail(detail)
                .hint("Scale the image down, or run fewer embeddings at a time."),
            ImageError::Interrupted => super::interrupted(),
        }
    }
}

/// An encoded image beyond the limit, noticed before it was read.
pub fn too_large(size: usize, limit: usize) -> Report {
    Report::new(Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "image is too large")
        .detail(format!("The data is {size} bytes long, and the limit is {limit} bytes."))
        .hint("Scale the image down, or have a superuser raise imgvec.max_image_bytes.")
}

/// The `Display` of a core error, which is a sentence but for its capital and its period.
pub fn sentence(error: &impl std::fmt::Display) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => {
            let period = if text.ends_with(['.', '!', '?']) { "" } else { "." };
            format!("{}{}{period}", first.to_uppercase(), chars.as_str())
        }
        None => text,
    }
}
