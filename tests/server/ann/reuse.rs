//! The index costs what its rows need: space of deleted rows is used again, an update that leaves the vector
//! alone adds no node, and ten thousand copies of one vector are one node.

use postgres::Client;

use super::{
    CREATE_INDEX, DIM, assert_sound, by_index, by_table, check, create_items, ids, insert_items, quiet,
    script, search,
};
use crate::value;

fn index_size(client: &mut Client) -> i64 {
    value(client, "SELECT pg_relation_size('items_embedding')")
}

/// Bytes of log that a statement writes.
fn logged_bytes(client: &mut Client, statement: &str) -> i64 {
    let before: String = value(client, "SELECT pg_current_wal_insert_lsn()::text");
    client.batch_execute(statement).unwrap();
    value(client, &format!("SELECT (pg_current_wal_insert_lsn() - '{before}')::bigint"))
}

#[test]
fn churn_of_twenty_times_the_table_keeps_the_size() {
    const ROWS: i32 = 1000;
    let cluster = quiet("ann-churn").start();
    let mut client = cluster.client();
    create_items(&mut client, ROWS);
    client.batch_execute(CREATE_INDEX).unwrap();
    let built = index_size(&mut client);
    let mut sizes = Vec::new();
    for round in 1..=20 {
        // Half of the rows and all of the rows in turn, scattered and in order.
        if round % 2 == 0 {
            client.batch_execute("DELETE FROM items").unwrap();
        } else {
            client.batch_execute("DELETE FROM items WHERE id % 2 = 0").unwrap();
            client
                .batch_execute(&format!("UPDATE items SET embedding = vec(id + {round} * 10000000, {DIM})"))
                .unwrap();
        }
        client.batch_execute("VACUUM items").unwrap();
        let first = round * 100_000;
        let count: i64 = value(&mut client, "SELECT count(*) FROM items");
        insert_items(&mut client, first, first + ROWS - 1 - i32::try_from(count).unwrap());
        sizes.push(index_size(&mut client));
    }
    let counts = assert_sound(&mut client);
    assert_eq!(counts.rows, i64::from(ROWS));
    // An update needs the old and the new node until the next vacuum: up to twice the rows at a time.
    let largest = *sizes.iter().max().unwrap();
    assert!(sizes[3..].iter().max() <= sizes[..3].iter().max(), "no plateau: {sizes:?}");
    assert!(largest <= built * 5 / 2, "built {built}, then {sizes:?}");
}

#[test]
fn an_update_of_another_column_adds_no_node_and_little_log() {
    // Without page images a record shows what has changed.
    let cluster = quiet("ann-other-column").conf("full_page_writes = off").start();
    let mut client = cluster.client();
    create_items(&mut client, 2000);
    client.batch_execute(CREATE_INDEX).unwrap();
    let fresh = check(&mut client, "items_embedding");
    assert_eq!((fresh.live_nodes, fresh.rows), (2000, 2000));

    // A page that is full gives an update no place in its own page, so every index gets the new place.
    let moved = logged_bytes(&mut client, "UPDATE items SET note = 'moved'") / 2000;
    let counts = check(&mut client, "items_embedding");
    assert_eq!((counts.live_nodes, counts.dead_nodes), (2000, 0));
    assert!(counts.rows > 3000, "few rows moved, which proves little: {counts:?}");
    let inserted = logged_bytes(
        &mut client,
        "INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(2001, 3000) AS i",
    ) / 1000;
    eprintln!("bytes of log: {moved} for an update of another column, {inserted} for an insert");
    assert!(moved < 1000 && moved * 4 < inserted, "{moved} bytes for an update, {inserted} for an insert");

    client.batch_execute("VACUUM items").unwrap();
    let counts = assert_sound(&mut client);
    assert_eq!((counts.live_nodes, counts.rows), (3000, 3000));
    // Many versions of the same rows, vacuumed each time, leave the index as it is.
    let size = index_size(&mut client);
    for turn in 0..10 {
        client.batch_execute(&format!("UPDATE items SET note = 'turn {turn}'")).unwrap();
        client.batch_execute("VACUUM items").unwrap();
    }
    let counts = assert_sound(&mut client);
    assert_eq!((counts.live_nodes, counts.rows), (3000, 3000));
    let grown = index_size(&mut client);
    assert!(grown <= size * 5 / 4, "from {size} to {grown} bytes");
}

#[test]
fn ten_thousand_copies_are_found_bounded_and_vacuumed() {
    const COPIES: i32 = 10_000;
    let cluster = quiet("ann-copies").start();
    let mut client = cluster.client();
    create_items(&mut client, 500);
    client.batch_execute(CREATE_INDEX).unwrap();
    let without = index_size(&mut client);
    client
        .batch_execute(&format!(
            "INSERT INTO items SELECT i, vec(-7, {DIM}) FROM generate_series(1001, 1000 + {COPIES}) AS i"
        ))
        .unwrap();
    let counts = check(&mut client, "items_embedding");
    assert_eq!((counts.live_nodes, counts.rows), (501, 10_500));
    let bytes_per_copy = (index_size(&mut client) - without) / i64::from(COPIES);
    assert!(bytes_per_copy < 20, "{bytes_per_copy} bytes for each copy");

    let query = format!("vec(-7, {DIM})");
    let found_copies = |client: &mut Client, k: usize| {
        let rows = by_index(client, &search("items", "<->", &query, k));
        let mut found = ids(&rows);
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), rows.len(), "a row came out twice");
        (rows.iter().take_while(|row| row.get::<_, f64>(1) == 0.0).count(), rows.len())
    };
    assert_eq!(found_copies(&mut client, 10), (10, 10));
    assert_eq!(found_copies(&mut client, 10_000), (10_000, 10_000));
    assert_eq!(found_copies(&mut client, 10_600), (10_000, 10_500));

    // Nearly all die: the rest stays findable, next to other vectors, and cells are used again.
    let size = index_size(&mut client);
    script(&mut client, "DELETE FROM items WHERE id > 1005; VACUUM items");
    assert_eq!(found_copies(&mut client, 10), (5, 10));
    let counts = assert_sound(&mut client);
    assert_eq!((counts.live_nodes, counts.rows), (501, 505));
    client
        .batch_execute(&format!(
            "INSERT INTO items SELECT i, vec(-8, {DIM}) FROM generate_series(20001, 20000 + {COPIES}) AS i"
        ))
        .unwrap();
    let again = index_size(&mut client);
    assert!(again <= size + 2 * 8192, "from {size} to {again} bytes");
    script(&mut client, "DELETE FROM items WHERE id > 500; VACUUM items");
    let counts = assert_sound(&mut client);
    assert_eq!((counts.live_nodes, counts.rows), (500, 500));

    // The same from a build.
    client
        .batch_execute(&format!(
            "INSERT INTO items SELECT i, vec(-7, {DIM}) FROM generate_series(1001, 1000 + {COPIES}) AS i"
        ))
        .unwrap();
    client.batch_execute("REINDEX INDEX items_embedding").unwrap();
    let counts = check(&mut client, "items_embedding");
    assert_eq!((counts.live_nodes, counts.rows), (501, 10_500));
    assert_eq!(found_copies(&mut client, 10_600), (10_000, 10_500));
    let truth = ids(&by_table(&mut client, "SELECT count(*)::int FROM items"));
    assert_eq!(truth, [10_500]);
}
