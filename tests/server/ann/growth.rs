//! An index that is created empty is trained from the rows that come, while other sessions insert, search and vacuum.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{CREATE_INDEX, DIM, assert_sound, check, create_items, insert_items, quiet, recall, script};
use crate::value;

/// Rows that the index was built over, as it says.
const BUILT: &str = "SELECT built_rows::bigint FROM ann_index_info('items_embedding')";

#[test]
fn sessions_that_fill_a_new_index_together_lose_nothing() {
    const SESSIONS: i32 = 5;
    const ROWS: i32 = 400;
    let cluster = quiet("ann-growth").conf("synchronous_commit = off").start();
    let mut client = cluster.client();
    create_items(&mut client, 0);
    client.batch_execute(CREATE_INDEX).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let others: Vec<_> =
            ["VACUUM items", "SELECT id FROM items ORDER BY embedding <-> vec(-1, 16) LIMIT 20"]
                .into_iter()
                .map(|statement| {
                    let (cluster, done) = (&cluster, &done);
                    scope.spawn(move || {
                        let mut client = cluster.client();
                        client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
                        while !done.load(Ordering::Relaxed) {
                            client.batch_execute(statement).unwrap_or_else(|e| panic!("{statement}: {e:?}"));
                        }
                    })
                })
                .collect();
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let cluster = &cluster;
                scope.spawn(move || {
                    let mut client = cluster.client();
                    for i in 0..ROWS {
                        let id = number * ROWS + i + 1;
                        insert_items(&mut client, id, id);
                        if i % 10 == 9 {
                            script(&mut client, &format!("DELETE FROM items WHERE id = {}", id - 3));
                        }
                    }
                })
            })
            .collect();
        let ended: Vec<_> = sessions.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        others.into_iter().for_each(|other| other.join().unwrap());
        ended.into_iter().for_each(|session| session.unwrap());
    });
    // Nobody is in the way of the training that is due at the latest now.
    insert_items(&mut client, 10_001, 10_100);
    assert!(value::<i64>(&mut client, BUILT) >= 1000, "it was trained from enough rows");
    client.batch_execute("VACUUM items").unwrap();
    let rows = i64::from(SESSIONS * (ROWS - ROWS / 10) + 100);
    assert_eq!(assert_sound(&mut client).rows, rows);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM items"), rows);
    let found = recall(&mut client, "items", "<->", DIM, 40, 10);
    assert!(found > 0.9, "{found}");
}

#[test]
fn a_training_is_part_of_the_log_and_survives_what_a_crash_may_do() {
    let mut cluster = quiet("ann-growth-log").start();
    let standby = cluster.standby("ann-growth-standby");
    let mut client = cluster.client();
    create_items(&mut client, 0);
    client.batch_execute(CREATE_INDEX).unwrap();
    // A cursor that began in the first epoch goes on in it.
    insert_items(&mut client, 1, 100);
    let mut reader = cluster.client();
    reader
        .batch_execute(
            "SET enable_seqscan = off; SET enable_sort = off; BEGIN ISOLATION LEVEL REPEATABLE READ;
             DECLARE nearest CURSOR FOR SELECT id FROM items ORDER BY embedding <-> vec(-1, 16);
             MOVE 10 IN nearest",
        )
        .unwrap();
    // One statement, then a rolled back one.
    insert_items(&mut client, 101, 900);
    script(
        &mut client,
        "BEGIN; INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(2001, 2600) AS i; ROLLBACK",
    );
    insert_items(&mut client, 901, 1500);
    assert!(value::<i64>(&mut client, BUILT) >= 1000);
    let rest = reader.query("FETCH ALL IN nearest", &[]).unwrap();
    assert_eq!(rest.len(), 90);
    reader.batch_execute("COMMIT").unwrap();

    cluster.wait_for(&standby);
    let found = recall(&mut standby.client(), "items", "<->", DIM, 40, 10);
    assert!(found > 0.9, "on the standby: {found}");
    cluster.crash();
    cluster.start();
    let mut client = cluster.client();
    client.batch_execute("VACUUM items").unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 1500);
    // What is emptied begins anew.
    client.batch_execute("TRUNCATE items").unwrap();
    assert_eq!(value::<i64>(&mut client, BUILT), 0);
    insert_items(&mut client, 1, 1200);
    assert!(value::<i64>(&mut client, BUILT) >= 1000);
    assert_eq!(check(&mut client, "items_embedding").rows, 1200);
}
