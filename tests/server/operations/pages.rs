//! SQL that the pages in `docs/` show. A block's first line is "```sql" and a label; tests run the blocks with a
//! label in the order of the page, so that nothing is recommended that does not work.

use std::fs;
use std::path::Path;

/// Labels of blocks that no test runs: Citus is not at hand.
const NOT_RUN: [&str; 1] = ["citus"];

/// Labels and contents of all SQL blocks of a page.
pub(crate) fn all_blocks(page: &str) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(label) = line.strip_prefix("```sql") {
            let content: Vec<_> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            blocks.push((label.trim().to_owned(), content.join("\n")));
        }
    }
    blocks
}

/// The blocks of a page that have this label.
///
/// # Panics
/// If there is none.
pub(crate) fn blocks(page: &str, label: &str) -> Vec<String> {
    let found: Vec<_> =
        all_blocks(page).into_iter().filter(|block| block.0 == label).map(|block| block.1).collect();
    assert!(!found.is_empty(), "{page} has no SQL block labeled {label}");
    found
}

/// The statements of a block, without the comments at their ends.
pub(crate) fn statements(block: &str) -> Vec<String> {
    let code: Vec<_> = block.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    code.join("\n").split(';').map(|sql| sql.trim().to_owned()).filter(|sql| !sql.is_empty()).collect()
}

#[test]
fn every_block_of_sql_is_run_by_a_test() {
    let sources = ["partitions.rs", "replication.rs", "shards.rs"].map(|file| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/operations").join(file);
        fs::read_to_string(path).unwrap()
    });
    for (label, content) in all_blocks("scaling-out.md") {
        let is_run =
            sources.iter().any(|source| source.contains(&format!("blocks(\"scaling-out.md\", \"{label}\")")));
        assert!(is_run || NOT_RUN.contains(&label.as_str()), "label {label:?} is run by no test:\n{content}");
    }
}
