//! The first two steps of BERT's tokenizers with less work: plain ASCII is not decomposed, and words are cut out
//! once. With a small model these steps are most of what a short text costs. Results are the library's.

use serde::Deserialize;
use tokenizers::normalizer::Range;
use tokenizers::{
    NormalizedString, Normalizer, NormalizerWrapper, PreTokenizedString, PreTokenizer, PreTokenizerWrapper,
};
use unicode_categories::UnicodeCategories as _;

/// A normalizer of the library.
#[derive(Deserialize)]
#[serde(from = "NormalizerWrapper")]
pub(super) struct Cleaner(NormalizerWrapper);

/// A pre-tokenizer of the library.
#[derive(Deserialize)]
#[serde(from = "PreTokenizerWrapper")]
pub(super) struct Splitter(PreTokenizerWrapper);

impl From<NormalizerWrapper> for Cleaner {
    fn from(normalizer: NormalizerWrapper) -> Self {
        Cleaner(normalizer)
    }
}

impl From<PreTokenizerWrapper> for Splitter {
    fn from(pre_tokenizer: PreTokenizerWrapper) -> Self {
        Splitter(pre_tokenizer)
    }
}

impl Normalizer for Cleaner {
    fn normalize(&self, text: &mut NormalizedString) -> tokenizers::Result<()> {
        let NormalizerWrapper::BertNormalizer(bert) = &self.0 else { return self.0.normalize(text) };
        // Nothing here is a control character, a kind of blank, an ideograph or an accent.
        if !text.get().bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.0.normalize(text);
        }
        if bert.lowercase && text.get().bytes().any(|byte| byte.is_ascii_uppercase()) {
            text.lowercase();
        }
        Ok(())
    }
}

impl PreTokenizer for Splitter {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> tokenizers::Result<()> {
        let PreTokenizerWrapper::BertPreTokenizer(_) = &self.0 else { return self.0.pre_tokenize(text) };
        text.split(|_, piece| Ok(words(&piece)))
    }
}

/// What stands between blanks, each punctuation mark by itself.
fn words(text: &NormalizedString) -> Vec<NormalizedString> {
    let mut words = Vec::new();
    let mut cut = |start: usize, end: usize| {
        // An empty range is no word.
        words.extend((start < end).then(|| text.slice(Range::Normalized(start..end))).flatten());
    };
    let mut start = 0;
    for (place, letter) in text.get().char_indices() {
        let end = place + letter.len_utf8();
        if letter.is_whitespace() {
            cut(start, place);
            start = end;
        } else if is_punctuation(letter) {
            cut(start, place);
            cut(place, end);
            start = end;
        }
    }
    cut(start, text.get().len());
    words
}

fn is_punctuation(letter: char) -> bool {
    if letter.is_ascii() { letter.is_ascii_punctuation() } else { letter.is_punctuation() }
}
