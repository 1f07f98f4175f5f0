//! Why an image was refused, with the facts that a message to its owner needs.

use std::fmt;

use super::format::ImageFormat;

/// Failure of [`info`](super::info) or [`decode`](super::decode).
///
/// The `Display` text is a whole sentence without the final period; it names no type or function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// There are no bytes at all.
    #[error("the data is empty")]
    Empty,
    /// The first bytes belong to no format known here.
    #[error("the data is {len} bytes long and starts with {head}, which is no supported format")]
    UnknownFormat {
        /// Length of the input in bytes.
        len: usize,
        /// The first bytes of the input.
        head: Head,
    },
    /// A format, or a feature of a format, that is known but not decoded.
    #[error("{format} {feature} is not supported")]
    Unsupported {
        /// The recognized format.
        format: ImageFormat,
        /// What it would take, as a noun phrase: "data", "arithmetic coding".
        feature: String,
    },
    /// A format whose decoder this system lacks.
    #[error("{format} data is not supported here: {reason}")]
    NoDecoder {
        /// The recognized format.
        format: ImageFormat,
        /// What is missing, or the words of what was found.
        reason: String,
    },
    /// The encoded image is longer than the limit.
    #[error("the data is {len} bytes long, and the limit is {limit} bytes")]
    InputTooLarge {
        /// Length of the input in bytes.
        len: usize,
        /// [`ImageLimits::max_input_bytes`](super::ImageLimits::max_input_bytes).
        limit: usize,
    },
    /// The header announces more pixels than the limit.
    #[error("the image has {width} x {height} pixels, and the limit is {limit} pixels")]
    TooManyPixels {
        /// Width in pixels, as stored.
        width: u32,
        /// Height in pixels, as stored.
        height: u32,
        /// [`ImageLimits::max_pixels`](super::ImageLimits::max_pixels).
        limit: u64,
    },
    /// One side is longer than [`ImageLimits::MAX_SIDE`](super::ImageLimits::MAX_SIDE).
    #[error("the image has {width} x {height} pixels, and no side may be longer than {limit}")]
    SideTooLong {
        /// Width in pixels, as stored.
        width: u32,
        /// Height in pixels, as stored.
        height: u32,
        /// The longest side allowed.
        limit: u32,
    },
    /// Decoding would hold more memory than the limit.
    #[error("decoding this {format} image takes {bytes} bytes of memory, and the limit is {limit} bytes")]
    DecoderMemory {
        /// The recognized format.
        format: ImageFormat,
        /// Estimated peak in bytes.
        bytes: u64,
        /// [`ImageLimits::max_decoder_bytes`](super::ImageLimits::max_decoder_bytes).
        limit: u64,
    },
    /// The system refused memory that the limits would allow.
    #[error("there is not enough memory for {bytes} bytes of pixels")]
    OutOfMemory {
        /// Size of the refused allocation.
        bytes: usize,
    },
    /// There is no frame of this number.
    #[error("the image has no frame {frame}{}", match frames { Some(1) => ", only one".to_owned(), Some(frames) => format!(", only {frames}"), None => String::new() })]
    NoFrame {
        /// The number that was asked for; the first frame is 1.
        frame: i64,
        /// Frames that there are, if they can be counted.
        frames: Option<u32>,
    },
    /// The data does not follow its format, or ends early.
    #[error("the {format} data is damaged: {reason}")]
    Corrupt {
        /// The recognized format.
        format: ImageFormat,
        /// The decoder's words.
        reason: String,
    },
    /// The caller's [`InterruptCheck`](crate::interrupt::InterruptCheck) returned true.
    #[error("decoding was interrupted")]
    Interrupted,
}

impl ImageError {
    pub(super) fn corrupt(format: ImageFormat, reason: impl fmt::Display) -> Self {
        Self::Corrupt { format, reason: reason.to_string() }
    }

    pub(super) fn unsupported(format: ImageFormat, feature: impl fmt::Display) -> Self {
        Self::Unsupported { format, feature: feature.to_string() }
    }
}

/// The first bytes of an input, at most eight. Displays as `00 01 02 03`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; Self::CAPACITY],
    len: u8,
}

impl Head {
    const CAPACITY: usize = 8;

    pub(super) fn of(data: &[u8]) -> Self {
        let mut bytes = [0; Self::CAPACITY];
        let len = data.len().min(Self::CAPACITY);
        bytes[..len].copy_from_slice(&data[..len]);
        Self { bytes, len: u8::try_from(len).expect("at most eight") }
    }

    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.as_bytes().iter().enumerate() {
            let separator = if i == 0 { "" } else { " " };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}
