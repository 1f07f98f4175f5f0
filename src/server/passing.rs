//! Errors of the server on their way through our frames, byte for byte.
//!
//! pgrx makes a panic of an error that a call of the server raises, and an error of a panic that leaves a function of ours.
//! In between its texts are Rust's: what is not UTF-8 becomes U+FFFD, and a SQLSTATE that a user made up becomes XX000. So
//! the last callback on the server's stack of error contexts is ours. The server calls it for each error that is made,
//! which is twice for one that passes: at first it notes what would be lost, then it gives it back. Nothing else is
//! changed, so whoever catches an error in between sees what he would have seen.
//!
//! Other ways were worse. To throw the server's copy in place of the panic (`ReThrowError`), each function and callback of ours
//! would need a second guard, which jumps over frames of pgrx. A hook on the log (`emit_log_hook`) sees what is sent, not what a
//! function's EXCEPTION block reads, and sees nothing where the log has no errors. A pgrx of our own would have to be kept.
//!
//! What stays lost, in any encoding, since nothing can put it into its place: the lines of CONTEXT from below our frames, and
//! the names of table, column and constraint beside the message.

use super::raw;
use crate::encoding;
use crate::error::Code;
use pgrx::{PgLogLevel, pg_guard, pg_sys};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_void};

/// Errors that are remembered: of those that are made while one passes, by clean-up that fails itself, few are.
const KEPT: usize = 4;
/// Longer texts pass as pgrx has them.
const MOST_BYTES: usize = 1 << 20;

/// Message, detail and hint.
pub type Parts<T> = [Option<T>; 3];

/// An error as the server had it.
#[derive(PartialEq, Eq)]
struct Original {
    code: i32,
    /// When the statement began that it was made in. In a later one, an error of the same texts is another one.
    statement: i64,
    texts: Parts<CString>,
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
    /// Where the server copies an error to.
    static CONTEXT: Cell<pg_sys::MemoryContext> = const { Cell::new(std::ptr::null_mut()) };
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
            CONTEXT.set(pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                c"imgvec errors".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            ));
        }
        *place = last;
    }
}

/// When the statement of the client began, or the transaction of a worker.
fn current_statement() -> i64 {
    // SAFETY: reads a variable.
    unsafe { pg_sys::GetCurrentStatementStartTimestamp() }
}

/// What the texts of an error of the server were before pgrx read them, in UTF-8; `None` if they are the same, or it is not known.
pub fn originals(code: Code, texts: Parts<&str>) -> Option<Parts<String>> {
    let statement = current_statement();
    let is_same = |original: &Original| {
        Code::from(original.code) == code && original.statement == statement && original.is_left_as(texts)
    };
    NOTED.with_borrow(|noted| {
        let original = noted.iter().find(|original| is_same(original))?;
        let text = |text: &CString| encoding::to_utf8_lossy(text.to_bytes()).into_owned();
        Some(original.texts.each_ref().map(|part| part.as_ref().map(text)))
    })
}

impl Original {
    /// Whether pgrx leaves these texts of it.
    fn is_left_as(&self, texts: Parts<&str>) -> bool {
        self.texts.iter().zip(texts).all(|(original, text)| match (original, text) {
            (Some(original), Some(text)) => original.to_string_lossy() == text,
            (None, None) => true,
            _ => false,
        })
    }
}

/// Called while the server makes an error or another message.
#[pg_guard]
unsafe extern "C-unwind" fn see(_argument: *mut c_void) {
    // In a critical section nothing may be allocated, and the error is the end of all processes.
    // SAFETY: plain read of a counter.
    if unsafe { pg_sys::CritSectionCount } > 0 {
        return;
    }
    let code = raw::error_code();
    let is_made_up = Code::from(code) as i32 != code;
    let may_return =
        Code::from(code) == Code::ERRCODE_INTERNAL_ERROR && NOTED.with_borrow(|noted| !noted.is_empty());
    if encoding::is_utf8() && !is_made_up && !may_return {
        return;
    }
    // SAFETY: in such a callback an error is in the making. Its copy lives until the reset. Texts of the server end with a zero.
    unsafe {
        let context = CONTEXT.get();
        pg_sys::MemoryContextReset(context);
        let before = pg_sys::MemoryContextSwitchTo(context);
        let error = pg_sys::CopyErrorData();
        pg_sys::MemoryContextSwitchTo(before);
        if (*error).elevel == PgLogLevel::ERROR as i32 {
            let texts = [(*error).message, (*error).detail, (*error).hint]
                .map(|text| (!text.is_null()).then(|| CStr::from_ptr(text)));
            let statement = current_statement();
            if let Some((code, texts)) = noted_as(code, statement, texts) {
                raw::rewrite_error(code, texts);
            } else {
                note(code, statement, texts, is_made_up);
            }
        }
        pg_sys::MemoryContextReset(context);
    }
}

/// The error that has come by before, and of which this is left.
fn noted_as(code: i32, statement: i64, texts: Parts<&CStr>) -> Option<(i32, Parts<*const c_char>)> {
    let [message, detail, hint] = texts.map(utf8);
    let texts = [message?, detail?, hint?];
    NOTED.with_borrow(|noted| {
        let is_same = |original: &&Original| {
            Code::from(original.code) as i32 == code
                && original.statement == statement
                && original.is_left_as(texts)
        };
        let original = noted.iter().find(is_same)?;
        let pointers = original.texts.each_ref().map(|text| text.as_ref().map(|text| text.as_ptr()));
        Some((original.code, pointers))
    })
}

/// A text in UTF-8, which is what pgrx leaves.
fn utf8(text: Option<&CStr>) -> Option<Option<&str>> {
    text.map(CStr::to_str).transpose().ok()
}

/// Notes an error that would lose something.
fn note(code: i32, statement: i64, texts: Parts<&CStr>, is_made_up: bool) {
    let bytes = || texts.iter().flatten().map(|text| text.to_bytes());
    let is_plain = encoding::is_utf8() || bytes().all(<[u8]>::is_ascii);
    if is_plain && !is_made_up || bytes().map(<[u8]>::len).sum::<usize>() > MOST_BYTES {
        return;
    }
    let original = Original { code, statement, texts: texts.map(|text| text.map(CStr::to_owned)) };
    NOTED.with_borrow_mut(|noted| {
        noted.retain(|other| *other != original);
        noted.truncate(KEPT - 1);
        noted.push_front(original);
    });
}
