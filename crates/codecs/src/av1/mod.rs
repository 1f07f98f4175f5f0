//! AV1 frames through rav1d, for still pictures and animations.
//!
//! rav1d has the C interface of dav1d and no way to stop inside a frame. So it runs on a thread of its own that takes no signals. A
//! caller that wants to stop abandons the thread: it ends with the frame at hand, which the limit on pixels bounds, and the next
//! decoding of the process waits for that. Frames lie in memory that is counted, those that a file hides among them.
mod memory;
mod picture;

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use rav1d::include::dav1d::data::Dav1dData;
use rav1d::include::dav1d::dav1d::{Dav1dContext, Dav1dLogger, Dav1dSettings};
use rav1d::include::dav1d::picture::Dav1dPicture;
use rav1d::src::lib::{
    dav1d_close, dav1d_data_create, dav1d_data_unref, dav1d_default_settings, dav1d_get_picture, dav1d_open,
    dav1d_send_data,
};

use crate::worker::{self, Lost};
use memory::Budget;
pub use picture::{Layout, Picture};

/// What decoding may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Width times height of any frame.
    pub max_pixels: u32,
    /// Bytes of all frames that are kept at once.
    pub max_bytes: u64,
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The data does not follow AV1.
    #[error("the AV1 data is damaged")]
    Damaged,
    /// The data ends before the frame that is wanted.
    #[error("the AV1 data has no such frame")]
    NoFrame,
    /// A frame has more pixels than the limit.
    #[error("an AV1 frame is too large")]
    TooLarge,
    /// Frames take more bytes than the limit.
    #[error("AV1 frames take {bytes} bytes")]
    TooMuchMemory {
        /// What was held and asked for.
        bytes: u64,
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

/// Decodes `samples` in turn, each the frames of one moment, and returns the picture of the last one.
///
/// `operating_point` chooses among the layers of a layered picture, whose finest is shown. `interrupt` is asked every few milliseconds.
///
/// # Errors
/// See [`Failure`].
pub fn decode(
    samples: Vec<Vec<u8>>,
    operating_point: u8,
    limits: Limits,
    interrupt: fn() -> bool,
) -> Result<Picture, Failure> {
    let result = worker::run("imgvec av1", interrupt, move |stop| {
        let budget = Arc::new(Budget::new(limits.max_bytes, stop));
        let result = Decoder::open(&budget, operating_point, limits.max_pixels)
            .and_then(|decoder| decoder.last_picture(samples, &budget));
        match result {
            // The decoder says the same about memory and about damage.
            Err(_) if budget.was_refused() => Err(budget.failure()),
            other => other,
        }
    });
    result.unwrap_or_else(|lost| {
        Err(match lost {
            Lost::Interrupted => Failure::Interrupted,
            Lost::NoThread => Failure::OutOfMemory,
            Lost::GaveUp(message) => Failure::GaveUp(message),
        })
    })
}

/// An open decoder of one thread. The budget outlives it: frames hold it, too.
struct Decoder {
    context: Option<Dav1dContext>,
}

const EAGAIN: c_int = -(nix::errno::Errno::EAGAIN as c_int);
const ENOMEM: c_int = -(nix::errno::Errno::ENOMEM as c_int);
const ERANGE: c_int = -(nix::errno::Errno::ERANGE as c_int);

fn failure(code: c_int) -> Failure {
    match code {
        ENOMEM => Failure::OutOfMemory,
        ERANGE => Failure::TooLarge,
        _ => Failure::Damaged,
    }
}

impl Decoder {
    fn open(budget: &Arc<Budget>, operating_point: u8, max_pixels: u32) -> Result<Self, Failure> {
        let mut settings = MaybeUninit::<Dav1dSettings>::uninit();
        // SAFETY: the pointer is to memory of this type, which the call fills.
        let mut settings = unsafe {
            dav1d_default_settings(NonNull::from(&mut settings).cast());
            settings.assume_init()
        };
        settings.n_threads = 1;
        settings.max_frame_delay = 1;
        settings.all_layers = 0;
        settings.operating_point = c_int::from(operating_point.min(31));
        settings.frame_size_limit = max_pixels;
        // SAFETY: without a callback, nothing is ever called.
        settings.logger = unsafe { Dav1dLogger::new(None, None) };
        settings.allocator = memory::allocator(budget);
        let mut context = None;
        // SAFETY: both point to values of their types, and the callbacks of the allocator are as rav1d demands (see `memory`).
        let result =
            unsafe { dav1d_open(Some(NonNull::from(&mut context)), Some(NonNull::from(&mut settings))) };
        if result.0 == 0 { Ok(Self { context }) } else { Err(failure(result.0)) }
    }

    fn last_picture(&self, samples: Vec<Vec<u8>>, budget: &Budget) -> Result<Picture, Failure> {
        let mut last = None;
        for sample in samples {
            if budget.is_stopped() {
                return Err(Failure::Interrupted);
            }
            last = self.picture(&sample)?;
        }
        last.ok_or(Failure::NoFrame)
    }

    /// The first picture of a sample. What comes after it is decoded and dropped.
    fn picture(&self, sample: &[u8]) -> Result<Option<Picture>, Failure> {
        if sample.is_empty() {
            return Err(Failure::Damaged);
        }
        let mut data = Data::copied(sample)?;
        let mut first = None;
        loop {
            let is_sent = data.send(self)?;
            let picture = self.next()?;
            let is_idle = picture.is_none();
            first = first.or(picture);
            match (is_sent, is_idle) {
                (true, true) => return Ok(first),
                // Neither takes data nor gives a picture.
                (false, true) => return Err(Failure::Damaged),
                (_, false) => {}
            }
        }
    }

    fn next(&self) -> Result<Option<Picture>, Failure> {
        let mut picture = Dav1dPicture::default();
        // SAFETY: the context is open, and the pointer is to a value of its type.
        let result = unsafe { dav1d_get_picture(self.context, Some(NonNull::from(&mut picture))) };
        match result.0 {
            0 => Picture::new(picture).map(Some),
            EAGAIN => Ok(None),
            code => Err(failure(code)),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the context is from `dav1d_open`, and is taken away from its place by this.
        unsafe { dav1d_close(Some(NonNull::from(&mut self.context))) };
    }
}

/// Input that the decoder may keep.
struct Data {
    data: Dav1dData,
    is_sent: bool,
}

impl Data {
    fn copied(sample: &[u8]) -> Result<Self, Failure> {
        let mut data = Dav1dData::default();
        // SAFETY: the pointer is to a value of its type.
        let bytes = unsafe { dav1d_data_create(Some(NonNull::from(&mut data)), sample.len()) };
        let bytes = NonNull::new(bytes).ok_or(Failure::OutOfMemory)?;
        // SAFETY: `dav1d_data_create` returned so many bytes, which nobody else knows yet.
        unsafe { bytes.as_ptr().copy_from_nonoverlapping(sample.as_ptr(), sample.len()) };
        Ok(Self { data, is_sent: false })
    }

    /// Whether the decoder has taken it.
    fn send(&mut self, decoder: &Decoder) -> Result<bool, Failure> {
        if !self.is_sent {
            // SAFETY: the context is open, and the data is from `dav1d_data_create` and not sent yet.
            let result = unsafe { dav1d_send_data(decoder.context, Some(NonNull::from(&mut self.data))) };
            match result.0 {
                0 => self.is_sent = true,
                EAGAIN => {}
                code => return Err(failure(code)),
            }
        }
        Ok(self.is_sent)
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        // SAFETY: the data is as the last call left it; sent data are empty.
        unsafe { dav1d_data_unref(Some(NonNull::from(&mut self.data))) };
    }
}
