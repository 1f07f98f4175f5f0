//! Why a text could not be tokenized.

use thiserror::Error;

use crate::memory::OutOfMemory;

/// Failure of [`TextEncoder::tokenize`](super::TextEncoder::tokenize).
#[derive(Debug, Error)]
pub enum TextError {
    /// The tokenizer library refused the text.
    #[error("the tokenizer cannot encode the text")]
    Tokenizer(#[source] tokenizers::Error),
    /// The tokenizer gives ids that the graph has no vector for: they are not one model.
    #[error("the tokenizer returns token id {id}, but the model has only {vocab_size} tokens")]
    IdOutOfRange {
        /// The first such id.
        id: u32,
        /// Rows of the graph's token table.
        vocab_size: usize,
    },
    /// The system refused the memory that tokenizing takes.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// The caller's interrupt check returned true.
    #[error("tokenizing was interrupted")]
    Interrupted,
}
