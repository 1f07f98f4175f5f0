//! A decoded frame.

use std::ffi::c_int;
use std::ptr::NonNull;

use rav1d::include::dav1d::headers::{
    DAV1D_PIXEL_LAYOUT_I400, DAV1D_PIXEL_LAYOUT_I420, DAV1D_PIXEL_LAYOUT_I422, DAV1D_PIXEL_LAYOUT_I444,
};
use rav1d::include::dav1d::picture::Dav1dPicture;
use rav1d::src::lib::dav1d_picture_unref;

use super::Failure;

/// Which planes there are, and how fine chroma is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Luma alone.
    Gray,
    /// One sample of chroma for two columns and two rows.
    Yuv420,
    /// One sample of chroma for two columns.
    Yuv422,
    /// As fine as luma.
    Yuv444,
}

impl Layout {
    /// Columns and rows of a chroma plane beside those of luma.
    pub fn chroma_sides(self, width: usize, height: usize) -> (usize, usize) {
        match self {
            Self::Gray => (0, 0),
            Self::Yuv420 => (width.div_ceil(2), height.div_ceil(2)),
            Self::Yuv422 => (width.div_ceil(2), height),
            Self::Yuv444 => (width, height),
        }
    }
}

/// A frame and what its sequence says about its colors.
pub struct Picture {
    picture: Dav1dPicture,
    layout: Layout,
    width: usize,
    height: usize,
    bits: u8,
    primaries: u8,
    matrix: u8,
    is_full_range: bool,
}

// SAFETY: the frame is complete, the decoder of one thread that made it writes to it no more, and all that it refers to is counted by
// atomic counters.
unsafe impl Send for Picture {}

impl Picture {
    /// Takes over a picture that the decoder gave out.
    pub(crate) fn new(picture: Dav1dPicture) -> Result<Self, Failure> {
        let mut new = Self {
            picture,
            layout: Layout::Gray,
            width: 0,
            height: 0,
            bits: 8,
            primaries: 2,
            matrix: 2,
            is_full_range: false,
        };
        let number = |value: c_int| usize::try_from(value).map_err(|_| Failure::Damaged);
        new.width = number(new.picture.p.w)?;
        new.height = number(new.picture.p.h)?;
        new.bits = u8::try_from(new.picture.p.bpc).map_err(|_| Failure::Damaged)?;
        new.layout = match new.picture.p.layout {
            DAV1D_PIXEL_LAYOUT_I400 => Layout::Gray,
            DAV1D_PIXEL_LAYOUT_I420 => Layout::Yuv420,
            DAV1D_PIXEL_LAYOUT_I422 => Layout::Yuv422,
            DAV1D_PIXEL_LAYOUT_I444 => Layout::Yuv444,
            _ => return Err(Failure::Damaged),
        };
        let header = new.picture.seq_hdr.ok_or(Failure::Damaged)?;
        // SAFETY: the picture holds a reference to its sequence header.
        let header = unsafe { header.as_ref() };
        (new.primaries, new.matrix) = (header.pri as u8, header.mtrx as u8);
        new.is_full_range = header.color_range != 0;
        Ok(new)
    }

    /// Columns of luma.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows of luma.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Which planes there are.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Bits of a sample: 8, 10 or 12. Above 8 a sample is two bytes, in the order of this machine.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Color primaries by their number in ITU-T H.273.
    pub fn primaries(&self) -> u8 {
        self.primaries
    }

    /// Matrix coefficients by their number in ITU-T H.273.
    pub fn matrix(&self) -> u8 {
        self.matrix
    }

    /// Whether samples use all values.
    pub fn is_full_range(&self) -> bool {
        self.is_full_range
    }

    /// The bytes of a row of plane 0 (luma), 1 or 2 (chroma), without what is after its last column.
    ///
    /// # Panics
    /// There is no such plane or row.
    pub fn row(&self, plane: usize, row: usize) -> &[u8] {
        let (width, height) = match plane {
            0 => (self.width, self.height),
            _ => self.layout.chroma_sides(self.width, self.height),
        };
        assert!(row < height, "row {row} of {height}");
        let start: NonNull<u8> = self.picture.data[plane].expect("a plane of the layout").cast();
        let stride = self.picture.stride[usize::from(plane > 0)];
        let offset = isize::try_from(row).expect("few rows") * stride;
        let len = width << usize::from(self.bits > 8);
        // SAFETY: our allocator made the plane: at least as many rows, each of the stride, which holds the columns. Nobody writes to it.
        unsafe { std::slice::from_raw_parts(start.as_ptr().offset(offset), len) }
    }
}

impl Drop for Picture {
    fn drop(&mut self) {
        // SAFETY: the picture is from `dav1d_get_picture`, and is not used any more.
        unsafe { dav1d_picture_unref(Some(NonNull::from(&mut self.picture))) };
    }
}
