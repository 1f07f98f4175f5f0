//! Small indexes answer exactly, and the access method says truly what it can do.

use postgres::Client;

use super::{VECTORS, by_index, by_table, quiet, search};
use crate::value;

/// The most for which exact answers are promised.
const ROWS: i32 = 999;

fn distances(rows: &[postgres::Row]) -> Vec<f64> {
    rows.iter().map(|row| row.get(1)).collect()
}

#[track_caller]
fn assert_exact(client: &mut Client, operator: &str, dim: i32, context: &str) {
    for seed in 1..=8 {
        // Some queries are like rows, and some are not like anything.
        let query =
            if seed % 2 == 0 { format!("vec(-{seed}, {dim})") } else { format!("vec({seed}, {dim})") };
        for limit in [1, 10, 300] {
            let statement = search("items", operator, &query, limit);
            let (given, truth) = (by_index(client, &statement), by_table(client, &statement));
            assert_eq!(distances(&given), distances(&truth), "{context}: {statement}");
        }
    }
}

#[test]
fn below_a_thousand_rows_every_search_is_exact() {
    let cluster = quiet("ann-small").start();
    let mut client = cluster.client();
    client.batch_execute(VECTORS).unwrap();
    for (dim, class, operator) in [
        (1, "imgvec_l2_ops", "<->"),
        (2, "imgvec_cosine_ops", "<=>"),
        (3, "imgvec_l2_ops", "<->"),
        (16, "imgvec_ip_ops", "<#>"),
        (128, "imgvec_cosine_ops", "<=>"),
        (768, "imgvec_l2_ops", "<->"),
        (2000, "imgvec_ip_ops", "<#>"),
    ] {
        let create =
            format!("DROP TABLE IF EXISTS items; CREATE TABLE items (id integer, embedding imgvec({dim}))");
        let index = format!("CREATE INDEX ON items USING ann (embedding {class})");
        // Each its own, or in groups of equal and of nearly equal ones.
        let kinds = [
            format!("vec(i, {dim})"),
            format!("vec(i % 10, {dim})"),
            format!("vec(i % 30, {dim}) + vec(i, {dim}) * array_fill(0.0001::real, ARRAY[{dim}])::imgvec"),
        ];
        for (kind, vector) in kinds.iter().enumerate() {
            let insert = format!("INSERT INTO items SELECT i, {vector} FROM generate_series(1, {ROWS}) AS i");
            // Built over the rows, or filled row by row.
            for order in [[&insert, &index], [&index, &insert]] {
                client.batch_execute(&create).unwrap();
                for statement in order {
                    client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
                }
                client.batch_execute("ANALYZE items").unwrap();
                assert_exact(&mut client, operator, dim, &format!("{dim} {class} {kind} {:?}", order[0]));
            }
        }
    }
}

#[test]
fn properties_are_what_the_access_method_does() {
    let cluster = quiet("ann-properties").start();
    let mut client = cluster.client();
    client
        .batch_execute(
            "CREATE TABLE items (embedding imgvec(3)); CREATE INDEX items_e ON items USING ann (embedding)",
        )
        .unwrap();
    for (property, wanted) in [
        ("can_order", false),
        ("can_unique", false),
        ("can_multi_col", true),
        ("can_exclude", false),
        ("can_include", false),
    ] {
        let of_method =
            format!("SELECT pg_indexam_has_property(oid, '{property}') FROM pg_am WHERE amname = 'ann'");
        assert_eq!(value::<Option<bool>>(&mut client, &of_method), Some(wanted), "{property}");
    }
    for (property, wanted) in
        [("clusterable", false), ("index_scan", true), ("bitmap_scan", false), ("backward_scan", false)]
    {
        let of_index = format!("SELECT pg_index_has_property('items_e'::regclass, '{property}')");
        assert_eq!(value::<Option<bool>>(&mut client, &of_index), Some(wanted), "{property}");
    }
    for (property, wanted) in [
        ("distance_orderable", true),
        ("orderable", false),
        ("asc", false),
        ("returnable", false),
        ("search_array", false),
        ("search_nulls", false),
    ] {
        let of_column = format!("SELECT pg_index_column_has_property('items_e'::regclass, 1, '{property}')");
        let found = value::<Option<bool>>(&mut client, &of_column).unwrap_or(false);
        assert_eq!(found, wanted, "{property}");
    }
    // As it says: a constraint of exclusion is refused.
    let refused = client.batch_execute("ALTER TABLE items ADD EXCLUDE USING ann (embedding WITH <->)");
    assert!(refused.is_err());
}
