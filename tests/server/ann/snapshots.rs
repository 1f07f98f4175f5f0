//! What a snapshot sees does not change while others delete, vacuum, reuse and rebuild; and the index never
//! touches vectors of rows that are gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::error::SqlState;

use super::{
    CREATE_INDEX, DIM, assert_each_row_once, assert_sound, by_index, by_table, check, create_items, ids,
    insert_items, quiet, recall, script, search,
};
use crate::{failure, skip, value};

/// Begins a transaction that keeps seeing what is there now.
fn hold(client: &mut Client) {
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM items").unwrap();
}

#[test]
fn an_old_snapshot_sees_its_rows_while_others_replace_them() {
    let cluster = quiet("ann-snapshot").start();
    let (mut old, mut writer) = (cluster.client(), cluster.client());
    create_items(&mut writer, 2000);
    writer.batch_execute(CREATE_INDEX).unwrap();
    writer.batch_execute("DELETE FROM items WHERE id % 4 = 0").unwrap();
    hold(&mut old);
    let query = format!("vec(-1, {DIM})");
    let before = ids(&by_index(&mut old, &search("items", "<->", &query, 10)));
    let mut expected = ids(&by_table(&mut old, "SELECT id FROM items"));
    expected.sort_unstable();
    assert_eq!(expected.len(), 1500);
    old.batch_execute(&format!(
        "SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off;
         DECLARE walk CURSOR FOR SELECT id FROM items ORDER BY embedding <-> vec(-2, {DIM})"
    ))
    .unwrap();
    let mut walked = ids(&old.query("FETCH 200 FROM walk", &[]).unwrap());

    for round in 1..=3 {
        // What was dead to the snapshot goes and is replaced; what it sees stays, though deleted.
        script(&mut writer, "DELETE FROM items WHERE id % 4 = 1; VACUUM items");
        insert_items(&mut writer, round * 10_000, round * 10_000 + 600);
        writer
            .batch_execute(&format!(
                "UPDATE items SET embedding = vec(id + {round} * 1000000, {DIM}) WHERE id % 4 = 2"
            ))
            .unwrap();
        writer.batch_execute("VACUUM items").unwrap();
        assert_each_row_once(&mut old, "items", "<->", &query);
        assert_eq!(ids(&by_index(&mut old, &search("items", "<->", &query, 10))), before, "round {round}");
        let found = recall(&mut old, "items", "<->", DIM, 40, 10);
        assert!(found >= 0.9, "recall {found} in round {round}");
        walked.extend(ids(&old.query("FETCH 200 FROM walk", &[]).unwrap()));
        assert_sound(&mut writer);
    }
    walked.extend(ids(&old.query("FETCH ALL FROM walk", &[]).unwrap()));
    walked.sort_unstable();
    assert_eq!(walked, expected, "rows of the cursor");
    old.batch_execute("COMMIT").unwrap();
    writer.batch_execute("VACUUM items").unwrap();
    let rows: i64 = value(&mut writer, "SELECT count(*) FROM items");
    assert_eq!(assert_sound(&mut writer).rows, rows);
}

#[test]
fn vectors_out_of_line_are_not_missed_when_their_rows_are_dead() {
    const WIDE: i32 = 3000;
    let cluster = quiet("ann-toast").start();
    let (mut old, mut writer) = (cluster.client(), cluster.client());
    writer
        .batch_execute(&format!(
            "{}; CREATE TABLE items (id integer PRIMARY KEY, embedding imgvec({WIDE}));
             ALTER TABLE items ALTER COLUMN embedding SET STORAGE EXTERNAL;
             INSERT INTO items SELECT i, vec(i, {WIDE}) FROM generate_series(1, 300) AS i",
            super::VECTORS
        ))
        .unwrap();
    writer.batch_execute(CREATE_INDEX).unwrap();
    let toast: String = value(
        &mut writer,
        "SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'items'::regclass",
    );
    assert!(
        value::<bool>(&mut writer, &format!("SELECT pg_relation_size('{toast}') > 300 * 8192")),
        "not out of line"
    );
    let query = format!("vec(-1, {WIDE})");
    assert_each_row_once(&mut writer, "items", "<->", &query);

    // A snapshot without a lock on the table: that would make REINDEX wait.
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    writer.batch_execute("DELETE FROM items WHERE id % 2 = 0").unwrap();
    writer.batch_execute(&format!("UPDATE items SET embedding = vec(-id, {WIDE}) WHERE id % 3 = 0")).unwrap();
    // A concurrent build would wait for the old snapshot to end.
    for statement in ["REINDEX INDEX items_embedding", "VACUUM items", "REINDEX TABLE items"] {
        writer.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        check(&mut writer, "items_embedding");
    }
    // Not before: its lock on the index would make REINDEX wait for it.
    assert_each_row_once(&mut old, "items", "<->", &query);
    old.batch_execute("COMMIT").unwrap();
    // The vectors go before the rows: whoever still looks at those finds nothing to look at.
    script(&mut writer, &format!("DELETE FROM items WHERE id % 5 = 0; VACUUM {toast}"));
    for statement in
        ["REINDEX INDEX items_embedding", "REINDEX INDEX CONCURRENTLY items_embedding", "VACUUM items"]
    {
        writer.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        let rows: i64 = value(&mut writer, "SELECT count(*) FROM items");
        assert!(check(&mut writer, "items_embedding").rows >= rows);
        assert_each_row_once(&mut writer, "items", "<->", &query);
    }
    let found = recall(&mut writer, "items", "<->", WIDE, 5, 10);
    assert!(found >= 0.9, "recall {found}");
}

#[test]
fn rows_whose_vectors_changed_in_place_are_indexed_once() {
    let cluster = quiet("ann-hot").start();
    let (mut old, mut writer) = (cluster.client(), cluster.client());
    create_items(&mut writer, 200);
    // With room on every page, and no index on the vector yet, updates of it stay within the page.
    script(&mut writer, "ALTER TABLE items SET (fillfactor = 40); VACUUM FULL items");
    insert_items(&mut writer, 201, 1000);
    let query = format!("vec(-1, {DIM})");
    hold(&mut old);
    let before = ids(&by_table(&mut old, &search("items", "<->", &query, 10)));
    writer.batch_execute(&format!("UPDATE items SET embedding = vec(id + 1000000, {DIM})")).unwrap();
    writer.batch_execute(CREATE_INDEX).unwrap();
    // The index has the new vectors only: the old snapshot must not be answered from it.
    assert!(value::<bool>(
        &mut writer,
        "SELECT indcheckxmin FROM pg_index WHERE indexrelid = 'items_embedding'::regclass"
    ));
    let now = search("items", "<->", &query, 10);
    old.batch_execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off").unwrap();
    assert_eq!(ids(&old.query(&now, &[]).unwrap()), before);
    old.batch_execute("COMMIT").unwrap();
    assert_each_row_once(&mut writer, "items", "<->", &query);
    assert_eq!(check(&mut writer, "items_embedding").rows, 1000);

    // Updates of another column stay within the page also beside the index, and leave it alone.
    script(&mut writer, "VACUUM items; UPDATE items SET note = 'x' WHERE id % 2 = 0");
    assert_eq!(check(&mut writer, "items_embedding").rows, 1000);
    assert_each_row_once(&mut writer, "items", "<->", &query);

    // The same while an index is created beside writers; after a vacuum each row is in it exactly once.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for session in 0..3 {
            let (mut client, stop) = (cluster.client(), &stop);
            scope.spawn(move || {
                for turn in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = (turn * 3 + session) % 1000 + 1;
                    client
                        .batch_execute(&format!("UPDATE items SET note = '{turn}' WHERE id = {id}"))
                        .unwrap();
                    client
                        .batch_execute(&format!(
                            "UPDATE items SET embedding = vec({turn} * 10 + {session}, {DIM}) WHERE id = {id}"
                        ))
                        .unwrap();
                }
            });
        }
        for _ in 0..4 {
            writer
                .batch_execute("DROP INDEX items_embedding")
                .and_then(|()| {
                    writer.batch_execute(&CREATE_INDEX.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY"))
                })
                .unwrap();
            writer.batch_execute("REINDEX INDEX CONCURRENTLY items_embedding").unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    writer.batch_execute("VACUUM items").unwrap();
    assert_eq!(assert_sound(&mut writer).rows, 1000);
}

#[test]
fn scans_do_not_reach_behind_a_table_that_vacuum_made_shorter() {
    let cluster = quiet("ann-truncated").start();
    let mut writer = cluster.client();
    create_items(&mut writer, 1000);
    writer.batch_execute(CREATE_INDEX).unwrap();
    let stop = AtomicBool::new(false);
    let (mut shortened, mut scans) = (0, 0);
    thread::scope(|scope| {
        let scanner = scope.spawn(|| {
            let mut client = cluster.client();
            client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let query =
                    format!("SELECT id FROM items ORDER BY embedding <-> vec(-{count}, {DIM}) LIMIT 200");
                let found = ids(&client.query(&query, &[]).unwrap());
                assert_eq!(found.len(), 200);
                count += 1;
            }
            count
        });
        for round in 0..8 {
            let first = 10_000 + round * 10_000;
            insert_items(&mut writer, first, first + 1500);
            let long: i64 = value(&mut writer, "SELECT pg_relation_size('items')");
            script(&mut writer, "DELETE FROM items WHERE id > 1000; VACUUM items");
            let short: i64 = value(&mut writer, "SELECT pg_relation_size('items')");
            shortened += i32::from(short < long);
        }
        stop.store(true, Ordering::Relaxed);
        scans = scanner.join().unwrap();
    });
    assert!(shortened > 0 && scans > 8, "shortened {shortened} times beside {scans} scans");
    // The scanner's last snapshot may have kept rows from the last vacuum.
    writer.batch_execute("VACUUM items").unwrap();
    assert_eq!(assert_sound(&mut writer).rows, 1000);
}

/// How a statement ends in a transaction that goes on: `None` if it succeeds.
fn attempt(client: &mut Client, statement: &str) -> Option<SqlState> {
    client.batch_execute("SAVEPOINT before").unwrap();
    let result = client.simple_query(statement);
    client.batch_execute("ROLLBACK TO before").unwrap();
    result.err().map(|error| error.code().unwrap_or_else(|| panic!("{statement}: {error:?}")).clone())
}

/// PostgreSQL 14 to 16 can take rows away that a snapshot still sees, once that is older than `old_snapshot_threshold`. So
/// whoever reads a page with such a snapshot that was changed since must be told, whatever was changed there.
#[test]
fn a_snapshot_that_is_too_old_for_a_btree_is_so_for_every_scan() {
    const ROWS: i32 = 3000;
    let is_old = SqlState::SNAPSHOT_TOO_OLD;
    let mut cluster = quiet("ann-too-old").start();
    let mut writer = cluster.client();
    if value::<i32>(&mut writer, "SELECT current_setting('server_version_num')::integer") >= 170_000 {
        skip("ann-too-old", "PostgreSQL 17 has no old_snapshot_threshold", "IMGVEC_REQUIRE_OLD_SNAPSHOTS");
        return;
    }
    // For the server that is five seconds.
    cluster.conf("old_snapshot_threshold = 0");
    drop(writer);
    cluster.restart();
    let mut writer = cluster.client();
    create_items(&mut writer, ROWS);
    writer.batch_execute(CREATE_INDEX).unwrap();
    writer
        .batch_execute(&format!(
            "CREATE TABLE few AS SELECT * FROM items LIMIT 200;
             CREATE INDEX ON few USING ann (embedding imgvec_l2_ops);
             CREATE TABLE quiet AS TABLE items;
             CREATE INDEX ON quiet USING ann (embedding imgvec_l2_ops);
             CREATE TABLE pages (name text);
             INSERT INTO pages SELECT 'x' FROM generate_series(1, {ROWS})"
        ))
        .unwrap();
    let mut old = cluster.client();
    let near = |table: &str, limit: &str| {
        format!("SELECT id FROM {table} ORDER BY embedding <-> vec(4, {DIM}) {limit}")
    };
    old.batch_execute(&format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off;
         SET LOCAL enable_bitmapscan = off; DECLARE near CURSOR FOR {}",
        near("items", "LIMIT 2500")
    ))
    .unwrap();
    assert_eq!(ids(&old.query("FETCH 1 FROM near", &[]).unwrap()), [4]);
    insert_items(&mut writer, ROWS + 1, ROWS + 300);
    writer.batch_execute("INSERT INTO few SELECT * FROM items WHERE id > 2990").unwrap();

    let by_btree = "SELECT id FROM items WHERE id > 2990";
    let begin = Instant::now();
    // Somebody must prune for the server to look at its clock.
    while attempt(&mut old, by_btree) != Some(is_old.clone()) {
        assert!(begin.elapsed() < Duration::from_secs(120), "the server calls no snapshot too old");
        writer.batch_execute("VACUUM pages").unwrap();
        thread::sleep(Duration::from_millis(200));
    }
    for statement in [
        near("items", "LIMIT 1"),
        near("items", "LIMIT 200"),
        near("items", ""),
        near("few", "LIMIT 1"),
        near("few", ""),
        near("items WHERE id % 50 = 0", "LIMIT 5"),
        "FETCH ALL FROM near".to_owned(),
        "SELECT ann_index_recall('items_embedding', 3, 3)".to_owned(),
    ] {
        assert_eq!(attempt(&mut old, &statement), Some(is_old.clone()), "{statement}");
    }
    // Pages that nobody changed tell all that there is to know.
    for limit in ["LIMIT 1", ""] {
        assert_eq!(attempt(&mut old, &near("quiet", limit)), None, "{limit}");
    }
    old.batch_execute("ROLLBACK").unwrap();
    assert_sound(&mut writer);
}

#[test]
fn a_build_that_cannot_fetch_a_dead_vector_ends_its_statement_alone() {
    const WIDE: i32 = 3000;
    let cluster = quiet("ann-dead-toast").start();
    let (mut old, mut writer, mut locker) = (cluster.client(), cluster.client(), cluster.client());
    writer
        .batch_execute(&format!(
            "{}; CREATE TABLE items (id integer PRIMARY KEY, embedding imgvec({WIDE}));
             ALTER TABLE items ALTER COLUMN embedding SET STORAGE EXTERNAL;
             INSERT INTO items SELECT i, vec(i, {WIDE}) FROM generate_series(1, 20) AS i",
            super::VECTORS
        ))
        .unwrap();
    writer.batch_execute(CREATE_INDEX).unwrap();
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    writer.batch_execute("DELETE FROM items").unwrap();
    // All rows are dead, but not to the old snapshot; and nobody gets at their vectors.
    let index: String = value(
        &mut writer,
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON indrelid = reltoastrelid
         WHERE pg_class.oid = 'items'::regclass",
    );
    locker.batch_execute(&format!("BEGIN; REINDEX INDEX {index}")).unwrap();
    for _ in 0..2 {
        writer.batch_execute("BEGIN; SET LOCAL lock_timeout = '50ms'").unwrap();
        let error = failure(&mut writer, "REINDEX INDEX items_embedding");
        assert_eq!(error.code(), &SqlState::LOCK_NOT_AVAILABLE, "{error:?}");
        writer.batch_execute("ROLLBACK").unwrap();
        assert_eq!(value::<i32>(&mut writer, "SELECT 1"), 1);
    }
    // The same error in a subtransaction of the user's.
    writer.batch_execute("BEGIN; SET LOCAL lock_timeout = '50ms'; SAVEPOINT before").unwrap();
    let error = failure(&mut writer, "REINDEX INDEX items_embedding");
    assert_eq!(error.code(), &SqlState::LOCK_NOT_AVAILABLE, "{error:?}");
    writer.batch_execute("ROLLBACK TO before; SELECT 1; COMMIT").unwrap();
    locker.batch_execute("ROLLBACK").unwrap();
    writer.batch_execute("REINDEX INDEX items_embedding").unwrap();
    old.batch_execute("COMMIT").unwrap();
    check(&mut writer, "items_embedding");
}
