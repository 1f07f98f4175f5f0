//! Errors of the server on their way through our frames: they leave as they came.
//!
//! pgrx makes a panic of an error that a call of the server raises, and an error of a panic that leaves a function of ours.
//! In between, the error is Rust's: text that is not UTF-8 becomes U+FFFD, a SQLSTATE that a user made up becomes XX000. The lines
//! of CONTEXT from below our frames go, and so do the names of schema, table, column, data type and constraint. So the last callback
//! on the server's stack of error contexts is ours. The server calls it for each error that is made, when all else is known of it.
//! For an error that passes, that is twice. At first we copy it. Then the copy takes the place of what pgrx has made.
//!
//! [`note_panic`] distinguishes the two times: between them lies a panic. Without it, a line of a user's function that raises the
//! same error twice would get the first one's context at its second time.
//!
//! An error that we catch and raise later, maybe in other words, keeps its number, names and context in an [`Origin`].
//!
//! Other ways were worse. To throw the server's copy in place of the panic, each function and callback of ours would need a second
//! guard. A hook on the log (`emit_log_hook`) sees what is sent, not what a function's EXCEPTION block reads, and sees nothing
//! where the log has no errors. A pgrx of our own would have to be kept.
//!
//! Two kinds of errors pass as pgrx has them: those whose texts are longer than [`MOST_BYTES`], and in a UTF-8 database those that
//! say that memory is exhausted.

use super::raw;
use crate::encoding;
use crate::error::Code;
use pgrx::{PgLogLevel, pg_guard, pg_sys};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_void};

/// Errors that are remembered: of those that are made while one passes, by clean-up that fails itself, few are.
const KEPT: usize = 4;
/// Of message, detail, hint and context together.
const MOST_BYTES: usize = 1 << 20;

/// Message, detail and hint.
pub type Parts<T> = [Option<T>; 3];

/// An error as the server had it: a copy in a context of its own.
struct Original {
    context: pg_sys::MemoryContext,
    error: *mut pg_sys::ErrorData,
    /// When the statement began that it was made in. In a later one, an error of the same texts is another one.
    statement: i64,
    /// Whether it is a panic now.
    is_panic: bool,
}

/// What a reworded error keeps of the one that it comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The SQLSTATE, in the server's way. A user may have made it up.
    pub number: i32,
    /// Names of schema, table, column, data type and constraint.
    names: [Option<CString>; 5],
    /// The lines of CONTEXT, from the innermost to the outermost.
    context: Option<CString>,
}

/// The last callback. The server reads it, and [`keep`] compares its address.
struct Last(UnsafeCell<pg_sys::ErrorContextCallback>);

// SAFETY: only the thread that runs SQL has a stack of error contexts.
unsafe impl Sync for Last {}

static LAST: Last = Last(UnsafeCell::new(pg_sys::ErrorContextCallback {
    previous: std::ptr::null_mut(),
    callback: Some(see),
    arg: std::ptr::null_mut(),
}));

thread_local! {
    /// The newest first.
    static NOTED: RefCell<VecDeque<Original>> = const { RefCell::new(VecDeque::new()) };
    /// Parent of the contexts of copies.
    static CONTEXT: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
    /// The message of an error of ours that is on its way, and where it comes from.
    static WORDED: RefCell<Option<(String, Origin)>> = const { RefCell::new(None) };
}

/// Has the errors that are made from now on pass as they are. It lasts until the next error that ends a statement, when the
/// server empties its stack; so whatever may call code of users calls this first.
pub fn keep() {
    // SAFETY: the stack's callbacks live as long as they are on it. Ours always lives, and stays below all others, so that no
    // other is ever reached through it.
    unsafe {
        let last = LAST.0.get();
        let mut place = &raw mut pg_sys::error_context_stack;
        while !(*place).is_null() {
            if *place == last {
                return;
            }
            place = &raw mut (**place).previous;
        }
        if CONTEXT.get().is_null() {
            CONTEXT.set(new_context(pg_sys::TopMemoryContext));
        }
        *place = last;
    }
}

/// # Safety
/// A context that lives.
unsafe fn new_context(parent: pg_sys::MemoryContext) -> pg_sys::MemoryContext {
    // SAFETY: by contract; a constant name.
    unsafe {
        pg_sys::AllocSetContextCreateInternal(
            parent,
            c"imgvec error".as_ptr(),
            pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
            pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
            pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
        )
    }
}

/// When the statement of the client began, or the transaction of a worker.
fn current_statement() -> i64 {
    // SAFETY: reads a variable.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// To be called by the hook on panics: an error of the server has become one.
pub fn note_panic(code: Code, texts: Parts<&str>) {
    let _ = NOTED.try_with(|noted| {
        if let Ok(mut noted) = noted.try_borrow_mut()
            && let Some(original) = noted.iter_mut().find(|original| original.is(code, texts))
        {
            original.is_panic = true;
        }
    });
}

/// What the texts of an error of the server that was caught were before pgrx read them, in UTF-8, and where an error comes from
/// that is made of it; `None` if it is not known.
pub fn caught(code: Code, texts: Parts<&str>) -> Option<(Parts<String>, Origin)> {
    NOTED.with_borrow_mut(|noted| {
        let original = noted.iter_mut().find(|original| original.is(code, texts))?;
        original.is_panic = false;
        let text = |text: &CStr| encoding::to_utf8_lossy(text.to_bytes()).into_owned();
        Some((original.texts().map(|part| part.map(text)), original.origin()))
    })
}

/// Has the next error with this message leave with what the one had that it comes from.
pub fn word(message: &str, origin: Origin) {
    WORDED.set(Some((message.to_owned(), origin)));
}

/// Where an error of ours comes from that was caught.
pub fn origin_of(message: &str) -> Option<Origin> {
    WORDED.with_borrow_mut(|worded| worded.take_if(|(of, _)| of == message)).map(|(_, origin)| origin)
}

/// # Safety
/// NULL, or a text that ends with a zero and lives as long as the answer.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: by contract.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}

/// # Safety
/// An error of the server, with texts that live as long as the answer.
unsafe fn texts<'a>(error: *const pg_sys::ErrorData) -> Parts<&'a CStr> {
    // SAFETY: by contract.
    unsafe { [(*error).message, (*error).detail, (*error).hint].map(|part| text(part)) }
}

impl Original {
    fn texts(&self) -> Parts<&CStr> {
        // SAFETY: the copy lives in our context, until `forget`.
        unsafe { texts(self.error) }
    }

    /// Whether it is this one, of which pgrx has left these texts.
    fn is(&self, code: Code, texts: Parts<&str>) -> bool {
        // SAFETY: as above.
        let own = unsafe { (*self.error).sqlerrcode };
        Code::from(own) == code
            && self.statement == current_statement()
            && self.texts().iter().zip(texts).all(|(original, text)| match (original, text) {
                (Some(original), Some(text)) => original.to_string_lossy() == text,
                (None, None) => true,
                _ => false,
            })
    }

    /// Whether pgrx has made this error of it: texts and place are what it left of them.
    ///
    /// # Safety
    /// An error of the server.
    unsafe fn has_become(&self, error: *const pg_sys::ErrorData) -> bool {
        // SAFETY: by contract, and as above.
        unsafe {
            let [message, detail, hint] = texts(error).map(utf8);
            let (Some(message), Some(detail), Some(hint)) = (message, detail, hint) else { return false };
            self.is_panic
                && (*self.error).lineno == (*error).lineno
                && text((*self.error).filename) == text((*error).filename)
                && self.is(Code::from((*error).sqlerrcode), [message, detail, hint])
        }
    }

    fn origin(&self) -> Origin {
        // SAFETY: as above.
        unsafe {
            let error = &mut *self.error;
            let own = |part: *const c_char| text(part).map(CStr::to_owned);
            let names = names_of(error).map(|name| own(*name));
            Origin { number: error.sqlerrcode, names, context: own(error.context) }
        }
    }

    /// Gives it what the error that it comes from had.
    fn complete(&mut self, origin: &Origin) {
        // SAFETY: as above. The texts are copied to where the error's own are.
        unsafe {
            let error = &mut *self.error;
            let copy = |part: &CString| pg_sys::MemoryContextStrdup(self.context, part.as_ptr());
            error.sqlerrcode = origin.number;
            if let Some(context) = &origin.context {
                error.context = copy(context);
            }
            for (place, name) in names_of(error).into_iter().zip(&origin.names) {
                if let Some(name) = name {
                    *place = copy(name);
                }
            }
        }
    }

    /// Frees the copy. No `Drop` does, which would run when the process ends and the server's memory is gone.
    fn forget(self) {
        // SAFETY: our own context, which nothing else refers to.
        unsafe { pg_sys::MemoryContextDelete(self.context) };
    }
}

fn names_of(error: &mut pg_sys::ErrorData) -> [&mut *mut c_char; 5] {
    [
        &mut error.schema_name,
        &mut error.table_name,
        &mut error.column_name,
        &mut error.datatype_name,
        &mut error.constraint_name,
    ]
}

/// A text in UTF-8, which is what pgrx leaves.
fn utf8(text: Option<&CStr>) -> Option<Option<&str>> {
    text.map(CStr::to_str).transpose().ok()
}

/// Called while the server makes an error or another message. It has no guard of its own, since the way out of it may be
/// the server's jump to whoever catches the error. `consider` has the guard. Nothing here needs a drop.
unsafe extern "C-unwind" fn see(argument: *mut c_void) {
    // SAFETY: in such a callback an error may be thrown in place of the one in the making.
    unsafe {
        let error = consider(argument);
        if !error.is_null() {
            raw::throw_instead(error);
        }
    }
}

/// Answers the error that is to take the place of the one in the making; NULL if it stays.
#[pg_guard]
unsafe extern "C-unwind" fn consider(_argument: *mut c_void) -> *mut pg_sys::ErrorData {
    let nothing = std::ptr::null_mut();
    // In a critical section nothing may be allocated, and the error is the end of all processes.
    // SAFETY: plain read of a counter.
    if unsafe { pg_sys::CritSectionCount } > 0 {
        return nothing;
    }
    let is_out_of_memory = Code::from(raw::error_code()) == Code::ERRCODE_OUT_OF_MEMORY;
    if is_out_of_memory && encoding::is_utf8() {
        return nothing;
    }
    // SAFETY: an error is in the making. Its copy lives in a context of its own, until that is deleted.
    unsafe {
        let context = new_context(CONTEXT.get());
        let before = pg_sys::MemoryContextSwitchTo(context);
        let error = pg_sys::CopyErrorData();
        pg_sys::MemoryContextSwitchTo(before);
        let mut copy = Original { context, error, statement: current_statement(), is_panic: false };
        if (*error).elevel != PgLogLevel::ERROR as i32 {
            copy.forget();
            return nothing;
        }
        let passing = NOTED.with_borrow_mut(|noted| {
            let original = noted.iter_mut().find(|original| original.has_become(error))?;
            original.is_panic = false;
            Some(original.error)
        });
        if let Some(original) = passing {
            copy.forget();
            return original;
        }
        let message = copy.texts()[0].map(|message| encoding::to_utf8_lossy(message.to_bytes()));
        let origin = message.and_then(|message| origin_of(&message));
        if let Some(origin) = &origin {
            copy.complete(origin);
        }
        let noted = note(copy);
        if origin.is_some() { noted } else { nothing }
    }
}

/// Notes an error, which lives as long as the note; answers NULL if its texts are too long.
fn note(copy: Original) -> *mut pg_sys::ErrorData {
    // SAFETY: the copy lives.
    let context = unsafe { text((*copy.error).context) };
    let bytes = copy.texts().into_iter().chain([context]).flatten().map(CStr::count_bytes);
    if bytes.sum::<usize>() > MOST_BYTES {
        copy.forget();
        return std::ptr::null_mut();
    }
    let error = copy.error;
    let old = NOTED.with_borrow_mut(|noted| {
        noted.push_front(copy);
        noted.split_off(KEPT.min(noted.len()))
    });
    old.into_iter().for_each(Original::forget);
    error
}
