//! From text to token ids, exactly as the model's own tokenizer file defines them.
//!
//! Three things differ from a plain call of the tokenizer library. Special tokens that a user
//! types are encoded as ordinary text, so that nobody ends a CLIP input early by writing its
//! end-of-text token. A text that is much longer than the model reads is cut before it is tokenized, so
//! that megabytes cost milliseconds. The batch does the padding, because it knows the lengths.

mod bert;
mod compact;
mod error;
pub mod question;

use std::io::Read;

use bert::{Cleaner, Splitter};
use serde::de::DeserializeOwned;
use tokenizers::{
    DecoderWrapper, Model, ModelWrapper, PostProcessorWrapper, Tokenizer, TokenizerImpl, TruncationParams,
};

pub use compact::Bytes;
use compact::CompactTokenizer;
pub use error::TextError;

use crate::interrupt::InterruptCheck;
use crate::memory;
use crate::package::{FileRole, MalformedFile, PackageError, Padding, TextTower, open_regular};

/// Characters per token that are tokenized at first. English has about five; a text that yields too
/// few tokens, for instance since it is mostly blanks, is tried again with four times as much.
const CHARS_PER_TOKEN: usize = 32;
/// Most bytes of a text that are ever tokenized. What lies beyond cannot matter unless this much text
/// before it yields fewer tokens than the model reads.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Bytes of memory that the tokenizer library takes for each byte of text, at its peak.
const BYTES_PER_BYTE: usize = 100;
/// Largest tokenizer file that is loaded, in bytes; Gemma's has 34 MB.
const MAX_TOKENIZER_BYTES: u64 = 128 << 20;

/// Token ids of one text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// Token ids, special tokens included, padding not.
    pub ids: Vec<u32>,
}

/// Maps a file read-only, whole.
pub type MapFile = fn(&std::fs::File) -> std::io::Result<Box<dyn Bytes>>;

/// A tokenizer whose model is `M`.
type TokenizerOf<M> = TokenizerImpl<M, Cleaner, Splitter, PostProcessorWrapper, DecoderWrapper>;

/// A tokenizer, in the library's own form or over tables that processes share.
enum Loaded {
    Library(Box<TokenizerOf<ModelWrapper>>),
    Compact(Box<CompactTokenizer>),
}

/// Whether a text still gets the package's prompt before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompting {
    /// Yes, if the package has a default.
    Default,
    /// No: it begins with one that was asked for.
    Done,
}

/// A loaded tokenizer with what its model adds to it.
pub struct TextEncoder {
    tokenizer: Loaded,
    max_length: usize,
    padding: Padding,
    pad_id: u32,
    pad_left: bool,
    prompt: String,
    lowercase: bool,
    /// Rows of the graph's token table, and the file that says so.
    vocab_size: Option<usize>,
}

impl TextEncoder {
    /// Loads the tokenizer of a text tower. Takes about 20 MB for CLIP's.
    ///
    /// # Errors
    /// [`PackageError::Missing`], [`PackageError::Unreadable`], [`PackageError::Malformed`].
    pub fn open(tower: &TextTower) -> Result<TextEncoder, PackageError> {
        let (_, mut tokenizer) = read::<TokenizerOf<ModelWrapper>>(tower)?;
        let pad_id = set_up(&mut tokenizer, tower)?;
        Ok(Self::new(tower, Loaded::Library(Box::new(tokenizer)), pad_id))
    }

    /// The tokenizer of a text tower from its compact form, which [`compact_form`] made; `None` if that is damaged.
    pub(crate) fn open_compact(
        tower: &TextTower,
        bytes: Box<dyn Bytes>,
    ) -> Result<Option<TextEncoder>, PackageError> {
        let Ok(mut tokenizer) = compact::open(bytes) else { return Ok(None) };
        let pad_id = set_up(&mut tokenizer, tower)?;
        Ok(Some(Self::new(tower, Loaded::Compact(Box::new(tokenizer)), pad_id)))
    }

    fn new(tower: &TextTower, tokenizer: Loaded, pad_id: u32) -> Self {
        TextEncoder {
            tokenizer,
            max_length: tower.max_length,
            padding: tower.padding,
            pad_id,
            pad_left: tower.pad_left,
            prompt: tower.prompt.clone(),
            lowercase: tower.lowercase,
            vocab_size: tower.vocab_size,
        }
    }

    /// Token ids of `text`, at most `max_length`, the closing special token kept.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn tokenize(&self, text: &str, interrupt: InterruptCheck) -> Result<Tokens, TextError> {
        self.tokenize_after(Prompting::Default, text, interrupt)
    }

    /// As [`TextEncoder::tokenize`], of a text that may have its prompt already.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn tokenize_after(
        &self,
        prompting: Prompting,
        text: &str,
        interrupt: InterruptCheck,
    ) -> Result<Tokens, TextError> {
        let mut budget = self.max_length * CHARS_PER_TOKEN;
        loop {
            if interrupt() {
                return Err(TextError::Interrupted);
            }
            let piece = cut(text, budget.min(MAX_TEXT_BYTES));
            memory::reserve(piece.len() * BYTES_PER_BYTE, "tokenize a text")?;
            let ids = self.encode(prompting, piece)?;
            // A cut can change the last word only, and cutting at a blank not even that.
            if piece.len() == text.len() || ids.len() >= self.max_length || piece.len() >= MAX_TEXT_BYTES / 2
            {
                return self.check(ids);
            }
            budget *= 4;
        }
    }

    /// Token ids of a part of an input, without special tokens and prompt; at most as many as an input may have.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn tokenize_part(&self, text: &str, interrupt: InterruptCheck) -> Result<Vec<u32>, TextError> {
        if interrupt() {
            return Err(TextError::Interrupted);
        }
        let piece = cut(text, (self.max_length * CHARS_PER_TOKEN).min(MAX_TEXT_BYTES));
        memory::reserve(piece.len() * BYTES_PER_BYTE, "tokenize a text")?;
        let ids = self.encode_bare(piece, false)?;
        if ids.is_empty() { Ok(ids) } else { Ok(self.check(ids)?.ids) }
    }

    /// Special tokens before and after the tokens of an input.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn frame(&self) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        // Any token that is no special one shows where the text goes.
        let (whole, bare) = (self.encode_bare("a", true)?, self.encode_bare("a", false)?);
        let place = whole.windows(bare.len().max(1)).position(|window| window == bare);
        let (before, rest) = whole.split_at(place.unwrap_or(whole.len()));
        let after = rest.get(bare.len()..).unwrap_or_default();
        Ok((before.to_vec(), after.to_vec()))
    }

    /// Most tokens of an input, special tokens included.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    fn encode(&self, prompting: Prompting, piece: &str) -> Result<Vec<u32>, TextError> {
        let prompt = match prompting {
            Prompting::Default => &*self.prompt,
            Prompting::Done => "",
        };
        let mut input = String::new();
        let input = if prompt.is_empty() && !self.lowercase {
            piece
        } else {
            input.push_str(prompt);
            if self.lowercase {
                input.push_str(&piece.to_lowercase());
            } else {
                input.push_str(piece);
            }
            &input
        };
        self.encode_bare(input, true)
    }

    /// Token ids of exactly this text.
    fn encode_bare(&self, input: &str, special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = guarded(|| match &self.tokenizer {
            Loaded::Library(tokenizer) => tokenizer.encode_fast(input, special),
            Loaded::Compact(tokenizer) => tokenizer.encode_fast(input, special),
        });
        let encoding = encoding.map_err(TextError::Tokenizer)?;
        Ok(encoding.get_ids().to_vec())
    }

    fn check(&self, ids: Vec<u32>) -> Result<Tokens, TextError> {
        if let Some(vocab_size) = self.vocab_size
            && let Some(&id) = ids.iter().find(|&&id| id as usize >= vocab_size)
        {
            return Err(TextError::IdOutOfRange { id, vocab_size });
        }
        if ids.is_empty() {
            // A tokenizer without special tokens gives nothing for empty text; the graph needs a row.
            return Ok(Tokens { ids: vec![self.pad_id] });
        }
        Ok(Tokens { ids })
    }

    /// Width of a batch whose longest text has `longest` tokens.
    #[must_use]
    pub fn width(&self, longest: usize) -> usize {
        match self.padding {
            Padding::Longest => longest,
            Padding::Fixed(length) => length,
        }
    }

    /// Appends one row of `width` ids to `ids`, and ones and zeros for tokens and padding to `mask`.
    pub fn fill_row(&self, tokens: &Tokens, width: usize, ids: &mut Vec<i64>, mask: &mut Vec<i64>) {
        let padding = width.saturating_sub(tokens.ids.len());
        let pad = |ids: &mut Vec<i64>, mask: &mut Vec<i64>| {
            ids.extend(std::iter::repeat_n(i64::from(self.pad_id), padding));
            mask.extend(std::iter::repeat_n(0, padding));
        };
        if self.pad_left {
            pad(ids, mask);
        }
        ids.extend(tokens.ids.iter().map(|&id| i64::from(id)));
        mask.extend(std::iter::repeat_n(1, tokens.ids.len()));
        if !self.pad_left {
            pad(ids, mask);
        }
    }
}

/// The bytes of a tower's tokenizer file, and what the library makes of them.
fn read<T: DeserializeOwned>(tower: &TextTower) -> Result<(Vec<u8>, T), PackageError> {
    let path = &tower.tokenizer;
    let unreadable = |source| PackageError::from_io(path.clone(), FileRole::Tokenizer, source);
    let malformed = |source| PackageError::Malformed { path: path.clone(), source };
    let (file, metadata) = open_regular(&tower.tokenizer_file).map_err(unreadable)?;
    let size = metadata.len();
    if size > MAX_TOKENIZER_BYTES {
        return Err(malformed(MalformedFile::TooLarge { found: size, limit: MAX_TOKENIZER_BYTES }));
    }
    let mut bytes = Vec::new();
    file.take(MAX_TOKENIZER_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    let tokenizer = guarded(|| Ok(serde_json::from_slice(&bytes)?));
    Ok((bytes, tokenizer.map_err(|error| malformed(MalformedFile::Tokenizer(error)))?))
}

/// What the tokenizer library gives, or an error where it panics: a strange file must not look like a bug of the server.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    caught.unwrap_or_else(|_| Err("the tokenizer contradicts itself".into()))
}

/// The compact form of a tower's tokenizer; empty if it has none, so that the library must do.
pub(crate) fn compact_form(tower: &TextTower) -> Result<Vec<u8>, PackageError> {
    let (bytes, tokenizer) = read::<Tokenizer>(tower)?;
    let written = guarded(|| Ok(compact::write(&bytes, &tokenizer)));
    Ok(written.ok().flatten().unwrap_or_default())
}

/// Sets what all tokenizers have in common, and returns the id of the padding token.
fn set_up<M: Model>(tokenizer: &mut TokenizerOf<M>, tower: &TextTower) -> Result<u32, PackageError> {
    tokenizer.set_encode_special_tokens(true);
    let told = tokenizer.get_padding().map(|padding| padding.pad_id);
    let named = || ["<pad>", "[PAD]", "<|pad|>"].iter().find_map(|token| tokenizer.token_to_id(token));
    let of_config = tower.pad_token.as_deref().and_then(|token| tokenizer.token_to_id(token));
    let pad_id = tower.pad_id.or(of_config).or(told).or_else(named).unwrap_or(0);
    tokenizer.with_padding(None);
    let truncation = TruncationParams { max_length: tower.max_length, ..Default::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(|error| PackageError::Malformed {
        path: tower.tokenizer.clone(),
        source: MalformedFile::Tokenizer(error),
    })?;
    Ok(pad_id)
}

/// At most `bytes` bytes of `text`, ending at a character and, if there is a blank in the last half,
/// before it.
fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    let piece = &text[..end];
    match piece.rfind(char::is_whitespace) {
        Some(blank) if blank >= piece.len() / 2 => &piece[..blank],
        _ => piece,
    }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn text_is_cut_at_characters_and_blanks() {
        assert_eq!(cut("short", 10), "short");
        assert_eq!(cut("one two three", 10), "one two");
        assert_eq!(cut("aaaaaaaaaaaa", 10), "aaaaaaaaaa");
        assert_eq!(cut("ééééé", 5), "éé");
        assert_eq!(cut("a bbbbbbbbbbbbb", 10), "a bbbbbbbb");
    }
}
