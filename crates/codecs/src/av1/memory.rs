//! The memory of frames: counted, refused beyond a limit, and refused to a decoder that should stop.

use std::alloc::{Layout as Allocation, alloc_zeroed, dealloc};
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rav1d::Dav1dResult;
use rav1d::include::dav1d::headers::{
    DAV1D_PIXEL_LAYOUT_I400, DAV1D_PIXEL_LAYOUT_I420, DAV1D_PIXEL_LAYOUT_I444,
};
use rav1d::include::dav1d::picture::{DAV1D_PICTURE_ALIGNMENT, Dav1dPicAllocator, Dav1dPicture};
use rav1d::src::send_sync_non_null::SendSyncNonNull;

use super::Failure;
use crate::worker::Stop;

/// What the frames of one decoder may take together.
pub(crate) struct Budget {
    limit: u64,
    used: AtomicU64,
    /// The sum that was beyond the limit, or 0.
    refused: AtomicU64,
    /// The system had no memory.
    is_exhausted: AtomicBool,
    stop: Stop,
}

impl Budget {
    pub(crate) fn new(limit: u64, stop: Stop) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            is_exhausted: AtomicBool::new(false),
            stop,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.is_set()
    }

    pub(crate) fn was_refused(&self) -> bool {
        self.is_stopped()
            || self.is_exhausted.load(Ordering::Relaxed)
            || self.refused.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn failure(&self) -> Failure {
        match self.refused.load(Ordering::Relaxed) {
            _ if self.is_stopped() => Failure::Interrupted,
            0 => Failure::OutOfMemory,
            bytes => Failure::TooMuchMemory { bytes },
        }
    }

    /// Counts so many bytes, unless they are too many.
    fn take(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let sum = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let is_within = sum <= self.limit && !self.is_stopped();
        if !is_within {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            if sum > self.limit {
                self.refused.store(sum, Ordering::Relaxed);
            }
        }
        is_within
    }
}

/// The planes of a frame, in one piece.
struct Planes {
    start: NonNull<u8>,
    allocation: Allocation,
    budget: Arc<Budget>,
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for Planes {}
// SAFETY: nothing is read or written through a shared reference.
unsafe impl Sync for Planes {}

impl Drop for Planes {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody has it any more.
        unsafe { dealloc(self.start.as_ptr(), self.allocation) };
        self.budget.used.fetch_sub(self.allocation.size() as u64, Ordering::Relaxed);
    }
}

/// An allocator for a decoder that does not outlive `budget`. Its frames may.
pub(crate) fn allocator(budget: &Arc<Budget>) -> Dav1dPicAllocator {
    Dav1dPicAllocator {
        // A reference to the `Arc` itself, from which each frame takes its own.
        cookie: Some(SendSyncNonNull::from_ref(budget).cast::<c_void>()),
        alloc_picture_callback: Some(allocate),
        release_picture_callback: Some(release),
    }
}

/// Bytes of a row, of luma and of each chroma plane. Powers of two would make rows meet in the same lines of the cache.
fn strides(width: usize, bits: c_int, layout: u32) -> [usize; 2] {
    let luma = width.next_multiple_of(128) << usize::from(bits > 8);
    let chroma = match layout {
        DAV1D_PIXEL_LAYOUT_I400 => 0,
        DAV1D_PIXEL_LAYOUT_I444 => luma,
        _ => luma / 2,
    };
    let apart = |stride: usize| match stride {
        0 => 0,
        stride if stride.is_multiple_of(1024) => stride + DAV1D_PICTURE_ALIGNMENT,
        stride => stride,
    };
    [apart(luma), apart(chroma)]
}

/// # Safety
/// `picture` is valid, and `cookie` is from [`allocator`], whose budget still lives.
unsafe extern "C" fn allocate(
    picture: *mut Dav1dPicture,
    cookie: Option<SendSyncNonNull<c_void>>,
) -> Dav1dResult {
    const REFUSED: Dav1dResult = Dav1dResult(super::ENOMEM);
    // SAFETY: the caller's promise.
    let (picture, budget) = unsafe { (&mut *picture, cookie.map(|cookie| cookie.cast::<Arc<Budget>>())) };
    let Some(budget) = budget else { return REFUSED };
    // SAFETY: the cookie came from a reference to this type that still lives.
    let budget = unsafe { budget.as_ref() };
    let (Ok(width), Ok(height)) = (usize::try_from(picture.p.w), usize::try_from(picture.p.h)) else {
        return REFUSED;
    };
    let strides = strides(width, picture.p.bpc, picture.p.layout);
    let rows = height.next_multiple_of(128);
    let luma = strides[0] * rows;
    let chroma = strides[1] * if picture.p.layout == DAV1D_PIXEL_LAYOUT_I420 { rows / 2 } else { rows };
    let size = luma + 2 * chroma;
    let Ok(allocation) = Allocation::from_size_align(size, DAV1D_PICTURE_ALIGNMENT) else { return REFUSED };
    if size == 0 || !budget.take(size) {
        return REFUSED;
    }
    // SAFETY: the size is not 0.
    let Some(start) = NonNull::new(unsafe { alloc_zeroed(allocation) }) else {
        budget.used.fetch_sub(size as u64, Ordering::Relaxed);
        budget.is_exhausted.store(true, Ordering::Relaxed);
        return REFUSED;
    };
    let planes = Box::new(Planes { start, allocation, budget: Arc::clone(budget) });
    // SAFETY: the offsets lie inside the allocation.
    let at = |offset: usize| Some(unsafe { start.add(offset) }.cast::<c_void>());
    let has_chroma = chroma > 0;
    picture.data = [at(0), at(luma).filter(|_| has_chroma), at(luma + chroma).filter(|_| has_chroma)];
    picture.stride = strides.map(|stride| isize::try_from(stride).expect("a row is short"));
    picture.allocator_data = Some(SendSyncNonNull::from_box(planes).cast::<c_void>());
    Dav1dResult(0)
}

/// # Safety
/// `picture` is valid and was filled by [`allocate`].
unsafe extern "C" fn release(picture: *mut Dav1dPicture, _cookie: Option<SendSyncNonNull<c_void>>) {
    // SAFETY: the caller's promise.
    let data = unsafe { (*picture).allocator_data.take() };
    if let Some(planes) = data {
        // SAFETY: `allocate` stored a box of this type, and a frame is released once.
        drop(unsafe { planes.cast::<Planes>().into_box() });
    }
}
