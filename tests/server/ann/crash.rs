//! All processes are killed at random moments of inserts, builds and vacuums, again and again over the same
//! files. After each recovery the index is whole and agrees with its table.
//!
//! `IMGVEC_CRASH_CYCLES` sets the number of kills (default 6), `IMGVEC_CRASH_SEED` their moments.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use postgres::Client;

use super::{
    CREATE_INDEX, DIM, assert_sound, check, create_items, insert_items, number_from_environment, quiet,
};
use crate::cluster::Cluster;
use crate::{Random, skip, value};

/// What the server is doing when it is killed: statements that each session repeats, `$n` being a number that
/// no other statement of the run has.
struct Work {
    name: &'static str,
    sessions: &'static [&'static [&'static str]],
}

const WORKS: [Work; 3] = [
    Work {
        name: "inserts",
        sessions: &[
            &[
                "INSERT INTO items SELECT $n, vec($n, 16)",
                "UPDATE items SET embedding = vec($n, 16) WHERE id = $n - 100",
            ],
            &["INSERT INTO items SELECT $n + i, vec($n + i % 5, 16) FROM generate_series(0, 19) AS i"],
            &[
                "DELETE FROM items WHERE id % 97 = $n % 97",
                "UPDATE items SET note = 'x' WHERE id % 89 = $n % 89",
            ],
        ],
    },
    Work {
        name: "builds",
        sessions: &[
            &["REINDEX INDEX items_embedding"],
            &["INSERT INTO items SELECT $n + i, vec($n + i, 16) FROM generate_series(0, 9) AS i"],
        ],
    },
    Work {
        name: "vacuums",
        sessions: &[
            &["DELETE FROM items WHERE id % 7 = $n % 7", "VACUUM items"],
            &["INSERT INTO items SELECT $n + i, vec($n + i, 16) FROM generate_series(0, 19) AS i"],
            &[
                "UPDATE items SET embedding = vec($n + id, 16) WHERE id = (SELECT max(id) FROM items WHERE id % 53 = $n % 53)",
            ],
        ],
    },
];

/// Repeats statements until the server goes away; any other end is a failure.
fn repeat(
    mut client: Client,
    statements: &'static [&'static str],
    first: i32,
    done: Arc<AtomicU32>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        for number in (first..).step_by(20) {
            for statement in statements {
                match client.batch_execute(&statement.replace("$n", &number.to_string())) {
                    Ok(()) => {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    // A session may find time to say that the server has gone.
                    Err(error) if error.as_db_error().is_none_or(|error| error.severity() == "FATAL") => {
                        return;
                    }
                    Err(error) => panic!("{statement}: {error:?}"),
                }
            }
        }
    })
}

/// Does the work until a statement has ended and for `pause` more, kills the server meanwhile, and starts it. Returns how many statements
/// ended.
fn crash_during(cluster: &mut Cluster, work: &Work, pause: Duration, first: i32) -> u32 {
    let done = Arc::new(AtomicU32::new(0));
    let sessions: Vec<_> = (0..)
        .zip(work.sessions)
        .map(|(session, statements)| {
            repeat(cluster.client(), statements, first + session * 1_000_000, Arc::clone(&done))
        })
        .collect();
    let begin = Instant::now();
    while done.load(Ordering::Relaxed) == 0 && begin.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(pause);
    cluster.crash();
    sessions.into_iter().for_each(|session| session.join().unwrap());
    cluster.start();
    done.load(Ordering::Relaxed)
}

#[test]
fn the_index_survives_kills_at_random_moments() {
    let cycles = number_from_environment("IMGVEC_CRASH_CYCLES", 6);
    let seed = number_from_environment("IMGVEC_CRASH_SEED", 3);
    let mut random = Random(seed);
    // A small cache makes pages reach files half-way through a change; with asynchronous commit the log that
    // survives ends anywhere.
    let mut cluster = quiet("ann-crash")
        .conf("shared_buffers = '2MB'")
        .conf("bgwriter_delay = '10ms'")
        .conf("synchronous_commit = off")
        .conf("max_wal_size = '64MB'")
        .start();
    let mut client = cluster.client();
    create_items(&mut client, 1500);
    client.batch_execute(CREATE_INDEX).unwrap();
    drop(client);

    let mut done = [0; WORKS.len()];
    for cycle in 0..cycles as usize {
        let kind = cycle % WORKS.len();
        let pause = Duration::from_millis(20 + random.below(400) as u64);
        let first = 10_000_000 + i32::try_from(cycle).unwrap() * 5_000_000;
        let name = WORKS[kind].name;
        eprintln!("cycle {cycle}, seed {seed}: {name} for {pause:?}");
        done[kind] += crash_during(&mut cluster, &WORKS[kind], pause, first);
        let mut client = cluster.client();
        assert_sound(&mut client);
        // Work of all cycles on a table that neither vanishes nor grows, and goes on from what recovery left.
        client
            .batch_execute(&format!(
                "DELETE FROM items WHERE id NOT IN (SELECT id FROM items ORDER BY hashint4(id) LIMIT 1500);
                 INSERT INTO items SELECT i, vec(i, {DIM}) FROM generate_series({first} - 500, {first} - 1) AS i"
            ))
            .unwrap();
        if random.below(2) == 0 {
            client.batch_execute("VACUUM items").unwrap();
        }
        assert_sound(&mut client);
    }
    for (work, done) in WORKS.iter().zip(done).take(cycles as usize) {
        assert!(done > 0, "{}: nothing was done before the kills", work.name);
    }
}

#[test]
fn an_index_that_was_being_created_leaves_nothing_behind() {
    let mut cluster = quiet("ann-crash-create").start();
    let mut client = cluster.client();
    create_items(&mut client, 20_000);
    drop(client);
    for pause_ms in [30, 150, 400] {
        let mut client = cluster.client();
        let builder = thread::spawn(move || client.batch_execute(CREATE_INDEX).is_ok());
        thread::sleep(Duration::from_millis(pause_ms));
        cluster.crash();
        let finished = builder.join().unwrap();
        cluster.start();
        let mut client = cluster.client();
        let exists: bool = value(&mut client, "SELECT to_regclass('items_embedding') IS NOT NULL");
        // It may have been committed when the session was killed that would have said so.
        assert!(exists || !finished, "after {pause_ms} ms");
        if exists {
            check(&mut client, "items_embedding");
        }
        client.batch_execute("DROP INDEX IF EXISTS items_embedding").unwrap();
    }
    // Left invalid by a kill, an index of CREATE INDEX CONCURRENTLY is finished by REINDEX.
    let mut client = cluster.client();
    let builder = thread::spawn(move || {
        client.batch_execute(&CREATE_INDEX.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY")).is_ok()
    });
    thread::sleep(Duration::from_millis(200));
    cluster.crash();
    builder.join().unwrap();
    cluster.start();
    let mut client = cluster.client();
    client
        .batch_execute("INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(20001, 20100) AS i")
        .unwrap();
    if value::<bool>(&mut client, "SELECT to_regclass('items_embedding') IS NULL") {
        client.batch_execute(CREATE_INDEX).unwrap();
    }
    client.batch_execute("REINDEX INDEX CONCURRENTLY items_embedding").unwrap();
    assert_eq!(assert_sound(&mut client).rows, 20_100);
}

/// Places at which an insert adds a page to the file, from before to after.
const EXTENDING: [&str; 6] = [
    "extend the index",
    "add a page",
    "end the extension",
    "take a page into a change",
    "commit a change",
    "go on behind a change",
];

/// Kills the server while an insert stands at the n-th passing of a place, and starts it again.
fn crash_at(cluster: &mut Cluster, place: &str, n: u32, statement: &str) {
    let before = cluster.log().len();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "LOAD 'imgvec'; SET imgvec.fault_kind = 4; SET imgvec.fault_place = '{place}'; SET imgvec.fault_at = {n}"
        ))
        .unwrap();
    let statement = statement.to_owned();
    let session = thread::spawn(move || client.batch_execute(&statement).is_ok());
    let begin = Instant::now();
    while !cluster.log()[before..].contains(&format!("fault of kind 4: {place}")) {
        assert!(
            begin.elapsed() < Duration::from_secs(60) && !session.is_finished(),
            "{place} was not reached"
        );
        thread::sleep(Duration::from_millis(5));
    }
    cluster.crash();
    assert!(!session.join().unwrap(), "{place}: the statement came to its end");
    cluster.start();
}

/// With and without full pages in the log, a standby beside.
#[test]
fn a_kill_at_each_place_that_adds_a_page_leaves_a_sound_index() {
    for full_page_writes in ["on", "off"] {
        let name = format!("ann-crash-extend-{full_page_writes}");
        let mut cluster = quiet(&name).conf(&format!("full_page_writes = {full_page_writes}")).start();
        let mut client = cluster.client();
        client.batch_execute("LOAD 'imgvec'").unwrap();
        if value::<Option<String>>(&mut client, "SELECT current_setting('imgvec.fault_at', true)").is_none() {
            skip(&name, "the extension was built as a release", "IMGVEC_REQUIRE_FAULTS");
            return;
        }
        create_items(&mut client, 300);
        client.batch_execute(CREATE_INDEX).unwrap();
        drop(client);
        let standby = cluster.standby(&format!("{name}-standby"));
        let mut next = 1000;
        for place in EXTENDING {
            for n in [1, 2, 3] {
                let statement = format!(
                    "INSERT INTO items SELECT i, vec(i, {DIM}) FROM generate_series({next}, {}) AS i",
                    next + 399
                );
                crash_at(&mut cluster, place, n, &statement);
                next += 400;
                let mut client = cluster.client();
                check(&mut client, "items_embedding");
                // Goes on from what the kill left, a page of zeros perhaps.
                client.batch_execute("VACUUM items").unwrap();
                insert_items(&mut client, next, next + 30);
                next += 31;
                let rows: i64 = value(&mut client, "SELECT count(*) FROM items");
                assert_eq!(assert_sound(&mut client).rows, rows, "{place}, time {n}");
            }
        }
        cluster.wait_for(&standby);
        let rows: i64 = value(&mut standby.client(), "SELECT count(*) FROM items");
        assert_eq!(check(&mut standby.client(), "items_embedding").rows, rows);
    }
}

/// The index's file, and what the log can restore of it: the size at the last checkpoint, and the pages changed since.
fn since_checkpoint(cluster: &Cluster, client: &mut Client, size: i64) -> (PathBuf, Vec<u64>) {
    let path: String = value(client, "SELECT pg_relation_filepath('items_embedding')");
    let rows = client
        .query(
            "SELECT b::bigint FROM pg_control_checkpoint(),
                 generate_series(0, pg_relation_size('items_embedding') / 8192 - 1) AS b
             WHERE (page_header(get_raw_page('items_embedding', b::integer))).lsn > redo_lsn",
            &[],
        )
        .unwrap();
    let changed: Vec<u64> = rows.iter().map(|row| u64::try_from(row.get::<_, i64>(0)).unwrap()).collect();
    let whole: i64 = value(client, "SELECT pg_relation_size('items_embedding')");
    assert!(whole > size && !changed.is_empty(), "nothing changed: {size} {whole}");
    (cluster.data().join(path), changed)
}

#[test]
fn torn_pages_and_a_lost_extension_are_restored_from_the_log() {
    let mut cluster = quiet("ann-torn").start();
    let mut client = cluster.client();
    client.batch_execute("CREATE EXTENSION pageinspect").unwrap();
    create_items(&mut client, 1000);
    client.batch_execute(CREATE_INDEX).unwrap();
    for (round, is_torn) in [(1, true), (2, false), (3, true)] {
        client.batch_execute("CHECKPOINT").unwrap();
        let size: i64 = value(&mut client, "SELECT pg_relation_size('items_embedding')");
        insert_items(&mut client, round * 10_000, round * 10_000 + 1500);
        client
            .batch_execute(&format!("DELETE FROM items WHERE id % 11 = {round}"))
            .and_then(|()| client.batch_execute("VACUUM items"))
            .unwrap();
        let (path, changed) = since_checkpoint(&cluster, &mut client, size);
        drop(client);
        cluster.crash();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        if is_torn {
            // A power failure in the midst of a write leaves the first half of a page new and the second old, or the like.
            let length = fs::metadata(&path).unwrap().len();
            for block in changed.iter().filter(|&&block| (block + 1) * 8192 <= length) {
                file.write_all_at(&[0x55; 4096], block * 8192 + [0, 4096][usize::from(block % 3 == 0)])
                    .unwrap();
            }
        } else {
            // The file system has forgotten that the file grew.
            file.set_len(u64::try_from(size).unwrap()).unwrap();
        }
        cluster.start();
        client = cluster.client();
        let rows: i64 = value(&mut client, "SELECT count(*) FROM items");
        assert!(assert_sound(&mut client).rows >= rows, "round {round}");
        client.batch_execute("VACUUM items").unwrap();
        assert_eq!(assert_sound(&mut client).rows, rows, "round {round}");
    }
}
