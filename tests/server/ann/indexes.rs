//! `ann_indexes` shows all indexes to everybody. It waits for none, fails for none, and runs nobody else's code.

use std::fs;

use postgres::Client;

use super::{CREATE_INDEX, VECTORS, create_items, insert_items, quiet, script};
use crate::cluster::Cluster;
use crate::{failure, value};

/// What the view shows of an index, by its name.
struct Shown {
    schema: String,
    relation: String,
    partition_of: Option<String>,
    is_valid: bool,
    metric: Option<String>,
    dims: Option<i32>,
    size_bytes: Option<i64>,
    rows: Option<i64>,
    format_version: Option<i32>,
    recall: Option<f64>,
    recall_k: Option<i32>,
    is_recent: Option<bool>,
}

#[track_caller]
fn shown(client: &mut Client, index: &str) -> Shown {
    let query = "SELECT schema::text, relation::text, partition_of::text, is_valid, metric, dims, size_bytes, rows, format_version,
            recall, recall_k, now() - recall_at BETWEEN '-1 min' AND '10 min'
        FROM public.ann_indexes WHERE index = (SELECT oid FROM pg_catalog.pg_class WHERE relname = $1 AND relkind = 'i')";
    let row = client.query_one(query, &[&index]).unwrap_or_else(|error| panic!("{index}: {error:?}"));
    Shown {
        schema: row.get(0),
        relation: row.get(1),
        partition_of: row.get(2),
        is_valid: row.get(3),
        metric: row.get(4),
        dims: row.get(5),
        size_bytes: row.get(6),
        rows: row.get(7),
        format_version: row.get(8),
        recall: row.get(9),
        recall_k: row.get(10),
        is_recent: row.get(11),
    }
}

/// That nothing is shown but what the catalogs say.
#[track_caller]
fn assert_unread(client: &mut Client, index: &str) {
    let shown = shown(client, index);
    assert_eq!(
        (shown.metric, shown.dims, shown.size_bytes, shown.format_version, shown.recall),
        (None, None, None, None, None),
        "{index}"
    );
}

fn names(client: &mut Client) -> Vec<String> {
    value(client, "SELECT array_agg(index::text ORDER BY index::text) FROM public.ann_indexes")
}

#[test]
fn the_view_shows_tables_partitions_sizes_and_rows() {
    let cluster = quiet("ann-indexes").start();
    let mut client = cluster.client();
    create_items(&mut client, 2000);
    client.batch_execute(CREATE_INDEX).unwrap();
    script(
        &mut client,
        "CREATE SCHEMA \"Other place\";
         CREATE TABLE \"Other place\".photos (id integer, year integer, embedding imgvec(16)) PARTITION BY RANGE (year);
         CREATE TABLE photos_old PARTITION OF \"Other place\".photos FOR VALUES FROM (0) TO (2000) PARTITION BY RANGE (id);
         CREATE TABLE photos_old_low PARTITION OF photos_old FOR VALUES FROM (0) TO (1000);
         CREATE TABLE \"Other place\".\"New photos\" PARTITION OF \"Other place\".photos FOR VALUES FROM (2000) TO (3000);
         CREATE INDEX photos_embedding ON \"Other place\".photos USING ann (embedding);
         CREATE TABLE loose (embedding imgvec);
         CREATE INDEX loose_embedding ON loose USING ann (embedding imgvec_ip_ops);
         CREATE TEMP TABLE mine (embedding imgvec(3));
         CREATE INDEX mine_embedding ON mine USING ann (embedding)",
    );
    assert_eq!(
        names(&mut client),
        [
            "\"Other place\".\"New photos_embedding_idx\"",
            "items_embedding",
            "loose_embedding",
            "mine_embedding",
            "photos_old_low_embedding_idx"
        ],
        "every index that has rows of its own, and no other kind"
    );
    let items = shown(&mut client, "items_embedding");
    assert_eq!(
        (items.schema.as_str(), items.relation.as_str(), items.partition_of),
        ("public", "items", None)
    );
    assert_eq!((items.metric.as_deref(), items.dims, items.rows), (Some("l2"), Some(16), Some(2000)));
    let info = client
        .query_one("SELECT size_bytes, format_version FROM ann_index_info('items_embedding')", &[])
        .unwrap();
    assert_eq!((items.size_bytes, items.format_version), (Some(info.get(0)), Some(info.get(1))));
    assert!(
        items.is_valid && items.recall.is_none() && items.recall_k.is_none() && items.is_recent.is_none()
    );
    let old = shown(&mut client, "photos_old_low_embedding_idx");
    assert_eq!(old.relation, "photos_old_low");
    assert_eq!(old.partition_of.as_deref(), Some("\"Other place\".photos"), "the table that one searches");
    let new = shown(&mut client, "New photos_embedding_idx");
    assert_eq!(
        (new.schema.as_str(), new.relation.as_str()),
        ("Other place", "\"Other place\".\"New photos\"")
    );
    let loose = shown(&mut client, "loose_embedding");
    assert_eq!(
        (
            loose.metric.as_deref(),
            loose.dims,
            loose.size_bytes,
            loose.format_version,
            loose.rows.unwrap_or(0)
        ),
        (Some("inner product"), None, Some(0), None, 0),
        "an index that waits for its first row"
    );
    assert_eq!(shown(&mut client, "mine_embedding").dims, Some(3));

    // What a coordinator gets from each of its servers is one text.
    let json: String = value(&mut client, "SELECT json_agg(i)::text FROM ann_indexes AS i");
    assert!(json.contains("\"index\":\"items_embedding\"") && json.contains("\"recall\":null"), "{json}");

    // A build that fails leaves an index that is not valid.
    client.batch_execute("CREATE TABLE mixed (id integer, embedding imgvec)").unwrap();
    client.batch_execute("INSERT INTO mixed VALUES (1, '[1,2]'), (2, '[1,2,3]')").unwrap();
    failure(&mut client, "CREATE INDEX CONCURRENTLY mixed_embedding ON mixed USING ann (embedding)");
    let mixed = shown(&mut client, "mixed_embedding");
    assert!(!mixed.is_valid && mixed.recall.is_none() && mixed.format_version.is_none());
}

#[test]
fn the_recall_that_the_owner_measured_stays() {
    let cluster = quiet("ann-indexes-recall").start();
    let standby = cluster.standby("ann-indexes-standby");
    let mut client = cluster.client();
    create_items(&mut client, 3000);
    client.batch_execute(CREATE_INDEX).unwrap();
    let measure = "SELECT ann_index_recall('items_embedding', k => 7, samples => 50)";
    let kept = |client: &mut Client| {
        let shown = shown(client, "items_embedding");
        shown.recall.map(|recall| (recall, shown.recall_k.unwrap(), shown.is_recent.unwrap()))
    };

    client.batch_execute("CREATE ROLE reader LOGIN; GRANT SELECT ON items TO reader").unwrap();
    let mut reader = cluster.client_of("reader", "postgres");
    value::<f64>(&mut reader, measure);
    assert_eq!(kept(&mut reader), None, "a reader's queries are his own");
    client.batch_execute("BEGIN READ ONLY").unwrap();
    value::<f64>(&mut client, measure);
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(kept(&mut reader), None, "a transaction that only reads");

    let found: f64 = value(&mut client, measure);
    let (recall, k, is_recent) = kept(&mut reader).expect("the owner measured");
    assert!((recall - found).abs() < 0.0001 && k == 7 && is_recent, "{recall} {found} {k}");
    let queries = "(SELECT array_agg(embedding) FROM items WHERE id <= 40)";
    for (statement, k) in [
        (format!("SELECT ann_index_recall('items_embedding', {queries}, 5)"), 5),
        ("SELECT ann_index_recall('items_embedding', recalibrate => true)".to_owned(), 10),
        (format!("SELECT ann_index_recall('items_embedding', {queries}, recalibrate => true, k => 3)"), 3),
    ] {
        let found: f64 = value(&mut client, &statement);
        let (recall, kept_k, _) = kept(&mut client).unwrap();
        assert!((recall - found).abs() < 0.0001 && kept_k == k, "{statement}: {recall} {found} {kept_k}");
    }
    let last = kept(&mut client).unwrap();
    assert_eq!(
        value::<Option<f64>>(&mut client, "SELECT ann_index_recall('items_embedding', '{}'::imgvec[])"),
        None
    );
    assert_eq!(kept(&mut client), Some(last), "nothing was measured");

    // It outlives inserts, vacuum and a restart, and goes to standbys, which keep nothing of their own.
    insert_items(&mut client, 3001, 3100);
    script(&mut client, "DELETE FROM items WHERE id % 3 = 0; VACUUM items");
    assert_eq!(kept(&mut client), Some(last));
    cluster.wait_for(&standby);
    let mut there = standby.client();
    value::<f64>(&mut there, measure);
    assert_eq!(kept(&mut there), Some(last));
    client.batch_execute("REINDEX INDEX items_embedding").unwrap();
    assert_eq!(kept(&mut client), None, "another index");
}

#[test]
fn the_view_neither_waits_nor_fails_nor_asks_for_rights() {
    let mut cluster = quiet("ann-indexes-others").start();
    let mut admin = cluster.client();
    create_items(&mut admin, 300);
    script(
        &mut admin,
        &format!(
            "{CREATE_INDEX};
             CREATE TABLE broken (embedding imgvec(16));
             INSERT INTO broken SELECT vec(i, 16) FROM generate_series(1, 50) AS i;
             CREATE INDEX broken_embedding ON broken USING ann (embedding);
             CREATE TABLE torn (embedding imgvec(16));
             CREATE INDEX torn_embedding ON torn USING ann (embedding);
             CREATE TABLE lost (embedding imgvec(16));
             CREATE INDEX lost_embedding ON lost USING ann (embedding);
             CREATE SCHEMA hidden; REVOKE ALL ON SCHEMA hidden FROM PUBLIC;
             CREATE TABLE hidden.secret (embedding imgvec(16));
             CREATE INDEX secret_embedding ON hidden.secret USING ann (embedding);
             REVOKE ALL ON items, broken, torn, lost FROM PUBLIC;
             CREATE ROLE stranger LOGIN"
        ),
    );
    let file = |client: &mut Client, index: &str| {
        value::<String>(client, &format!("SELECT pg_relation_filepath('{index}')"))
    };
    let (broken, torn, lost) = (
        file(&mut admin, "broken_embedding"),
        file(&mut admin, "torn_embedding"),
        file(&mut admin, "lost_embedding"),
    );
    drop(admin);
    cluster.stop();
    // Checksums would find the first as well. Where there are none, this refuses, which is as good.
    let mut without = cluster.command_of_server_user(cluster.program("pg_checksums").get_program());
    let _ = without.args(["--disable", "--pgdata"]).arg(cluster.data()).output().unwrap();
    // The first has an unknown metric, the second a header that the server refuses, the third no file.
    let path = cluster.data().join(broken);
    let mut bytes = fs::read(&path).unwrap();
    bytes[24 + 6] = 99;
    fs::write(&path, bytes).unwrap();
    let path = cluster.data().join(torn);
    let mut bytes = fs::read(&path).unwrap();
    bytes[12..18].fill(0xff);
    fs::write(&path, bytes).unwrap();
    fs::remove_file(cluster.data().join(lost)).unwrap();
    cluster.start();

    let mut admin = cluster.client();
    admin
        .batch_execute("BEGIN; LOCK TABLE items IN ACCESS EXCLUSIVE MODE; REINDEX INDEX items_embedding")
        .unwrap();
    let mut other = cluster.client();
    other.batch_execute("CREATE TEMP TABLE theirs (embedding imgvec(2))").unwrap();
    other.batch_execute("CREATE INDEX theirs_embedding ON theirs USING ann (embedding)").unwrap();

    let mut stranger = cluster.client_of("stranger", "postgres");
    stranger.batch_execute("SET lock_timeout = '2s'; SET statement_timeout = '60s'").unwrap();
    assert_eq!(names(&mut stranger).len(), 6);
    for index in ["items_embedding", "torn_embedding", "lost_embedding", "theirs_embedding"] {
        assert_unread(&mut stranger, index);
    }
    let broken = shown(&mut stranger, "broken_embedding");
    assert!(broken.size_bytes.is_some_and(|bytes| bytes > 0) && broken.format_version.is_none());
    assert_eq!(shown(&mut stranger, "secret_embedding").dims, Some(16), "sizes are no secret");
    // What is no index of ours has nothing to show.
    for nothing in ["items", "items_pkey", "pg_class"] {
        let row = format!("SELECT ann_index_state('{nothing}') IS NULL");
        assert!(value::<bool>(&mut stranger, &row), "{nothing}");
    }
    assert!(value::<bool>(&mut stranger, "SELECT ann_index_state(4294967295::oid) IS NULL"));
    // No lock is left behind.
    stranger.batch_execute("BEGIN; SELECT count(*) FROM ann_indexes").unwrap();
    let locks: i64 = value(
        &mut stranger,
        "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_am a ON a.oid = c.relam
         WHERE l.pid = pg_backend_pid() AND a.amname = 'ann'",
    );
    assert_eq!(locks, 0);
    stranger.batch_execute("COMMIT").unwrap();
    admin.batch_execute("COMMIT").unwrap();
    assert_eq!(shown(&mut stranger, "items_embedding").dims, Some(16), "free again");
}

#[test]
fn a_path_with_traps_does_not_change_the_view() {
    let cluster: Cluster = quiet("ann-indexes-path").start();
    let mut admin = cluster.client();
    admin.batch_execute(VECTORS).unwrap();
    admin.batch_execute("CREATE TABLE items (embedding imgvec(16)); CREATE ROLE thief LOGIN").unwrap();
    admin.batch_execute("CREATE INDEX items_embedding ON items USING ann (embedding)").unwrap();
    admin
        .batch_execute("CREATE SCHEMA theirs AUTHORIZATION thief; GRANT USAGE ON SCHEMA theirs TO PUBLIC")
        .unwrap();
    let mut thief = cluster.client_of("thief", "postgres");
    thief
        .batch_execute(
            "CREATE FUNCTION theirs.trap(oid, oid) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''trap''; END';
             CREATE OPERATOR theirs.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = theirs.trap);
             CREATE FUNCTION theirs.to_timestamp(double precision) RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''trap''; END';
             CREATE TABLE theirs.pg_class (oid oid); CREATE TABLE theirs.pg_index (oid oid)",
        )
        .unwrap();
    for path in ["theirs, public, pg_catalog", "''", "pg_temp, theirs"] {
        admin.batch_execute(&format!("SET search_path = {path}")).unwrap();
        let rows: i64 = value(&mut admin, "SELECT pg_catalog.count(*) FROM public.ann_indexes");
        assert_eq!(rows, 1, "{path}");
        let name: String = value(&mut admin, "SELECT index::pg_catalog.text FROM public.ann_indexes");
        assert!(name.ends_with("items_embedding"), "{path}: {name}");
    }
}
