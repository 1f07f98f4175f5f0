//! Texts between the database's encoding and UTF-8, which is all that Rust and the encoders know.
//!
//! Two manners. What is data is converted exactly, or the server's own error is raised. What is told about data, such as
//! an error that quotes input, never fails: a character that the other side lacks becomes a question mark.

use pgrx::pg_sys;
use std::borrow::Cow;
use std::ffi::CStr;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;

/// Bytes that are no text of the database, such as any beyond ASCII in a SQL_ASCII database, pass through UTF-8 as
/// private characters: this number plus the byte.
const PRIVATE: u32 = 0x10_ff00;

/// As the server bounds it: a conversion gives at most so many bytes for one.
const MAX_GROWTH: usize = 4;

fn database_encoding() -> i32 {
    // SAFETY: plain read of a server setting.
    unsafe { pg_sys::GetDatabaseEncoding() }
}

/// Whether the database's encoding is Rust's.
pub fn is_utf8() -> bool {
    database_encoding() == UTF8
}

/// A text of the database in UTF-8; `None` if its encoding does not tell how to convert it. Raises the server's error
/// for a character that UTF-8 lacks.
pub fn to_utf8(bytes: &[u8]) -> Option<Cow<'_, str>> {
    if bytes.is_ascii() || database_encoding() == UTF8 {
        return std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
    }
    let length = i32::try_from(bytes.len()).expect("a text value is below 1 GB");
    // SAFETY: `bytes` is readable for its length; the answer is the same pointer or a copy that ends with a zero.
    let converted = unsafe {
        let converted = pg_sys::pg_server_to_any(bytes.as_ptr().cast(), length, UTF8);
        if converted.cast_const().cast() == bytes.as_ptr() {
            bytes.to_vec()
        } else {
            CStr::from_ptr(converted).to_bytes().to_vec()
        }
    };
    String::from_utf8(converted).ok().map(Cow::Owned)
}

/// A text of the database in UTF-8, to be told. See the head of this file.
pub fn to_utf8_lossy(bytes: &[u8]) -> Cow<'_, str> {
    let encoding = database_encoding();
    if bytes.is_ascii() || encoding == UTF8 {
        return String::from_utf8_lossy(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let carry = |unknown: &[u8], out: &mut Vec<u8>| {
        for &byte in unknown {
            let carried = if byte.is_ascii() { None } else { char::from_u32(PRIVATE + u32::from(byte)) };
            let carried = carried.unwrap_or(char::from(byte));
            out.extend_from_slice(carried.encode_utf8(&mut [0; 4]).as_bytes());
        }
    };
    if encoding == SQL_ASCII {
        for chunk in bytes.utf8_chunks() {
            out.extend_from_slice(chunk.valid().as_bytes());
            carry(chunk.invalid(), &mut out);
        }
    } else {
        convert_lossy(bytes, encoding, UTF8, &mut out, |rest, out| {
            // SAFETY: reads no further than the character's length, which its first byte determines; texts of the server end with a zero.
            let length = unsafe { pg_sys::pg_encoding_mblen(encoding, rest.as_ptr().cast()) };
            let length = usize::try_from(length).unwrap_or(1).clamp(1, rest.len());
            carry(&rest[..length], out);
            length
        });
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// A text to be told, in the database's encoding. See the head of this file.
pub fn from_utf8_lossy(text: &str) -> Cow<'_, [u8]> {
    let encoding = database_encoding();
    if text.is_ascii() || encoding == UTF8 {
        return Cow::Borrowed(text.as_bytes());
    }
    let carried = |character: char| {
        let byte = u32::from(character).checked_sub(PRIVATE).and_then(|byte| u8::try_from(byte).ok());
        byte.filter(|byte| !byte.is_ascii())
    };
    let mut out = Vec::with_capacity(text.len());
    if encoding == SQL_ASCII {
        for character in text.chars() {
            match carried(character) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    } else {
        convert_lossy(text.as_bytes(), UTF8, encoding, &mut out, |rest, out| {
            // Conversions stop between characters.
            let first = rest.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
            out.push(first.and_then(carried).unwrap_or(b'?'));
            first.map_or(1, char::len_utf8)
        });
    }
    Cow::Owned(out)
}

/// Appends what can be converted; `replace` appends something for the first character of what it gets, and says how
/// many bytes that has.
fn convert_lossy(
    bytes: &[u8],
    from: i32,
    to: i32,
    out: &mut Vec<u8>,
    replace: impl Fn(&[u8], &mut Vec<u8>) -> usize,
) {
    // SAFETY: looks into the catalogs, which only a transaction may.
    let conversion = unsafe {
        if pg_sys::IsTransactionState() {
            pg_sys::FindDefaultConversionProc(from, to)
        } else {
            pg_sys::InvalidOid
        }
    };
    let mut rest = bytes;
    while !rest.is_empty() {
        let done = if conversion == pg_sys::InvalidOid {
            let ascii = rest.iter().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..ascii]);
            ascii
        } else {
            convert_prefix(conversion, rest, from, to, out)
        };
        rest = &rest[done..];
        if !rest.is_empty() {
            rest = &rest[replace(rest, out)..];
        }
    }
}

/// Appends the converted bytes up to the first that cannot be; answers how many those were.
fn convert_prefix(conversion: pg_sys::Oid, bytes: &[u8], from: i32, to: i32, out: &mut Vec<u8>) -> usize {
    // The conversion reads a zero as the end, and writes one.
    let mut source = bytes.to_vec();
    source.push(0);
    let mut target = vec![0u8; bytes.len() * MAX_GROWTH + 1];
    let length = i32::try_from(bytes.len()).expect("what is told is short");
    let room = i32::try_from(target.len()).expect("what is told is short");
    // SAFETY: both buffers have the lengths that are told; with `no error` the conversion stops before what it cannot do.
    let done = unsafe {
        pg_sys::pg_do_encoding_conversion_buf(
            conversion,
            from,
            to,
            source.as_mut_ptr(),
            length,
            target.as_mut_ptr(),
            room,
            true,
        )
    };
    let written = target.iter().position(|&byte| byte == 0).unwrap_or(target.len());
    out.extend_from_slice(&target[..written]);
    usize::try_from(done).unwrap_or(0).min(bytes.len())
}
