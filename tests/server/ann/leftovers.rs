//! What a build leaves that did not come to its end: an index without pages, which nobody uses, which says what it
//! is to who looks into it, and which does not stand in the way of the table.

use std::thread;
use std::time::Duration;

use postgres::Client;
use postgres::error::{DbError, SqlState};

use super::{CREATE_INDEX, DIM, assert_sound, by_table, check, create_items, ids, quiet, script, search};
use crate::cluster::Cluster;
use crate::{failure, value};

const FLAGS: &str =
    "SELECT array[indisvalid, indisready] FROM pg_index WHERE indexrelid = 'items_embedding'::regclass";

/// A table whose concurrent build was killed while it waited for a writer, before it wrote a page.
fn cluster_with_leftover(name: &str) -> (Cluster, Client) {
    let cluster = quiet(name).start();
    let mut client = cluster.client();
    create_items(&mut client, 500);
    let mut writer = cluster.client();
    writer.batch_execute("BEGIN; UPDATE items SET note = 'x' WHERE id = 1").unwrap();
    let mut builder = cluster.client();
    let pid: i32 = value(&mut builder, "SELECT pg_backend_pid()");
    let build = CREATE_INDEX.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY");
    thread::scope(|scope| {
        let session = scope.spawn(|| builder.batch_execute(&build));
        let waiting = format!("SELECT count(*) FROM pg_locks WHERE pid = {pid} AND NOT granted");
        while value::<i64>(&mut client, &waiting) == 0 {
            assert!(!session.is_finished(), "the build did not wait");
            thread::sleep(Duration::from_millis(10));
        }
        assert!(value::<bool>(&mut client, &format!("SELECT pg_terminate_backend({pid}, 10000)")));
        session.join().unwrap().unwrap_err();
    });
    writer.batch_execute("COMMIT").unwrap();
    assert_eq!(value::<Vec<bool>>(&mut client, FLAGS), [false, false]);
    assert_eq!(value::<i64>(&mut client, "SELECT pg_relation_size('items_embedding')"), 0);
    (cluster, client)
}

#[track_caller]
fn assert_says_what_to_do(error: &DbError, code: &SqlState) {
    assert_eq!(error.code(), code, "{error:?}");
    assert!(error.message().contains("items_embedding"), "{error:?}");
    assert!(error.detail().is_some(), "{error:?}");
    assert!(error.hint().unwrap().contains("REINDEX"), "{error:?}");
}

#[test]
fn an_index_that_a_killed_build_left_empty_is_in_nobodys_way() {
    let (_cluster, mut client) = cluster_with_leftover("ann-leftover");
    let nearest = search("items", "<->", &format!("vec(7, {DIM})"), 3);
    client.batch_execute("SET enable_seqscan = off").unwrap();
    script(&mut client, "INSERT INTO items SELECT 501, vec(501, 16); DELETE FROM items WHERE id = 2");
    script(&mut client, "VACUUM items; ANALYZE items; VACUUM FREEZE items");
    assert_eq!(ids(&client.query(&nearest, &[]).unwrap()), ids(&by_table(&mut client, &nearest)));

    for function in ["ann_index_check", "ann_index_info", "ann_index_recall"] {
        let error = failure(&mut client, &format!("SELECT * FROM {function}('items_embedding')"));
        assert_says_what_to_do(&error, &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    }
    client.batch_execute("REINDEX INDEX CONCURRENTLY items_embedding").unwrap();
    assert_eq!(value::<Vec<bool>>(&mut client, FLAGS), [true, true]);
    assert_eq!(assert_sound(&mut client).rows, 500);
}

#[test]
fn an_index_in_use_that_has_no_pages_is_damaged_and_says_so() {
    let (_cluster, mut client) = cluster_with_leftover("ann-empty");
    // As if its file had been cut off.
    client
        .batch_execute(
            "UPDATE pg_index SET indisvalid = true, indisready = true WHERE indexrelid = 'items_embedding'::regclass",
        )
        .unwrap();
    client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
    for statement in [
        "SELECT id FROM items ORDER BY embedding <-> vec(7, 16) LIMIT 3",
        "INSERT INTO items SELECT 501, vec(501, 16)",
        "SELECT ann_index_check('items_embedding')",
        "SELECT ann_index_info('items_embedding')",
        "SELECT ann_index_recall('items_embedding')",
    ] {
        assert_says_what_to_do(&failure(&mut client, statement), &SqlState::INDEX_CORRUPTED);
    }
    // A table must be vacuumed even so.
    script(&mut client, "DELETE FROM items WHERE id <= 100; VACUUM items; VACUUM FREEZE items");
    assert_eq!(value::<i64>(&mut client, "SELECT pg_relation_size('items_embedding')"), 0);
    client.batch_execute("REINDEX INDEX items_embedding").unwrap();
    assert_eq!(assert_sound(&mut client).rows, 400);
}

#[test]
fn rows_are_not_called_missing_from_an_index_that_was_not_completed() {
    let cluster = quiet("ann-incomplete").start();
    let (mut client, mut old) = (cluster.client(), cluster.client());
    create_items(&mut client, 500);
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").unwrap();
    // Built and validated, and then it waits for the old snapshot.
    client.batch_execute("SET statement_timeout = '2s'").unwrap();
    let build = CREATE_INDEX.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY");
    assert_eq!(failure(&mut client, &build).code(), &SqlState::QUERY_CANCELED);
    client.batch_execute("RESET statement_timeout").unwrap();
    old.batch_execute("COMMIT").unwrap();
    assert_eq!(value::<Vec<bool>>(&mut client, FLAGS), [false, true]);
    // It takes part in writes and vacuums, and its pages can be verified.
    script(
        &mut client,
        "INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(501, 600) AS i; DELETE FROM items WHERE id <= 50; VACUUM items",
    );
    assert_eq!(value::<i64>(&mut client, "SELECT rows FROM ann_index_check('items_embedding')"), 550);
    let error = failure(&mut client, "SELECT ann_index_check('items_embedding', heapallindexed => true)");
    assert_says_what_to_do(&error, &SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    client.batch_execute("REINDEX INDEX CONCURRENTLY items_embedding").unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 550);
}
