//! Searches as applications write them: prepared statements, cursors, joins of searches, upserts, merges; each
//! gives what the same SQL gives without an index.

use postgres::Client;
use postgres::error::SqlState;

use super::{
    CREATE_INDEX, DIM, assert_sound, by_index, by_table, create_items, explain, ids, is_ordered_by_index,
    quiet, search,
};
use crate::cluster::Cluster;
use crate::value;

/// 2,000 items with an index that is used whenever it can be.
fn cluster_with_items(name: &str) -> (Cluster, Client) {
    let cluster = quiet(name).start();
    let mut client = cluster.client();
    create_items(&mut client, 2000);
    client.batch_execute(CREATE_INDEX).unwrap();
    client
        .batch_execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
        .unwrap();
    (cluster, client)
}

#[test]
fn parameters_reach_the_index_in_every_kind_of_plan() {
    let (_cluster, mut client) = cluster_with_items("ann-parameters");
    let wide: Vec<f32> = value(&mut client, &format!("SELECT vec(-3, {DIM})::real[]"));
    let expected = ids(&by_table(&mut client, &search("items", "<->", &format!("vec(-3, {DIM})"), 10)));
    client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
    for mode in ["force_custom_plan", "force_generic_plan"] {
        client.batch_execute(&format!("SET plan_cache_mode = {mode}")).unwrap();
        let statement = client
            .prepare("SELECT id FROM items ORDER BY embedding <-> $1::real[]::imgvec LIMIT $2")
            .unwrap();
        for limit in [10_i64, 3, 10] {
            let found = ids(&client.query(&statement, &[&wide, &limit]).unwrap());
            assert_eq!(found, expected[..limit as usize], "{mode}");
        }
        let none: Option<Vec<f32>> = None;
        assert!(client.query(&statement, &[&none, &5_i64]).unwrap().len() <= 5, "{mode}");
        let error = client.query(&statement, &[&vec![1_f32; 3], &5_i64]).unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::DATA_EXCEPTION), "{mode}");
        assert_eq!(
            ids(&client.query(&statement, &[&wide, &10_i64]).unwrap()),
            expected,
            "{mode}, after an error"
        );
    }
    // A query that is itself the answer of a query, and of a volatile one.
    let own =
        "SELECT id FROM items ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = 77) LIMIT 1";
    assert_eq!(value::<i32>(&mut client, own), 77);
    let nothing = "SELECT count(*) FROM (SELECT id FROM items ORDER BY embedding <-> (SELECT embedding FROM items WHERE id = -1) LIMIT 5) AS found";
    assert!(value::<i64>(&mut client, nothing) <= 5);
}

#[test]
fn many_searches_in_one_statement_do_not_mix() {
    let (_cluster, mut client) = cluster_with_items("ann-lateral");
    let nested = "SELECT q.id, found.id FROM items AS q,
        LATERAL (SELECT id FROM items ORDER BY embedding <-> q.embedding LIMIT 3) AS found WHERE q.id <= 300";
    let plan = explain(&mut client, nested);
    assert!(is_ordered_by_index(&plan), "{plan:#?}");
    let rows = client.query(nested, &[]).unwrap();
    assert_eq!(rows.len(), 900);
    assert!(rows.chunks(3).all(|found| found[0].get::<_, i32>(0) == found[0].get::<_, i32>(1)));

    let two = format!(
        "(SELECT id FROM items ORDER BY embedding <-> vec(5, {DIM}) LIMIT 1) UNION ALL
         (SELECT id FROM items ORDER BY embedding <-> vec(6, {DIM}) LIMIT 1) UNION ALL
         (SELECT id FROM items ORDER BY embedding <-> vec(5, {DIM}) LIMIT 1)"
    );
    assert_eq!(ids(&client.query(&two, &[]).unwrap()), [5, 6, 5]);
    // Two searches that take turns.
    client
        .batch_execute(&format!(
            "BEGIN; DECLARE a CURSOR FOR SELECT id FROM items ORDER BY embedding <-> vec(-1, {DIM});
             DECLARE b CURSOR FOR SELECT id FROM items ORDER BY embedding <-> vec(-2, {DIM})"
        ))
        .unwrap();
    let mut walked = [Vec::new(), Vec::new()];
    for _ in 0..30 {
        walked[0].extend(ids(&client.query("FETCH 5 FROM a", &[]).unwrap()));
        walked[1].extend(ids(&client.query("FETCH 3 FROM b", &[]).unwrap()));
    }
    client.batch_execute("COMMIT").unwrap();
    // No LIMIT bounds a cursor, so its rows are those of a sort.
    client
        .batch_execute("SET enable_indexscan = off; SET enable_seqscan = on; SET enable_sort = on")
        .unwrap();
    for (walked, seed) in walked.iter().zip([-1, -2]) {
        let query = format!("vec({seed}, {DIM})");
        let alone = client.query(&search("items", "<->", &query, walked.len()), &[]).unwrap();
        assert_eq!(*walked, ids(&alone));
    }
}

#[test]
fn cursors_go_forth_and_back_and_outlive_their_transaction() {
    let (_cluster, mut client) = cluster_with_items("ann-cursors");
    let query = format!("SELECT id FROM items ORDER BY embedding <-> vec(-1, {DIM})");
    let expected = ids(&by_index(&mut client, &format!("{query} LIMIT 50")));
    client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
    client.batch_execute(&format!("BEGIN; DECLARE walk SCROLL CURSOR FOR {query}")).unwrap();
    let mut fetch = |what: &str| ids(&client.query(&format!("FETCH {what} FROM walk"), &[]).unwrap());
    assert_eq!(fetch("20"), expected[..20]);
    let back: Vec<i32> = expected[9..19].iter().rev().copied().collect();
    assert_eq!(fetch("BACKWARD 10"), back);
    assert_eq!(fetch("ABSOLUTE 1"), expected[..1]);
    assert_eq!(fetch("FORWARD 49"), expected[1..50]);
    client.batch_execute("COMMIT").unwrap();

    client
        .batch_execute(&format!("BEGIN; DECLARE kept CURSOR WITH HOLD FOR {query} LIMIT 50; COMMIT"))
        .unwrap();
    client.batch_execute("DELETE FROM items WHERE id % 2 = 0").unwrap();
    client.batch_execute("VACUUM items").unwrap();
    assert_eq!(ids(&client.query("FETCH ALL FROM kept", &[]).unwrap()), expected);

    // Open cursors of a transaction that fails, and of a session that leaves, are nobody's problem.
    client.batch_execute(&format!("BEGIN; DECLARE lost CURSOR FOR {query}; FETCH 5 FROM lost")).unwrap();
    client.batch_execute("SELECT 1 / 0").unwrap_err();
    client.batch_execute("ROLLBACK").unwrap();
    client
        .batch_execute(&format!(
            "BEGIN; SAVEPOINT s; DECLARE lost CURSOR FOR {query}; FETCH 5 FROM lost; ROLLBACK TO s; COMMIT"
        ))
        .unwrap();
    assert_sound(&mut client);
}

#[test]
fn upserts_merges_and_subtransactions_keep_the_index_true() {
    let (_cluster, mut client) = cluster_with_items("ann-upsert");
    client
        .batch_execute(
            "INSERT INTO items SELECT i, vec(i + 100000, 16) FROM generate_series(1901, 2100) AS i
                 ON CONFLICT (id) DO UPDATE SET embedding = excluded.embedding",
        )
        .unwrap();
    client
        .batch_execute("INSERT INTO items SELECT i, vec(-i, 16) FROM generate_series(1, 100) AS i ON CONFLICT DO NOTHING")
        .unwrap();
    let nearest =
        |seed: i32| format!("SELECT id FROM items ORDER BY embedding <-> vec({seed}, {DIM}) LIMIT 1");
    assert_eq!(value::<i32>(&mut client, &nearest(101_950)), 1950);
    assert_eq!(value::<i32>(&mut client, &nearest(102_050)), 2050);
    assert_eq!(value::<i32>(&mut client, &nearest(50)), 50);
    assert_eq!(assert_sound(&mut client).rows, 2200);
    if value::<i32>(&mut client, "SELECT current_setting('server_version_num')::int / 10000") >= 15 {
        client
            .batch_execute(
                "MERGE INTO items USING (SELECT i AS id FROM generate_series(2001, 2300) AS i) AS given ON items.id = given.id
                     WHEN MATCHED AND given.id % 2 = 0 THEN DELETE
                     WHEN MATCHED THEN UPDATE SET embedding = vec(items.id + 200000, 16)
                     WHEN NOT MATCHED THEN INSERT (id, embedding) VALUES (given.id, vec(given.id, 16))",
            )
            .unwrap();
        assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM items"), 2250);
        assert_eq!(value::<i32>(&mut client, &nearest(202_051)), 2051);
        assert_eq!(value::<i32>(&mut client, &nearest(2222)), 2222);
        assert_sound(&mut client);
    }
    // A transaction sees its own rows, and those of a subtransaction until that is rolled back.
    client.batch_execute("BEGIN; INSERT INTO items SELECT 9001, vec(9001, 16); SAVEPOINT s").unwrap();
    client.batch_execute("INSERT INTO items SELECT 9002, vec(9002, 16)").unwrap();
    assert_eq!(value::<i32>(&mut client, &nearest(9001)), 9001);
    assert_eq!(value::<i32>(&mut client, &nearest(9002)), 9002);
    client.batch_execute("ROLLBACK TO s").unwrap();
    assert_ne!(value::<i32>(&mut client, &nearest(9002)), 9002);
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(value::<i32>(&mut client, &nearest(9001)), 9001);
    client.batch_execute("VACUUM items").unwrap();
    let rows: i64 = value(&mut client, "SELECT count(*) FROM items");
    assert_eq!(assert_sound(&mut client).rows, rows);
}

#[test]
fn rows_are_locked_and_named_by_ctid_as_without_an_index() {
    let (_cluster, mut client) = cluster_with_items("ann-ctid");
    client
        .batch_execute(
            "CREATE TABLE parts (LIKE items) PARTITION BY RANGE (id);
             CREATE TABLE low PARTITION OF parts FOR VALUES FROM (MINVALUE) TO (1000);
             CREATE TABLE high PARTITION OF parts FOR VALUES FROM (1000) TO (MAXVALUE);
             INSERT INTO parts SELECT * FROM items;
             CREATE INDEX ON parts USING ann (embedding imgvec_l2_ops)",
        )
        .unwrap();
    // Not one page more: a row that is sought by a ctid that is none adds a damaged one.
    let size = "SELECT sum(pg_relation_size(c))::bigint FROM unnest('{items, low, high}'::regclass[]) AS c";
    let before: i64 = value(&mut client, size);
    for table in ["items", "parts"] {
        let nearest = format!("FROM {table} ORDER BY embedding <-> vec(-1, {DIM}) LIMIT 10");
        let expected = ids(&by_table(&mut client, &format!("SELECT id {nearest}")));
        client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
        for lock in ["FOR UPDATE", "FOR NO KEY UPDATE SKIP LOCKED", "FOR SHARE", "FOR KEY SHARE"] {
            let locked = ids(&client.query(&format!("SELECT id {nearest} {lock}"), &[]).unwrap());
            assert_eq!(locked, expected, "{table} {lock}");
            let outside = format!("SELECT id FROM (SELECT id {nearest}) AS n {lock}");
            assert_eq!(ids(&client.query(&outside, &[]).unwrap()), expected, "{table} {lock} outside");
        }
        let lost: i64 = value(
            &mut client,
            &format!("SELECT count(*) FROM (SELECT ctid {nearest}) AS n WHERE ctid = '(4294967295,0)'"),
        );
        assert_eq!(lost, 0, "{table}: ctid");
        let whole = format!(
            "SELECT id FROM {table} WHERE ctid >= '(0,0)' ORDER BY embedding <-> vec(-1, {DIM}) LIMIT 10"
        );
        assert_eq!(ids(&client.query(&whole, &[]).unwrap()), expected, "{table}: filter");
        let plan = explain(&mut client, &format!("SELECT id {nearest}"));
        assert!(plan.iter().any(|line| line.contains("Order By: ")), "{table}: {plan:#?}");
    }
    assert_eq!(value::<i64>(&mut client, size), before, "pages were added");
    let mut transaction = client.transaction().unwrap();
    let nearest = format!("SELECT ctid FROM items ORDER BY embedding <-> vec(-1, {DIM}) LIMIT 10");
    let deleted = transaction.execute(&format!("DELETE FROM items WHERE ctid IN ({nearest})"), &[]).unwrap();
    assert_eq!(deleted, 10);
    transaction
        .batch_execute(&format!(
            "DECLARE c CURSOR FOR SELECT id FROM items ORDER BY embedding <-> vec(-1, {DIM}) FOR UPDATE; FETCH 5 FROM c"
        ))
        .unwrap();
    assert_eq!(transaction.execute("UPDATE items SET note = 'x' WHERE CURRENT OF c", &[]).unwrap(), 1);
}

#[test]
fn parallel_workers_compute_what_one_process_does() {
    let cluster = quiet("ann-workers").conf("max_parallel_workers = 4").start();
    let mut client = cluster.client();
    create_items(&mut client, 20_000);
    client
        .batch_execute(&format!(
            "{CREATE_INDEX}; ALTER TABLE items SET (parallel_workers = 2); ANALYZE items;
             SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
             SET parallel_leader_participation = off; SET max_parallel_workers_per_gather = 2"
        ))
        .unwrap();
    let query = format!("vec(-1, {DIM})");
    for statement in [
        format!("SELECT count(*)::text FROM items WHERE embedding <-> {query} < 2.2"),
        format!("SELECT sum((embedding <=> {query})::numeric(10, 6))::text FROM items"),
        // Sums in another order differ in the last digits.
        "SELECT array_agg(round(x::numeric, 5))::text FROM unnest((SELECT avg(embedding) FROM items)::real[]) AS x".into(),
        format!("SELECT string_agg(id::text, ' ') FROM (SELECT id FROM items WHERE id + 0 > 0 ORDER BY embedding <#> {query}, id LIMIT 50) AS near"),
        "SELECT count(*)::text FROM items AS a JOIN items AS b ON a.id = b.id + 1 WHERE a.embedding <-> b.embedding < 2.2".into(),
    ] {
        let plan = client.query(&format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}"), &[]).unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        assert!(plan.iter().any(|line| line.contains("Workers Launched: 2")), "{statement}: {plan:#?}");
        let by_workers: String = value(&mut client, &statement);
        client.batch_execute("SET max_parallel_workers_per_gather = 0").unwrap();
        assert_eq!(by_workers, value::<String>(&mut client, &statement), "{statement}");
        client.batch_execute("SET max_parallel_workers_per_gather = 2").unwrap();
    }
    // An index of ours is scanned by one process, beside workers that scan something else.
    let nearest = format!("SELECT id FROM items ORDER BY embedding <-> {query} LIMIT 10");
    let beside = format!("SELECT count(*)::text FROM items WHERE id IN ({nearest}) AND note = ''");
    assert_eq!(value::<String>(&mut client, &beside), "10");
}
