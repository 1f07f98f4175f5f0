//! Builds, inserts, vacuums and long scans end within a second when they are told to, in every phase, and leave
//! nothing that the next statement would trip over.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres::error::SqlState;

use super::{CREATE_INDEX, VECTORS, assert_each_row_once, check, quiet};
use crate::cluster::{Cluster, processor_time};
use crate::{failure, value};

const ROWS: i64 = 100_000;
/// Processor time that a session may use until it notices. On an idle machine that is the time that passes.
const PROMPT: Duration = Duration::from_secs(1);

fn cluster_with_items(name: &str) -> (Cluster, Client) {
    let cluster = quiet(name).conf("maintenance_work_mem = '1GB'").conf("max_wal_size = '4GB'").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE items (id integer, embedding imgvec(64));
             INSERT INTO items SELECT i, vec(i, 64) FROM generate_series(1, {ROWS}) AS i"
        ))
        .unwrap();
    (cluster, client)
}

fn pid(client: &mut Client) -> u32 {
    value::<i32>(client, "SELECT pg_backend_pid()").unsigned_abs()
}

/// Runs a statement with a time limit. Whether it was ended by it; then it was so promptly: it worked for no more than
/// its processors had in that time, and what it takes to notice.
#[track_caller]
pub(super) fn is_ended_promptly(client: &mut Client, statement: &str, limit: Duration) -> bool {
    let pid = pid(client);
    let processors = u32::try_from(thread::available_parallelism().map_or(1, usize::from)).unwrap();
    client.batch_execute(&format!("SET statement_timeout = {}", limit.as_millis())).unwrap();
    let (begin, before) = (Instant::now(), processor_time(pid).unwrap());
    let result = client.batch_execute(statement);
    let (took, worked) = (begin.elapsed(), processor_time(pid).unwrap() - before);
    client.batch_execute("RESET statement_timeout").unwrap();
    let Err(error) = result else { return false };
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{statement}: {error:?}");
    let late = took.saturating_sub(limit).min(worked.saturating_sub(limit * processors));
    eprintln!("{statement}: ended {late:?} after {limit:?}");
    assert!(late < PROMPT, "{statement}: ended {took:?} after its begin, worked {worked:?}, limit {limit:?}");
    true
}

/// Waits until a session has worked for so long, then runs SQL in another, and returns what the session gives and
/// the processor time that it used meanwhile.
#[track_caller]
fn when_at_work<T: Send + 'static>(
    other: &mut Client,
    pid: u32,
    session: thread::JoinHandle<T>,
    enough: Duration,
    sql: &str,
) -> (T, Duration) {
    let idle = processor_time(pid).unwrap();
    while processor_time(pid).unwrap() - idle < enough {
        assert!(!session.is_finished(), "the statement is not long enough");
        thread::sleep(Duration::from_millis(5));
    }
    let before = processor_time(pid).unwrap();
    let mut used = before;
    assert!(value::<bool>(other, sql));
    while !session.is_finished() {
        used = processor_time(pid).unwrap_or(used);
        thread::sleep(Duration::from_millis(2));
    }
    (session.join().unwrap(), used - before)
}

/// Ends a statement after times each of which is `growth` times the last, until it is too fast to be ended. Returns how often it was.
#[track_caller]
fn end_in_every_phase(client: &mut Client, statement: &str, growth: f64) -> u32 {
    let mut limit = Duration::from_millis(30);
    for count in 0.. {
        if !is_ended_promptly(client, statement, limit) {
            return count;
        }
        limit = limit.mul_f64(growth);
    }
    unreachable!("the loop has no end")
}

#[test]
fn builds_vacuums_and_scans_end_within_a_second() {
    let (cluster, mut client) = cluster_with_items("ann-cancel");
    let begin = Instant::now();
    let ended = end_in_every_phase(&mut client, CREATE_INDEX, 1.8);
    eprintln!("CREATE INDEX was ended {ended} times; {:?}", begin.elapsed());
    assert!(ended >= 4, "the build was ended {ended} times only");
    assert_eq!(check(&mut client, "items_embedding").rows, ROWS);

    // By another session's request, which leaves an invalid index if the build is concurrent.
    client.batch_execute("DROP INDEX items_embedding").unwrap();
    let pid = pid(&mut client);
    let mut other = cluster.client();
    let session = thread::spawn(move || {
        let error = failure(&mut client, &CREATE_INDEX.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY"));
        (client, error)
    });
    let cancel = format!("SELECT pg_cancel_backend({pid})");
    let ((mut client, error), used) =
        when_at_work(&mut other, pid, session, Duration::from_millis(400), &cancel);
    assert_eq!(error.code(), &SqlState::QUERY_CANCELED);
    assert!(used < 2 * PROMPT, "worked for {used:?} after, on two processors");
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'items_embedding'::regclass";
    assert!(!value::<bool>(&mut client, valid));
    client.batch_execute("REINDEX INDEX CONCURRENTLY items_embedding").unwrap();
    assert!(value::<bool>(&mut client, valid));
    assert_eq!(check(&mut client, "items_embedding").rows, ROWS);

    // All rows by distance: long, and cheap to end.
    client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
    let scan =
        "SELECT count(*) FROM (SELECT id FROM items ORDER BY embedding <-> vec(-1, 64) OFFSET 0) AS ordered";
    assert!(end_in_every_phase(&mut client, scan, 1.4) >= 2, "the scan was too short");
    assert_eq!(value::<i64>(&mut client, scan), ROWS);

    let ended = end_in_every_phase(&mut client, "REINDEX INDEX items_embedding", 1.8);
    assert!(ended >= 4, "the second build was ended {ended} times only");

    client.batch_execute("DELETE FROM items WHERE id % 3 = 0").unwrap();
    let ended = end_in_every_phase(&mut client, "VACUUM items", 1.4);
    eprintln!("VACUUM was ended {ended} times");
    assert!(ended >= 1, "the vacuum was too short");
    let rows: i64 = value(&mut client, "SELECT count(*) FROM items");
    assert_eq!(check(&mut client, "items_embedding").rows, rows);
    assert_each_row_once(&mut client, "items", "<->", "vec(-1, 64)");
}

#[test]
fn a_session_that_builds_is_terminated_cleanly() {
    let (cluster, mut client) = cluster_with_items("ann-terminate");
    let pid = pid(&mut client);
    let mut other = cluster.client();
    let session = thread::spawn(move || client.batch_execute(CREATE_INDEX));
    let end = format!("SELECT pg_terminate_backend({pid})");
    let (result, used) = when_at_work(&mut other, pid, session, Duration::from_millis(400), &end);
    // A client that comes late finds the end of the connection together with the message, and tells only of the end.
    let error = result.unwrap_err();
    assert!(error.code().is_none_or(|code| *code == SqlState::ADMIN_SHUTDOWN), "{error:?}");
    assert!(cluster.log().contains("FATAL:  terminating connection due to administrator command"));
    assert!(used < 2 * PROMPT, "worked for {used:?} after, on two processors");
    other.batch_execute(CREATE_INDEX).unwrap();
    assert_eq!(check(&mut other, "items_embedding").rows, ROWS);
}

#[test]
fn a_copy_into_an_indexed_table_ends_within_a_second() {
    let cluster = quiet("ann-cancel-copy").start();
    let mut client = cluster.client();
    let file = cluster.directory().join("rows");
    let file = file.display();
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE items (id integer, embedding imgvec(64));
             COPY (SELECT i, vec(i, 64) FROM generate_series(1, 40000) AS i) TO '{file}' (FORMAT binary)"
        ))
        .unwrap();
    client.batch_execute(CREATE_INDEX).unwrap();
    let copy = format!("COPY items FROM '{file}' (FORMAT binary)");
    for limit_ms in [100, 700, 1500] {
        assert!(is_ended_promptly(&mut client, &copy, Duration::from_millis(limit_ms)), "too short");
        check(&mut client, "items_embedding");
    }
    // Rows of aborted statements are in the index until a vacuum removes them.
    assert!(check(&mut client, "items_embedding").rows > 0);
    client.batch_execute("VACUUM items").unwrap();
    let counts = check(&mut client, "items_embedding");
    assert_eq!((counts.rows, counts.live_nodes), (0, 0));
    client
        .batch_execute("INSERT INTO items SELECT i, vec(i, 64) FROM generate_series(1, 1000) AS i")
        .unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 1000);
    assert_each_row_once(&mut client, "items", "<->", "vec(-1, 64)");
}
