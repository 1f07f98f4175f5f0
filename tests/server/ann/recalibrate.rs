//! How far searches look ahead is measured again where the owner asks for it.

use super::{CREATE_INDEX, VECTORS, create_items, insert_items, quiet};
use crate::{failure, value};
use postgres::error::SqlState;

/// The lookahead for each target of recall; none where an index was never measured.
const LOOKAHEAD: &str = "SELECT lookahead FROM ann_index_info('items_embedding')";

#[test]
fn an_index_is_measured_anew_for_its_rows_and_for_queries_of_ones_own() {
    let cluster = quiet("ann-recalibrate").start();
    let mut client = cluster.client();
    create_items(&mut client, 0);
    client.batch_execute(CREATE_INDEX).unwrap();
    assert_eq!(value::<Option<Vec<i32>>>(&mut client, LOOKAHEAD), None, "no row, no measure");
    let of_none = "SELECT ann_index_recall('items_embedding', recalibrate => true)";
    assert_eq!(value::<Option<f64>>(&mut client, of_none), None);
    insert_items(&mut client, 1, 5_000);
    assert_eq!(value::<Option<Vec<i32>>>(&mut client, LOOKAHEAD), None, "filled and never measured");

    let found: f64 = value(&mut client, "SELECT ann_index_recall('items_embedding', recalibrate => true)");
    assert!(found > 0.9, "{found}");
    let measured: Vec<i32> = value(&mut client, LOOKAHEAD);
    assert!(measured.len() == 4 && measured[0] >= 1 && measured.is_sorted(), "{measured:?}");

    let queries = "(SELECT array_agg(embedding) FROM (SELECT embedding FROM items WHERE id % 50 = 0) s)";
    let of_own = format!("SELECT ann_index_recall('items_embedding', {queries}, recalibrate => true)");
    let found: f64 = value(&mut client, &of_own);
    assert!(found > 0.9, "{found}");
    let own: Vec<i32> = value(&mut client, LOOKAHEAD);
    // Rows themselves are easy queries, and stand for themselves: they need no more than queries like rows do.
    assert!(own.iter().zip(&measured).all(|(own, before)| own <= before), "{own:?}, before {measured:?}");
    let plain: f64 = value(&mut client, "SELECT ann_index_recall('items_embedding', recalibrate => false)");
    assert!(plain > 0.85, "{plain}");
    assert_eq!(value::<Vec<i32>>(&mut client, LOOKAHEAD), own, "only measured");
    let of_none = "SELECT ann_index_recall('items_embedding', '{}'::imgvec[], recalibrate => true)";
    assert_eq!(value::<Option<f64>>(&mut client, of_none), None);
    assert_eq!(value::<Vec<i32>>(&mut client, LOOKAHEAD), own, "no query tells nothing");
}

#[test]
fn only_the_owner_recalibrates_and_only_where_one_may_write() {
    let cluster = quiet("ann-recalibrate-rights").start();
    let standby = cluster.standby("ann-recalibrate-standby");
    let mut client = cluster.client();
    create_items(&mut client, 300);
    client.batch_execute(CREATE_INDEX).unwrap();
    client.batch_execute("CREATE ROLE reader; GRANT SELECT ON items TO reader; SET ROLE reader").unwrap();
    let measured = "SELECT ann_index_recall('items_embedding', recalibrate => true)";
    assert_eq!(failure(&mut client, measured).code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    value::<f64>(&mut client, "SELECT ann_index_recall('items_embedding', recalibrate => false)");
    client.batch_execute("RESET ROLE; BEGIN READ ONLY").unwrap();
    assert_eq!(failure(&mut client, measured).code(), &SqlState::READ_ONLY_SQL_TRANSACTION);
    client.batch_execute("ROLLBACK").unwrap();
    cluster.wait_for(&standby);
    let mut there = standby.client();
    assert_eq!(failure(&mut there, measured).code(), &SqlState::READ_ONLY_SQL_TRANSACTION);
}

#[test]
fn the_page_about_the_index_runs() {
    let cluster = quiet("ann-index-page").start();
    let mut client = cluster.client();
    client.batch_execute(VECTORS).unwrap();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/index.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<&str> =
        text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 3, "{blocks:?}");
    for (number, block) in blocks.into_iter().enumerate() {
        client.batch_execute(block).unwrap_or_else(|error| panic!("{block}: {error:?}"));
        if number == 0 {
            let rows = "INSERT INTO items (embedding) SELECT vec(i, 256) FROM generate_series(1, 300) AS i";
            client.batch_execute(rows).unwrap();
        }
    }
}
