//! Copies of a maintained table: a subscriber receives embeddings and makes none, a standby shows progress and works
//! once it is promoted.

use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};

use super::{CAPTIONS, assert_complete, progress, run};
use crate::cluster::Cluster;
use crate::{failure, value};

const TEXT: &str = "embed_text(caption, 'starter')";

#[track_caller]
fn wait_for(client: &mut Client, condition: &str) {
    let begin = Instant::now();
    while !value::<bool>(client, condition) {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited a minute for this: {condition}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_subscriber_does_not_embed_what_it_receives() {
    let server = |name| {
        Cluster::new(name).conf("wal_level = logical").conf("wal_retrieve_retry_interval = '100ms'").start()
    };
    let (publisher, subscriber) = (server("pipeline-publisher"), server("pipeline-subscriber"));
    let (mut source, mut copy) = (publisher.client(), subscriber.client());
    run(&mut source, CAPTIONS);
    // The subscriber maintains the column too, for rows of its own.
    run(&mut copy, CAPTIONS);
    // All tables, the queue included: the hardest case.
    run(
        &mut source,
        "INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 100) AS i;
         CALL imgvec_work('notes');
         CREATE PUBLICATION everything FOR ALL TABLES",
    );
    run(
        &mut copy,
        &format!(
            "CREATE SUBSCRIPTION everything CONNECTION 'host={} dbname=postgres user=postgres' PUBLICATION everything",
            publisher.directory().display()
        ),
    );
    wait_for(&mut copy, "SELECT count(*) = 100 FROM notes WHERE embedding IS NOT NULL");
    run(
        &mut source,
        "INSERT INTO notes SELECT i, 'later ' || i FROM generate_series(101, 150) AS i;
         UPDATE notes SET caption = 'changed ' || id WHERE id <= 10;
         DELETE FROM notes WHERE id = 50;
         CALL imgvec_work('notes')",
    );
    assert_complete(&mut source, "notes", TEXT);
    wait_for(
        &mut copy,
        "SELECT count(embedding) = 149 AND bool_and(abs(embedding <=> embed_text(caption, 'starter')) < 1e-5) FROM notes",
    );
    assert_eq!(value::<i64>(&mut copy, "SELECT count(*) FROM notes_embedding_queue"), 0);
    // Its own rows are its own affair.
    run(
        &mut copy,
        "INSERT INTO notes VALUES (1000, 'of the subscriber');
                    CALL imgvec_work('notes')",
    );
    assert_complete(&mut copy, "notes", TEXT);
    run(&mut copy, "DROP SUBSCRIPTION everything");
}

#[test]
fn logical_decoding_does_not_see_what_is_queued() {
    let cluster = Cluster::new("pipeline-decoding").conf("wal_level = logical").start();
    let mut client = cluster.client();
    run(&mut client, CAPTIONS);
    run(&mut client, "CREATE PUBLICATION everything FOR ALL TABLES");
    run(&mut client, "SELECT pg_create_logical_replication_slot('everything', 'pgoutput')");
    // One row, and rows that come together.
    run(&mut client, "INSERT INTO notes VALUES (1, 'thing')");
    run(&mut client, "INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(2, 50) AS i");
    let changes = "SELECT count(*) FROM pg_logical_slot_peek_binary_changes('everything', NULL, NULL, 'proto_version', '1',
        'publication_names', 'everything') WHERE position('queue'::bytea IN data) > 0";
    assert_eq!(value::<i64>(&mut client, changes), 0);
    run(&mut client, "SELECT pg_drop_replication_slot('everything')");
}

#[test]
fn a_standby_shows_progress_and_works_after_its_promotion() {
    let cluster = Cluster::new("pipeline-primary").start();
    let mut client = cluster.client();
    run(&mut client, CAPTIONS);
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 100) AS i;
         CALL imgvec_work('notes');
         UPDATE notes SET caption = 'changed ' || id WHERE id <= 30",
    );
    let standby = cluster.standby("pipeline-standby");
    cluster.wait_for(&standby);
    let mut copy = standby.client();
    assert_eq!(progress(&mut copy, "notes"), "30 waiting, 0 failed");
    assert_eq!(value::<i64>(&mut copy, "SELECT count(*) FROM imgvec_failures"), 0);
    for statement in
        ["CALL imgvec_work('notes')", "SELECT imgvec_retry('notes')", "SELECT imgvec_start_workers(1)"]
    {
        let error = failure(&mut copy, statement);
        assert_eq!(error.code().code(), "25006", "{statement}: {error:?}");
    }
    standby.promote();
    run(&mut copy, "SELECT imgvec_start_workers(1)");
    wait_for(&mut copy, "SELECT sum(waiting) = 0 FROM imgvec_progress");
    assert_complete(&mut copy, "notes", TEXT);
}
