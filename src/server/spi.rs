//! SQL that the extension runs itself.
//!
//! Each call is a connection of its own to the server's SPI, so that nothing stays open when an error unwinds. Texts are
//! UTF-8 on our side and in the database's encoding on the other.

use super::passing;
use crate::encoding;
use crate::error::{Code, Report};
use crate::fault;
use pgrx::{PgMemoryContexts, pg_sys};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString};

/// A value for `$1`, `$2` and so on, with its type; `None` is NULL.
pub type Argument = (pg_sys::Oid, Option<pg_sys::Datum>);

/// The catalog of dependencies, which pgrx does not name: `DependRelationId`.
const PG_DEPEND: u32 = 2608;
/// Rows that a cursor fetches at once.
const READ_TOGETHER: i64 = 256;

/// Rows of a query, as long as its connection lasts.
pub struct Rows {
    table: *mut pg_sys::SPITupleTable,
    count: usize,
}

impl Rows {
    pub fn iter(&self) -> impl Iterator<Item = Row> + '_ {
        (0..self.count).map(|number| {
            // SAFETY: the table has `count` rows; both live until the connection ends, and rows leave it only by `iter`.
            let tuple = unsafe { *(*self.table).vals.add(number) };
            // SAFETY: as above.
            Row { tuple, descriptor: unsafe { (*self.table).tupdesc } }
        })
    }
}

/// One row; columns count from 1.
#[derive(Clone, Copy)]
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    /// The value as its type writes it.
    pub fn text(&self, column: i32) -> Option<String> {
        // SAFETY: tuple and descriptor belong together; the answer is NULL or a NUL-terminated copy.
        unsafe {
            let value = pg_sys::SPI_getvalue(self.tuple, self.descriptor, column);
            (!value.is_null()).then(|| encoding::to_utf8_lossy(CStr::from_ptr(value).to_bytes()).into_owned())
        }
    }

    /// The value as its type writes it; empty for NULL.
    pub fn string(&self, column: i32) -> String {
        self.text(column).unwrap_or_default()
    }

    /// A whole number; 0 for NULL and what is none.
    pub fn integer(&self, column: i32) -> i64 {
        self.text(column).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// Whether a boolean is true.
    pub fn is_true(&self, column: i32) -> bool {
        self.text(column).as_deref() == Some("t")
    }

    /// An oid; invalid for NULL.
    pub fn oid(&self, column: i32) -> pg_sys::Oid {
        let number = self.text(column).and_then(|text| text.parse().ok()).unwrap_or(0);
        pg_sys::Oid::from(number)
    }

    /// The value itself, as long as the connection lasts.
    pub fn datum(&self, column: i32) -> Option<pg_sys::Datum> {
        let mut is_null = false;
        // SAFETY: tuple and descriptor belong together.
        let datum = unsafe { pg_sys::SPI_getbinval(self.tuple, self.descriptor, column, &raw mut is_null) };
        (!is_null).then_some(datum)
    }

    /// The bytes of a varlena as it is: of a value out of line, those that say where it is.
    pub fn stored(&self, column: i32) -> Option<&[u8]> {
        // SAFETY: a value of the row, which lives as long as the connection; by the callers' queries a varlena.
        self.datum(column).map(|datum| unsafe {
            let start: *const u8 = datum.cast_mut_ptr();
            std::slice::from_raw_parts(start, pgrx::varsize_any(start.cast()))
        })
    }
}

/// SQL text in the database's encoding.
pub fn c_string(sql: &str) -> CString {
    CString::new(encoding::from_utf8_lossy(sql).into_owned()).unwrap_or_else(|_| {
        Report::new(Code::ERRCODE_SYNTAX_ERROR, "text contains a zero character")
            .detail("A zero character would end the SQL statement.")
            .hint("Remove the character.")
            .raise()
    })
}

/// Arguments as the server takes them.
struct Values {
    types: Vec<pg_sys::Oid>,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<std::ffi::c_char>,
}

impl Values {
    fn of(arguments: &[Argument]) -> Self {
        let null = |argument: &Argument| if argument.1.is_none() { b'n' } else { b' ' }.cast_signed();
        Self {
            types: arguments.iter().map(|argument| argument.0).collect(),
            values: arguments.iter().map(|it| it.1.unwrap_or(pg_sys::Datum::null())).collect(),
            nulls: arguments.iter().map(null).collect(),
        }
    }

    fn count(&self) -> i32 {
        i32::try_from(self.types.len()).expect("a handful")
    }
}

thread_local! {
    /// Whether statements only read, by the snapshot that is active.
    static ONLY_READS: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`, whose statements only read, by a snapshot as the server itself reads its catalogs by: of now, where that of
/// the transaction may be older. It may run during a parallel operation.
pub fn by_catalogs<T>(work: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            ONLY_READS.set(self.0);
        }
    }
    let _before = Before(ONLY_READS.replace(true));
    // SAFETY: the snapshot is copied, and taken off below; after an error the transaction, or subtransaction, does it.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetCatalogSnapshot(pg_sys::Oid::from(PG_DEPEND)));
        let result = work();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// Begin of a statement: what its fault point is called.
fn head(sql: &str) -> &str {
    let line = sql.trim_start().lines().next().unwrap_or_default();
    line.char_indices().nth(48).map_or(line, |(end, _)| line[..end].trim_end())
}

/// Runs one statement and hands its rows to `read`, while the connection lasts.
pub fn query<T>(sql: &str, arguments: &[Argument], read: impl FnOnce(&Rows) -> T) -> T {
    let text = c_string(sql);
    let mut given = Values::of(arguments);
    let count = given.count();
    let Values { types, values, nulls } = &mut given;
    // SAFETY: the arrays have as many entries as there are arguments and live through the call.
    connected(sql, read, || unsafe {
        let (types, values) = (types.as_mut_ptr(), values.as_mut_ptr());
        pg_sys::SPI_execute_with_args(
            text.as_ptr(),
            count,
            types,
            values,
            nulls.as_ptr(),
            ONLY_READS.get(),
            0,
        )
    })
}

thread_local! {
    /// Statements of [`prepared`], by their texts.
    static PREPARED: RefCell<HashMap<&'static str, pg_sys::SPIPlanPtr>> = RefCell::default();
}

/// As [`query`], for a text that is always the same: the session keeps its plan, which the server makes again when it must. The
/// joins of the catalogs take longer to plan than to run.
pub fn prepared<T>(sql: &'static str, arguments: &[Argument], read: impl FnOnce(&Rows) -> T) -> T {
    let mut given = Values::of(arguments);
    let count = given.count();
    let Values { types, values, nulls } = &mut given;
    connected(sql, read, || {
        let known = PREPARED.with_borrow(|plans| plans.get(sql).copied());
        let plan = known.unwrap_or_else(|| {
            let text = c_string(sql);
            // SAFETY: as many types as arguments; NULL is asked for. A plan that is kept lives as long as the session.
            let plan = unsafe {
                let plan = pg_sys::SPI_prepare(text.as_ptr(), count, types.as_mut_ptr());
                if plan.is_null() {
                    refuse(pg_sys::SPI_result);
                }
                pg_sys::SPI_keepplan(plan);
                plan
            };
            PREPARED.with_borrow_mut(|plans| plans.insert(sql, plan));
            plan
        });
        // SAFETY: a kept plan, with the arguments that it was made for: the text says how many and of which types.
        unsafe { pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr(), ONLY_READS.get(), 0) }
    })
}

/// Runs a statement in a connection of its own.
fn connected<T>(sql: &str, read: impl FnOnce(&Rows) -> T, execute: impl FnOnce() -> i32) -> T {
    passing::keep();
    // SAFETY: after an error the transaction, or subtransaction, closes the connection. The table is the statement's.
    unsafe {
        pg_sys::SPI_connect();
        fault::point(head(sql));
        let status = execute();
        if status < 0 {
            refuse(status);
        }
        let table = pg_sys::SPI_tuptable;
        let count = if table.is_null() { 0 } else { usize::try_from(pg_sys::SPI_processed).unwrap_or(0) };
        let result = read(&Rows { table, count });
        fault::point("end a statement");
        pg_sys::SPI_finish();
        result
    }
}

fn refuse(status: i32) -> ! {
    Report::new(Code::ERRCODE_INTERNAL_ERROR, "could not run a statement of imgvec's own")
        .detail(format!("The server returned {status}."))
        .raise()
}

/// Runs one statement; returns how many rows it processed.
pub fn run(sql: &str, arguments: &[Argument]) -> u64 {
    query(sql, arguments, |_| {
        // SAFETY: plain read of a variable that the statement has set.
        unsafe { pg_sys::SPI_processed }
    })
}

/// Hands each row of a query to `each`, and has few of them in memory at a time. What the server allocates meanwhile goes after
/// some rows.
pub fn each(sql: &str, mut each: impl FnMut(&Row)) {
    passing::keep();
    let text = c_string(sql);
    let mut context = PgMemoryContexts::new("rows of a query");
    // SAFETY: as in `query`; nothing of the context is kept beyond the rows that are read at once.
    unsafe {
        pg_sys::SPI_connect();
        fault::point("open a cursor");
        let cursor = pg_sys::SPI_cursor_open_with_args(
            std::ptr::null(),
            text.as_ptr(),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null(),
            ONLY_READS.get(),
            0,
        );
        loop {
            pgrx::check_for_interrupts!();
            fault::point("fetch rows of a cursor");
            pg_sys::SPI_cursor_fetch(cursor, true, READ_TOGETHER);
            let (table, count) = (pg_sys::SPI_tuptable, usize::try_from(pg_sys::SPI_processed).unwrap_or(0));
            context.switch_to(|_| Rows { table, count }.iter().for_each(|row| each(&row)));
            context.reset();
            pg_sys::SPI_freetuptable(table);
            if count == 0 {
                break;
            }
        }
        fault::point("close a cursor");
        pg_sys::SPI_cursor_close(cursor);
        pg_sys::SPI_finish();
    }
}

/// What `read` makes of each row.
pub fn rows<T>(sql: &str, arguments: &[Argument], mut read: impl FnMut(&Row) -> T) -> Vec<T> {
    query(sql, arguments, |rows| rows.iter().map(|row| read(&row)).collect())
}

/// What `read` makes of the first row, if there is one.
pub fn first<T>(sql: &str, arguments: &[Argument], read: impl FnOnce(&Row) -> T) -> Option<T> {
    query(sql, arguments, |rows| rows.iter().next().map(|row| read(&row)))
}

/// What `read` makes of each row of a [`prepared`] statement.
pub fn prepared_rows<T>(
    sql: &'static str,
    arguments: &[Argument],
    mut read: impl FnMut(&Row) -> T,
) -> Vec<T> {
    prepared(sql, arguments, |rows| rows.iter().map(|row| read(&row)).collect())
}

/// What `read` makes of the first row of a [`prepared`] statement, if there is one.
pub fn prepared_first<T>(
    sql: &'static str,
    arguments: &[Argument],
    read: impl FnOnce(&Row) -> T,
) -> Option<T> {
    prepared(sql, arguments, |rows| rows.iter().next().map(|row| read(&row)))
}

/// An argument of type `text`.
pub fn text(value: &str) -> Argument {
    use pgrx::IntoDatum;
    (pg_sys::TEXTOID, encoding::from_utf8_lossy(value).as_ref().into_datum())
}

/// An argument of type `oid`.
pub fn oid(value: pg_sys::Oid) -> Argument {
    (pg_sys::OIDOID, Some(pg_sys::Datum::from(value.to_u32())))
}

/// An argument of type `bigint`.
pub fn integer(value: i64) -> Argument {
    (pg_sys::INT8OID, Some(pg_sys::Datum::from(value)))
}

/// An identifier, in quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string constant. The backslash form keeps it right whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A procedure that ends transactions, from its CALL to its end.
pub struct Procedure(());

impl Procedure {
    /// Begins, unless the call stands in a transaction block or in a function.
    ///
    /// # Safety
    /// The call's own data.
    pub unsafe fn begin(call: pg_sys::FunctionCallInfo) -> Option<Self> {
        // SAFETY: by contract; the node is a CallContext if its tag says so.
        unsafe {
            let context = (*call).context;
            let is_atomic = context.is_null()
                || (*context).type_ != pg_sys::NodeTag::T_CallContext
                || (*context.cast::<pg_sys::CallContext>()).atomic;
            if is_atomic {
                return None;
            }
            pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC.cast_signed());
        }
        Some(Self(()))
    }

    /// Commits what was done, and begins the next transaction, which sees what others commit.
    pub fn commit(&self) {
        fault::point("commit a step");
        // SAFETY: connected as non-atomic by `begin`; no connection above it is open, since each statement closes its own.
        unsafe {
            pg_sys::SPI_commit();
            pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED.cast_signed();
        }
        fault::point("begin the next step");
    }

    /// Ends the connection. After an error the server does that.
    pub fn end(self) {
        // SAFETY: connected by `begin`.
        unsafe {
            pg_sys::SPI_finish();
        }
    }
}

/// Runs `work` with a snapshot, which values out of line are fetched by, and in a memory context of its own.
pub fn with_snapshot<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: both are put back below; after an error the transaction does it, and the context goes with its parent.
    unsafe {
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"imgvec pipeline".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let before = pg_sys::MemoryContextSwitchTo(context);
        fault::point("take a snapshot");
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = work();
        fault::point("give a snapshot back");
        pg_sys::PopActiveSnapshot();
        pg_sys::MemoryContextSwitchTo(before);
        pg_sys::MemoryContextDelete(context);
        result
    }
}
