//! From how many rows on a search by the index is cheaper than one by the table, and from how many on the planner says so.
//! `make bench-crossover`; how to read it: `benches/README.md`.
//!
//! Tables grow step by step, are analyzed and indexed again, and both plans are timed with everything in memory: vectors of
//! 3 to 2,000 dimensions, in the row and in TOAST. A function runs the same queries in each of the two plans, so that no
//! client and no parsing is measured.

#[path = "../../tests/cluster/mod.rs"]
mod cluster;
#[path = "../../crates/ann/tests/common/generate.rs"]
mod generate;
#[allow(dead_code, reason = "shared with the bench of the index")]
#[path = "../index/session.rs"]
mod session;

use cluster::Cluster;
use session::Session;

/// Dimensions, and whether vectors lie out of line, as those of 2 kB and more can.
const SHAPES: [(usize, bool); 14] = [
    (3, false),
    (16, false),
    (64, false),
    (128, false),
    (256, false),
    (512, false),
    (768, false),
    (1024, false),
    (1536, false),
    (2000, false),
    (512, true),
    (768, true),
    (1536, true),
    (2000, true),
];
/// The first size of a table, and how it grows.
const FIRST: usize = 8;
const GROWTH: f64 = 1.3;
const MOST: usize = 30_000;
/// Searches in a round; of the rounds the cheapest counts, by the processor time of the backend.
const QUERIES: usize = 30;
const ROUNDS: usize = 12;

/// One size of a table.
struct Step {
    rows: usize,
    by_table_us: f64,
    by_index_us: f64,
    takes_index: bool,
}

/// A row's number as the server reads it.
fn number(id: usize) -> [[u8; 4]; 1] {
    [i32::try_from(id).expect("a row number").to_be_bytes()]
}

fn queries_of(session: &mut Session, dim: usize, queries: &[Vec<f32>]) {
    session.run(&format!(
        "DROP TABLE IF EXISTS queries, items;
         CREATE TABLE queries (id integer, embedding imgvec({dim}));
         CREATE TABLE items (id integer, embedding imgvec({dim})) WITH (autovacuum_enabled = off)"
    ));
    session.copy("queries", queries.iter().enumerate().map(|(id, query)| (number(id), query.as_slice())));
    // Each keeps the plan that its settings gave.
    for (name, setting) in [("by_table", "enable_indexscan"), ("by_index", "enable_seqscan")] {
        session.run(&format!(
            "CREATE OR REPLACE FUNCTION {name}() RETURNS void LANGUAGE plpgsql
                 SET plan_cache_mode = force_generic_plan SET {setting} = off AS $$
             DECLARE wanted imgvec[] := ARRAY(SELECT embedding FROM queries ORDER BY id); q imgvec;
             BEGIN
                 FOR round IN 1..4 LOOP
                     FOREACH q IN ARRAY wanted LOOP
                         PERFORM id FROM items ORDER BY embedding <-> q LIMIT 10;
                     END LOOP;
                 END LOOP;
             END $$"
        ));
    }
}

fn measure(session: &mut Session, dim: usize, is_toasted: bool) -> Vec<Step> {
    let data = generate::manifold(dim, MOST, QUERIES, dim.min(16), 7);
    queries_of(session, dim, &data.queries);
    if is_toasted {
        session.run("ALTER TABLE items ALTER embedding SET STORAGE EXTERNAL, SET (toast_tuple_target = 128)");
    }
    let mut steps: Vec<Step> = Vec::new();
    let (mut there, mut wanted) = (0, FIRST);
    while wanted <= MOST {
        let new = data.rows[there..wanted].iter().enumerate();
        session.copy("items", new.map(|(id, row)| (number(there + id), row.as_slice())));
        there = wanted;
        session.run(
            "DROP INDEX IF EXISTS items_embedding; CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops)",
        );
        session.run("VACUUM ANALYZE items");
        let mut least_us = |function: &str| {
            let call = format!("SELECT {function}()");
            let rounds =
                (0..ROUNDS).map(|_| session.measure(|client| client.batch_execute(&call)).1.cpu_seconds);
            rounds.fold(f64::INFINITY, f64::min) * 1e6 / (4 * QUERIES) as f64
        };
        let (by_table_us, by_index_us) = (least_us("by_table"), least_us("by_index"));
        let plan = session.client.query(
            "EXPLAIN SELECT id FROM items ORDER BY embedding <-> (SELECT embedding FROM queries LIMIT 1) LIMIT 10",
            &[],
        );
        let plan = plan.expect("a plan");
        let takes_index = plan.iter().any(|line| line.get::<_, String>(0).contains("items_embedding"));
        if std::env::var("VERBOSE").is_ok_and(|value| !value.is_empty()) {
            println!(
                "  {dim} {is_toasted} {there}: table {by_table_us:.1} us, index {by_index_us:.1} us, planner {takes_index}"
            );
        }
        steps.push(Step { rows: there, by_table_us, by_index_us, takes_index });
        // Twice as fast in three steps, and the planner has seen it.
        let is_decided = |step: &Step| step.takes_index && step.by_index_us * 2.0 < step.by_table_us;
        if steps.len() > 3 && steps.iter().rev().take(3).all(is_decided) {
            break;
        }
        wanted = ((there as f64 * GROWTH) as usize).max(there + 1);
    }
    steps
}

/// The number of rows where a quantity that is negative before and positive from then on is 0, `None` if it is positive
/// from the start.
fn crossing(steps: &[Step], value: impl Fn(&Step) -> f64) -> Option<f64> {
    let last_before = steps.iter().rposition(|step| value(step) <= 0.0)?;
    let before = &steps[last_before];
    let Some(after) = steps.get(last_before + 1) else { return Some(f64::INFINITY) };
    let share = value(before).abs() / (value(before).abs() + value(after));
    Some(before.rows as f64 * (after.rows as f64 / before.rows as f64).powf(share))
}

fn main() {
    if std::env::var_os("IMGVEC_STAGE").is_none() {
        println!("crossover bench SKIPPED: IMGVEC_STAGE is not set; run `make bench-crossover`");
        return;
    }
    let cluster = Cluster::new("crossover")
        .conf("autovacuum = off")
        .conf("shared_buffers = '1GB'")
        .conf("maintenance_work_mem = '512MB'")
        .conf("max_wal_size = '8GB'")
        .conf("max_parallel_workers_per_gather = 0")
        .conf("jit = off")
        .start();
    let mut session = Session::new(&cluster);
    println!(
        "| dimensions | stored | crossover measured, rows | planner's, rows | ratio |\n|---:|---|---:|---:|---:|"
    );
    let only = std::env::var("DIMS").unwrap_or_default();
    for (dim, is_toasted) in SHAPES {
        if !only.is_empty() && !only.split(',').any(|word| word == dim.to_string()) {
            continue;
        }
        let steps = measure(&mut session, dim, is_toasted);
        let measured = crossing(&steps, |step| (step.by_table_us / step.by_index_us).ln());
        let planned = crossing(&steps, |step| if step.takes_index { 1.0 } else { -1.0 });
        let show = |rows: Option<f64>| rows.map_or(format!("below {FIRST}"), |rows| format!("{rows:.0}"));
        let ratio = planned.unwrap_or(FIRST as f64) / measured.unwrap_or(FIRST as f64);
        let place = if is_toasted { "TOAST" } else { "in the row" };
        println!("| {dim} | {place} | {} | {} | {ratio:.2} |", show(measured), show(planned));
    }
}
