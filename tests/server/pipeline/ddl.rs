//! ALTER TABLE and DROP on a maintained table: each works on, or is refused with an error that says why.

use postgres::Client;

use super::{CAPTIONS, assert_complete, progress, run, start};
use crate::cluster::run as program;
use crate::{failure, value};

/// What the triggers of a database declare.
fn declared(client: &mut Client) -> String {
    value(
        client,
        "SELECT string_agg(DISTINCT encode(tgargs, 'escape'), '') FROM pg_trigger WHERE tgparentid = 0",
    )
}

#[test]
fn a_declaration_gets_the_names_of_now_and_a_dump_has_them() {
    let (cluster, mut client) = start("pipeline-renamed");
    run(
        &mut client,
        "CREATE SCHEMA old;
         CREATE TABLE old.notes (id bigint PRIMARY KEY, caption text, more text, embedding imgvec(256));
         SELECT imgvec_maintain('old.notes', $$caption || ' ' || upper(more)$$, 'embedding', 'starter')",
    );
    // Each with rows before and after it, and no batch between them.
    for (number, change) in [
        "ALTER TABLE old.notes RENAME COLUMN caption TO words",
        // The name of a column that the source reads.
        "ALTER TABLE old.notes RENAME COLUMN more TO caption",
        "ALTER TABLE old.notes RENAME COLUMN id TO \"the key\"",
        "ALTER TABLE old.notes RENAME COLUMN embedding TO vector",
        "ALTER TABLE old.notes RENAME TO remarks",
        "ALTER TABLE old.notes_embedding_queue RENAME TO waiting",
        "ALTER TABLE old.notes_embedding_log RENAME TO journal",
        "ALTER SCHEMA old RENAME TO new",
        "CREATE SCHEMA other; ALTER TABLE new.remarks SET SCHEMA other",
        "ALTER TABLE new.waiting SET SCHEMA other",
        "ALTER TABLE other.remarks ADD COLUMN embedding text",
    ]
    .iter()
    .enumerate()
    {
        run(&mut client, &change.replace("; ", ";\n"));
        let table: String =
            value(&mut client, "SELECT relation::text FROM imgvec_progress WHERE waiting >= 0");
        let insert = format!("INSERT INTO {table} VALUES ({number}, 'thing', 'number {number}')");
        client.batch_execute(&insert).unwrap_or_else(|error| panic!("{change}: {error:?}"));
        assert_eq!(progress(&mut client, &table), format!("{} waiting, 0 failed", number + 1), "{change}");
    }
    let before = declared(&mut client);
    assert!(before.contains("notes_embedding_queue"), "{before}");
    run(&mut client, "CALL imgvec_work('other.remarks')");
    let right = "SELECT count(*) FROM other.remarks WHERE abs(vector <=> embed_text(words || ' ' || upper(caption), 'starter')) < 1e-5";
    assert_eq!(value::<i64>(&mut client, right), 11);
    let now = declared(&mut client);
    for name in ["the key", "vector", "words", "other", "waiting", "journal"] {
        assert!(now.contains(name), "{name}: {now}");
    }
    for name in ["notes_embedding", "\"id\"", "\"more\"", "\"old\"", "\"embedding\""] {
        assert!(!now.contains(name), "{name}: {now}");
    }
    // They are tied as before, and follow the next renaming.
    assert_eq!(failure(&mut client, "DROP TABLE other.waiting").code().code(), "2BP01");
    run(
        &mut client,
        "ALTER TABLE other.remarks RENAME COLUMN words TO title;
         UPDATE other.remarks SET title = 'changed' WHERE \"the key\" < 3;
         CREATE DATABASE copy",
    );
    // A batch is not needed for the dump to have the names of before the last renaming; this one has those of now.
    run(
        &mut client,
        "CALL imgvec_work('other.remarks');\nUPDATE other.remarks SET title = 'again' WHERE \"the key\" = 4",
    );
    let file = cluster.directory().join("renamed.sql");
    program(
        cluster.program("pg_dump").args(["--dbname=postgres", "--username=postgres", "--file"]).arg(&file),
    );
    program(cluster.program("psql").args(["-X", "-q", "-d", "copy", "-U", "postgres", "-f"]).arg(&file));
    let mut copy = cluster.client_of("postgres", "copy");
    let waiting = "SELECT waiting FROM imgvec_progress";
    assert_eq!(value::<i64>(&mut copy, waiting), 1);
    run(
        &mut copy,
        "INSERT INTO other.remarks VALUES (100, 'after', 'the restore');
         CALL imgvec_work('other.remarks')",
    );
    let right = right.replace("words", "title");
    assert_eq!(value::<i64>(&mut copy, &right), 12);
    // The copy's declaration is one of its own now: it follows names as well.
    run(
        &mut copy,
        "ALTER TABLE other.remarks RENAME COLUMN title TO head;
         INSERT INTO other.remarks VALUES (101, 'after', 'a renaming');
         CALL imgvec_work('other.remarks')",
    );
    assert_eq!(value::<i64>(&mut copy, &right.replace("title", "head")), 13);
}

#[test]
fn what_the_triggers_read_is_not_dropped_and_keeps_its_type() {
    let (_cluster, mut client) = start("pipeline-needed");
    run(&mut client, CAPTIONS);
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 30) AS i;
         CALL imgvec_work('notes')",
    );
    for (statement, code) in [
        ("ALTER TABLE notes DROP COLUMN caption", "2BP01"),
        ("ALTER TABLE notes DROP COLUMN id", "2BP01"),
        ("ALTER TABLE notes ALTER COLUMN id TYPE integer", "0A000"),
        ("ALTER TABLE notes ALTER COLUMN caption TYPE varchar(100)", "0A000"),
        ("ALTER TABLE notes ALTER COLUMN embedding TYPE imgvec", "0A000"),
        ("DROP TABLE notes_embedding_queue", "2BP01"),
    ] {
        let error = failure(&mut client, statement);
        assert_eq!(error.code().code(), code, "{statement}: {error:?}");
        assert!(error.detail().is_some_and(|it| it.contains("trigger imgvec_embedding_")), "{error:?}");
    }
    // Columns that nothing reads are nobody's business.
    run(
        &mut client,
        "ALTER TABLE notes ALTER COLUMN other TYPE varchar(10);
         ALTER TABLE notes ADD COLUMN x int, DROP COLUMN other;
         ALTER TABLE notes SET UNLOGGED;
         ALTER TABLE notes SET LOGGED;
         ALTER TABLE notes CLUSTER ON notes_pkey;
         CLUSTER notes;
         VACUUM FULL notes;
         INSERT INTO notes VALUES (31, 'one more');
         CALL imgvec_work('notes')",
    );
    assert_complete(&mut client, "notes", "embed_text(caption, 'starter')");
    // What to do instead: embeddings stay, and only rows without one are embedded.
    run(
        &mut client,
        "SELECT imgvec_maintain('notes', target => 'embedding', stop => true);
         ALTER TABLE notes ALTER COLUMN id TYPE integer, ALTER COLUMN caption TYPE varchar(100);
         SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter');
         INSERT INTO notes VALUES (32, 'the last');
         CALL imgvec_work('notes')",
    );
    assert_complete(&mut client, "notes", "embed_text(caption, 'starter')");
    // Without its key, rows cannot be found: nothing is lost, and the error says what to do.
    run(
        &mut client,
        "ALTER TABLE notes DROP CONSTRAINT notes_pkey;
         INSERT INTO notes VALUES (33, 'without a key')",
    );
    let error = failure(&mut client, "CALL imgvec_work('notes')");
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert!(error.hint().is_some(), "{error:?}");
    assert_eq!(progress(&mut client, "notes"), "1 waiting, 0 failed");
    run(&mut client, "ALTER TABLE notes ADD PRIMARY KEY (id);\nCALL imgvec_work('notes')");
    assert_complete(&mut client, "notes", "embed_text(caption, 'starter')");
    // CASCADE ends the maintenance, as the error had said; the two tables go with the target.
    run(&mut client, "ALTER TABLE notes DROP COLUMN caption CASCADE;\nINSERT INTO notes VALUES (34)");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM imgvec_progress"), 0);
    run(&mut client, "ALTER TABLE notes DROP COLUMN embedding");
    let left = "SELECT count(*) FROM pg_class WHERE relname ~ '^notes_embedding'";
    assert_eq!(value::<i64>(&mut client, left), 0);
}

#[test]
fn a_partitioned_table_is_declared_anew_after_a_renaming() {
    let (_cluster, mut client) = start("pipeline-renamed-partitions");
    run(
        &mut client,
        "CREATE TABLE notes (id int, region text, caption text, embedding imgvec(256), PRIMARY KEY (region, id)) PARTITION BY LIST (region);
         CREATE TABLE notes_a PARTITION OF notes FOR VALUES IN ('a');
         CREATE TABLE notes_b (embedding imgvec(256), id int NOT NULL, caption text, region text NOT NULL);
         ALTER TABLE notes ATTACH PARTITION notes_b FOR VALUES IN ('b');
         SELECT imgvec_maintain('notes', 'upper(caption)', 'embedding', 'starter');
         INSERT INTO notes SELECT i, 'a', 'thing ' || i FROM generate_series(1, 20) AS i;
         CREATE SCHEMA other; ALTER TABLE notes_embedding_queue SET SCHEMA other;
         ALTER TABLE notes RENAME COLUMN caption TO words;
         ALTER TABLE notes RENAME TO remarks;
         INSERT INTO notes_b (id, region, words) SELECT i, 'b', 'thing ' || i FROM generate_series(1, 20) AS i;
         CALL imgvec_work('remarks')"
            .replace("other; ", "other;\n")
            .as_str(),
    );
    let now = declared(&mut client);
    assert!(now.contains("words") && now.contains("other") && !now.contains("caption"), "{now}");
    // Partitions have the same triggers, also those that come.
    run(
        &mut client,
        "CREATE TABLE notes_c PARTITION OF remarks FOR VALUES IN ('c');
         INSERT INTO notes_c (id, region, words) VALUES (1, 'c', 'in a new one');
         INSERT INTO notes_b (id, region, words) VALUES (21, 'b', 'in an old one');
         UPDATE remarks SET words = 'changed' WHERE id = 3;
         UPDATE remarks SET region = 'c' WHERE id = 5 AND region = 'a';
         CALL imgvec_work('remarks')",
    );
    assert_complete(&mut client, "remarks", "embed_text(upper(words), 'starter')");
    // A partition that leaves is maintained no more, and its waiting rows are none any more.
    run(
        &mut client,
        "UPDATE notes_b SET words = 'leaves' WHERE id < 10;
         ALTER TABLE remarks DETACH PARTITION notes_b;
         INSERT INTO notes_b (id, region, words) VALUES (22, 'b', 'alone');
         CALL imgvec_work('remarks')",
    );
    assert_complete(&mut client, "remarks", "embed_text(upper(words), 'starter')");
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'notes_b'::regclass";
    assert_eq!(value::<i64>(&mut client, triggers), 0);
}
