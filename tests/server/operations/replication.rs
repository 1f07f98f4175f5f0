//! Logical replication: a subscriber with the same type in text and in binary, one that has pgvector only, and one
//! that has no extension at all. Each keeps indexes of its own. (Physical standbys: `standby.rs`, `ann/standby.rs`.)

use postgres::Client;

use super::pages::blocks;
use super::wait_until;
use crate::ann::{VECTORS, assert_each_row_once, by_index, check, ids, pgvector, quiet, script};
use crate::cluster::{Cluster, ClusterBuilder};
use crate::{has_pgvector, value};

fn server(name: &str) -> ClusterBuilder {
    quiet(name)
        .conf("wal_level = logical")
        .conf("max_worker_processes = 16")
        .conf("wal_retrieve_retry_interval = '100ms'")
}

/// Subscribes a database to what the publisher publishes, and waits for the first copy.
#[track_caller]
fn subscribe(publisher: &Cluster, client: &mut Client, name: &str, is_binary: bool) {
    // The page's statement, with this server and this name.
    let statement = blocks("scaling-out.md", "subscriber")[0]
        .replace(
            "host=primary dbname=photos",
            &format!("host={} dbname=postgres user=postgres", publisher.directory().display()),
        )
        .replace("SUBSCRIPTION photos", &format!("SUBSCRIPTION {name}"))
        .replace("binary = true", &format!("binary = {is_binary}"));
    client.batch_execute(&statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    let state = "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel";
    wait_until(&format!("{name} has the first copy"), || value(client, state));
}

/// Waits until the subscription has everything that the publisher wrote.
#[track_caller]
fn catch_up(publisher: &Cluster, name: &str) {
    let mut client = publisher.client();
    let position: String = value(&mut client, "SELECT pg_current_wal_insert_lsn()::text");
    let query = format!(
        "SELECT coalesce(bool_or(confirmed_flush_lsn >= '{position}'), false) FROM pg_replication_slots WHERE slot_name = '{name}'"
    );
    wait_until(&format!("{name} catches up"), || value(&mut client, &query));
}

/// Ends a subscription, so that its server may be dropped in any order.
fn unsubscribe(client: &mut Client, name: &str) {
    client.batch_execute(&format!("DROP SUBSCRIPTION {name}")).unwrap();
}

const TABLES: &str = "CREATE TABLE photos (id integer PRIMARY KEY, caption text, note text,
         embedding imgvec(256) GENERATED ALWAYS AS (embed_text(caption, 'starter')) STORED);
     CREATE TABLE items (id integer PRIMARY KEY, note text, embedding imgvec(700));
     CREATE TABLE nameless (id integer, embedding imgvec(16)); ALTER TABLE nameless REPLICA IDENTITY FULL";

const CHANGES: [&str; 6] = [
    "INSERT INTO photos SELECT i, 'thing number ' || i FROM generate_series(101, 150) AS i;
     INSERT INTO items SELECT i, '', vec(i, 700) FROM generate_series(101, 150) AS i;
     INSERT INTO nameless SELECT i, vec(i, 16) FROM generate_series(101, 150) AS i",
    // The vectors are not sent again: they lie outside the row.
    "UPDATE items SET note = 'changed' WHERE id <= 50; UPDATE photos SET note = 'changed' WHERE id <= 50",
    "UPDATE photos SET caption = 'another ' || id WHERE id BETWEEN 40 AND 60;
     UPDATE items SET embedding = vec(id + 10000, 700) WHERE id BETWEEN 40 AND 60",
    // No key: the subscriber looks for the whole old row, vector included.
    "UPDATE nameless SET embedding = vec(id + 10000, 16) WHERE id BETWEEN 40 AND 60; DELETE FROM nameless WHERE id < 20",
    "DELETE FROM photos WHERE id < 20; DELETE FROM items WHERE id < 20",
    "UPDATE items SET id = id + 1000 WHERE id > 140",
];

#[test]
fn a_subscriber_has_the_same_vectors_and_indexes_of_its_own() {
    let publisher = server("publisher").start();
    let subscriber = server("subscriber").start();
    let mut writer = publisher.client();
    writer.batch_execute(VECTORS).unwrap();
    writer.batch_execute(TABLES).unwrap();
    script(
        &mut writer,
        "INSERT INTO photos SELECT i, 'thing number ' || i FROM generate_series(1, 100) AS i;
         INSERT INTO items SELECT i, '', vec(i, 700) FROM generate_series(1, 100) AS i;
         INSERT INTO nameless SELECT i, vec(i, 16) FROM generate_series(1, 100) AS i",
    );
    let publish = blocks("scaling-out.md", "publisher").concat();
    writer.batch_execute(&publish.replace("TABLE photos", "TABLE photos, items, nameless")).unwrap();

    let copies = [("by_text", false), ("by_bytes", true)];
    for (name, is_binary) in copies {
        subscriber.client().batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        let mut reader = subscriber.client_of("postgres", name);
        script(&mut reader, "CREATE EXTENSION imgvec");
        reader.batch_execute(VECTORS).unwrap();
        reader.batch_execute(TABLES).unwrap();
        script(
            &mut reader,
            "CREATE INDEX photos_embedding ON photos USING ann (embedding);
             CREATE INDEX items_embedding ON items USING ann (embedding imgvec_l2_ops);
             CREATE INDEX nameless_embedding ON nameless USING ann (embedding)",
        );
        subscribe(&publisher, &mut reader, name, is_binary);
    }
    // A server without the extension takes vectors as text.
    subscriber.client().batch_execute("CREATE DATABASE plain").unwrap();
    let mut plain = subscriber.client_of("postgres", "plain");
    plain
        .batch_execute(
            "CREATE TABLE photos (id integer PRIMARY KEY, caption text, note text);
             CREATE TABLE items (id integer PRIMARY KEY, note text, embedding text);
             CREATE TABLE nameless (id integer, embedding text); ALTER TABLE nameless REPLICA IDENTITY FULL",
        )
        .unwrap();
    subscribe(&publisher, &mut plain, "plain", false);
    for changes in CHANGES {
        writer.batch_execute(changes).unwrap_or_else(|error| panic!("{changes}: {error:?}"));
    }

    let contents =
        "SELECT md5(string_agg(line, ',' ORDER BY line)) FROM (SELECT photos::text AS line FROM photos
        UNION ALL SELECT items::text FROM items UNION ALL SELECT nameless::text FROM nameless) AS everything";
    let expected: String = value(&mut writer, contents);
    for (name, _) in copies {
        catch_up(&publisher, name);
        let mut reader = subscriber.client_of("postgres", name);
        assert_eq!(value::<String>(&mut reader, contents), expected, "{name}");
        script(&mut reader, "VACUUM photos; VACUUM items; VACUUM nameless");
        for (table, operator, query) in [
            ("photos", "<=>", "embed_text('dog', 'starter')"),
            ("items", "<->", "vec(-1, 700)"),
            ("nameless", "<=>", "vec(-1, 16)"),
        ] {
            assert_eq!(check(&mut reader, &format!("{table}_embedding")).rows, 131, "{name}: {table}");
            assert_each_row_once(&mut reader, table, operator, query);
        }
        let query =
            "SELECT id FROM photos ORDER BY embedding <=> embed_text('another 50', 'starter') LIMIT 2";
        assert_eq!(ids(&by_index(&mut reader, query))[0], 50, "{name}");
        let query = "SELECT id FROM items ORDER BY embedding <-> vec(145, 700) LIMIT 2";
        assert_eq!(ids(&by_index(&mut reader, query))[0], 1145, "{name}");
        unsubscribe(&mut reader, name);
    }
    catch_up(&publisher, "plain");
    let items = "SELECT md5(string_agg(id || ' ' || embedding::text, ',' ORDER BY id)) FROM items";
    assert_eq!(value::<String>(&mut plain, items), value::<String>(&mut writer, items));
    let nameless = "SELECT md5(string_agg(id || ' ' || embedding::text, ',' ORDER BY id)) FROM nameless";
    assert_eq!(value::<String>(&mut plain, nameless), value::<String>(&mut writer, nameless));
    unsubscribe(&mut plain, "plain");
}

#[test]
fn a_subscriber_that_has_only_pgvector_gets_our_vectors_and_its_own() {
    let publisher = server("vector-publisher").start_empty();
    let mut writer = publisher.client();
    if !has_pgvector(&mut writer, "vector-publisher") {
        return;
    }
    script(&mut writer, "CREATE EXTENSION imgvec_pgvector CASCADE");
    writer.batch_execute(VECTORS).unwrap();
    script(
        &mut writer,
        "CREATE TABLE items (id integer PRIMARY KEY, note text, own imgvec(16), single vector(16), half halfvec(16));
         CREATE INDEX ON items USING ann (own); CREATE INDEX ON items USING ann (single); CREATE INDEX ON items USING ann (half);
         INSERT INTO items SELECT i, '', vec(i, 16), vec(i, 16), vec(i, 16) FROM generate_series(1, 200) AS i",
    );
    let publish = blocks("scaling-out.md", "publisher").concat();
    writer.batch_execute(&publish.replace("TABLE photos", "TABLE items")).unwrap();
    let subscriber = server("vector-subscriber").start_empty();
    let copies = [("by_text", false), ("by_bytes", true)];
    for (name, is_binary) in copies {
        subscriber.client().batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        let mut reader = subscriber.client_of("postgres", name);
        script(
            &mut reader,
            "CREATE EXTENSION vector;
             CREATE TABLE items (id integer PRIMARY KEY, note text, own vector(16), single vector(16), half halfvec(16));
             CREATE INDEX ON items USING hnsw (own vector_cosine_ops)",
        );
        subscribe(&publisher, &mut reader, name, is_binary);
    }
    script(
        &mut writer,
        "INSERT INTO items SELECT i, '', vec(i, 16), vec(i, 16), vec(i, 16) FROM generate_series(201, 300) AS i;
         UPDATE items SET note = 'changed' WHERE id < 50; UPDATE items SET own = vec(id + 10000, 16), single = own WHERE id BETWEEN 40 AND 60;
         DELETE FROM items WHERE id < 20",
    );
    let contents = "SELECT md5(string_agg(items::text, ',' ORDER BY id)) FROM items";
    let expected: String = value(&mut writer, contents);
    let nearest: String = value(&mut writer, "SELECT quote_literal(vec(10050, 16)::text)");
    for (name, _) in copies {
        catch_up(&publisher, name);
        let mut reader = subscriber.client_of("postgres", name);
        assert_eq!(value::<String>(&mut reader, contents), expected, "{name}");
        let query = format!("SELECT id FROM items ORDER BY own <=> {nearest}::vector LIMIT 2");
        assert_eq!(ids(&by_index(&mut reader, &query))[0], 50, "{name}");
        assert_eq!(
            value::<i64>(&mut reader, "SELECT count(*) FROM pg_extension WHERE extname LIKE 'imgvec%'"),
            0
        );
        unsubscribe(&mut reader, name);
    }
}

#[test]
fn columns_of_pgvector_are_replicated_to_ours() {
    let Some((publisher, mut writer)) = pgvector::start_with("vector-origin", server("vector-origin")) else {
        return;
    };
    script(
        &mut writer,
        "CREATE TABLE items (id integer PRIMARY KEY, embedding vector(16));
         INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(1, 300) AS i",
    );
    let publish = blocks("scaling-out.md", "publisher").concat();
    writer.batch_execute(&publish.replace("TABLE photos", "TABLE items")).unwrap();
    let subscriber = server("vector-target").start();
    let mut reader = subscriber.client();
    reader.batch_execute(VECTORS).unwrap();
    script(
        &mut reader,
        "CREATE TABLE items (id integer PRIMARY KEY, embedding imgvec(16)); CREATE INDEX items_embedding ON items USING ann (embedding)",
    );
    subscribe(&publisher, &mut reader, "ours", true);
    writer.batch_execute("UPDATE items SET embedding = vec(id + 10000, 16) WHERE id > 250").unwrap();
    catch_up(&publisher, "ours");
    assert_eq!(
        ids(&by_index(&mut reader, "SELECT id FROM items ORDER BY embedding <=> vec(10260, 16) LIMIT 2"))[0],
        260
    );
    reader.batch_execute("VACUUM items").unwrap();
    assert_eq!(check(&mut reader, "items_embedding").rows, 300);
    unsubscribe(&mut reader, "ours");
}
