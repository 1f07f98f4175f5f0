//! A tokenizer's vocabulary in a form that processes share.
//!
//! The tokenizer library reads a `tokenizer.json` of 256,000 tokens in a second and keeps over 100 MB of maps for it in
//! each process. This form has the same tables sorted and flat, in a file of the cache directory that is mapped as
//! the weights are. It is made once from what the library has read, and it replaces one step only: from a
//! word to its tokens ([`bpe`], [`unigram`], [`wordpiece`]). Normalizer, pre-tokenizer, added tokens and
//! post-processor are the library's, made from the settings that the file has along with the tables.
//!
//! Results are the library's, token for token. Whatever is not covered (dropout, ids with gaps, other kinds of model)
//! is left to the library, and a form that tokenizes [`check::samples`] otherwise than the library is not kept.

mod bpe;
mod build;
mod check;
mod format;
mod unigram;
mod vocabulary;
mod wordpiece;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::{AddedToken, Model, PaddingParams, PostProcessorWrapper, Token};

pub(crate) use build::write;
use format::Tables;
pub use format::{Bytes, FormatError};
use vocabulary::Vocabulary;

use super::TokenizerOf;
use super::bert::{Cleaner, Splitter};

/// A tokenizer whose vocabulary is in a compact form.
pub(crate) type CompactTokenizer = TokenizerOf<CompactModel>;

/// What a compact form says beside its tables.
#[derive(Serialize, Deserialize)]
struct Settings {
    model: Kind,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    added_tokens: Vec<AddedToken>,
    padding: Option<PaddingParams>,
}

/// The kind of model and its options.
#[derive(Serialize, Deserialize)]
enum Kind {
    Bpe(bpe::Options),
    Unigram(unigram::Options),
    WordPiece(wordpiece::Options),
}

/// From words to tokens, over tables that may be shared.
pub(crate) struct CompactModel {
    kind: Kind,
    vocabulary: Vocabulary,
}

/// The tokenizer in `bytes`.
pub(crate) fn open(bytes: Box<dyn Bytes>) -> Result<CompactTokenizer, FormatError> {
    let tables = Tables::open(bytes)?;
    let settings: Settings =
        serde_json::from_slice(tables.section(format::SETTINGS)).map_err(|_| FormatError::Damaged)?;
    fn part<T: serde::de::DeserializeOwned>(value: Value) -> Result<Option<T>, FormatError> {
        serde_json::from_value(value).map_err(|_| FormatError::Damaged)
    }
    let model = CompactModel { kind: settings.model, vocabulary: Vocabulary::new(tables)? };
    let mut tokenizer = CompactTokenizer::new(model);
    let normalizer: Option<Cleaner> = part(settings.normalizer)?;
    let pre_tokenizer: Option<Splitter> = part(settings.pre_tokenizer)?;
    let post_processor: Option<PostProcessorWrapper> = part(settings.post_processor)?;
    tokenizer.with_normalizer(normalizer).map_err(|_| FormatError::Damaged)?;
    tokenizer.with_pre_tokenizer(pre_tokenizer);
    tokenizer.with_post_processor(post_processor);
    tokenizer.with_padding(settings.padding);
    tokenizer.add_tokens(settings.added_tokens).map_err(|_| FormatError::Damaged)?;
    Ok(tokenizer)
}

impl Model for CompactModel {
    /// Never used; a model must have one.
    type Trainer = BpeTrainer;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        match &self.kind {
            Kind::Bpe(options) => bpe::tokenize(options, &self.vocabulary, sequence),
            Kind::Unigram(options) => unigram::tokenize(options, &self.vocabulary, sequence),
            Kind::WordPiece(options) => wordpiece::tokenize(options, &self.vocabulary, sequence),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocabulary.id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.vocabulary.token(id).map(str::to_owned)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        let ids = 0..u32::try_from(self.vocabulary.len()).unwrap_or(u32::MAX);
        ids.filter_map(|id| Some((self.id_to_token(id)?, id))).collect()
    }

    fn get_vocab_size(&self) -> usize {
        self.vocabulary.len()
    }

    fn save(&self, _: &Path, _: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("a compact tokenizer is not saved".into())
    }

    fn get_trainer(&self) -> BpeTrainer {
        BpeTrainer::default()
    }
}
