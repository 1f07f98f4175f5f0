//! Memory of a session stays flat, however many scans or inserts one statement does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::Client;
use postgres::error::SqlState;

use super::{
    CREATE_INDEX, DIM, VECTORS, create_items, explain, is_ordered_by_index, number_from_environment, quiet,
    script,
};
use crate::cluster::{Cluster, Memory};
use crate::{failure, value};

/// An allocator's noise, and what the longer of two statements may need more: less than 100 bytes for each scan.
/// The shorter one must be long enough for the allocator to have settled, some 10,000 scans.
const GROWTH_BYTES: u64 = 4 << 20;

/// The most memory a session has while it works.
pub(super) fn peak(client: &mut Client, work: impl FnOnce(&mut Client)) -> u64 {
    let pid = u32::try_from(value::<i32>(client, "SELECT pg_backend_pid()")).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(Memory::of(pid).anonymous);
                thread::sleep(Duration::from_millis(5));
            }
            peak.max(Memory::of(pid).anonymous)
        });
        work(client);
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap()
    })
}

/// Does little, then much, and compares.
fn assert_flat(
    client: &mut Client,
    what: &str,
    little: usize,
    much: usize,
    work: impl Fn(&mut Client, usize),
) {
    work(client, little);
    let before = peak(client, |client| work(client, little));
    let after = peak(client, |client| work(client, much));
    let grown = after.saturating_sub(before);
    eprintln!("{what}: {before} bytes at {little}, {after} at {much}");
    assert!(grown < GROWTH_BYTES, "{what}: {before} bytes at {little}, {after} at {much}");
}

fn cluster_with_items(name: &str) -> (Cluster, Client) {
    let cluster = quiet(name).start();
    let mut client = cluster.client();
    create_items(&mut client, 2000);
    client.batch_execute(CREATE_INDEX).unwrap();
    (cluster, client)
}

#[test]
fn many_scans_in_one_statement_keep_memory_flat() {
    let scans = number_from_environment("IMGVEC_RESCANS", 80_000) as usize;
    let (_cluster, mut client) = cluster_with_items("ann-rescans");
    // The numbers of a series wait in work_mem. Compiled expressions would take memory by what the planner expects.
    client.batch_execute("SET jit = off; SET work_mem = '64kB'; SET enable_seqscan = off; SET enable_sort = off; SET enable_memoize = off; SET enable_material = off; SET imgvec.ef_search = 40").unwrap();
    // The inner scan depends on the outer row and ends early: each time a rescan.
    let nested = |client: &mut Client, count: usize| {
        let query = format!(
            "SELECT count(found.id) FROM generate_series(1, {count}) AS number,
             LATERAL (SELECT id FROM items ORDER BY embedding <-> ARRAY[number % 100, {zeros}]::real[]::imgvec LIMIT 2) AS found",
            zeros = vec!["0"; DIM as usize - 1].join(", ")
        );
        let plan = explain(client, &query);
        assert!(is_ordered_by_index(&plan), "{plan:#?}");
        assert_eq!(value::<i64>(client, &query), 2 * count as i64);
    };
    assert_flat(&mut client, "rescans", scans / 4, scans, nested);

    // A scan of a statement of its own, begun and left half-way, in a loop on the server.
    client
        .batch_execute(&format!(
            "CREATE FUNCTION search(count integer) RETURNS bigint LANGUAGE plpgsql AS $$
             DECLARE walk refcursor; found integer; total bigint := 0;
             BEGIN
                 FOR number IN 1..count LOOP
                     OPEN walk FOR SELECT id FROM items ORDER BY embedding <-> vec(number % 50, {DIM});
                     FETCH walk INTO found; total := total + (found IS NOT NULL)::integer; FETCH walk INTO found;
                     CLOSE walk;
                 END LOOP;
                 RETURN total;
             END $$"
        ))
        .unwrap();
    let cursors = |client: &mut Client, count: usize| {
        assert_eq!(value::<i64>(client, &format!("SELECT search({count})")), count as i64);
    };
    assert_flat(&mut client, "cursors", scans / 50, scans / 5, cursors);
}

#[test]
fn a_long_copy_keeps_memory_flat() {
    let rows = number_from_environment("IMGVEC_COPY_ROWS", 30_000) as usize;
    let cluster = quiet("ann-copy").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE items (id integer, embedding imgvec(8));
             CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops)"
        ))
        .unwrap();
    let file = |count: usize| cluster.directory().join(format!("rows-{count}"));
    for count in [rows / 10, rows] {
        let file = file(count);
        let file = file.display();
        client
            .batch_execute(&format!("COPY (SELECT i, vec(i + {count}, 8) FROM generate_series(1, {count}) AS i) TO '{file}' (FORMAT binary)"))
            .unwrap();
    }
    let copy = |client: &mut Client, count: usize| {
        let rows =
            client.execute(&format!("COPY items FROM '{}' (FORMAT binary)", file(count).display()), &[]);
        assert_eq!(rows.unwrap(), count as u64);
    };
    assert_flat(&mut client, "rows of a copy", rows / 10, rows, copy);
    assert_eq!(super::check(&mut client, "items_embedding").rows, (rows + rows / 10 * 2) as i64);
}

/// Rows that the table gets while the index takes part in nothing.
fn insert_unindexed(client: &mut Client, first: i32, last: i32) {
    for (ready, statement) in [
        (
            "false",
            format!("INSERT INTO items SELECT i, vec(i, 8) FROM generate_series({first}, {last}) AS i"),
        ),
        ("true", "SELECT 1".into()),
    ] {
        script(
            client,
            &format!(
                "UPDATE pg_index SET indisready = {ready}, indisvalid = {ready} WHERE indexrelid = 'items_embedding'::regclass; {statement}"
            ),
        );
    }
}

#[test]
fn a_check_and_a_vacuum_hold_no_more_than_they_may() {
    const ROWS: i32 = 150_000;
    // Shared buffers that a session has touched count as its own.
    let cluster = quiet("ann-held").conf("shared_buffers = '1MB'").conf("max_wal_size = '4GB'").start();
    let mut client = cluster.client();
    script(
        &mut client,
        &format!(
            "{VECTORS}; CREATE TABLE items (id integer, embedding imgvec(8));
             INSERT INTO items SELECT i, vec(i, 8) FROM generate_series(1, {ROWS}) AS i;
             CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops)"
        ),
    );
    let held = |statement: &str| {
        let mut session = cluster.client();
        session
            .batch_execute("SET maintenance_work_mem = '1MB'; SELECT ann_index_info('items_embedding')")
            .unwrap();
        let pid = u32::try_from(value::<i32>(&mut session, "SELECT pg_backend_pid()")).unwrap();
        let before = Memory::of(pid).anonymous;
        let most = peak(&mut session, |session| session.batch_execute(statement).unwrap());
        eprintln!("{statement}: {} kB", most.saturating_sub(before) / 1024);
        most.saturating_sub(before)
    };
    let check = "SELECT ann_index_check('items_embedding', heapallindexed => true)";
    assert!(held(check) < GROWTH_BYTES, "a check of {ROWS} rows");

    // In parts, too, rows that are missing are found, and each once: at the beginning of the table and at its end.
    script(&mut client, "DELETE FROM items WHERE id <= 500; VACUUM (INDEX_CLEANUP ON) items");
    client.batch_execute("SET maintenance_work_mem = '1MB'").unwrap();
    assert_eq!(super::check(&mut client, "items_embedding").rows, i64::from(ROWS) - 500);
    insert_unindexed(&mut client, -700, -1);
    let places = "SELECT (min(ctid) < '(5,0)' AND max(ctid) > '(500,0)')::text FROM items WHERE id < 0";
    assert_eq!(value::<String>(&mut client, places), "true", "the new rows lie in one place");
    let error = failure(&mut client, check);
    assert_eq!(error.code(), &SqlState::INDEX_CORRUPTED, "{error:?}");
    assert!(error.detail().unwrap().starts_with("Problems found: 700, "), "{error:?}");

    script(&mut client, "SET maintenance_work_mem = '64MB'; REINDEX INDEX items_embedding");
    client.batch_execute("DELETE FROM items WHERE id > 1000").unwrap();
    assert!(held("VACUUM items") < GROWTH_BYTES, "a vacuum of {ROWS} rows");
    assert_eq!(super::check(&mut client, "items_embedding").rows, 1200);
}

/// Memory that a session has more while it works than before.
fn grown(client: &mut Client, work: impl FnOnce(&mut Client)) -> u64 {
    let pid = u32::try_from(value::<i32>(client, "SELECT pg_backend_pid()")).unwrap();
    let before = Memory::of(pid).anonymous;
    peak(client, work).saturating_sub(before)
}

/// `IMGVEC_FULL_SCAN_ROWS` sets how many rows there are.
#[test]
fn a_scan_of_all_rows_holds_a_part_of_them() {
    let rows = number_from_environment("IMGVEC_FULL_SCAN_ROWS", 100_000);
    let cluster = quiet("ann-full-scan").conf("maintenance_work_mem = '2GB'").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "CREATE TABLE items (id integer, embedding imgvec(4));
             INSERT INTO items SELECT i, ARRAY[cos(i), sin(i), cos(i * 0.7), i % 1009 / 1009.0]::imgvec
                 FROM generate_series(1, {rows}) AS i;
             {CREATE_INDEX}"
        ))
        .unwrap();
    let mut client = cluster.client();
    client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
    let grown = grown(&mut client, |client| {
        client
            .batch_execute(
                "BEGIN; DECLARE all_rows CURSOR FOR SELECT id FROM items ORDER BY embedding <-> '[1,0,1,0]'",
            )
            .unwrap();
        let moved = client.execute("MOVE ALL FROM all_rows", &[]).unwrap();
        assert_eq!(moved, u64::from(rows));
        client.batch_execute("COMMIT").unwrap();
    });
    eprintln!("a scan of all of {rows} rows: {} MB", grown >> 20);
    assert!(grown < 256 << 20, "{grown} bytes");
}

/// `IMGVEC_OPENED_INDEXES` and `IMGVEC_OPENED_ROWS` set how many indexes there are and over how many rows.
#[test]
fn opened_indexes_share_a_budget_of_memory() {
    let indexes = number_from_environment("IMGVEC_OPENED_INDEXES", 6);
    let rows = number_from_environment("IMGVEC_OPENED_ROWS", 1000);
    let cluster = quiet("ann-opened").conf("maintenance_work_mem = '1GB'").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE items (id integer, embedding imgvec(2048));
             INSERT INTO items SELECT i, vec(i, 2048) FROM generate_series(1, {rows}) AS i"
        ))
        .unwrap();
    for i in 0..indexes {
        client
            .batch_execute(&format!(
                "CREATE INDEX index_{i} ON items USING ann (embedding imgvec_l2_ops) WHERE id > -{i} - 1"
            ))
            .unwrap();
    }
    let mut client = cluster.client();
    client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
    let grown = grown(&mut client, |client| {
        // Twice: those that were dropped are read again.
        for i in (0..indexes).chain(0..indexes) {
            client.batch_execute(&format!("SELECT ann_index_info('index_{i}')")).unwrap();
        }
    });
    let opened: i64 = value(
        &mut client,
        &format!(
            "SELECT sum((ann_index_info(('index_' || i)::regclass)).entries)::bigint FROM generate_series(0, {indexes} - 1) AS i"
        ),
    );
    eprintln!("{indexes} indexes of {rows} rows, {opened} entries: {} MB", grown >> 20);
    // The budget, one index more, and what the server's caches hold.
    assert!(grown < 128 << 20, "{grown} bytes");
}
