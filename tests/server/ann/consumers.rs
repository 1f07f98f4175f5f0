//! Whatever takes the order of a scan for granted gets rows in order: a list of statements, each compared with what
//! the same statement gives by the table alone. The index is one whose searches find rows late, and it is
//! forced upon the planner.

use postgres::Client;

use super::{CREATE_INDEX, VECTORS, explain, is_ordered_by_index, quiet};
use crate::cluster::Cluster;
use crate::value;

const ROWS: i32 = 6000;
const DIM: i32 = 32;
/// Groups of near-copies, about as many in each as a node has neighbors: few edges lead from one group to another, and a
/// short search for a vector that is far from all does not come upon every group in time.
const GROUPS: i32 = 200;
/// Builds until one has late rows; each has about nine chances in ten or more.
const BUILDS: i32 = 20;
/// Whatever else could give an order is not to be had cheaply.
const FORCED: &str = "RESET ALL; SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;
    SET enable_hashagg = off; SET enable_hashjoin = off; SET enable_nestloop = off; SET statement_timeout = 20000";
const BY_TABLE: &str = "RESET ALL; SET enable_indexscan = off";

fn cluster_with_late_rows(name: &str) -> (Cluster, Client) {
    let cluster = quiet(name).conf("max_parallel_workers_per_gather = 0").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE FUNCTION near_copy(i bigint) RETURNS imgvec LANGUAGE sql IMMUTABLE AS
                 'SELECT vec(100000 + i % {GROUPS}, {DIM}) + vec(i, {DIM}) * array_fill(0.001::real, ARRAY[{DIM}])::imgvec';
             CREATE TABLE items (id integer, embedding imgvec({DIM}), kind integer);
             INSERT INTO items SELECT i, near_copy(i), i % 7 FROM generate_series(1, {ROWS}) AS i; {CREATE_INDEX};
             CREATE TABLE parts (id integer, embedding imgvec({DIM}), kind integer) PARTITION BY RANGE (id);
             CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (4000);
             CREATE TABLE part_2 PARTITION OF parts FOR VALUES FROM (4000) TO (10000);
             INSERT INTO parts SELECT * FROM items;
             CREATE INDEX ON parts USING ann (embedding imgvec_l2_ops);
             CREATE FUNCTION descents(double precision[]) RETURNS bigint IMMUTABLE LANGUAGE sql AS
                 'SELECT count(*) FILTER (WHERE $1[i] < $1[i - 1]) FROM generate_series(2, cardinality($1)) AS i';
             ALTER DATABASE postgres SET imgvec.ef_search = 10"
        ))
        .unwrap();
    client.batch_execute("VACUUM ANALYZE").unwrap();
    let mut client = cluster.client();
    client.batch_execute(FORCED).unwrap();
    let (query, mut tried) = (distance(&mut client), 1);
    while !has_late_rows(&mut client, &query) {
        assert!(tried < BUILDS, "no row is late in any of {tried} builds");
        client.batch_execute("REINDEX INDEX items_embedding").unwrap();
        tried += 1;
    }
    (cluster, client)
}

/// The premise of all: whether a scan that may find rows out of order does, in the index's own count and in what it returns.
#[track_caller]
fn has_late_rows(client: &mut Client, distance: &str) -> bool {
    let most = format!("SELECT {distance} FROM items ORDER BY 1 LIMIT {}", ROWS - 1);
    let plan = explain(client, &most);
    assert!(is_ordered_by_index(&plan), "{plan:#?}");
    let counted = "SELECT coalesce(sum(late_rows), 0)::bigint FROM ann_scan_stats
        WHERE index = 'items_embedding'::regclass";
    let before: i64 = value(client, counted);
    let given: Vec<f64> = client.query(&most, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    let late = value::<i64>(client, counted) - before;
    let descents = given.windows(2).filter(|pair| pair[1] < pair[0]).count();
    eprintln!("{late} rows are late, {descents} distances descend");
    assert_eq!(late > 0, descents > 0, "{late} rows late, {descents} descents");
    late > 0
}

/// The distance of a row to a vector that no row has.
fn distance(client: &mut Client) -> String {
    let query = value::<String>(client, &format!("SELECT quote_literal(vec(-5, {DIM})::text)"));
    format!("embedding <-> {query}::imgvec")
}

#[test]
fn statements_that_trust_an_order_give_what_the_table_gives() {
    let (_cluster, mut client) = cluster_with_late_rows("ann-consumers");
    let d = &distance(&mut client);
    let all = &format!("(SELECT id, kind, {d} AS d FROM items ORDER BY d)");
    // Of all rows but one, some may come late.
    let most = &format!("(SELECT id, kind, {d} AS d FROM items ORDER BY d LIMIT {})", ROWS - 1);
    client.batch_execute(FORCED).unwrap();

    let wrong_ranks = |source: &str| {
        format!(
            "SELECT count(*) FROM (SELECT r, (SELECT count(*) FROM items WHERE {d} < ranked.d) + 1 AS truth
                 FROM (SELECT d, rank() OVER (ORDER BY d) AS r FROM {source} AS s OFFSET 0) AS ranked
                 WHERE r % 997 = 5) AS t WHERE r <> truth"
        )
    };
    let before = |source: &str, window: &str| {
        format!(
            "SELECT count(*) FROM (SELECT d, lag(d) OVER ({window}) AS before FROM {source} AS s LIMIT {ROWS}) AS w
             WHERE d < before"
        )
    };
    let plain = &format!("(SELECT id, kind, {d} AS d FROM items)");
    let statements: Vec<(&str, String)> = vec![
        ("rank", wrong_ranks(plain)),
        ("rank over an ordered subquery", wrong_ranks(all)),
        ("lag", before(plain, "ORDER BY d")),
        ("lag over the most of rows", before(most, "ORDER BY d")),
        ("lag over rows as they come", before(all, "")),
        ("two levels", before(&format!("(SELECT d FROM {most} AS t ORDER BY d)"), "ORDER BY d")),
        (
            "run condition",
            format!(
                "SELECT sum(id * n) FROM (SELECT id, row_number() OVER (ORDER BY {d}) AS n FROM items) AS s WHERE n <= 50"
            ),
        ),
        (
            "window beside the final order",
            format!(
                "SELECT descents(array_agg(d ORDER BY n)) FROM (SELECT {d} AS d, row_number() OVER (ORDER BY {d}) AS n
                 FROM items ORDER BY {d} LIMIT {}) AS s",
                ROWS - 1
            ),
        ),
        ("ordered aggregate", format!("SELECT descents(array_agg({d} ORDER BY {d})) FROM items")),
        ("ordered aggregate of the most", format!("SELECT descents(array_agg(d ORDER BY d)) FROM {most} AS s")),
        ("aggregate of an ordered subquery", format!("SELECT descents(array_agg(d)) FROM {all} AS s")),
        ("distinct aggregate", format!("SELECT count(DISTINCT {d}) FROM items")),
        ("distinct aggregate of the most", format!("SELECT count(DISTINCT d) FROM {most} AS s")),
        ("group", format!("SELECT count(*) FROM (SELECT d, count(*) FROM {most} AS s GROUP BY d OFFSET 0) AS g")),
        ("distinct", format!("SELECT count(*) FROM (SELECT DISTINCT d FROM {most} AS s OFFSET 0) AS g")),
        ("distinct on", format!("SELECT descents(ARRAY(SELECT DISTINCT ON ({d}) {d} FROM items ORDER BY {d}))")),
        ("union", format!("SELECT count(*) FROM (SELECT d FROM {most} AS s UNION SELECT d FROM {most} AS t) AS u")),
        ("union of tables", format!("SELECT count(*) FROM (SELECT {d} FROM items UNION SELECT {d} FROM items) AS u")),
        ("intersect", format!("SELECT count(*) FROM ({most} INTERSECT {most}) AS u")),
        ("except", format!("SELECT count(*) FROM ({most} EXCEPT {most}) AS u")),
        (
            "union all in order",
            format!("SELECT descents(ARRAY(SELECT d FROM ({most} UNION ALL {most}) AS u ORDER BY d))"),
        ),
        ("partitions", format!("SELECT descents(ARRAY(SELECT {d} FROM parts ORDER BY 1))")),
        ("merge join", format!("SELECT count(*) FROM {most} AS s JOIN {most} AS t USING (d)")),
        ("minimum", format!("SELECT (min({d}) * 1e9)::bigint FROM items")),
        ("minimum of a part", format!("SELECT (min({d}) * 1e9)::bigint FROM parts WHERE kind = 1")),
        ("two minima", format!("SELECT (min({d}) * 1e9)::bigint + count(*) FROM items")),
        (
            "rows with ties",
            format!("SELECT count(*) FROM (SELECT {d} FROM items ORDER BY 1 FETCH FIRST 5990 ROWS WITH TIES) AS s"),
        ),
        ("incremental sort", format!("SELECT descents(ARRAY(SELECT {d} FROM items ORDER BY {d}, id))")),
        (
            "lateral",
            format!(
                "SELECT sum(descents(a)) FROM generate_series(1, 3) AS k, LATERAL (SELECT array_agg(x.d) AS a
                 FROM (SELECT embedding <-> vec(-k, {DIM}) AS d FROM items ORDER BY 1) AS x) AS y"
            ),
        ),
        (
            "lag beside another table",
            format!(
                "SELECT count(*) FROM generate_series(1, 3) AS k, LATERAL (SELECT d, lag(d) OVER (ORDER BY d) AS before
                 FROM (SELECT embedding <-> vec(-k, {DIM}) AS d FROM items ORDER BY 1 LIMIT 5999) AS x) AS y
             WHERE d < before"
            ),
        ),
        ("common table expression", format!("WITH c AS MATERIALIZED {all} SELECT descents(array_agg(d)) FROM c")),
        (
            "common table expression in order",
            format!("WITH c AS MATERIALIZED {most} SELECT descents(array_agg(d ORDER BY d)) FROM c"),
        ),
        (
            "more wanted than match",
            format!("SELECT descents(ARRAY(SELECT {d} FROM items WHERE kind = 3 ORDER BY 1 LIMIT 5000))"),
        ),
        ("offset to the end", format!("SELECT descents(ARRAY(SELECT {d} FROM items ORDER BY 1 OFFSET 10))")),
        ("no limit after all", format!("SELECT descents(ARRAY(SELECT {d} FROM items ORDER BY 1 LIMIT NULL))")),
    ];
    let wanted = |client: &mut Client, sql: &str| -> String {
        let sql = format!("SELECT x::numeric::text FROM ({sql}) AS statement (x)");
        match client.query_one(&sql, &[]) {
            Ok(row) => row.get(0),
            Err(error) => error.to_string(),
        }
    };
    let mut wrong = Vec::new();
    for (name, sql) in &statements {
        client.batch_execute(BY_TABLE).unwrap();
        let truth = wanted(&mut client, sql);
        client.batch_execute(FORCED).unwrap();
        for setting in ["SET enable_sort = off", "SET enable_sort = on"] {
            client.batch_execute(setting).unwrap();
            let found = wanted(&mut client, sql);
            if found != truth {
                let plan = explain(&mut client, sql).join("\n");
                wrong.push(format!("{name}: {found}, not {truth}\n{plan}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), statements.len(), wrong.join("\n\n"));
}

#[test]
fn cursors_loops_and_new_tables_get_all_rows_in_order() {
    let (_cluster, mut client) = cluster_with_late_rows("ann-consumers-read");
    let d = &distance(&mut client);
    client.batch_execute(FORCED).unwrap();
    let mut transaction = client.transaction().unwrap();
    transaction.batch_execute(&format!("DECLARE c CURSOR FOR SELECT {d} FROM items ORDER BY 1")).unwrap();
    let mut distances: Vec<f64> = Vec::new();
    loop {
        let rows = transaction.query("FETCH 100 FROM c", &[]).unwrap();
        if rows.is_empty() {
            break;
        }
        distances.extend(rows.iter().map(|row| row.get::<_, f64>(0)));
    }
    assert_eq!(distances.len(), ROWS as usize);
    assert!(distances.is_sorted(), "cursor");
    transaction.commit().unwrap();

    let distances: Vec<f64> = client
        .query(&format!("SELECT {d} FROM items ORDER BY 1"), &[])
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(distances.len() == ROWS as usize && distances.is_sorted(), "plain");

    client
        .batch_execute(&format!(
            "CREATE TABLE listed AS SELECT {d} AS d FROM items ORDER BY 1;
             CREATE TABLE numbered (n serial, d double precision);
             INSERT INTO numbered (d) SELECT {d} FROM items ORDER BY 1;
             CREATE FUNCTION by_loop() RETURNS bigint LANGUAGE plpgsql AS $$
             DECLARE r record; before double precision := 0; n bigint := 0;
             BEGIN
                 FOR r IN SELECT {d} AS d FROM items ORDER BY 1 LOOP
                     n := n + (r.d < before)::integer;
                     before := r.d;
                 END LOOP;
                 RETURN n;
             END $$"
        ))
        .unwrap();
    for descents in [
        "SELECT descents(ARRAY(SELECT d FROM listed ORDER BY ctid))",
        "SELECT descents(ARRAY(SELECT d FROM numbered ORDER BY n))",
        "SELECT by_loop()",
    ] {
        client.batch_execute("RESET ALL").unwrap();
        client.batch_execute(if descents.contains("loop") { FORCED } else { BY_TABLE }).unwrap();
        assert_eq!(value::<i64>(&mut client, descents), 0, "{descents}");
    }
}

/// What the rules leave alone: the first rows come from the index, in all the ways that people ask for them.
#[test]
fn the_first_rows_come_from_the_index() {
    let (_cluster, mut client) = cluster_with_late_rows("ann-consumers-first");
    let d = &distance(&mut client);
    let first = &format!("(SELECT id, kind, {d} AS d FROM items ORDER BY d LIMIT 10)");
    for query in [
        format!("SELECT id FROM items ORDER BY {d} LIMIT 10"),
        format!("SELECT id FROM items WHERE kind < 6 ORDER BY {d} LIMIT 10"),
        format!("SELECT id FROM items ORDER BY {d} FETCH FIRST 10 ROWS ONLY"),
        format!("SELECT * FROM {first} AS s"),
        format!("SELECT * FROM {first} AS s ORDER BY d"),
        format!("SELECT * FROM (SELECT id, {d} AS d FROM items ORDER BY d) AS s LIMIT 10"),
        format!("SELECT row_number() OVER (), id FROM items ORDER BY {d} LIMIT 10"),
        format!("SELECT count(*) FROM {first} AS s"),
        format!("SELECT rank() OVER (ORDER BY d), id FROM {first} AS s"),
        format!("WITH s AS MATERIALIZED {first} SELECT * FROM s WHERE kind = 1"),
        format!("SELECT kind, count(*) FROM {first} AS s GROUP BY kind"),
        format!("{first} UNION ALL {first}"),
        format!(
            "SELECT k, s.id FROM generate_series(1, 3) AS k, LATERAL
             (SELECT id FROM items ORDER BY embedding <-> vec(-k, {DIM}) LIMIT 10) AS s"
        ),
        format!("SELECT id FROM parts ORDER BY {d} LIMIT 10"),
    ] {
        let plan = explain(&mut client, &query);
        assert!(plan.iter().any(|line| line.contains("Order By: ")), "{query}: {plan:#?}");
    }
}
