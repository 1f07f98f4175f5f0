//! The text format `[1,2.5,-3e10]`, as pgvector reads and writes it.
//!
//! White space is allowed around brackets, commas and elements; an element is a decimal floating-point
//! number. A decimal too small for f32 is a zero or subnormal, one too large an error.

use crate::dim::{Dim, DimError, MAX_DIM};

/// Text that is no vector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The syntax is wrong; says how.
    #[error("invalid input syntax")]
    Syntax(Syntax),
    /// `NaN` or an infinity was spelled out.
    #[error("\"{0}\" is not allowed in a vector")]
    NotFinite(String),
    /// A finite decimal beyond f32.
    #[error("\"{0}\" is out of range")]
    OutOfRange(String),
    /// Too few or too many elements.
    #[error(transparent)]
    Dim(#[from] DimError),
}

/// What is wrong with the syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// The first character is not `[`.
    NoOpeningBracket,
    /// No `]` closes the vector.
    NoClosingBracket,
    /// Something follows the `]`.
    TrailingJunk,
    /// A 1-based element is not a number.
    NotANumber(usize),
}

/// How much of a bad element an error repeats.
const MAX_QUOTED_BYTES: usize = 40;

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn quoted(element: &[u8]) -> String {
    let cut = &element[..element.len().min(MAX_QUOTED_BYTES)];
    String::from_utf8_lossy(cut).into_owned()
}

/// Parses a vector. Work is bounded by the first [`MAX_DIM`]` + 1` elements.
///
/// # Errors
/// [`TextError`].
pub fn parse(text: &[u8]) -> Result<Vec<f32>, TextError> {
    let syntax = |what| Err(TextError::Syntax(what));
    let text = trim_start(text);
    let Some(mut rest) = text.strip_prefix(b"[") else {
        return syntax(Syntax::NoOpeningBracket);
    };
    if trim_start(rest).first() == Some(&b']') {
        return Err(DimError::Empty.into());
    }
    let mut elements = Vec::new();
    loop {
        if elements.len() == MAX_DIM {
            return Err(DimError::TooMany.into());
        }
        let Some(end) = rest.iter().position(|byte| matches!(byte, b',' | b']')) else {
            return syntax(Syntax::NoClosingBracket);
        };
        let element = trim(&rest[..end]);
        elements.push(parse_element(element, elements.len() + 1)?);
        let closed = rest[end] == b']';
        rest = &rest[end + 1..];
        if closed {
            break;
        }
    }
    if !rest.iter().copied().all(is_space) {
        return syntax(Syntax::TrailingJunk);
    }
    Dim::new(elements.len())?;
    Ok(elements)
}

fn parse_element(element: &[u8], position: usize) -> Result<f32, TextError> {
    let not_a_number = TextError::Syntax(Syntax::NotANumber(position));
    // Rust also reads "infinity" and "nan", which are answered by name, and nothing else that
    // PostgreSQL's float4 would refuse.
    let Ok(text) = std::str::from_utf8(element) else {
        return Err(not_a_number);
    };
    let Ok(value) = text.parse::<f32>() else {
        return Err(not_a_number);
    };
    if value.is_finite() {
        Ok(value)
    } else if element.iter().any(u8::is_ascii_digit) {
        Err(TextError::OutOfRange(quoted(element)))
    } else {
        Err(TextError::NotFinite(quoted(element)))
    }
}

/// Vertical tab is white space too, as for the server's scanner.
fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&byte| !is_space(byte)).unwrap_or(bytes.len());
    &bytes[start..]
}

fn trim(bytes: &[u8]) -> &[u8] {
    let bytes = trim_start(bytes);
    let end = bytes.iter().rposition(|&byte| !is_space(byte)).map_or(0, |last| last + 1);
    &bytes[..end]
}

/// Appends the text of `elements` to `out`; `element` writes one number in the shortest form that
/// reads back the same.
pub fn format(elements: &[f32], out: &mut Vec<u8>, mut element: impl FnMut(f32, &mut Vec<u8>)) {
    out.push(b'[');
    for (i, &value) in elements.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        element(value, out);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ok(text: &str) -> Vec<f32> {
        parse(text.as_bytes()).unwrap()
    }

    fn err(text: &str) -> TextError {
        parse(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn accepts_what_pgvector_accepts() {
        assert_eq!(ok("[1,2,3]"), [1.0, 2.0, 3.0]);
        assert_eq!(ok(" [ 1 ,\t2\n, 3 ] "), [1.0, 2.0, 3.0]);
        assert_eq!(ok("[-1e10,.5,5.,+7]"), [-1e10, 0.5, 5.0, 7.0]);
        assert_eq!(ok("[1e-46]"), [0.0]);
        assert_eq!(ok("[-0]")[0].to_bits(), (-0.0f32).to_bits());
    }

    #[test]
    fn says_what_is_wrong() {
        use Syntax::{NoClosingBracket, NoOpeningBracket, NotANumber, TrailingJunk};
        for (text, what) in [
            ("", NoOpeningBracket),
            ("1,2", NoOpeningBracket),
            ("{1,2}", NoOpeningBracket),
            ("[", NoClosingBracket),
            ("[1,2", NoClosingBracket),
            ("[1,2]x", TrailingJunk),
            ("[1][2]", TrailingJunk),
            ("[1,,2]", NotANumber(2)),
            ("[1,]", NotANumber(2)),
            ("[,1]", NotANumber(1)),
            ("[1 2]", NotANumber(1)),
            ("[a]", NotANumber(1)),
            ("[0x1p3]", NotANumber(1)),
            ("[1e]", NotANumber(1)),
        ] {
            assert_eq!(err(text), TextError::Syntax(what), "{text}");
        }
        assert_eq!(err("[]"), TextError::Dim(DimError::Empty));
        assert_eq!(err("[ ]"), TextError::Dim(DimError::Empty));
        assert_eq!(err("[NaN]"), TextError::NotFinite("NaN".into()));
        assert_eq!(err("[-Infinity]"), TextError::NotFinite("-Infinity".into()));
        assert_eq!(err("[4e38]"), TextError::OutOfRange("4e38".into()));
        assert_eq!(parse(b"[\xff]"), Err(TextError::Syntax(NotANumber(1))));
    }

    #[test]
    fn the_number_of_elements_is_bounded() {
        let text = format!("[{}1]", "1,".repeat(MAX_DIM - 1));
        assert_eq!(ok(&text).len(), MAX_DIM);
        assert_eq!(err(&format!("[{}1]", "1,".repeat(MAX_DIM))), TextError::Dim(DimError::TooMany));
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in "[\\[\\], 0-9eE+.naif-]{0,60}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn what_is_written_reads_back(elements in proptest::collection::vec(
            any::<f32>().prop_filter("finite", |x| x.is_finite()), 1..20)) {
            let mut out = Vec::new();
            format(&elements, &mut out, |x, out| out.extend_from_slice(format!("{x:e}").as_bytes()));
            let back = parse(&out).unwrap();
            prop_assert!(elements.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
