//! The text format `[1,2.5,-3e10]`, as pgvector reads and writes it.
//!
//! White space is allowed around brackets, commas and elements; an element is a floating-point number, decimal or
//! hexadecimal (`0x1.8p3`, as C writes it). A number too small for an element is a zero or subnormal, one too large an error.
//! As in pgvector, an element of half precision is rounded to single precision first.

use crate::dim::{Dim, DimError, MAX_DIM};
use crate::element::Element;

/// Text that is no vector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The syntax is wrong; says how.
    #[error("invalid input syntax")]
    Syntax(Syntax),
    /// `NaN` or an infinity was spelled out.
    #[error("\"{0}\" is not allowed in a vector")]
    NotFinite(String),
    /// A finite number beyond what an element can be.
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
pub fn parse<T: Element>(text: &[u8]) -> Result<Vec<T>, TextError> {
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

fn parse_element<T: Element>(element: &[u8], position: usize) -> Result<T, TextError> {
    let not_a_number = TextError::Syntax(Syntax::NotANumber(position));
    if is_nan_with_payload(element) {
        return Err(TextError::NotFinite(quoted(element)));
    }
    // Rust also reads "infinity" and "nan", which are answered by name, and nothing else that
    // PostgreSQL's float4 would refuse.
    let decimal = || std::str::from_utf8(element).ok()?.parse::<f32>().ok();
    let Some(value) = parse_hexadecimal(element).or_else(decimal) else {
        return Err(not_a_number);
    };
    let narrowed = T::from_f32(value);
    if narrowed.is_finite() {
        Ok(narrowed)
    } else if element.iter().any(u8::is_ascii_digit) {
        Err(TextError::OutOfRange(quoted(element)))
    } else {
        Err(TextError::NotFinite(quoted(element)))
    }
}

/// C's other spelling of NaN: `nan(1)`, with letters, digits and underscores, or nothing, in the parentheses.
fn is_nan_with_payload(element: &[u8]) -> bool {
    let unsigned = element.strip_prefix(b"+").or(element.strip_prefix(b"-")).unwrap_or(element);
    match unsigned.split_at_checked(4) {
        Some((head, tail)) if head.eq_ignore_ascii_case(b"nan(") => tail
            .strip_suffix(b")")
            .is_some_and(|payload| payload.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')),
        _ => false,
    }
}

/// A hexadecimal floating-point number of C, rounded to the nearest f32, ties to even; infinite if it is too large.
fn parse_hexadecimal(element: &[u8]) -> Option<f32> {
    let (sign, unsigned) = match element.split_first()? {
        (b'-', rest) => (-1.0, rest),
        (b'+', rest) => (1.0, rest),
        _ => (1.0, element),
    };
    let digits = unsigned.strip_prefix(b"0x").or(unsigned.strip_prefix(b"0X"))?;
    let end = digits.iter().position(|b| matches!(b, b'p' | b'P')).unwrap_or(digits.len());
    let (digits, exponent) = digits.split_at(end);
    let mut exponent = match exponent.split_first() {
        None => 0,
        Some((_, exponent)) => parse_exponent(exponent)?,
    };
    // The leading bits, few enough for an f64 to hold them; the last of them is set if any bit after is (round to odd),
    // which makes the rounding to f32 right, as that has fewer by more than two.
    let (mut bits, mut any, mut behind_point) = (0u64, false, false);
    for &byte in digits {
        if byte == b'.' && !behind_point {
            behind_point = true;
            continue;
        }
        let digit = u64::from(char::from(byte).to_digit(16)?);
        any = true;
        if bits >> 48 == 0 {
            bits = bits << 4 | digit;
            exponent -= 4 * i64::from(behind_point);
        } else {
            bits |= u64::from(digit != 0);
            exponent += 4 * i64::from(!behind_point);
        }
    }
    if !any {
        return None;
    }
    // f32 reaches from 2^-149 to 2^128; the bits are below 2^52.
    #[allow(clippy::cast_precision_loss, reason = "52 bits are exact")]
    let magnitude = match exponent {
        _ if bits == 0 => 0.0,
        201.. => f64::INFINITY,
        ..=-301 => 0.0,
        exponent => bits as f64 * 2f64.powi(i32::try_from(exponent).expect("small")),
    };
    #[allow(clippy::cast_possible_truncation, reason = "rounding is wanted")]
    Some((sign * magnitude) as f32)
}

/// Digits with a sign or none; a number that no f32 needs is cut.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    const MOST: i64 = 1 << 40;
    let (sign, digits) = match text.split_first()? {
        (b'-', rest) => (-1, rest),
        (b'+', rest) => (1, rest),
        _ => (1, text),
    };
    let value = digits.iter().try_fold(0i64, |value, &byte| {
        Some((value * 10 + i64::from(char::from(byte).to_digit(10)?)).min(MOST))
    })?;
    (!digits.is_empty()).then_some(sign * value)
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
pub fn format<T: Element>(elements: &[T], out: &mut Vec<u8>, mut element: impl FnMut(f32, &mut Vec<u8>)) {
    out.push(b'[');
    for (i, &value) in elements.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        element(value.to_f32(), out);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use proptest::prelude::*;

    fn parse(text: &[u8]) -> Result<Vec<f32>, TextError> {
        super::parse(text)
    }

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
            ("[0x]", NotANumber(1)),
            ("[0x.]", NotANumber(1)),
            ("[0x1p]", NotANumber(1)),
            ("[0x1p+]", NotANumber(1)),
            ("[0x1.2.3]", NotANumber(1)),
            ("[0xg]", NotANumber(1)),
            ("[x10]", NotANumber(1)),
            ("[nan(]", NotANumber(1)),
            ("[nan(1]", NotANumber(1)),
            ("[nan(-1)]", NotANumber(1)),
            ("[1e]", NotANumber(1)),
        ] {
            assert_eq!(err(text), TextError::Syntax(what), "{text}");
        }
        assert_eq!(err("[]"), TextError::Dim(DimError::Empty));
        assert_eq!(err("[ ]"), TextError::Dim(DimError::Empty));
        assert_eq!(err("[NaN]"), TextError::NotFinite("NaN".into()));
        assert_eq!(err("[-Infinity]"), TextError::NotFinite("-Infinity".into()));
        assert_eq!(err("[4e38]"), TextError::OutOfRange("4e38".into()));
        assert_eq!(err("[0x1p128]"), TextError::OutOfRange("0x1p128".into()));
        assert_eq!(err("[nan(1)]"), TextError::NotFinite("nan(1)".into()));
        assert_eq!(err("[-NaN()]"), TextError::NotFinite("-NaN()".into()));
        assert_eq!(parse(b"[\xff]"), Err(TextError::Syntax(NotANumber(1))));
    }

    #[test]
    fn hexadecimal_numbers_are_rounded_once() {
        assert_eq!(
            ok("[0x10,-0X1P+3,0x.8,0x1.8p-1,+0xAbC.,0x0p9999999999999]"),
            [16.0, -8.0, 0.5, 0.75, 2748.0, 0.0]
        );
        assert_eq!(ok("[0x1.fffffep127]"), [f32::MAX]);
        // Half of the last place rounds to even, anything more rounds up, however far after it stands.
        assert_eq!(
            ok("[0x1000001,0x1000003,0x1000001.00000000000000000000000001]"),
            [16_777_216.0, 16_777_220.0, 16_777_218.0]
        );
        assert_eq!(err("[0x1.ffffffp127]"), TextError::OutOfRange("0x1.ffffffp127".into()));
        assert_eq!(ok("[0x1p-149,0x1p-150,0x1.00000000000001p-150,-0x1p-9999]"), [1e-45, 0.0, 1e-45, 0.0]);
        assert_eq!(ok(&format!("[0x{}p-1200]", "1".repeat(300)))[0], 0.066_666_67);
        assert_eq!(ok(&format!("[0x.{}1p1200]", "0".repeat(300)))[0], 0.0625);
    }

    #[test]
    fn halves_are_rounded_and_have_a_range_of_their_own() {
        let halves = |text: &str| super::parse::<f16>(text.as_bytes());
        let ok = |text| halves(text).unwrap().into_iter().map(f16::to_f32).collect::<Vec<_>>();
        assert_eq!(ok("[0.1,65504,65519,-1e-8,1e-46]"), [0.099_975_586, 65504.0, 65504.0, -0.0, 0.0]);
        // Single precision comes first: the digit that would decide is lost.
        assert_eq!(ok("[2049.00001]"), [2048.0]);
        assert_eq!(halves("[1,65520]"), Err(TextError::OutOfRange("65520".into())));
        assert_eq!(halves("[4e38]"), Err(TextError::OutOfRange("4e38".into())));
        assert_eq!(halves("[0x1p16]"), Err(TextError::OutOfRange("0x1p16".into())));
        assert_eq!(halves("[-inf]"), Err(TextError::NotFinite("-inf".into())));
        assert_eq!(halves("[nan]"), Err(TextError::NotFinite("nan".into())));
        let mut out = Vec::new();
        format(&halves("[0.5,-2]").unwrap(), &mut out, |x, out| {
            out.extend_from_slice(x.to_string().as_bytes())
        });
        assert_eq!(out, b"[0.5,-2]");
    }

    #[test]
    fn the_number_of_elements_is_bounded() {
        let text = format!("[{}1]", "1,".repeat(MAX_DIM - 1));
        assert_eq!(ok(&text).len(), MAX_DIM);
        assert_eq!(err(&format!("[{}1]", "1,".repeat(MAX_DIM))), TextError::Dim(DimError::TooMany));
    }

    proptest! {
        #[test]
        fn random_text_never_panics(text in "[\\[\\], 0-9eEpPxX+.naif()-]{0,60}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn hexadecimal_numbers_are_what_they_say(value in any::<f32>().prop_filter("finite", |x| x.is_finite())) {
            let (bits, exponent) = (value.abs().to_bits() & 0x7f_ffff, value.abs().to_bits() >> 23);
            let (bits, exponent) = if exponent == 0 { (bits, -149) } else { (bits | 0x80_0000, exponent.cast_signed() - 150) };
            let sign = if value.is_sign_negative() { "-" } else { "" };
            let back = ok(&format!("[{sign}0x{bits:x}p{exponent}]"))[0];
            prop_assert_eq!(back.to_bits(), value.to_bits());
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
