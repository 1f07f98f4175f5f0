//! Whatever the plan, a query's text goes through the model once; workers embed by themselves.

use postgres::Client;

use crate::cluster::Cluster;
use crate::{create_pictures, value};

const ROWS: i64 = 10_000;

fn cluster_with_vectors(name: &str) -> Cluster {
    // The counters are those of one process.
    let cluster = Cluster::new(name).conf("max_parallel_workers_per_gather = 0").start();
    cluster
        .client()
        .batch_execute(&format!(
            "SELECT setseed(0.5);
             CREATE TABLE vectors AS SELECT id, (SELECT array_agg(random() - 0.5) FROM generate_series(1, 256)
                 WHERE id = id)::real[]::imgvec(256) AS embedding FROM generate_series(1, {ROWS}) AS id;
             ALTER TABLE vectors ADD PRIMARY KEY (id); ANALYZE vectors;"
        ))
        .unwrap();
    assert_eq!(value::<i64>(&mut cluster.client(), "SELECT count(DISTINCT embedding) FROM vectors"), ROWS);
    cluster
}

/// How many texts went through the model in a new session that ran `work`.
fn texts_embedded(cluster: &Cluster, work: impl FnOnce(&mut Client)) -> i64 {
    let mut client = cluster.client();
    work(&mut client);
    value(&mut client, "SELECT texts_embedded FROM imgvec_backend_stats")
}

fn ids(client: &mut Client, query: &str) -> Vec<i32> {
    client.query(query, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn a_text_is_embedded_once_in_every_plan() {
    const SEARCH: &str = "SELECT id FROM vectors ORDER BY embedding <=> embed_text('dog') LIMIT 10";
    let cluster = cluster_with_vectors("plans");
    let mut expected = Vec::new();

    let scan = texts_embedded(&cluster, |client| {
        let plan: Vec<String> =
            client.query(&format!("EXPLAIN {SEARCH}"), &[]).unwrap().iter().map(|row| row.get(0)).collect();
        assert!(plan.iter().any(|line| line.contains("Seq Scan")), "{plan:#?}");
        expected = ids(client, SEARCH);
    });
    assert_eq!((scan, expected.len()), (1, 10), "sequential scan");

    let filter = texts_embedded(&cluster, |client| {
        value::<i64>(client, "SELECT count(*) FROM vectors WHERE embedding <=> embed_text('dog') < 1");
    });
    assert_eq!(filter, 1, "filter");

    let generic = texts_embedded(&cluster, |client| {
        client.batch_execute("SET plan_cache_mode = force_generic_plan").unwrap();
        let search = "SELECT id FROM vectors ORDER BY embedding <=> embed_text($1) LIMIT 10";
        let statement = client.prepare(search).unwrap();
        for _ in 0..3 {
            let rows = client.query(&statement, &[&"dog"]).unwrap();
            assert_eq!(rows.iter().map(|row| row.get::<_, i32>(0)).collect::<Vec<_>>(), expected);
        }
    });
    assert_eq!(generic, 1, "generic plan");

    let nested = texts_embedded(&cluster, |client| {
        let rows = ids(
            client,
            "SELECT v.id FROM (VALUES (1, 'dog'), (2, 'cat'), (3, 'dog')) AS q (place, words),
             LATERAL (SELECT id FROM vectors ORDER BY embedding <=> embed_text(words) LIMIT 10) AS v ORDER BY place",
        );
        assert_eq!(rows.len(), 30);
        assert_eq!(rows[..10], rows[20..]);
    });
    assert_eq!(nested, 2, "nested loop over two distinct texts");

    let cursor = texts_embedded(&cluster, |client| {
        let mut transaction = client.transaction().unwrap();
        transaction.batch_execute(&format!("DECLARE c SCROLL CURSOR FOR {SEARCH}")).unwrap();
        let mut fetched = Vec::new();
        for _ in 0..10 {
            fetched.push(transaction.query_one("FETCH 1 FROM c", &[]).unwrap().get::<_, i32>(0));
        }
        assert_eq!(fetched, expected);
        transaction.batch_execute("MOVE ABSOLUTE 0 IN c; FETCH ALL FROM c").unwrap();
        transaction.commit().unwrap();
    });
    assert_eq!(cursor, 1, "cursor");

    let compiled = texts_embedded(&cluster, |client| {
        client
            .batch_execute("SET jit = on; SET jit_above_cost = 0; SET jit_optimize_above_cost = 0")
            .unwrap();
        client.batch_execute("SET jit_inline_above_cost = 0").unwrap();
        assert_eq!(ids(client, SEARCH), expected);
    });
    assert_eq!(compiled, 1, "compiled expressions");

    // Without the cache the same query asks the model for every row: the numbers above do count.
    let uncached = texts_embedded(&cluster, |client| {
        client.batch_execute("SET imgvec.embedding_cache_entries = 0").unwrap();
        assert_eq!(ids(client, SEARCH), expected);
    });
    assert!(uncached >= ROWS, "{uncached} texts embedded without a cache");
}

#[test]
fn parallel_workers_embed() {
    const COUNT: &str = "SELECT images_embedded FROM imgvec_backend_stats";
    let cluster = Cluster::new("workers").conf("max_parallel_workers = 4").start();
    let mut client = cluster.client();
    create_pictures(&mut client, 200);
    client
        .batch_execute(
            "ALTER TABLE pictures SET (parallel_workers = 2); ANALYZE pictures;
             SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
             SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off",
        )
        .unwrap();
    let explain =
        format!("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {}", "SELECT embed_image(data) FROM pictures");
    let plan: Vec<String> = client.query(&explain, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Workers Launched: 2")), "{plan:#?}");
    assert_eq!(value::<i64>(&mut client, COUNT), 0, "the leader embedded too");

    let rows = "SELECT id, embed_image(data)::text FROM pictures ORDER BY id";
    let texts = |client: &mut Client| -> Vec<String> {
        client.query(rows, &[]).unwrap().iter().map(|row| row.get(1)).collect()
    };
    let by_workers = texts(&mut client);
    assert_eq!(value::<i64>(&mut client, COUNT), 0, "the leader embedded too");
    client.batch_execute("SET max_parallel_workers_per_gather = 0").unwrap();
    assert_eq!(by_workers, texts(&mut client));
    assert_eq!(value::<i64>(&mut client, COUNT), 200);
}
