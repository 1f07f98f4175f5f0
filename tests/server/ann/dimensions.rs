//! Columns whose type does not tell the number of dimensions: the index takes it from the rows, and nothing that rebuilds
//! an index fails for want of it.

use postgres::error::SqlState;

use super::{VECTORS, by_index, check, ids, quiet, script};
use crate::cluster::run;
use crate::{failure, value};

const NEAREST: &str = "SELECT id FROM items ORDER BY e <-> vec(7, 4) LIMIT 3";

fn dims(client: &mut postgres::Client, index: &str) -> Option<i32> {
    value(client, &format!("SELECT dims FROM ann_index_info('{index}')"))
}

#[test]
fn a_column_that_loses_its_dimensions_keeps_a_working_index() {
    let cluster = quiet("dimensions").start();
    let mut client = cluster.client();
    script(&mut client, VECTORS);
    for column in ["imgvec(4)", "four", "imgvec"] {
        script(
            &mut client,
            &format!(
                "DROP TABLE IF EXISTS items; DROP DOMAIN IF EXISTS four; CREATE DOMAIN four AS imgvec(4);
                 CREATE TABLE items (id integer PRIMARY KEY, e {column});
                 INSERT INTO items SELECT i, vec(i, 4) FROM generate_series(1, 500) AS i; INSERT INTO items VALUES (0, NULL);
                 CREATE INDEX items_e ON items USING ann (e imgvec_l2_ops);
                 ALTER TABLE items ALTER COLUMN e TYPE imgvec"
            ),
        );
        for statement in [
            "REINDEX INDEX items_e",
            "REINDEX INDEX CONCURRENTLY items_e",
            "VACUUM FULL items",
            "CLUSTER items USING items_pkey",
            "ALTER TABLE items SET UNLOGGED",
            "ALTER TABLE items SET LOGGED",
        ] {
            client
                .batch_execute(statement)
                .unwrap_or_else(|error| panic!("{column}: {statement}: {error:?}"));
            assert_eq!(dims(&mut client, "items_e"), Some(4), "{column}: {statement}");
            assert_eq!(check(&mut client, "items_e").rows, 500, "{column}: {statement}");
            assert_eq!(ids(&by_index(&mut client, NEAREST))[0], 7, "{column}: {statement}");
        }
        let error = failure(&mut client, "INSERT INTO items VALUES (501, vec(1, 5))");
        assert_eq!(error.code(), &SqlState::DATA_EXCEPTION);
        assert!(error.detail().is_some() && error.hint().is_some(), "{error:?}");
        // An empty table has no dimensions; the next row sets them.
        client.batch_execute("TRUNCATE items").unwrap();
        assert_eq!(dims(&mut client, "items_e"), None);
        assert_eq!(check(&mut client, "items_e").rows, 0);
        assert!(by_index(&mut client, NEAREST).is_empty());
        script(
            &mut client,
            "VACUUM items; INSERT INTO items VALUES (1, NULL); VACUUM items; DELETE FROM items; VACUUM items;
             INSERT INTO items SELECT i, vec(i, 8) FROM generate_series(1, 300) AS i",
        );
        assert_eq!(dims(&mut client, "items_e"), Some(8));
        assert_eq!(check(&mut client, "items_e").rows, 300);
        let found = by_index(&mut client, "SELECT id FROM items ORDER BY e <-> vec(7, 8) LIMIT 3");
        assert_eq!(ids(&found)[0], 7);
        // With dimensions again the table is rewritten, and with others of NULL alone as well.
        client.batch_execute("ALTER TABLE items ALTER COLUMN e TYPE imgvec(8)").unwrap();
        assert_eq!(check(&mut client, "items_e").rows, 300);
        script(&mut client, "UPDATE items SET e = NULL; ALTER TABLE items ALTER COLUMN e TYPE imgvec(6)");
        assert_eq!(dims(&mut client, "items_e"), Some(6));
        client.batch_execute("INSERT INTO items VALUES (900, vec(1, 6)); DROP TABLE items").unwrap();
    }
}

#[test]
fn an_index_without_dimensions_is_built_restored_and_recovered() {
    let mut cluster = quiet("dimensions-restore").start();
    let mut client = cluster.client();
    script(
        &mut client,
        &format!(
            "{VECTORS}; CREATE TABLE items (id integer PRIMARY KEY, e imgvec);
             CREATE TABLE empty (id integer, e imgvec); CREATE INDEX empty_e ON empty USING ann (e);
             CREATE INDEX CONCURRENTLY empty_concurrently ON empty USING ann ((subvector(e, 1, 2)));
             CREATE UNLOGGED TABLE lost (id integer, e imgvec); CREATE INDEX lost_e ON lost USING ann (e);
             CREATE TABLE parts (id integer, e imgvec) PARTITION BY LIST (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
             CREATE INDEX parts_e ON parts USING ann (e imgvec_l2_ops);
             INSERT INTO items SELECT i, vec(i, 4) FROM generate_series(1, 500) AS i;
             INSERT INTO lost SELECT id, e FROM items;
             INSERT INTO parts SELECT 1, vec(i, 3) FROM generate_series(1, 50) AS i;
             INSERT INTO parts SELECT 2, vec(i, 5) FROM generate_series(1, 60) AS i;
             CREATE INDEX items_e ON items USING ann (e imgvec_l2_ops)"
        ),
    );
    // Each partition has vectors of its own length.
    assert_eq!(dims(&mut client, "parts_1_e_idx"), Some(3));
    assert_eq!(dims(&mut client, "parts_2_e_idx"), Some(5));
    script(&mut client, "REINDEX TABLE parts; TRUNCATE parts_1; INSERT INTO parts VALUES (1, vec(1, 9))");
    assert_eq!(dims(&mut client, "parts_1_e_idx"), Some(9));
    assert_eq!(check(&mut client, "parts_2_e_idx").rows, 60);
    let error = failure(&mut client, "INSERT INTO empty SELECT 1, vec(1, 4001)");
    assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED, "{error:?}");
    client.batch_execute("INSERT INTO items VALUES (501, vec(501, 4))").unwrap();

    let dump = cluster.directory().join("dump.sql");
    run(cluster.program("pg_dump").arg("--file").arg(&dump));
    client.batch_execute("CREATE DATABASE copy").unwrap();
    run(cluster.program("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "copy", "-f"]).arg(&dump));
    let mut copy = cluster.client_of("postgres", "copy");
    assert_eq!(check(&mut copy, "items_e").rows, 501);
    assert_eq!(dims(&mut copy, "items_e"), Some(4));
    assert_eq!(dims(&mut copy, "empty_e"), None);
    assert_eq!(ids(&by_index(&mut copy, NEAREST))[0], 7);
    drop(copy);

    // An unlogged table comes back empty after a crash, and its index waits again; the others are as they were.
    client
        .batch_execute("CREATE TABLE late (id integer, e imgvec); CREATE INDEX late_e ON late USING ann (e)")
        .unwrap();
    client
        .batch_execute("CHECKPOINT; INSERT INTO late SELECT i, vec(i, 4) FROM generate_series(1, 40) AS i")
        .unwrap();
    drop(client);
    cluster.crash();
    cluster.start();
    let mut client = cluster.client();
    assert_eq!(dims(&mut client, "lost_e"), None);
    client.batch_execute("INSERT INTO lost VALUES (1, vec(1, 6))").unwrap();
    assert_eq!(check(&mut client, "lost_e").rows, 1);
    assert_eq!(check(&mut client, "late_e").rows, 40);
    assert_eq!(check(&mut client, "items_e").rows, 501);
}

#[test]
fn the_first_rows_of_many_sessions_and_their_standby_agree() {
    let cluster = quiet("dimensions-first").start();
    let mut client = cluster.client();
    script(&mut client, VECTORS);
    let standby = cluster.standby("dimensions-standby");
    for round in 0..10 {
        client
            .batch_execute(
                "DROP TABLE IF EXISTS items; CREATE TABLE items (id integer, e imgvec);
                 CREATE INDEX items_e ON items USING ann (e imgvec_l2_ops)",
            )
            .unwrap();
        std::thread::scope(|scope| {
            for session in 0..4 {
                let mut client = cluster.client();
                scope.spawn(move || {
                    let rows = format!("INSERT INTO items SELECT i, vec(i, 4) FROM generate_series({session}1, {session}9) AS i");
                    client.batch_execute(&rows).unwrap();
                });
            }
        });
        assert_eq!(check(&mut client, "items_e").rows, 36, "round {round}");
    }
    client
        .batch_execute("CREATE TABLE empty (e imgvec); CREATE INDEX empty_e ON empty USING ann (e)")
        .unwrap();
    cluster.wait_for(&standby);
    let mut reader = standby.client();
    assert_eq!(dims(&mut reader, "items_e"), Some(4));
    assert_eq!(dims(&mut reader, "empty_e"), None);
    assert_eq!(ids(&by_index(&mut reader, "SELECT id FROM items ORDER BY e <-> vec(17, 4) LIMIT 1"))[0], 17);
    assert!(by_index(&mut reader, "SELECT 1 FROM empty ORDER BY e <=> '[1,2]' LIMIT 1").is_empty());
}
