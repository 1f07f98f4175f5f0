//! Every shape of index and of data: metrics, dimensions, expressions, partial indexes, partitions, tablespaces,
//! NULLs, zeros, and what is refused.

use std::fs;

use postgres::error::SqlState;

use super::{
    DIM, assert_each_row_once, by_index, check, cluster_with_vectors, explain, ids, recall, script, search,
};
use crate::{failure, value};

#[test]
fn each_operator_class_answers_its_own_operator() {
    let (_cluster, mut client) = cluster_with_vectors("ann-metrics");
    // Lengths differ, so that each metric has another order.
    script(
        &mut client,
        "CREATE TABLE items AS SELECT i AS id, (vec(i, 24) * array_fill((1 + i % 3)::real, ARRAY[24])::imgvec)::imgvec(24) AS embedding
             FROM generate_series(1, 3000) AS i;
         CREATE INDEX by_default ON items USING ann (embedding)",
    );
    let classes = [("<=>", "imgvec_cosine_ops"), ("<->", "imgvec_l2_ops"), ("<#>", "imgvec_ip_ops")];
    for (operator, class) in classes {
        script(
            &mut client,
            &format!(
                "DROP INDEX IF EXISTS by_default, by_class; CREATE INDEX by_class ON items USING ann (embedding {class})"
            ),
        );
        client.batch_execute("SET enable_seqscan = off").unwrap();
        for (other, _) in classes {
            let plan = explain(&mut client, &search("items", other, "vec(-1, 24)", 10));
            let uses = plan.iter().any(|line| line.contains("Order By"));
            assert_eq!(uses, other == operator, "{class} for {other}: {plan:#?}");
        }
        check(&mut client, "by_class");
        assert_each_row_once(&mut client, "items", operator, "vec(-1, 24)");
        let found = recall(&mut client, "items", operator, 24, 20, 10);
        // Of vectors without any structure, largest inner products are the hardest; a wider beam finds them. Each build has
        // a seed of its own: 30 of them had .895 to .975 here for inner products, and .99 at least otherwise.
        let least = if operator == "<#>" { 0.8 } else { 0.9 };
        assert!(found >= least, "{class}: recall {found}");
        client.batch_execute("SET imgvec.ef_search = 400").unwrap();
        let found = recall(&mut client, "items", operator, 24, 20, 10);
        let least = if operator == "<#>" { 0.93 } else { 0.98 };
        assert!(found >= least, "{class}: recall {found} with a wider beam");
        client.batch_execute("RESET imgvec.ef_search").unwrap();
    }
    script(&mut client, "DROP INDEX by_class; CREATE INDEX by_default ON items USING ann (embedding)");
    let found = recall(&mut client, "items", "<=>", 24, 20, 10);
    assert!(found >= 0.9, "default class: recall {found}");
}

#[test]
fn any_number_of_dimensions_up_to_the_limit() {
    let (_cluster, mut client) = cluster_with_vectors("ann-dimensions");
    for dim in [1, 2, 3, 31, 64, 65, 384, 1536, 2049, 4000] {
        script(
            &mut client,
            &format!(
                "DROP TABLE IF EXISTS items; CREATE TABLE items (id integer, embedding imgvec({dim}));
                 INSERT INTO items SELECT i, vec(i, {dim}) FROM generate_series(1, 60) AS i;
                 CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops);
                 INSERT INTO items SELECT i, vec(i, {dim}) FROM generate_series(61, 90) AS i;
                 DELETE FROM items WHERE id % 3 = 0; VACUUM items;
                 INSERT INTO items SELECT i, vec(i, {dim}) FROM generate_series(91, 120) AS i"
            ),
        );
        assert_eq!(check(&mut client, "items_embedding").rows, 90, "{dim} dimensions");
        assert_each_row_once(&mut client, "items", "<->", &format!("vec(-1, {dim})"));
        let found = recall(&mut client, "items", "<->", dim, 5, 10);
        assert!(found >= 0.99, "{dim} dimensions: recall {found}");
    }
    script(&mut client, "CREATE TABLE long (embedding imgvec(4001)); CREATE TABLE vague (embedding imgvec)");
    let error = failure(&mut client, "CREATE INDEX ON long USING ann (embedding)");
    assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED, "{error:?}");
    assert!(error.message().contains("4000") && error.hint().is_some(), "{error:?}");
    script(&mut client, "CREATE INDEX ON vague USING ann (embedding)");
    let error = failure(&mut client, "INSERT INTO vague VALUES (vec(1, 4001))");
    assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED, "{error:?}");
}

#[test]
fn an_expression_selects_one_kind_of_vector_of_a_mixed_column() {
    let (_cluster, mut client) = cluster_with_vectors("ann-expression");
    script(
        &mut client,
        "CREATE TABLE mixed (id integer, embedding imgvec);
         INSERT INTO mixed SELECT i, vec(i, CASE WHEN i % 2 = 0 THEN 16 ELSE 8 END) FROM generate_series(1, 1000) AS i;
         CREATE INDEX mixed_16 ON mixed USING ann ((embedding::imgvec(16)) imgvec_l2_ops) WHERE imgvec_dims(embedding) = 16",
    );
    let source = "(SELECT id, embedding::imgvec(16) AS embedding FROM mixed WHERE imgvec_dims(embedding) = 16) AS even";
    assert_eq!(check(&mut client, "mixed_16").rows, 500);
    let found = recall(&mut client, source, "<->", DIM, 40, 10);
    assert!(found >= 0.9, "recall {found}");
    // Rows come and go on either side of the predicate.
    client.batch_execute("UPDATE mixed SET embedding = vec(id, 16) WHERE id % 4 = 1").unwrap();
    client.batch_execute("UPDATE mixed SET embedding = vec(id, 8) WHERE id % 4 = 2").unwrap();
    let walk = format!("SELECT id FROM {source} ORDER BY embedding <-> vec(-1, 16)");
    let mut walked = ids(&by_index(&mut client, &walk));
    walked.sort_unstable();
    let truth = "SELECT id FROM mixed WHERE imgvec_dims(embedding) = 16 ORDER BY id";
    assert_eq!(walked, ids(&client.query(truth, &[]).unwrap()));
    // Without the predicate a vector of 8 dimensions does not fit, whether it is there or comes.
    let everything = "CREATE INDEX mixed_all ON mixed USING ann ((embedding::imgvec(16)) imgvec_l2_ops)";
    assert_eq!(failure(&mut client, everything).code(), &SqlState::DATA_EXCEPTION);
    client.batch_execute("DELETE FROM mixed WHERE imgvec_dims(embedding) = 8").unwrap();
    client.batch_execute(everything).unwrap();
    let error = failure(&mut client, "INSERT INTO mixed SELECT 0, vec(0, 8)");
    assert_eq!(error.code(), &SqlState::DATA_EXCEPTION, "{error:?}");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM mixed WHERE id = 0"), 0);
    check(&mut client, "mixed_all");
}

#[test]
fn queries_of_other_dimensions_are_refused() {
    let (_cluster, mut client) = cluster_with_vectors("ann-other-dimensions");
    script(
        &mut client,
        "CREATE TABLE items AS SELECT i AS id, vec(i, 16)::imgvec(16) AS embedding FROM generate_series(1, 100) AS i;
         CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops);
         SET enable_seqscan = off; SET enable_sort = off",
    );
    for query in ["vec(1, 15)", "vec(1, 17)", "vec(1, 1)", "vec(1, 4000)"] {
        let error = failure(&mut client, &search("items", "<->", query, 5));
        assert_eq!(error.code(), &SqlState::DATA_EXCEPTION, "{query}: {error:?}");
        assert!(error.message().contains("dimensions"), "{query}: {error:?}");
    }
    assert_eq!(by_index(&mut client, &search("items", "<->", "vec(1, 16)", 5)).len(), 5);
}

#[test]
fn nulls_and_zeros_break_nothing() {
    let (_cluster, mut client) = cluster_with_vectors("ann-nulls");
    script(
        &mut client,
        "CREATE TABLE items (id integer, embedding imgvec(16));
         INSERT INTO items SELECT i, CASE i % 10 WHEN 1 THEN NULL WHEN 2 THEN array_fill(0::real, ARRAY[16])::imgvec ELSE vec(i, 16) END
             FROM generate_series(1, 1000) AS i;
         CREATE INDEX l2 ON items USING ann (embedding imgvec_l2_ops);
         CREATE INDEX ip ON items USING ann (embedding imgvec_ip_ops);
         CREATE INDEX cosine ON items USING ann (embedding imgvec_cosine_ops);
         INSERT INTO items SELECT i, CASE i % 10 WHEN 1 THEN NULL WHEN 2 THEN array_fill(0::real, ARRAY[16])::imgvec ELSE vec(i, 16) END
             FROM generate_series(1001, 1200) AS i",
    );
    let zero = "array_fill(0::real, ARRAY[16])::imgvec";
    for (index, operator, rows) in [("l2", "<->", 1080), ("ip", "<#>", 1080), ("cosine", "<=>", 960)] {
        assert_eq!(check(&mut client, index).rows, rows, "{index}");
        let indexed =
            "(SELECT * FROM items WHERE embedding IS NOT NULL AND imgvec_norm(embedding) > 0) AS indexed";
        let everything = if operator == "<=>" { indexed } else { "items" };
        assert_each_row_once(&mut client, everything, operator, "vec(-1, 16)");
        assert_each_row_once(&mut client, everything, operator, zero);
        let found = recall(&mut client, everything, operator, DIM, 40, 10);
        assert!(found >= 0.9, "{index}: recall {found}");
        // NULL is near to nothing: no order, no error, no row more than there are.
        let unordered = by_index(&mut client, &search("items", operator, "(SELECT NULL::imgvec)", 2000));
        assert!(
            unordered.len() as i64 <= 1200
                && unordered.iter().all(|row| row.get::<_, Option<f64>>(1).is_none())
        );
        assert_eq!(by_index(&mut client, &search("items", operator, zero, 7)).len(), 7);
    }
    // A table of nothing but NULLs, and one of nothing.
    script(
        &mut client,
        "CREATE TABLE nulls (id integer, embedding imgvec(16)); INSERT INTO nulls SELECT i FROM generate_series(1, 50) AS i;
         CREATE INDEX nulls_embedding ON nulls USING ann (embedding)",
    );
    assert_eq!(check(&mut client, "nulls_embedding").rows, 0);
    assert!(by_index(&mut client, &search("nulls", "<=>", "vec(1, 16)", 5)).is_empty());
    client.batch_execute("UPDATE nulls SET embedding = vec(id, 16) WHERE id <= 20").unwrap();
    assert_eq!(by_index(&mut client, &search("nulls", "<=>", "vec(1, 16)", 50)).len(), 20);
    script(&mut client, "DELETE FROM nulls; VACUUM nulls");
    assert!(by_index(&mut client, &search("nulls", "<=>", "vec(1, 16)", 5)).is_empty());
    client.batch_execute("INSERT INTO nulls SELECT i, vec(i, 16) FROM generate_series(1, 30) AS i").unwrap();
    assert_eq!(by_index(&mut client, &search("nulls", "<=>", "vec(1, 16)", 50)).len(), 30);
    assert_eq!(check(&mut client, "nulls_embedding").rows, 30);
}

#[test]
fn vectors_that_differ_in_length_by_far_stay_exact() {
    let (_cluster, mut client) = cluster_with_vectors("ann-lengths");
    script(
        &mut client,
        "CREATE TABLE items AS SELECT i AS id, (vec(i, 16) * array_fill((10.0 ^ (i % 9 - 4))::real, ARRAY[16])::imgvec)::imgvec(16) AS embedding
             FROM generate_series(1, 1000) AS i;
         CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops)",
    );
    check(&mut client, "items_embedding");
    assert_each_row_once(&mut client, "items", "<->", "vec(-1, 16)");
    let found = recall(&mut client, "items", "<->", DIM, 40, 10);
    assert!(found >= 0.9, "recall {found}");
    let error =
        failure(&mut client, "INSERT INTO items VALUES (0, array_fill(1e30::real, ARRAY[16])::imgvec)");
    assert_eq!(error.code(), &SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "{error:?}");
    assert_eq!(check(&mut client, "items_embedding").rows, 1000);
}

#[test]
fn partitions_answer_together_in_order() {
    let (_cluster, mut client) = cluster_with_vectors("ann-partitions");
    script(
        &mut client,
        "CREATE TABLE items (id integer, embedding imgvec(16)) PARTITION BY RANGE (id);
         CREATE TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (500);
         CREATE TABLE items_2 PARTITION OF items FOR VALUES FROM (500) TO (1000);
         INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(1, 900) AS i;
         CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops);
         CREATE TABLE items_3 PARTITION OF items FOR VALUES FROM (1000) TO (2000);
         INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(901, 1500) AS i",
    );
    let plan = {
        client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
        explain(&mut client, &search("items", "<->", "vec(-1, 16)", 10))
    };
    assert!(plan.iter().any(|line| line.contains("Merge Append")), "{plan:#?}");
    assert_eq!(plan.iter().filter(|line| line.contains("Order By")).count(), 3, "{plan:#?}");
    let statement = search("items", "<->", "vec(-1, 16)", 20);
    let found = ids(&client.query(&statement, &[]).unwrap());
    client.batch_execute("RESET enable_seqscan; RESET enable_sort; SET enable_indexscan = off").unwrap();
    let truth = ids(&client.query(&statement, &[]).unwrap());
    client.batch_execute("RESET enable_indexscan").unwrap();
    assert!(found.iter().filter(|id| truth.contains(id)).count() >= 19, "{found:?} instead of {truth:?}");
    for (partition, rows) in [("items_1", 499), ("items_2", 500), ("items_3", 501)] {
        assert_eq!(check(&mut client, &format!("{partition}_embedding_idx")).rows, rows, "{partition}");
    }
    // A row that moves to another partition, and a partition that leaves with its index.
    client.batch_execute("UPDATE items SET id = 1999 WHERE id = 1").unwrap();
    let moved = by_index(&mut client, &search("items_3", "<->", "vec(1, 16)", 1));
    assert_eq!((moved[0].get::<_, i32>(0), moved[0].get::<_, f64>(1)), (1999, 0.0));
    client.batch_execute("ALTER TABLE items DETACH PARTITION items_2").unwrap();
    assert_each_row_once(&mut client, "items_2", "<->", "vec(-1, 16)");
}

#[test]
fn an_index_lives_in_and_moves_between_tablespaces() {
    let (cluster, mut client) = cluster_with_vectors("ann-tablespace");
    let directory = cluster.directory().join("elsewhere");
    fs::create_dir(&directory).unwrap();
    cluster.give(&directory);
    script(
        &mut client,
        &format!(
            "CREATE TABLESPACE elsewhere LOCATION '{}';
             CREATE TABLE items AS SELECT i AS id, vec(i, 16)::imgvec(16) AS embedding FROM generate_series(1, 1000) AS i;
             CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops) TABLESPACE elsewhere;
             INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(1001, 1100) AS i",
            directory.display()
        ),
    );
    let place = "SELECT pg_relation_filepath('items_embedding')";
    assert!(value::<String>(&mut client, place).starts_with("pg_tblspc/"));
    assert_each_row_once(&mut client, "items", "<->", "vec(-1, 16)");
    for tablespace in ["pg_default", "elsewhere"] {
        client.batch_execute(&format!("ALTER INDEX items_embedding SET TABLESPACE {tablespace}")).unwrap();
        client.batch_execute("UPDATE items SET embedding = vec(id + 5000, 16) WHERE id <= 50").unwrap();
        let elsewhere = value::<String>(&mut client, place).starts_with("pg_tblspc/");
        assert_eq!(elsewhere, tablespace == "elsewhere");
        check(&mut client, "items_embedding");
        assert_each_row_once(&mut client, "items", "<->", "vec(-1, 16)");
    }
    client.batch_execute("REINDEX (TABLESPACE pg_default) INDEX items_embedding").unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 1100);
}

#[test]
fn what_an_index_cannot_do_is_refused() {
    let (_cluster, mut client) = cluster_with_vectors("ann-refused");
    client.batch_execute("CREATE TABLE items (id integer, embedding imgvec(16))").unwrap();
    for (statement, code) in [
        ("CREATE UNIQUE INDEX ON items USING ann (embedding)", SqlState::FEATURE_NOT_SUPPORTED),
        ("CREATE INDEX ON items USING ann (embedding DESC)", SqlState::FEATURE_NOT_SUPPORTED),
        ("CREATE INDEX ON items USING ann (embedding) INCLUDE (id)", SqlState::FEATURE_NOT_SUPPORTED),
        ("CREATE INDEX ON items USING ann (id)", SqlState::FEATURE_NOT_SUPPORTED),
        ("CREATE INDEX ON items USING ann (embedding imgvec_ops)", SqlState::UNDEFINED_OBJECT),
        (
            "CREATE INDEX ON items USING ann (embedding) WITH (fillfactor = 50)",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
        (
            "CREATE INDEX ON items USING ann (embedding) WITH (ef_search = -1)",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
        (
            "CREATE INDEX ON items USING ann (embedding) WITH (ef_search = many)",
            SqlState::INVALID_PARAMETER_VALUE,
        ),
        ("ALTER TABLE items ADD EXCLUDE USING ann (embedding WITH <=>)", SqlState::WRONG_OBJECT_TYPE),
        ("SET imgvec.ef_search = -1", SqlState::INVALID_PARAMETER_VALUE),
        ("SET imgvec.max_scan_rows = -1", SqlState::INVALID_PARAMETER_VALUE),
    ] {
        let error = failure(&mut client, statement);
        assert_eq!(error.code(), &code, "{statement}: {error:?}");
    }
    script(&mut client, "CREATE INDEX i ON items USING ann (embedding); CREATE INDEX other ON items (id)");
    for function in ["ann_index_check", "ann_index_info", "ann_index_recall"] {
        for relation in ["items", "other"] {
            let error = failure(&mut client, &format!("SELECT * FROM {function}('{relation}')"));
            assert_eq!(error.code(), &SqlState::WRONG_OBJECT_TYPE, "{function} of {relation}: {error:?}");
        }
    }
    assert_eq!(
        value::<i32>(
            &mut client,
            "SELECT amvalidate(oid)::int FROM pg_opclass WHERE opcname = 'imgvec_cosine_ops'"
        ),
        1
    );
}
