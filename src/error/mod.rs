//! The one place that raises errors. A [`Report`] has SQLSTATE, message, detail and hint.
//!
//! The crates return small enums of facts. The modules here turn them into messages. All other code calls
//! [`OrRaise::or_raise`].

pub mod encoder;
pub mod image;
pub mod index;
pub mod package;
pub mod paths;
pub mod pipeline;
pub mod vector;

use crate::encoding;
use crate::server::passing;
pub use pgrx::pg_sys::errcodes::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, function_name, pg_sys};
use std::borrow::Cow;
#[cfg(not(any(feature = "pg14", feature = "pg15")))]
use std::ffi::CString;

/// An error as a user sees it. Style: primary message in lower case without a period, detail and hint
/// whole sentences.
#[derive(Debug)]
pub struct Report {
    code: Code,
    /// Where it was caught: what goes beyond code and texts of the error that it was, or comes from.
    origin: Option<Box<passing::Origin>>,
    /// Whether it was caught, and neither the server's handling of interrupts nor we have raised it: a function of a user may
    /// raise an error with any code.
    is_foreign: bool,
    message: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl Report {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, origin: None, is_foreign: false, message: message.into(), detail: None, hint: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds a sentence after the detail.
    pub fn detail_after(mut self, sentence: &str) -> Self {
        self.detail = Some(match self.detail {
            Some(detail) => format!("{detail} {sentence}"),
            None => sentence.to_owned(),
        });
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The SQLSTATE.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The SQLSTATE's five characters.
    pub fn sqlstate(&self) -> String {
        let code = self.origin.as_ref().map_or(self.code as i32, |origin| origin.number);
        (0..5)
            .map(|place| char::from(u8::try_from((code >> (6 * place)) & 0x3f).unwrap_or(0) + b'0'))
            .collect()
    }

    /// Whether the statement was canceled, which is not a failure of the row or the model.
    pub fn is_interrupt(&self) -> bool {
        !self.is_foreign
            && matches!(self.sqlstate().as_str(), "57014" | "57P01" | "57P02" | "57P03" | "57P05")
    }

    /// The report with each of its texts changed.
    fn map(self, change: impl Fn(String) -> String) -> Self {
        Self {
            code: self.code,
            origin: self.origin,
            is_foreign: self.is_foreign,
            message: change(self.message),
            detail: self.detail.map(&change),
            hint: self.hint.map(&change),
        }
    }

    fn report(self, level: PgLogLevel) {
        let this = self.map(|text| outgoing(paths::printable(&text).into_owned()));
        let mut report = ErrorReport::new(this.code, this.message, function_name!());
        if let Some(detail) = this.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = this.hint {
            report = report.set_hint(hint);
        }
        report.report(level);
    }

    /// The error in one paragraph, for a column of a view.
    pub fn summary(&self) -> String {
        let parts = [self.detail.as_deref(), self.hint.as_deref()];
        parts.into_iter().flatten().fold(format!("{}.", self.message), |text, part| text + " " + part)
    }

    /// Raises the error: unwinds to the server, running every `Drop` on the way.
    pub fn raise(mut self) -> ! {
        if let Some(origin) = self.origin.take() {
            passing::word(&paths::printable(&self.message), *origin);
        }
        self.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }

    /// Saves the error if the caller continues without the value (soft errors, PostgreSQL 16), or else raises it.
    ///
    /// # Safety
    /// `context` is the context of a function call.
    pub unsafe fn save_or_raise(self, context: *mut pg_sys::Node) {
        #[cfg(not(any(feature = "pg14", feature = "pg15")))]
        // SAFETY: by contract; a call's context is NULL or a node.
        if let Some(node) = unsafe { context.as_ref() }
            && node.type_ == pg_sys::NodeTag::T_ErrorSaveContext
        {
            // SAFETY: the node is what its tag says.
            return unsafe { self.save(context) };
        }
        #[cfg(any(feature = "pg14", feature = "pg15"))]
        let _ = context;
        self.raise()
    }

    /// # Safety
    /// `context` is an ErrorSaveContext.
    #[cfg(not(any(feature = "pg14", feature = "pg15")))]
    unsafe fn save(self, context: *mut pg_sys::Node) {
        unsafe extern "C-unwind" {
            // The server's utils/elog.h, which pgrx does not bind. None of them raises an error while one is saved.
            fn errcode(code: std::ffi::c_int) -> std::ffi::c_int;
            fn errmsg(format: *const std::ffi::c_char, ...) -> std::ffi::c_int;
            fn errdetail(format: *const std::ffi::c_char, ...) -> std::ffi::c_int;
            fn errhint(format: *const std::ffi::c_char, ...) -> std::ffi::c_int;
        }
        let text = |text: String| {
            CString::new(outgoing(paths::printable(&text).replace('\0', " "))).unwrap_or_default()
        };
        let [message, detail, hint] = [Some(self.message), self.detail, self.hint].map(|part| part.map(text));
        // SAFETY: start, parts, finish, as the server's macro errsave() does; strings end with a zero and are copied.
        unsafe {
            if pg_sys::errsave_start(context, std::ptr::null()) {
                errcode(self.code as std::ffi::c_int);
                let pointer = |part: &CString| part.as_ptr();
                message.as_ref().map(pointer).map(|text| errmsg(c"%s".as_ptr(), text));
                detail.as_ref().map(pointer).map(|text| errdetail(c"%s".as_ptr(), text));
                hint.as_ref().map(pointer).map(|text| errhint(c"%s".as_ptr(), text));
                pg_sys::errsave_finish(context, c"imgvec".as_ptr(), 0, c"imgvec".as_ptr());
            }
        }
    }

    /// Sends it as a WARNING and returns.
    pub fn warn(self) {
        self.report(PgLogLevel::WARNING);
    }

    /// Writes it to the server's log and returns.
    #[cfg(debug_assertions)]
    pub fn log(self) {
        self.report(PgLogLevel::LOG);
    }

    /// Sends it as an INFO message and returns.
    pub fn info(self) {
        self.report(PgLogLevel::INFO);
    }

    /// Sends it as a NOTICE and returns.
    pub fn notice(self) {
        self.report(PgLogLevel::NOTICE);
    }
}

/// An error that was caught, ours or the server's. Call it after the rollback of what failed, because its texts may need
/// the catalogs.
impl From<pg_sys::panic::CaughtError> for Report {
    fn from(error: pg_sys::panic::CaughtError) -> Self {
        use pg_sys::panic::CaughtError;
        let is_of_the_server = matches!(error, CaughtError::PostgresError(_));
        let is_ours = matches!(error, CaughtError::ErrorReport(_));
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = error;
        // Such as ProcessInterrupts, or a function of this crate.
        let is_known = |function: &str| function.contains("Interrupt") || function.starts_with("imgvec");
        let code = report.sql_error_code();
        let texts = [Some(report.message()), report.detail(), report.hint()];
        let original = if is_of_the_server { passing::caught(code, texts) } else { None };
        let (texts, origin) = match original {
            Some((texts, origin)) => (texts, Some(origin)),
            // See `outgoing`.
            None if is_ours => {
                let texts = texts.map(|text| text.map(|text| incoming(text).into_owned()));
                let origin = texts[0].as_deref().and_then(passing::origin_of);
                (texts, origin)
            }
            None => (texts.map(|text| text.map(str::to_owned)), None),
        };
        let [message, detail, hint] = texts;
        Self {
            code,
            origin: origin.map(Box::new),
            is_foreign: !report.function_name().is_some_and(is_known),
            message: message.unwrap_or_default(),
            detail,
            hint,
        }
    }
}

/// Replaces the panic hook of pgrx. That one adds a backtrace of the build machine to an error's
/// detail if the server's environment has `RUST_BACKTRACE`, and it allocates while memory is short.
/// Our errors are complete without it. A real panic is a bug, and its source position goes to the server's log.
pub fn quiet_panics() {
    use std::io::Write as _;
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        if let Some(pg_sys::panic::CaughtError::PostgresError(error)) = payload.downcast_ref() {
            passing::note_panic(
                error.sql_error_code(),
                [Some(error.message()), error.detail(), error.hint()],
            );
        }
        if payload.is::<&str>() || payload.is::<String>() {
            // If the log cannot be written, there is no other place to report that.
            let _ = writeln!(std::io::stderr(), "imgvec: {panic}");
        }
    }));
}

/// The system refused memory.
pub fn out_of_memory(detail: impl Into<String>) -> Report {
    Report::new(Code::ERRCODE_OUT_OF_MEMORY, "out of memory").detail(detail).hint(
        "Run fewer sessions at a time, or have an administrator raise the limits on memory of the server's \
         system user.",
    )
}

/// What [`outgoing`] has made, in UTF-8 again.
fn incoming(text: &str) -> Cow<'_, str> {
    if encoding::is_utf8() { Cow::Borrowed(text) } else { encoding::to_utf8_lossy(text.as_bytes()) }
}

/// A text in the database's encoding, in the type that pgrx wants.
fn outgoing(text: String) -> String {
    match encoding::from_utf8_lossy(&text) {
        Cow::Borrowed(_) => text,
        // SAFETY: not UTF-8, which is no more than a promise to whoever takes the characters apart. Nobody does: pgrx
        // copies the bytes of a report into memory of the server (`do_ereport` of the pinned version), or `incoming`
        // reads them.
        Cow::Owned(bytes) => unsafe { String::from_utf8_unchecked(bytes) },
    }
}

/// A call that stopped for an interrupt that is no longer pending. While it is pending, the interrupt check raises
/// the server's own error first.
pub fn interrupted() -> Report {
    Report::new(Code::ERRCODE_QUERY_CANCELED, "canceling statement due to an interrupt")
}

/// Unwrapping that raises an error with a message.
pub trait OrRaise<T> {
    /// The value, or the error raised.
    fn or_raise(self) -> T;
}

impl<T, E: Into<Report>> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => error.into().raise(),
        }
    }
}
