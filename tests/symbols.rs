//! The hand-written SQL and the library agree: every C symbol that the SQL names is exported, and every
//! exported function is named by the SQL. That includes every released script: the library serves a database that was
//! not yet upgraded. Otherwise a typing error would wait for its first caller.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn named_by_sql() -> BTreeSet<String> {
    let scripts = ["sql", "sql/released"].map(|directory| {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
    });
    let paths = scripts.into_iter().flatten().map(|entry| entry.expect("the source tree can be read").path());
    let sql: String = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| {
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect();
    sql.split('\'').filter(|literal| literal.ends_with("_wrapper")).map(str::to_owned).collect()
}

/// Functions that the library registers with the server: each has a `pg_finfo_` companion.
fn exported() -> BTreeSet<String> {
    symbols().iter().filter_map(|name| name.strip_prefix("pg_finfo_").map(str::to_owned)).collect()
}

/// All symbols that the library exports.
fn symbols() -> BTreeSet<String> {
    // Cargo puts this program into `deps` beside the library, wherever and in whichever profile it builds.
    let program = std::env::current_exe().expect("this program has a path");
    let library = program.ancestors().nth(2).expect("cargo's folders").join("libimgvec.so");
    let nm = Command::new("nm")
        .args(["--dynamic", "--defined-only", "--format=posix"])
        .arg(&library)
        .output()
        .expect("nm, of binutils, runs");
    assert!(nm.status.success(), "nm {}: {}", library.display(), String::from_utf8_lossy(&nm.stderr));
    String::from_utf8_lossy(&nm.stdout)
        .lines()
        .filter_map(|line| line.split(' ').next().map(str::to_owned))
        .collect()
}

#[test]
fn sql_and_library_name_the_same_functions() {
    let (sql, library) = (named_by_sql(), exported());
    assert!(sql.len() > 40, "found only {} functions in the SQL", sql.len());
    let missing: Vec<_> = sql.difference(&library).collect();
    assert!(missing.is_empty(), "the SQL names functions that the library does not export: {missing:?}");
    let unnamed: Vec<_> = library.difference(&sql).collect();
    assert!(unnamed.is_empty(), "the library exports functions that no SQL names: {unnamed:?}");
}

/// The server makes what a library exports visible to all libraries that come later, and the names of a decoder inside of ours are
/// those of a system library.
#[test]
fn the_library_exports_only_what_the_server_calls() {
    let others: Vec<_> = symbols()
        .into_iter()
        .filter(|name| {
            let is_function = name.starts_with("pg_finfo_") || name.ends_with("_wrapper");
            let is_start = name.starts_with("imgvec_") && name.ends_with("_main");
            !is_function && !is_start && !matches!(name.as_str(), "Pg_magic_func" | "_PG_init")
        })
        .collect();
    assert!(others.is_empty(), "{others:?}");
}
