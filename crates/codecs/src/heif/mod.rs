//! HEIC through libheif, if the system has it.
//!
//! Nothing is linked: the library is loaded when the first such picture comes. It decodes the primary picture of a file, cropped and turned
//! as the file says, into interleaved samples.

mod library;

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use library::{Functions, HeifError, Opaque};
pub use library::{Library, LibraryError};

use crate::worker::{self, Lost, Stop};

/// A decoded picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Columns, after the turn.
    pub width: usize,
    /// Rows, after the turn.
    pub height: usize,
    /// Red, green and blue, and alpha if there is any, of 8 bits each.
    pub samples: Vec<u8>,
    /// Samples of a pixel: 3 or 4.
    pub channels: usize,
    /// Alpha is multiplied into the colors.
    pub is_premultiplied: bool,
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// libheif refuses the data, with its words.
    #[error("{0}")]
    Damaged(String),
    /// libheif has no decoder for it, or not for all of it.
    #[error("{0}")]
    Unsupported(String),
    /// The picture is larger than its header said.
    #[error("the headers disagree about the size: {width} x {height} pixels")]
    WrongSize {
        /// Columns that libheif sees.
        width: usize,
        /// Rows that libheif sees.
        height: usize,
    },
    /// The system refused memory, or a thread.
    #[error("there is not enough memory")]
    OutOfMemory,
    /// The caller's check returned true.
    #[error("decoding was interrupted")]
    Interrupted,
    /// The decoder met a fault of its own.
    #[error("the decoder failed ({0})")]
    GaveUp(String),
}

const COLORSPACE_RGB: c_int = 1;
const CHROMA_RGB: c_int = 10;
const CHROMA_RGBA: c_int = 11;
/// As these, of 16 bits with the lower byte first.
const CHROMA_RGB_16: c_int = 14;
const CHROMA_RGBA_16: c_int = 15;
const CHANNEL_INTERLEAVED: c_int = 10;

const ERROR_UNSUPPORTED_FILETYPE: c_int = 3;
const ERROR_UNSUPPORTED_FEATURE: c_int = 4;
const ERROR_MEMORY: c_int = 6;
const ERROR_PLUGIN_LOADING: c_int = 12;
const SUBERROR_UNSUPPORTED_CODEC: c_int = 3000;

impl Library {
    /// Decodes the primary picture of a file, which must have these sides once it is upright. `interrupt` is asked every few milliseconds.
    ///
    /// # Errors
    /// See [`Failure`].
    pub fn decode(
        &self,
        data: Arc<[u8]>,
        sides: (usize, usize),
        interrupt: fn() -> bool,
    ) -> Result<Picture, Failure> {
        let functions = self.functions;
        let result = worker::run("imgvec heic", interrupt, move |stop| {
            let context = Context::of(&functions, &data)?;
            context.primary_picture(sides, &stop)
        });
        result.unwrap_or_else(|lost| {
            Err(match lost {
                Lost::Interrupted => Failure::Interrupted,
                Lost::NoThread => Failure::OutOfMemory,
                Lost::GaveUp(message) => Failure::GaveUp(message),
            })
        })
    }
}

/// # Safety
/// The error is the latest of a context that still lives.
unsafe fn check(error: &HeifError) -> Result<(), Failure> {
    if error.code == 0 {
        return Ok(());
    }
    // SAFETY: the caller's promise.
    let message = unsafe { error.message() };
    Err(match (error.code, error.subcode) {
        (ERROR_MEMORY, _) => Failure::OutOfMemory,
        (ERROR_UNSUPPORTED_FILETYPE | ERROR_UNSUPPORTED_FEATURE | ERROR_PLUGIN_LOADING, _)
        | (_, SUBERROR_UNSUPPORTED_CODEC) => Failure::Unsupported(message),
        _ => Failure::Damaged(message),
    })
}

/// Something of libheif's that is released in the end.
struct Owned {
    thing: Opaque,
    release: unsafe extern "C" fn(Opaque),
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: `thing` came from libheif, this function is the one for it, and it is called once.
        unsafe { (self.release)(self.thing) };
    }
}

/// An open file. The data outlive it.
struct Context<'a> {
    functions: &'a Functions,
    context: Owned,
    data: std::marker::PhantomData<&'a [u8]>,
}

impl<'a> Context<'a> {
    fn of(functions: &'a Functions, data: &'a [u8]) -> Result<Self, Failure> {
        // SAFETY: it takes nothing.
        let context = unsafe { (functions.heif_context_alloc)() };
        if context.is_null() {
            return Err(Failure::OutOfMemory);
        }
        let context = Owned { thing: context, release: functions.heif_context_free };
        // SAFETY: the context lives, and the data live longer.
        unsafe {
            (functions.heif_context_set_max_decoding_threads)(context.thing, 0);
            let start = data.as_ptr().cast::<c_void>();
            let read = functions.heif_context_read_from_memory_without_copy;
            check(&read(context.thing, start, data.len(), ptr::null()))?;
        }
        Ok(Self { functions, context, data: std::marker::PhantomData })
    }

    fn primary_picture(&self, sides: (usize, usize), stop: &Stop) -> Result<Picture, Failure> {
        let functions = self.functions;
        let number = |value: c_int| usize::try_from(value).unwrap_or(0);
        let mut handle = ptr::null_mut();
        // SAFETY: the context lives; the call fills the handle, or fails.
        let handle = unsafe {
            check(&(functions.heif_context_get_primary_image_handle)(self.context.thing, &raw mut handle))?;
            Owned { thing: handle, release: functions.heif_image_handle_release }
        };
        // SAFETY: the handle lives in all of these.
        let (width, height, has_alpha, is_premultiplied, bits) = unsafe {
            (
                number((functions.heif_image_handle_get_width)(handle.thing)),
                number((functions.heif_image_handle_get_height)(handle.thing)),
                (functions.heif_image_handle_has_alpha_channel)(handle.thing) != 0,
                (functions.heif_image_handle_is_premultiplied_alpha)(handle.thing) != 0,
                (functions.heif_image_handle_get_luma_bits_per_pixel)(handle.thing),
            )
        };
        if (width, height) != sides {
            return Err(Failure::WrongSize { width, height });
        }
        if stop.is_set() {
            return Err(Failure::Interrupted);
        }
        let is_wide = bits > 8;
        let chroma = match (has_alpha, is_wide) {
            (false, false) => CHROMA_RGB,
            (true, false) => CHROMA_RGBA,
            (false, true) => CHROMA_RGB_16,
            (true, true) => CHROMA_RGBA_16,
        };
        let mut picture = ptr::null_mut();
        // SAFETY: the handle lives, NULL stands for the usual options; the call fills the picture, or fails.
        let picture = unsafe {
            let decode = functions.heif_decode_image;
            check(&decode(handle.thing, &raw mut picture, COLORSPACE_RGB, chroma, ptr::null()))?;
            Owned { thing: picture, release: functions.heif_image_release }
        };
        let mut stride: c_int = 0;
        // SAFETY: the picture lives in all of these.
        let (width, height, bits, start) = unsafe {
            (
                number((functions.heif_image_get_width)(picture.thing, CHANNEL_INTERLEAVED)),
                number((functions.heif_image_get_height)(picture.thing, CHANNEL_INTERLEAVED)),
                (functions.heif_image_get_bits_per_pixel_range)(picture.thing, CHANNEL_INTERLEAVED),
                (functions.heif_image_get_plane_readonly)(
                    picture.thing,
                    CHANNEL_INTERLEAVED,
                    &raw mut stride,
                ),
            )
        };
        if (width, height) != sides || start.is_null() {
            return Err(Failure::WrongSize { width, height });
        }
        let channels = if has_alpha { 4 } else { 3 };
        let (len, stride) = (width * channels, number(stride));
        let row_bytes = if is_wide { 2 * len } else { len };
        if stride < row_bytes {
            return Err(Failure::Damaged("its rows are too short".to_owned()));
        }
        let mut samples = Vec::new();
        samples.try_reserve_exact(len * height).map_err(|_| Failure::OutOfMemory)?;
        let shift = u32::try_from(bits).unwrap_or(8).clamp(8, 16) - 8;
        for row in 0..height {
            // SAFETY: the plane has so many rows of this stride, which holds the bytes of a row, and nobody writes to it.
            let row = unsafe { std::slice::from_raw_parts(start.add(row * stride), row_bytes) };
            if is_wide {
                let pairs = row.as_chunks::<2>().0.iter();
                samples.extend(pairs.map(|&pair| (u16::from_le_bytes(pair) >> shift).min(255) as u8));
            } else {
                samples.extend_from_slice(row);
            }
        }
        Ok(Picture { width, height, samples, channels, is_premultiplied })
    }
}
