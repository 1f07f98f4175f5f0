//! imgvec beside pgvector, by the extension imgvec_pgvector: values go into columns of type vector and halfvec,
//! pgvector's own indexes answer `embed_text`, and `ann` indexes those columns as they are.
//!
//! Where the server has no pgvector the tests say so and end; `make test-matrix` runs them with it.

use postgres::Client;
use postgres::error::SqlState;

use super::{
    DIM, VECTORS, assert_each_row_once, by_index, by_table, check, explain, ids, is_ordered_by_index, quiet,
    script, search,
};
use crate::cluster::{Cluster, ClusterBuilder, run};
use crate::{failure, has_pgvector, picture, value};

/// A server with pgvector and both of our extensions.
pub(crate) fn start(name: &str) -> Option<(Cluster, Client)> {
    start_with(name, quiet(name))
}

/// As [`start`], of a server with settings of its own; `test` is named if it is skipped.
pub(crate) fn start_with(test: &str, server: ClusterBuilder) -> Option<(Cluster, Client)> {
    let cluster = server.start_empty();
    let mut client = cluster.client();
    if !has_pgvector(&mut client, test) {
        return None;
    }
    client.batch_execute("CREATE EXTENSION imgvec_pgvector CASCADE").unwrap();
    client.batch_execute(VECTORS).unwrap();
    Some((cluster, client))
}

/// The metrics by pgvector's names: operator class suffix and operator.
const METRICS: [(&str, &str); 3] = [("cosine_ops", "<=>"), ("l2_ops", "<->"), ("ip_ops", "<#>")];

/// Table `items` with a column of a type of pgvector.
fn create_items(client: &mut Client, column_type: &str, dim: i32, rows: i32) {
    client
        .batch_execute(&format!(
            "DROP TABLE IF EXISTS items;
             CREATE TABLE items (id integer PRIMARY KEY, embedding {column_type}({dim}), note text DEFAULT '');
             INSERT INTO items SELECT i, vec(i, {dim}) FROM generate_series(1, {rows}) AS i"
        ))
        .unwrap();
}

/// The share of the true ten nearest that the index finds; distances must not descend.
#[track_caller]
fn recall(client: &mut Client, column_type: &str, operator: &str, dim: i32) -> f64 {
    let (mut found, mut wanted) = (0, 0);
    for seed in 1..=20 {
        let query = value::<String>(
            client,
            &format!("SELECT quote_literal(vec(-{seed}, {dim})::{column_type}::text)"),
        );
        let statement = search("items", operator, &format!("{query}::{column_type}"), 10);
        let truth: Vec<f64> = by_table(client, &statement).iter().map(|row| row.get(1)).collect();
        let given: Vec<f64> = by_index(client, &statement).iter().map(|row| row.get(1)).collect();
        assert!(given.is_sorted(), "{column_type} {operator}: distances descend: {given:?}");
        assert_eq!(given.len(), truth.len());
        found += given.iter().filter(|&distance| distance <= truth.last().unwrap()).count();
        wanted += truth.len();
    }
    f64::from(u32::try_from(found).unwrap()) / f64::from(u32::try_from(wanted).unwrap())
}

#[test]
fn embeddings_go_into_columns_of_pgvector_and_back() {
    let Some((_cluster, mut client)) = start("vector-columns") else { return };
    client
        .batch_execute(
            "CREATE TABLE photos (id integer PRIMARY KEY, data bytea, own imgvec(256), single vector(256), half halfvec(256),
                 generated vector(256) GENERATED ALWAYS AS (embed_image(data, 'starter')) STORED)",
        )
        .unwrap();
    let insert = "INSERT INTO photos VALUES ($1, $2, embed_image($2), embed_image($2), embed_image($2))";
    for id in 1..=3_i32 {
        client.execute(insert, &[&id, &picture(id.unsigned_abs())]).unwrap();
    }
    client.batch_execute("UPDATE photos SET own = single, half = own, single = own WHERE id = 2").unwrap();
    client.batch_execute("UPDATE photos SET own = half WHERE id = 3").unwrap();
    let same =
        "SELECT bool_and(generated = single AND generated::text = single::text AND own <=> single < 1e-5
        AND half <=> own < 1e-5 AND single::real[] = generated::real[]) FROM photos";
    assert!(value::<bool>(&mut client, same));
    assert!(value::<bool>(&mut client, "SELECT own::text = single::text FROM photos WHERE id = 1"));
    // Batches, COALESCE, CASE and UNION find a common type.
    let both = "SELECT vector_dims((embed_texts(ARRAY['dog', 'cat'])::vector[])[2]), vector_dims(coalesce(single, own)),
            vector_dims(coalesce(own, single)), vector_dims(CASE WHEN id = 1 THEN own ELSE single END)
        FROM photos WHERE id = 1";
    let row = client.query_one(both, &[]).unwrap();
    assert_eq!([0, 1, 2, 3].map(|i| row.get::<_, i32>(i)), [256; 4]);
    let union =
        "SELECT count(*) FROM (SELECT own FROM photos UNION ALL SELECT single FROM photos) AS both_types";
    assert_eq!(value::<i64>(&mut client, union), 6);

    for column in ["single", "half"] {
        let error = failure(&mut client, &format!("UPDATE photos SET {column} = '[1,2,3]'::imgvec"));
        assert_eq!(error.code(), &SqlState::DATA_EXCEPTION, "{column}");
    }
    for statement in [
        "UPDATE photos SET own = '[1,2,3]'::vector",
        "UPDATE photos SET own = '[1,2,3]'::halfvec",
        "SELECT '[1,2,3]'::halfvec::imgvec(2)",
    ] {
        assert_eq!(failure(&mut client, statement).code(), &SqlState::DATA_EXCEPTION, "{statement}");
    }
    let error = failure(&mut client, "SELECT '[1,-70000]'::imgvec::halfvec");
    assert_eq!(error.code(), &SqlState::NUMERIC_VALUE_OUT_OF_RANGE);
    assert!(error.detail().is_some() && error.hint().is_some(), "{error:?}");
    // What half precision can hold comes through exactly, denormal numbers and the extremes included.
    let exact = "[1,-0.5,65504,-65504,5.9604645e-08,0,0.33325195]";
    let through: String =
        value(&mut client, &format!("SELECT '{exact}'::imgvec::halfvec::imgvec::vector::text"));
    assert_eq!(through, exact);
    let rounded: bool = value(
        &mut client,
        "SELECT bool_and(vec(i, 9)::halfvec = vec(i, 9)::vector::halfvec) FROM generate_series(1, 500) AS i",
    );
    assert!(rounded, "halfvec of an imgvec differs from pgvector's of the same vector");
}

#[test]
fn every_error_beside_pgvector_has_a_code_a_detail_and_a_hint() {
    let Some((_cluster, mut client)) = start("vector-errors") else { return };
    client
        .batch_execute(
            "CREATE TABLE items (id integer PRIMARY KEY, own imgvec(3), single vector(3), half halfvec(3), long halfvec(4001));
             CREATE INDEX items_single ON items USING ann (single vector_l2_ops);
             CREATE INDEX items_half ON items USING ann (half);
             INSERT INTO items SELECT i, vec(i, 3), vec(i, 3), vec(i, 3) FROM generate_series(1, 20) AS i;
             SET enable_seqscan = off",
        )
        .unwrap();
    for (statement, code) in [
        ("SELECT '[1,-70000]'::imgvec::halfvec", SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        ("SELECT '[1,2,3]'::imgvec::halfvec(2)", SqlState::DATA_EXCEPTION),
        ("SELECT '[1,2,3]'::halfvec::imgvec(2)", SqlState::DATA_EXCEPTION),
        ("UPDATE items SET own = '[1,2]'::vector", SqlState::DATA_EXCEPTION),
        ("UPDATE items SET half = '[1,2]'::imgvec", SqlState::DATA_EXCEPTION),
        ("SELECT own <=> '[1,2]' FROM items", SqlState::DATA_EXCEPTION),
        (
            "SELECT own + '[3e38,3e38,3e38]' + '[3e38,3e38,3e38]' FROM items",
            SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        ),
        ("UPDATE items SET single = '[1e30,0,0]'", SqlState::NUMERIC_VALUE_OUT_OF_RANGE),
        ("SELECT id FROM items ORDER BY single <-> '[1,2]' LIMIT 1", SqlState::DATA_EXCEPTION),
        ("SELECT id FROM items ORDER BY half <=> '[1,2]' LIMIT 1", SqlState::DATA_EXCEPTION),
        ("CREATE INDEX ON items USING ann (long)", SqlState::PROGRAM_LIMIT_EXCEEDED),
        ("SELECT ann_index_check('items_pkey')", SqlState::WRONG_OBJECT_TYPE),
        ("SELECT ann_index_check(0)", SqlState::UNDEFINED_OBJECT),
        ("SELECT ann_index_recall('items_single', k => 0)", SqlState::INVALID_PARAMETER_VALUE),
    ] {
        let error = failure(&mut client, statement);
        assert_eq!(error.code(), &code, "{statement}: {error:?}");
        assert!(error.detail().is_some() && error.hint().is_some(), "{statement}: {error:?}");
    }
}

#[test]
fn operators_and_functions_take_both_types_without_ambiguity() {
    let Some((_cluster, mut client)) = start("vector-operators") else { return };
    client
        .batch_execute(
            "CREATE TABLE t AS SELECT '[3,4]'::imgvec AS i, '[3,4]'::vector AS v, '[3,4]'::halfvec AS h, '[3,4]'::imghalf AS o",
        )
        .unwrap();
    let types = ["i", "v", "h", "o"];
    for left in types {
        for right in types {
            for operator in ["<->", "<#>", "<=>", "<+>"] {
                // pgvector itself has no vector <=> halfvec that stays in single precision: what counts is an answer.
                let query = format!("SELECT ({left} {operator} {right}) < 0.001 FROM t");
                assert!(value::<bool>(&mut client, &query), "{query}");
            }
        }
        for (expression, expected) in [
            ("vector_dims({})::float8", 2.0),
            ("l2_distance({}, '[0,0]')", 5.0),
            ("cosine_distance({}, '[3,4]')", 0.0),
            ("inner_product({}, '[1,1]')", 7.0),
            ("vector_dims(l2_normalize({}))::float8", 2.0),
            ("vector_dims(subvector({}, 1, 1))::float8", 1.0),
            ("length(binary_quantize({}))::float8", 2.0),
        ] {
            let query = format!("SELECT {} FROM t", expression.replace("{}", left));
            let found: f64 = value(&mut client, &query);
            assert!((found - expected).abs() < 1e-3, "{query}: {found}");
        }
        for aggregate in ["avg", "sum"] {
            let query = format!("SELECT vector_dims({aggregate}({left})) FROM t");
            assert_eq!(value::<i32>(&mut client, &query), 2, "{query}");
        }
    }
    for query in [
        "i = v",
        "v = i",
        "i + v = '[6,8]'",
        "v - i = '[0,0]'",
        "i || v = '[3,4,3,4]'",
        "i < v || i",
        "o = h",
        "h = o",
        "o = i",
        "i = o",
        "o = v",
        "v = o",
        "o + h = '[6,8]'",
        "o - i = '[0,0]'",
        "o || o = '[3,4,3,4]'",
        "o < h || o",
    ] {
        let query = format!("SELECT {query} FROM t");
        assert!(value::<bool>(&mut client, &query), "{query}");
    }
    // pgvector has this one for halfvec and not for vector.
    assert_eq!(value::<f64>(&mut client, "SELECT l2_norm(i) FROM t"), 5.0);
    assert_eq!(value::<f64>(&mut client, "SELECT vector_norm(i) FROM t"), 5.0);
    assert_eq!(value::<f64>(&mut client, "SELECT vector_norm(o) + l2_norm(o) FROM t"), 10.0);
    // Literals stay what they were without pgvector.
    assert!(value::<bool>(&mut client, "SELECT i <=> '[3,4]' < 1e-6 FROM t"));
    let classes: String = value(
        &mut client,
        "SELECT string_agg(c.opcname || ' ' || amvalidate(c.oid), ', ' ORDER BY c.opcname)
         FROM pg_opclass c JOIN pg_am a ON a.oid = c.opcmethod WHERE a.amname = 'ann'",
    );
    // Three of each type of vectors, and those of key columns.
    assert_eq!(classes.matches(" true").count(), 12 + 19, "{classes}");
}

#[test]
fn an_imghalf_is_a_halfvec_byte_for_byte() {
    let Some((_cluster, mut client)) = start("half-bytes") else { return };
    client
        .batch_execute(
            "CREATE TABLE t (i integer, o imghalf(9), h halfvec(9), p imghalf(9), q halfvec(9));
             INSERT INTO t SELECT i, vec(i, 9), vec(i, 9), vec(-i, 9), vec(-i, 9) FROM generate_series(1, 300) AS i;
             INSERT INTO t SELECT 0, x::imghalf, x::halfvec, x::imghalf, x::halfvec
                 FROM (SELECT '[-0,5.9604645e-08,6.097555e-05,65504,-65504,0.1,-1e-9,2049,2051]' AS x) AS s",
        )
        .unwrap();
    // Values, in text, in binary, and as each other's type; then what functions and operators make of them.
    for equal in [
        "o::text = h::text",
        "imghalf_send(o) = halfvec_send(h)",
        "pg_column_size(o) = pg_column_size(h)",
        "o::halfvec::text = h::text AND h::imghalf::text = o::text",
        "o::vector::text = h::vector::text AND h::vector::imghalf::text = o::text AND o::imgvec::text = h::vector::text",
        "o::sparsevec::text = h::sparsevec::text AND h::sparsevec::imghalf = o",
        "o::real[] = h::real[] AND o::real[]::imghalf = o",
        "(o || p)::text = (h || q)::text",
        "i = 0 OR (o + p)::text = (h + q)::text AND (o - p)::text = (h - q)::text AND (o * p)::text = (h * q)::text",
        "l2_normalize(o)::text = l2_normalize(h)::text",
        "subvector(o, 2, 3)::text = subvector(h, 2, 3)::text",
        "binary_quantize(o) = binary_quantize(h) AND vector_dims(o) = vector_dims(h)",
        "(o < p) = (h < q) AND (o <= p) = (h <= q) AND (o = p) = (h = q) AND (o >= p) = (h >= q) AND (o > p) = (h > q)",
        "i = 0 OR abs((o <-> p) - (h <-> q)) < 1e-5 AND abs((o <#> p) - (h <#> q)) < 1e-5
            AND abs((o <=> p) - (h <=> q)) < 1e-5 AND abs((o <+> p) - (h <+> q)) < 1e-5",
    ] {
        let wrong: Option<String> = client
            .query_one(
                &format!("SELECT min(format('%s %s', o, h)) FROM t WHERE NOT coalesce({equal}, false)"),
                &[],
            )
            .unwrap()
            .get(0);
        assert_eq!(wrong, None, "{equal}");
    }
    let aggregates = "SELECT avg(o)::text = avg(h)::text AND sum(o) <-> sum(h) < 0.1 FROM t WHERE i > 0";
    assert!(value::<bool>(&mut client, aggregates));
    let order = "SELECT array_agg(i ORDER BY o) = array_agg(i ORDER BY h) FROM t";
    assert!(value::<bool>(&mut client, order));
    // What is no value of one is none of the other; for NaN and infinity the codes differ, as docs/pgvector.md tells.
    for literal in ["[1,2", "[]", "[1,,2]", "[65520]", "[-1e9]", "[4e38]", "[a]", "", "[1]x"] {
        let [ours, theirs] =
            ["imghalf", "halfvec"].map(|name| failure(&mut client, &format!("SELECT '{literal}'::{name}")));
        assert_eq!(ours.code(), theirs.code(), "{literal}: {ours:?}, {theirs:?}");
    }
    for literal in ["[65519]", "[1e-50]", "[0x1p-25,0x1.8p-25]", "[ 1.0 ]"] {
        let same = format!("SELECT '{literal}'::imghalf::text = '{literal}'::halfvec::text");
        assert!(value::<bool>(&mut client, &same), "{literal}");
    }
}

#[test]
fn an_index_of_pgvector_answers_embed_text() {
    let Some((_cluster, mut client)) = start("vector-hnsw") else { return };
    for column_type in ["vector", "halfvec"] {
        client
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS items;
                 CREATE TABLE items (id integer PRIMARY KEY, embedding {column_type}(256));
                 INSERT INTO items SELECT i, embed_text('thing number ' || i) FROM generate_series(1, 300) AS i;
                 CREATE INDEX ON items USING hnsw (embedding {column_type}_cosine_ops)"
            ))
            .unwrap();
        for query in ["embed_text('thing number 17')", "(SELECT embed_text('thing number 17'))"] {
            let statement = format!("SELECT id FROM items ORDER BY embedding <=> {query} LIMIT 5");
            let found = by_index(&mut client, &statement);
            assert_eq!(ids(&found)[0], 17, "{column_type} {query}");
        }
    }
}

#[test]
fn using_ann_is_all_that_a_column_of_pgvector_needs() {
    let Some((_cluster, mut client)) = start("vector-ann") else { return };
    for column_type in ["vector", "halfvec"] {
        create_items(&mut client, column_type, DIM, 3000);
        for (class, operator) in METRICS {
            client
                .batch_execute(&format!(
                    "DROP INDEX IF EXISTS items_embedding;
                     CREATE INDEX items_embedding ON items USING ann (embedding {column_type}_{class})"
                ))
                .unwrap();
            let found = recall(&mut client, column_type, operator, DIM);
            // Seeds of builds differ, and inner products of vectors without structure are hard.
            let least = if operator == "<#>" { 0.8 } else { 0.9 };
            assert!(found >= least, "{column_type} {operator}: recall {found}");
            let told: f64 = value(&mut client, "SELECT ann_index_recall('items_embedding')");
            assert!(told >= least, "{column_type} {operator}: ann_index_recall {told}");
        }
        // A default class, all kinds of changes, embed_text's type as query.
        script(
            &mut client,
            "DROP INDEX items_embedding; CREATE INDEX items_embedding ON items USING ann (embedding);
             INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(3001, 4000) AS i;
             INSERT INTO items VALUES (0, NULL);
             UPDATE items SET note = 'changed' WHERE id % 3 = 0; DELETE FROM items WHERE id % 5 = 0;
             UPDATE items SET embedding = vec(id + 10000, 16) WHERE id % 7 = 0; VACUUM items;
             INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(5001, 5500) AS i;
             REINDEX INDEX CONCURRENTLY items_embedding",
        );
        check(&mut client, "items_embedding");
        assert_each_row_once(&mut client, "items", "<=>", &format!("vec(-1, {DIM})"));
        let found = recall(&mut client, column_type, "<=>", DIM);
        assert!(found >= 0.9, "{column_type}: recall {found}");
        let own = by_index(&mut client, &search("items", "<=>", &format!("vec(4001, {DIM})"), 1));
        assert_eq!(own.len(), 1);
        // Queries of another number of dimensions and of NULL, as with any index.
        client.batch_execute("SET enable_seqscan = off").unwrap();
        let error = failure(&mut client, "SELECT id FROM items ORDER BY embedding <=> '[1,2]' LIMIT 1");
        assert_eq!(error.code(), &SqlState::DATA_EXCEPTION);
        client.batch_execute("RESET enable_seqscan").unwrap();
        // HNSW and ann on one column: the planner has both.
        client
            .batch_execute(&format!("CREATE INDEX ON items USING hnsw (embedding {column_type}_cosine_ops)"))
            .unwrap();
        assert!(recall(&mut client, column_type, "<=>", DIM) >= 0.9);
    }
}

#[test]
fn a_column_of_a_domain_over_a_type_of_pgvector_is_indexed() {
    let Some((_cluster, mut client)) = start("vector-domain") else { return };
    for column_type in ["vector", "halfvec"] {
        script(
            &mut client,
            &format!(
                "DROP TABLE IF EXISTS items; DROP DOMAIN IF EXISTS features;
                 CREATE DOMAIN features AS {column_type}({DIM});
                 CREATE TABLE items (id integer, embedding features);
                 INSERT INTO items SELECT i, vec(i, {DIM})::{column_type} FROM generate_series(1, 1000) AS i;
                 CREATE INDEX items_embedding ON items USING ann (embedding {column_type}_l2_ops)"
            ),
        );
        assert_eq!(check(&mut client, "items_embedding").rows, 1000, "{column_type}");
        let found = recall(&mut client, column_type, "<->", DIM);
        assert!(found >= 0.9, "{column_type}: recall {found}");
    }
}

#[test]
fn long_vectors_of_pgvector_come_in_exact_order() {
    let Some((_cluster, mut client)) = start("vector-long") else { return };
    for (column_type, dim) in [("vector", 700), ("vector", 2000), ("halfvec", 2000), ("halfvec", 4000)] {
        create_items(&mut client, column_type, dim, 300);
        for (class, operator) in METRICS {
            client
                .batch_execute(&format!(
                    "DROP INDEX IF EXISTS items_embedding;
                     CREATE INDEX items_embedding ON items USING ann (embedding {column_type}_{class})"
                ))
                .unwrap();
            // The executor fails if a bound of ours lies above the distance that pgvector computes.
            let found = recall(&mut client, column_type, operator, dim);
            assert!(found >= 0.9, "{column_type}({dim}) {operator}: recall {found}");
            assert_each_row_once(&mut client, "items", operator, &format!("vec(3, {dim})"));
        }
    }
    let error = failure(
        &mut client,
        "CREATE TABLE long (e halfvec(4001)); CREATE INDEX ON long USING ann (e halfvec_l2_ops)",
    );
    assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED);
    assert!(error.hint().is_some(), "{error:?}");
}

#[test]
fn a_column_of_ours_is_searched_by_vectors_of_pgvector() {
    let Some((_cluster, mut client)) = start("vector-queries") else { return };
    create_items(&mut client, "imgvec", DIM, 2000);
    for (class, operator) in METRICS {
        client
            .batch_execute(&format!(
                "DROP INDEX IF EXISTS items_embedding; CREATE INDEX items_embedding ON items USING ann (embedding imgvec_{class})"
            ))
            .unwrap();
        let own = ids(&by_index(&mut client, &search("items", operator, &format!("vec(-5, {DIM})"), 10)));
        for query in [format!("vec(-5, {DIM})::vector"), format!("(SELECT vec(-5, {DIM})::vector)")] {
            let found = ids(&by_index(&mut client, &search("items", operator, &query, 10)));
            assert_eq!(found, own, "{operator} {query}");
        }
        let swapped =
            format!("SELECT id FROM items ORDER BY vec(-5, {DIM})::vector {operator} embedding LIMIT 10");
        assert_eq!(ids(&by_index(&mut client, &swapped)), own, "{operator}");
    }
    // A parameter declared as pgvector's type, as its client libraries send it, in a generic plan.
    script(
        &mut client,
        "DROP INDEX items_embedding; CREATE INDEX items_embedding ON items USING ann (embedding);
         SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_sort = off;
         PREPARE search (vector) AS SELECT id FROM items ORDER BY embedding <=> $1 LIMIT 3",
    );
    let statement = format!("EXECUTE search ((SELECT vec(77, {DIM})::vector))");
    let plan = explain(&mut client, &format!("EXECUTE search (vec(77, {DIM})::vector)"));
    assert!(is_ordered_by_index(&plan), "{plan:#?}");
    let error = failure(&mut client, &statement);
    assert_eq!(error.code(), &SqlState::FEATURE_NOT_SUPPORTED, "EXECUTE takes no subquery");
    let rows = client.query(&format!("EXECUTE search (vec(77, {DIM})::vector)"), &[]).unwrap();
    assert_eq!(ids(&rows)[0], 77);
}

#[test]
fn a_column_of_pgvector_becomes_one_of_ours_without_a_rewrite() {
    let Some((_cluster, mut client)) = start("vector-alter") else { return };
    create_items(&mut client, "vector", DIM, 1000);
    client.batch_execute("CREATE INDEX items_embedding ON items USING ann (embedding)").unwrap();
    let file = "SELECT pg_relation_filenode('items')::bigint";
    let before: i64 = value(&mut client, file);
    // Back again pgvector's length cast looks at each row, as it does for pgvector's own types.
    for (to, class, same_file) in
        [("imgvec", "imgvec_cosine_ops", true), ("vector", "vector_cosine_ops", false)]
    {
        client.batch_execute(&format!("ALTER TABLE items ALTER COLUMN embedding TYPE {to}(16)")).unwrap();
        assert_eq!(value::<i64>(&mut client, file) == before, same_file, "rewritten for {to}?");
        let found: String = value(
            &mut client,
            "SELECT c.opcname::text FROM pg_index i JOIN pg_opclass c ON c.oid = i.indclass[0]
             WHERE i.indexrelid = 'items_embedding'::regclass",
        );
        assert_eq!(found, class);
        assert_eq!(check(&mut client, "items_embedding").rows, 1000);
    }
    for other in ["imgvec(15)", "halfvec(17)"] {
        let error = failure(&mut client, &format!("ALTER TABLE items ALTER COLUMN embedding TYPE {other}"));
        assert_eq!(error.code(), &SqlState::DATA_EXCEPTION, "{other}");
    }
    client.batch_execute("ALTER TABLE items ALTER COLUMN embedding TYPE halfvec(16)").unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 1000);
    assert!(recall(&mut client, "halfvec", "<=>", DIM) >= 0.9);
}

/// Whatever ALTER TABLE does without reading the table keeps the indexes, so each must still answer: by the class it was
/// created with, for queries of either type.
#[test]
fn every_kept_index_answers_after_the_column_changed_its_type() {
    let Some((cluster, mut client)) = start("vector-kept") else { return };
    // From, to, and the type whose classes the indexes have.
    let changes = [
        ("vector(16)", "vector(16)"),
        ("vector(16)", "imgvec(16)"),
        ("vector(16)", "imgvec"),
        ("vector(16)", "vector"),
        ("vector", "imgvec"),
        ("imgvec(16)", "imgvec(16)"),
        ("imgvec(16)", "imgvec"),
        ("sixteen", "imgvec(16)"),
        ("sixteen", "imgvec"),
        ("halfvec(16)", "halfvec(16)"),
        ("halfvec(16)", "halfvec"),
        ("halfvec(16)", "imghalf(16)"),
        ("halfvec(16)", "imghalf"),
        ("imghalf(16)", "imghalf(16)"),
        ("imghalf(16)", "imghalf"),
    ];
    client.batch_execute("CREATE DOMAIN sixteen AS vector(16)").unwrap();
    for (number, (from, to)) in changes.into_iter().enumerate() {
        let class_type = match from.split('(').next().unwrap() {
            "sixteen" => "vector",
            other => other,
        };
        let table = format!("kept_{number}");
        client
            .batch_execute(&format!(
                "CREATE TABLE {table} (id integer PRIMARY KEY, embedding {from});
                 INSERT INTO {table} SELECT i, vec(i, 16) FROM generate_series(1, 500) AS i"
            ))
            .unwrap();
        for (class, _) in METRICS {
            client
                .batch_execute(&format!("CREATE INDEX ON {table} USING ann (embedding {class_type}_{class})"))
                .unwrap();
        }
        let file = format!("SELECT pg_relation_filenode('{table}')::bigint");
        let before: i64 = value(&mut client, &file);
        client.batch_execute(&format!("ALTER TABLE {table} ALTER COLUMN embedding TYPE {to}")).unwrap();
        assert_eq!(value::<i64>(&mut client, &file), before, "{from} to {to} is no rewrite");
        let query_types: &[&str] = if class_type.contains("half") {
            &["imgvec", "vector", "halfvec", "imghalf"]
        } else {
            &["imgvec", "vector"]
        };
        let assert_answers = |client: &mut Client, when: &str| {
            for (_, operator) in METRICS {
                for query_type in query_types {
                    let query = value::<String>(
                        client,
                        &format!("SELECT quote_literal(vec(7, 16)::{query_type}::text) || '::{query_type}'"),
                    );
                    let statement =
                        format!("SELECT id FROM {table} ORDER BY embedding {operator} {query} LIMIT 3");
                    let plan = explain(client, &statement);
                    let found = ids(&by_index(client, &statement));
                    if operator != "<#>" {
                        assert_eq!(found[0], 7, "{from} to {to}, {when}: {statement}: {plan:?}");
                    }
                }
            }
            let literal = format!(
                "SELECT id FROM {table} ORDER BY embedding <-> '[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1]' LIMIT 1"
            );
            assert_eq!(by_index(client, &literal).len(), 1, "{from} to {to}, {when}");
        };
        assert_answers(&mut client, "after ALTER");
        script(&mut client, &format!("REINDEX TABLE {table}; VACUUM FULL {table}"));
        assert_answers(&mut client, "after REINDEX");
        if !class_type.starts_with("img") {
            // pgvector's own index beside: the same query may be answered by either.
            client
                .batch_execute(&format!("CREATE INDEX ON {table} USING hnsw (embedding {class_type}_l2_ops)"))
                .or_else(|error| if to.contains('(') { Err(error) } else { Ok(()) })
                .unwrap();
            assert_answers(&mut client, "beside hnsw");
        }
    }

    // A kept hnsw index alone goes on answering, too.
    client
        .batch_execute(
            "CREATE TABLE graph (id integer PRIMARY KEY, embedding vector(16));
             INSERT INTO graph SELECT i, vec(i, 16) FROM generate_series(1, 500) AS i;
             CREATE INDEX ON graph USING hnsw (embedding vector_l2_ops);
             CREATE INDEX ON graph USING hnsw (embedding vector_cosine_ops);
             ALTER TABLE graph ALTER COLUMN embedding TYPE imgvec(16)",
        )
        .unwrap();
    for operator in ["<->", "<=>"] {
        for query in ["vec(7, 16)", "vec(7, 16)::vector"] {
            let statement = format!("SELECT id FROM graph ORDER BY embedding {operator} {query} LIMIT 3");
            assert_eq!(ids(&by_index(&mut client, &statement))[0], 7, "{statement}");
        }
    }

    let dump = cluster.directory().join("kept.sql");
    run(cluster.program("pg_dump").arg("--file").arg(&dump));
    client.batch_execute("CREATE DATABASE kept").unwrap();
    run(cluster.program("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "kept", "-f"]).arg(&dump));
    let mut copy = cluster.client_of("postgres", "kept");
    for query in ["vec(7, 16)", "vec(7, 16)::vector"] {
        for table in ["graph", "kept_1", "kept_2", "kept_5"] {
            let statement = format!("SELECT id FROM {table} ORDER BY embedding <-> {query} LIMIT 3");
            assert_eq!(ids(&by_index(&mut copy, &statement))[0], 7, "{statement}");
        }
    }
}

/// Each extension finds the other's objects whichever came first, and leaves nothing that fails.
#[test]
fn the_extensions_come_and_go_in_any_order() {
    let cluster = quiet("vector-any-order").start_empty();
    let mut client = cluster.client();
    if !has_pgvector(&mut client, "vector-any-order") {
        return;
    }
    for order in [["imgvec", "vector"], ["vector", "imgvec"]] {
        for extension in order {
            client.batch_execute(&format!("CREATE EXTENSION {extension}")).unwrap();
        }
        for bridged in [false, true] {
            if bridged {
                client.batch_execute("CREATE EXTENSION imgvec_pgvector").unwrap();
            }
            for (expression, expected) in [
                ("vector_dims('[3,4]'::imgvec)::float8", 2.0),
                ("vector_dims('[3,4]'::vector)::float8", 2.0),
                ("vector_norm('[3,4]'::imgvec)", 5.0),
                ("vector_norm('[3,4]'::vector)", 5.0),
                ("l2_norm('[3,4]'::imgvec)", 5.0),
                ("l2_norm('[3,4]'::halfvec)", 5.0),
                ("l2_norm('{1:3,2:4}/2'::sparsevec)", 5.0),
            ] {
                let found: f64 = value(&mut client, &format!("SELECT {expression}"));
                assert!((found - expected).abs() < 1e-6, "{order:?} {bridged}: {expression}: {found}");
            }
        }
        let sparse: String = value(&mut client, "SELECT '[0,1.5,0,-2]'::imgvec::sparsevec::text");
        assert_eq!(sparse, "{2:1.5,4:-2}/4");
        let back: String = value(&mut client, "SELECT '{2:1.5,4:-2}/4'::sparsevec::imgvec(4)::text");
        assert_eq!(back, "[0,1.5,0,-2]");
        assert_eq!(value::<f64>(&mut client, "SELECT '[3,4]'::imgvec <-> '{}/2'::sparsevec"), 5.0);
        for statement in ["SELECT '{1:1}/3'::sparsevec::imgvec(2)", "SELECT '[1,2]'::imgvec::sparsevec(3)"] {
            assert_eq!(failure(&mut client, statement).code(), &SqlState::DATA_EXCEPTION, "{statement}");
        }
        client.batch_execute("CREATE TABLE sparse (i imgvec(2), s sparsevec(2)); INSERT INTO sparse VALUES ('{1:1}/2'::sparsevec, '[1,2]'::imgvec); DROP TABLE sparse").unwrap();
        client
            .batch_execute("DROP EXTENSION imgvec_pgvector; DROP EXTENSION vector; DROP EXTENSION imgvec")
            .unwrap();
    }
}

#[test]
fn both_kinds_of_columns_survive_dump_and_restore() {
    let Some((cluster, mut client)) = start("vector-dump") else { return };
    script(
        &mut client,
        "CREATE TABLE items (id integer PRIMARY KEY, own imgvec(16), single vector(16), half halfvec(16));
         INSERT INTO items SELECT i, vec(i, 16), vec(i, 16), vec(i, 16) FROM generate_series(1, 600) AS i;
         CREATE INDEX items_own ON items USING ann (own); CREATE INDEX items_half ON items USING ann (half halfvec_l2_ops);
         CREATE INDEX items_single ON items USING ann (single vector_ip_ops) WITH (ef_search = 120);
         CREATE INDEX items_hnsw ON items USING hnsw (single vector_cosine_ops)",
    );
    let contents = "SELECT md5(string_agg(items::text, ',' ORDER BY id)) FROM items";
    let original: String = value(&mut client, contents);
    let definitions =
        "SELECT string_agg(pg_get_indexdef(indexrelid), '; ' ORDER BY indexrelid::regclass::text)
        FROM pg_index WHERE indrelid = 'items'::regclass";
    let indexes: String = value(&mut client, definitions);
    let plain = cluster.directory().join("plain.sql");
    let custom = cluster.directory().join("custom.dump");
    let folder = cluster.directory().join("folder");
    run(cluster.program("pg_dump").arg("--file").arg(&plain));
    run(cluster.program("pg_dump").args(["--format=custom", "--file"]).arg(&custom));
    run(cluster.program("pg_dump").args(["--format=directory", "--jobs=2", "--file"]).arg(&folder));
    for name in ["plain", "custom", "folder"] {
        client.batch_execute(&format!("CREATE DATABASE copy_{name}")).unwrap();
        let database = format!("--dbname=copy_{name}");
        match name {
            "plain" => run(cluster
                .program("psql")
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", &database, "-f"])
                .arg(&plain)),
            "custom" => run(cluster.program("pg_restore").args(["--exit-on-error", &database]).arg(&custom)),
            _ => run(cluster
                .program("pg_restore")
                .args(["--exit-on-error", "--jobs=2", &database])
                .arg(&folder)),
        };
        let mut copy = cluster.client_of("postgres", &format!("copy_{name}"));
        assert_eq!(value::<String>(&mut copy, contents), original, "{name}");
        assert_eq!(value::<String>(&mut copy, definitions), indexes, "{name}");
        for index in ["items_own", "items_half", "items_single"] {
            assert_eq!(check(&mut copy, index).rows, 600, "{name}: {index}");
        }
        let query = "SELECT id FROM items ORDER BY own <=> vec(7, 16)::vector LIMIT 3";
        assert_eq!(ids(&by_index(&mut copy, query))[0], 7, "{name}");
    }
}

#[test]
fn dropping_pgvector_leaves_our_data() {
    let Some((_cluster, mut client)) = start("vector-drop") else { return };
    script(
        &mut client,
        "CREATE TABLE ours (id integer PRIMARY KEY, embedding imgvec(16));
         INSERT INTO ours SELECT i, vec(i, 16) FROM generate_series(1, 500) AS i;
         CREATE INDEX ours_embedding ON ours USING ann (embedding);
         CREATE TABLE theirs (id integer PRIMARY KEY, embedding vector(16));
         INSERT INTO theirs SELECT id, embedding FROM ours;
         CREATE INDEX theirs_embedding ON theirs USING ann (embedding)",
    );
    let error = failure(&mut client, "DROP EXTENSION imgvec_pgvector");
    assert_eq!(error.code(), &SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
    let nearest = "SELECT id FROM ours ORDER BY embedding <=> vec(9, 16) LIMIT 2";
    let members = "SELECT count(*) FROM pg_amop o JOIN pg_am a ON a.oid = o.amopmethod
        WHERE a.amname = 'ann' AND o.amoppurpose = 'o' AND o.amoplefttype <> 'imgvec'::regtype";
    assert_eq!(value::<i64>(&mut client, members), 24);
    // Without the bridge the columns of pgvector stay, and the index on them goes.
    client.batch_execute("DROP EXTENSION imgvec_pgvector CASCADE").unwrap();
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM theirs WHERE embedding IS NOT NULL"), 500);
    assert_eq!(ids(&by_index(&mut client, nearest))[0], 9);
    assert_eq!(failure(&mut client, "SELECT '[1]'::imgvec::vector").code(), &SqlState::CANNOT_COERCE);
    client.batch_execute("CREATE EXTENSION imgvec_pgvector").unwrap();
    assert_eq!(value::<i64>(&mut client, members), 24);
    client.batch_execute("CREATE INDEX theirs_embedding ON theirs USING ann (embedding)").unwrap();

    client.batch_execute("DROP EXTENSION vector CASCADE").unwrap();
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM pg_extension WHERE extname LIKE '%vec%'"), 1);
    assert_eq!(
        value::<i64>(
            &mut client,
            members.replace("<> 'imgvec'::regtype", "NOT IN (SELECT oid FROM pg_type)").as_str()
        ),
        0
    );
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM ours WHERE embedding IS NOT NULL"), 500);
    assert_eq!(check(&mut client, "ours_embedding").rows, 500);
    assert_eq!(ids(&by_index(&mut client, nearest))[0], 9);
    client.batch_execute("CREATE EXTENSION imgvec_pgvector CASCADE").unwrap();
    assert_eq!(value::<i64>(&mut client, members), 24);
    let theirs = "SELECT id FROM ours ORDER BY embedding <=> vec(9, 16)::vector LIMIT 2";
    assert_eq!(ids(&by_index(&mut client, theirs))[0], 9);
}

#[test]
fn the_extensions_may_lie_in_three_schemas() {
    let cluster = quiet("vector-schemas").start_empty();
    let mut client = cluster.client();
    if !has_pgvector(&mut client, "vector-schemas") {
        return;
    }
    script(
        &mut client,
        "CREATE SCHEMA a; CREATE SCHEMA b; CREATE SCHEMA c; CREATE EXTENSION vector SCHEMA a;
         CREATE EXTENSION imgvec SCHEMA b; CREATE EXTENSION imgvec_pgvector SCHEMA c; SET search_path = '';
         CREATE TABLE public.items (id integer PRIMARY KEY, embedding a.vector(3));
         INSERT INTO public.items SELECT i, ARRAY[i, 1, 2]::b.imgvec FROM pg_catalog.generate_series(1, 100) AS i;
         CREATE INDEX items_embedding ON public.items USING ann (embedding c.vector_l2_ops)",
    );
    let query = "SELECT id FROM public.items ORDER BY embedding OPERATOR(a.<->) '[42,1,2]'::b.imgvec LIMIT 2";
    assert_eq!(ids(&by_index(&mut client, query))[0], 42);
    let rows: i64 = value(&mut client, "SELECT rows FROM b.ann_index_check('public.items_embedding', true)");
    assert_eq!(rows, 100);
    client.batch_execute("ALTER EXTENSION imgvec_pgvector SET SCHEMA public").unwrap();
    assert_eq!(ids(&by_index(&mut client, query))[0], 42);
}
