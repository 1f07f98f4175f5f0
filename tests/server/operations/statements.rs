//! Statements by which applications move and change rows: COPY in its binary format, also with files of pgvector's
//! types, INSERT ... ON CONFLICT, MERGE. An index is kept right by each.

use std::io::{Read as _, Write as _};

use postgres::Client;
use postgres::error::SqlState;

use crate::ann::{
    CREATE_INDEX, assert_each_row_once, by_index, check, create_items, ids, pgvector, quiet, script, search,
};
use crate::value;

/// What a table holds, in the binary format.
fn copy_out(client: &mut Client, source: &str) -> Vec<u8> {
    let mut data = Vec::new();
    let mut reader = client.copy_out(&format!("COPY {source} TO STDOUT (FORMAT binary)")).unwrap();
    reader.read_to_end(&mut data).unwrap();
    data
}

fn copy_in(client: &mut Client, target: &str, data: &[u8]) -> Result<u64, postgres::Error> {
    let mut writer = client.copy_in(&format!("COPY {target} FROM STDIN (FORMAT binary)"))?;
    writer.write_all(data).unwrap();
    writer.finish()
}

#[test]
fn binary_copies_bring_back_the_same_vectors_and_index_them() {
    let cluster = quiet("copy-binary").start();
    let mut client = cluster.client();
    create_items(&mut client, 1000);
    script(
        &mut client,
        "INSERT INTO items VALUES (0, NULL); CREATE TABLE copy (LIKE items); CREATE INDEX copy_embedding ON copy USING ann (embedding)",
    );
    let data = copy_out(&mut client, "items");
    assert_eq!(copy_in(&mut client, "copy", &data).unwrap(), 1001);
    assert_eq!(
        value::<i64>(&mut client, "SELECT count(*) FROM (TABLE items EXCEPT ALL TABLE copy) AS lost"),
        0
    );
    assert_eq!(check(&mut client, "copy_embedding").rows, 1000);
    assert_eq!(ids(&by_index(&mut client, &search("copy", "<=>", "vec(77, 16)", 3)))[0], 77);
    // A vector is two numbers of two bytes, then elements of four, in the network's order.
    let one = copy_out(&mut client, "(SELECT '[1,-2]'::imgvec)");
    let field = [0, 0, 0, 12, 0, 2, 0, 0, 0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0];
    assert!(one.windows(field.len()).any(|bytes| bytes == field), "{one:02x?}");

    // Another number of dimensions, and bytes that are no vector: refused, and the index stays as it was.
    let short = copy_out(&mut client, "(SELECT 5000, '[1,2]'::imgvec, '')");
    let error = copy_in(&mut client, "copy", &short).unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::DATA_EXCEPTION), "{error:?}");
    let mut damaged = data.clone();
    let place = damaged.windows(4).position(|bytes| bytes == [0, 0, 0, 68]).unwrap();
    damaged[place + 5] = 15;
    let error = copy_in(&mut client, "copy", &damaged).unwrap_err();
    assert!(
        [Some(&SqlState::INVALID_BINARY_REPRESENTATION), Some(&SqlState::DATA_EXCEPTION)]
            .contains(&error.code()),
        "{error:?}"
    );
    assert_eq!(check(&mut client, "copy_embedding").rows, 1000);

    // Frozen rows, in the transaction that creates table and index.
    client
        .batch_execute(
            "BEGIN; CREATE TABLE frozen (LIKE items); CREATE INDEX frozen_embedding ON frozen USING ann (embedding)",
        )
        .unwrap();
    let mut writer = client.copy_in("COPY frozen FROM STDIN (FORMAT binary, FREEZE)").unwrap();
    writer.write_all(&data).unwrap();
    assert_eq!(writer.finish().unwrap(), 1001);
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(check(&mut client, "frozen_embedding").rows, 1000);
    assert_each_row_once(&mut client, "frozen", "<=>", "vec(-1, 16)");
}

#[test]
fn binary_copies_of_pgvector_are_read_and_written() {
    let Some((_cluster, mut client)) = pgvector::start("copy-pgvector") else { return };
    script(
        &mut client,
        "CREATE TABLE theirs AS SELECT i AS id, vec(i, 16)::vector(16) AS embedding FROM generate_series(1, 500) AS i;
         CREATE TABLE ours (id integer, embedding imgvec(16)); CREATE INDEX ours_embedding ON ours USING ann (embedding);
         CREATE TABLE back (id integer, embedding vector(16)); CREATE INDEX back_ann ON back USING ann (embedding vector_cosine_ops);
         CREATE INDEX back_hnsw ON back USING hnsw (embedding vector_cosine_ops)",
    );
    let data = copy_out(&mut client, "theirs");
    assert_eq!(copy_in(&mut client, "ours", &data).unwrap(), 500);
    assert_eq!(copy_out(&mut client, "ours"), data, "both types have one binary format");
    assert_eq!(copy_in(&mut client, "back", &data).unwrap(), 500);
    let same =
        "SELECT bool_and(theirs.embedding = back.embedding AND ours.embedding = theirs.embedding::imgvec)
        FROM theirs JOIN ours USING (id) JOIN back USING (id)";
    assert!(value::<bool>(&mut client, same));
    assert_eq!(check(&mut client, "ours_embedding").rows, 500);
    assert_eq!(check(&mut client, "back_ann").rows, 500);
    // The one type can be told from the other by its name only: half precision is refused as such.
    let halves = copy_out(&mut client, "(SELECT 1, vec(1, 16)::halfvec)");
    let error = copy_in(&mut client, "ours", &halves).unwrap_err();
    assert_eq!(error.code().map(SqlState::code), Some("22P03"), "{error:?}");
}

#[test]
fn conflicting_inserts_update_vectors_and_their_index() {
    let cluster = quiet("on-conflict").start();
    let mut client = cluster.client();
    create_items(&mut client, 600);
    client.batch_execute(CREATE_INDEX).unwrap();
    // Half are there already and get another vector, by a statement as applications issue it.
    let upsert =
        "INSERT INTO items AS i SELECT n, vec(n + 10000, 16), 'second' FROM generate_series(301, 900) AS n
        ON CONFLICT (id) DO UPDATE SET embedding = EXCLUDED.embedding, note = EXCLUDED.note
        WHERE i.embedding IS DISTINCT FROM EXCLUDED.embedding";
    assert_eq!(client.execute(upsert, &[]).unwrap(), 600);
    assert_eq!(client.execute(upsert, &[]).unwrap(), 0, "the same again changes nothing");
    let nothing = "INSERT INTO items SELECT n, vec(n + 20000, 16) FROM generate_series(1, 900) AS n ON CONFLICT DO NOTHING";
    assert_eq!(client.execute(nothing, &[]).unwrap(), 0);
    let mut nearest = |seed: i32| {
        let row = &by_index(&mut client, &search("items", "<->", &format!("vec({seed}, 16)"), 1))[0];
        (row.get::<_, i32>(0), row.get::<_, f64>(1) == 0.0)
    };
    assert_eq!(nearest(300), (300, true));
    assert_eq!(nearest(10301), (301, true));
    assert_eq!(nearest(10900), (900, true));
    assert!(!nearest(301).1, "the vector of before is found");
    assert!(!nearest(20301).1, "the vector of a row that was not inserted is found");
    client.batch_execute("VACUUM items").unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 900);
    assert_each_row_once(&mut client, "items", "<->", "vec(-1, 16)");
}

#[test]
fn merge_inserts_updates_and_deletes() {
    let cluster = quiet("merge").start();
    let mut client = cluster.client();
    create_items(&mut client, 600);
    client.batch_execute(CREATE_INDEX).unwrap();
    let merge = "MERGE INTO items AS i USING (SELECT n AS id, vec(n + 10000, 16) AS embedding FROM generate_series(401, 800) AS n) AS s
        ON i.id = s.id
        WHEN MATCHED AND s.id <= 500 THEN DELETE
        WHEN MATCHED THEN UPDATE SET embedding = s.embedding
        WHEN NOT MATCHED THEN INSERT (id, embedding) VALUES (s.id, s.embedding)";
    assert_eq!(client.execute(merge, &[]).unwrap(), 400);
    let mut nearest = |seed: i32| {
        let row = &by_index(&mut client, &search("items", "<->", &format!("vec({seed}, 16)"), 1))[0];
        (row.get::<_, i32>(0), row.get::<_, f64>(1) == 0.0)
    };
    assert_eq!(nearest(400), (400, true));
    assert!(!nearest(450).1, "a deleted row is found");
    assert_eq!(nearest(10550), (550, true));
    assert_eq!(nearest(10800), (800, true));
    client.batch_execute("VACUUM items").unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 700);
    assert_each_row_once(&mut client, "items", "<->", "vec(-1, 16)");
}
