//! imgvec: image and text embeddings inside PostgreSQL.
//!
//! This crate is the only code that sees the server. It turns datums into slices and core errors into
//! SQLSTATEs. The algorithms are in `crates/`. The map is `docs/ARCHITECTURE.md`.
#![allow(
    unsafe_code,
    reason = "pg_extern expands to unsafe shims; our own raw pointers stay in types/datum/, encoding.rs, types/length.rs, embed/server.rs, embed/background.rs, embed/mapping.rs, memory.rs, server/, storage/ and the callbacks of am/"
)]

pgrx::pg_module_magic!();

mod am;
mod embed;
mod encoding;
mod error;
mod fault;
mod guc;
mod library;
mod memory;
mod pipeline;
mod server;
mod storage;
mod types;

/// Runs once, when the server first loads the library into a process. It defines settings, index
/// options and hooks, registers workers when preloaded, and nothing else: no thread, file or runtime may exist before a backend needs it, since the postmaster that
/// preloads us forks.
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    error::quiet_panics();
    guc::define();
    fault::define();
    am::options::define();
    am::order::define();
    pipeline::register();
}
