//! The most probable segmentation (Kudo 2018), as the tokenizer library does it: Viterbi over the tokens that begin at
//! each character, where an unknown character costs ten more than the least probable token.

use serde::{Deserialize, Serialize};
use tokenizers::Token;

use super::format::{FormatError, SCORES, TRIE_BYTES, TRIE_CHILDREN, TRIE_TOKENS};
use super::vocabulary::Vocabulary;

const UNKNOWN_PENALTY: f64 = 10.0;

#[derive(Serialize, Deserialize)]
pub(super) struct Options {
    pub unk_id: Option<u32>,
    pub byte_fallback: bool,
}

/// The best way to a place in the text: the token that ends there and where it begins.
#[derive(Clone, Copy, Default)]
struct Best {
    score: f64,
    token: Option<(u32, usize)>,
}

impl Best {
    fn offer(&mut self, score: f64, id: u32, start: usize) {
        if self.token.is_none() || score > self.score {
            *self = Best { score, token: Some((id, start)) };
        }
    }
}

pub(super) fn tokenize(
    options: &Options,
    vocabulary: &Vocabulary,
    sentence: &str,
) -> tokenizers::Result<Vec<Token>> {
    let no_unknown = "a character is unknown, and the tokenizer has no token for it";
    let pieces = segment(options, vocabulary, sentence)?;
    let mut tokens = Vec::with_capacity(pieces.len());
    for (start, end) in pieces {
        let piece = &sentence[start..end];
        if let Some(id) = vocabulary.id(piece) {
            tokens.push(Token::new(id, piece.to_owned(), (start, end)));
            continue;
        }
        if options.byte_fallback {
            let bytes: Option<Vec<Token>> = piece
                .bytes()
                .map(|byte| {
                    let text = format!("<0x{byte:02X}>");
                    vocabulary.id(&text).map(|id| Token::new(id, text, (start, end)))
                })
                .collect();
            if let Some(bytes) = bytes {
                tokens.extend(bytes);
                continue;
            }
        }
        tokens.push(Token::new(options.unk_id.ok_or(no_unknown)?, piece.to_owned(), (start, end)));
    }
    Ok(tokens)
}

/// The segments, with neighboring unknown ones as one.
fn segment(
    options: &Options,
    vocabulary: &Vocabulary,
    sentence: &str,
) -> tokenizers::Result<Vec<(usize, usize)>> {
    let tables = &vocabulary.tables;
    let least = tables.float(SCORES, vocabulary.len()).ok_or(FormatError::Damaged)?;
    let mut best = vec![Best::default(); sentence.len() + 1];
    for (start, letter) in sentence.char_indices() {
        let so_far = best[start].score;
        let mut is_known = false;
        let mut node = 0;
        for (length, &byte) in sentence.as_bytes()[start..].iter().enumerate() {
            let Some(child) = child_of(vocabulary, node, byte) else { break };
            node = child;
            let Some(id) = tables.number(TRIE_TOKENS, node).ok_or(FormatError::Damaged)?.checked_sub(1)
            else {
                continue;
            };
            let score = tables.float(SCORES, id as usize).ok_or(FormatError::Damaged)?;
            best[start + length + 1].offer(score + so_far, id, start);
            is_known |= length + 1 == letter.len_utf8();
        }
        if !is_known {
            let target = &mut best[start + letter.len_utf8()];
            let score = least - UNKNOWN_PENALTY + so_far;
            if target.token.is_none() || score > target.score {
                let id =
                    options.unk_id.ok_or("a character is unknown, and the tokenizer has no token for it")?;
                target.offer(score, id, start);
            }
        }
    }
    let mut pieces: Vec<(usize, usize)> = Vec::new();
    let mut end = sentence.len();
    let mut after_is_unknown = false;
    while end > 0 {
        let (id, start) = best[end].token.ok_or(FormatError::Damaged)?;
        let is_unknown = Some(id) == options.unk_id;
        match pieces.last_mut() {
            Some(piece) if is_unknown && after_is_unknown => piece.0 = start,
            _ => pieces.push((start, end)),
        }
        after_is_unknown = is_unknown;
        end = start;
    }
    pieces.reverse();
    Ok(pieces)
}

/// The child of a node of the trie that a byte leads to. Children of one node lie side by side, in order.
fn child_of(vocabulary: &Vocabulary, node: usize, byte: u8) -> Option<usize> {
    let tables = &vocabulary.tables;
    let first = tables.number(TRIE_CHILDREN, node)? as usize;
    let end = tables.number(TRIE_CHILDREN, node + 1)? as usize;
    let bytes = tables.section(TRIE_BYTES).get(first..end)?;
    bytes.binary_search(&byte).ok().map(|place| first + place)
}

/// The sections of scores and trie for tokens in the order of their ids.
pub(super) fn sections(tokens: &[String], scores: &[f64], least: f64) -> Option<[Vec<u8>; 4]> {
    let number = |value: usize| u32::try_from(value).ok();
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_unstable_by_key(|&id| tokens[id].as_bytes());
    // Nodes level by level. Each stands for the tokens with one beginning, a range of `order`.
    let mut ranges = vec![(0, order.len())];
    let (mut children, mut bytes, mut ends) = (Vec::new(), vec![0], Vec::new());
    let mut level = (0..1, 0);
    while !level.0.is_empty() {
        let (nodes, depth) = level;
        let first_of_next = ranges.len();
        for node in nodes {
            let (mut low, high) = ranges[node];
            // An empty text ends at no node; the one that ends here is the first of its range.
            let ending = order[low..high].first().filter(|&&id| depth > 0 && tokens[id].len() == depth);
            ends.push(match ending {
                Some(&id) => number(id + 1)?,
                None => 0,
            });
            while low < high && tokens[order[low]].len() <= depth {
                low += 1;
            }
            children.push(number(ranges.len())?);
            while low < high {
                let byte = tokens[order[low]].as_bytes()[depth];
                let count = order[low..high].partition_point(|&id| tokens[id].as_bytes()[depth] == byte);
                ranges.push((low, low + count));
                bytes.push(byte);
                low += count;
            }
        }
        level = (first_of_next..ranges.len(), depth + 1);
    }
    children.push(number(ranges.len())?);
    let floats = scores.iter().chain([&least]).flat_map(|score| score.to_le_bytes()).collect();
    let numbers = |numbers: Vec<u32>| numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    Some([floats, numbers(children), bytes, numbers(ends)])
}
