//! Settings and options at their limits, and memory that stays within what a build was given.

use postgres::error::SqlState;

use super::memory::peak;
use super::{CREATE_INDEX, DIM, VECTORS, assert_sound, by_index, check, create_items, quiet, script, search};
use crate::cluster::Memory;
use crate::{failure, value};

#[test]
fn settings_at_their_limits_overflow_nothing() {
    let cluster = quiet("ann-extremes").conf("max_worker_processes = 64").start();
    let mut client = cluster.client();
    create_items(&mut client, 3000);
    let limits = "SELECT min_val, max_val FROM pg_settings WHERE name = 'maintenance_work_mem'";
    let row = client.query_one(limits, &[]).unwrap();
    let (least, most): (String, String) = (row.get(0), row.get(1));
    assert_eq!(most, "2147483647");
    for memory in [&least, &most] {
        for workers in [0, 1024] {
            script(
                &mut client,
                &format!(
                    "SET maintenance_work_mem = {memory}; SET max_parallel_maintenance_workers = {workers};
                     DROP INDEX IF EXISTS items_embedding; {CREATE_INDEX};
                     UPDATE items SET embedding = vec(id + {workers} + 5000, {DIM}) WHERE id % 3 = 0; VACUUM items;
                     REINDEX INDEX CONCURRENTLY items_embedding"
                ),
            );
            assert_eq!(check(&mut client, "items_embedding").rows, 3000, "{memory} kB, {workers} workers");
        }
    }
    assert_sound(&mut client);

    let all = search("items", "<->", &format!("vec(-1, {DIM})"), 3000);
    client
        .batch_execute("ALTER INDEX items_embedding SET (ef_search = 10000, max_scan_rows = 2147483647)")
        .unwrap();
    assert_eq!(by_index(&mut client, &all).len(), 3000);
    client.batch_execute("SET imgvec.ef_search = 10000; SET imgvec.max_scan_rows = 2147483647").unwrap();
    assert_eq!(by_index(&mut client, &all).len(), 3000);
    assert_eq!(
        value::<f64>(&mut client, "SELECT ann_index_recall('items_embedding', 1000, 20)"),
        1.0,
        "a beam of all rows"
    );
    for statement in [
        "SET imgvec.ef_search = 10001",
        "SET imgvec.max_scan_rows = 2147483648",
        "ALTER INDEX items_embedding SET (ef_search = 10001)",
        "ALTER INDEX items_embedding SET (ef_search = 99999999999999999999)",
        "ALTER INDEX items_embedding SET (max_scan_rows = 2147483648)",
        "ALTER INDEX items_embedding SET (max_scan_rows = -2147483649)",
        "SELECT ann_index_recall('items_embedding', 2147483647, 1)",
        "SELECT ann_index_recall('items_embedding', 1, 2147483647)",
        "SELECT ann_index_recall('items_embedding', -2147483648, -2147483648)",
    ] {
        let error = failure(&mut client, statement);
        assert_eq!(error.code(), &SqlState::INVALID_PARAMETER_VALUE, "{statement}: {error:?}");
    }
    assert_sound(&mut client);
}

#[test]
fn a_build_holds_what_it_was_given() {
    const ROWS: i32 = 120_000;
    // What the threads of a build and the server itself take beside the rows: 18 MB on a quiet machine,
    // some more on a busy one, where more of the allocator's arenas are in use. All rows take 120 MB.
    const OTHER_BYTES: u64 = 48 << 20;
    // Shared buffers that a session has touched count as its own.
    let cluster = quiet("ann-ceiling").conf("shared_buffers = '2MB'").conf("max_wal_size = '4GB'").start();
    let mut client = cluster.client();
    script(
        &mut client,
        &format!(
            "{VECTORS}; CREATE TABLE items (id integer, embedding imgvec(8));
             INSERT INTO items SELECT i, vec(i, 8) FROM generate_series(1, {ROWS}) AS i"
        ),
    );
    let mut held = Vec::new();
    for megabytes in [8, 512] {
        let mut session = cluster.client();
        session.batch_execute(&format!("SET maintenance_work_mem = '{megabytes}MB'")).unwrap();
        let pid = u32::try_from(value::<i32>(&mut session, "SELECT pg_backend_pid()")).unwrap();
        let before = Memory::of(pid).anonymous;
        let most = peak(&mut session, |session| session.batch_execute(CREATE_INDEX).unwrap());
        let bytes = most.saturating_sub(before);
        eprintln!("{megabytes} MB: {} kB", bytes / 1024);
        assert!(bytes < (megabytes << 20) + OTHER_BYTES, "{bytes} bytes within {megabytes} MB");
        assert_eq!(check(&mut client, "items_embedding").rows, i64::from(ROWS));
        client.batch_execute("DROP INDEX items_embedding").unwrap();
        held.push(bytes);
    }
    assert!(held[1] > 2 * held[0], "more memory was of no use, so this measures nothing: {held:?}");
}
