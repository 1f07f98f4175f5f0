//! The arguments of a trigger function, and appending rows to a table without the executor.

use super::version;
use crate::encoding;
use crate::fault;
use pgrx::pg_sys;
use std::ffi::{CStr, c_int};

/// Rows that are inserted together.
const TOGETHER: usize = 1000;

/// How many triggers run now, each in a statement of the one before.
pub fn depth() -> i32 {
    // SAFETY: reads a counter of this session.
    unsafe { pgrx::direct_function_call(pg_sys::pg_trigger_depth, &[]) }.expect("a number")
}

/// A trigger that fires.
#[derive(Clone, Copy)]
pub struct Firing {
    data: *const pg_sys::TriggerData,
}

/// The values of one row, up to the last column that was asked for.
pub struct Values<'a> {
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl Values<'_> {
    /// The value of a column, from 1; `None` for NULL.
    pub fn get(&self, column: i16) -> Option<pg_sys::Datum> {
        let place = usize::try_from(column - 1).expect("columns count from 1");
        (!self.nulls[place]).then(|| self.values[place])
    }
}

impl Firing {
    /// What fires, if a call is one of a trigger.
    ///
    /// # Safety
    /// The call's own data, while it lasts.
    pub unsafe fn of(call: pg_sys::FunctionCallInfo) -> Option<Self> {
        // SAFETY: by contract; the node is what its tag says.
        unsafe {
            let context = (*call).context;
            let is_trigger = !context.is_null() && (*context).type_ == pg_sys::NodeTag::T_TriggerData;
            is_trigger.then(|| Self { data: context.cast() })
        }
    }

    fn data(&self) -> &pg_sys::TriggerData {
        // SAFETY: by the contract of `of`.
        unsafe { &*self.data }
    }

    fn descriptor(&self) -> pg_sys::TupleDesc {
        // SAFETY: an open relation.
        unsafe { (*self.data().tg_relation).rd_att }
    }

    /// The table's oid.
    pub fn relation(&self) -> pg_sys::Oid {
        // SAFETY: an open relation.
        unsafe { (*self.data().tg_relation).rd_id }
    }

    /// The table's owner.
    pub fn owner(&self) -> pg_sys::Oid {
        // SAFETY: an open relation.
        unsafe { (*(*self.data().tg_relation).rd_rel).relowner }
    }

    /// The trigger's own oid and its argument, if it has one.
    pub fn trigger(&self) -> (pg_sys::Oid, Option<&CStr>) {
        // SAFETY: the server describes the trigger; its arguments are NUL-terminated.
        unsafe {
            let trigger = &*self.data().tg_trigger;
            let argument = (trigger.tgnargs == 1).then(|| CStr::from_ptr(*trigger.tgargs));
            (trigger.tgoid, argument)
        }
    }

    /// Whether it fires after an INSERT or UPDATE.
    pub fn is_after_change(&self) -> bool {
        let event = self.data().tg_event;
        let operation = event & pg_sys::TRIGGER_EVENT_OPMASK;
        event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER
            && (operation == pg_sys::TRIGGER_EVENT_INSERT || operation == pg_sys::TRIGGER_EVENT_UPDATE)
    }

    /// Whether it is a partition's copy of its root's trigger.
    pub fn is_clone(&self) -> bool {
        // SAFETY: the server describes the trigger.
        unsafe { (*self.data().tg_trigger).tgisclone }
    }

    /// A column's type, and whether its values are varlenas.
    pub fn type_of(&self, column: i16) -> (pg_sys::Oid, bool) {
        // SAFETY: the open relation's descriptor.
        unsafe {
            let attribute = version::attribute(self.descriptor(), usize::from(column.unsigned_abs()) - 1);
            ((*attribute).atttypid, (*attribute).attlen == -1)
        }
    }

    fn is_update(&self) -> bool {
        self.data().tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_UPDATE
    }

    /// The number of the column of this name, if there is one; `known` is tried first.
    pub fn column(&self, name: &str, known: Option<i16>) -> Option<i16> {
        let wanted = encoding::from_utf8_lossy(name);
        // SAFETY: the open relation's descriptor.
        unsafe {
            let count = (*self.descriptor()).natts;
            if let Some(number) = known {
                let is_there = (1..=count).contains(&c_int::from(number))
                    && !(*version::attribute(self.descriptor(), usize::from(number.unsigned_abs()) - 1))
                        .attisdropped;
                return is_there.then_some(number);
            }
            (0..usize::try_from(count).unwrap_or(0))
                .find(|&place| {
                    let attribute = version::attribute(self.descriptor(), place);
                    !(*attribute).attisdropped
                        && CStr::from_ptr((*attribute).attname.data.as_ptr()).to_bytes() == &*wanted
                })
                .and_then(|place| i16::try_from(place + 1).ok())
        }
    }

    /// Calls `each` with every changed row up to a column, and what it was before where that is known.
    ///
    /// For a statement, old and new rows come in the same order, unless a trigger of the user left one out: whoever
    /// compares them looks at their keys.
    pub fn rows(&self, last_column: i16, mut each: impl FnMut(Option<&Values<'_>>, &Values<'_>)) {
        let data = self.data();
        // SAFETY: the tuples are of the relation's type; so are those of the transition tables.
        unsafe {
            if data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0 {
                let first = self.deform(data.tg_trigtuple);
                if self.is_update() {
                    let second = self.deform(data.tg_newtuple);
                    each(Some(&first.as_values()), &second.as_values());
                } else {
                    each(None, &first.as_values());
                }
                return;
            }
            if data.tg_newtable.is_null() {
                return;
            }
            let new = Reader::new(data.tg_newtable, self.descriptor(), last_column);
            let old = (self.is_update() && !data.tg_oldtable.is_null())
                .then(|| Reader::new(data.tg_oldtable, self.descriptor(), last_column));
            while let Some(row) = new.next() {
                pgrx::check_for_interrupts!();
                fault::point("read a changed row");
                let before = old.as_ref().and_then(Reader::next);
                each(before.as_ref(), &row);
            }
            new.end();
            if let Some(old) = old {
                old.end();
            }
        }
    }

    /// # Safety
    /// A tuple of the relation.
    unsafe fn deform(&self, tuple: pg_sys::HeapTuple) -> Deformed {
        // SAFETY: by contract; both arrays have an entry for each column.
        unsafe {
            let count = usize::try_from((*self.descriptor()).natts).expect("a count");
            let mut row = Deformed { values: vec![pg_sys::Datum::null(); count], nulls: vec![true; count] };
            pg_sys::heap_deform_tuple(
                tuple,
                self.descriptor(),
                row.values.as_mut_ptr(),
                row.nulls.as_mut_ptr(),
            );
            row
        }
    }

    /// Whether a column has equal values, as far as bytes tell. Values out of line that are the same stored value are
    /// equal without a look at them.
    pub fn is_same(&self, column: i16, old: &Values<'_>, new: &Values<'_>) -> bool {
        match (old.get(column), new.get(column)) {
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
            // SAFETY: two values of the column's type.
            (Some(old), Some(new)) => unsafe {
                let attribute = version::attribute(self.descriptor(), usize::from(column.unsigned_abs()) - 1);
                same((*attribute).attbyval, (*attribute).attlen, old, new)
            },
        }
    }
}

/// A tuple taken apart.
struct Deformed {
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Deformed {
    fn as_values(&self) -> Values<'_> {
        Values { values: &self.values, nulls: &self.nulls }
    }
}

/// # Safety
/// Two values of a type with that length.
unsafe fn same(by_value: bool, length: i16, old: pg_sys::Datum, new: pg_sys::Datum) -> bool {
    if by_value {
        return old == new;
    }
    // SAFETY: by contract; a length of -1 is a varlena's, of -2 a NUL-terminated string's.
    unsafe {
        let bytes = |datum: pg_sys::Datum| -> &[u8] {
            let start: *const u8 = datum.cast_mut_ptr();
            let size = match length {
                -1 => pgrx::varsize_any(start.cast()),
                -2 => CStr::from_ptr(start.cast()).to_bytes().len(),
                length => usize::from(length.unsigned_abs()),
            };
            std::slice::from_raw_parts(start, size)
        };
        if bytes(old) == bytes(new) {
            return true;
        }
        if length != -1 || pg_sys::toast_raw_datum_size(old) != pg_sys::toast_raw_datum_size(new) {
            return false;
        }
        let plain = |datum: pg_sys::Datum| pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        pgrx::varlena_to_byte_slice(plain(old)) == pgrx::varlena_to_byte_slice(plain(new))
    }
}

/// Reads a transition table from its start, whoever else reads it.
struct Reader {
    store: *mut pg_sys::Tuplestorestate,
    slot: *mut pg_sys::TupleTableSlot,
    columns: c_int,
}

impl Reader {
    /// # Safety
    /// A store of tuples of that type, which lives as long as the reader and is read by nobody else meanwhile.
    unsafe fn new(
        store: *mut pg_sys::Tuplestorestate,
        descriptor: pg_sys::TupleDesc,
        last_column: i16,
    ) -> Self {
        // SAFETY: by contract.
        unsafe {
            let pointer =
                pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND.cast_signed());
            pg_sys::tuplestore_select_read_pointer(store, pointer);
            pg_sys::tuplestore_rescan(store);
            let slot = pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsMinimalTuple);
            Self { store, slot, columns: c_int::from(last_column) }
        }
    }

    /// The next row; its values are good until the one after it is asked for.
    fn next(&self) -> Option<Values<'_>> {
        // SAFETY: by the contract of `new`; the slot has the type of the store's tuples, and has taken apart as many
        // columns as are handed out.
        unsafe {
            if !pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot) {
                return None;
            }
            if c_int::from((*self.slot).tts_nvalid) < self.columns {
                pg_sys::slot_getsomeattrs_int(self.slot, self.columns);
            }
            let count = usize::try_from(self.columns).expect("a count");
            Some(Values {
                values: std::slice::from_raw_parts((*self.slot).tts_values, count),
                nulls: std::slice::from_raw_parts((*self.slot).tts_isnull, count),
            })
        }
    }

    fn end(self) {
        // SAFETY: our own slot, used no more. After an error it goes with its memory context.
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
    }
}

/// A table without indexes that rows are appended to, past the executor: rights, policies and triggers of the table do not
/// matter, and logical decoding does not see the rows.
pub struct Appender {
    relation: pg_sys::Relation,
    /// Holds the tuples that are not written yet.
    context: pg_sys::MemoryContext,
    bulk: pg_sys::BulkInsertState,
    tuples: Vec<pg_sys::HeapTuple>,
    /// As many as were ever needed.
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Appender {
    /// Opens the table.
    pub fn open(table: pg_sys::Oid) -> Self {
        fault::point("open the queue");
        // SAFETY: raises an error if there is no such table. An error later gives everything back: the context is a child
        // of the current one.
        unsafe {
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock.cast_signed());
            let columns = usize::try_from((*(*relation).rd_att).natts).expect("a count");
            let context = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"imgvec queue".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            Self {
                relation,
                context,
                bulk: std::ptr::null_mut(),
                tuples: Vec::new(),
                slots: Vec::new(),
                values: Vec::with_capacity(columns),
                nulls: vec![false; columns],
            }
        }
    }

    /// Whether it is a plain table without indexes, whose columns have these types.
    pub fn has_shape(&self, types: &[pg_sys::Oid]) -> bool {
        // SAFETY: an open relation.
        unsafe {
            let form = &*(*self.relation).rd_rel;
            let descriptor = (*self.relation).rd_att;
            form.relkind == pg_sys::RELKIND_RELATION.cast_signed()
                && !form.relhasindex
                && usize::try_from((*descriptor).natts) == Ok(types.len())
                && (0..types.len()).all(|place| {
                    let attribute = version::attribute(descriptor, place);
                    (*attribute).atttypid == types[place] && !(*attribute).attisdropped
                })
        }
    }

    /// Appends a row; its values are copied, and stored in line.
    ///
    /// # Safety
    /// Values of the types of the table's columns, `true` for those that are varlenas.
    pub unsafe fn append(&mut self, row: impl Iterator<Item = (pg_sys::Datum, bool)>) {
        fault::point("append to the queue");
        // SAFETY: by contract.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo(self.context);
            self.values.clear();
            self.values.extend(row.map(|(value, is_varlena)| {
                if is_varlena {
                    pg_sys::Datum::from(pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr()))
                } else {
                    value
                }
            }));
            assert_eq!(self.values.len(), self.nulls.len(), "a value for each column");
            let tuple = pg_sys::heap_form_tuple(
                (*self.relation).rd_att,
                self.values.as_mut_ptr(),
                self.nulls.as_mut_ptr(),
            );
            self.tuples.push(tuple);
            pg_sys::MemoryContextSwitchTo(before);
        }
        if self.tuples.len() == TOGETHER {
            self.flush();
        }
    }

    fn flush(&mut self) {
        fault::point("write the queue");
        // SAFETY: tuples of the relation's type, each in a slot of its own; the server copies them.
        unsafe {
            let command = pg_sys::GetCurrentCommandId(true);
            // Rows that are written together cannot be kept from logical decoding: the server asserts that nobody tries.
            let is_decoded = pg_sys::wal_level >= pg_sys::WalLevel::WAL_LEVEL_LOGICAL as c_int;
            if self.tuples.len() == 1 || is_decoded {
                let options = pg_sys::HEAP_INSERT_NO_LOGICAL.cast_signed();
                for &tuple in &self.tuples {
                    pg_sys::heap_insert(self.relation, tuple, command, options, self.bulk);
                }
            } else if !self.tuples.is_empty() {
                if self.bulk.is_null() {
                    self.bulk = pg_sys::GetBulkInsertState();
                }
                while self.slots.len() < self.tuples.len() {
                    let slot = pg_sys::MakeSingleTupleTableSlot(
                        (*self.relation).rd_att,
                        &raw const pg_sys::TTSOpsHeapTuple,
                    );
                    self.slots.push(slot);
                }
                for (&tuple, &slot) in self.tuples.iter().zip(&self.slots) {
                    pg_sys::ExecStoreHeapTuple(tuple, slot, false);
                }
                let count = c_int::try_from(self.tuples.len()).expect("a thousand at most");
                pg_sys::heap_multi_insert(
                    self.relation,
                    self.slots.as_mut_ptr(),
                    count,
                    command,
                    0,
                    self.bulk,
                );
            }
            self.tuples.clear();
            pg_sys::MemoryContextReset(self.context);
        }
    }

    /// Writes what is left, and closes the table, whose lock is kept until the transaction ends.
    pub fn finish(mut self) {
        self.flush();
        fault::point("close the queue");
        // SAFETY: opened and made by us.
        unsafe {
            self.slots.iter().for_each(|&slot| pg_sys::ExecDropSingleTupleTableSlot(slot));
            pg_sys::MemoryContextDelete(self.context);
            if !self.bulk.is_null() {
                pg_sys::FreeBulkInsertState(self.bulk);
            }
            pg_sys::table_close(self.relation, pg_sys::NoLock.cast_signed());
        }
    }
}
