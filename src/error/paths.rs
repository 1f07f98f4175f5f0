//! Paths of the server in errors: complete for roles that may read its files, file names for others.

use super::Report;
use crate::guc;
use pgrx::pg_sys;
use std::borrow::Cow;
use std::path::PathBuf;

/// Whether the current role may see paths of the server.
pub fn may_see_paths() -> bool {
    // pg_read_server_files, of pg_authid.dat.
    let role = pg_sys::Oid::from(4569);
    // SAFETY: catalog look-ups inside a transaction, where every function call is.
    unsafe { pg_sys::has_privs_of_role(pg_sys::GetUserId(), role) }
}

/// The report as the current role may see it: for a file of a model, the model's name and the path in the
/// model's directory; for any other file, its name.
pub fn for_role(report: Report) -> Report {
    if may_see_paths() {
        return report;
    }
    let mut known: Vec<PathBuf> = guc::model_path();
    known.extend(guc::cache_directory());
    known.extend(known.clone().iter().filter_map(|path| path.canonicalize().ok()));
    let mut known: Vec<String> = known.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    // The longest first, since one may lie in another.
    known.sort_by_key(|path| std::cmp::Reverse(path.len()));
    report.map(|text| without_paths(text, &known))
}

/// `text` with paths below `known` shortened to what follows, and all others to their last part.
fn without_paths(text: String, known: &[String]) -> String {
    let shortened = known.iter().filter(|path| path.len() > 1).fold(text, |text, path| {
        let path = path.trim_end_matches('/');
        text.replace(&format!("{path}/"), "")
    });
    let mut result = String::with_capacity(shortened.len());
    let mut rest = shortened.as_str();
    let mut before = ' ';
    while let Some(start) = rest.find('/') {
        result.push_str(&rest[..start]);
        before = rest[..start].chars().next_back().unwrap_or(before);
        let path = &rest[start..];
        // A slash within a word starts no path.
        let starts = !(before.is_alphanumeric() || matches!(before, '.' | '_' | '-'));
        let length = if !starts {
            1
        } else if matches!(before, '"' | '\'') {
            path.find(before).unwrap_or(path.len())
        } else {
            path.find(|end: char| {
                end.is_whitespace() || matches!(end, '"' | '\'' | ',' | ';' | ')' | ']' | ':')
            })
            .unwrap_or(path.len())
        };
        let path = &path[..length];
        result.push_str(if starts { last_part(path) } else { path });
        before = path.chars().next_back().unwrap_or(before);
        rest = &rest[start + length..];
    }
    result.push_str(rest);
    result
}

fn last_part(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

/// `text` without characters that a text value cannot hold or a terminal would obey.
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_odd = |letter: char| letter.is_control() && !matches!(letter, '\n' | '\t');
    if text.contains(is_odd) { Cow::Owned(text.replace(is_odd, "\u{fffd}")) } else { Cow::Borrowed(text) }
}
