//! What users get who set nothing: other limits than ten, thresholds, scans to the end, rows that are fetched for nothing.

use crate::contestant::Contestant;
use crate::data::Set;
use crate::search::answers_of;
use crate::truth::{self, nearest_few};

const LIMITS: [usize; 3] = [1, 10, 100];
/// Searches with a threshold that so many rows are within.
const WITHIN: usize = 7;
const WITHIN_LIMIT: usize = 50;
/// Scans to the end take seconds.
const DEEP_QUERIES: usize = 2;

pub fn run(set: &Set, all: &mut [Contestant]) {
    println!("\nat the defaults; fetched: rows that were read from the table");
    println!(
        "{:10} {:12} {:>6} {:>7} {:>8} {:>8}",
        "contestant", "queries", "LIMIT", "recall", "CPU ms", "fetched"
    );
    for queries in &set.queries {
        let vectors = &queries.vectors;
        let exact = nearest_few(set, vectors, LIMITS[2], &|row| row < set.loaded);
        for one in all.iter_mut().filter(|one| one.is_index()) {
            for limit in LIMITS {
                let statement =
                    one.session.client.prepare(&format!("{} LIMIT {limit}", one.ordered(&one.table, "")));
                let statement = statement.expect("a statement");
                let before = fetched(one);
                let (answers, cost) = one.session.measure(|client| answers_of(client, &statement, vectors));
                let fetched = fetched(one).zip(before).map(|(a, b)| (a - b) / vectors.len() as f64);
                println!(
                    "{:10} {:12} {limit:6} {:7.4} {:8.3} {:>8}",
                    one.kind.name,
                    queries.kind,
                    truth::recall_of(set, vectors, &exact, &answers, limit),
                    1e3 * cost.cpu_seconds / vectors.len() as f64,
                    fetched.map_or("-".to_owned(), |x| format!("{x:.1}"))
                );
            }
        }
        for one in all.iter_mut().filter(|one| one.is_index()) {
            let (mut seconds, mut found) = (0.0, 0);
            let asked = &vectors[..vectors.len().min(50)];
            for (query, exact) in asked.iter().zip(&exact) {
                let bound = (exact[WITHIN - 1] + exact[WITHIN]) / 2.0;
                let filter = format!("WHERE {} < {bound}", one.distance());
                let search = format!("{} LIMIT {WITHIN_LIMIT}", one.ordered(&one.table, &filter));
                let statement = one.session.client.prepare(&search).expect("a statement");
                let one_query = std::slice::from_ref(query);
                let (answers, cost) = one.session.measure(|client| answers_of(client, &statement, one_query));
                seconds += cost.cpu_seconds;
                found += answers[0].len();
            }
            let n = asked.len() as f64;
            println!(
                "{:10} {:12} WHERE distance < t LIMIT {WITHIN_LIMIT}, {WITHIN} rows within: {:.3} ms CPU, {:.2} rows found",
                one.kind.name,
                queries.kind,
                1e3 * seconds / n,
                found as f64 / n
            );
        }
        let mut flat_ms = f64::NAN;
        for one in all.iter_mut().filter(|one| one.is_ours() || !one.is_index()) {
            one.session.run(if one.is_index() {
                "SET enable_sort = off; SET enable_seqscan = off"
            } else {
                "SET enable_indexscan = off"
            });
            let inner = one.ordered(&one.table, "");
            let statement =
                one.session.client.prepare(&format!("SELECT count(*)::integer FROM ({inner} OFFSET 0) s"));
            let statement = statement.expect("a statement");
            let asked = &vectors[..DEEP_QUERIES];
            let (answers, cost) = one.session.measure(|client| answers_of(client, &statement, asked));
            assert!(answers.iter().all(|count| count[0] == set.loaded), "a scan to the end gives all rows");
            let ms = 1e3 * cost.cpu_seconds / asked.len() as f64;
            if !one.is_index() {
                flat_ms = ms;
            }
            println!(
                "{:10} {:12} no LIMIT: {ms:.0} ms CPU, {:.2} of scan and sort",
                one.kind.name,
                queries.kind,
                ms / flat_ms
            );
            one.session.run("RESET enable_sort; RESET enable_seqscan; RESET enable_indexscan");
        }
    }
}

/// Rows that our index's scans of this session had fetched.
fn fetched(one: &mut Contestant) -> Option<f64> {
    one.is_ours().then(|| one.session.number("SELECT coalesce(sum(rows_fetched), 0) FROM ann_scan_stats"))
}
