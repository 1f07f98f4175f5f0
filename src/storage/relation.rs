//! A relation that somebody keeps open, and what the server knows about it.

use crate::encoding;
use crate::server::version;
use pgrx::datum::FromDatum;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::ops::Deref;

/// InvalidSubTransactionId of the server's c.h.
const NO_SUBTRANSACTION: pg_sys::SubTransactionId = 0;

/// A relation that stays open and locked for `'a`.
#[derive(Clone, Copy)]
pub struct Relation<'a> {
    raw: pg_sys::Relation,
    open: PhantomData<&'a pg_sys::RelationData>,
}

/// Names the files of a relation: another after TRUNCATE or REINDEX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    tablespace: pg_sys::Oid,
    database: pg_sys::Oid,
    file: u32,
}

impl Relation<'_> {
    /// # Safety
    /// `raw` is a valid relation that stays open for the chosen lifetime.
    pub unsafe fn from_raw(raw: pg_sys::Relation) -> Self {
        assert!(!raw.is_null(), "the server hands over open relations");
        Self { raw, open: PhantomData }
    }

    pub fn as_raw(self) -> pg_sys::Relation {
        self.raw
    }

    fn data(&self) -> &pg_sys::RelationData {
        // SAFETY: open for the lifetime of self; the relation cache changes it only while we call the server.
        unsafe { &*self.raw }
    }

    fn class(&self) -> &pg_sys::FormData_pg_class {
        // SAFETY: every relation cache entry has its pg_class row.
        unsafe { &*self.data().rd_rel }
    }

    pub fn oid(self) -> pg_sys::Oid {
        self.data().rd_id
    }

    pub fn name(self) -> String {
        // SAFETY: a NameData is NUL-terminated.
        let name = unsafe { CStr::from_ptr(self.class().relname.data.as_ptr()) };
        encoding::to_utf8_lossy(name.to_bytes()).into_owned()
    }

    pub fn identity(self) -> Identity {
        let (tablespace, database, file) = version::files(self.data());
        Identity { tablespace, database, file }
    }

    /// Whether no other session can see it: its extension needs no lock.
    pub fn is_local(self) -> bool {
        self.data().rd_islocaltemp || self.data().rd_createSubid != NO_SUBTRANSACTION
    }

    /// Whether changes to it must be logged.
    pub fn needs_wal(self) -> bool {
        let new_files = version::first_files_subtransaction(self.data());
        // SAFETY: plain read of a server setting.
        let logs_everything = unsafe { pg_sys::wal_level } >= pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32;
        u8::try_from(self.class().relpersistence) == Ok(pg_sys::RELPERSISTENCE_PERMANENT)
            && (logs_everything
                || (self.data().rd_createSubid == NO_SUBTRANSACTION && new_files == NO_SUBTRANSACTION))
    }

    /// Whether it is an index of an access method.
    pub fn is_index_of(self, access_method_handler: pg_sys::Oid) -> bool {
        u8::try_from(self.class().relkind) == Ok(pg_sys::RELKIND_INDEX)
            && self.data().rd_amhandler == access_method_handler
    }

    /// The table that an index belongs to.
    pub fn table_of_index(self) -> pg_sys::Oid {
        // SAFETY: an open index has its pg_index row.
        unsafe { (*self.data().rd_index).indrelid }
    }

    /// The number of an index's first column in its table; none if it is an expression.
    pub fn first_column(self) -> Option<i16> {
        // SAFETY: an index's cache entry has its pg_index row, whose vector has an entry for each column.
        let number = unsafe { *(*self.data().rd_index).indkey.values.as_ptr() };
        (number > 0).then_some(number)
    }

    /// The function of an index's access method.
    pub fn handler(self) -> pg_sys::Oid {
        self.data().rd_amhandler
    }

    /// Whether it is a temporary relation of another session, whose pages may be in that session's memory.
    pub fn is_temporary_of_others(self) -> bool {
        u8::try_from(self.class().relpersistence) == Ok(pg_sys::RELPERSISTENCE_TEMP)
            && !self.data().rd_islocaltemp
    }

    /// Whether an index is complete. A CREATE INDEX CONCURRENTLY that failed leaves one that is not.
    pub fn is_valid(self) -> bool {
        // SAFETY: an open index has its pg_index row.
        unsafe { (*self.data().rd_index).indisvalid }
    }

    pub fn owner(self) -> pg_sys::Oid {
        self.class().relowner
    }

    /// Number of pages of a fork.
    pub fn block_count(self, fork: pg_sys::ForkNumber::Type) -> u32 {
        // SAFETY: open relation.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.raw, fork) }
    }

    /// Whether the main fork has a block. Costs no call of the system where the server has met it before: files grow, and
    /// when one is cut off, which nobody does while the relation is locked, the server forgets the number.
    pub fn has_block(self, block: u32) -> bool {
        let main = pg_sys::ForkNumber::MAIN_FORKNUM;
        let fork = usize::try_from(main).expect("the first fork");
        // SAFETY: the server clears the pointer when it closes the files.
        let known =
            unsafe { self.data().rd_smgr.as_ref() }.map_or(0, |files| files.smgr_cached_nblocks[fork]);
        (known != pg_sys::InvalidBlockNumber && block < known) || block < self.block_count(main)
    }

    /// Type modifier of a column, from 0, or of the type beneath its domain; -1 if none. For an imgvec it is the
    /// number of dimensions.
    pub fn type_modifier(self, column: usize) -> i32 {
        // SAFETY: an open relation has a descriptor; the column's existence is checked; the type is in the catalogs.
        unsafe {
            let descriptor = self.data().rd_att;
            assert!(column < usize::try_from((*descriptor).natts).expect("a count"));
            let (of_type, mut modifier) = version::column_type(descriptor, column);
            pg_sys::getBaseTypeAndTypmod(of_type, &raw mut modifier);
            modifier
        }
    }

    /// The relation's storage options as the access method parsed them.
    ///
    /// # Safety
    /// `T` is the struct that the access method's option parser fills.
    pub unsafe fn options<T: Copy>(self) -> Option<T> {
        // SAFETY: the server keeps the parsed options, a varlena, with the relation.
        unsafe { self.data().rd_options.cast::<T>().as_ref().copied() }
    }

    /// Columns of the relation.
    pub fn column_count(self) -> usize {
        // SAFETY: an open relation has a descriptor.
        usize::try_from(unsafe { (*self.data().rd_att).natts }).expect("a count")
    }

    /// Type, beneath any domain, and collation of an index's column, from 0.
    pub fn column_type(self, column: usize) -> (pg_sys::Oid, pg_sys::Oid) {
        assert!(column < self.column_count());
        // SAFETY: an open index has a descriptor, and a collation for each column; the column's existence is checked.
        unsafe {
            let (of_type, _) = version::column_type(self.data().rd_att, column);
            (pg_sys::getBaseType(of_type), *self.data().rd_indcollation.add(column))
        }
    }

    /// Result of the support function of an index's column, from 0, without arguments of interest.
    pub fn support_code(self, column: usize, number: u16) -> i32 {
        let column = i16::try_from(column + 1).expect("at most 32 columns");
        // SAFETY: an open index; its operator class has the function, or the server raises an error. The
        // function takes one argument that it ignores and returns int4.
        unsafe {
            let function = pg_sys::index_getprocinfo(self.raw, column, number);
            let code = pg_sys::FunctionCall1Coll(function, pg_sys::InvalidOid, pg_sys::Datum::null());
            i32::from_datum(code, false).expect("not NULL")
        }
    }
}

/// A relation that we opened and locked. The lock stays until the end of the transaction.
pub struct OpenRelation {
    relation: Relation<'static>,
}

impl OpenRelation {
    /// Opens a relation; `None` if it was dropped.
    pub fn try_open(oid: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> Option<Self> {
        // SAFETY: opens by oid; a relation that is not there gives NULL.
        let raw = unsafe { pg_sys::try_relation_open(oid, lock) };
        // SAFETY: it stays open until drop.
        (!raw.is_null()).then(|| Self { relation: unsafe { Relation::from_raw(raw) } })
    }
}

impl Deref for OpenRelation {
    type Target = Relation<'static>;
    fn deref(&self) -> &Self::Target {
        &self.relation
    }
}

impl Drop for OpenRelation {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by us, closed once; an error elsewhere leaves it to the server.
            unsafe { pg_sys::relation_close(self.relation.raw, pg_sys::NoLock as pg_sys::LOCKMODE) }
        }
    }
}
