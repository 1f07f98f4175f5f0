//! How long a batch is: by what its rows cost, and no longer than the call has time. Counts tell, not clocks.

use postgres::Client;

use super::{assert_complete, progress, run, start};
use crate::value;

/// A table whose source takes 50 ms for each row after the first so many, and 1,000 rows at most.
fn create(client: &mut Client, name: &str, quick: i32, rows: i32) {
    run(
        client,
        &format!(
            "CREATE OR REPLACE FUNCTION slow(id int, quick int, caption text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
                 IF id > quick THEN PERFORM pg_sleep(0.05); END IF; RETURN caption; END $$;
             CREATE TABLE {name} (id int PRIMARY KEY, caption text, embedding imgvec(256));
             SELECT imgvec_maintain('{name}', 'slow(id, {quick}, caption)', 'embedding', 'starter');
             INSERT INTO {name} SELECT i, 'thing ' || i FROM generate_series(1, {rows}) AS i"
        ),
    );
}

const TEXT: &str = "embed_text(caption, 'starter')";

#[test]
fn a_call_with_little_time_does_little() {
    let (_cluster, mut client) = start("pipeline-little-time");
    create(&mut client, "notes", 0, 100);
    let embedded = "SELECT count(embedding) FROM notes";
    // The first row's turn always comes, and no other's.
    run(&mut client, "CALL imgvec_work('notes', max_seconds => 0)");
    assert_eq!(value::<i64>(&mut client, embedded), 1);
    run(&mut client, "CALL imgvec_work('notes', max_seconds => 0.3)");
    let done: i64 = value(&mut client, embedded);
    assert!((2..12).contains(&done), "{done}");
    assert_eq!(progress(&mut client, "notes"), format!("{} waiting, 0 failed", 100 - done));
    // A second has time for twenty such rows.
    run(&mut client, "CALL imgvec_work('notes')");
    assert_complete(&mut client, "notes", TEXT);
    let longest = "SELECT max(rows) FROM notes_embedding_log WHERE kind = 'batch'";
    let rows: i64 = value(&mut client, longest);
    assert!((2..=25).contains(&rows), "{rows}");
}

#[test]
fn rows_that_suddenly_take_long_do_not_make_a_batch_long() {
    let (_cluster, mut client) = start("pipeline-suddenly");
    create(&mut client, "notes", 600, 660);
    run(&mut client, "CALL imgvec_work('notes')");
    assert_complete(&mut client, "notes", TEXT);
    // Rows that were written together have the same transaction.
    let together =
        "SELECT max(count) FROM (SELECT count(*) FROM notes WHERE id > 600 GROUP BY xmin::text) AS batches";
    let rows: i64 = value(&mut client, together);
    assert!((1..=25).contains(&rows), "{rows}");
}

#[test]
fn rows_that_cost_little_are_many_in_a_batch() {
    let (_cluster, mut client) = start("pipeline-large-batches");
    // NULL takes the place of an embedding: no model runs.
    run(
        &mut client,
        "CREATE TABLE notes (id int PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter');
         INSERT INTO notes SELECT i, NULL, embed_text('x', 'starter') FROM generate_series(1, 5000) AS i;
         CALL imgvec_work('notes')",
    );
    assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM notes"), 0);
    let batches: i64 = value(&mut client, "SELECT count(*) FROM notes_embedding_log WHERE kind = 'batch'");
    assert!((1..=15).contains(&batches), "{batches}");
}

#[test]
fn a_table_with_many_rows_leaves_time_to_others() {
    let (_cluster, mut client) = start("pipeline-shares");
    create(&mut client, "one", 0, 1000);
    create(&mut client, "two", 0, 1000);
    run(&mut client, "SELECT embed_text('x', 'starter');\nCALL imgvec_work(max_seconds => 3)");
    for table in ["one", "two"] {
        let embedded: i64 = value(&mut client, &format!("SELECT count(embedding) FROM {table}"));
        // More than the first batch.
        assert!((5..100).contains(&embedded), "{table}: {embedded}");
    }
}
