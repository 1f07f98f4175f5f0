//! An unlogged table's index starts over after a crash, empty and usable, and so it does on a standby that is
//! promoted; it survives what is no crash, and becomes logged when the table does.

use super::{CREATE_INDEX, assert_sound, create_items, insert_items, quiet, script};
use crate::cluster::Cluster;
use crate::{failure, value};
use postgres::error::SqlState;

const ROWS: &str = "SELECT count(*) FROM items";

fn with_unlogged_items(name: &str) -> Cluster {
    let cluster = quiet(name).start();
    let mut client = cluster.client();
    create_items(&mut client, 600);
    client.batch_execute("ALTER TABLE items SET UNLOGGED").unwrap();
    client.batch_execute(CREATE_INDEX).unwrap();
    insert_items(&mut client, 601, 800);
    cluster
}

#[track_caller]
fn assert_empty_and_usable(cluster: &Cluster) {
    let mut client = cluster.client();
    assert_eq!(value::<i64>(&mut client, ROWS), 0);
    let counts = assert_sound(&mut client);
    assert_eq!((counts.live_nodes, counts.rows), (0, 0));
    insert_items(&mut client, 1, 500);
    script(&mut client, "DELETE FROM items WHERE id <= 100; VACUUM items");
    insert_items(&mut client, 501, 700);
    let counts = assert_sound(&mut client);
    assert_eq!(counts.rows, 600);
}

#[test]
fn a_crash_empties_an_unlogged_index_and_a_restart_does_not() {
    let mut cluster = with_unlogged_items("ann-unlogged");
    cluster.restart();
    assert_eq!(value::<i64>(&mut cluster.client(), ROWS), 800);
    assert_sound(&mut cluster.client());
    for _ in 0..2 {
        cluster.crash();
        cluster.start();
        assert_empty_and_usable(&cluster);
    }
}

#[test]
fn an_unlogged_index_is_usable_on_a_promoted_standby() {
    let primary = with_unlogged_items("ann-unlogged-from");
    let standby = primary.standby("ann-unlogged-to");
    primary.wait_for(&standby);
    let error = failure(&mut standby.client(), ROWS);
    assert_eq!(error.code(), &SqlState::FEATURE_NOT_SUPPORTED, "{error:?}");
    standby.promote();
    assert_empty_and_usable(&standby);
}

#[test]
fn an_index_follows_its_table_from_unlogged_to_logged_and_back() {
    let mut cluster = with_unlogged_items("ann-persistence");
    cluster.client().batch_execute("ALTER TABLE items SET LOGGED").unwrap();
    insert_items(&mut cluster.client(), 801, 900);
    cluster.crash();
    cluster.start();
    assert_eq!(assert_sound(&mut cluster.client()).rows, 900);
    let standby = cluster.standby("ann-persistence-of");
    assert_eq!(assert_sound(&mut standby.client()).rows, 900);
    cluster.client().batch_execute("ALTER TABLE items SET UNLOGGED").unwrap();
    assert_eq!(assert_sound(&mut cluster.client()).rows, 900);
    cluster.crash();
    cluster.start();
    assert_empty_and_usable(&cluster);
}
