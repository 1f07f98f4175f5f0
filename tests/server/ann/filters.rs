//! Filters and joins above the index: LIMIT k gives k rows whenever they exist, near ones, in order; a limit of
//! work says so when it ends a search; and the planner takes the index where that is cheaper.

use std::sync::{Arc, Mutex};

use postgres::{Client, NoTls};

use super::{
    CREATE_INDEX, DIM, by_index, by_table, create_items, explain, ids, is_ordered_by_index, quiet, recall,
    search,
};
use crate::cluster::Cluster;
use crate::value;

const ROWS: i32 = 20_000;

/// `items` with their index, analyzed, and their id modulo 2 to 1000 as filters with and without an index.
fn cluster_with_items(name: &str) -> (Cluster, Client) {
    let cluster = quiet(name).conf("max_parallel_workers_per_gather = 0").start();
    let mut client = cluster.client();
    create_items(&mut client, ROWS);
    client.batch_execute(CREATE_INDEX).unwrap();
    client
        .batch_execute(&format!(
            "CREATE TABLE groups AS SELECT id, id % 10 AS tenth FROM items;
             ALTER TABLE groups ADD PRIMARY KEY (id);
             CREATE TABLE wide AS SELECT id, embedding, id % {ROWS} / 50 AS category FROM items;
             CREATE INDEX ON wide USING ann (embedding imgvec_l2_ops); CREATE INDEX ON wide (category)"
        ))
        .unwrap();
    client.batch_execute("VACUUM ANALYZE").unwrap();
    (cluster, client)
}

#[test]
fn limit_is_filled_under_any_filter() {
    let (_cluster, mut client) = cluster_with_items("ann-filters");
    for modulus in [2, 10, 100, 1000] {
        let source = format!("items WHERE id % {modulus} = 1");
        let found = recall(&mut client, &source, "<->", DIM, 40, 10);
        assert!(found >= 0.9, "1 of {modulus} rows: recall {found}");
    }
    // Fewer than ten exist: all of them come out.
    let query = format!("vec(-1, {DIM})");
    for modulus in [5000, 19_999] {
        let source = format!("items WHERE id % {modulus} = 1");
        let found = by_index(&mut client, &search(&source, "<->", &query, 10));
        assert_eq!(found.len() as i32, (ROWS - 1) / modulus + 1, "{source}");
    }
    assert!(by_index(&mut client, &search("items WHERE id < 0", "<->", &query, 10)).is_empty());

    // A filter by distance takes the near rows only; one that excludes them must walk past them.
    let far = format!("items WHERE embedding <-> {query} > 2.5");
    let found = by_index(&mut client, &search(&far, "<->", &query, 10));
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|row| row.get::<_, f64>(1) > 2.5));
}

#[test]
fn limit_is_filled_above_a_join() {
    let (_cluster, mut client) = cluster_with_items("ann-joins");
    client.batch_execute("SET enable_hashjoin = off; SET enable_mergejoin = off").unwrap();
    let source = "(SELECT id, embedding FROM items JOIN groups USING (id) WHERE tenth = 3) AS joined";
    let found = recall(&mut client, source, "<->", DIM, 40, 10);
    assert!(found >= 0.9, "join: recall {found}");
    let source = "items WHERE EXISTS (SELECT FROM groups WHERE groups.id = items.id AND tenth = 3)";
    let found = recall(&mut client, source, "<->", DIM, 40, 10);
    assert!(found >= 0.9, "semijoin: recall {found}");
    let source = "items WHERE NOT EXISTS (SELECT FROM groups WHERE groups.id = items.id AND tenth <> 3)";
    let found = recall(&mut client, source, "<->", DIM, 40, 10);
    assert!(found >= 0.9, "antijoin: recall {found}");
}

#[test]
fn the_planner_takes_the_index_where_it_is_cheaper() {
    let (_cluster, mut client) = cluster_with_items("ann-planner");
    let query = value::<String>(&mut client, &format!("SELECT quote_literal(vec(-1, {DIM})::text)"));
    let mut uses_index = |source: &str| {
        let plan =
            explain(&mut client, &format!("SELECT id FROM {source} ORDER BY embedding <-> {query} LIMIT 10"));
        is_ordered_by_index(&plan)
    };
    assert!(uses_index("items"));
    assert!(uses_index("wide"));
    assert!(uses_index("wide WHERE category < 200"), "half of the rows");
    assert!(!uses_index("wide WHERE category = 7"), "50 rows, which a b-tree finds");
    assert!(!uses_index("wide WHERE id = 7"), "one row that nothing finds");
    assert!(!uses_index("items WHERE id BETWEEN 100 AND 149"), "50 rows of the primary key");

    // Without a limit all rows are wanted, and sorting them is cheaper than walking to each.
    let plan = explain(&mut client, &format!("SELECT id FROM items ORDER BY embedding <-> {query}"));
    assert!(!is_ordered_by_index(&plan), "{plan:#?}");
    // Another operator than the index answers, another direction, no order.
    for order in ["embedding <=> $1", "embedding <-> $1 DESC", "1 + (embedding <-> $1)"] {
        let order = order.replace("$1", &query);
        let plan = explain(&mut client, &format!("SELECT id FROM items ORDER BY {order} LIMIT 10"));
        assert!(!is_ordered_by_index(&plan), "{order}: {plan:#?}");
    }
}

#[test]
fn a_limit_that_is_a_parameter_is_no_tenth_of_the_table() {
    let (_cluster, mut client) = cluster_with_items("ann-parameter-limit");
    client
        .batch_execute(
            "SET plan_cache_mode = force_generic_plan;
             PREPARE nearest(imgvec, integer) AS SELECT id FROM items ORDER BY embedding <-> $1 LIMIT $2;
             PREPARE page(imgvec, integer) AS SELECT id FROM items ORDER BY embedding <-> $1 LIMIT 10 OFFSET $2;
             PREPARE few(imgvec, integer) AS
                 SELECT id FROM wide WHERE category = 7 ORDER BY embedding <-> $1 LIMIT $2;
             PREPARE groups(imgvec, integer) AS
                 SELECT embedding <-> $1, count(*) FROM items GROUP BY 1 ORDER BY 1 LIMIT $2",
        )
        .unwrap();
    let expected = ids(&client
        .query(&format!("SELECT id FROM items ORDER BY embedding <-> vec(-1, {DIM}) LIMIT 10"), &[])
        .unwrap());
    for (name, number, by_index) in
        [("nearest", 10, true), ("page", 0, true), ("few", 10, false), ("groups", 10, false)]
    {
        let statement = format!("EXECUTE {name}(vec(-1, {DIM}), {number})");
        let plan = explain(&mut client, &statement);
        assert_eq!(is_ordered_by_index(&plan), by_index, "{name}: {plan:#?}");
        if by_index {
            let rows = client.simple_query(&statement).unwrap();
            let found: Vec<i32> = rows
                .iter()
                .filter_map(|message| {
                    let postgres::SimpleQueryMessage::Row(row) = message else { return None };
                    row.get(0).and_then(|id| id.parse().ok())
                })
                .collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}

#[test]
fn an_estimate_is_a_fair_guess() {
    let (_cluster, mut client) = cluster_with_items("ann-costs");
    let mut cost = |limit: usize| {
        let statement = format!("EXPLAIN {}", search("items", "<->", &format!("vec(-1, {DIM})"), limit));
        let line: String = client.query(&statement, &[]).unwrap()[0].get(0);
        let costs = line.split("cost=").nth(1).unwrap().split(' ').next().unwrap();
        costs.split("..").nth(1).unwrap().parse::<f64>().unwrap()
    };
    let (one, ten, thousand) = (cost(1), cost(10), cost(1000));
    assert!(one > 0.0 && one <= ten && ten < thousand, "{one}, {ten}, {thousand}");
}

#[test]
fn a_limit_of_work_is_announced() {
    let (cluster, _) = cluster_with_items("ann-limit");
    let notices = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&notices);
    let mut config = cluster.config();
    config.notice_callback(move |notice| heard.lock().unwrap().push(notice.message().to_owned()));
    let mut client = config.connect(NoTls).unwrap();
    let query = format!("vec(-1, {DIM})");
    let rare = search("items WHERE id % 5000 = 1", "<->", &query, 4);
    let mut rows_and_notices = |setting: &str, search: &str| {
        client.batch_execute(setting).unwrap();
        let count = by_index(&mut client, search).len();
        (count, std::mem::take(&mut *notices.lock().unwrap()))
    };

    let (count, heard) = rows_and_notices("SET imgvec.max_scan_rows = 200", &rare);
    assert!(count < 4, "{count} rows of 200 visited");
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].contains("200"), "{heard:?}");
    // A search that ends by itself says nothing; nor does one that may take as long as it needs.
    let near = search("items", "<->", &query, 10);
    assert_eq!(rows_and_notices("SET imgvec.max_scan_rows = 200", &near), (10, vec![]));
    assert_eq!(rows_and_notices("SET imgvec.max_scan_rows = 0", &rare), (4, vec![]));
    // The index may have a limit of its own, which a setting of the session overrides.
    let (count, heard) = rows_and_notices(
        "RESET imgvec.max_scan_rows; ALTER INDEX items_embedding SET (max_scan_rows = 300)",
        &rare,
    );
    assert!(count < 4 && heard.len() == 1 && heard[0].contains("300"), "{count} rows, {heard:?}");
    let (count, _) = rows_and_notices("SET imgvec.max_scan_rows = 1000000", &rare);
    assert_eq!(count, 4);
    assert_eq!(ids(&by_index(&mut client, &rare)).len(), 4);
}

#[test]
fn a_larger_beam_finds_more() {
    let (_cluster, mut client) = cluster_with_items("ann-beam");
    let mut found = |setting: &str| {
        client.batch_execute(setting).unwrap();
        recall(&mut client, "items", "<->", DIM, 40, 40)
    };
    let default = found("RESET imgvec.ef_search");
    let wide = found("SET imgvec.ef_search = 400");
    let of_index = found("SET imgvec.ef_search = 0; ALTER INDEX items_embedding SET (ef_search = 400)");
    assert!(default >= 0.9 && wide >= default && wide >= 0.995, "default {default}, 400: {wide}");
    assert!((wide - of_index).abs() < 1e-9, "by setting {wide}, by index {of_index}");
}

#[test]
fn the_planner_knows_the_beam_of_an_index() {
    let (_cluster, mut client) = cluster_with_items("ann-beam-cost");
    let mut cost = |setting: &str| {
        client.batch_execute(setting).unwrap();
        let query = search("items", "<->", &format!("vec(-1, {DIM})"), 10);
        let plan = client.query(&format!("EXPLAIN {query}"), &[]).unwrap();
        let line: String = plan[0].get(0);
        let (_, costs) = line.split_once("..").unwrap();
        costs.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let default = cost("SET enable_seqscan = off; SET enable_sort = off");
    let wide = cost("SET imgvec.ef_search = 400");
    let of_index = cost("SET imgvec.ef_search = 0; ALTER INDEX items_embedding SET (ef_search = 400)");
    assert!(wide > default * 1.5, "default {default}, 400: {wide}");
    assert!((wide - of_index).abs() < 1e-6, "by setting {wide}, by index {of_index}");
}

#[test]
fn a_threshold_ends_the_scan() {
    let (_cluster, mut client) = cluster_with_items("ann-threshold");
    client.batch_execute("SET plan_cache_mode = force_generic_plan").unwrap();
    let query =
        value::<String>(&mut client, &format!("SELECT quote_literal(vec(-1, {DIM})::text) || '::imgvec'"));
    let distance = format!("embedding <-> {query}");
    let nearest = by_table(&mut client, &search("items", "<->", &query, 8));
    let (seventh, eighth): (f64, f64) = (nearest[6].get(1), nearest[7].get(1));
    let between = f64::midpoint(seventh, eighth);
    let pages: i64 = value(&mut client, "SELECT pg_relation_size('items_embedding') / 8192");
    client
        .batch_execute(&format!(
            "PREPARE within(double precision) AS SELECT id, {distance} FROM items WHERE {distance} < $1 ORDER BY {distance} LIMIT 50"
        ))
        .unwrap();
    for (condition, most) in [
        (format!("{distance} < {between:?}"), 7),
        (format!("{distance} <= {seventh:?}"), 7),
        (format!("{between:?} > {distance}"), 7),
        (format!("{seventh:?} >= {distance} AND id > 0"), 7),
        (format!("{distance} < {between:?} AND {distance} < 1e9"), 7),
        (format!("{distance} < -1"), 0),
    ] {
        let statement =
            format!("SELECT id, {distance} FROM items WHERE {condition} ORDER BY {distance} LIMIT 50");
        let read = "SELECT coalesce(sum(pages_read), 0)::bigint FROM ann_scan_stats";
        let before: i64 = value(&mut client, read);
        let found = by_index(&mut client, &statement);
        assert!(found.len() <= most && found.len() * 10 >= most * 7, "{condition}: {}", found.len());
        assert!(found.iter().all(|row| row.get::<_, f64>(1) <= between), "{condition}");
        let read = value::<i64>(&mut client, read) - before;
        assert!(read < pages / 2, "{condition}: {read} of {pages} pages");
    }
    client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
    for (value, most) in [(format!("{between:?}"), 7), ("NULL".to_owned(), 0), ("'NaN'".to_owned(), 50)] {
        let rows = client.simple_query(&format!("EXECUTE within({value})")).unwrap();
        let count = rows.iter().filter(|m| matches!(m, postgres::SimpleQueryMessage::Row(_))).count();
        assert!(count <= most && count * 10 >= most * 7, "{value}: {count}");
    }
    // Without a LIMIT every row within is wanted.
    client.batch_execute("RESET enable_seqscan; RESET enable_sort").unwrap();
    let wide = f64::from(2) * between;
    let all = format!("SELECT id, {distance} FROM items WHERE {distance} < {wide:?} ORDER BY {distance}");
    assert_eq!(ids(&by_index(&mut client, &all)).len(), by_table(&mut client, &all).len());
}
