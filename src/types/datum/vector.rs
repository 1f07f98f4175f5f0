//! Vectors: arguments, results and arrays of them.
//!
//! A vector on disk is a varlena, byte for byte pgvector's `vector` if it is an `imgvec`, and its `halfvec` if it is an
//! `imghalf`:
//!
//! | offset | width | type | meaning |
//! |---|---|---|---|
//! | 0 | 4 | varlena header | total bytes, `8 + 4 * dim` or `8 + 2 * dim` |
//! | 4 | 2 | i16 | number of dimensions, 1 to 16,000 |
//! | 6 | 2 | i16 | unused, 0 |
//! | 8 | 4 or 2 each | f32 or IEEE half precision, native order | elements, finite |

use super::metadata;
use crate::error::vector::{self, IMGHALF, IMGVEC, Words};
use crate::error::{Code, OrRaise, Report};
use half::f16;
use imgvec_vector::Dim;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, FromDatum, IntoDatum, UnboxDatum};
use pgrx::pg_sys;
use std::borrow::Cow;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

#[repr(C)]
struct Layout {
    varlena_header: u32,
    dim: i16,
    unused: i16,
}

const HEADER_BYTES: usize = size_of::<Layout>();
const _: () = assert!(HEADER_BYTES == 8 && align_of::<Layout>() == 4);

/// An element of a vector: any bits are a value of it, and 8 bytes into a varlena it is aligned.
pub trait Element: imgvec_vector::Element {
    /// How errors speak of vectors of such elements.
    const WORDS: Words;
}

impl Element for f32 {
    const WORDS: Words = IMGVEC;
}

/// Elements of an imghalf, and of pgvector's halfvec, which the extension imgvec_pgvector casts and indexes.
impl Element for f16 {
    const WORDS: Words = IMGHALF;
}

/// An argument of type imgvec (or imghalf, or one of pgvector's with the same bytes), detoasted. Frees its copy when dropped, so that comparisons inside a
/// sort do not pile up.
pub struct Vector<'a, T: Element = f32> {
    layout: NonNull<Layout>,
    is_copy: bool,
    datum: PhantomData<&'a T>,
}

impl<T: Element> Vector<'_, T> {
    /// The elements, all finite, 1 to 16,000.
    pub fn elements(&self) -> &[T] {
        // SAFETY: `from_polymorphic_datum` checked that the varlena holds `dim` elements after the header, and
        // the memory lives as long as self.
        unsafe {
            let layout = self.layout.as_ptr();
            let dim = usize::from((*layout).dim.unsigned_abs());
            std::slice::from_raw_parts(layout.add(1).cast(), dim)
        }
    }

    pub fn dim(&self) -> usize {
        self.elements().len()
    }

    /// The elements in single precision.
    pub fn widen(&self) -> Cow<'_, [f32]> {
        T::widen(self.elements())
    }
}

impl<T: Element> Drop for Vector<'_, T> {
    fn drop(&mut self) {
        if self.is_copy {
            // SAFETY: detoasting allocated the copy in the current memory context, which outlives the call.
            unsafe { pg_sys::pfree(self.layout.as_ptr().cast()) };
        }
    }
}

impl<T: Element> FromDatum for Vector<'_, T> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: as the caller vouches.
        unsafe { Opened::new(datum) }?.checked().into()
    }
}

/// A detoasted varlena that should be a vector.
struct Opened {
    layout: NonNull<Layout>,
    is_copy: bool,
    bytes: usize,
    /// 0 if it is too short to have any.
    dim: i16,
}

impl Opened {
    /// # Safety
    /// A varlena datum.
    unsafe fn new(datum: pg_sys::Datum) -> Option<Self> {
        let original = datum.cast_mut_ptr::<pg_sys::varlena>();
        // SAFETY: by contract; detoasting gives a 4-byte header, aligned. The dimension is read only after the length is
        // known to reach that far.
        unsafe {
            let detoasted = NonNull::new(pg_sys::pg_detoast_datum(original))?;
            let (layout, bytes) = (detoasted.cast::<Layout>(), pgrx::varsize_any(detoasted.as_ptr()));
            let dim = if bytes >= HEADER_BYTES { (*layout.as_ptr()).dim } else { 0 };
            Some(Self { layout, is_copy: detoasted.as_ptr() != original, bytes, dim })
        }
    }

    /// Whether it is a vector of such elements. It cannot be one of others too: their sizes differ at every dimension.
    fn is_of<T: Element>(&self) -> bool {
        let dim = usize::try_from(self.dim).ok().and_then(|dim| Dim::new(dim).ok());
        dim.map(size_of_vector::<T>) == Some(self.bytes)
    }

    /// The vector. Raises an error if its length is not what its dimensions take.
    fn checked<'a, T: Element>(self) -> Vector<'a, T> {
        if !self.is_of::<T>() {
            vector::damaged_datum(T::WORDS.name, self.bytes, self.dim).raise();
        }
        Vector { layout: self.layout, is_copy: self.is_copy, datum: PhantomData }
    }
}

/// A vector of either precision, where an operator takes both, distinguished by its length.
pub enum AnyVector<'a> {
    Single(Vector<'a>),
    Half(Vector<'a, f16>),
}

impl FromDatum for AnyVector<'_> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: as the caller vouches.
        let opened = unsafe { Opened::new(datum) }?;
        Some(if opened.is_of::<f16>() {
            Self::Half(opened.checked())
        } else {
            Self::Single(opened.checked())
        })
    }
}

// SAFETY: the argument is a vector of such elements, by the SQL declaration.
unsafe impl<'fcx, T: Element> ArgAbi<'fcx> for Vector<'fcx, T> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above; STRICT functions get no NULL.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("a strict function gets no NULL")
    }
}

// SAFETY: array elements of type imgvec are vectors.
unsafe impl UnboxDatum for Vector<'_> {
    type As<'src>
        = Vector<'src>
    where
        Self: 'src;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Vector<'src>
    where
        Self: 'src,
    {
        // SAFETY: the caller vouches for the type and that the datum is not NULL.
        unsafe { Vector::from_datum(datum.sans_lifetime(), false) }.expect("the element is not NULL")
    }
}

sql_name!(Vector<'_>, "imgvec");
sql_name!(Vector<'_, f16>, "imghalf");

fn size_of_vector<T: Element>(dim: Dim) -> usize {
    HEADER_BYTES + dim.get() * size_of::<T>()
}

/// A new vector in the current memory context, to be returned.
pub struct NewVector<T: Element = f32> {
    layout: NonNull<Layout>,
    elements: PhantomData<T>,
}

impl<T: Element> NewVector<T> {
    /// Zeroes, to be filled. Raises an error unless `1 <= dim <= 16000`.
    pub fn zeroed(dim: usize) -> Self {
        let dim = Dim::new(dim).or_raise();
        let bytes = size_of_vector::<T>(dim);
        // SAFETY: palloc0 raises an error rather than return NULL; the header is within `bytes`.
        unsafe {
            let layout = pg_sys::palloc0(bytes).cast::<Layout>();
            pgrx::set_varsize_4b(layout.cast(), i32::try_from(bytes).expect("64 kB at most"));
            (*layout).dim = i16::try_from(dim.get()).expect("16,000 at most");
            Self { layout: NonNull::new_unchecked(layout), elements: PhantomData }
        }
    }

    /// A copy of finite elements.
    pub fn from_slice(elements: &[T]) -> Self {
        let mut vector = Self::zeroed(elements.len());
        vector.elements_mut().copy_from_slice(elements);
        vector
    }

    pub fn elements_mut(&mut self) -> &mut [T] {
        // SAFETY: `zeroed` allocated `dim` elements after the header.
        unsafe {
            let layout = self.layout.as_ptr();
            let dim = usize::from((*layout).dim.unsigned_abs());
            std::slice::from_raw_parts_mut(layout.add(1).cast(), dim)
        }
    }

    /// The datum; it lives as long as the memory context it was made in.
    pub fn into_raw(self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.layout.as_ptr())
    }
}

impl<T: Element> IntoDatum for NewVector<T> {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.into_raw())
    }

    /// The extension's types have other numbers in each database; rows to return do not ask.
    fn type_oid() -> pg_sys::Oid {
        pg_sys::InvalidOid
    }
}

// SAFETY: the datum points to a complete varlena in the caller's memory context.
unsafe impl<T: Element> BoxRet for NewVector<T> {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.into_raw()) }
    }
}

sql_name!(NewVector, "imgvec");
sql_name!(NewVector<f16>, "imghalf");

/// A one-dimensional `imgvec[]` to return, filled from its first element to its last. All have the same
/// dimension, so that its size is known before anything is computed.
pub struct NewVectorArray {
    /// In the memory context of the call; whole when `filled` is the number of elements.
    array: NonNull<pg_sys::ArrayType>,
    count: usize,
    filled: usize,
    dim: Dim,
    /// Where the next vector goes, in bytes from the start.
    end: usize,
    bytes: usize,
}

impl NewVectorArray {
    /// An empty place for `count` elements, of which `nulls` are NULL.
    ///
    /// # Errors
    /// If the array is larger than a value can be.
    pub fn new(count: usize, nulls: usize, dim: usize) -> Result<Self, Report> {
        let dim = Dim::new(dim)?;
        let align = |bytes: usize| bytes.next_multiple_of(pg_sys::MAXIMUM_ALIGNOF as usize);
        let header = size_of::<pg_sys::ArrayType>() + 2 * size_of::<i32>();
        let bitmap = if nulls > 0 { count.div_ceil(8) } else { 0 };
        let data = align(header + bitmap);
        let vectors = (count - nulls).checked_mul(size_of_vector::<f32>(dim));
        let bytes = vectors.and_then(|vectors| vectors.checked_add(data));
        // MaxAllocSize of the server.
        let most = 0x3fff_ffff_usize;
        let Some(bytes) = bytes.filter(|&bytes| bytes <= most) else {
            let vectors = count - nulls;
            return Err(Report::new(
                Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                "too many embeddings for one array",
            )
            .detail(format!(
                "{vectors} vectors of {} dimensions take more than 1 GB, the limit of one value.",
                dim.get()
            ))
            .hint(format!(
                "Embed at most {} at a time, or one for each row.",
                (most - data) / size_of_vector::<f32>(dim)
            )));
        };
        let word = |bytes: usize| i32::try_from(bytes).expect("below 1 GB");
        // SAFETY: palloc0 gives `bytes` zeroed bytes, aligned for any type, or raises; header, dimension and
        // lower bound lie within.
        let array = unsafe {
            let array = NonNull::new(pg_sys::palloc0(bytes).cast::<pg_sys::ArrayType>()).expect("palloc0");
            let raw = array.as_ptr();
            pgrx::set_varsize_4b(raw.cast(), word(bytes));
            (*raw).ndim = i32::from(count > 0);
            (*raw).dataoffset = if nulls > 0 { word(data) } else { 0 };
            if count > 0 {
                let bounds = raw.add(1).cast::<i32>();
                bounds.write(word(count));
                bounds.add(1).write(1);
            }
            array
        };
        Ok(Self { array, count, filled: 0, dim, end: data, bytes })
    }

    /// Sets the next element. The vector has the dimension of the array.
    pub fn push(&mut self, vector: Option<&[f32]>) {
        assert!(self.filled < self.count, "more elements than were announced");
        let start = self.array.as_ptr().cast::<u8>();
        if let Some(elements) = vector {
            assert_eq!(elements.len(), self.dim.get(), "one dimension for all");
            let size = size_of_vector::<f32>(self.dim);
            assert!(self.end + size <= self.bytes, "more vectors than were announced");
            // SAFETY: the assertion keeps the vector within the array; the place is a multiple of four from
            // an aligned start, as all sizes before it are. The bitmap, if there is one, has a bit for it.
            unsafe {
                let layout = start.add(self.end).cast::<Layout>();
                pgrx::set_varsize_4b(layout.cast(), i32::try_from(size).expect("below 1 GB"));
                (*layout).dim = i16::try_from(elements.len()).expect("at most 16,000");
                (*layout).unused = 0;
                ptr::copy_nonoverlapping(elements.as_ptr(), layout.add(1).cast(), elements.len());
                if (*self.array.as_ptr()).dataoffset != 0 {
                    let bitmap = start.add(size_of::<pg_sys::ArrayType>() + 2 * size_of::<i32>());
                    *bitmap.add(self.filled / 8) |= 1 << (self.filled % 8);
                }
            }
            self.end += size;
        }
        self.filled += 1;
    }
}

impl NewVectorArray {
    /// The datum of a complete array, in the memory context that it was made in; `element` is the oid of type imgvec.
    pub fn into_raw(self, element: pg_sys::Oid) -> pg_sys::Datum {
        assert!(self.filled == self.count && self.end == self.bytes, "an unfinished array");
        // SAFETY: the array is ours.
        unsafe { (*self.array.as_ptr()).elemtype = element };
        pg_sys::Datum::from(self.array.as_ptr())
    }
}

// SAFETY: the array is complete, and its element type is set below.
unsafe impl BoxRet for NewVectorArray {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        assert!(
            self.filled == self.count && self.end == self.bytes || self.count == 0,
            "an unfinished array"
        );
        // SAFETY: fcinfo and flinfo are valid during the call. The element type is read from the function's
        // catalog row, so that it is right in any schema.
        unsafe {
            let function = (*(*fcinfo.as_mut_ptr()).flinfo).fn_oid;
            let element = pg_sys::get_element_type(pg_sys::get_func_rettype(function));
            if self.count == 0 {
                return fcinfo.return_raw_datum(pg_sys::Datum::from(pg_sys::construct_empty_array(element)));
            }
            (*self.array.as_ptr()).elemtype = element;
            fcinfo.return_raw_datum(pg_sys::Datum::from(self.array.as_ptr()))
        }
    }
}

sql_name!(NewVectorArray, "imgvec[]");
