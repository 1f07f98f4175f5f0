//! The `ann` index in running servers. Each module tells one story; here is what they share: a table of
//! reproducible vectors, and the judges that compare the index with the table beneath it.

mod cancel;
mod check;
mod concurrency;
mod consumers;
mod crash;
mod damage;
mod dimensions;
mod errors;
mod expressions;
mod extremes;
mod faults;
mod filters;
mod formats;
mod growth;
mod indexes;
mod key_columns;
mod leftovers;
mod manners;
mod memory;
mod order;
pub(crate) mod pgvector;
mod pitr;
mod plain_sql;
mod planner;
mod recalibrate;
mod recycling;
mod reuse;
mod roles;
mod shapes;
mod small;
mod snapshots;
mod spill;
mod standby;
mod unlogged;
mod unusual;
mod wal_consistency;

use std::env;

use postgres::{Client, Row};

use crate::cluster::{Cluster, ClusterBuilder};
use crate::value;

/// Dimension of the table that most tests use.
pub(crate) const DIM: i32 = 16;

/// `vec(seed, dim)`: numbers from -1 to 1, the same in every session and on every server.
pub(crate) const VECTORS: &str = "CREATE FUNCTION vec(seed bigint, dim integer) RETURNS imgvec
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
        SELECT array_agg(((hashint8extended(seed, i) % 1000003)::double precision / 1000003)::real)::imgvec
        FROM generate_series(1, dim) AS i $$";

/// The index of `items` that [`create_items`] leaves to be made.
pub(crate) const CREATE_INDEX: &str =
    "CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops)";

/// A server without autovacuum: tests say when they vacuum.
pub(crate) fn quiet(name: &str) -> ClusterBuilder {
    Cluster::new(name).conf("autovacuum = off")
}

/// A quiet server with `vec`, and a session.
pub(crate) fn cluster_with_vectors(name: &str) -> (Cluster, Client) {
    let cluster = quiet(name).start();
    let mut client = cluster.client();
    client.batch_execute(VECTORS).unwrap();
    (cluster, client)
}

/// Table `items` with rows 1 to `rows`: an id, the vector of that seed, and a column that no index has.
pub(crate) fn create_items(client: &mut Client, rows: i32) {
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE items (id integer PRIMARY KEY, embedding imgvec({DIM}), note text DEFAULT '')"
        ))
        .unwrap();
    insert_items(client, 1, rows);
}

/// Inserts the items of these ids, each with the vector whose seed is its id.
fn insert_items(client: &mut Client, first: i32, last: i32) {
    client
        .batch_execute(&format!(
            "INSERT INTO items SELECT i, vec(i, {DIM}) FROM generate_series({first}, {last}) AS i"
        ))
        .unwrap();
}

/// Runs statements one by one, so that those may be among them that refuse a transaction.
#[track_caller]
pub(crate) fn script(client: &mut Client, statements: &str) {
    for statement in statements.split(';') {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{}: {error:?}", statement.trim()));
    }
}

/// A number from the environment, for runs that are longer than `make test` should be.
pub(crate) fn number_from_environment(name: &str, default: u32) -> u32 {
    let text = env::var(name).unwrap_or_default();
    if text.is_empty() { default } else { text.parse().unwrap_or_else(|_| panic!("{name} is no number")) }
}

/// What `ann_index_check` counts; nodes are vectors, rows are heap tuples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Counts {
    pub(crate) live_nodes: i64,
    pub(crate) dead_nodes: i64,
    pub(crate) free_slots: i64,
    pub(crate) rows: i64,
    pub(crate) unreachable: i64,
}

/// Checks a whole index, and that it has every row of its table that it should have.
#[track_caller]
pub(crate) fn check(client: &mut Client, index: &str) -> Counts {
    let query = format!(
        "SELECT live_nodes::bigint, dead_nodes::bigint, free_slots::bigint, rows::bigint, unreachable::bigint
         FROM ann_index_check('{index}', heapallindexed => true)"
    );
    let row = client.query_one(&query, &[]).unwrap_or_else(|error| panic!("{index}: {error:?}"));
    let counts = Counts {
        live_nodes: row.get(0),
        dead_nodes: row.get(1),
        free_slots: row.get(2),
        rows: row.get(3),
        unreachable: row.get(4),
    };
    assert_eq!(counts.unreachable, 0, "{index}: {counts:?}");
    counts
}

/// The plan of a query, one line each.
pub(crate) fn explain(client: &mut Client, query: &str) -> Vec<String> {
    let rows = client.query(&format!("EXPLAIN (COSTS OFF) {query}"), &[]);
    rows.unwrap_or_else(|error| panic!("{query}: {error:?}")).iter().map(|row| row.get(0)).collect()
}

/// Whether a query's order comes from an index and from no sort.
pub(crate) fn is_ordered_by_index(plan: &[String]) -> bool {
    plan.iter().any(|line| line.contains("Order By: ")) && !plan.iter().any(|line| line.contains("Sort Key"))
}

/// Rows of a query whose order the index must give.
#[track_caller]
pub(crate) fn by_index(client: &mut Client, query: &str) -> Vec<Row> {
    client
        .batch_execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")
        .unwrap();
    let plan = explain(client, query);
    assert!(is_ordered_by_index(&plan), "{query}: not by the index: {plan:#?}");
    let rows = client.query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    client.batch_execute("RESET enable_seqscan; RESET enable_sort; RESET enable_bitmapscan").unwrap();
    rows
}

/// Rows of a query whose order no index may give: the truth.
#[track_caller]
pub(crate) fn by_table(client: &mut Client, query: &str) -> Vec<Row> {
    client.batch_execute("SET enable_indexscan = off; SET enable_indexonlyscan = off; SET enable_seqscan = on; SET enable_sort = on").unwrap();
    let plan = explain(client, query);
    assert!(!is_ordered_by_index(&plan), "{query}: by the index: {plan:#?}");
    let rows = client.query(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    client
        .batch_execute(
            "RESET enable_indexscan; RESET enable_indexonlyscan; RESET enable_seqscan; RESET enable_sort",
        )
        .unwrap();
    rows
}

/// First column of each row.
pub(crate) fn ids(rows: &[Row]) -> Vec<i32> {
    rows.iter().map(|row| row.get(0)).collect()
}

/// A search: the `k` rows of `source` nearest to `query`, an SQL expression, as id and distance.
pub(crate) fn search(source: &str, operator: &str, query: &str, k: usize) -> String {
    let distance = format!("embedding OPERATOR(public.{operator}) {query}");
    format!("SELECT id, {distance} FROM {source} ORDER BY {distance} LIMIT {k}")
}

/// The share of the true nearest that the index finds, over vectors of seeds that no row has.
///
/// `source` is a table, with a `WHERE` if that is wanted. Ties count by distance. Distances must not descend.
/// The target of a search is .95 on average over queries; with ten nearest of forty queries, what one build gives stays above .9.
#[track_caller]
pub(crate) fn recall(
    client: &mut Client,
    source: &str,
    operator: &str,
    dim: i32,
    queries: i32,
    k: usize,
) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    for seed in 1..=queries {
        let query = value::<String>(
            client,
            &format!("SELECT quote_literal(vec(-{seed}, {dim})::text) || '::imgvec'"),
        );
        let statement = search(source, operator, &query, k);
        let distances = |rows: Vec<Row>| rows.iter().map(|row| row.get(1)).collect::<Vec<f64>>();
        let truth = distances(by_table(client, &statement));
        let given = by_index(client, &statement);
        let mut unique = ids(&given);
        unique.sort_unstable();
        unique.dedup();
        let given = distances(given);
        assert_eq!(unique.len(), given.len(), "{source}: a row came out twice");
        assert_eq!(given.len(), truth.len(), "{source}: not as many rows as the table has");
        assert!(given.is_sorted(), "{source}: distances descend: {given:?}");
        let Some(&last) = truth.last() else { continue };
        found += given.iter().filter(|&&distance| distance <= last).count();
        wanted += truth.len();
    }
    assert!(wanted > 0, "{source}: nothing to find");
    found as f64 / wanted as f64
}

/// Every row of `table` that has a direction and fits `condition` comes out of a full ordered index scan
/// exactly once; `table` may be read through any snapshot the session has.
#[track_caller]
pub(crate) fn assert_each_row_once(client: &mut Client, table: &str, operator: &str, query: &str) {
    let scan = format!("SELECT id FROM {table} ORDER BY embedding OPERATOR(public.{operator}) {query}");
    let mut given = ids(&by_index(client, &scan));
    let mut truth = ids(&by_table(client, &format!("SELECT id FROM {table} WHERE embedding IS NOT NULL")));
    given.sort_unstable();
    truth.sort_unstable();
    let twice: Vec<_> = given.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    assert!(twice.is_empty(), "{table}: came out twice: {twice:?}");
    let missing: Vec<_> = truth.iter().filter(|id| given.binary_search(id).is_err()).collect();
    assert!(
        missing.is_empty(),
        "{table}: {} of {} did not come out: {missing:?}",
        missing.len(),
        truth.len()
    );
    assert_eq!(given.len(), truth.len(), "{table}: rows that are not in the table");
}

/// A hundred rows of `items`, spread over the table, are each the first answer to their own vector.
#[track_caller]
fn assert_rows_find_themselves(client: &mut Client) {
    let rows = by_table(
        client,
        "SELECT embedding::text FROM items WHERE embedding IS NOT NULL ORDER BY hashint4(id), id LIMIT 100",
    );
    for row in rows {
        let own: String = row.get(0);
        let nearest = by_index(client, &search("items", "<->", &format!("'{own}'::imgvec"), 1));
        let distance: f64 = nearest[0].get(1);
        assert!(distance == 0.0, "{own}: nearest is row {} at {distance}", nearest[0].get::<_, i32>(0));
    }
}

/// Everything that must hold of `items` and its index at any quiet moment.
#[track_caller]
fn assert_sound(client: &mut Client) -> Counts {
    let counts = check(client, "items_embedding");
    let rows: i64 = value(client, "SELECT count(embedding) FROM items");
    assert!(counts.rows >= rows, "{rows} rows, index: {counts:?}");
    assert_each_row_once(client, "items", "<->", &format!("vec(-1, {DIM})"));
    if rows > 0 {
        assert_rows_find_themselves(client);
        let recall = recall(client, "items", "<->", DIM, 40, 10);
        // The target is .95 on average; some hundred neighbors of one build scatter about that.
        assert!(recall >= 0.9, "recall {recall}");
    }
    counts
}
