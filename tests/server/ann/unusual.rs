//! Columns and queries that are rare and must work all the same: domains, and queries from far away.

use postgres::error::SqlState;

use super::{
    DIM, assert_each_row_once, by_index, by_table, check, cluster_with_vectors, ids, recall, script, search,
};
use crate::failure;

#[test]
fn a_column_of_a_domain_is_indexed_as_its_type_is() {
    let (_cluster, mut client) = cluster_with_vectors("ann-domain");
    script(
        &mut client,
        "CREATE DOMAIN embedding AS imgvec(16) CHECK (imgvec_norm(VALUE) > 0);
         CREATE DOMAIN checked AS embedding NOT NULL;
         CREATE DOMAIN vague AS imgvec;
         CREATE TABLE items (id integer, embedding checked, free vague);
         INSERT INTO items SELECT i, vec(i, 16), vec(i, 16) FROM generate_series(1, 1000) AS i;
         CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops);
         INSERT INTO items SELECT i, vec(i, 16), vec(i, 16) FROM generate_series(1001, 1500) AS i;
         DELETE FROM items WHERE id % 3 = 0; VACUUM items;
         UPDATE items SET embedding = vec(id + 5000, 16) WHERE id % 3 = 1",
    );
    client.batch_execute("VACUUM items").unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 1000);
    assert_each_row_once(&mut client, "items", "<->", "vec(-1, 16)");
    assert!(recall(&mut client, "items", "<->", DIM, 40, 10) >= 0.9);
    // A query may be of the domain, too.
    let nearest = search("items", "<->", "vec(2, 16)::embedding", 5);
    assert_eq!(ids(&by_index(&mut client, &nearest))[0], 2);
    client.batch_execute("REINDEX INDEX CONCURRENTLY items_embedding").unwrap();
    assert_eq!(check(&mut client, "items_embedding").rows, 1000);

    script(
        &mut client,
        "CREATE INDEX by_cast ON items USING ann ((free::embedding) imgvec_l2_ops); DROP INDEX items_embedding",
    );
    let nearest = "SELECT id FROM items ORDER BY free::embedding <-> vec(100, 16) LIMIT 5";
    assert_eq!(ids(&by_index(&mut client, nearest))[0], 100);
    // A domain that says no number of dimensions is as its type: the rows tell.
    client.batch_execute("CREATE INDEX items_free ON items USING ann (free)").unwrap();
    assert_eq!(check(&mut client, "items_free").rows, 1000);
    let error = failure(&mut client, "INSERT INTO items VALUES (0, vec(1, 15), vec(1, 15))");
    assert_eq!(error.code(), &SqlState::DATA_EXCEPTION, "{error:?}");
}

#[test]
fn a_query_from_far_away_is_answered_as_without_an_index() {
    let (_cluster, mut client) = cluster_with_vectors("ann-far");
    // Rows so long that their distances from afar differ, and short ones, from which they do not.
    script(
        &mut client,
        "CREATE TABLE items AS SELECT i AS id, (vec(i, 16) * array_fill((10.0 ^ (i % 3 * 8 + 1))::real, ARRAY[16])::imgvec)::imgvec(16) AS embedding
             FROM generate_series(1, 1000) AS i;
         CREATE INDEX by_l2 ON items USING ann (embedding imgvec_l2_ops);
         CREATE INDEX by_product ON items USING ann (embedding imgvec_ip_ops);
         CREATE INDEX by_cosine ON items USING ann (embedding imgvec_cosine_ops)",
    );
    for operator in ["<->", "<#>", "<=>"] {
        for length in ["1e17", "1.1e18", "1e19", "1e25", "3e38"] {
            let query = format!("(vec(-1, 16) * array_fill({length}::real, ARRAY[16])::imgvec)");
            let distances =
                |rows: &[postgres::Row]| -> Vec<f64> { rows.iter().map(|row| row.get(1)).collect() };
            for k in [10, 1000] {
                let statement = search("items", operator, &query, k);
                let truth = distances(&by_table(&mut client, &statement));
                let given = distances(&by_index(&mut client, &statement));
                assert_eq!(given.len(), k, "{operator} {length}");
                assert!(given.is_sorted(), "{operator} {length}: {given:?}");
                let same = given.iter().zip(&truth).filter(|(given, truth)| given == truth).count();
                assert!(same * 100 >= k * 95, "{operator} {length}: {same} of {k}");
            }
            assert_each_row_once(&mut client, "items", operator, &query);
        }
    }
    // Rows are limited as before.
    let error =
        failure(&mut client, "INSERT INTO items VALUES (0, array_fill(1e18::real, ARRAY[16])::imgvec)");
    assert_eq!(error.code(), &SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "{error:?}");
}
