//! What an index computes from a row may be a model that takes a second: how often it runs.

use postgres::Client;

use super::{check, quiet};
use crate::value;

const ROWS: i64 = 5000;

/// How often the functions were called since the last look.
fn calls(client: &mut Client, sequence: &str) -> i64 {
    // What was not called yet stands at its first number.
    let count =
        value(client, &format!("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}"));
    client.batch_execute(&format!("SELECT setval('{sequence}', 1, false)")).unwrap();
    count
}

#[test]
fn an_expression_and_a_predicate_are_computed_once_a_row_in_a_build() {
    let cluster = quiet("ann-expressions").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "CREATE SEQUENCE embedded; CREATE SEQUENCE judged;
             CREATE FUNCTION embed(i integer) RETURNS imgvec LANGUAGE plpgsql IMMUTABLE AS $$
             BEGIN
                 PERFORM nextval('public.embedded');
                 RETURN ARRAY[cos(i), sin(i), i % 17, i % 31]::public.imgvec;
             END $$;
             CREATE FUNCTION is_wanted(i integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
             BEGIN PERFORM nextval('public.judged'); RETURN i % 5 <> 0; END $$;
             CREATE TABLE items (id integer, note text);
             INSERT INTO items SELECT i, 'x' FROM generate_series(1, {ROWS}) AS i"
        ))
        .unwrap();
    let mut built = |statement: &str| {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        (calls(&mut client, "embedded"), calls(&mut client, "judged"))
    };
    let with_dimensions =
        "CREATE INDEX items_e ON items USING ann ((embed(id)::imgvec(4)) imgvec_l2_ops) WHERE is_wanted(id)";
    assert_eq!(built(with_dimensions), (ROWS * 4 / 5, ROWS));
    assert_eq!(built("REINDEX INDEX items_e"), (ROWS * 4 / 5, ROWS));
    // The number of dimensions comes from the rows as well.
    assert_eq!(built("CREATE INDEX items_f ON items USING ann ((embed(id)) imgvec_l2_ops)"), (ROWS, 0));
    assert_eq!(built("DROP INDEX items_f; INSERT INTO items VALUES (-1, 'y'), (-5, 'y')"), (1, 2));
    // As docs/models.md says.
    assert!(built("ANALYZE items").0 > 0);
    built("ALTER INDEX items_e ALTER COLUMN 1 SET STATISTICS 0; DROP INDEX items_e");
    built("CREATE INDEX items_e ON items USING ann ((embed(id)::imgvec(4)) imgvec_l2_ops)");
    built("ALTER INDEX items_e ALTER COLUMN 1 SET STATISTICS 0");
    assert_eq!(built("ANALYZE items"), (0, 0));
    assert_eq!(check(&mut client, "items_e").rows, ROWS + 2);
}
