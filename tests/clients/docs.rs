//! Every block of code in docs/clients.md stands, line by line, in the program that a comment above it names, and the
//! tests run that program.

use std::fs;

use crate::path;

/// Lines without the indentation that all of them share, and without empty lines at either end.
fn dedented(text: &str) -> Vec<String> {
    let indentation = |line: &&str| line.len() - line.trim_start().len();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let common = lines.map(|line| indentation(&line)).min().unwrap_or(0);
    text.lines().map(|line| line.get(common..).unwrap_or("").trim_end().to_owned()).collect()
}

/// Whether `block` stands in `program` at some depth of indentation.
fn contains(program: &str, block: &str) -> bool {
    let (block, lines) = (dedented(block), program.lines().collect::<Vec<_>>());
    lines.windows(block.len()).any(|window| dedented(&window.join("\n")) == block)
}

#[test]
fn documentation_shows_what_the_programs_do() {
    let text = fs::read_to_string(path("docs/clients.md")).unwrap();
    let (mut blocks, mut source, mut code) = (0, None, None::<String>);
    for line in text.lines() {
        if let Some(block) = &mut code {
            if line == "```" {
                let name: &str = source.take().unwrap_or_else(|| panic!("no source is named for:\n{block}"));
                let program =
                    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(contains(&program, block), "{name} does not contain:\n{block}");
                blocks += 1;
                code = None;
            } else {
                block.push_str(line);
                block.push('\n');
            }
        } else if line.starts_with("```") {
            code = Some(String::new());
        } else if let Some(name) = line.strip_prefix("<!-- from ").and_then(|rest| rest.strip_suffix(" -->"))
        {
            source = Some(name);
        }
    }
    assert!(code.is_none() && source.is_none(), "a block does not end, or a source has no block");
    assert!(blocks >= 16, "only {blocks} blocks of code");
}

#[test]
fn a_changed_line_is_noticed() {
    let program = "begin\n    if a:\n\n        b()\nend\n";
    assert!(contains(program, "if a:\n\n    b()\n"));
    assert!(!contains(program, "if a:\n\n    c()\n"));
    assert!(!contains(program, "if a:\n    b()\n"));
    assert!(!contains(program, "if a:\n\n  b()\n"));
}
