//! How an index of PostgreSQL behaves: it is dumped and restored, tells its progress, serves users that own
//! nothing, hides what row security hides, holds under SERIALIZABLE, and tells how well it finds.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use postgres::Client;
use postgres::error::SqlState;

use super::{
    CREATE_INDEX, DIM, VECTORS, assert_sound, by_index, check, create_items, ids, quiet, recall, script,
    search,
};
use crate::cluster::run;
use crate::{failure, value};

#[test]
fn an_index_survives_dump_and_restore() {
    let cluster = quiet("ann-dump").start();
    let mut client = cluster.client();
    create_items(&mut client, 800);
    client
        .batch_execute(&format!("{CREATE_INDEX} WITH (ef_search = 111, max_scan_rows = 22222) WHERE id > 0"))
        .unwrap();
    client.batch_execute("CREATE DATABASE copy").unwrap();
    let file = cluster.directory().join("dump.sql");
    run(cluster.program("pg_dump").arg("--file").arg(&file));
    run(cluster.program("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "copy", "-f"]).arg(&file));
    let mut copy = cluster.client_of("postgres", "copy");
    let definition = "SELECT pg_get_indexdef('items_embedding'::regclass)";
    let restored: String = value(&mut copy, definition);
    assert_eq!(restored, value::<String>(&mut client, definition));
    assert!(restored.contains("ef_search='111'") && restored.contains("max_scan_rows='22222'"), "{restored}");
    assert_eq!(check(&mut copy, "items_embedding").rows, 800);
    let found = recall(&mut copy, "items WHERE id > 0", "<->", DIM, 40, 10);
    assert!(found >= 0.9, "recall {found}");
}

#[test]
fn an_index_built_anew_in_its_place_is_not_searched_with_what_is_known_of_the_old_one() {
    let cluster = quiet("ann-built-anew").start();
    let mut client = cluster.client();
    client.batch_execute(VECTORS).unwrap();
    // In the transaction that created it, a table is truncated and filled without a new file.
    client.batch_execute("BEGIN; CREATE TABLE items (id integer, embedding imgvec(16))").unwrap();
    let fill = |client: &mut Client, first: i32, rows: i32| {
        let numbers = format!("generate_series({first}, {})", first + rows - 1);
        client
            .batch_execute(&format!("INSERT INTO items SELECT i, vec(i, {DIM}) FROM {numbers} AS i"))
            .unwrap();
    };
    let nearest = |client: &mut Client, number: i32| {
        let found = by_index(client, &search("items", "<->", &format!("vec({number}, {DIM})"), 3));
        (ids(&found)[0], found.len())
    };
    fill(&mut client, 1, 2000);
    client.batch_execute(CREATE_INDEX).unwrap();
    let file = "SELECT pg_relation_filenode('items_embedding')::bigint";
    let first: i64 = value(&mut client, file);
    assert_eq!(nearest(&mut client, 7), (7, 3));
    client.batch_execute("TRUNCATE items").unwrap();
    assert_eq!(by_index(&mut client, &search("items", "<->", &format!("vec(7, {DIM})"), 3)).len(), 0);
    fill(&mut client, 5001, 300);
    assert_eq!(value::<i64>(&mut client, file), first, "the file is another, and so nothing is tested");
    assert_eq!(nearest(&mut client, 5007), (5007, 3));
    assert_eq!(check(&mut client, "items_embedding").rows, 300);
    fill(&mut client, 6001, 2000);
    client.batch_execute("REINDEX INDEX items_embedding").unwrap();
    assert_eq!(nearest(&mut client, 6007), (6007, 3));
    fill(&mut client, 9001, 100);
    assert_eq!(nearest(&mut client, 9007), (9007, 3));
    assert_eq!(check(&mut client, "items_embedding").rows, 2400);
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(nearest(&mut client, 9007), (9007, 3));
}

#[test]
fn a_build_tells_its_progress() {
    let cluster = quiet("ann-progress").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE items AS SELECT i AS id, vec(i, 32)::imgvec(32) AS embedding FROM generate_series(1, 60000) AS i"
        ))
        .unwrap();
    let done = AtomicBool::new(false);
    let (mut phases, mut tuples) = (BTreeSet::new(), BTreeSet::new());
    thread::scope(|scope| {
        let builder = scope.spawn(|| {
            client.batch_execute(CREATE_INDEX).unwrap();
            done.store(true, Ordering::Relaxed);
        });
        let mut watcher = cluster.client();
        while !done.load(Ordering::Relaxed) {
            let query = "SELECT phase, tuples_done, tuples_total, blocks_done, blocks_total FROM pg_stat_progress_create_index
                WHERE relid = 'items'::regclass";
            for row in watcher.query(query, &[]).unwrap() {
                phases.insert(row.get::<_, String>(0));
                let (tuples_done, tuples_total): (i64, i64) = (row.get(1), row.get(2));
                assert!(
                    tuples_total == 0 || tuples_done <= tuples_total,
                    "{tuples_done} of {tuples_total} tuples"
                );
                assert!(row.get::<_, i64>(3) <= row.get::<_, i64>(4));
                tuples.insert(tuples_done);
            }
            thread::sleep(Duration::from_millis(2));
        }
        builder.join().unwrap();
    });
    let building: Vec<_> = phases.iter().filter(|phase| phase.starts_with("building index: ")).collect();
    assert!(building.len() >= 3, "{phases:?}");
    assert!(tuples.len() >= 3, "tuples do not advance: {tuples:?}");
    assert_eq!(check(&mut client, "items_embedding").rows, 60_000);
}

#[test]
fn users_search_what_they_may_and_look_into_what_is_theirs() {
    let cluster = quiet("ann-users").start();
    let mut admin = cluster.client();
    script(
        &mut admin,
        "CREATE ROLE owner LOGIN; CREATE ROLE reader LOGIN; GRANT CREATE ON SCHEMA public TO owner",
    );
    let mut owner = cluster.client_of("owner", "postgres");
    create_items(&mut owner, 600);
    owner.batch_execute(CREATE_INDEX).unwrap();
    assert_sound(&mut owner);
    assert!(value::<f64>(&mut owner, "SELECT ann_index_recall('items_embedding')::float8") >= 0.9);
    owner.batch_execute("SET imgvec.ef_search = 200; SET imgvec.max_scan_rows = 1000").unwrap();

    let mut reader = cluster.client_of("reader", "postgres");
    let own = search("items", "<->", &format!("vec(-1, {DIM})"), 5);
    assert_eq!(failure(&mut reader, &own).code(), &SqlState::INSUFFICIENT_PRIVILEGE);
    // Recall reads vectors, so it needs what reading them needs.
    let error = failure(&mut reader, "SELECT ann_index_recall('items_embedding')");
    assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{error:?}");
    owner.batch_execute("GRANT SELECT ON items TO reader").unwrap();
    assert_eq!(by_index(&mut reader, &own).len(), 5);

    // Row security: hidden rows neither come out nor take a place.
    owner
        .batch_execute(
            "ALTER TABLE items ENABLE ROW LEVEL SECURITY; CREATE POLICY odd ON items TO reader USING (id % 2 = 1)",
        )
        .unwrap();
    let found = ids(&by_index(&mut reader, &search("items", "<->", &format!("vec(-1, {DIM})"), 20)));
    assert!(found.len() == 20 && found.iter().all(|id| id % 2 == 1), "{found:?}");
    let found = recall(&mut reader, "items", "<->", DIM, 40, 10);
    assert!(found >= 0.9, "recall {found}");
    let hidden = value::<i32>(
        &mut reader,
        &format!("SELECT id FROM items ORDER BY embedding <-> vec(100, {DIM}) LIMIT 1"),
    );
    assert_ne!(hidden, 100);
}

#[test]
fn serializable_searches_conflict_with_what_they_should_have_seen() {
    let cluster = quiet("ann-serializable").start();
    let (mut one, mut two) = (cluster.client(), cluster.client());
    create_items(&mut one, 500);
    one.batch_execute(CREATE_INDEX).unwrap();
    // Each looks for the other's row, finds none, and inserts its own: no order of the two explains that.
    for (client, wanted, own) in [(&mut one, 7001, 7002), (&mut two, 7002, 7001)] {
        client.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE").unwrap();
        let found = by_index(client, &search("items", "<->", &format!("vec({wanted}, {DIM})"), 1));
        assert!(found[0].get::<_, f64>(1) > 0.0);
        client
            .batch_execute(&format!(
                "SET LOCAL enable_seqscan = off; INSERT INTO items SELECT {own}, vec({own}, {DIM})"
            ))
            .unwrap();
    }
    let ends = [one.batch_execute("COMMIT"), two.batch_execute("COMMIT")];
    let failed: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
    assert_eq!(failed.len(), 1, "{ends:?}");
    assert_eq!(failed[0].code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
    assert_sound(&mut one);
    // One after the other they are fine.
    for own in [7003, 7004] {
        one.batch_execute(&format!(
            "BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO items SELECT {own}, vec({own}, {DIM}); COMMIT"
        ))
        .unwrap();
    }
    assert_sound(&mut one);
}

#[test]
fn the_index_tells_how_well_it_finds() {
    let cluster = quiet("ann-recall").start();
    let mut client = cluster.client();
    create_items(&mut client, 3000);
    client.batch_execute(CREATE_INDEX).unwrap();
    for (setting, k) in [("SET imgvec.ef_search = 40", 10), ("SET imgvec.ef_search = 200", 20)] {
        client.batch_execute(setting).unwrap();
        let told: f64 =
            value(&mut client, &format!("SELECT ann_index_recall('items_embedding', {k}, 200)::float8"));
        let measured = recall(&mut client, "items", "<->", DIM, 100, k);
        assert!((told - measured).abs() < 0.05 && told <= 1.0, "{setting}: told {told}, measured {measured}");
    }
    let info = client
        .query_one("SELECT row_to_json(info)::text FROM ann_index_info('items_embedding') AS info", &[])
        .unwrap();
    let info: String = info.get(0);
    assert!(info.contains("16") && info.contains("3000"), "{info}");
}

#[test]
fn damage_is_reported_with_its_block_and_repaired_by_reindex() {
    let mut cluster = quiet("ann-damage").start();
    let mut client = cluster.client();
    create_items(&mut client, 1000);
    client.batch_execute(CREATE_INDEX).unwrap();
    let blocks: i64 = value(&mut client, "SELECT pg_relation_size('items_embedding') / 8192");
    // Inside each page in turn: its contents, its kind, everything.
    for (block, offset, bytes) in
        [(blocks - 1, 8184, 8), (blocks / 2, 24, 4000), (blocks / 2, 0, 8192), (0, 24, 8000)]
    {
        let path = value::<String>(&mut client, "SELECT pg_relation_filepath('items_embedding')");
        cluster.stop();
        let mut file = OpenOptions::new().write(true).open(cluster.data().join(path)).unwrap();
        file.seek(SeekFrom::Start(block as u64 * 8192 + offset)).unwrap();
        file.write_all(&vec![0xa5; bytes]).unwrap();
        drop(file);
        cluster.start();
        client = cluster.client();
        let error = failure(&mut client, "SELECT * FROM ann_index_check('items_embedding')");
        // The server itself refuses a page whose header makes no sense, with a code of its own.
        assert!(["XX001", "XX002"].contains(&error.code().code()), "block {block}: {error:?}");
        let detail = error.detail().unwrap_or_default().to_lowercase();
        assert!(
            detail.contains(&format!("block {block}")) || error.message().contains(&format!("block {block}")),
            "{error:?}"
        );
        // Whatever searches and changes meet, it is an error and no crash; a vacuum does not fail for ever.
        client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").unwrap();
        for statement in [
            search("items", "<->", &format!("vec(-1, {DIM})"), 1000),
            format!("INSERT INTO items SELECT 5000 + {block}, vec(5000, {DIM}) ON CONFLICT DO NOTHING"),
            "DELETE FROM items WHERE id % 100 = 0".to_owned(),
            "VACUUM items".to_owned(),
        ] {
            if let Err(error) = client.simple_query(&statement) {
                let code = error.code().map(SqlState::code);
                assert!(matches!(code, Some("XX001" | "XX002")), "{statement}: {error:?}");
            }
        }
        client.batch_execute("REINDEX INDEX items_embedding").unwrap();
        assert_sound(&mut client);
    }
}

#[test]
fn recall_is_measured_for_queries_of_ones_own() {
    let cluster = quiet("ann-own-queries").start();
    let mut client = cluster.client();
    create_items(&mut client, 3000);
    client.batch_execute(CREATE_INDEX).unwrap();
    let of = |queries: &str| format!("SELECT ann_index_recall('items_embedding', {queries})");
    let some = format!("(SELECT array_agg(vec(-i, {DIM})) FROM generate_series(1, 100) AS i)");
    let found: f64 = value(&mut client, &of(&some));
    assert!(found >= 0.9, "{found}");
    client.batch_execute("SET imgvec.ef_search = 1000").unwrap();
    assert!(value::<f64>(&mut client, &of(&some)) >= found.min(0.99));
    assert_eq!(value::<Option<f64>>(&mut client, &of("ARRAY[NULL]::imgvec[]")), None);
    assert_eq!(value::<Option<f64>>(&mut client, &of("'{}'::imgvec[]")), None);
    assert_eq!(failure(&mut client, &of("ARRAY['[1,2]'::imgvec]")).code(), &SqlState::DATA_EXCEPTION);
    let error = failure(&mut client, &of(&format!("array_fill(vec(1, {DIM}), ARRAY[10001])")));
    assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED);
}
