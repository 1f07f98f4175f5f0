//! The embedding cache of a backend: (model, input) to vector, least recently used first out.
//!
//! PostgreSQL calls a STABLE function once for each row of a sequential scan, and once more for each row
//! that an index scan returns. The cache makes every plan run the model once for each distinct
//! input. It is keyed by digests: of the model's files and of the input, so that a changed model or a
//! setting can never answer for another.

use crate::guc;
use imgvec_encoder::package::ModelDigest;
use lru::LruCache;
use std::rc::Rc;

/// Bytes that the vectors of a cache may take, whatever the setting says.
const MAX_BYTES: usize = 256 << 20;

/// What kind of input a key stands for: equal bytes mean different things.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Image,
    Text,
    /// A text after a prompt that the caller chose.
    PromptedText,
    /// Pictures and texts of one input, as [`super::parts`] joins them.
    Parts,
    /// A part of a picture: its corners, then the picture.
    Region,
    /// A frame of a picture: its number, then the picture.
    Frame,
    /// A question about a picture. Its answers are no vector, and are not kept.
    Question,
    /// A class label, put into the model's prompt templates.
    Label,
}

/// An input of a model.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    model: ModelDigest,
    kind: Kind,
    input: [u8; 32],
}

impl Key {
    pub fn new(model: ModelDigest, kind: Kind, input: &[u8]) -> Self {
        Self::of_pieces(model, kind, &[input])
    }

    /// The key of an input that lies in pieces.
    pub fn of_pieces(model: ModelDigest, kind: Kind, pieces: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        pieces.iter().for_each(|piece| {
            hasher.update(piece);
        });
        Self { model, kind, input: *hasher.finalize().as_bytes() }
    }
}

/// Unit vectors by input.
pub struct EmbeddingCache {
    entries: LruCache<Key, Rc<[f32]>>,
    bytes: usize,
    pub hits: u64,
    pub misses: u64,
}

impl EmbeddingCache {
    pub fn new() -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, hits: 0, misses: 0 }
    }

    /// The vector of an input, if it is remembered.
    pub fn get(&mut self, key: &Key) -> Option<Rc<[f32]>> {
        let found = self.entries.get(key).cloned();
        match found {
            Some(_) => self.hits += 1,
            None => self.misses += 1,
        }
        found
    }

    /// Remembers a vector, and forgets the least recently used beyond the limits.
    pub fn put(&mut self, key: Key, vector: Rc<[f32]>) {
        self.bytes += size_of_val(&*vector);
        if let Some(replaced) = self.entries.put(key, vector) {
            self.bytes -= size_of_val(&*replaced);
        }
        while self.entries.len() > guc::embedding_cache_entries() || self.bytes > MAX_BYTES {
            let Some((_, forgotten)) = self.entries.pop_lru() else { break };
            self.bytes -= size_of_val(&*forgotten);
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }
}
