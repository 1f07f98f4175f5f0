//! Every call into the server passes pgrx's boundary, and every call from it a guard: an error that jumps over a Rust
//! frame is undefined behavior. Reads the sources, so that a new call of that kind fails here.

use std::fs;
use std::path::{Path, PathBuf};

/// Where calls that may raise an error are wrapped.
const WRAPPED: &str = "src/server/raw.rs";

/// Functions that raise no error, and so need no boundary, with the file that declares them.
const HARMLESS: [(&str, &str); 10] = [
    // They compute from bytes, and allocate nothing.
    ("src/types/datum/number.rs", "float_to_shortest_decimal_bufn"),
    ("src/types/datum/number.rs", "hash_bytes"),
    ("src/types/datum/number.rs", "hash_bytes_extended"),
    // They fill in an error that is saved, not raised.
    ("src/error/mod.rs", "errcode"),
    ("src/error/mod.rs", "errmsg"),
    ("src/error/mod.rs", "errdetail"),
    ("src/error/mod.rs", "errhint"),
    // The C library's.
    ("src/server/process.rs", "nice"),
    ("src/server/process.rs", "_exit"),
    ("src/memory.rs", "malloc_trim"),
];

/// Called by the server without a guard, since the server's jump leaves it by intent, with nothing to drop.
const UNGUARDED: (&str, &str) = ("src/server/passing.rs", "fn see(");

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What is wrong with a source file.
fn findings(name: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    let mut find = |number: usize, what: &str| {
        findings.push(format!("{name}:{}: {what}: {}", number + 1, lines[number].trim()));
    };
    let mut foreign = false;
    for (number, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if code.contains("extern \"C") && code.trim_end().ends_with('{') && !code.contains("fn ") {
            foreign = true;
            continue;
        }
        if foreign {
            foreign = code.trim() != "}";
            let function = code.split("fn ").nth(1).and_then(|rest| rest.split('(').next());
            if let Some(function) = function {
                let is_harmless = HARMLESS.contains(&(name, function));
                if name != WRAPPED && !is_harmless {
                    find(number, "declares a function of the server without a guard");
                }
            }
            continue;
        }
        if code.contains("extern \"C") && code.contains("fn ") {
            let is_type = code.contains("fn(");
            let guarded = (number.saturating_sub(3)..number).any(|n| lines[n].contains("pg_guard]"));
            let is_known = name == UNGUARDED.0 && code.contains(UNGUARDED.1);
            if !is_type && !guarded && !is_known {
                find(number, "is called by the server without #[pg_guard]");
            }
        }
        if name == WRAPPED {
            continue;
        }
        // A callback is an Option of a function: it is unwrapped, called through a field, or named by its type.
        let calls = code.contains(")(") || code.contains("?(");
        let is_callback = code.contains("unwrap()(") || code.contains("expect(") && calls;
        let through_field = code.contains("(*") && code.contains(").") && code.contains(")(");
        // Rust's own hook on panics is none of the server's.
        let is_hook = code.contains("_hook") && !code.contains("panic::set_hook");
        if is_callback || through_field || code.contains("Callback::Some") || is_hook {
            find(number, "calls a function pointer of the server");
        }
    }
    findings
}

#[test]
fn no_error_of_the_server_jumps_over_a_rust_frame() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    assert!(files.len() > 30, "{files:?}");
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        found.extend(findings(&name, &fs::read_to_string(&file).unwrap()));
    }
    assert!(found.is_empty(), "wrap these in {WRAPPED}:\n{}", found.join("\n"));
}

#[test]
fn the_search_finds_what_it_is_for() {
    for (what, text) in [
        ("a declaration", "unsafe extern \"C\" {\n    fn heap_open(oid: u32) -> u32;\n}"),
        ("a callback", "let dead = callback.expect(\"passed\")(&raw mut pointer, state);"),
        ("a callback of a struct", "((*routine).ambuild.unwrap())(heap, index, info);"),
        ("a callback that is not guarded", "pub unsafe extern \"C-unwind\" fn aminsert() {}"),
    ] {
        assert_eq!(findings("src/am/new.rs", text).len(), 1, "{what}");
    }
    let guarded = "#[pg_guard]\npub unsafe extern \"C-unwind\" fn aminsert() {}";
    assert_eq!(findings("src/am/new.rs", guarded), Vec::<String>::new());
}
