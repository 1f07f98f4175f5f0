//! Slots and pages that are used again, while readers on a standby are still on their way through the index; and
//! what it costs to find them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres::Client;
use postgres::error::SqlState;

use super::{
    CREATE_INDEX, DIM, assert_each_row_once, assert_sound, by_index, by_table, create_items, ids,
    insert_items, quiet, script, search,
};
use crate::cluster::Cluster;
use crate::value;

const ROWS: i32 = 2000;

fn primary_with_items(name: &str, setting: &str) -> (Cluster, Client) {
    let primary = quiet(name).conf(setting).start();
    let mut client = primary.client();
    create_items(&mut client, ROWS);
    client.batch_execute(CREATE_INDEX).unwrap();
    (primary, client)
}

/// Replaces all rows but those below `kept` by others, in the slots of those before; copies, which lie in cells, too.
fn replace_rows(client: &mut Client, round: i32, kept: i32) {
    let first = round * 100_000;
    script(client, &format!("DELETE FROM items WHERE id >= {kept}; VACUUM items"));
    insert_items(client, first, first + ROWS - kept);
    client
        .batch_execute(&format!(
            "INSERT INTO items SELECT {first} + 50000 + i, vec({round}, {DIM}) FROM generate_series(1, 300) AS i"
        ))
        .unwrap();
}

/// By the index as by the table, in one snapshot.
fn assert_answers_agree(reader: &mut Client, seed: i32) -> Result<(), postgres::Error> {
    let query = format!("vec({seed}, {DIM})");
    let list = format!("SELECT id, embedding <-> {query} FROM items ORDER BY 2, 1");
    let mut transaction =
        reader.build_transaction().isolation_level(postgres::IsolationLevel::RepeatableRead).start()?;
    transaction.batch_execute("SET LOCAL enable_indexscan = off; SET LOCAL enable_seqscan = on")?;
    let truth = transaction.query(&list, &[])?;
    transaction.batch_execute(
        "SET LOCAL enable_indexscan = on; SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off",
    )?;
    let near = transaction.query(&search("items", "<->", &query, 20), &[])?;
    let all = transaction.query(&format!("SELECT id FROM items ORDER BY embedding <-> {query}"), &[])?;
    transaction.commit()?;
    let mut given = ids(&all);
    given.sort_unstable();
    let mut wanted = ids(&truth);
    wanted.sort_unstable();
    assert_eq!(given, wanted, "rows of a scan of all");
    let distances: Vec<f64> = near.iter().map(|row| row.get(1)).collect();
    assert!(distances.len() == 20 && distances.is_sorted(), "{distances:?}");
    let last: f64 = truth[19].get(1);
    let found = distances.iter().filter(|&&distance| distance <= last).count();
    assert!(found >= 17, "{found} of the 20 nearest");
    Ok(())
}

#[test]
fn readers_of_a_standby_see_their_rows_while_slots_are_used_again() {
    let (primary, mut client) = primary_with_items("ann-feedback", "hot_standby_feedback = on");
    let standby = primary.standby("ann-recycled");
    primary.wait_for(&standby);
    // A walk that begins before everything and ends after it.
    let mut walker = standby.client();
    let mut expected = ids(&by_table(&mut walker, "SELECT id FROM items"));
    expected.sort_unstable();
    walker
        .batch_execute(&format!(
            "SET enable_seqscan = off; SET enable_sort = off; BEGIN ISOLATION LEVEL REPEATABLE READ;
             DECLARE walk CURSOR FOR SELECT id FROM items ORDER BY embedding <-> vec(-2, {DIM})"
        ))
        .unwrap();
    let mut walked = ids(&walker.query("FETCH 100 FROM walk", &[]).unwrap());
    // The primary must have heard of the snapshot.
    let heard = "SELECT count(*) FROM pg_stat_replication WHERE backend_xmin IS NOT NULL";
    while value::<i64>(&mut client, heard) == 0 {
        thread::sleep(std::time::Duration::from_millis(50));
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reader, mut count) = (standby.client(), 0);
            while !stop.load(Ordering::Relaxed) {
                assert_answers_agree(&mut reader, -count).unwrap_or_else(|error| panic!("{error:?}"));
                count += 1;
            }
            count
        });
        for round in 1..=6 {
            replace_rows(&mut client, round, 100);
            walked.extend(ids(&walker.query("FETCH 100 FROM walk", &[]).unwrap()));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 2);
    });
    walked.extend(ids(&walker.query("FETCH ALL FROM walk", &[]).unwrap()));
    walked.sort_unstable();
    assert_eq!(walked, expected, "rows of the walk");
    walker.batch_execute("COMMIT").unwrap();
    client.batch_execute("VACUUM items").unwrap();
    primary.wait_for(&standby);
    assert_sound(&mut client);
    assert_sound(&mut standby.client());
}

#[test]
fn readers_that_replay_ends_are_told_and_never_wrong() {
    let (primary, mut client) = primary_with_items("ann-conflicts", "max_standby_streaming_delay = 0");
    let standby = primary.standby("ann-conflicting");
    primary.wait_for(&standby);
    let stop = AtomicBool::new(false);
    let (agreed, ended) = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut reader, mut agreed, mut ended, mut turn) = (standby.client(), 0, 0, 0);
            while !stop.load(Ordering::Relaxed) || agreed == 0 {
                turn += 1;
                match assert_answers_agree(&mut reader, -turn) {
                    Ok(()) => agreed += 1,
                    Err(error) => {
                        // Replay says so, and the transaction or, of an idle one, the session is over.
                        let code = error.code().cloned();
                        let told =
                            [None, Some(SqlState::T_R_SERIALIZATION_FAILURE), Some(SqlState::ADMIN_SHUTDOWN)];
                        assert!(told.contains(&code), "{error:?}");
                        ended += 1;
                        if reader.is_closed() || reader.batch_execute("ROLLBACK").is_err() {
                            reader = standby.client();
                        }
                    }
                }
            }
            (agreed, ended)
        });
        for round in 1..=8 {
            replace_rows(&mut client, round, 100);
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    eprintln!("{agreed} answers agreed, {ended} were ended by replay");
    primary.wait_for(&standby);
    let mut reader = standby.client();
    assert_each_row_once(&mut reader, "items", "<->", &format!("vec(-1, {DIM})"));
    assert_sound(&mut reader);
    // What looks into an index works on a standby as well.
    let recall: f64 = value(&mut reader, "SELECT ann_index_recall('items_embedding')");
    assert!(recall >= 0.9, "{recall}");
    let pages =
        "SELECT pages = pg_relation_size('items_embedding') / 8192 FROM ann_index_info('items_embedding')";
    assert!(value::<bool>(&mut reader, pages));
}

/// Pages that a statement asks for, in buffers or not.
fn pages_of(client: &mut Client, statement: &str) -> u64 {
    let plan = client.query(&format!("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {statement}"), &[]).unwrap();
    let line = plan.iter().map(|row| row.get::<_, String>(0)).find(|line| line.contains("Buffers: shared"));
    let line = line.unwrap_or_else(|| panic!("{statement}: no buffers"));
    let number =
        |word: &str| -> u64 { word.split_once('=').map_or(0, |(_, number)| number.parse().unwrap()) };
    line.split_whitespace()
        .filter(|word| word.starts_with("hit=") || word.starts_with("read="))
        .map(number)
        .sum()
}

#[test]
fn an_insert_after_a_mass_delete_looks_at_no_more_pages() {
    let cluster = quiet("ann-mass-delete").start();
    let mut client = cluster.client();
    create_items(&mut client, 20_000);
    client.batch_execute(CREATE_INDEX).unwrap();
    let insert = |client: &mut Client, first: i32| {
        let rows = format!("generate_series({first}, {}) AS i", first + 499);
        pages_of(client, &format!("INSERT INTO items SELECT i, vec(i, {DIM}) FROM {rows}")) / 500
    };
    let before = insert(&mut client, 100_000);
    script(&mut client, "DELETE FROM items WHERE id % 20 <> 0; VACUUM items");
    let size: i64 = value(&mut client, "SELECT pg_relation_size('items_embedding')");
    let after: Vec<u64> = (1..=4).map(|turn| insert(&mut client, 100_000 + turn * 1000)).collect();
    eprintln!("pages for an insert: {before}, after the deletion {after:?}");
    assert!(after.iter().all(|&pages| pages <= before * 3 / 2), "{before} before, {after:?}");
    assert_eq!(
        value::<i64>(&mut client, "SELECT pg_relation_size('items_embedding')"),
        size,
        "free slots are taken"
    );
    assert_sound(&mut client);
    let nearest = by_index(&mut client, &search("items", "<->", &format!("vec(101001, {DIM})"), 1));
    assert_eq!(ids(&nearest), [101_001]);
}
