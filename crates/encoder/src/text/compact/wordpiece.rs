//! The longest token that a word begins with, and so on (Wu et al. 2016), as the tokenizer library does it.

use serde::{Deserialize, Serialize};
use tokenizers::Token;

use super::vocabulary::Vocabulary;

#[derive(Serialize, Deserialize)]
pub(super) struct Options {
    pub unk_token: String,
    pub continuing_subword_prefix: String,
    pub max_input_chars_per_word: usize,
}

pub(super) fn tokenize(
    options: &Options,
    vocabulary: &Vocabulary,
    sequence: &str,
) -> tokenizers::Result<Vec<Token>> {
    let unknown = || -> tokenizers::Result<Vec<Token>> {
        let name = &options.unk_token;
        let id = vocabulary.id(name).ok_or_else(|| format!("the unknown token \"{name}\" has no id"))?;
        Ok(vec![Token::new(id, name.clone(), (0, sequence.len()))])
    };
    if sequence.chars().count() > options.max_input_chars_per_word {
        return unknown();
    }
    let mut tokens = Vec::new();
    let mut start = 0;
    let mut text = String::new();
    while start < sequence.len() {
        let rest = &sequence[start..];
        let ends = rest.char_indices().rev().map(|(place, letter)| place + letter.len_utf8());
        let found = ends.into_iter().find_map(|end| {
            text.clear();
            if start > 0 {
                text.push_str(&options.continuing_subword_prefix);
            }
            text.push_str(&rest[..end]);
            vocabulary.id(&text).map(|id| (id, end))
        });
        let Some((id, end)) = found else { return unknown() };
        tokens.push(Token::new(id, text.clone(), (start, start + end)));
        start += end;
    }
    Ok(tokens)
}
