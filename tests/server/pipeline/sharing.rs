//! Several sessions at one queue, beside sessions that change the table.

use std::thread;
use std::time::Duration;

use super::{CAPTIONS, assert_complete, progress, run, start};
use crate::{Random, value};

const TEXT: &str = "embed_text(caption, 'starter')";

#[test]
fn sessions_share_a_queue_beside_writers() {
    let (cluster, mut client) = start("pipeline-sharing");
    run(&mut client, CAPTIONS);
    run(&mut client, "INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 4000) AS i");
    thread::scope(|scope| {
        let writers: Vec<_> = (1..=3)
            .map(|seed| {
                let mut client = cluster.client();
                scope.spawn(move || {
                    let mut random = Random(seed);
                    let mut number = 0;
                    while number < 200 {
                        let id = random.below(4000);
                        let statement = match random.below(6) {
                            0 => format!("DELETE FROM notes WHERE id = {id}"),
                            1 => format!("INSERT INTO notes VALUES ({id}, 'new {seed} {number}') ON CONFLICT DO NOTHING"),
                            2 => format!("UPDATE notes SET other = '{number}' WHERE id BETWEEN {id} AND {id} + 30"),
                            3 => format!("UPDATE notes SET caption = NULL WHERE id = {id}"),
                            _ => format!("UPDATE notes SET caption = 'now {seed} {number}' WHERE id BETWEEN {id} AND {id} + 5"),
                        };
                        // Writers may meet each other's rows in another order.
                        if let Err(error) = client.batch_execute(&statement) {
                            assert_eq!(error.code().map(|code| code.code()), Some("40P01"), "{statement}: {error:?}");
                        }
                        number += 1;
                    }
                })
            })
            .collect();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let mut client = cluster.client();
                scope.spawn(move || {
                    for _ in 0..3 {
                        run(&mut client, "CALL imgvec_work('notes')");
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        for writer in writers {
            writer.join().unwrap();
        }
    });
    run(&mut client, "CALL imgvec_work('notes')");
    assert_complete(&mut client, "notes", TEXT);
    // An empty queue keeps no disk space, and its log few lines.
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM notes_embedding_queue"), 0);
    assert!(value::<i64>(&mut client, "SELECT pg_relation_size('notes_embedding_queue')") <= 1 << 20);
}

#[test]
fn a_row_that_another_session_holds_is_left_for_later() {
    let (cluster, mut client) = start("pipeline-held");
    run(&mut client, CAPTIONS);
    run(&mut client, "INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 200) AS i");
    let mut holder = cluster.client();
    run(
        &mut holder,
        "BEGIN;\nUPDATE notes SET caption = 'held' WHERE id = 5;\nDELETE FROM notes WHERE id = 6",
    );
    // All others are embedded before the time is up.
    run(&mut client, "CALL imgvec_work('notes', max_seconds => 2)");
    assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM notes"), 198);
    assert_eq!(progress(&mut client, "notes"), "2 waiting, 0 failed");
    let mut second = cluster.client();
    run(&mut holder, "COMMIT");
    run(&mut second, "CALL imgvec_work('notes')");
    assert_complete(&mut client, "notes", TEXT);
    assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM notes"), 199);
}

#[test]
fn no_row_is_locked_while_others_are_embedded() {
    let (cluster, mut client) = start("pipeline-unlocked");
    // The source of one row waits for a lock, as a model would for the processor.
    run(
        &mut client,
        "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, other text, embedding imgvec(256));
         CREATE FUNCTION slow(id bigint, caption text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
             IF id = 800 THEN PERFORM pg_advisory_xact_lock_shared(1); END IF; RETURN caption; END $$;
         SELECT imgvec_maintain('notes', 'slow(id, caption)', 'embedding', 'starter');
         INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 1000) AS i;
         SELECT pg_advisory_lock(1)",
    );
    let mut worker = cluster.client();
    let pid: i32 = value(&mut worker, "SELECT pg_backend_pid()");
    thread::scope(|scope| {
        let work = scope.spawn(move || run(&mut worker, "CALL imgvec_work('notes')"));
        let is_waiting = format!("SELECT wait_event = 'advisory' FROM pg_stat_activity WHERE pid = {pid}");
        while value::<Option<bool>>(&mut client, &is_waiting) != Some(true) {
            assert!(!work.is_finished(), "it waits before its end");
            thread::sleep(Duration::from_millis(10));
        }
        // Others of the batch have been embedded, and are as free as those that have not.
        run(
            &mut client,
            "SET lock_timeout = '5s';
             UPDATE notes SET other = 'x' WHERE id % 3 = 0;
             UPDATE notes SET caption = 'changed ' || id WHERE id % 5 = 0;
             UPDATE notes SET caption = NULL WHERE id % 70 = 0;
             UPDATE notes SET id = id + 5000 WHERE id % 71 = 0;
             DELETE FROM notes WHERE id % 72 = 0;
             SELECT pg_advisory_unlock(1)",
        );
        work.join().unwrap();
    });
    assert_complete(&mut client, "notes", TEXT);
    let embedded: i64 = value(&mut client, "SELECT count(embedding) FROM notes");
    assert_eq!(embedded, value::<i64>(&mut client, "SELECT count(caption) FROM notes"));
}

#[test]
fn who_comes_while_another_session_queues_old_rows_has_a_share_of_them() {
    let (cluster, mut client) = start("pipeline-backfill-share");
    run(
        &mut client,
        "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, embedding imgvec(256));
         INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 100) AS i;
         SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter');
         SELECT embed_text('x', 'starter')",
    );
    // What another session does, which then has something else to do.
    run(
        &mut client,
        "BEGIN;
         SELECT FROM notes_embedding_log WHERE kind = 'backfill' FOR UPDATE;
         INSERT INTO notes_embedding_queue SELECT id, now() FROM notes",
    );
    let mut worker = cluster.client();
    let pid: i32 = value(&mut worker, "SELECT pg_backend_pid()");
    thread::scope(|scope| {
        let work = scope.spawn(move || run(&mut worker, "CALL imgvec_work('notes')"));
        let is_waiting = format!("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {pid}");
        while value::<Option<bool>>(&mut client, &is_waiting) != Some(true) {
            assert!(!work.is_finished(), "it waits for what the other one queues");
            // pg_stat_activity is a transaction's snapshot.
            run(&mut client, "SELECT pg_stat_clear_snapshot()");
            thread::sleep(Duration::from_millis(10));
        }
        run(&mut client, "DELETE FROM notes_embedding_log WHERE kind = 'backfill';\nCOMMIT");
        work.join().unwrap();
    });
    assert_complete(&mut client, "notes", TEXT);
}

#[test]
fn a_long_queue_leaves_nothing_behind() {
    let (_cluster, mut client) = start("pipeline-long");
    // Rows of the queue whose rows of the table are gone: what it costs is the queue's own.
    run(&mut client, CAPTIONS);
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'x' FROM generate_series(1, 200000) AS i;
                      TRUNCATE notes",
    );
    assert!(value::<i64>(&mut client, "SELECT pg_relation_size('notes_embedding_queue')") > 4 << 20);
    run(&mut client, "CALL imgvec_work('notes')");
    assert_eq!(value::<i64>(&mut client, "SELECT pg_relation_size('notes_embedding_queue')"), 0);
}

#[test]
fn cancelling_keeps_what_was_done() {
    let (_cluster, mut client) = start("pipeline-cancel");
    run(&mut client, CAPTIONS);
    run(&mut client, "INSERT INTO notes SELECT i, repeat('thing number ' || i || ' ', 20) FROM generate_series(1, 20000) AS i;
                      SET statement_timeout = '2500ms'");
    let result = client.batch_execute("CALL imgvec_work('notes')");
    run(&mut client, "SET statement_timeout = 0");
    let (done, waiting) = (
        value::<i64>(&mut client, "SELECT count(embedding) FROM notes"),
        value::<i64>(&mut client, "SELECT waiting FROM imgvec_progress"),
    );
    // A quick machine may be through.
    assert_eq!(result.is_err(), waiting > 0, "{result:?}");
    assert_eq!(done + waiting, 20000, "each row is embedded or waits");
    run(&mut client, "TRUNCATE notes;\nCALL imgvec_work('notes')");
}
