//! SQL functions over the encoders, and the state that a backend keeps for them.
//!
//! A call goes: name → [`session`] (package found, checked once a statement) → [`cache`] (answered?) →
//! encoder (runtime loaded, tower opened, run) → cache. No server call happens while a model runs except
//! the reading of two interrupt flags.

mod background;
mod cache;
mod classify;
mod functions;
mod mapping;
mod models;
mod options;
mod origin;
mod parts;
mod regions;
mod rows;
mod server;
mod session;

pub use functions::{image_embedding, text_embedding};
pub use origin::{check as check_origin, digest_in_use, digest_on_disk};
pub use rows::{Input, Inputs, embed_rows, facts};
pub use session::Embedding;
