//! Background workers: started by a function or with the server, woken by commits, and out of the way when they should be.

use postgres::Client;
use std::thread;
use std::time::{Duration, Instant};

use super::{CAPTIONS, assert_complete, run, start};
use crate::cluster::{Cluster, signal};
use crate::{failure, value};

const TEXT: &str = "embed_text(caption, 'starter')";
const WORKERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'imgvec worker'";

/// Waits until `condition` holds, for a minute at most.
#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited a minute for this: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn wait_for_embeddings(client: &mut Client, table: &str) {
    let waiting =
        format!("SELECT sum(waiting)::bigint FROM imgvec_progress WHERE relation = '{table}'::regclass");
    wait_until("nothing waits", || value::<i64>(client, &waiting) == 0);
}

#[test]
fn workers_embed_what_comes_and_stop_when_asked() {
    let (cluster, mut client) = start("pipeline-workers");
    run(&mut client, CAPTIONS);
    run(&mut client, "CREATE ROLE plain LOGIN");
    assert_eq!(value::<i32>(&mut client, "SELECT imgvec_start_workers(2)"), 2);
    run(&mut client, "INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 3000) AS i");
    wait_for_embeddings(&mut client, "notes");
    assert_complete(&mut client, "notes", TEXT);
    assert_eq!(value::<i64>(&mut client, WORKERS), 2);
    let rate: f64 = value(&mut client, "SELECT rows_per_second FROM imgvec_progress");
    assert!(rate > 0.0, "{rate}");
    // Single rows wake them.
    let pids: Vec<i32> = client
        .query("SELECT pid FROM pg_stat_activity WHERE backend_type = 'imgvec worker'", &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    for id in 3001..3020 {
        run(&mut client, &format!("INSERT INTO notes VALUES ({id}, 'a single thing {id}')"));
        wait_for_embeddings(&mut client, "notes");
    }
    assert_complete(&mut client, "notes", TEXT);
    // Who may: not everybody.
    let mut plain = cluster.client_of("plain", "postgres");
    for statement in ["SELECT imgvec_start_workers(1)", "SELECT imgvec_stop_workers()"] {
        assert_eq!(failure(&mut plain, statement).code().code(), "42501", "{statement}");
    }
    for count in ["0", "-1", "1000000"] {
        assert_eq!(
            failure(&mut client, &format!("SELECT imgvec_start_workers({count})")).code().code(),
            "22023"
        );
    }
    // A crash of one restarts the server's sessions, and the workers come back.
    signal(pids[0].unsigned_abs(), "KILL");
    // Until the server has ended this session it has not noticed.
    wait_until("the session ends", || client.simple_query("SELECT").is_err());
    drop((client, plain));
    let mut client = loop {
        let connected = cluster.config().connect(postgres::NoTls);
        if let Ok(mut client) = connected
            && client.simple_query("SELECT").is_ok()
        {
            break client;
        }
        thread::sleep(Duration::from_millis(50));
    };
    wait_until("two workers again", || {
        if client.is_closed() {
            client = cluster.client();
        }
        client.query_one(WORKERS, &[]).is_ok_and(|row| row.get::<_, i64>(0) == 2)
    });
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'after the crash ' || i FROM generate_series(4001, 4500) AS i",
    );
    wait_for_embeddings(&mut client, "notes");
    assert_complete(&mut client, "notes", TEXT);
    assert_eq!(value::<i32>(&mut client, "SELECT imgvec_stop_workers()"), 2);
    wait_until("no workers", || value::<i64>(&mut client, WORKERS) == 0);
    cluster.forgive_kills();
}

#[test]
fn workers_that_are_stopped_in_their_first_moment_do_not_come_back() {
    let (cluster, mut client) = start("pipeline-stop");
    run(&mut client, CAPTIONS);
    for _ in 0..10 {
        run(&mut client, "SELECT imgvec_start_workers(2);\nSELECT imgvec_stop_workers()");
    }
    // The server starts a worker again after five seconds, if it ended with an error.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(7) {
        assert_eq!(value::<i64>(&mut client, WORKERS), 0);
        thread::sleep(Duration::from_millis(100));
    }
    let log = cluster.log();
    for trace in ["exited with exit code", "canceling statement"] {
        assert!(!log.contains(trace), "{trace}: {log}");
    }
}

#[test]
fn a_database_can_be_dropped_and_its_worker_does_not_come_back() {
    let (cluster, mut client) = start("pipeline-drop");
    run(&mut client, "CREATE DATABASE album");
    let mut album = cluster.client_of("postgres", "album");
    run(&mut album, "CREATE EXTENSION imgvec");
    run(&mut album, CAPTIONS);
    run(&mut album, "SELECT imgvec_start_workers(2)");
    drop(album);
    // The server waits five seconds for other sessions to go, which an idle worker does within one.
    wait_until("the database is dropped", || client.batch_execute("DROP DATABASE album").is_ok());
    // The server tries to start them again, and gives up.
    wait_until("they are forgotten", || {
        cluster.log().matches("database").filter(|_| true).count() > 0
            && value::<i64>(&mut client, WORKERS) == 0
    });
    run(&mut client, "CREATE DATABASE album");
    let mut album = cluster.client_of("postgres", "album");
    run(&mut album, "CREATE EXTENSION imgvec");
    assert_eq!(value::<i32>(&mut album, "SELECT imgvec_start_workers(1)"), 1);
    drop(album);
    run(&mut client, "DROP DATABASE album WITH (FORCE)");
}

#[test]
fn workers_start_with_the_server() {
    let mut cluster = Cluster::new("pipeline-preload")
        .conf("shared_preload_libraries = 'imgvec'")
        .conf("imgvec.workers = 2")
        .conf("imgvec.worker_databases = 'postgres, no such database'")
        .conf("imgvec.worker_nice = 5")
        .start();
    let mut client = cluster.client();
    run(&mut client, CAPTIONS);
    run(&mut client, "INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 500) AS i");
    wait_for_embeddings(&mut client, "notes");
    assert_complete(&mut client, "notes", TEXT);
    run(&mut client, "INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(501, 900) AS i");
    cluster.restart();
    let mut client = cluster.client();
    wait_for_embeddings(&mut client, "notes");
    assert_complete(&mut client, "notes", TEXT);
    wait_until("two workers", || value::<i64>(&mut client, WORKERS) == 2);
}

#[test]
fn an_error_of_one_table_does_not_keep_others_waiting() {
    let (_cluster, mut client) = start("pipeline-worker-errors");
    run(
        &mut client,
        "CREATE FUNCTION broken(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
         CREATE TABLE bad (id int PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('bad', 'broken(caption)', 'embedding', 'starter');
         DROP FUNCTION broken(text);
         INSERT INTO bad SELECT i, 'thing ' || i FROM generate_series(1, 100) AS i",
    );
    run(&mut client, CAPTIONS);
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 500) AS i;
                      SELECT imgvec_start_workers(1)",
    );
    wait_for_embeddings(&mut client, "notes");
    wait_until("the error is told", || {
        value::<Option<String>>(
            &mut client,
            "SELECT last_error FROM imgvec_progress WHERE relation = 'bad'::regclass",
        )
        .is_some_and(|error| error.starts_with("42883"))
    });
    run(&mut client, "CREATE FUNCTION broken(text) RETURNS text LANGUAGE sql AS 'SELECT $1'");
    wait_for_embeddings(&mut client, "bad");
    assert_complete(&mut client, "bad", TEXT);
}

#[test]
fn a_server_without_free_workers_says_so() {
    let cluster = Cluster::new("pipeline-no-workers").conf("max_worker_processes = 1").start();
    let mut client = cluster.client();
    // The launcher of logical replication has the only place.
    let error = failure(&mut client, "SELECT imgvec_start_workers(3)");
    assert_eq!(error.code().code(), "53400", "{error:?}");
    assert!(error.hint().is_some(), "{error:?}");
}
