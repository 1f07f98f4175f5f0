//! Which model a vector in this session's memory came from.
//!
//! A vector has the same bytes as pgvector's `vector`, and becomes one without a conversion. So its header has no room for a
//! mark: the mark would go to disk and to clients as part of a `vector`, which they refuse unless it is zero. Instead, the session
//! remembers the vectors that it returned. That works through parameters, subqueries and casts, and ends with the
//! session. A vector that is not known may come from any model.

use super::{server, session};
use crate::error::{Report, pipeline as error};
use crate::guc;
use imgvec_encoder::package::{ModelDigest, Package};
use lru::LruCache;
use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::rc::Rc;

/// Vectors that a session remembers.
const MOST: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Elements that a vector is told by. No two inputs or models agree in so many.
const ELEMENTS: usize = 32;

struct Origin {
    model: Rc<str>,
    digest: ModelDigest,
}

struct Known {
    vectors: LruCache<u64, Rc<Origin>>,
    /// The last that was remembered: a query asks again for each of its rows.
    last: (u64, Option<Rc<Origin>>),
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known { vectors: LruCache::new(MOST), last: (0, None) });
}

/// A number by which a vector is known: bits of its first elements, mixed by multiplication.
fn mark(vector: &[f32]) -> u64 {
    let start = vector.len() as u64;
    vector.iter().take(ELEMENTS).fold(start, |mixed, element| {
        (mixed.rotate_left(23) ^ u64::from(element.to_bits())).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// Remembers that a model made a vector.
pub fn remember(vector: &[f32], model: &str, digest: ModelDigest) {
    let mark = mark(vector);
    KNOWN.with_borrow_mut(|known| {
        let is_last = |origin: &Rc<Origin>| origin.digest == digest && &*origin.model == model;
        let origin = match &known.last {
            (last, Some(origin)) if *last == mark && is_last(origin) => return,
            (_, Some(origin)) if is_last(origin) => Rc::clone(origin),
            _ => Rc::new(Origin { model: model.into(), digest }),
        };
        known.vectors.put(mark, Rc::clone(&origin));
        known.last = (mark, Some(origin));
    });
}

/// Sees to it that a query is not of another model than the index that it is to search.
///
/// # Errors
/// If it is known to be.
pub fn check(index: &str, model: &str, query: &[f32]) -> Result<(), Report> {
    let found = KNOWN.with_borrow_mut(|known| known.vectors.get(&mark(query)).cloned());
    let Some(origin) = found.filter(|origin| &*origin.model != model) else { return Ok(()) };
    // One model may have two names.
    let digest = session::with(|session| Ok(session.model_if_open(model).map(|model| model.digest)));
    let digest = digest.or_else(|| {
        let package = Package::find(&guc::model_path(), model).ok()?;
        package.digest(guc::cache_directory().as_deref()).ok()
    });
    if digest == Some(origin.digest) { Ok(()) } else { Err(error::other_model(index, model, &origin.model)) }
}

/// The digest of the files that a model of this session has been opened from.
pub fn digest_in_use(model: &str) -> Option<String> {
    session::with(|session| Ok(session.model_if_open(model).map(|model| model.digest.to_string())))
}

/// The digest of a model's files as they are now; none if it is not there or is broken.
pub fn digest_on_disk(model: &str) -> Option<String> {
    let package = Package::find(&guc::model_path(), model).ok()?;
    let digest = package.digest_interruptible(guc::cache_directory().as_deref(), server::interrupt_pending);
    pgrx::check_for_interrupts!();
    Some(digest.ok()?.to_string())
}
