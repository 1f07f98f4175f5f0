//! Inserts, deletes and rebuilds, and an index that was there before its rows.

use crate::contestant::{Contestant, DEFAULT, HALFVEC};
use crate::data::Set;
use crate::session::{Cost, Wire};
use crate::truth::{K, nearest, recall};

const SELF_SAMPLE: usize = 2_000;
/// Inserts of a peer, and into a table without an index.
const INSERTS: usize = 1_000;
/// Memory for a build that shows what files cost.
const LITTLE_MEMORY_MB: usize = 256;

/// An index that is created over an empty table, which then gets the same rows in the same order.
pub fn grown(set: &Set, one: &mut Contestant) {
    let table = format!("{}_grown", one.table);
    let (ty, built) = (set.dim(), one.table.clone());
    one.session.run(&format!("CREATE TABLE {table} (id integer, embedding imgvec({ty}))"));
    let bare = one
        .session
        .measure_all(&format!("INSERT INTO {table} SELECT id, embedding FROM {built} ORDER BY id"));
    let create = one.create_index(&format!("{table}_index"), &table);
    one.session.run(&format!("TRUNCATE {table}; {create}"));
    let full = one
        .session
        .measure_all(&format!("INSERT INTO {table} SELECT id, embedding FROM {built} ORDER BY id"));
    one.session.run(&format!("ANALYZE {table}; SET enable_seqscan = off; SET enable_sort = off"));
    for queries in &set.queries {
        let exact = nearest(set, &queries.vectors, &|row| row < set.loaded);
        let mut of = |table: &str| {
            let search = format!("{} LIMIT {K}", one.ordered(table, ""));
            let statement = one.session.client.prepare(&search).expect("a statement");
            recall(set, &queries.vectors, &exact, &one.session.answers(&statement, &queries.vectors))
        };
        let (filled, built) = (of(&table), of(&built));
        println!(
            "{:10} filled by inserts, {:12} recall at the default {filled:.4}, built {built:.4}",
            one.kind.name, queries.kind
        );
    }
    let lost = one.session.number(&format!("SELECT unreachable FROM ann_index_check('{table}_index')"));
    println!(
        "{:10} filled by inserts: {lost} nodes unreachable, {:.3} ms CPU a row for the index",
        one.kind.name,
        1e3 * (full.cpu_seconds - bare.cpu_seconds) / set.loaded as f64
    );
    one.session.run(&format!("DROP TABLE {table}; RESET enable_seqscan; RESET enable_sort"));
}

/// The share of rows that a search for their own vector finds, at the default effort. An equal row counts.
pub fn find_themselves(set: &Set, one: &mut Contestant) {
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
pub fn changes(set: &Set, memory_mb: usize, one: &mut Contestant) {
    if !one.is_index() || one.has_keys() || one.kind.name == HALFVEC.name {
        return;
    }
    let bare = format!("{}_bare", one.table);
    one.session.run(&format!("CREATE TABLE {bare} (LIKE {} INCLUDING INDEXES)", one.table));
    // Without the index in question.
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
    let (base_ms, base_wal) = insert(set, one, &bare.clone(), set.loaded..set.loaded + few);
    let (ms, wal) = insert(set, one, &one.table.clone(), set.loaded..set.loaded + count);
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
            let recalls: Vec<String> = [DEFAULT, 40, 200]
                .iter()
                .map(|&effort| {
                    one.set_effort(effort);
                    let answers = one.session.answers(&statement, &queries.vectors);
                    format!("{:.4}", recall(set, &queries.vectors, &exact, &answers))
                })
                .collect();
            println!(
                "{:10} {state:32} {:12} recall at the default, ef 40, 200: {}",
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
    one.set_effort(DEFAULT);
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

fn rebuild(one: &mut Contestant) -> Cost {
    one.session.measure_all(&format!("REINDEX INDEX {}", one.index))
}

/// Inserts rows one by one in one transaction; milliseconds of CPU and bytes of WAL for each.
fn insert(set: &Set, one: &mut Contestant, table: &str, rows: std::ops::Range<usize>) -> (f64, f64) {
    let count = rows.len() as f64;
    let insert =
        format!("INSERT INTO {table} (id, chance, region, owner, embedding) VALUES ($1, $2, $3, $4, $5)");
    let statement = one.session.client.prepare(&insert).expect("a statement");
    let (before, of) = (one.session.wal_bytes(), &set.attributes);
    let ((), cost) = one.session.measure(|client| {
        let mut transaction = client.transaction().expect("a transaction");
        for row in rows {
            let id = i32::try_from(row).expect("a row number");
            transaction
                .execute(
                    &statement,
                    &[&id, &of.chance[row], &of.region[row], &of.owner[row], &Wire(&set.rows[row])],
                )
                .expect("a row is inserted");
        }
        transaction.commit().expect("the rows are kept");
    });
    (1e3 * cost.cpu_seconds / count, (one.session.wal_bytes() - before) / count)
}
