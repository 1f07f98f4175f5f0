//! imgvec: image and text embeddings inside PostgreSQL.
pgrx::pg_module_magic!();
