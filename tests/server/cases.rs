//! `tests/cases/*.sql`: statements that once gave a wrong answer, each with what is right in its comments. They run in psql as
//! they are; here stands what psql must print.

use std::path::Path;
use std::process::Stdio;

use crate::ann::quiet;
use crate::cluster::Cluster;
use crate::{has_pgvector, skip};

/// What psql prints of a case: rows without headers, errors with their SQLSTATE.
fn lines(cluster: &Cluster, case: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(case).with_extension("sql");
    let output = cluster
        .program("psql")
        .args(["-X", "-A", "-t", "-q", "-v", "VERBOSITY=verbose", "-f"])
        .arg(&path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let all = text(&output.stdout) + &text(&output.stderr);
    all.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Errors of a case, from their SQLSTATE on.
fn errors(lines: &[String]) -> Vec<&str> {
    lines.iter().filter_map(|line| Some(line.split_once("ERROR:  ")?.1)).collect()
}

fn with_pgvector(name: &str) -> Option<Cluster> {
    let cluster = quiet(name).start_empty();
    let mut client = cluster.client();
    if !has_pgvector(&mut client, name) {
        return None;
    }
    client.batch_execute("CREATE EXTENSION imgvec_pgvector CASCADE").unwrap();
    Some(cluster)
}

#[test]
fn windows_and_minima_over_the_distance_are_right() {
    let cluster = quiet("cases-order").start();
    let ranks = lines(&cluster, "window_rank");
    assert_eq!(errors(&ranks), [""; 0]);
    let right = ranks.iter().filter(|line| line.ends_with(": wrong_ranks 0")).count();
    let counted = ranks.iter().filter(|line| line.contains("wrong_ranks")).count();
    assert_eq!((right, counted), (8, 8), "{ranks:#?}");

    let late = lines(&cluster, "window_late_rows");
    assert_eq!(errors(&late), [""; 0]);
    let numbers: Vec<&String> = late.iter().filter(|line| line.contains('|')).collect();
    assert_eq!(numbers, (1..=12).map(|k| format!("{k}|0")).collect::<Vec<_>>().iter().collect::<Vec<_>>());

    // Of vectors without a direction all distances are NaN, and no index has them.
    let minima = lines(&cluster, "minimum_of_distance");
    assert_eq!(minima, ["NaN", "NaN"]);
}

#[test]
fn a_column_that_loses_its_dimensions_can_be_worked_on() {
    let cluster = quiet("cases-alter").start();
    assert_eq!(lines(&cluster, "alter_type_without_dimensions"), [""; 0]);
}

#[test]
fn an_index_that_grows_finds_what_a_built_one_finds() {
    let cluster = quiet("cases-grown").start();
    let lines = lines(&cluster, "grown_index");
    assert_eq!(errors(&lines), [""; 0]);
    let results: Vec<Vec<&str>> =
        lines.iter().filter(|line| line.contains('|')).map(|line| line.split('|').collect()).collect();
    assert_eq!(results.len(), 3, "{lines:#?}");
    for result in results {
        let number = |i: usize| result[i].parse::<f64>().unwrap();
        assert!(number(1) >= number(3) - 0.01 && number(2) == 0.0, "{result:?}");
    }
}

#[test]
fn a_few_rows_far_away_cost_the_others_nothing() {
    let cluster = quiet("cases-outliers").start();
    let lines = lines(&cluster, "outliers");
    assert_eq!(errors(&lines), [""; 0]);
    let [found, rows_per_search] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!(found, "200");
    assert!(rows_per_search.parse::<i64>().unwrap() < 100, "{lines:#?}");
}

#[test]
fn input_is_refused_in_its_own_letters() {
    let cluster = quiet("cases-input").start();
    let arrays = lines(&cluster, "array_of_arrays");
    assert_eq!(errors(&arrays), ["22000: array must be 1-D"]);
    let messages = lines(&cluster, "message_encoding");
    let one_database = [
        "22P02: invalid input syntax for type imgvec: \"[é]\"",
        "22P02: malformed array literal: \"[1,é]\"",
        "22023: invalid model name \"modèle\"",
    ];
    assert_eq!(errors(&messages), [one_database, one_database].concat());

    let mut cluster = cluster;
    cluster.environment("RUST_BACKTRACE", "1");
    cluster.restart();
    let option = lines(&cluster, "backtrace_in_detail");
    // The option that the file asks for is taken today, and a notice tells that it has no effect.
    assert_eq!(errors(&option), [""; 0]);
    assert!(option.iter().any(|line| line.contains("no effect on an ann index")), "{option:#?}");
    assert!(!option.iter().any(|line| line.starts_with("DETAIL:")), "{option:#?}");
}

#[test]
fn values_whose_squares_leave_single_precision_are_found() {
    let cluster = match with_pgvector("cases-range") {
        Some(cluster) => cluster,
        None => quiet("cases-range-alone").start(),
    };
    let lines = lines(&cluster, "tiny_and_huge_values");
    let rows: Vec<&str> =
        lines.iter().map(String::as_str).take_while(|line| !line.contains("ERROR")).collect();
    if lines.iter().any(|line| line.contains("type \"vector\" does not exist")) {
        skip("cases-range", "the half of it that is about pgvector", "IMGVEC_REQUIRE_PGVECTOR");
        // What follows the first error is about the same type.
        assert_eq!(rows[..5], ["[-3.89e-24]", "[-6.89e-24]", "5", "5", "5"], "{lines:#?}");
        return;
    }
    assert_eq!(rows, ["[-3.89e-24]", "[-6.89e-24]", "5", "5", "5", "1", "10"], "{lines:#?}");
}

#[test]
fn indexes_of_a_column_of_pgvector_serve_the_column_that_it_becomes() {
    let Some(cluster) = with_pgvector("cases-moved") else { return };
    let lines = lines(&cluster, "alter_type_from_vector");
    assert_eq!(errors(&lines), [""; 0]);
    for index in ["moved_l2", "moved_ip", "moved_cosine"] {
        let scan = format!("Index Scan using {index} on moved");
        assert_eq!(lines.iter().filter(|line| line.contains(&scan)).count(), 1, "{lines:#?}");
    }
}
