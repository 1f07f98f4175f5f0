//! Rows that a scan finds too late for their place: they come after all others, or not at all if that is asked for,
//! and no plan that would be wrong for it is made.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use postgres::{Client, NoTls};

use super::{DIM, VECTORS, by_table, explain, ids, is_ordered_by_index, quiet, script};
use crate::cluster::Cluster;
use crate::value;

const PAIRS: i32 = 3000;
/// So many that several rows come late, whatever the seed of the build: of 3,000 pairs it was now and then one row alone.
const MANY_PAIRS: i32 = 10_000;

/// Vectors and their opposites, which are equally far from the origin; so thin a beam that rows come late.
fn cluster_with_pairs(name: &str, pairs: i32) -> (Cluster, Client) {
    let cluster = quiet(name).start();
    let mut client = cluster.client();
    script(
        &mut client,
        &format!(
            "{VECTORS}; CREATE FUNCTION origin() RETURNS imgvec IMMUTABLE RETURN array_fill(0::real, ARRAY[{DIM}])::imgvec;
             CREATE TABLE items (id integer, embedding imgvec({DIM}));
             INSERT INTO items SELECT i, vec(i, {DIM}) FROM generate_series(1, {pairs}) AS i;
             INSERT INTO items SELECT -id, origin() - embedding FROM items;
             CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops);
             CREATE TABLE places AS SELECT id, embedding <-> origin() AS distance FROM items;
             CREATE INDEX ON places (distance); ANALYZE items; ANALYZE places;
             ALTER DATABASE postgres SET imgvec.ef_search = 10;
             ALTER DATABASE postgres SET max_parallel_workers_per_gather = 0"
        ),
    );
    let client = cluster.client();
    (cluster, client)
}

const FORCED: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off;
    SET enable_hashjoin = off; SET enable_hashagg = off; SET enable_nestloop = off; SET enable_incremental_sort = off";
/// All rows but one: a scan that nothing bounds is in order.
const WANTED: i32 = 2 * MANY_PAIRS - 1;

fn most() -> String {
    format!("SELECT id, embedding <-> origin() AS distance FROM items ORDER BY 2 LIMIT {WANTED}")
}

#[test]
fn rows_that_come_late_come_last_or_on_demand_not_at_all() {
    let (cluster, _) = cluster_with_pairs("ann-late", MANY_PAIRS);
    let notices = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&notices);
    let mut config = cluster.config();
    config.notice_callback(move |notice| heard.lock().unwrap().push(notice.message().to_owned()));
    let mut client = config.connect(NoTls).unwrap();
    client.batch_execute(FORCED).unwrap();
    assert!(is_ordered_by_index(&explain(&mut client, &most())));
    let mut walk = |setting: &str| {
        client.batch_execute(setting).unwrap();
        let rows = client.query(&most(), &[]).unwrap();
        let distances: Vec<f64> = rows.iter().map(|row| row.get(1)).collect();
        let in_order = distances.windows(2).take_while(|pair| pair[0] <= pair[1]).count() + 1;
        let unique: BTreeSet<i32> = ids(&rows).into_iter().collect();
        assert_eq!(unique.len(), rows.len(), "a row came twice");
        assert!(distances[in_order..].is_sorted(), "late rows are in order among themselves");
        (rows.len(), in_order, std::mem::take(&mut *notices.lock().unwrap()))
    };
    let all = WANTED as usize;
    let (rows, in_order, heard) = walk("SET imgvec.strict_order = off");
    assert_eq!((rows, heard.as_slice()), (all, &[][..]));
    assert!(in_order < all && in_order > 100, "{in_order} of {all} in time: nothing to see here");
    let (rows, strict, heard) = walk("SET imgvec.strict_order = on");
    assert_eq!(rows, strict, "not in order");
    // When late rows follow, the executor gives them before those whose distances it has not seen passed.
    assert!((in_order..all).contains(&rows), "{rows} rows, {in_order} before the first late one");
    assert!(heard.len() == 1 && heard[0].contains("omitted rows that came out of order"), "{heard:?}");
    // Nothing is left out that is in time.
    let few = "SELECT id FROM items ORDER BY embedding <-> origin() LIMIT 100";
    assert_eq!(client.query(few, &[]).unwrap().len(), 100);
    assert_eq!(*notices.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn no_plan_that_needs_the_order_relies_on_it() {
    let (_cluster, mut client) = cluster_with_pairs("ann-needed-order", PAIRS);
    let distance = "embedding <-> origin()";
    let inner = format!("JOIN places ON {distance} = places.distance");
    for (name, query) in [
        (
            "group",
            format!(
                "SELECT count(*) FROM (SELECT {distance} AS d, count(*) FROM items GROUP BY 1 ORDER BY 1 OFFSET 0) AS n"
            ),
        ),
        (
            "distinct",
            format!("SELECT count(*) FROM (SELECT DISTINCT {distance} FROM items ORDER BY 1 OFFSET 0) AS n"),
        ),
        (
            "distinct on",
            format!(
                "SELECT count(*) FROM (SELECT DISTINCT ON ({distance}) id FROM items ORDER BY {distance} OFFSET 0) AS n"
            ),
        ),
        (
            "join",
            format!(
                "SELECT count(*) FROM (SELECT items.id FROM items {inner} ORDER BY {distance} OFFSET 0) AS n"
            ),
        ),
        (
            "outer join",
            format!(
                "SELECT count(*) FROM (SELECT items.id FROM items LEFT {inner} ORDER BY {distance} OFFSET 0) AS n"
            ),
        ),
        (
            "full join",
            format!(
                "SELECT count(*) FROM (SELECT items.id FROM items FULL {inner} ORDER BY {distance} OFFSET 0) AS n"
            ),
        ),
    ] {
        let truth: i64 = by_table(&mut client, &query)[0].get(0);
        assert!(truth >= i64::from(PAIRS) - 1, "{name}: {truth}");
        client.batch_execute(FORCED).unwrap();
        assert_eq!(value::<i64>(&mut client, &query), truth, "{name}");
        client.batch_execute("RESET ALL").unwrap();
    }
    // Where rows are only listed in order, the index gives it, also beside a join by something else.
    client.batch_execute(FORCED).unwrap();
    client.batch_execute("SET enable_nestloop = on").unwrap();
    for query in [
        format!("SELECT id FROM items ORDER BY {distance} LIMIT 10"),
        format!("SELECT items.id FROM items JOIN places USING (id) ORDER BY {distance} LIMIT 10"),
    ] {
        let plan = explain(&mut client, &query);
        assert!(is_ordered_by_index(&plan), "{query}: {plan:#?}");
    }
}
