//! Messages for the errors of `crates/vector`.

use super::{Code, Report};
use crate::encoding;
use imgvec_vector::arithmetic::RangeError;
use imgvec_vector::text::{Syntax, TextError};
use imgvec_vector::wire::WireError;
use imgvec_vector::{DimError, MAX_DIM};

/// What errors call a type of vectors, and say of it.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    pub name: &'static str,
    elements: &'static str,
    /// An element in a binary message.
    wire: &'static str,
}

pub const IMGVEC: Words =
    Words { name: "imgvec", elements: "single-precision numbers", wire: "each element as float4" };
pub const IMGHALF: Words = Words {
    name: "imghalf",
    elements: "half-precision numbers, 65504 at most",
    wire: "the 16 bits of each element",
};

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
                .detail(format!("A vector has 1 to {MAX_DIM} elements."))
                .hint("Use an embedding with fewer dimensions, or split it."),
        }
    }
}

impl Words {
    fn precision(self) -> String {
        format!("Elements of an {} are {}.", self.name, self.elements)
    }

    fn no_such_number(self) -> Report {
        Report::new(
            Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!("NaN and infinity are not allowed in an {}", self.name),
        )
    }

    /// A result that is no element.
    pub fn out_of_scale(self, error: RangeError) -> Report {
        Report::new(Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, error.to_string())
            .detail(self.precision())
            .hint(SCALE)
    }

    /// A message that is no vector.
    pub fn bad_message(self, error: WireError) -> Report {
        match error {
            WireError::Dim(error) => error.into(),
            WireError::NotFinite(index) => self.not_finite(index),
            WireError::NoHeader(_) | WireError::Unused(_) | WireError::Length { .. } => Report::new(
                Code::ERRCODE_INVALID_BINARY_REPRESENTATION,
                format!("invalid binary representation of an {}", self.name),
            )
            .detail(capitalize(&error.to_string()))
            .hint(format!(
                "Send the number of dimensions and a zero as 16-bit integers, then {}.",
                self.wire
            )),
        }
    }

    /// An element, by 0-based position, that is NaN or infinite.
    pub fn not_finite(self, index: usize) -> Report {
        self.no_such_number().detail(format!("Element {} is not finite.", index + 1)).hint(FINITE)
    }

    /// A number that no vector can be multiplied with.
    pub fn factor_not_finite(self, factor: f64) -> Report {
        self.no_such_number()
            .detail(format!("The factor is {factor}."))
            .hint("Multiply with a finite number.")
    }

    /// An element, by 0-based position, that the type cannot hold.
    pub fn out_of_range(self, index: usize) -> Report {
        Report::new(
            Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
            format!("element {} is out of range for type {}", index + 1, self.name),
        )
        .detail(self.precision())
        .hint("Scale the numbers first.")
    }

    /// Text that is no vector, with the text.
    pub fn bad_text(self, error: TextError, text: &[u8]) -> Report {
        let (name, literal) = (self.name, shorten(text));
        match error {
            TextError::Dim(error) => error.into(),
            TextError::NotFinite(element) => {
                self.no_such_number().detail(format!("An element is \"{element}\".")).hint(FINITE)
            }
            TextError::OutOfRange(element) => Report::new(
                Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
                format!("\"{element}\" is out of range for type {name}"),
            )
            .detail(self.precision())
            .hint("Scale the numbers first."),
            TextError::Syntax(what) => Report::new(
                Code::ERRCODE_INVALID_TEXT_REPRESENTATION,
                format!("invalid input syntax for type {name}: \"{literal}\""),
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
    pub fn different_dims(self, left: usize, right: usize) -> Report {
        Report::new(
            Code::ERRCODE_DATA_EXCEPTION,
            format!("different {} dimensions {left} and {right}", self.name),
        )
        .detail("Vectors are compared and combined element by element.")
        .hint("Only vectors of the same model, with the same number of dimensions, can be compared.")
    }

    /// A bad type modifier, with what is wrong.
    pub fn bad_typmod(self, what: &str) -> Report {
        let name = self.name;
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, what)
            .hint(format!("Write the number of dimensions, 1 to {MAX_DIM}, as in {name}(512)."))
    }
}

/// An element, by 0-based position, that a half-precision number cannot hold.
pub fn out_of_half_range(index: usize, element: f32) -> Report {
    Report::new(
        Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        format!("element {} is out of range for half precision", index + 1),
    )
    .detail(format!("It is {element}; the largest half-precision number is 65504."))
    .hint("Scale the vector first, for example with l2_normalize().")
}

/// Weights of vectors that cannot be added up.
pub fn weights_out_of_range() -> Report {
    Report::new(Code::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "the weights together are out of range")
        .detail("Their magnitudes are added in double precision.")
        .hint("Divide all weights by the same number, which does not change the result.")
}

/// Two vectors of type imgvec that cannot be compared or combined.
pub fn different_dims(left: usize, right: usize) -> Report {
    IMGVEC.different_dims(left, right)
}

/// A vector that does not fit its column.
pub fn unexpected_dims(expected: i32, found: usize) -> Report {
    Report::new(Code::ERRCODE_DATA_EXCEPTION, format!("expected {expected} dimensions, not {found}"))
        .detail(format!("The type of the column or cast is declared with ({expected})."))
        .hint(format!("Declare it with ({found}), or embed with a model of {expected} dimensions."))
}

/// Stored bytes that are not a vector.
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
