//! All processes are killed at random moments of inserts, builds and vacuums, again and again over the same
//! files. After each recovery the index is whole and agrees with its table.
//!
//! `IMGVEC_CRASH_CYCLES` sets the number of kills (default 6), `IMGVEC_CRASH_SEED` their moments.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use postgres::Client;

use super::{CREATE_INDEX, DIM, assert_sound, create_items, number_from_environment, quiet};
use crate::cluster::Cluster;
use crate::{Random, value};

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
fn repeat(mut client: Client, statements: &'static [&'static str], first: i32) -> JoinHandle<u32> {
    thread::spawn(move || {
        let mut done = 0;
        for number in (first..).step_by(20) {
            for statement in statements {
                match client.batch_execute(&statement.replace("$n", &number.to_string())) {
                    Ok(()) => done += 1,
                    // A session may find time to say that the server has gone.
                    Err(error) if error.as_db_error().is_none_or(|error| error.severity() == "FATAL") => {
                        return done;
                    }
                    Err(error) => panic!("{statement}: {error:?}"),
                }
            }
        }
        done
    })
}

/// Does the work for `pause`, kills the server meanwhile, and starts it. Returns how many statements ended.
fn crash_during(cluster: &mut Cluster, work: &Work, pause: Duration, first: i32) -> u32 {
    let sessions: Vec<_> = (0..)
        .zip(work.sessions)
        .map(|(session, statements)| repeat(cluster.client(), statements, first + session * 1_000_000))
        .collect();
    thread::sleep(pause);
    cluster.crash();
    let done = sessions.into_iter().map(|session| session.join().unwrap()).sum();
    cluster.start();
    done
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
        assert_eq!(exists, finished, "after {pause_ms} ms");
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
