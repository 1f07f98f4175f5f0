//! What is measured of one data set, and the tables that say it.

use crate::cluster::Cluster;
use crate::contestant::{Contestant, Kind};
use crate::curve::{Cost, Point, cost_at};
use crate::data::{Queries, Set};
use crate::generate::Normal;
use crate::session::{self, Wire};
use crate::truth::{self, K, nearest, recall};
use postgres::Statement;

/// Times that a set of queries is repeated; the cheapest counts.
const ROUNDS: usize = 3;
const FLAT_QUERIES: usize = 10;
const FILTER_QUERIES: usize = 100;
/// Of a plan that the planner would not choose, for it may take a second each.
const FORCED_QUERIES: usize = 20;
const SELF_SAMPLE: usize = 2_000;
/// Inserts of a peer, and into a table without an index.
const INSERTS: usize = 1_000;
const RECALLS: [f64; 2] = [0.95, 0.99];
/// Memory for a build that shows what files cost.
const LITTLE_MEMORY_MB: usize = 256;
const SELECTIVITIES: [f32; 4] = [0.5, 0.1, 0.01, 0.001];

/// Loads a set for every contestant, measures them, and drops the tables.
pub fn run(cluster: &Cluster, set: &Set, kinds: &[Kind]) {
    let mut random = Normal::new(7);
    let chances: Vec<f32> = set.rows.iter().map(|_| random.uniform()).collect();
    println!("\n## {}: {} x {}, {}", set.name, set.loaded, set.dim(), set.metric.name());
    let memory_mb = ((set.loaded * (set.dim() * 4 + 2_048)) >> 20).max(64) * 2;
    let mut all: Vec<Contestant> =
        kinds.iter().map(|&kind| Contestant::new(kind, cluster, set, &chances, memory_mb)).collect();
    println!("\n{:10} {:>8} {:>8} {:>11} {:>10}", "build", "wall s", "CPU s", "index B/row", "WAL B/row");
    for one in all.iter_mut().filter(|one| one.is_index()) {
        let (cost, wal) = one.build();
        let bytes = one.session.number(&format!("SELECT pg_relation_size('{}')", one.index));
        let rows = set.loaded as f64;
        println!(
            "{:10} {:8.1} {:8.1} {:11.0} {:10.0}",
            one.kind.name,
            cost.wall_seconds,
            cost.cpu_seconds,
            bytes / rows,
            wal / rows
        );
    }
    for queries in &set.queries {
        search(set, queries, &mut all);
    }
    filters(set, &chances, &mut all);
    for one in &mut all {
        if one.is_index() {
            find_themselves(set, one);
        }
    }
    for one in &mut all {
        changes(set, &chances, memory_mb, one);
    }
    for one in &mut all {
        one.session.run(&format!("DROP TABLE {}", one.table));
    }
}

/// Recall and cost over all efforts, and the cost at given recalls.
fn search(set: &Set, queries: &Queries, all: &mut [Contestant]) {
    let exact = nearest(set, &queries.vectors, &|row| row < set.loaded);
    println!("\nqueries: {}; {}", queries.kind, truth::describe(set.metric, &exact));
    println!(
        "{:10} {:>6} {:>9} {:>8} {:>9} {:>11}",
        "contestant", "ef", "recall@10", "CPU ms", "queries/s", "index pages"
    );
    let statements: Vec<Statement> =
        all.iter_mut().map(|one| one.session.client.prepare(&one.search("")).expect("a statement")).collect();
    let count = queries.vectors.len() as f64;
    let mut curves: Vec<Vec<Point>> = vec![Vec::new(); all.len()];
    for ((one, statement), curve) in all.iter_mut().zip(&statements).zip(&mut curves) {
        if !one.is_index() {
            one.session.run("SET enable_indexscan = off");
            let some = &queries.vectors[..FLAT_QUERIES.min(queries.vectors.len())];
            one.session.answers(statement, some);
            let (answers, cost) = one.session.measure(|client| answers_of(client, statement, some));
            let found = recall(set, some, &exact[..some.len()], &answers);
            let n = some.len() as f64;
            curve.push(Point {
                effort: 0,
                recall: found,
                cpu_ms: 1e3 * cost.cpu_seconds / n,
                wall_ms: 1e3 * cost.wall_seconds / n,
                pages: 0.0,
            });
            continue;
        }
        if !one.is_planned("", &queries.vectors[0]) {
            println!("{:10} the planner does not choose the index; it is forced to", one.kind.name);
            one.session.run("SET enable_seqscan = off; SET enable_sort = off");
        }
        for &effort in one.kind.efforts {
            one.set_effort(effort);
            let before = one.session.index_blocks(&one.index);
            let answers = one.session.answers(statement, &queries.vectors);
            let pages = (one.session.index_blocks(&one.index) - before) / count;
            let found = recall(set, &queries.vectors, &exact, &answers);
            curve.push(Point { effort, recall: found, cpu_ms: f64::MAX, wall_ms: f64::MAX, pages });
        }
    }
    let longest = curves.iter().map(Vec::len).max().unwrap_or(0);
    for _ in 0..ROUNDS {
        for step in 0..longest {
            for ((one, statement), curve) in all.iter_mut().zip(&statements).zip(&mut curves) {
                let Some(point) = curve.get_mut(step).filter(|_| one.is_index()) else { continue };
                one.set_effort(point.effort);
                let (_, cost) =
                    one.session.measure(|client| answers_of(client, statement, &queries.vectors).len());
                point.cpu_ms = point.cpu_ms.min(1e3 * cost.cpu_seconds / count);
                point.wall_ms = point.wall_ms.min(1e3 * cost.wall_seconds / count);
            }
        }
    }
    for (one, curve) in all.iter_mut().zip(&curves) {
        for point in curve {
            let mark = if one.is_index() && point.effort == one.kind.default_effort { "*" } else { "" };
            println!(
                "{:10} {:>6} {:9.4} {:8.3} {:9.0} {:11.0}",
                one.kind.name,
                format!("{mark}{}", point.effort),
                point.recall,
                point.cpu_ms,
                1e3 / point.wall_ms,
                point.pages
            );
        }
        if one.is_index() {
            one.session.run("RESET enable_seqscan; RESET enable_sort");
            one.reset_effort();
        }
    }
    println!("* the default");
    for wanted in RECALLS {
        let ours = all.iter().position(Contestant::is_ours).and_then(|i| cost_at(&curves[i], wanted).point());
        for (one, curve) in all.iter().zip(&curves).filter(|(one, _)| one.is_index()) {
            let cost = cost_at(curve, wanted);
            let Some(point) = cost.point() else {
                let most = curve.iter().map(|p| p.recall).fold(0.0, f64::max);
                println!("at recall {wanted}: {:10} never (most {most:.4})", one.kind.name);
                continue;
            };
            let note = match cost {
                Cost::Least(point) => format!(" (its least effort, recall {:.4})", point.recall),
                Cost::Between(_) | Cost::Never => String::new(),
            };
            let ratio = ours.filter(|_| !one.is_ours()).map_or(String::new(), |ours| {
                format!(
                    "; ann takes {:.1} times less CPU, gives {:.1} times the queries/s",
                    point.cpu_ms / ours.cpu_ms,
                    point.wall_ms / ours.wall_ms
                )
            });
            println!(
                "at recall {wanted}: {:10} {:.3} ms CPU, {:.0} queries/s, {:.0} index pages, ef {}{note}{ratio}",
                one.kind.name,
                point.cpu_ms,
                1e3 / point.wall_ms,
                point.pages,
                point.effort
            );
        }
    }
}

fn answers_of(client: &mut postgres::Client, statement: &Statement, queries: &[Vec<f32>]) -> Vec<Vec<usize>> {
    let ids = |query: &Vec<f32>| {
        let rows = client.query(statement, &[&Wire(query)]).expect("an answer");
        rows.iter().map(|row| usize::try_from(row.get::<_, i32>(0)).expect("a row number")).collect()
    };
    queries.iter().map(ids).collect()
}

/// Searches under a condition that a share of the rows fulfills, on a column that has a btree index.
fn filters(set: &Set, chances: &[f32], all: &mut [Contestant]) {
    let queries: Vec<Vec<f32>> = set.queries[0].vectors.iter().take(FILTER_QUERIES).cloned().collect();
    println!(
        "\nfilters on a random column: {} queries; plan chosen, or with the index forced",
        queries.len()
    );
    println!(
        "{:>6} {:10} {:22} {:>7} {:>6} {:>9} {:>8}",
        "rows", "contestant", "setting", "plan", "full", "recall@10", "CPU ms"
    );
    for share in SELECTIVITIES {
        let live = |row: usize| row < set.loaded && chances[row] < share;
        let exact = nearest(set, &queries, &live);
        for one in all.iter_mut().filter(|one| one.is_index()) {
            let filter = format!("WHERE chance < {share}");
            let planned = one.is_planned(&filter, &queries[0]);
            let mut plans = vec![if planned { "index" } else { "exact" }];
            if !planned {
                plans.push("forced");
            }
            for plan in plans {
                if plan == "forced" {
                    one.session
                        .run("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off");
                }
                let statement = one.session.client.prepare(&one.search(&filter)).expect("a statement");
                let asked = if plan == "forced" { FORCED_QUERIES } else { FILTER_QUERIES }.min(queries.len());
                let (asked, exact) = (&queries[..asked], &exact[..asked]);
                for setting in settings(one, plan) {
                    one.session.run(&setting.sql);
                    one.session.answers(&statement, &asked[..asked.len().min(10)]);
                    let (answers, cost) = one.session.measure(|client| answers_of(client, &statement, asked));
                    let full = answers.iter().zip(exact).filter(|(a, e)| a.len() == K.min(e.len())).count();
                    println!(
                        "{:5}% {:10} {:22} {:>7} {:5.0}% {:9.4} {:8.3}",
                        100.0 * share,
                        one.kind.name,
                        setting.name,
                        plan,
                        100.0 * full as f64 / asked.len() as f64,
                        recall(set, asked, exact, &answers),
                        1e3 * cost.cpu_seconds / asked.len() as f64
                    );
                }
                one.session.run("RESET enable_seqscan; RESET enable_bitmapscan; RESET enable_sort");
            }
            one.reset_effort();
        }
    }
}

struct Setting {
    name: String,
    sql: String,
}

/// Our default and less effort; for pgvector iterative scans of growing effort, with their limits out of the way.
fn settings(one: &Contestant, plan: &str) -> Vec<Setting> {
    if plan == "exact" {
        return vec![Setting { name: "-".to_owned(), sql: String::new() }];
    }
    if one.is_ours() {
        let at = |ef| Setting { name: format!("ef {ef}"), sql: format!("SET imgvec.ef_search = {ef}") };
        return [10, 20, 40, one.kind.default_effort].map(at).into();
    }
    let mut settings =
        vec![Setting { name: "default".to_owned(), sql: "RESET hnsw.iterative_scan".to_owned() }];
    for order in ["relaxed_order", "strict_order"] {
        for ef in [40, 120, 400] {
            settings.push(Setting {
                name: format!("{} ef {ef}", order.replace("_order", "")),
                sql: format!(
                    "SET hnsw.iterative_scan = {order}; SET hnsw.ef_search = {ef};
                     SET hnsw.max_scan_tuples = 10000000; SET hnsw.scan_mem_multiplier = 20"
                ),
            });
        }
    }
    settings
}

/// The share of rows that a search for their own vector finds, at the default effort. An equal row counts.
fn find_themselves(set: &Set, one: &mut Contestant) {
    let step = (set.loaded / SELF_SAMPLE).max(1);
    let rows: Vec<Vec<f32>> = set.rows[..set.loaded].iter().step_by(step).cloned().collect();
    let statement = one.session.client.prepare(&one.search("")).expect("a statement");
    let answers = one.session.answers(&statement, &rows);
    let found = rows.iter().zip(&answers).filter(|(row, answer)| {
        answer.first().is_some_and(|&first| set.metric.distance(&set.rows[first], row) < 1e-6)
    });
    let share = 100.0 * found.count() as f64 / rows.len() as f64;
    println!(
        "{:10} {share:.2}% of {} rows find themselves first, at the default effort",
        one.kind.name,
        rows.len()
    );
}

/// Cost of an insert beyond that of the table; for our index also recall after a fifth more rows, and after three tenths
/// deleted and a vacuum, each beside a rebuilt index; and a build in less memory than its rows take.
fn changes(set: &Set, chances: &[f32], memory_mb: usize, one: &mut Contestant) {
    if !one.is_index() || one.kind.name == crate::contestant::HALFVEC.name {
        return;
    }
    let bare = format!("{}_bare", one.table);
    one.session.run(&format!("CREATE TABLE {bare} (LIKE {} INCLUDING INDEXES)", one.table));
    // All indexes but the one in question.
    let copy = one.session.client.query_opt(
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
         JOIN pg_am ON pg_am.oid = relam WHERE indrelid = $1::text::regclass AND amname <> 'btree'",
        &[&bare],
    );
    let copy: String = copy.expect("indexes").expect("a copy of the index").get(0);
    one.session.run(&format!("DROP INDEX {copy}"));
    let end = set.rows.len();
    let count = if one.is_ours() { end - set.loaded } else { INSERTS.min(end - set.loaded) };
    let few = INSERTS.min(count);
    let (base_ms, base_wal) = insert(set, chances, one, &bare.clone(), set.loaded..set.loaded + few);
    let (ms, wal) = insert(set, chances, one, &one.table.clone(), set.loaded..set.loaded + count);
    one.session.run(&format!("DROP TABLE {bare}"));
    println!(
        "\n{:10} {count} inserts: {:.3} ms CPU and {:.0} WAL bytes a row for the index (with the table {ms:.3} and {wal:.0})",
        one.kind.name,
        ms - base_ms,
        wal - base_wal
    );
    if !one.is_ours() {
        println!(
            "{:10} deletes SKIPPED: its vacuum and rebuilds take longer than all else here",
            one.kind.name
        );
        return;
    }
    let report = |one: &mut Contestant, state: &str, live: &(dyn Fn(usize) -> bool + Sync)| {
        for queries in &set.queries {
            let exact = nearest(set, &queries.vectors, live);
            let statement = one.session.client.prepare(&one.search("")).expect("a statement");
            let recalls: Vec<String> = [50, 100, 400]
                .iter()
                .map(|&effort| {
                    one.set_effort(effort);
                    let answers = one.session.answers(&statement, &queries.vectors);
                    format!("{:.4}", recall(set, &queries.vectors, &exact, &answers))
                })
                .collect();
            println!(
                "{:10} {state:32} {:12} recall at ef 50, 100, 400: {}",
                one.kind.name,
                queries.kind,
                recalls.join(", ")
            );
        }
    };
    report(one, "after the inserts", &|_| true);
    rebuild(one);
    report(one, "rebuilt", &|_| true);
    one.session.run(&format!("DELETE FROM {} WHERE id * 7 % 10 < 3", one.table));
    // One worker may vacuum indexes; it would be another one's time.
    let cost = one.session.measure_all(&format!("VACUUM (PARALLEL 0) {}", one.table));
    println!(
        "{:10} vacuum of {} deleted rows: {:.1} s CPU, {:.1} s",
        one.kind.name,
        (0..end).filter(|id| id * 7 % 10 < 3).count(),
        cost.cpu_seconds,
        cost.wall_seconds
    );
    let live = |row: usize| row * 7 % 10 >= 3;
    report(one, "after 30 % deleted, vacuumed", &live);
    rebuild(one);
    report(one, "rebuilt", &live);
    one.set_effort(one.kind.default_effort);
    let own = one.session.number(&format!("SELECT ann_index_recall('{}', {K}, 200)", one.index));
    println!("{:10} ann_index_recall says {own:.4} at the default", one.kind.name);
    // 1.4 kB a row at 512 dimensions: only large sets exceed it.
    let little = LITTLE_MEMORY_MB.min(memory_mb / 6);
    one.session.run(&format!("SET maintenance_work_mem = '{little}MB'"));
    let cost = rebuild(one);
    println!(
        "{:10} rebuilt with {little} MB of maintenance_work_mem: {:.1} s CPU, {:.1} s",
        one.kind.name, cost.cpu_seconds, cost.wall_seconds
    );
    report(one, &format!("rebuilt with {little} MB"), &live);
}

fn rebuild(one: &mut Contestant) -> session::Cost {
    one.session.measure_all(&format!("REINDEX INDEX {}", one.index))
}

/// Inserts rows one by one in one transaction; milliseconds of CPU and bytes of WAL for each.
fn insert(
    set: &Set,
    chances: &[f32],
    one: &mut Contestant,
    table: &str,
    rows: std::ops::Range<usize>,
) -> (f64, f64) {
    let count = rows.len() as f64;
    let insert = format!("INSERT INTO {table} (id, chance, embedding) VALUES ($1, $2, $3)");
    let statement = one.session.client.prepare(&insert).expect("a statement");
    let before = one.session.wal_bytes();
    let ((), cost) = one.session.measure(|client| {
        let mut transaction = client.transaction().expect("a transaction");
        for row in rows {
            let id = i32::try_from(row).expect("a row number");
            transaction
                .execute(&statement, &[&id, &chances[row], &Wire(&set.rows[row])])
                .expect("a row is inserted");
        }
        transaction.commit().expect("the rows are kept");
    });
    (1e3 * cost.cpu_seconds / count, (one.session.wal_bytes() - before) / count)
}
