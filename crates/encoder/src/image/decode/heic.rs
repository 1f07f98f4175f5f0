//! HEIC through libheif, if it is there.

use std::sync::Arc;

use imgvec_codecs::heif::{Failure, Library};

use super::{Samples, divided};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Heic;
use crate::image::header::ImageInfo;
use crate::image::limits::ImageLimits;
use crate::interrupt::InterruptCheck;
use crate::memory;

pub(super) fn decode(
    data: &[u8],
    info: &ImageInfo,
    limits: &ImageLimits,
    interrupt: InterruptCheck,
) -> Result<Samples, ImageError> {
    let missing = |reason: String| ImageError::NoDecoder { format: Heic, reason };
    let path = (limits.libheif)().ok_or_else(|| missing("libheif is switched off".to_owned()))?;
    let library = Library::open(&path).map_err(|error| missing(error.to_string()))?;
    let out_of_memory = |bytes| move |_| ImageError::OutOfMemory { bytes };
    memory::reserve(data.len(), "decode a picture").map_err(out_of_memory(data.len()))?;
    let sides = (info.width as usize, info.height as usize);
    // What libheif asks for is refused by an exception, which it does not catch everywhere.
    let bytes = sides.0 * sides.1 * 6;
    memory::reserve(bytes, "decode a picture").map_err(out_of_memory(bytes))?;
    let picture = library.decode(Arc::from(data), sides, interrupt).map_err(|failure| match failure {
        Failure::Interrupted => ImageError::Interrupted,
        Failure::OutOfMemory => ImageError::OutOfMemory { bytes },
        Failure::Unsupported(reason) => {
            missing(format!("libheif {} cannot decode it: {reason}", library.version()))
        }
        Failure::Damaged(_) | Failure::WrongSize { .. } | Failure::GaveUp(_) => {
            ImageError::corrupt(Heic, failure)
        }
    })?;
    let mut data = picture.samples;
    if picture.channels == 3 {
        return Ok(Samples { layout: Layout::Rgb, data });
    }
    if picture.is_premultiplied {
        divided(&mut data);
    }
    Ok(Samples { layout: Layout::Rgba, data })
}
