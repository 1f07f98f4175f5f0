//! Workers and servers are killed at random moments of a backfill, with inserts, updates and deletes beside it. At the end
//! every row's embedding is that of its source, nothing waits, and nothing failed.
//!
//! `IMGVEC_CRASH_CYCLES` sets the number of kills (default 6), `IMGVEC_CRASH_SEED` their moments.

use std::thread;
use std::time::Duration;

use postgres::Client;

use super::{assert_complete, run};
use crate::Random;
use crate::ann::number_from_environment;
use crate::cluster::{Cluster, signal};

/// Repeats a statement until the session or the server goes away.
fn repeat(
    mut client: Client,
    seed: u32,
    rows: usize,
    statement: fn(&mut Random, usize) -> String,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut random = Random(seed);
        loop {
            let statement = statement(&mut random, rows);
            if let Err(error) = client.batch_execute(&statement) {
                if client.is_closed() {
                    return;
                }
                // Of two writers that want each other's rows; the server goes down.
                let code = error.code().map(|code| code.code().to_owned());
                assert!(
                    matches!(code.as_deref(), Some("40P01" | "57P01" | "57P02" | "57P03") | None),
                    "{statement}: {error:?}"
                );
                if code.as_deref() != Some("40P01") {
                    return;
                }
            }
        }
    })
}

#[test]
fn killed_workers_lose_no_row() {
    let cycles = number_from_environment("IMGVEC_CRASH_CYCLES", 6);
    let rows: usize = if cycles > 6 { 20_000 } else { 5_000 };
    let seed = number_from_environment("IMGVEC_CRASH_SEED", 1);
    let mut cluster = Cluster::new("pipeline-crash").start();
    let mut client = cluster.client();
    run(
        &mut client,
        &format!(
            "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, other text, embedding imgvec(256));
             INSERT INTO notes SELECT i, 'old thing number ' || i FROM generate_series(1, {rows}) AS i;
             SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter')"
        ),
    );
    drop(client);
    let mut random = Random(seed.max(1));
    println!("seed {seed}, {cycles} kills");
    for cycle in 0..cycles {
        let mut workers: Vec<_> = (0..2)
            .map(|_| {
                let mut client = cluster.client();
                let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
                let work = repeat(client, 1, 0, |_, _| "CALL imgvec_work('notes')".to_owned());
                (pid.unsigned_abs(), work)
            })
            .collect();
        let writers = [
            repeat(cluster.client(), random.next(), rows, |random, rows| {
                let id = random.below(rows);
                format!(
                    "UPDATE notes SET caption = 'changed {}' WHERE id BETWEEN {id} AND {id} + 9",
                    random.next()
                )
            }),
            repeat(cluster.client(), random.next(), rows, |random, rows| {
                let id = random.below(rows);
                format!(
                    "DELETE FROM notes WHERE id = {id}; INSERT INTO notes VALUES ({id}, 'new {}') ON CONFLICT DO NOTHING",
                    random.next()
                )
            }),
        ];
        thread::sleep(Duration::from_millis(100 + u64::from(random.next() % 900)));
        // One worker by itself, which makes the server restart all of its sessions; or everything at once.
        if cycle % 2 == 0 {
            signal(workers[0].0, "KILL");
            // The postmaster ends all sessions and comes back by itself.
            for (_, worker) in workers.drain(..) {
                worker.join().unwrap();
            }
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            cluster.wait_until_ready();
        } else {
            cluster.crash();
            for (_, worker) in workers {
                worker.join().unwrap();
            }
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            cluster.start();
        }
    }
    let mut client = cluster.client();
    run(&mut client, "CALL imgvec_work('notes')");
    assert_complete(&mut client, "notes", "embed_text(caption, 'starter')");
    cluster.forgive_kills();
}
