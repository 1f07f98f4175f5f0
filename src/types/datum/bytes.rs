//! Bytes that come in: `bytea` values and binary messages.

use super::metadata;
use crate::error::{Code, Report};
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::{Datum, FromDatum, UnboxDatum};
use pgrx::{Internal, pg_sys};
use std::marker::PhantomData;

/// A `bytea` argument that is not fetched before its size is known.
pub struct Bytea<'a> {
    datum: pg_sys::Datum,
    lifetime: PhantomData<&'a [u8]>,
}

impl<'a> Bytea<'a> {
    /// Bytes when fetched, from the TOAST pointer alone.
    pub fn size(&self) -> usize {
        // SAFETY: the datum is a varlena; the answer includes a 4-byte header.
        unsafe { pg_sys::toast_raw_datum_size(self.datum) - size_of::<u32>() }
    }

    /// Fetches and decompresses the value.
    pub fn bytes(&self) -> &'a [u8] {
        // SAFETY: the datum is a varlena; a detoasted copy lives in the memory context of the call.
        unsafe { <&[u8]>::from_datum(self.datum, false) }.expect("not NULL")
    }
}

impl FromDatum for Bytea<'_> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then_some(Bytea { datum, lifetime: PhantomData })
    }
}

// SAFETY: the argument is bytea, by the SQL declaration.
unsafe impl<'fcx> ArgAbi<'fcx> for Bytea<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above; STRICT functions get no NULL.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("a strict function gets no NULL")
    }
}

// SAFETY: array elements of type bytea.
unsafe impl UnboxDatum for Bytea<'_> {
    type As<'src>
        = Bytea<'src>
    where
        Self: 'src;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Bytea<'src>
    where
        Self: 'src,
    {
        Bytea { datum: datum.sans_lifetime(), lifetime: PhantomData }
    }
}

sql_name!(Bytea<'_>, "bytea");

/// The rest of a binary message, from the StringInfo that a receive function gets; marks it as read.
pub fn take_message(mut message: Internal) -> Vec<u8> {
    // SAFETY: the server hands a receive function a StringInfo, with `cursor <= len` readable bytes.
    unsafe {
        let Some(info) = message.get_mut::<pg_sys::StringInfoData>() else {
            Report::new(Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, "no message to receive").raise();
        };
        let start = usize::try_from(info.cursor).expect("a cursor");
        let end = usize::try_from(info.len).expect("a length");
        info.cursor = info.len;
        std::slice::from_raw_parts(info.data.cast::<u8>(), end)[start..].to_vec()
    }
}
