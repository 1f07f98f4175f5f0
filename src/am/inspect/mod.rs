//! Looking into an index: what it is, whether it is sound, how well it finds.

mod check;
mod counters;
mod index_rows;
mod info;
mod recall;
mod state;

pub use recall::exact;

use super::table::Table;
use crate::error::{Code, Report};
use crate::server::{catalog, security};
use crate::storage::{Mode, OpenRelation, Pages};
use pgrx::pg_sys;

/// An index of ours and its table, open and locked.
pub struct Opened {
    pub heap: OpenRelation,
    pub index: OpenRelation,
}

impl Opened {
    /// Opens an index and its table. `permit` raises an error if the user may not do with the table, or the index, what
    /// is to be done; before any lock, so that nobody waits for or holds up what is not theirs.
    pub fn new(oid: pg_sys::Oid, lock: u32, permit: impl FnOnce(Subject)) -> Self {
        let lock = pg_sys::LOCKMODE::try_from(lock).expect("a lock mode");
        let Some(table) = catalog::table_of(oid) else {
            let name = catalog::name_of(oid);
            if name.is_empty() { does_not_exist(oid) } else { is_not_ours(&name) }
        };
        permit(Subject { table, index: oid });
        // Table first, as everybody does.
        let heap = OpenRelation::try_open(table, lock);
        let Some(index) = OpenRelation::try_open(oid, lock) else { does_not_exist(oid) };
        if !catalog::ann_handler().is_some_and(|handler| index.is_index_of(handler)) {
            is_not_ours(&index.name());
        }
        let Some(heap) = heap else { does_not_exist(oid) };
        // Before it was locked the index may have been dropped, and its number given to that of another table.
        if index.table_of_index() != heap.oid() {
            does_not_exist(oid);
        }
        if index.is_temporary_of_others() {
            Report::new(
                Code::ERRCODE_FEATURE_NOT_SUPPORTED,
                "cannot access temporary indexes of other sessions",
            )
            .detail(format!("Index \"{}\" is in the memory of another session.", index.name()))
            .hint("Inspect it in the session that created it.")
            .raise();
        }
        Self { heap, index }
    }

    pub fn pages(&self) -> Pages<'_> {
        Pages::new(*self.index, Mode::Normal)
    }

    /// Runs `work` on the table as its owner, as index expressions are the owner's code.
    pub fn as_owner<T>(&self, work: impl FnOnce(&Table) -> T) -> T {
        security::restricted(self.heap.owner(), || {
            // SAFETY: open relations, which outlive the description.
            unsafe {
                let info = pg_sys::BuildIndexInfo(self.index.as_raw());
                // Reads by a snapshot, as the build of an index that does not lock writers out.
                (*info).ii_Concurrent = true;
                (*info).ii_Unique = false;
                work(&Table::new(*self.heap, *self.index, info))
            }
        })
    }
}

/// What a permission is asked for.
pub struct Subject {
    pub table: pg_sys::Oid,
    pub index: pg_sys::Oid,
}

fn is_not_ours(name: &str) -> ! {
    Report::new(Code::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is not an ann index"))
        .detail("It is a table, or an index of another access method.")
        .hint("Name an index that was created with USING ann; each partition has its own.")
        .raise()
}

fn does_not_exist(index: pg_sys::Oid) -> ! {
    Report::new(Code::ERRCODE_UNDEFINED_OBJECT, format!("index with oid {} does not exist", index.to_u32()))
        .detail("It may have been dropped meanwhile.")
        .hint("Name the index, as in 'photos_embedding_idx'::regclass.")
        .raise()
}
