//! What `ann_index_check` keeps away, and what it bears with: without a look at the rows it reads beside writers.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::Client;
use postgres::error::SqlState;

use super::{CREATE_INDEX, assert_sound, check, create_items, insert_items, quiet};
use crate::{failure, value};

/// Locks that this session has on the table and its index.
fn locks(client: &mut Client) -> String {
    value(
        client,
        "SELECT string_agg(DISTINCT mode, ', ' ORDER BY mode) FROM pg_locks WHERE pid = pg_backend_pid()
             AND relation IN ('items'::regclass, 'items_embedding'::regclass)",
    )
}

#[test]
fn a_check_waits_for_no_writer_unless_it_looks_for_every_row() {
    let cluster = quiet("ann-check").start();
    let (mut client, mut writer) = (cluster.client(), cluster.client());
    create_items(&mut client, 500);
    client.batch_execute(CREATE_INDEX).unwrap();
    writer.batch_execute("BEGIN").unwrap();
    insert_items(&mut writer, 501, 520);

    client.batch_execute("SET lock_timeout = '50ms'; BEGIN").unwrap();
    let rows: i64 = value(&mut client, "SELECT rows FROM ann_index_check('items_embedding')");
    assert_eq!(rows, 520);
    assert_eq!(locks(&mut client), "AccessShareLock");
    // Nobody queues for the lock either.
    insert_items(&mut writer, 521, 530);
    client.batch_execute("COMMIT").unwrap();
    let error = failure(&mut client, "SELECT ann_index_check('items_embedding', heapallindexed => true)");
    assert_eq!(error.code(), &SqlState::LOCK_NOT_AVAILABLE, "{error:?}");
    writer.batch_execute("COMMIT").unwrap();
    client.batch_execute("BEGIN").unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 530);
    assert_eq!(locks(&mut client), "ShareLock");
    client.batch_execute("COMMIT").unwrap();
}

#[test]
fn what_looks_damaged_is_looked_at_again_without_writers() {
    let mut cluster = quiet("ann-check-again").start();
    let mut client = cluster.client();
    create_items(&mut client, 500);
    client.batch_execute(CREATE_INDEX).unwrap();
    let file: String = value(&mut client, "SELECT pg_relation_filepath('items_embedding')");
    drop(client);
    cluster.stop();
    let path = cluster.data().join(file);
    let mut bytes = fs::read(&path).unwrap();
    // What every page of an index ends with.
    bytes[2 * 8192 - 8..2 * 8192].fill(0x5a);
    fs::write(&path, bytes).unwrap();
    cluster.start();

    let (mut client, mut writer) = (cluster.client(), cluster.client());
    writer.batch_execute("BEGIN; UPDATE items SET note = 'x' WHERE id = 1 AND false").unwrap();
    client.batch_execute("SET lock_timeout = '50ms'").unwrap();
    let error = failure(&mut client, "SELECT ann_index_check('items_embedding')");
    assert_eq!(error.code(), &SqlState::LOCK_NOT_AVAILABLE, "{error:?}");
    writer.batch_execute("COMMIT").unwrap();
    let error = failure(&mut client, "SELECT ann_index_check('items_embedding')");
    assert_eq!(error.code(), &SqlState::INDEX_CORRUPTED, "{error:?}");
    assert_eq!(error.hint(), Some("REINDEX the index."), "{error:?}");
}

#[test]
fn checks_beside_writers_find_nothing_wrong() {
    let cluster = quiet("ann-check-beside").start();
    let mut client = cluster.client();
    create_items(&mut client, 1000);
    client.batch_execute(CREATE_INDEX).unwrap();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (1..=2)
            .map(|session| {
                let (mut writer, stop) = (cluster.client(), &stop);
                scope.spawn(move || {
                    let mut rounds = 0;
                    while !stop.load(Ordering::Relaxed) {
                        let first = session * 100_000 + rounds % 50 * 100;
                        writer
                            .batch_execute(&format!(
                                "DELETE FROM items WHERE id BETWEEN {first} AND {first} + 99"
                            ))
                            .unwrap();
                        insert_items(&mut writer, first, first + 99);
                        if session == 1 {
                            writer.batch_execute("VACUUM items").unwrap();
                        }
                        rounds += 1;
                    }
                    rounds
                })
            })
            .collect();
        for _ in 0..60 {
            let rows: i64 = value(&mut client, "SELECT rows FROM ann_index_check('items_embedding')");
            assert!(rows >= 1000, "{rows}");
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            let rounds = writer.join().unwrap();
            assert!(rounds > 0, "a writer wrote nothing");
        }
    });
    assert_sound(&mut client);
}

/// An index is looked up before its table is locked, and may be gone, or be another table's, by then.
#[test]
fn an_index_that_is_dropped_while_its_table_is_waited_for_is_not_read() {
    let cluster = quiet("ann-check-dropped").start();
    let (mut client, mut owner) = (cluster.client(), cluster.client());
    create_items(&mut client, 100);
    client.batch_execute(CREATE_INDEX).unwrap();
    for function in ["ann_index_check", "ann_index_info", "ann_index_recall"] {
        owner.batch_execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE").unwrap();
        let call = format!("{function}('items_embedding')");
        let pid: i32 = value(&mut client, "SELECT pg_backend_pid()");
        thread::scope(|scope| {
            let session = scope.spawn(|| failure(&mut client, &format!("SELECT {call}")));
            let is_waiting =
                format!("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)");
            while !session.is_finished() && !value::<bool>(&mut owner, &is_waiting) {
                thread::yield_now();
            }
            owner.batch_execute("DROP INDEX items_embedding").unwrap();
            owner.batch_execute("COMMIT").unwrap();
            let error = session.join().unwrap();
            assert_eq!(error.code(), &SqlState::UNDEFINED_OBJECT, "{call}: {error:?}");
        });
        client.batch_execute(CREATE_INDEX).unwrap();
    }
}
