//! Texts, in the encoding of the database on one side and in UTF-8 on the other.

use super::metadata;
use crate::encoding;
use crate::error::{Code, Report};
use pgrx::Array;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, FromDatum, IntoDatum, UnboxDatum};
use pgrx::pg_sys;
use std::borrow::Cow;
use std::ffi::CString;

/// A `text` argument, also as UTF-8, whatever the encoding of the database.
pub struct Text<'a> {
    stored: &'a [u8],
    utf8: Cow<'a, str>,
}

impl Text<'_> {
    pub fn as_str(&self) -> &str {
        &self.utf8
    }

    /// The array of texts that this one spells, as the server reads a literal of that type.
    pub fn to_array(&self) -> Array<'_, Text<'_>> {
        let literal = CString::new(self.stored).expect("a text of the server holds no NUL");
        let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        // SAFETY: plain calls into the server; the literal lives until they are done, and what they return is an array of
        // texts in the caller's memory context.
        let array = unsafe {
            pg_sys::getTypeInputInfo(pg_sys::TEXTARRAYOID, &raw mut input, &raw mut parameter);
            let datum = pg_sys::OidInputFunctionCall(input, literal.as_ptr().cast_mut(), parameter, -1);
            Array::from_polymorphic_datum(datum, false, pg_sys::TEXTARRAYOID)
        };
        array.expect("an array is not NULL")
    }

    /// The same text to return.
    pub fn to_new(&self) -> NewText {
        NewText(self.stored.to_vec())
    }
}

impl AsRef<[u8]> for Text<'_> {
    fn as_ref(&self) -> &[u8] {
        self.utf8.as_bytes()
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
    encoding::to_utf8(bytes).unwrap_or_else(|| {
        Report::new(Code::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, "text cannot be read as UTF-8")
            .detail("Encoders read UTF-8, and the database's encoding does not say how to convert this text.")
            .hint("Use a database with encoding UTF8.")
            .raise()
    })
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
    /// A text that is told: characters that the database cannot encode become question marks.
    pub fn from_utf8(text: &str) -> Self {
        Self(encoding::from_utf8_lossy(text).into_owned())
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
