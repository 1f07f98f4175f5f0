//! Which plan is taken, at the server's own settings: the index where it is cheaper than the table. `make bench-crossover`
//! measures where that is; here are sizes that lie well on one side or the other.

use postgres::Client;

use super::{VECTORS, explain, is_ordered_by_index, quiet};

/// What the planner asks for all of a query.
fn cost(client: &mut Client, query: &str) -> f64 {
    let line: String = client.query(&format!("EXPLAIN {query}"), &[]).unwrap()[0].get(0);
    let total = line.split("..").nth(1).unwrap_or_else(|| panic!("{line}"));
    total.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"))
}

fn takes_index(client: &mut Client, query: &str) -> bool {
    is_ordered_by_index(&explain(client, query))
}

/// A table of so many rows with an index, analyzed.
fn create(client: &mut Client, table: &str, dim: i32, rows: i32, storage: &str) {
    client
        .batch_execute(&format!(
            "CREATE TABLE {table} (id integer, embedding imgvec({dim}));
             ALTER TABLE {table} ALTER embedding SET STORAGE {storage};
             INSERT INTO {table} SELECT i, vec(i, {dim}) FROM generate_series(1, {rows}) AS i;
             CREATE INDEX {table}_embedding ON {table} USING ann (embedding imgvec_l2_ops)"
        ))
        .unwrap();
    client.batch_execute(&format!("VACUUM ANALYZE {table}")).unwrap();
}

#[test]
fn small_tables_are_read_and_others_searched() {
    let cluster = quiet("ann-planner").start();
    let mut client = cluster.client();
    client.batch_execute(VECTORS).unwrap();
    for (name, dim, rows, storage, wanted) in [
        ("few_narrow", 3, 20, "main", false),
        ("narrow", 3, 1000, "main", true),
        ("few", 512, 20, "main", false),
        ("usual", 512, 1500, "main", true),
        ("wide", 2000, 1500, "main", true),
        // Reading a value that lies out of line costs more than all else.
        ("few_toasted", 768, 10, "external", false),
        ("toasted", 1536, 200, "external", true),
    ] {
        create(&mut client, name, dim, rows, storage);
        let query = format!("SELECT id FROM {name} ORDER BY embedding <-> vec(-1, {dim}) LIMIT 10");
        assert_eq!(takes_index(&mut client, &query), wanted, "{name}: {:#?}", explain(&mut client, &query));
    }
}

#[test]
fn a_partial_index_over_few_rows_is_taken() {
    let cluster = quiet("ann-planner-partial").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE items (id integer, embedding imgvec(256));
             INSERT INTO items SELECT i, vec(i, 256) FROM generate_series(1, 10000) AS i;
             CREATE INDEX ON items USING ann (embedding imgvec_l2_ops) WHERE id <= 200"
        ))
        .unwrap();
    client.batch_execute("VACUUM ANALYZE items").unwrap();
    for limit in ["LIMIT 5", "LIMIT 50"] {
        let query =
            format!("SELECT id FROM items WHERE id <= 200 ORDER BY embedding <-> vec(-1, 256) {limit}");
        assert!(takes_index(&mut client, &query), "{:#?}", explain(&mut client, &query));
    }
    // Few rows that another index finds are sorted.
    client.batch_execute("CREATE INDEX ON items (id); ANALYZE items").unwrap();
    let query = "SELECT id FROM items WHERE id <= 5 ORDER BY embedding <-> vec(-1, 256) LIMIT 5";
    assert!(!takes_index(&mut client, query), "{:#?}", explain(&mut client, query));
}

#[test]
fn a_distance_costs_by_the_width_of_its_vectors() {
    let cluster = quiet("ann-planner-width").start();
    let mut client = cluster.client();
    client.batch_execute(VECTORS).unwrap();
    let mut price = |table: &str, expression: &str| {
        let none = cost(&mut client, &format!("SELECT 1.0::float8 FROM {table}"));
        cost(&mut client, &format!("SELECT {expression} FROM {table}")) - none
    };
    let distance = "embedding <=> $$[1]$$::imgvec";
    price("pg_class", "1.0::float8");
    for (table, dim, storage) in
        [("narrow", 4, "main"), ("wide", 1900, "main"), ("toasted", 1900, "external")]
    {
        // The closure has the session; a second one makes the tables.
        create(&mut cluster.client(), table, dim, 400, storage);
    }
    let (narrow, wide, toasted) =
        (price("narrow", distance), price("wide", distance), price("toasted", distance));
    assert!(narrow > 0.0 && wide > 2.0 * narrow, "{narrow} {wide}");
    assert!(toasted > 5.0 * wide, "{wide} {toasted}");
    // The functions cost what their operators do, and a declared width is enough.
    let by_function = price("wide", "cosine_distance(embedding, $$[1]$$::imgvec)");
    assert!((by_function - wide).abs() < 1e-6, "{by_function} {wide}");
    let declared = "(ARRAY[id]::imgvec)::imgvec(1900) <-> $$[1]$$::imgvec";
    let undeclared = "(ARRAY[id]::imgvec) <-> $$[1]$$::imgvec";
    assert!(price("narrow", declared) > price("narrow", undeclared));
}
