//! Errors raised by code of users in the midst of ours: what we hold is given back, and the session goes on.

use postgres::Client;
use postgres::error::SqlState;

use super::{DIM, VECTORS, assert_each_row_once, check, quiet};
use crate::cluster::Cluster;
use crate::{failure, value};

/// A table whose index is over a function that fails for the row that the setting names.
fn cluster_with_fragile_index(name: &str) -> (Cluster, Client) {
    let cluster = quiet(name).start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "{VECTORS};
             CREATE FUNCTION fragile(id integer, embedding imgvec) RETURNS imgvec LANGUAGE plpgsql IMMUTABLE AS $$
             BEGIN
                 IF current_setting('test.fails', true) = id::text THEN RAISE EXCEPTION 'row % fails', id; END IF;
                 RETURN embedding;
             END $$;
             CREATE TABLE items (id integer, embedding imgvec({DIM}));
             INSERT INTO items SELECT i, vec(i, {DIM}) FROM generate_series(1, 3000) AS i"
        ))
        .unwrap();
    (cluster, client)
}

const CREATE_FRAGILE: &str =
    "CREATE INDEX items_embedding ON items USING ann ((fragile(id, embedding)::imgvec(16)) imgvec_l2_ops)";
const NEAREST: &str =
    "SELECT id FROM items ORDER BY fragile(id, embedding)::imgvec(16) <-> vec(-1, 16) LIMIT 5";

#[test]
fn errors_of_users_functions_leave_nothing_behind() {
    let (cluster, mut client) = cluster_with_fragile_index("ann-errors");
    client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
    let fails = |client: &mut Client, statement: &str| {
        let error = failure(client, statement);
        assert_eq!(error.code(), &SqlState::RAISE_EXCEPTION, "{statement}: {error:?}");
        assert!(error.message().contains("fails"), "{statement}: {error:?}");
    };
    // While the table is sampled and read.
    for row in [1, 1500, 3000] {
        client.batch_execute(&format!("SET test.fails = '{row}'")).unwrap();
        fails(&mut client, CREATE_FRAGILE);
        fails(&mut client, &CREATE_FRAGILE.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY"));
        client.batch_execute("DROP INDEX items_embedding").unwrap();
    }
    client.batch_execute("SET test.fails = ''").unwrap();
    client.batch_execute(CREATE_FRAGILE).unwrap();
    let found: Vec<i32> = client.query(NEAREST, &[]).unwrap().iter().map(|row| row.get(0)).collect();

    // In inserts, scans, checks and rebuilds; with a scan half-way open, and in subtransactions.
    client.batch_execute(&format!("SET test.fails = '{}'", found[0])).unwrap();
    for _ in 0..20 {
        fails(&mut client, NEAREST);
        fails(&mut client, "SELECT ann_index_recall('items_embedding', 10, 3000)");
        fails(&mut client, "REINDEX INDEX items_embedding");
    }
    client.batch_execute("SET test.fails = '3501'").unwrap();
    let insert = "INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(3001, 4000) AS i";
    fails(&mut client, insert);
    client
        .batch_execute(
            "BEGIN; DECLARE walk CURSOR FOR SELECT id FROM items ORDER BY fragile(id, embedding)::imgvec(16) <-> vec(-2, 16)",
        )
        .unwrap();
    for turn in 0..20 {
        client.batch_execute(&format!("SAVEPOINT s{turn}")).unwrap();
        assert_eq!(client.query("FETCH 20 FROM walk", &[]).unwrap().len(), 20);
        fails(&mut client, insert);
        client.batch_execute(&format!("ROLLBACK TO s{turn}")).unwrap();
    }
    client.batch_execute("COMMIT").unwrap();
    // The server's own way to go on after an error: a block with a handler.
    client
        .batch_execute(
            "DO $$ BEGIN FOR turn IN 1..50 LOOP
                 BEGIN
                     INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(3490, 3510) AS i;
                     RAISE 'not reached';
                 EXCEPTION WHEN raise_exception THEN NULL;
                 END;
             END LOOP; END $$",
        )
        .unwrap();

    client.batch_execute("SET test.fails = ''").unwrap();
    let again: Vec<i32> = client.query(NEAREST, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(again, found);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM items"), 3000);
    check(&mut client, "items_embedding");
    // Rows that were rolled back are many more than those that stay.
    client.batch_execute("VACUUM items").unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 3000);
    let source = "(SELECT id, fragile(id, embedding)::imgvec(16) AS embedding FROM items) AS items";
    assert_each_row_once(&mut client, source, "<->", "vec(-1, 16)");
    let log = cluster.log();
    for sign in ["leak", "panicked", "WARNING:"] {
        assert!(!log.contains(sign), "the log has {sign:?}:\n{log}");
    }
}
