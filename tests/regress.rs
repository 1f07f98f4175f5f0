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

/// Runs all SQL tests in a server; results go to a folder of `target`.
fn run_sql_tests(cluster: &Cluster, folder: &str) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pg_regress");
    let output = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(folder);
    let mut tests: Vec<OsString> = fs::read_dir(source.join("sql"))
        .expect("tests/pg_regress/sql is there")
        .map(|entry| entry.expect("a directory of the source tree can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .map(|path| path.file_stem().expect("a file name that ends in .sql has a stem").to_owned())
        .collect();
    tests.sort();
    assert!(!tests.is_empty(), "no SQL test was found");

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
        panic!("pg_regress: {status}; target/{folder}/regression.diffs:\n{differences}");
    }
}

#[test]
fn sql_gives_the_expected_output() {
    run_sql_tests(&Cluster::new("regress").start_empty(), "regress");
}

/// With this setting each record of the log carries its pages as they should be; a standby that arrives at others
/// stops with an error.
#[test]
fn replay_of_what_sql_does_is_consistent() {
    let primary = Cluster::new("regress-log").conf("wal_consistency_checking = 'all'").start_empty();
    let standby = primary.standby("regress-replay");
    run_sql_tests(&primary, "regress-replay");
    primary.wait_for(&standby);
    let log = standby.log();
    assert!(!log.contains("inconsistent page"), "{log}");
    // What the tests leave is there, so what they did was replayed, their indexes' changes between.
    let left = "SELECT coalesce(string_agg(relname, ' ' ORDER BY relname), '') FROM pg_class WHERE relnamespace = 'public'::regnamespace";
    let [here, there] = [&primary, &standby].map(|cluster| -> String {
        let mut client = cluster.client_of("postgres", "contrib_regression");
        client.query_one(left, &[]).expect("the catalogs of the tests' database can be read").get(0)
    });
    assert!(!here.is_empty() && here == there, "on the primary: {here}; on the standby: {there}");
}
