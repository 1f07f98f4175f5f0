//! Texts, in the encoding of the database on one side and in UTF-8 on the other.

use super::metadata;
use crate::error::{Code, Report};
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, FromDatum, IntoDatum, UnboxDatum};
use pgrx::pg_sys;
use std::borrow::Cow;

/// A `text` argument, also as UTF-8, whatever the encoding of the database.
pub struct Text<'a> {
    stored: &'a [u8],
    utf8: Cow<'a, str>,
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        &self.utf8
    }

    /// The same text to return.
    pub fn to_new(&self) -> NewText {
        NewText(self.stored.to_vec())
    }
}

impl FromDatum for Text<'_> {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, oid: pg_sys::Oid) -> Option<Self> {
        // SAFETY: text and bytea have one layout; the caller vouches for text.
        let stored = unsafe { <&[u8]>::from_polymorphic_datum(datum, is_null, oid)? };
        Some(Text { stored, utf8: to_utf8(stored) })
    }
}

fn to_utf8(bytes: &[u8]) -> Cow<'_, str> {
    // A UTF-8 database holds nothing else, and SQL_ASCII promises nothing.
    if let Ok(text) = std::str::from_utf8(bytes)
        // SAFETY: plain read of a server setting.
        && (unsafe { pg_sys::GetDatabaseEncoding() } == pg_sys::pg_enc::PG_UTF8 as i32 || text.is_ascii())
    {
        return Cow::Borrowed(text);
    }
    let length = i32::try_from(bytes.len()).expect("a text value is below 1 GB");
    // SAFETY: `bytes` is readable for `length`; the result is either `bytes` itself or a NUL-terminated copy.
    let converted = unsafe {
        let converted =
            pg_sys::pg_server_to_any(bytes.as_ptr().cast(), length, pg_sys::pg_enc::PG_UTF8 as i32);
        if converted.cast_const().cast() == bytes.as_ptr() {
            bytes.to_vec()
        } else {
            std::ffi::CStr::from_ptr(converted).to_bytes().to_vec()
        }
    };
    match String::from_utf8(converted) {
        Ok(text) => Cow::Owned(text),
        Err(_) => Report::new(Code::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, "text cannot be read as UTF-8")
            .detail("Encoders read UTF-8, and the database's encoding does not say how to convert this text.")
            .hint("Use a database with encoding UTF8.")
            .raise(),
    }
}

// SAFETY: the argument is text, by the SQL declaration.
unsafe impl<'fcx> ArgAbi<'fcx> for Text<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above; STRICT functions get no NULL.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("a strict function gets no NULL")
    }
}

// SAFETY: array elements of type text.
unsafe impl UnboxDatum for Text<'_> {
    type As<'src>
        = Text<'src>
    where
        Self: 'src;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Text<'src>
    where
        Self: 'src,
    {
        // SAFETY: the caller vouches for the type and that the datum is not NULL.
        unsafe { Text::from_datum(datum.sans_lifetime(), false) }.expect("the element is not NULL")
    }
}

sql_name!(Text<'_>, "text");

/// A `text` value to return, in the encoding of the database.
pub struct NewText(Vec<u8>);

impl NewText {
    /// From text that may hold any character: what the database cannot encode is an error there.
    pub fn from_utf8(text: &str) -> Self {
        let length = i32::try_from(text.len()).expect("messages are short");
        // SAFETY: `text` is readable for `length`; the result is either `text` itself or a NUL-terminated copy.
        unsafe {
            let converted =
                pg_sys::pg_any_to_server(text.as_ptr().cast(), length, pg_sys::pg_enc::PG_UTF8 as i32);
            if converted.cast_const().cast() == text.as_ptr() {
                Self(text.as_bytes().to_vec())
            } else {
                Self(std::ffi::CStr::from_ptr(converted).to_bytes().to_vec())
            }
        }
    }
}

impl IntoDatum for NewText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        // text and bytea have one layout.
        self.0.as_slice().into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

// SAFETY: the datum points to a complete text in the caller's memory context.
unsafe impl BoxRet for NewText {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        let datum = self.into_datum().expect("never NULL");
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(datum) }
    }
}

sql_name!(NewText, "text");
