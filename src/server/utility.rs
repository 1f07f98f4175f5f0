//! Statements that end transactions by themselves, such as CREATE INDEX CONCURRENTLY, and so run in a process that is in
//! none: no function and no procedure can run them.

use super::{passing, raw, spi};
use crate::error::Report;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;

/// A statement, in memory that lasts as long as the process.
pub struct Statement {
    node: *mut pg_sys::Node,
    text: CString,
}

/// An index to be made like another one.
pub struct IndexCopy<'a> {
    pub index: pg_sys::Oid,
    /// Schema and name of its table.
    pub table: (&'a str, &'a str),
    /// The column that another one takes the place of, and that one: number and name.
    pub from: (i16, &'a str),
    pub to: (i16, &'a str),
    pub name: &'a str,
    /// Storage options that differ; those of `None` are left out.
    pub options: &'a [(&'a str, Option<&'a str>)],
    /// Whether the table is partitioned: then the index is that of its indexes-to-be, empty and built at once.
    pub is_parent: bool,
}

impl Statement {
    /// CREATE INDEX CONCURRENTLY, or CREATE INDEX ... ON ONLY a partitioned table.
    pub fn create_index(copy: &IndexCopy<'_>) -> Self {
        let palloc = |text: &str| {
            let text = spi::c_string(text);
            // SAFETY: copies a NUL-terminated string.
            unsafe { pg_sys::pstrdup(text.as_ptr()) }
        };
        // SAFETY: the index is open and locked while it is described; nodes are what their tags say. The copy that is kept
        // is made in a context that lasts.
        let node = unsafe {
            let index = pg_sys::index_open(copy.index, pg_sys::AccessShareLock.cast_signed());
            let table =
                pg_sys::table_open((*(*index).rd_index).indrelid, pg_sys::AccessShareLock.cast_signed());
            let count = (*(*table).rd_att).natts;
            let map = pg_sys::make_attrmap(count);
            for column in 0..count {
                let number = i16::try_from(column + 1).expect("a column's number");
                let place = usize::try_from(column).expect("a count");
                *(*map).attnums.add(place) = if number == copy.from.0 { copy.to.0 } else { number };
            }
            let name = pg_sys::makeRangeVar(palloc(copy.table.0), palloc(copy.table.1), -1);
            let statement = &mut *raw::cloned_index_statement(name, index, map);
            statement.idxname = palloc(copy.name);
            statement.concurrent = !copy.is_parent;
            (*statement.relation).inh = !copy.is_parent;
            statement.idxcomment = pg_sys::GetComment(copy.index, pg_sys::RelationRelationId, 0);
            let from = spi::c_string(copy.from.1);
            for list in [statement.indexParams, statement.indexIncludingParams] {
                for place in 0..pg_sys::list_length(list) {
                    let element = &mut *pg_sys::list_nth(list, place).cast::<pg_sys::IndexElem>();
                    if !element.name.is_null() && CStr::from_ptr(element.name) == from.as_c_str() {
                        element.name = palloc(copy.to.1);
                    }
                }
            }
            let mut options = std::ptr::null_mut();
            for place in 0..pg_sys::list_length(statement.options) {
                let option = pg_sys::list_nth(statement.options, place).cast::<pg_sys::DefElem>();
                let differs = copy
                    .options
                    .iter()
                    .any(|(name, _)| CStr::from_ptr((*option).defname).to_bytes() == name.as_bytes());
                if !differs {
                    options = pg_sys::lappend(options, option.cast());
                }
            }
            for (name, value) in copy.options {
                let Some(value) = value else { continue };
                let value = pg_sys::makeString(palloc(value));
                let option = pg_sys::makeDefElem(palloc(name), value.cast(), -1);
                options = pg_sys::lappend(options, option.cast());
            }
            statement.options = options;
            let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let node = pg_sys::copyObjectImpl((&raw const *statement).cast());
            pg_sys::MemoryContextSwitchTo(before);
            pg_sys::table_close(table, pg_sys::NoLock.cast_signed());
            pg_sys::index_close(index, pg_sys::NoLock.cast_signed());
            node.cast()
        };
        let how = if copy.is_parent { "" } else { "CONCURRENTLY " };
        Self { node, text: spi::c_string(&format!("CREATE INDEX {how}{}", spi::quoted(copy.name))) }
    }

    /// A statement by its text, of which there is one.
    pub fn parse(text: &str) -> Self {
        let text = spi::c_string(text);
        // SAFETY: the parser answers a list of statements, or raises an error.
        let node = unsafe {
            let before = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let statements = pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
            let raw: *mut pg_sys::RawStmt = pg_sys::list_nth(statements, 0).cast();
            pg_sys::MemoryContextSwitchTo(before);
            (*raw).stmt
        };
        Self { node, text }
    }

    /// The statement as the server runs utilities.
    fn planned(&self) -> *mut pg_sys::PlannedStmt {
        // SAFETY: memory of that size, zeroed, which all fields may be.
        unsafe {
            let planned =
                pg_sys::MemoryContextAllocZero(pg_sys::TopMemoryContext, size_of::<pg_sys::PlannedStmt>());
            let planned = &mut *planned.cast::<pg_sys::PlannedStmt>();
            planned.type_ = pg_sys::NodeTag::T_PlannedStmt;
            planned.commandType = pg_sys::CmdType::CMD_UTILITY;
            planned.utilityStmt = self.node;
            planned
        }
    }

    /// Runs it in the transaction that goes on.
    pub fn run_within(&self) {
        // SAFETY: in a transaction with a snapshot; the statement and its text last as long as the process.
        unsafe {
            pg_sys::ProcessUtility(
                self.planned(),
                self.text.as_ptr(),
                false,
                pg_sys::ProcessUtilityContext::PROCESS_UTILITY_QUERY,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                pg_sys::None_Receiver,
                std::ptr::null_mut(),
            );
            pg_sys::CommandCounterIncrement();
        }
    }

    /// Runs it in a worker that is in no transaction.
    ///
    /// # Errors
    /// What the server raised; the transaction that it was in is undone.
    pub fn run(&self) -> Result<(), Report> {
        passing::keep();
        let run = || {
            // SAFETY: what the server does with a client's statement: a transaction, a snapshot, and the statement at the top
            // level, which may end the transaction and leave another one without a snapshot.
            unsafe {
                pg_sys::SetCurrentStatementStartTimestamp();
                pg_sys::StartTransactionCommand();
                pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, self.text.as_ptr());
                pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
                let planned = self.planned();
                // What the statement allocates between its transactions, it finds again in the next one.
                pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
                pg_sys::ProcessUtility(
                    planned,
                    self.text.as_ptr(),
                    false,
                    pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    pg_sys::None_Receiver,
                    std::ptr::null_mut(),
                );
                if pg_sys::ActiveSnapshotSet() {
                    pg_sys::PopActiveSnapshot();
                }
                pg_sys::CommitTransactionCommand();
                pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
            }
            Ok(())
        };
        pg_sys::PgTryBuilder::new(AssertUnwindSafe(run))
            .catch_others(|error| {
                // SAFETY: the server's own answer to an error at the top level. Its error state was copied and flushed.
                unsafe { pg_sys::AbortCurrentTransaction() };
                Err(Report::from(error))
            })
            .catch_rust_panic(|panic| panic.rethrow())
            .execute()
    }
}
