//! Storage options of an index: `WITH (ef_search = 120)`. A session's settings override them.
//!
//! The options of pgvector's hnsw are accepted without an effect, with a notice. So object-relational
//! mappers and migrations only need to replace the word in `USING hnsw`.

use crate::error::Report;
use crate::guc;
use crate::storage::{Pages, Relation};
use imgvec_ann::{AccessError, Index};
use pgrx::pg_sys::errcodes::PgSqlErrorCode as Code;
use pgrx::pg_sys::relopt_type::{RELOPT_TYPE_INT, RELOPT_TYPE_REAL, RELOPT_TYPE_STRING};
use pgrx::{FromDatum, pg_guard, pg_sys};
use std::cell::Cell;
use std::convert::Infallible;
use std::ffi::CStr;
use std::mem::offset_of;
use std::ptr;

/// Share of the nearest rows that searches should find, unless a setting says otherwise.
const DEFAULT_TARGET_RECALL: f64 = 0.95;

/// As the server stores parsed options: a varlena, then each value where the table below says.
#[derive(Clone, Copy)]
#[repr(C)]
struct Stored {
    varlena_header: i32,
    ef_search: i32,
    max_scan_rows: i32,
    target_recall: f64,
    m: i32,
    ef_construction: i32,
    /// Where the name lies, in bytes from the start; 0 for none.
    model: i32,
}

/// What an index may be told.
const EFFECTIVE: [&str; 4] = ["ef_search", "max_scan_rows", "target_recall", "model"];
/// What it may be told to no effect, with the limits that hnsw has.
const IGNORED: [(&str, &CStr, i32, i32); 2] =
    [("m", c"m", 2, 100), ("ef_construction", c"ef_construction", 4, 1000)];

thread_local! {
    static KIND: Cell<pg_sys::relopt_kind::Type> = const { Cell::new(0) };
}

/// Registers the options; once in each process.
pub fn define() {
    // SAFETY: static NUL-terminated strings; the server copies them.
    unsafe {
        let kind = pg_sys::add_reloption_kind();
        let lock = pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE;
        pg_sys::add_int_reloption(
            kind,
            c"ef_search".as_ptr(),
            c"How far a search looks ahead; 0 takes what target_recall needs".as_ptr(),
            0,
            0,
            guc::MAX_EF_SEARCH,
            lock,
        );
        pg_sys::add_int_reloption(
            kind,
            c"max_scan_rows".as_ptr(),
            c"Rows after which a scan of the index ends; 0 stands for no limit".as_ptr(),
            0,
            0,
            i32::MAX,
            lock,
        );
        pg_sys::add_real_reloption(
            kind,
            c"target_recall".as_ptr(),
            c"Share of the nearest rows that a search should find; 0 uses the setting".as_ptr(),
            0.0,
            0.0,
            guc::MAX_TARGET_RECALL,
            lock,
        );
        // It changes what is refused, not what is found, and so waits for nobody.
        pg_sys::add_string_reloption(
            kind,
            c"model".as_ptr(),
            c"Model that made the embeddings; queries by another model are refused".as_ptr(),
            std::ptr::null(),
            None,
            pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE,
        );
        for (_, name, least, most) in IGNORED {
            let text = c"No effect: for statements that were written for hnsw";
            pg_sys::add_int_reloption(kind, name.as_ptr(), text.as_ptr(), least, least, most, lock);
        }
        KIND.set(kind);
    }
}

/// Parses and checks the options of an index.
#[pg_guard]
pub unsafe extern "C-unwind" fn amoptions(options: pg_sys::Datum, validate: bool) -> *mut pg_sys::bytea {
    #[allow(clippy::needless_update, reason = "PostgreSQL 18 has one field more")]
    let entry = |name: &'static std::ffi::CStr, kind, offset: usize| pg_sys::relopt_parse_elt {
        optname: name.as_ptr(),
        opttype: kind,
        offset: i32::try_from(offset).expect("a small struct"),
        ..Default::default()
    };
    let table = [
        entry(c"ef_search", RELOPT_TYPE_INT, offset_of!(Stored, ef_search)),
        entry(c"max_scan_rows", RELOPT_TYPE_INT, offset_of!(Stored, max_scan_rows)),
        entry(c"target_recall", RELOPT_TYPE_REAL, offset_of!(Stored, target_recall)),
        entry(c"m", RELOPT_TYPE_INT, offset_of!(Stored, m)),
        entry(c"ef_construction", RELOPT_TYPE_INT, offset_of!(Stored, ef_construction)),
        entry(c"model", RELOPT_TYPE_STRING, offset_of!(Stored, model)),
    ];
    if validate {
        // SAFETY: the server passes an array of texts, or zero.
        check_names(
            unsafe { Vec::<Option<String>>::from_datum(options, options.is_null()) }.unwrap_or_default(),
        );
    }
    // SAFETY: the table's offsets are those of Stored, whose size is told.
    unsafe {
        let parsed = pg_sys::build_reloptions(
            options,
            validate,
            KIND.get(),
            size_of::<Stored>(),
            table.as_ptr(),
            i32::try_from(table.len()).expect("a few"),
        );
        if parsed.is_null() { ptr::null_mut() } else { parsed.cast() }
    }
}

/// Refuses names that are none of an index's, and gives a notice for those that have no effect. An option is `name=value`.
fn check_names(options: Vec<Option<String>>) {
    let names = options.iter().flatten().filter_map(|option| option.split('=').next());
    let mut without_effect = Vec::new();
    for name in names {
        if IGNORED.iter().any(|(ignored, ..)| *ignored == name) {
            without_effect.push(format!("\"{name}\""));
        } else if !EFFECTIVE.contains(&name) {
            Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, format!("unrecognized parameter \"{name}\""))
                .detail("An ann index has no such option.")
                .hint(format!("Its options are {}.", EFFECTIVE.join(", ")))
                .raise();
        }
    }
    if !without_effect.is_empty() {
        let verb = if without_effect.len() == 1 { "has" } else { "have" };
        Report::new(
            Code::ERRCODE_SUCCESSFUL_COMPLETION,
            format!("{} {verb} no effect on an ann index", without_effect.join(" and ")),
        )
        .hint(
            "An ann index has no such parameters of its graph. To find more of the nearest rows, set target_recall.",
        )
        .notice();
    }
}

fn stored(index: Relation) -> Option<Stored> {
    // SAFETY: amoptions fills this struct.
    unsafe { index.options::<Stored>() }
}

/// How far a search of an index looks ahead: the session's `ef_search`, else the index's, else what its target of recall
/// needs, which the session, the index or the default tells, in this order.
///
/// # Errors
/// [`AccessError`] if the index is damaged.
pub fn lookahead(pages: &Pages) -> Result<usize, AccessError<Infallible>> {
    let options = stored(pages.relation());
    let fixed = guc::ef_search()
        .or_else(|| options.and_then(|s| usize::try_from(s.ef_search).ok()).filter(|&ahead| ahead > 0));
    let target = guc::target_recall()
        .or_else(|| options.map(|s| s.target_recall).filter(|&target| target > 0.0))
        .unwrap_or(DEFAULT_TARGET_RECALL);
    fixed.map_or_else(|| Index::lookahead(pages, target), Ok)
}

/// Rows after which a scan ends; `None` for no limit.
pub fn max_scan_rows(index: Relation) -> Option<u64> {
    guc::max_scan_rows()
        .or_else(|| stored(index).and_then(|s| u64::try_from(s.max_scan_rows).ok()).filter(|&rows| rows > 0))
}

/// The model that an index was told of.
pub fn model(index: Relation) -> Option<String> {
    let place =
        stored(index).and_then(|options| usize::try_from(options.model).ok()).filter(|&place| place > 0)?;
    // SAFETY: the server put the NUL-terminated string there when it parsed the options, and keeps them with the relation.
    let name = unsafe { CStr::from_ptr((*index.as_raw()).rd_options.cast::<std::ffi::c_char>().add(place)) };
    Some(crate::encoding::to_utf8_lossy(name.to_bytes()).into_owned()).filter(|name| !name.is_empty())
}
