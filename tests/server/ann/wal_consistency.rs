//! Replay rebuilds every page byte for byte: with `wal_consistency_checking` each record carries the page as
//! it should be, and a standby that arrives at another one stops with an error.

use super::{CREATE_INDEX, assert_sound, create_items, quiet};

#[test]
fn replay_of_every_kind_of_change_is_consistent() {
    let primary = quiet("ann-consistency").conf("wal_consistency_checking = 'all'").start();
    let mut client = primary.client();
    create_items(&mut client, 400);
    let standby = primary.standby("ann-replay");
    for statement in [
        CREATE_INDEX,
        "INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(401, 700) AS i",
        "INSERT INTO items SELECT i, vec(1, 16) FROM generate_series(701, 1000) AS i",
        "UPDATE items SET embedding = vec(id + 1000000, 16) WHERE id % 7 = 0",
        "UPDATE items SET note = 'x' WHERE id % 5 = 0",
        "DELETE FROM items WHERE id % 3 = 0",
        "VACUUM items",
        "INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(1001, 1300) AS i",
        "REINDEX INDEX items_embedding",
        "REINDEX INDEX CONCURRENTLY items_embedding",
        "DELETE FROM items",
        "VACUUM items",
        "INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(1, 200) AS i",
        "ALTER TABLE items SET UNLOGGED",
        "ALTER TABLE items SET LOGGED",
    ] {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        primary.wait_for(&standby);
    }
    assert_sound(&mut client);
    assert_sound(&mut standby.client());
    let log = standby.log();
    assert!(!log.contains("inconsistent page"), "{log}");
}
