//! Runs the SQL tests of `tests/pg_regress` with PostgreSQL's own `pg_regress` in a throw-away
//! server, so that they are part of `cargo test`. `make installcheck` runs the same files against
//! a real server.
//!
//! Every `sql/NAME.sql` is a test; they run in alphabetical order in one database that has the
//! extension. To accept a new answer, copy `target/regress/results/NAME.out` to `expected/`.

mod cluster;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use cluster::Cluster;

#[test]
fn sql_gives_the_expected_output() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pg_regress");
    let output = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/regress");
    let mut tests: Vec<OsString> = fs::read_dir(source.join("sql"))
        .expect("tests/pg_regress/sql is there")
        .map(|entry| entry.expect("a directory of the source tree can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| path.file_stem().expect("a file name that ends in .sql has a stem").to_owned())
        .collect();
    tests.sort();
    assert!(!tests.is_empty(), "no SQL test was found");

    let cluster = Cluster::new("regress").start_empty();
    fs::create_dir_all(&output).expect("target can be written");
    let status = cluster
        .command(cluster.stage().pg_regress())
        .arg("--inputdir")
        .arg(&source)
        .arg("--outputdir")
        .arg(&output)
        .arg("--bindir")
        .arg(cluster.stage().config("--bindir"))
        .arg("--host")
        .arg(cluster.directory())
        .args(["--user=postgres", "--dbname=contrib_regression", "--load-extension=imgvec"])
        .args(tests)
        .current_dir(&output)
        .status()
        .expect("pg_regress can be started");
    if !status.success() {
        let differences = fs::read_to_string(output.join("regression.diffs")).unwrap_or_default();
        panic!("pg_regress: {status}; target/regress/regression.diffs:\n{differences}");
    }
}
