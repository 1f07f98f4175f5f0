//! Columns after the vector: every operator on them gives what the table gives, the limit is filled, plans are those that pay, and
//! the index keeps the keys true through whatever happens to the rows.

use postgres::Client;
use postgres::error::SqlState;

use super::{
    CREATE_INDEX, DIM, VECTORS, by_index, by_table, check, explain, ids, number_from_environment, quiet,
    recall, script, search,
};
use crate::cluster::Cluster;
use crate::{failure, value};

const ROWS: i32 = 4000;

/// A table with a column of each type that has an operator class, a tenth of the values NULL.
const EVERY_TYPE: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'calm', 'glad');
    CREATE DOMAIN year AS integer CHECK (VALUE > 0);
    CREATE TABLE items AS SELECT i AS id, vec(i, 16)::imgvec(16) AS embedding,
        CASE WHEN i % 10 <> 0 THEN i % 3 = 0 END AS flag,
        CASE WHEN i % 10 <> 1 THEN (i % 100 - 50)::smallint END AS small,
        CASE WHEN i % 10 <> 2 THEN i % 500 - 250 END AS number,
        CASE WHEN i % 10 <> 3 THEN (i % 700 - 350)::bigint * 1000000007 END AS large,
        CASE WHEN i % 10 <> 4 THEN (i % 300 - 150)::real / 7 END AS approximate,
        CASE WHEN i % 50 = 7 THEN 'NaN' WHEN i % 10 <> 5 THEN ((i % 200 - 100) / 3.0)::double precision END AS double,
        CASE WHEN i % 10 <> 6 THEN (i % 90 - 45) / 7.0 END AS exact,
        CASE WHEN i % 10 <> 7 THEN CASE i % 5 WHEN 4 THEN 'a longer name with ' || i % 40 ELSE 'name' || i % 9 END END AS name,
        CASE WHEN i % 10 <> 8 THEN ('c' || i % 6)::varchar(10) END AS country,
        CASE WHEN i % 10 <> 9 THEN md5((i % 80)::text)::uuid END AS key,
        CASE WHEN i % 50 = 8 THEN 'infinity' WHEN i % 10 <> 0 THEN date '2024-01-01' + i % 365 END AS day,
        CASE WHEN i % 10 <> 1 THEN timestamp '2024-01-01' + i % 999 * interval '7 hours' END AS local,
        CASE WHEN i % 10 <> 2 THEN timestamptz '2024-01-01 00:00+00' + i % 999 * interval '7 hours' END AS taken,
        CASE WHEN i % 10 <> 3 THEN time '00:00' + i % 100 * interval '11 minutes' END AS clock,
        CASE WHEN i % 10 <> 4 THEN ('{sad,calm,glad}'::mood[])[1 + i % 3] END AS mood,
        CASE WHEN i % 10 <> 5 THEN ('10.0.' || i % 7 || '.1')::inet END AS address,
        CASE WHEN i % 10 <> 6 THEN ARRAY[i % 11, i % 13, i % 400] END AS numbers,
        CASE WHEN i % 10 <> 7 THEN CASE WHEN i % 9 = 0 THEN '{}' ELSE ARRAY['tag' || i % 12, NULL, 'tag' || i % 31] END END AS tags,
        CASE WHEN i % 10 <> 8 THEN ARRAY[md5((i % 33)::text)::uuid] END AS keys,
        (1 + i % 30)::year AS year, (i % 77)::oid AS object
    FROM generate_series(1, 4000) AS i";

/// Columns and conditions on them; eight columns make an index. The last of them is asked for its plan.
const CONDITIONS: [(&str, &[&str]); 4] = [
    (
        "name COLLATE \"C\" ann_text_order_ops, country COLLATE \"C\" ann_text_order_ops",
        &[
            "name COLLATE \"C\" < 'a longer name with 2'",
            "name COLLATE \"C\" >= 'name7'",
            "name COLLATE \"C\" > 'name'",
            "name COLLATE \"C\" BETWEEN 'b' AND 'name3'",
            "name COLLATE \"C\" IN ('name1', 'nobody', 'a longer name with 9')",
            "name COLLATE \"C\" < ''",
            "name COLLATE \"C\" >= ''",
            "name > 'name3'",
            "name IS NULL",
            "country COLLATE \"C\" > 'c3'",
            "country COLLATE \"C\" = 'c3' AND name COLLATE \"C\" > 'name5'",
        ],
    ),
    (
        "flag, small, number, large, approximate, double, exact, name",
        &[
            "flag = true",
            "flag = false",
            "flag",
            "NOT flag",
            "flag IS TRUE",
            "flag IS FALSE",
            "flag AND small < 0 AND number IN (1, 2, 3)",
            "flag IS NULL",
            "flag IS NOT NULL",
            "flag > false",
            "small = -7",
            "small < -40",
            "small >= 30::bigint",
            "small IN (1, 2, 3)",
            "number = 17",
            "number BETWEEN -20 AND 20",
            "number <= -240",
            "number > 200::smallint",
            "number = 99::bigint",
            "number = ANY('{1,2,NULL}')",
            "number > ANY('{200,240}')",
            "number IS NULL",
            "number = ANY('{}'::int[])",
            "large < -340000002380",
            "large = 7000000049",
            "large >= 300",
            "large IN (0, 1000000007)",
            "approximate = 3::real / 7",
            "approximate < -20",
            "approximate >= 20.5::double precision",
            "double > 30",
            "double = 'NaN'",
            "double < 'NaN' AND double > 32",
            "double = 0",
            "exact = 1",
            "exact > 6.2",
            "exact BETWEEN -1 AND -0.9",
            "exact IN (1, 2, 3.5)",
            "exact < 'NaN' AND exact > 6",
            "name = 'name3'",
            "name IN ('name1', 'a longer name with 9')",
            "name IS NULL",
            "name = 'nobody'",
            "number + 0 = 3",
            "small = 3 AND number > 0 AND name = 'name2'",
        ],
    ),
    (
        "country, key, day, local, taken, clock, mood, address",
        &[
            "country = 'c2'",
            "country IN ('c1', 'c3')",
            "country IS NULL",
            "key = md5('7')::uuid",
            "key < '30000000-0000-0000-0000-000000000000'",
            "key IN (md5('1')::uuid, md5('2')::uuid)",
            "day = '2024-03-01'",
            "day < '2024-01-10'",
            "day = 'infinity'",
            "day >= timestamp '2024-12-20'",
            "day > timestamptz '2024-12-20 01:00+00'",
            "local = '2024-02-05'",
            "local < date '2024-01-20'",
            "local BETWEEN '2024-05-01' AND '2024-05-10'",
            "local >= timestamptz '2024-10-01 00:00+00'",
            "taken >= '2024-09-01'",
            "taken < date '2024-01-15'",
            "taken = timestamp '2024-02-05'",
            "taken BETWEEN '2024-03-01' AND '2024-03-09'",
            "clock < '01:00'",
            "clock = '11:00'",
            "clock > '17:00'",
            "mood = 'calm'",
            "mood IN ('sad', 'glad')",
            "mood IS NULL",
            "address = '10.0.3.1'",
            "address IN ('10.0.1.1', '10.0.2.1')",
            "address <<= '10.0.4.0/24'",
            "mood = 'sad' AND taken > '2024-06-01' AND country = 'c1'",
        ],
    ),
    (
        "numbers, tags, keys, year, object",
        &[
            "numbers && '{3}'",
            "numbers @> '{3,5}'",
            "numbers && '{}'",
            "numbers @> '{}'",
            "numbers IS NULL",
            "numbers && '{399,398}'",
            "tags && '{tag3}'",
            "tags @> '{tag3,tag9}'",
            "tags @> ARRAY['tag3', NULL]",
            "tags IS NOT NULL",
            "tags && ARRAY['tag1', 'tag2', 'tag30']",
            "keys && ARRAY[md5('5')::uuid]",
            "keys @> ARRAY[md5('5')::uuid]",
            "year = 7",
            "year > 25",
            "year IN (1, 30)",
            "object = 5",
            "object > 70",
            "tags && '{tag5}' AND year < 10 AND numbers @> '{2}'",
        ],
    ),
];

/// Conditions above that an index cannot serve: another collation, an expression over a column, an operator that no class has.
const FILTERS: [&str; 3] = ["name > 'name3'", "number + 0 = 3", "address <<= '10.0.4.0/24'"];

#[test]
fn every_operator_of_every_type_gives_what_the_table_gives() {
    let cluster = quiet("ann-keys-types").conf("timezone = 'America/Lima'").start();
    let mut client = cluster.client();
    client.batch_execute(&format!("{VECTORS}; {EVERY_TYPE}; ANALYZE items")).unwrap();
    for (columns, conditions) in CONDITIONS {
        // Built over the rows, and created first and filled.
        for filled in [false, true] {
            script(&mut client, "DROP INDEX IF EXISTS items_embedding");
            let create = format!(
                "CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops, {columns})"
            );
            if filled {
                script(
                    &mut client,
                    &format!(
                        "CREATE TABLE other AS TABLE items; TRUNCATE items; {create}; INSERT INTO items TABLE other; DROP TABLE other; ANALYZE items"
                    ),
                );
            } else {
                script(&mut client, &create);
            }
            check(&mut client, "items_embedding");
            for condition in conditions {
                let all =
                    search(&format!("items WHERE {condition}"), "<->", &format!("vec(-1, {DIM})"), 100_000);
                let (mut found, mut wanted) =
                    (ids(&by_index(&mut client, &all)), ids(&by_table(&mut client, &all)));
                found.sort_unstable();
                wanted.sort_unstable();
                assert_eq!(found, wanted, "{condition}, filled: {filled}");
                // What the index can do is not left to a filter.
                client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
                let plan = explain(&mut client, &all);
                client.batch_execute("RESET enable_seqscan; RESET enable_sort").unwrap();
                let is_filter = plan.iter().any(|line| line.trim_start().starts_with("Filter:"));
                assert_eq!(is_filter, FILTERS.contains(condition), "{condition}: {plan:#?}");
            }
        }
    }
    // Arrays that come from another table, and one that comes late.
    client.batch_execute("DROP INDEX items_embedding; CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops, number); SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan").unwrap();
    let of_others = "SELECT l.n, i.id, i.number FROM (VALUES (1, '{5,6}'::int[]), (2, '{-7}')) AS l (n, wanted)
        CROSS JOIN LATERAL (SELECT id, number FROM items WHERE number = ANY (wanted) ORDER BY embedding <-> vec(-1, 16) LIMIT 3) AS i";
    let plan = explain(&mut client, of_others);
    assert!(plan.iter().any(|line| line.contains("Index Cond: (number = ANY ")), "{plan:#?}");
    let rows = client.query(of_others, &[]).unwrap();
    assert_eq!(rows.len(), 6);
    assert!(rows.iter().all(|row| match row.get::<_, i32>(0) {
        1 => [5, 6].contains(&row.get::<_, i32>(2)),
        _ => row.get::<_, i32>(2) == -7,
    }));
    let late = client
        .prepare(
            "SELECT number FROM items WHERE number = ANY ($1) ORDER BY embedding <-> vec(-1, 16) LIMIT 4",
        )
        .unwrap();
    for wanted in [vec![3, 4], vec![-20], vec![]] {
        let rows = client.query(&late, &[&wanted]).unwrap();
        assert!(rows.len() == 4 || wanted.is_empty(), "{wanted:?}: {} rows", rows.len());
        assert!(rows.iter().all(|row| wanted.contains(&row.get::<_, i32>(0))), "{wanted:?}");
    }
}

/// Items with an owner of a skewed distribution, a date that follows the id, tags, and an index that has them.
fn cluster_with_owners(name: &str) -> (Cluster, Client) {
    let cluster = quiet(name).conf("max_parallel_workers_per_gather = 0").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE items (id integer PRIMARY KEY, embedding imgvec({DIM}), owner integer, taken timestamptz, tags text[], note text DEFAULT '');
             INSERT INTO items SELECT i, vec(i, {DIM}), (100 * (abs(hashint4(i) % 1000) / 1000.0) ^ 3)::int, timestamptz '2024-01-01' + i * interval '1 hour',
                 ARRAY['t' || i % 20, 's' || i % 7] FROM generate_series(1, {ROWS}) AS i;
             CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops, owner, taken, tags); ANALYZE items"
        ))
        .unwrap();
    (cluster, client)
}

#[test]
fn a_limit_is_filled_with_rows_that_pass_in_order() {
    let (_cluster, mut client) = cluster_with_owners("ann-keys-random");
    let mut state = 12_345_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for _ in 0..number_from_environment("IMGVEC_FILTER_STATEMENTS", 150) {
        let parts = [
            format!("owner = {}", random(100)),
            format!("owner IN ({}, {}, {})", random(100), random(30), random(5)),
            format!("owner BETWEEN {} AND {}", random(20), random(100)),
            format!("taken > timestamptz '2024-01-01' + {} * interval '1 hour'", random(4000)),
            format!("taken < timestamptz '2024-01-01' + {} * interval '1 hour'", random(4000)),
            format!("tags && ARRAY['t{}', 's{}']", random(20), random(7)),
            format!("tags @> ARRAY['t{}', 's{}']", random(20), random(7)),
            format!("id % 3 = {}", random(3)),
        ];
        let chosen: Vec<&str> = (0..1 + random(3)).map(|_| parts[random(8) as usize].as_str()).collect();
        let condition = chosen.join(" AND ");
        let limit = 1 + random(20);
        let distance = format!("embedding <-> vec(-{}, {DIM})", 1 + random(500));
        let query = format!(
            "SELECT id, {distance}, {condition} FROM items WHERE {condition} ORDER BY {distance} LIMIT {limit}"
        );
        let (given, truth) = (by_index(&mut client, &query), by_table(&mut client, &query));
        assert_eq!(given.len(), truth.len(), "{query}");
        assert!(given.iter().all(|row| row.get::<_, bool>(2)), "{query}");
        let distances: Vec<f64> = given.iter().map(|row| row.get(1)).collect();
        assert!(distances.is_sorted(), "{query}");
    }
    for condition in [
        "owner < 5",
        "owner = 1",
        "owner = 60",
        "taken > '2024-05-01'",
        "tags && '{t3}'",
        "owner < 30 AND tags @> '{s1}'",
    ] {
        let found = recall(&mut client, &format!("items WHERE {condition}"), "<->", DIM, 40, 10);
        assert!(found >= 0.85, "{condition}: {found}");
    }
}

#[test]
fn the_planner_knows_what_conditions_cost_and_where_they_come_from() {
    let (cluster, mut client) = cluster_with_owners("ann-keys-planner");
    let nearest = |condition: &str| {
        format!("SELECT id FROM items WHERE {condition} ORDER BY embedding <-> vec(-1, {DIM}) LIMIT 10")
    };
    let has = |plan: &[String], text: &str| plan.iter().any(|line| line.contains(text));
    let plan = explain(&mut client, &nearest("owner < 50"));
    assert!(has(&plan, "Index Cond: (owner < 50)"), "{plan:#?}");
    // Few rows, which a b-tree finds.
    client.batch_execute("CREATE INDEX by_owner ON items (owner); ANALYZE items").unwrap();
    let plan = explain(&mut client, &nearest("owner = 77"));
    assert!(has(&plan, "by_owner"), "{plan:#?}");
    client.batch_execute("DROP INDEX by_owner").unwrap();
    // Rows without a vector are in no index.
    let plan = explain(&mut client, &nearest("embedding IS NULL"));
    assert!(!has(&plan, "items_embedding"), "{plan:#?}");
    assert_eq!(by_index(&mut client, &nearest("embedding IS NOT NULL AND owner < 50")).len(), 10);
    // A plan that is made before its parameters are known.
    client
        .batch_execute(&format!(
            "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;
             PREPARE mine(integer, text[]) AS SELECT id, owner FROM items WHERE owner = $1 AND tags && $2 ORDER BY embedding <-> vec(-1, {DIM}) LIMIT 5"
        ))
        .unwrap();
    let plan = explain(&mut client, "EXECUTE mine(1, '{t1,t2}')");
    assert!(has(&plan, "Index Cond: ((owner = $1) AND (tags && $2))"), "{plan:#?}");
    let rows = client.query("SELECT 1 FROM items WHERE owner = 1 AND tags && '{t1,t2}'", &[]).unwrap().len();
    let given = client.simple_query("EXECUTE mine(1, '{t1,t2}')").unwrap();
    let given =
        given.iter().filter(|message| matches!(message, postgres::SimpleQueryMessage::Row(_))).count();
    assert_eq!(given, rows.min(5));
    let given = client.simple_query("EXECUTE mine(NULL, '{t1,t2}')").unwrap();
    assert!(!given.iter().any(|message| matches!(message, postgres::SimpleQueryMessage::Row(_))));
    // The condition of a join, once for each outer row.
    script(
        &mut client,
        "CREATE TABLE people AS SELECT i AS id FROM generate_series(0, 4) AS i; ANALYZE people",
    );
    let lateral = format!(
        "SELECT people.id, mine.id, mine.owner FROM people, LATERAL
             (SELECT id, owner FROM items WHERE owner = people.id ORDER BY embedding <-> vec(-9, {DIM}) LIMIT 3) AS mine"
    );
    let plan = explain(&mut client, &lateral);
    assert!(has(&plan, "Index Cond: (owner = people.id)"), "{plan:#?}");
    let rows = client.query(&lateral, &[]).unwrap();
    assert_eq!(rows.len(), 15);
    assert!(rows.iter().all(|row| row.get::<_, i32>(0) == row.get::<_, i32>(2)));
    // A policy is a condition.
    script(
        &mut client,
        "CREATE ROLE alice LOGIN; GRANT SELECT ON items TO alice; ALTER TABLE items ENABLE ROW LEVEL SECURITY;
         CREATE POLICY own ON items USING (owner = 3)",
    );
    let mut alice = cluster.client_of("alice", "postgres");
    alice.batch_execute("SET enable_seqscan = off").unwrap();
    let plan = explain(&mut alice, &nearest("tags && '{t1,t2,t3,t4}'"));
    assert!(has(&plan, "(owner = 3)") && has(&plan, "Index Cond"), "{plan:#?}");
    assert!(!alice.query(&nearest("owner > 0"), &[]).unwrap().is_empty());
    assert!(alice.query(&nearest("owner <> 3"), &[]).unwrap().is_empty());
}

#[test]
fn keys_follow_their_rows() {
    let (_cluster, mut client) = cluster_with_owners("ann-keys-life");
    let before = check(&mut client, "items_embedding");
    script(&mut client, "UPDATE items SET note = 'seen' WHERE id <= 500");
    let after = check(&mut client, "items_embedding");
    assert_eq!(before.live_nodes, after.live_nodes, "another column adds no node");
    script(&mut client, "UPDATE items SET owner = 1000 + id % 3 WHERE id % 10 = 0");
    assert_eq!(check(&mut client, "items_embedding").live_nodes, before.live_nodes + i64::from(ROWS / 10));
    let of_owner = |owner: &str| {
        search(&format!("items WHERE owner {owner}"), "<->", &format!("vec(-3, {DIM})"), ROWS as usize)
    };
    assert_eq!(by_index(&mut client, &of_owner(">= 1000")).len(), ROWS as usize / 10);
    script(
        &mut client,
        "DELETE FROM items WHERE id % 7 = 0; VACUUM items; UPDATE items SET owner = NULL WHERE id % 11 = 0; VACUUM items",
    );
    for owner in ["IS NULL", "= 1001", "< 20"] {
        let query = of_owner(owner);
        let (mut found, mut wanted) =
            (ids(&by_index(&mut client, &query)), ids(&by_table(&mut client, &query)));
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "owner {owner}");
    }
    check(&mut client, "items_embedding");
    for rebuild in [
        "REINDEX INDEX items_embedding",
        "REINDEX INDEX CONCURRENTLY items_embedding",
        "CLUSTER items USING items_pkey",
        "ALTER TABLE items ALTER COLUMN owner TYPE bigint",
        "DROP INDEX items_embedding; CREATE INDEX CONCURRENTLY items_embedding ON items USING ann (embedding imgvec_l2_ops, lower(note), owner) WHERE id > 5",
    ] {
        script(&mut client, rebuild);
        check(&mut client, "items_embedding");
        assert_eq!(
            by_index(
                &mut client,
                &search("items WHERE owner = 1001 AND id > 5", "<->", &format!("vec(-3, {DIM})"), 5)
            )
            .len(),
            5,
            "{rebuild}"
        );
    }
    let info = client
        .query_one("SELECT key_columns, key_bytes FROM ann_index_info('items_embedding')", &[])
        .unwrap();
    assert_eq!((info.get::<_, i32>(0), info.get::<_, i32>(1)), (2, 80));
    // A key that is not what the table says is found.
    script(&mut client, "DROP INDEX items_embedding; CREATE FUNCTION shifting(x bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT x';
        CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops, shifting(owner));
        CREATE OR REPLACE FUNCTION shifting(x bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT x + 1'");
    let error = failure(&mut client, "SELECT ann_index_check('items_embedding', true)");
    assert_eq!(error.code(), &SqlState::INDEX_CORRUPTED);
    assert!(error.detail().unwrap().contains("has keys other than those in the table"), "{error:?}");
}

#[test]
fn an_index_with_keys_is_dumped_and_waits_for_dimensions() {
    let (_cluster, mut client) = cluster_with_owners("ann-keys-waits");
    script(
        &mut client,
        "CREATE TABLE free (id integer, embedding imgvec, owner integer); CREATE INDEX free_embedding ON free USING ann (embedding, owner)",
    );
    script(&mut client, "INSERT INTO free SELECT id, embedding, owner FROM items; ANALYZE free");
    check(&mut client, "free_embedding");
    client.batch_execute("SET enable_seqscan = off").unwrap();
    let rows = client
        .query("SELECT owner FROM free WHERE owner = 2 ORDER BY embedding <=> vec(-1, 16) LIMIT 10", &[])
        .unwrap();
    assert!(rows.len() == 10 && rows.iter().all(|row| row.get::<_, i32>(0) == 2));
    let definition: String = value(&mut client, "SELECT pg_get_indexdef('items_embedding'::regclass)");
    assert_eq!(
        definition,
        "CREATE INDEX items_embedding ON public.items USING ann (embedding imgvec_l2_ops, owner, taken, tags)"
    );
}

#[test]
fn what_key_columns_cannot_be_is_refused() {
    let cluster = quiet("ann-keys-refused").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE items (id integer, embedding imgvec({DIM}), second imgvec({DIM}), place point, boxes box[], name text);
             INSERT INTO items SELECT i, vec(i, {DIM}), vec(i, {DIM}), point(i, i), NULL, i FROM generate_series(1, 10) AS i"
        ))
        .unwrap();
    for (columns, code) in [
        ("id", SqlState::FEATURE_NOT_SUPPORTED),
        ("id, embedding", SqlState::FEATURE_NOT_SUPPORTED),
        ("embedding, second", SqlState::FEATURE_NOT_SUPPORTED),
        ("embedding, place", SqlState::UNDEFINED_OBJECT),
        ("embedding, boxes", SqlState::UNDEFINED_FUNCTION),
        ("embedding, name ann_text_order_ops", SqlState::COLLATION_MISMATCH),
        ("embedding, id, id, id, id, id, id, id, id, id", SqlState::TOO_MANY_COLUMNS),
    ] {
        let error = failure(&mut client, &format!("CREATE INDEX ON items USING ann ({columns})"));
        assert_eq!(error.code(), &code, "{columns}: {error:?}");
        // The server itself says which types have no operator class, and has no detail for it.
        assert!(
            error.hint().is_some() && (error.detail().is_some() || columns.contains("place")),
            "{columns}: {error:?}"
        );
    }
    script(&mut client, CREATE_INDEX);
    assert!(value::<bool>(
        &mut client,
        "SELECT bool_and(amvalidate(oid)) FROM pg_opclass WHERE opcmethod = (SELECT oid FROM pg_am WHERE amname = 'ann')"
    ));
}

#[test]
fn the_statements_of_the_document_work() {
    let cluster = quiet("ann-keys-docs").start();
    let mut client = cluster.client();
    client.batch_execute(VECTORS).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/filters.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> =
        text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 4);
    for block in blocks {
        let block = block.replace(":query", &format!("vec(-1, {DIM})")).replace("256", &DIM.to_string());
        client.simple_query(&block).unwrap_or_else(|error| panic!("{block}: {error:?}"));
    }
}
