//! More of something than usual, and less than is needed.

use std::thread;
use std::time::{Duration, Instant};

use super::migrate::write_other_model;
use super::{CAPTIONS, assert_complete, progress, run, start};
use crate::ann::number_from_environment;
use crate::cluster::Cluster;
use crate::models::cluster_with_packages;
use crate::{failure, value};

const TEXT: &str = "embed_text(caption, 'starter')";

#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(120), "waited two minutes for this: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn many_tables_are_worked_by_one_call_and_by_one_worker() {
    let tables = number_from_environment("IMGVEC_PIPELINE_TABLES", 50);
    let (_cluster, mut client) = start("pipeline-tables");
    // One transaction holds the locks of so many only.
    for first in (1..=tables).step_by(50) {
        let last = tables.min(first + 49);
        client
            .batch_execute(&format!(
                "DO $$ BEGIN FOR i IN {first}..{last} LOOP
                     EXECUTE format('CREATE TABLE many%s (id int PRIMARY KEY, caption text, embedding imgvec(256))', i);
                     PERFORM imgvec_maintain(format('many%s', i)::regclass, 'caption', 'embedding', 'starter');
                     EXECUTE format('INSERT INTO many%s VALUES (1, %L)', i, 'thing ' || i);
                 END LOOP; END $$"
            ))
            .unwrap();
    }
    let waiting = "SELECT sum(waiting)::bigint FROM imgvec_progress";
    assert_eq!(value::<i64>(&mut client, waiting), i64::from(tables));
    run(&mut client, "CALL imgvec_work()");
    assert_eq!(value::<i64>(&mut client, waiting), 0);
    assert_eq!(
        value::<i64>(&mut client, "SELECT sum(embedded)::bigint FROM imgvec_progress"),
        i64::from(tables)
    );
    run(&mut client, "SELECT imgvec_start_workers(1)");
    for table in [1, tables / 2, tables] {
        run(&mut client, &format!("INSERT INTO many{table} VALUES (2, 'another')"));
    }
    wait_until("nothing waits", || value::<i64>(&mut client, waiting) == 0);
    assert_eq!(
        value::<i64>(&mut client, "SELECT sum(embedded)::bigint FROM imgvec_progress"),
        i64::from(tables) + 3
    );
}

#[test]
fn an_owner_who_lost_a_right_loses_no_row() {
    let (cluster, mut client) = start("pipeline-lost-right");
    run(&mut client, "CREATE ROLE painter LOGIN; GRANT CREATE ON SCHEMA public TO painter; CREATE SCHEMA helpers; GRANT USAGE ON SCHEMA helpers TO painter;
        CREATE FUNCTION helpers.say(text) RETURNS text LANGUAGE sql AS $$ SELECT 'say ' || $1 $$");
    let mut painter = cluster.client_of("painter", "postgres");
    run(
        &mut painter,
        "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('notes', 'helpers.say(caption)', 'embedding', 'starter');
         INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 50) AS i",
    );
    for (take, give) in [
        ("REVOKE SELECT ON notes FROM painter", "GRANT SELECT ON notes TO painter"),
        ("REVOKE UPDATE ON notes FROM painter", "GRANT UPDATE ON notes TO painter"),
        ("REVOKE USAGE ON SCHEMA helpers FROM painter", "GRANT USAGE ON SCHEMA helpers TO painter"),
        (
            "REVOKE EXECUTE ON FUNCTION helpers.say(text) FROM PUBLIC",
            "GRANT EXECUTE ON FUNCTION helpers.say(text) TO PUBLIC",
        ),
    ] {
        run(&mut client, take);
        let error = failure(&mut client, "CALL imgvec_work('notes')");
        assert_eq!(error.code().code(), "42501", "{take}: {error:?}");
        let told: String = value(&mut client, "SELECT last_error FROM imgvec_progress");
        assert!(told.contains("42501") || told.contains("permission denied"), "{take}: {told}");
        run(&mut client, give);
        assert_eq!(progress(&mut client, "notes"), "50 waiting, 0 failed", "{take}");
    }
    run(&mut painter, "CALL imgvec_work('notes')");
    assert_complete(&mut client, "notes", "embed_text('say ' || caption, 'starter')");
}

#[test]
fn a_worker_bears_an_older_version_of_the_extension_and_works_after_the_update() {
    let cluster = Cluster::new("pipeline-versions")
        .conf("shared_preload_libraries = 'imgvec'")
        .conf("imgvec.workers = 1")
        .conf("imgvec.worker_databases = 'postgres'")
        .start();
    let mut client = cluster.client();
    run(&mut client, "DROP EXTENSION imgvec CASCADE;\nCREATE EXTENSION imgvec VERSION '0.1.0'");
    let pid = "SELECT max(pid) FROM pg_stat_activity WHERE backend_type = 'imgvec worker'";
    wait_until("the worker", || value::<Option<i32>>(&mut client, pid).is_some());
    let before: i32 = value(&mut client, pid);
    // Several rounds of looking around, woken by every commit here.
    run(
        &mut client,
        "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, other text, embedding imgvec(256));
                      INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 50) AS i;
                      ALTER EXTENSION imgvec UPDATE;
                      SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter')",
    );
    wait_until("nothing waits", || {
        value::<i64>(&mut client, "SELECT sum(waiting)::bigint FROM imgvec_progress") == 0
    });
    assert_complete(&mut client, "notes", TEXT);
    assert_eq!(value::<i32>(&mut client, pid), before, "the same worker all the time");
}

#[test]
fn a_database_is_dropped_while_its_worker_works() {
    let (cluster, mut client) = start("pipeline-drop-busy");
    run(&mut client, "CREATE DATABASE album");
    let mut album = cluster.client_of("postgres", "album");
    run(&mut album, "CREATE EXTENSION imgvec");
    run(&mut album, CAPTIONS);
    run(
        &mut album,
        "INSERT INTO notes SELECT i, repeat('thing number ' || i || ' ', 20) FROM generate_series(1, 100000) AS i;
         SELECT imgvec_start_workers(2)",
    );
    wait_until("they work", || value::<i64>(&mut album, "SELECT count(embedding) FROM notes") > 0);
    drop(album);
    // The server waits five seconds for others to go, and the worker looks between batches.
    wait_until("the database is dropped", || client.batch_execute("DROP DATABASE album").is_ok());
    let workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'imgvec worker'";
    wait_until("they are gone", || value::<i64>(&mut client, workers) == 0);
}

#[test]
fn rows_of_earlier_files_of_a_model_are_told() {
    let (cluster, models) = cluster_with_packages("pipeline-outdated", &[]);
    write_other_model(&models.join("other"), 1);
    cluster.give(&models);
    let mut client = cluster.client();
    run(
        &mut client,
        "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('notes', 'caption', 'embedding', 'other');
         INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 100) AS i;
         CALL imgvec_work('notes')",
    );
    let outdated = "SELECT outdated FROM imgvec_progress";
    let of_model = "SELECT outdated FROM imgvec_models WHERE name = 'other'";
    assert_eq!(value::<i64>(&mut client, outdated), 0);
    assert_eq!(value::<Option<i64>>(&mut client, of_model), None);
    // Other files under the same name.
    write_other_model(&models.join("other"), 2);
    cluster.give(&models);
    assert_eq!(value::<i64>(&mut client, outdated), 100);
    assert_eq!(value::<Option<i64>>(&mut client, of_model), Some(100));
    run(
        &mut client,
        "UPDATE notes SET caption = 'thing number ' || (id + 1) WHERE id <= 10;
         INSERT INTO notes VALUES (101, 'a new thing');
         CALL imgvec_work('notes')",
    );
    assert_eq!(value::<i64>(&mut client, outdated), 90);
    assert_eq!(value::<Option<i64>>(&mut client, of_model), Some(90));
    // The model again, by its files of now, without a gap.
    run(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'other')");
    assert_eq!(value::<i64>(&mut client, outdated), 0);
    assert_complete(&mut client, "notes", "embed_text(caption, 'other')");
}
