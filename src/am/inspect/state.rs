//! `ann_index_state`: what the view `ann_indexes` shows of an index, for any user and at any time.
//!
//! A view of all indexes must not wait for one that is being rebuilt, nor fail because one is damaged. So an index that is locked,
//! cannot be read, or lies in the memory of another session has NULLs. Nothing here depends on the table's rows.

use super::info::metric_name;
use crate::am::opclass::OpClass;
use crate::am::waiting;
use crate::server::{catalog, subtransaction};
use crate::storage::{Mode, OpenRelation, Pages};
use crate::types::datum::{NewRecord, NewText};
use imgvec_ann::layout::{BlockNumber, meta};
use imgvec_ann::store::PageStore;
use pgrx::prelude::*;

/// An index, as far as it can be read.
#[derive(Default)]
struct State {
    metric: Option<&'static str>,
    size_bytes: Option<i64>,
    dims: Option<i32>,
    format_version: Option<i32>,
    recall: Option<meta::MeasuredRecall>,
}

#[pg_extern(sql = false)]
fn ann_index_state(index: pg_sys::Oid) -> NewRecord {
    let state = if_free(index, || subtransaction::caught(|| state(index)).ok()).flatten().unwrap_or_default();
    NewRecord::new()
        .column(state.metric.map(NewText::from_utf8))
        .column(state.dims)
        .column(state.size_bytes)
        .column(state.format_version)
        .column(state.recall.map(meta::MeasuredRecall::recall))
        .column(state.recall.map(|measured| i32::from(measured.k)))
        .column(state.recall.map(|measured| f64::from(measured.at)))
}

/// Runs `work` under a lock against changes of the relation; `None` if that would have to be waited for. The lock ends with the work, so
/// that a look at thousands of indexes does not hold thousands of locks.
fn if_free<T>(relation: pg_sys::Oid, work: impl FnOnce() -> T) -> Option<T> {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: locks by oid; there need not be such a relation. After an error the server releases the lock.
    unsafe {
        if !pg_sys::ConditionalLockRelationOid(relation, lock) {
            return None;
        }
        let result = work();
        pg_sys::UnlockRelationOid(relation, lock);
        Some(result)
    }
}

/// Reads an index that is locked. Nothing is known of what is no index of ours, or that of another session.
fn state(index: pg_sys::Oid) -> State {
    let unlocked = pg_sys::NoLock as pg_sys::LOCKMODE;
    let handler = catalog::ann_handler();
    let opened = OpenRelation::try_open(index, unlocked)
        .filter(|index| handler.is_some_and(|handler| index.is_index_of(handler)))
        .filter(|index| !index.is_temporary_of_others());
    let Some(index) = opened else { return State::default() };
    let pages = Pages::new(*index, Mode::Normal);
    let Ok(page_count) = pages.block_count();
    let mut state = State {
        metric: Some(metric_name(OpClass::of(*index).metric)),
        size_bytes: Some(i64::from(page_count) * i64::from(pg_sys::BLCKSZ)),
        ..State::default()
    };
    if page_count > 0 && !waiting::is_waiting(*index) {
        let Ok(first) = pages.read(BlockNumber(0));
        // A build that is under way, or was killed, left no first page yet; a damaged one tells nothing.
        if let Ok(meta) = meta::Meta::decode(&first) {
            state.dims = i32::try_from(meta.geometry.dim()).ok();
            state.format_version = Some(meta::version(&first).into());
            state.recall = meta.recall;
        }
    }
    state
}
