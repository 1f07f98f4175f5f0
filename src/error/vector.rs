//! Words for the errors of `crates/vector`.

use super::{Code, Report};
use crate::encoding;
use imgvec_vector::arithmetic::RangeError;
use imgvec_vector::text::{Syntax, TextError};
use imgvec_vector::wire::WireError;
use imgvec_vector::{DimError, MAX_DIM};

const SINGLE_PRECISION: &str = "Elements of an imgvec are single-precision numbers.";
const SCALE: &str = "Scale the vectors first, for example with l2_normalize().";
const FINITE: &str = "Supply finite numbers, or NULL for the whole vector.";

/// How much of a bad literal an error repeats.
const MAX_QUOTED_CHARS: usize = 60;

impl From<DimError> for Report {
    fn from(error: DimError) -> Self {
        let code = match error {
            DimError::Empty => Code::ERRCODE_DATA_EXCEPTION,
            DimError::TooMany => Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        };
        let report = Self::new(code, error.to_string());
        match error {
            DimError::Empty => report
                .detail("The value has no elements.")
                .hint("Write a vector as its elements in brackets, such as [1,2,3]."),
            DimError::TooMany => report
                .detail(format!("An imgvec has 1 to {MAX_DIM} elements."))
                .hint("Use an embedding with fewer dimensions, or split it."),
        }
    }
}

impl From<RangeError> for Report {
    fn from(error: RangeError) -> Self {
        Self::new(Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, error.to_string())
            .detail(SINGLE_PRECISION)
            .hint(SCALE)
    }
}

impl From<WireError> for Report {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Dim(error) => error.into(),
            WireError::NotFinite(index) => not_finite(index),
            WireError::NoHeader(_) | WireError::Unused(_) | WireError::Length { .. } => Self::new(
                Code::ERRCODE_INVALID_BINARY_REPRESENTATION,
                "invalid binary representation of an imgvec",
            )
            .detail(capitalize(&error.to_string()))
            .hint(
                "Send the number of dimensions and a zero as 16-bit integers, then each element as float4.",
            ),
        }
    }
}

/// An element, by 0-based position, that is NaN or infinite.
pub fn not_finite(index: usize) -> Report {
    Report::new(Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "NaN and infinity are not allowed in an imgvec")
        .detail(format!("Element {} is not finite.", index + 1))
        .hint(FINITE)
}

/// A number that no vector can be multiplied with.
pub fn factor_not_finite(factor: f64) -> Report {
    Report::new(Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "NaN and infinity are not allowed in an imgvec")
        .detail(format!("The factor is {factor}."))
        .hint("Multiply with a finite number.")
}

/// An element, by 0-based position, that a single-precision number cannot hold.
pub fn out_of_range(index: usize) -> Report {
    Report::new(
        Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        format!("element {} is out of range for type imgvec", index + 1),
    )
    .detail(SINGLE_PRECISION)
    .hint("Scale the numbers first.")
}

/// An element, by 0-based position, that a half-precision number cannot hold.
pub fn out_of_half_range(index: usize, element: f32) -> Report {
    Report::new(
        Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        format!("element {} is out of range for type halfvec", index + 1),
    )
    .detail(format!("It is {element}; the largest half-precision number is 65504."))
    .hint("Scale the vector first, for example with l2_normalize().")
}

/// Text that is no vector, with the text.
pub fn bad_text(error: TextError, text: &[u8]) -> Report {
    let literal = shorten(text);
    match error {
        TextError::Dim(error) => error.into(),
        TextError::NotFinite(element) => Report::new(
            Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            "NaN and infinity are not allowed in an imgvec",
        )
        .detail(format!("An element is \"{element}\"."))
        .hint(FINITE),
        TextError::OutOfRange(element) => Report::new(
            Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!("\"{element}\" is out of range for type imgvec"),
        )
        .detail(SINGLE_PRECISION)
        .hint("Scale the numbers first."),
        TextError::Syntax(what) => Report::new(
            Code::ERRCODE_INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type imgvec: \"{literal}\""),
        )
        .detail(match what {
            Syntax::NoOpeningBracket => "The text must start with \"[\".".to_owned(),
            Syntax::NoClosingBracket => "The text must end with \"]\".".to_owned(),
            Syntax::TrailingJunk => "Extra characters follow the closing \"]\".".to_owned(),
            Syntax::NotANumber(position) => format!("Element {position} is not a number."),
        })
        .hint("Write a vector as its elements in brackets, such as [1,2,3]."),
    }
}

/// Two vectors that cannot be compared or combined.
pub fn different_dims(left: usize, right: usize) -> Report {
    Report::new(Code::ERRCODE_DATA_EXCEPTION, format!("different imgvec dimensions {left} and {right}"))
        .detail("Vectors are compared and combined element by element.")
        .hint("Only vectors of the same model, with the same number of dimensions, can be compared.")
}

/// A vector that does not fit its column.
pub fn unexpected_dims(expected: i32, found: usize) -> Report {
    Report::new(Code::ERRCODE_DATA_EXCEPTION, format!("expected {expected} dimensions, not {found}"))
        .detail(format!("The type of the column or cast is declared with ({expected})."))
        .hint(format!("Declare it with ({found}), or embed with a model of {expected} dimensions."))
}

/// A bad type modifier.
pub fn bad_typmod(what: &str) -> Report {
    Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, what)
        .hint(format!("Write the number of dimensions, 1 to {MAX_DIM}, as in imgvec(512)."))
}

/// Stored bytes that are no vector.
pub fn damaged_datum(type_name: &str, bytes: usize, dim: i16) -> Report {
    Report::new(Code::ERRCODE_DATA_CORRUPTED, format!("invalid {type_name} value"))
        .detail(format!("The value has {bytes} bytes, but its header states {dim} dimensions."))
        .hint("Restore the row from a backup.")
}

fn shorten(text: &[u8]) -> String {
    // A character has four bytes at most, also before it is converted.
    let cut = &text[..text.len().min(MAX_QUOTED_CHARS * 4 + 4)];
    let text = encoding::to_utf8_lossy(cut);
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}

fn capitalize(sentence: &str) -> String {
    let mut chars = sentence.chars();
    match chars.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), chars.as_str()),
        None => String::new(),
    }
}
