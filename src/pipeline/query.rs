//! Names as SQL of ours writes them. Statements run with the path `pg_catalog, pg_temp`.

use crate::server::spi;

pub use spi::{literal, quoted};

/// A relation by schema and name.
pub fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

/// An operator by schema and name.
pub fn operator(schema: &str, name: &str) -> String {
    format!("OPERATOR({}.{name})", quoted(schema))
}

/// The array constant of these texts.
pub fn array<'a>(values: impl Iterator<Item = &'a str>, element: &str) -> String {
    let quoted: Vec<String> = values.map(|value| format!("\"{value}\"")).collect();
    format!("'{{{}}}'::{element}[]", quoted.join(","))
}

/// A name of at most 63 bytes: the start of `stem`, and `ending`. A name that had to be cut ends in a part of its digest, so
/// that two of them differ.
pub fn name(stem: &str, ending: &str) -> String {
    const LONGEST: usize = 63;
    if stem.len() + ending.len() <= LONGEST {
        return format!("{stem}{ending}");
    }
    let digest = blake3::hash(stem.as_bytes()).to_hex();
    let ending = format!("_{}{ending}", &digest[..8]);
    let mut end = LONGEST - ending.len();
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{ending}", &stem[..end])
}
