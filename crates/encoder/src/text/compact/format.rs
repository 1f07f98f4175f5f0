//! The file: a header, and sections of flat tables.
//!
//! All numbers are little-endian. Version 1 is frozen: what changes a byte or its meaning is another version.
//!
//! | offset | width | content |
//! |---|---|---|
//! | 0 | 8 | `imgvtok1` |
//! | 8 | 8 | length of the file |
//! | 16 | 32 | BLAKE3 over all bytes from offset 48 |
//! | 48 | 8 | number of tokens, `n` |
//! | 56 | 8 x 16 | sections: offset and length of each |
//! | 184 | | the sections, each at a multiple of 8 |
//!
//! | section | content |
//! |---|---|
//! | 0 | settings, JSON |
//! | 1 | texts of all tokens in the order of their ids, UTF-8 |
//! | 2 | `u32 [n + 1]`: where each begins in section 1, and the end |
//! | 3 | `u32 [2^k]`: ids by hash of the text plus one, 0 for a free place; collisions go to the next place |
//! | 4 | BPE: `u32 [n + 1]`, where the merges of each left token begin. Unigram: `f64 [n + 1]`, scores, and the least |
//! | 5 | BPE: `(right, rank, new) u32 [merges][3]`, sorted by left and right. Unigram: `u32 [nodes + 1]`, first child of each node |
//! | 6 | Unigram: `u8 [nodes]`, the byte that leads to each node |
//! | 7 | Unigram: `u32 [nodes]`, id of the token that ends there plus one, or 0 |
//!
//! Bytes from a disk are input: the checksum is proved on opening, and every access is checked all the same.

use std::ops::Range;

use thiserror::Error;

const MAGIC: &[u8; 8] = b"imgvtok1";
const SECTIONS: usize = 8;
const CHECKED_FROM: usize = 48;
const TABLE: usize = 56;
const HEADER: usize = TABLE + SECTIONS * 16;

pub(super) const SETTINGS: usize = 0;
pub(super) const TEXTS: usize = 1;
pub(super) const OFFSETS: usize = 2;
pub(super) const HASHES: usize = 3;
pub(super) const MERGE_STARTS: usize = 4;
pub(super) const SCORES: usize = 4;
pub(super) const MERGES: usize = 5;
pub(super) const TRIE_CHILDREN: usize = 5;
pub(super) const TRIE_BYTES: usize = 6;
pub(super) const TRIE_TOKENS: usize = 7;

/// Bytes of a file: mapped or in memory.
pub trait Bytes: AsRef<[u8]> + Send + Sync {}

impl<T: AsRef<[u8]> + Send + Sync> Bytes for T {}

/// Why a compact form cannot be used.
#[derive(Debug, Error)]
pub enum FormatError {
    /// The bytes are not what was written.
    #[error("the prepared tokenizer is damaged")]
    Damaged,
}

/// The sections of a file.
pub(super) struct Tables {
    bytes: Box<dyn Bytes>,
    sections: [Range<usize>; SECTIONS],
    pub tokens: usize,
}

impl Tables {
    pub fn open(bytes: Box<dyn Bytes>) -> Result<Self, FormatError> {
        let (sections, tokens) = check((*bytes).as_ref()).ok_or(FormatError::Damaged)?;
        Ok(Tables { bytes, sections, tokens })
    }

    pub fn section(&self, section: usize) -> &[u8] {
        (*self.bytes).as_ref().get(self.sections[section].clone()).unwrap_or_default()
    }

    /// Element `index` of a section of 32-bit numbers.
    pub fn number(&self, section: usize, index: usize) -> Option<u32> {
        let start = index.checked_mul(4)?;
        let bytes = self.section(section).get(start..start.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    /// Element `index` of a section of 64-bit floats.
    pub fn float(&self, section: usize, index: usize) -> Option<f64> {
        let start = index.checked_mul(8)?;
        let bytes = self.section(section).get(start..start.checked_add(8)?)?;
        Some(f64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }
}

/// Sections and number of tokens of a file, if it is whole.
fn check(bytes: &[u8]) -> Option<([Range<usize>; SECTIONS], usize)> {
    let number = |offset: usize| {
        let bytes = bytes.get(offset..offset + 8)?;
        usize::try_from(u64::from_le_bytes(bytes.try_into().expect("eight bytes"))).ok()
    };
    if bytes.get(..8)? != MAGIC || number(8)? != bytes.len() || bytes.len() < HEADER {
        return None;
    }
    if blake3::hash(bytes.get(CHECKED_FROM..)?).as_bytes() != bytes.get(16..48)? {
        return None;
    }
    let mut sections: [Range<usize>; SECTIONS] = Default::default();
    for (place, section) in sections.iter_mut().enumerate() {
        let (start, length) = (number(TABLE + place * 16)?, number(TABLE + place * 16 + 8)?);
        let end = start.checked_add(length)?;
        if end > bytes.len() {
            return None;
        }
        *section = start..end;
    }
    Some((sections, number(48)?))
}

/// The bytes of a file with these sections.
pub(super) fn assemble(tokens: usize, sections: [Vec<u8>; SECTIONS]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[48..56].copy_from_slice(&(tokens as u64).to_le_bytes());
    for (place, section) in sections.into_iter().enumerate() {
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let entry = TABLE + place * 16;
        let (start, length) = (bytes.len() as u64, section.len() as u64);
        bytes[entry..entry + 8].copy_from_slice(&start.to_le_bytes());
        bytes[entry + 8..entry + 16].copy_from_slice(&length.to_le_bytes());
        bytes.extend(section);
    }
    let length = bytes.len() as u64;
    bytes[8..16].copy_from_slice(&length.to_le_bytes());
    let hash = blake3::hash(&bytes[CHECKED_FROM..]);
    bytes[16..48].copy_from_slice(hash.as_bytes());
    bytes
}
