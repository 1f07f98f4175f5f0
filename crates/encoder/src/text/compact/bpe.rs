//! Byte pair encoding (Sennrich et al. 2016), as the tokenizer library does it.
//!
//! A word begins as its characters. The pair of neighbors that comes first in the list of merges becomes one token,
//! the leftmost where it occurs more than once, until no pair is in the list.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};
use tokenizers::Token;

use super::format::{FormatError, MERGE_STARTS, MERGES};
use super::vocabulary::Vocabulary;

#[derive(Serialize, Deserialize)]
pub(super) struct Options {
    pub unk_token: Option<String>,
    pub continuing_subword_prefix: Option<String>,
    pub end_of_word_suffix: Option<String>,
    pub fuse_unk: bool,
    pub byte_fallback: bool,
    pub ignore_merges: bool,
}

/// A token of the word, or what is left of one that was merged into its neighbor: length 0.
#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    bytes: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

#[derive(Default)]
struct Word(Vec<Symbol>);

impl Word {
    fn push(&mut self, id: u32, bytes: usize) {
        let place = self.0.len();
        if let Some(last) = self.0.last_mut() {
            last.next = Some(place);
        }
        self.0.push(Symbol { id, bytes, previous: place.checked_sub(1), next: None });
    }
}

pub(super) fn tokenize(
    options: &Options,
    vocabulary: &Vocabulary,
    sequence: &str,
) -> tokenizers::Result<Vec<Token>> {
    if sequence.is_empty() {
        return Ok(Vec::new());
    }
    if options.ignore_merges
        && let Some(id) = vocabulary.id(sequence)
    {
        return Ok(vec![Token::new(id, sequence.to_owned(), (0, sequence.len()))]);
    }
    let mut word = split(options, vocabulary, sequence)?;
    merge(vocabulary, &mut word);
    let mut start = 0;
    let mut tokens = Vec::new();
    for symbol in word.0.iter().filter(|symbol| symbol.bytes != 0) {
        let text = vocabulary.token(symbol.id).ok_or(FormatError::Damaged)?.to_owned();
        tokens.push(Token::new(symbol.id, text, (start, start + symbol.bytes)));
        start += symbol.bytes;
    }
    Ok(tokens)
}

/// The word as one token for each character, its bytes where it has none, or the unknown token.
fn split(options: &Options, vocabulary: &Vocabulary, sequence: &str) -> tokenizers::Result<Word> {
    let mut word = Word(Vec::with_capacity(sequence.len()));
    // Unknown characters that wait to become one token.
    let mut unknown: Option<(u32, usize)> = None;
    let mut text = String::new();
    for (start, letter) in sequence.char_indices() {
        let bytes = letter.len_utf8();
        text.clear();
        if let Some(prefix) = options.continuing_subword_prefix.as_deref().filter(|_| start > 0) {
            text.push_str(prefix);
        }
        text.push(letter);
        if let Some(suffix) =
            options.end_of_word_suffix.as_deref().filter(|_| start + bytes == sequence.len())
        {
            text.push_str(suffix);
        }
        if let Some(id) = vocabulary.id(&text) {
            if let Some((id, bytes)) = unknown.take() {
                word.push(id, bytes);
            }
            word.push(id, bytes);
            continue;
        }
        if options.byte_fallback {
            let ids: Option<Vec<u32>> =
                text.bytes().map(|byte| vocabulary.id(&format!("<0x{byte:02X}>"))).collect();
            if let Some(ids) = ids {
                // Unknown characters that wait come after these; so it is in the library.
                ids.into_iter().for_each(|id| word.push(id, 1));
                continue;
            }
        }
        if let Some(name) = &options.unk_token {
            unknown = match unknown {
                Some((id, waiting)) if options.fuse_unk => Some((id, waiting + bytes)),
                waiting => {
                    if let Some((id, bytes)) = waiting {
                        word.push(id, bytes);
                    }
                    let id = vocabulary.id(name);
                    Some((id.ok_or_else(|| format!("the unknown token \"{name}\" has no id"))?, bytes))
                }
            };
        }
    }
    if let Some((id, bytes)) = unknown {
        word.push(id, bytes);
    }
    Ok(word)
}

/// Rank and result of merging two tokens.
fn merge_of(vocabulary: &Vocabulary, left: u32, right: u32) -> Option<(u32, u32)> {
    let tables = &vocabulary.tables;
    let mut low = tables.number(MERGE_STARTS, left as usize)? as usize;
    let mut high = tables.number(MERGE_STARTS, left as usize + 1)? as usize;
    while low < high {
        let middle = low.midpoint(high);
        let found = tables.number(MERGES, middle * 3)?;
        if found == right {
            return Some((tables.number(MERGES, middle * 3 + 1)?, tables.number(MERGES, middle * 3 + 2)?));
        }
        if found < right { low = middle + 1 } else { high = middle }
    }
    None
}

fn merge(vocabulary: &Vocabulary, word: &mut Word) {
    let symbols = &mut word.0;
    // Rank, place of the left one, result.
    let mut queue: BinaryHeap<Reverse<(u32, usize, u32)>> = BinaryHeap::with_capacity(symbols.len());
    let wanted = |place: usize, left: u32, right: u32| {
        merge_of(vocabulary, left, right).map(|(rank, new)| Reverse((rank, place, new)))
    };
    queue.extend(
        symbols.windows(2).enumerate().filter_map(|(place, pair)| wanted(place, pair[0].id, pair[1].id)),
    );
    while let Some(Reverse((_, place, new))) = queue.pop() {
        let left = symbols[place];
        let Some(next) = left.next.filter(|_| left.bytes != 0) else { continue };
        let right = symbols[next];
        // The pair of when this was queued may be gone.
        if merge_of(vocabulary, left.id, right.id).is_none_or(|(_, now)| now != new) {
            continue;
        }
        symbols[place] = Symbol { id: new, bytes: left.bytes + right.bytes, next: right.next, ..left };
        symbols[next].bytes = 0;
        if let Some(after) = right.next {
            symbols[after].previous = Some(place);
            queue.extend(wanted(place, new, symbols[after].id));
        }
        if let Some(before) = left.previous {
            queue.extend(wanted(before, symbols[before].id, new));
        }
    }
}

/// The sections of merges, given as (left, right) to (rank, result), for `tokens` tokens.
pub(super) fn sections(
    merges: &std::collections::BTreeMap<(u32, u32), (u32, u32)>,
    tokens: usize,
) -> [Vec<u8>; 2] {
    let mut starts = vec![0_u32; tokens + 1];
    let mut rows = Vec::with_capacity(merges.len() * 12);
    for (&(left, right), &(rank, new)) in merges {
        starts[left as usize + 1] += 1;
        for number in [right, rank, new] {
            rows.extend(number.to_le_bytes());
        }
    }
    for token in 0..tokens {
        starts[token + 1] += starts[token];
    }
    [starts.iter().flat_map(|start| start.to_le_bytes()).collect(), rows]
}
