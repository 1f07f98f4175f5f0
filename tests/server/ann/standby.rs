//! A streaming standby has the same index, page by page, after every kind of change; it answers queries,
//! and goes on as a primary.

use std::fs::OpenOptions;
use std::io::Write as _;

use postgres::Client;
use postgres::error::SqlState;

use super::{
    CREATE_INDEX, DIM, assert_sound, by_index, check, create_items, ids, insert_items, quiet, search,
};
use crate::cluster::Cluster;
use crate::value;

/// Blocks of the index that hold something, with a digest of all their bytes.
///
/// A page of zeros was added and not yet used; that is not logged, so the standby may not have it.
fn pages(client: &mut Client) -> Vec<(i64, String)> {
    let query = "SELECT block, md5(page) FROM generate_series(0, pg_relation_size('items_embedding') / 8192 - 1) AS block,
        LATERAL get_raw_page('items_embedding', block) AS page
        WHERE page <> decode(repeat('00', 8192), 'hex') ORDER BY block";
    client.query(query, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The answers to some searches, without a judgment.
fn answers(client: &mut Client) -> Vec<Vec<i32>> {
    let seeds = 1..=20;
    seeds
        .map(|seed| ids(&by_index(client, &search("items", "<->", &format!("vec(-{seed}, {DIM})"), 10))))
        .collect()
}

#[track_caller]
fn assert_same(primary: &Cluster, standby: &Cluster, phase: &str) {
    primary.wait_for(standby);
    let (mut writer, mut reader) = (primary.client(), standby.client());
    let (here, there) = (pages(&mut writer), pages(&mut reader));
    let differing: Vec<_> = here.iter().filter(|page| !there.contains(page)).map(|page| page.0).collect();
    assert!(differing.is_empty(), "after {phase}: blocks {differing:?} differ");
    assert_eq!(here.len(), there.len(), "after {phase}: the standby has more pages");
    assert_sound(&mut writer);
    assert_sound(&mut reader);
    assert_eq!(answers(&mut writer), answers(&mut reader), "after {phase}");
}

#[test]
fn a_standby_has_the_same_index_after_each_phase_and_can_take_over() {
    let primary = quiet("ann-primary").start();
    let mut client = primary.client();
    client.batch_execute("CREATE EXTENSION pageinspect").unwrap();
    create_items(&mut client, 2000);
    let standby = primary.standby("ann-standby");

    let phases = [
        ("build", CREATE_INDEX),
        ("insert", "INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(2001, 2600) AS i"),
        ("update of the vector", "UPDATE items SET embedding = vec(id + 1000000, 16) WHERE id % 10 = 0"),
        ("update of another column", "UPDATE items SET note = 'x' WHERE id % 5 = 0"),
        ("delete", "DELETE FROM items WHERE id % 3 = 0"),
        ("vacuum", "VACUUM items"),
        ("reuse", "INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(3001, 3800) AS i"),
        ("copies", "INSERT INTO items SELECT i, vec(7, 16) FROM generate_series(4001, 4400) AS i"),
        ("delete of copies", "DELETE FROM items WHERE id BETWEEN 4001 AND 4390"),
        ("vacuum of copies", "VACUUM items"),
        ("reindex", "REINDEX INDEX items_embedding"),
        ("concurrent reindex", "REINDEX INDEX CONCURRENTLY items_embedding"),
        ("truncate", "TRUNCATE items"),
        ("first rows", "INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(1, 500) AS i"),
    ];
    for (phase, statement) in phases {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{phase}: {error:?}"));
        assert_same(&primary, &standby, phase);
    }

    standby.promote();
    let mut client = standby.client();
    client.batch_execute("DELETE FROM items WHERE id % 2 = 0").unwrap();
    insert_items(&mut client, 501, 1500);
    assert_sound(&mut client);
    client.batch_execute("VACUUM items").unwrap();
    insert_items(&mut client, 1501, 2000);
    let counts = assert_sound(&mut client);
    assert_eq!((counts.rows, counts.live_nodes), (1750, 1750));
}

#[test]
fn a_check_on_a_standby_calls_no_replayed_change_damage() {
    const CHECKS: usize = 30;
    let primary = quiet("ann-checked-primary").start();
    let mut client = primary.client();
    create_items(&mut client, 3000);
    client.batch_execute(CREATE_INDEX).unwrap();
    let standby = primary.standby("ann-checked-standby");
    primary.wait_for(&standby);

    let checks = std::thread::scope(|scope| {
        let checks = scope.spawn(|| {
            let mut reader = standby.client();
            let check = "SELECT * FROM ann_index_check('items_embedding', heapallindexed => true)";
            (0..CHECKS).map(|_| reader.query(check, &[]).map(|_| ())).collect::<Vec<_>>()
        });
        let mut next = 3001;
        while !checks.is_finished() {
            insert_items(&mut client, next, next + 9);
            next += 10;
        }
        checks.join().unwrap()
    });
    for error in checks.into_iter().filter_map(Result::err) {
        assert_eq!(error.code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE), "{error:?}");
    }

    // As the hint says.
    let mut reader = standby.client();
    reader.batch_execute("SELECT pg_wal_replay_pause()").unwrap();
    insert_items(&mut client, 1_000_001, 1_000_100);
    check(&mut reader, "items_embedding");
    reader.batch_execute("SELECT pg_wal_replay_resume()").unwrap();
    primary.wait_for(&standby);
    check(&mut reader, "items_embedding");
}

#[test]
fn a_page_of_zeros_that_is_used_again_is_logged_whole() {
    // Without full-page writes only what is asked for is logged whole.
    let mut primary = quiet("ann-zeros-primary").conf("full_page_writes = off").start();
    let mut client = primary.client();
    client.batch_execute("CREATE EXTENSION pageinspect").unwrap();
    create_items(&mut client, 1000);
    client.batch_execute(CREATE_INDEX).unwrap();
    let standby = primary.standby("ann-zeros-standby");
    primary.wait_for(&standby);
    let path: String = value(&mut client, "SELECT pg_relation_filepath('items_embedding')");
    drop(client);
    primary.stop();
    // As a writer leaves it that died after it extended the file, before it logged the page.
    let mut file = OpenOptions::new().append(true).open(primary.data().join(path)).unwrap();
    file.write_all(&[0; 8192]).unwrap();
    drop(file);
    primary.start();
    let mut client = primary.client();
    let blocks: i64 = value(&mut client, "SELECT pg_relation_size('items_embedding') / 8192");
    client.batch_execute("DELETE FROM items WHERE id = 1").unwrap();
    client.batch_execute("VACUUM items").unwrap();
    insert_items(&mut client, 2001, 3000);
    let zeros =
        format!("SELECT get_raw_page('items_embedding', {}) = decode(repeat('00', 8192), 'hex')", blocks - 1);
    assert!(!value::<bool>(&mut client, &zeros), "the page was not used, so nothing is tested");
    assert_same(&primary, &standby, "a page of zeros");
}
