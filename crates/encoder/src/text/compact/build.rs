//! From what the tokenizer library has read to the compact form.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokenizers::models::ModelWrapper;
use tokenizers::{AddedToken, Tokenizer};

use super::format::{self, Bytes};
use super::{Kind, Settings, bpe, check, unigram, vocabulary, wordpiece};

/// Most tokens of a vocabulary.
const MAX_TOKENS: usize = 1 << 24;

/// What the library has read and does not show.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    model: Hidden,
}

#[derive(Deserialize)]
struct Hidden {
    #[serde(default)]
    merges: Vec<Merge>,
    #[serde(default)]
    unk_id: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

/// The compact form of a tokenizer, `json` being its file and `tokenizer` what the library made of it. `None` if it
/// has something that the compact form has not, or if a sample comes out differently.
pub(crate) fn write(json: &[u8], tokenizer: &Tokenizer) -> Option<Vec<u8>> {
    let file: File = serde_json::from_slice(json).ok()?;
    let value = |part: Result<serde_json::Value, serde_json::Error>| part.ok();
    let settings = |model| {
        Some(Settings {
            model,
            normalizer: value(serde_json::to_value(tokenizer.get_normalizer()))?,
            pre_tokenizer: value(serde_json::to_value(tokenizer.get_pre_tokenizer()))?,
            post_processor: value(serde_json::to_value(tokenizer.get_post_processor()))?,
            added_tokens: file.added_tokens,
            padding: tokenizer.get_padding().cloned(),
        })
    };
    let (kind, tokens, tables) = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => {
            if model.dropout.is_some_and(|dropout| dropout != 0.0) {
                return None;
            }
            let tokens = by_id(model.get_vocab())?;
            let prefix = model.continuing_subword_prefix.as_deref().unwrap_or_default().len();
            let merges = merges(file.model.merges, &tokens, prefix)?;
            let [starts, rows] = bpe::sections(&merges, tokens.len());
            let options = bpe::Options {
                unk_token: model.unk_token.clone(),
                continuing_subword_prefix: model.continuing_subword_prefix.clone(),
                end_of_word_suffix: model.end_of_word_suffix.clone(),
                fuse_unk: model.fuse_unk,
                byte_fallback: model.byte_fallback,
                ignore_merges: model.ignore_merges,
            };
            (Kind::Bpe(options), tokens, [starts, rows, Vec::new(), Vec::new()])
        }
        ModelWrapper::Unigram(model) => {
            let (tokens, scores): (Vec<String>, Vec<f64>) = model.iter().cloned().unzip();
            if has_duplicates(&tokens) {
                return None;
            }
            let tables = unigram::sections(&tokens, &scores, model.min_score)?;
            let options =
                unigram::Options { unk_id: file.model.unk_id, byte_fallback: model.byte_fallback() };
            (Kind::Unigram(options), tokens, tables)
        }
        ModelWrapper::WordPiece(model) => {
            use tokenizers::Model as _;
            let options = wordpiece::Options {
                unk_token: model.unk_token.clone(),
                continuing_subword_prefix: model.continuing_subword_prefix.clone(),
                max_input_chars_per_word: model.max_input_chars_per_word,
            };
            (Kind::WordPiece(options), by_id(model.get_vocab())?, Default::default())
        }
        ModelWrapper::WordLevel(_) => return None,
    };
    let [texts, offsets, hashes] = vocabulary::sections(&tokens)?;
    let [first, second, third, fourth] = tables;
    let settings = serde_json::to_vec(&settings(kind)?).ok()?;
    let bytes =
        format::assemble(tokens.len(), [settings, texts, offsets, hashes, first, second, third, fourth]);
    let compact = super::open(Box::new(bytes.clone()) as Box<dyn Bytes>).ok()?;
    check::agree(tokenizer, &compact, &tokens).then_some(bytes)
}

/// Tokens in the order of their ids, if these are 0, 1, 2 and so on.
fn by_id(vocabulary: impl IntoIterator<Item = (String, u32)>) -> Option<Vec<String>> {
    let mut pairs: Vec<(u32, String)> =
        vocabulary.into_iter().map(|(token, id)| (id, token)).take(MAX_TOKENS + 1).collect();
    pairs.sort_unstable();
    let dense = pairs.iter().enumerate().all(|(place, (id, _))| *id as usize == place);
    (dense && pairs.len() <= MAX_TOKENS).then(|| pairs.into_iter().map(|(_, token)| token).collect())
}

fn has_duplicates(tokens: &[String]) -> bool {
    let mut sorted: Vec<&String> = tokens.iter().collect();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

/// Merges by their two tokens: rank and result. Of several for one pair the last counts.
fn merges(list: Vec<Merge>, tokens: &[String], prefix: usize) -> Option<BTreeMap<(u32, u32), (u32, u32)>> {
    let ids: std::collections::HashMap<&str, u32> =
        tokens.iter().zip(0..).map(|(token, id)| (token.as_str(), id)).collect();
    let mut result = BTreeMap::new();
    let mut rank = 0;
    for merge in &list {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
            Merge::Line(line) if line.starts_with("#version") => continue,
            Merge::Line(line) => line.split_once(' ').filter(|(_, right)| !right.contains(' '))?,
        };
        let merged = format!("{left}{}", right.get(prefix..)?);
        let pair = (*ids.get(left)?, *ids.get(right)?);
        result.insert(pair, (rank, *ids.get(merged.as_str())?));
        rank += 1;
    }
    Some(result)
}
