//! Partitions that come and go with their indexes, as `docs/scaling-out.md` shows it: an index that is there is
//! adopted and not built again, and a partition that leaves keeps its own.

use postgres::Client;

use super::pages::{blocks, statements};
use crate::ann::{VECTORS, assert_each_row_once, check, explain, ids, quiet, script};
use crate::value;

/// Executes the page's blocks with a label, each statement by itself.
#[track_caller]
fn execute(client: &mut Client, blocks: &[String]) {
    for statement in blocks.iter().flat_map(|block| statements(block)) {
        client.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

fn file_of(client: &mut Client, index: &str) -> i64 {
    value(client, &format!("SELECT pg_relation_filenode('{index}')::bigint"))
}

/// The ids nearest to a vector by Merge Append over `partitions` index scans, judged by the table without indexes.
#[track_caller]
fn assert_answer_together(client: &mut Client, partitions: usize) {
    let query = "SELECT id::integer FROM photos ORDER BY embedding <=> vec(-1, 256) LIMIT 20";
    script(client, "SET enable_seqscan = off; SET enable_sort = off");
    let plan = explain(client, query);
    assert!(plan.iter().any(|line| line.contains("Merge Append")) == (partitions > 1), "{plan:#?}");
    assert_eq!(plan.iter().filter(|line| line.contains("Order By")).count(), partitions, "{plan:#?}");
    assert!(!plan.iter().any(|line| line.contains("->  Sort")), "{plan:#?}");
    let found = ids(&client.query(query, &[]).unwrap());
    script(client, "RESET enable_seqscan; RESET enable_sort; SET enable_indexscan = off");
    let truth = ids(&client.query(query, &[]).unwrap());
    client.batch_execute("RESET enable_indexscan").unwrap();
    let common = found.iter().filter(|id| truth.contains(id)).count();
    assert!(found.len() == 20 && common >= 19, "{found:?} instead of {truth:?}");
}

#[test]
fn partitions_are_attached_and_detached_with_their_indexes() {
    let cluster = quiet("partitions").start();
    let mut client = cluster.client();
    client.batch_execute(VECTORS).unwrap();
    execute(&mut client, &blocks("scaling-out.md", "partitions"));
    client
        .batch_execute(
            "INSERT INTO photos SELECT i, date '2024-01-01' + i % 366, vec(i, 256) FROM generate_series(1, 500) AS i;
             INSERT INTO photos SELECT i, date '2025-01-01' + i % 365, vec(i, 256) FROM generate_series(501, 1000) AS i",
        )
        .unwrap();
    assert_answer_together(&mut client, 2);

    let attach = blocks("scaling-out.md", "attach");
    let attach = statements(&attach[0]);
    let (load, rest) = attach.split_at(1);
    execute(&mut client, load);
    client
        .batch_execute(
            "INSERT INTO photos_2026 SELECT i, date '2026-01-01' + i % 365, vec(i, 256) FROM generate_series(1001, 1500) AS i",
        )
        .unwrap();
    let (build, attach) = rest.split_at(rest.len() - 1);
    execute(&mut client, build);
    let built = file_of(&mut client, "photos_2026_embedding_idx");
    execute(&mut client, attach);
    assert_eq!(file_of(&mut client, "photos_2026_embedding_idx"), built, "the index was built again");
    let indexes =
        "SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY inhrelid::regclass::text) FROM pg_inherits
        WHERE inhparent = 'photos_embedding'::regclass";
    assert_eq!(
        value::<String>(&mut client, indexes),
        "photos_2024_embedding_idx photos_2025_embedding_idx photos_2026_embedding_idx"
    );
    let glance = statements(&blocks("scaling-out.md", "indexes")[0]).remove(0);
    let glance = client
        .query(&format!("SELECT index::text, partition_of::text, rows FROM ({glance}) AS i ORDER BY 1"), &[]);
    let glance: Vec<(String, String)> = glance.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected = ["photos_2024_embedding_idx", "photos_2025_embedding_idx", "photos_2026_embedding_idx"]
        .map(|index| (index.to_owned(), "photos".to_owned()));
    assert_eq!(glance, expected);
    assert_answer_together(&mut client, 3);
    // A filter on the key leaves one index.
    script(&mut client, "SET enable_seqscan = off; SET enable_sort = off");
    let plan = explain(&mut client, &statements(&blocks("scaling-out.md", "pruned")[0])[0]);
    assert_eq!(plan.iter().filter(|line| line.contains("Order By")).count(), 1, "{plan:#?}");
    script(&mut client, "RESET enable_seqscan; RESET enable_sort");
    // An attached index takes rows that come through the parent.
    client.batch_execute("INSERT INTO photos VALUES (9999, '2026-05-05', vec(9999, 256))").unwrap();
    assert_eq!(check(&mut client, "photos_2026_embedding_idx").rows, 501);

    let built = file_of(&mut client, "photos_2024_embedding_idx");
    execute(&mut client, &blocks("scaling-out.md", "detach"));
    assert_eq!(file_of(&mut client, "photos_2024_embedding_idx"), built);
    assert_answer_together(&mut client, 2);
    assert_each_row_once(
        &mut client,
        "(SELECT id::integer, embedding FROM photos_2024) AS photos_2024",
        "<=>",
        "vec(-1, 256)",
    );
    assert_eq!(check(&mut client, "photos_2024_embedding_idx").rows, 500);
    // It comes back as it is, and takes no second index.
    client
        .batch_execute(
            "ALTER TABLE photos ATTACH PARTITION photos_2024 FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')",
        )
        .unwrap();
    assert_eq!(file_of(&mut client, "photos_2024_embedding_idx"), built);
    let count = "SELECT count(*) FROM pg_index WHERE indrelid = 'photos_2024'::regclass";
    assert_eq!(value::<i64>(&mut client, count), 1);
    assert_answer_together(&mut client, 3);

    // An index of another kind is not taken for the parent's: the partition gets one more.
    script(
        &mut client,
        "CREATE TABLE photos_2027 (LIKE photos); CREATE INDEX other ON photos_2027 USING ann (embedding imgvec_l2_ops);
         ALTER TABLE photos ATTACH PARTITION photos_2027 FOR VALUES FROM ('2027-01-01') TO ('2028-01-01')",
    );
    let count = "SELECT count(*) FROM pg_index WHERE indrelid = 'photos_2027'::regclass";
    assert_eq!(value::<i64>(&mut client, count), 2);
}

#[test]
fn a_partitioned_table_gets_its_indexes_one_by_one_without_blocking() {
    let cluster = quiet("partitions-online").start();
    let mut client = cluster.client();
    client.batch_execute(VECTORS).unwrap();
    execute(&mut client, &blocks("scaling-out.md", "partitions"));
    client
        .batch_execute(
            "DROP INDEX photos_embedding;
             INSERT INTO photos SELECT i, date '2024-01-01' + i, vec(i, 256) FROM generate_series(1, 700) AS i",
        )
        .unwrap();
    execute(&mut client, &blocks("scaling-out.md", "online"));
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'photos_embedding'::regclass";
    assert!(value::<bool>(&mut client, valid));
    assert_answer_together(&mut client, 2);
}
