//! Rows that come, change and go, and tables that are changed under the queue.

use super::{CAPTIONS, assert_complete, create_photos, progress, run, start, wrong};
use crate::cluster::run as program;
use crate::{failure, picture, value};

const TEXT: &str = "embed_text(caption, 'starter')";

#[test]
fn embeddings_follow_their_source() {
    let (_cluster, mut client) = start("pipeline-follow");
    run(&mut client, CAPTIONS);
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 600) AS i;
         INSERT INTO notes VALUES (601, NULL), (602, '')",
    );
    assert_eq!(progress(&mut client, "notes"), "601 waiting, 0 failed", "NULL has nothing to wait for");
    run(&mut client, "CALL imgvec_work('notes')");
    assert_complete(&mut client, "notes", TEXT);

    // What did not change is not queued, changed or not by the statement.
    run(&mut client, "UPDATE notes SET other = 'x', caption = caption WHERE id <= 300");
    assert_eq!(progress(&mut client, "notes"), "0 waiting, 0 failed");
    run(
        &mut client,
        "UPDATE notes SET caption = 'another ' || id WHERE id <= 50;
         UPDATE notes SET caption = NULL WHERE id = 60;
         UPDATE notes SET id = id + 10000 WHERE id = 70;
         UPDATE notes SET embedding = NULL WHERE id = 80;
         DELETE FROM notes WHERE id IN (1, 90);
         INSERT INTO notes VALUES (2, 'conflict') ON CONFLICT (id) DO UPDATE SET caption = 'changed by it'",
    );
    assert_ne!(wrong(&mut client, "notes", TEXT), 0);
    run(&mut client, "CALL imgvec_work('notes')");
    assert_complete(&mut client, "notes", TEXT);
    // An embedding that somebody else wrote does not stay.
    run(
        &mut client,
        "UPDATE notes SET embedding = embed_text('nonsense', 'starter') WHERE id = 5;
                      CALL imgvec_work('notes')",
    );
    assert_complete(&mut client, "notes", TEXT);
    // What is undone is not queued; an aborted change leaves the queue as it was.
    run(&mut client, "BEGIN;\nINSERT INTO notes VALUES (9000, 'nobody');\nROLLBACK");
    assert_eq!(progress(&mut client, "notes"), "0 waiting, 0 failed");
    let runs: i64 = value(&mut client, "SELECT texts_embedded FROM imgvec_backend_stats");
    run(&mut client, "CALL imgvec_work('notes')");
    assert_eq!(value::<i64>(&mut client, "SELECT texts_embedded FROM imgvec_backend_stats"), runs);
}

/// What triggers of users write while a batch stores embeddings is a change like any other, but for an embedding that they finish.
#[test]
fn triggers_that_a_batch_fires_queue_rows() {
    let (_cluster, mut client) = start("pipeline-triggers");
    // In one piece, because of the functions.
    let tables = "CREATE TABLE albums (id int PRIMARY KEY, caption text, embedding imgvec(256));
         CREATE TABLE notes (id int PRIMARY KEY, album int, caption text, other text, embedding imgvec(256), second imgvec(256));
         SELECT imgvec_maintain('albums', 'caption', 'embedding', 'starter'),
                imgvec_maintain('notes', 'caption', 'embedding', 'starter'), imgvec_maintain('notes', 'other', 'second', 'starter');
         CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$
         BEGIN
             IF new.caption = 'forget' THEN
                 UPDATE albums SET embedding = NULL WHERE id = new.album;
                 UPDATE notes SET embedding = NULL WHERE id = 2;
             ELSIF new.caption = 'replace' THEN
                 UPDATE albums SET embedding = new.embedding WHERE id = new.album;
             ELSIF new.caption = 'finish' AND new.embedding IS DISTINCT FROM embed_text('finished', 'starter') THEN
                 UPDATE notes SET embedding = embed_text('finished', 'starter') WHERE id = new.id;
             END IF;
             RETURN NULL;
         END $$;
         CREATE TRIGGER follow AFTER UPDATE OF embedding ON notes FOR EACH ROW EXECUTE FUNCTION follow();
         CREATE FUNCTION reset() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF new.caption = 'reset' THEN new.second := NULL; END IF;
             RETURN new;
         END $$;
         CREATE TRIGGER reset BEFORE UPDATE OF embedding ON notes FOR EACH ROW EXECUTE FUNCTION reset();
         INSERT INTO albums VALUES (1, 'dogs');
         INSERT INTO notes SELECT i, 1, 'a dog', 'a cat', NULL, NULL FROM generate_series(1, 3) AS i";
    client.batch_execute(tables).unwrap();
    run(&mut client, "CALL imgvec_work()");
    let second = "embed_text(other, 'starter')";
    for caption in ["forget", "replace", "reset"] {
        // A column whose turn was earlier has its own in the next call.
        let work = "CALL imgvec_work();\nCALL imgvec_work()";
        run(&mut client, &format!("UPDATE notes SET caption = '{caption}' WHERE id = 1;\n{work}"));
        assert_complete(&mut client, "albums", TEXT);
        assert_complete(&mut client, "notes", TEXT);
        let others = format!("SELECT count(*) FROM notes WHERE second IS DISTINCT FROM {second}");
        assert_eq!(value::<i64>(&mut client, &others), 0, "{caption}");
    }
    // It stays, and the work ends.
    run(&mut client, "UPDATE notes SET caption = 'finish' WHERE id = 1;\nCALL imgvec_work()");
    assert_eq!(progress(&mut client, "notes"), "0 waiting, 0 failed");
    let finished = "SELECT embedding = embed_text('finished', 'starter') FROM notes WHERE id = 1";
    assert!(value::<bool>(&mut client, finished));
}

#[test]
fn old_rows_are_embedded_in_the_background_and_ended_maintenance_leaves_them() {
    let (_cluster, mut client) = start("pipeline-backfill");
    run(
        &mut client,
        "CREATE TABLE notes (a text, b uuid, caption text, embedding imgvec(256), PRIMARY KEY (a, b));
         INSERT INTO notes SELECT 'k' || i % 7, md5(i::text)::uuid, CASE WHEN i % 10 <> 0 THEN 'old thing ' || i END FROM generate_series(1, 25000) AS i;
         UPDATE notes SET embedding = embed_text('kept', 'starter') WHERE a = 'k3'",
    );
    run(&mut client, "SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter')");
    assert_eq!(
        progress(&mut client, "notes"),
        format!(
            "{} waiting, 0 failed",
            value::<i64>(&mut client, "SELECT count(*) FROM notes WHERE a <> 'k3' AND caption IS NOT NULL")
        )
    );
    // The queue stays short: the backfill follows the work.
    run(&mut client, "CALL imgvec_work('notes', max_seconds => 0)");
    run(&mut client, "CALL imgvec_work('notes', max_seconds => 0)");
    assert!(value::<i64>(&mut client, "SELECT count(*) FROM notes_embedding_queue") <= 10_000);
    // Rows after and before the backfill's place change meanwhile.
    run(
        &mut client,
        "UPDATE notes SET a = 'a0', caption = caption || '!' WHERE a = 'k6';
         UPDATE notes SET a = 'z0' WHERE a = 'k0';
         INSERT INTO notes SELECT 'b', md5(i::text)::uuid, 'new ' || i FROM generate_series(1, 50) AS i;
         CALL imgvec_work('notes')",
    );
    assert_eq!(progress(&mut client, "notes"), "0 waiting, 0 failed");
    assert_eq!(
        value::<i64>(
            &mut client,
            "SELECT count(*) FROM notes WHERE a <> 'k3' AND (embedding IS NULL <> (caption IS NULL)
            OR (embedding <=> embed_text(caption, 'starter')) > 1e-5)"
        ),
        0
    );
    let kept =
        "SELECT count(*) FROM notes WHERE a = 'k3' AND (embedding <=> embed_text('kept', 'starter')) > 1e-5";
    assert_eq!(value::<i64>(&mut client, kept), 0, "an embedding that is there is left");

    run(&mut client, "SELECT imgvec_maintain('notes', target => 'embedding', stop => true)");
    assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM notes WHERE a = 'b'"), 50);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM imgvec_progress"), 0);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal"), 0);
    assert_eq!(
        value::<i64>(&mut client, "SELECT count(*) FROM pg_class WHERE relname ~ 'notes_embedding'"),
        0
    );
    // Again, and all of them this time.
    run(
        &mut client,
        "SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter', backfill => 'all');
                      CALL imgvec_work('notes')",
    );
    assert_complete(&mut client, "notes", TEXT);
}

#[test]
fn a_source_may_be_any_expression_and_names_may_be_hostile() {
    let (_cluster, mut client) = start("pipeline-hostile");
    run(
        &mut client,
        r#"CREATE SCHEMA "o'Neil; --";
        CREATE FUNCTION "o'Neil; --".say(text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'say ' || $1 $$;
        CREATE DOMAIN label AS text;
        CREATE TYPE mood AS ENUM ('happy', 'sad');
        CREATE TABLE "o'Neil; --"."tab""le é" ("k'1" mood, "k""2" label, "select" varchar(99), "p" text, q text, k1 text, "embed\ding {x}" imgvec(256),
            UNIQUE ("k'1", "k""2"));
        ALTER TABLE "o'Neil; --"."tab""le é" ALTER "k'1" SET NOT NULL, ALTER "k""2" SET NOT NULL;
        INSERT INTO "o'Neil; --"."tab""le é" SELECT 'sad', 'x' || i, 'sel' || i, 'p', 'q', 'k1' FROM generate_series(1, 20) AS i;
        SET search_path = "o'Neil; --", public;
        SELECT imgvec_maintain('"tab""le é"', $$say("select") || ' ' || coalesce(p, '-') || q || k1 -- comment$$, 'embed\ding {x}', 'starter');
        SET search_path = '';
        INSERT INTO "o'Neil; --"."tab""le é" SELECT 'happy', 'x' || i, 'sel' || i, NULL, 'q', 'k1' FROM pg_catalog.generate_series(1, 20) AS i;
        CALL public.imgvec_work('"o''Neil; --"."tab""le é"')"#,
    );
    run(&mut client, "RESET search_path");
    let expected = r#"SELECT count(*) FROM "o'Neil; --"."tab""le é" AS t WHERE abs("embed\ding {x}" <=>
        embed_text('say ' || "select" || ' ' || coalesce(p, '-') || q || k1, 'starter')) < 1e-5"#;
    assert_eq!(value::<i64>(&mut client, expected), 40);
    let line = r"SELECT format('%s %s %s', target, embedded, waiting) FROM imgvec_progress";
    assert_eq!(value::<String>(&mut client, line), r"embed\ding {x} 40 0");
    // A name as long as names get, twice on one table.
    let long = "l".repeat(63);
    run(
        &mut client,
        &format!(
            "CREATE TABLE {long} (id int PRIMARY KEY, caption text, {long} imgvec(256), e2 imgvec(256));
             SELECT imgvec_maintain('{long}', 'caption', '{long}', 'starter');
             SELECT imgvec_maintain('{long}', 'upper(caption)', 'e2', 'starter');
             INSERT INTO {long} VALUES (1, 'a dog');
             CALL imgvec_work('{long}')"
        ),
    );
    assert_eq!(
        value::<i64>(
            &mut client,
            &format!(
                "SELECT count(*) FROM {long} WHERE abs({long} <=> embed_text('a dog', 'starter')) < 1e-5
            AND abs(e2 <=> embed_text('A DOG', 'starter')) < 1e-5"
            )
        ),
        1
    );
}

#[test]
fn partitions_are_maintained_whichever_way_rows_come_in() {
    let (_cluster, mut client) = start("pipeline-partitions");
    run(
        &mut client,
        "CREATE TABLE notes (dropped int, id int, region text, caption text, embedding imgvec(256), PRIMARY KEY (region, id)) PARTITION BY LIST (region);
         ALTER TABLE notes DROP COLUMN dropped;
         CREATE TABLE notes_a PARTITION OF notes FOR VALUES IN ('a');
         CREATE TABLE notes_b (embedding imgvec(256), caption text, id int NOT NULL, region text NOT NULL);
         ALTER TABLE notes ATTACH PARTITION notes_b FOR VALUES IN ('b');
         INSERT INTO notes SELECT i, 'a', 'old ' || i FROM generate_series(1, 30) AS i;
         SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter');
         INSERT INTO notes SELECT i, 'b', 'by the root ' || i FROM generate_series(1, 30) AS i;
         INSERT INTO notes_b (id, region, caption) SELECT i, 'b', 'into the partition ' || i FROM generate_series(31, 60) AS i;
         CREATE TABLE notes_c PARTITION OF notes FOR VALUES IN ('c');
         INSERT INTO notes_c (id, region, caption) SELECT i, 'c', 'later ' || i FROM generate_series(1, 30) AS i;
         CALL imgvec_work('notes')",
    );
    assert_complete(&mut client, "notes", TEXT);
    // Rows move, and columns get other names.
    run(
        &mut client,
        "UPDATE notes SET region = 'a', id = id + 1000 WHERE region = 'b' AND id <= 10;
         UPDATE notes SET region = 'c', id = id + 1000, caption = 'moved ' || id WHERE region = 'b' AND id <= 20;
         ALTER TABLE notes RENAME COLUMN caption TO words;
         ALTER TABLE notes RENAME COLUMN id TO number;
         UPDATE notes_c SET words = 'renamed ' || number WHERE number < 5;
         INSERT INTO notes VALUES (5000, 'b', 'after the renaming');
         CALL imgvec_work('notes')",
    );
    assert_complete(&mut client, "notes", "embed_text(words, 'starter')");
}

#[test]
fn tables_that_are_renamed_moved_truncated_or_dropped() {
    let (_cluster, mut client) = start("pipeline-ddl");
    run(&mut client, CAPTIONS);
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 40) AS i;
         ALTER TABLE notes RENAME TO remarks;
         ALTER TABLE remarks RENAME COLUMN caption TO words;
         ALTER TABLE remarks RENAME COLUMN embedding TO vector;
         ALTER TABLE remarks RENAME COLUMN id TO number;
         CREATE SCHEMA other; ALTER TABLE remarks SET SCHEMA other;
         ALTER TABLE other.remarks DROP COLUMN other;
         INSERT INTO other.remarks SELECT i, 'later ' || i FROM generate_series(41, 80) AS i;
         CALL imgvec_work('other.remarks')",
    );
    let right =
        "SELECT count(*) FROM other.remarks WHERE abs(vector <=> embed_text(words, 'starter')) < 1e-5";
    assert_eq!(value::<i64>(&mut client, right), 80);
    assert_eq!(value::<String>(&mut client, "SELECT target FROM imgvec_progress"), "vector");
    // Rows that are gone wait for nothing.
    run(
        &mut client,
        "UPDATE other.remarks SET words = 'again ' || number;
         TRUNCATE other.remarks;
         INSERT INTO other.remarks VALUES (1, 'the only one');
         CALL imgvec_work('other.remarks')",
    );
    assert_eq!(value::<i64>(&mut client, right), 1);
    assert_eq!(progress(&mut client, "other.remarks"), "0 waiting, 0 failed");
    // A source that is gone: told, and nothing is lost.
    run(
        &mut client,
        "ALTER TABLE other.remarks ADD COLUMN e2 imgvec(256), ADD COLUMN more text;
                      SELECT imgvec_maintain('other.remarks', 'words || more', 'e2', 'starter')",
    );
    let error = failure(&mut client, "DROP TABLE notes_embedding_queue");
    assert_eq!(error.code().code(), "2BP01", "{error:?}");
    // The column takes everything with it, without CASCADE, and so does the table.
    run(&mut client, "ALTER TABLE other.remarks DROP COLUMN vector");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM pg_class WHERE relname ~ '_queue'"), 1);
    run(&mut client, "INSERT INTO other.remarks VALUES (2, 'x', NULL, 'y'); CALL imgvec_work('other.remarks'); DROP TABLE other.remarks".replace("; ", ";\n").as_str());
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM pg_class WHERE relname ~ '_queue|_log'"), 0);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM imgvec_progress"), 0);
    run(&mut client, "CALL imgvec_work()");
}

#[test]
fn an_owner_who_changes_takes_the_queue_along() {
    let (cluster, mut client) = start("pipeline-owner");
    run(
        &mut client,
        "CREATE ROLE first LOGIN; CREATE ROLE second LOGIN; GRANT CREATE ON SCHEMA public TO first",
    );
    let mut first = cluster.client_of("first", "postgres");
    run(&mut first, CAPTIONS);
    run(&mut first, "INSERT INTO notes VALUES (1, 'by the first')");
    run(&mut client, "ALTER TABLE notes OWNER TO second");
    let mut second = cluster.client_of("second", "postgres");
    // The tables that belong to the column still belong to the first owner.
    run(&mut second, "INSERT INTO notes VALUES (2, 'by the second')");
    let error = failure(&mut second, "CALL imgvec_work('notes')");
    assert_eq!(error.code().code(), "42501", "{error:?}");
    run(
        &mut client,
        "ALTER TABLE notes_embedding_queue OWNER TO second; ALTER TABLE notes_embedding_log OWNER TO second",
    );
    run(&mut second, "CALL imgvec_work('notes')");
    assert_complete(&mut second, "notes", TEXT);
}

#[test]
fn a_dump_carries_declaration_and_queue() {
    let (cluster, mut client) = start("pipeline-dump");
    run(
        &mut client,
        "CREATE ROLE painter LOGIN;\nCREATE DATABASE album OWNER painter;\nCREATE DATABASE copy OWNER painter",
    );
    let mut admin = cluster.client_of("postgres", "album");
    run(&mut admin, "CREATE SCHEMA extensions; CREATE EXTENSION imgvec SCHEMA extensions; GRANT USAGE ON SCHEMA extensions TO painter;
        GRANT CREATE ON SCHEMA public TO painter");
    let mut painter = cluster.client_of("painter", "album");
    run(
        &mut painter,
        "SET search_path = extensions, public;
         CREATE TABLE public.notes (gone int, id int PRIMARY KEY, caption text, embedding imgvec(256));
         ALTER TABLE public.notes DROP COLUMN gone;
         SELECT imgvec_maintain('public.notes', 'caption', 'embedding', 'starter');
         INSERT INTO public.notes SELECT i, 'thing ' || i FROM generate_series(1, 50) AS i;
         CALL imgvec_work('public.notes');
         UPDATE public.notes SET caption = 'changed ' || id WHERE id <= 10",
    );
    let file = cluster.directory().join("album.sql");
    program(cluster.program("pg_dump").args(["--dbname=album", "--username=painter", "--file"]).arg(&file));
    let mut admin = cluster.client_of("postgres", "copy");
    run(&mut admin, "CREATE SCHEMA extensions; CREATE EXTENSION imgvec SCHEMA extensions; GRANT CREATE, USAGE ON SCHEMA extensions TO painter;
        GRANT CREATE ON SCHEMA public TO painter");
    // The role's dump names the extension and its schema, which only a superuser may create: those are there.
    program(cluster.program("psql").args(["-X", "-q", "-d", "copy", "-U", "painter", "-f"]).arg(&file));
    let mut copy = cluster.client_of("painter", "copy");
    run(&mut copy, "SET search_path = extensions, public");
    assert_eq!(progress(&mut copy, "public.notes"), "10 waiting, 0 failed");
    run(
        &mut copy,
        "INSERT INTO public.notes VALUES (100, 'after the restore');
                    CALL imgvec_work('public.notes')",
    );
    assert_complete(&mut copy, "public.notes", TEXT);
    run(&mut copy, "DROP TABLE public.notes");
    assert_eq!(
        value::<i64>(&mut copy, "SELECT count(*) FROM pg_class WHERE relname ~ '_queue|_log'"),
        0,
        "tied again"
    );
}

#[test]
fn a_dump_of_one_table_needs_its_queue_and_log_or_a_new_declaration() {
    let (cluster, mut client) = start("pipeline-dump-table");
    run(&mut client, CAPTIONS);
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 50) AS i;
         CALL imgvec_work('notes');
         UPDATE notes SET caption = 'changed ' || id WHERE id <= 10",
    );
    let mut copy = |database: &str, tables: &[&str]| {
        run(&mut client, &format!("CREATE DATABASE {database}"));
        let mut copy = cluster.client_of("postgres", database);
        run(&mut copy, "CREATE EXTENSION imgvec");
        let file = cluster.directory().join(format!("{database}.sql"));
        program(cluster.program("pg_dump").args(tables).arg("--file").arg(&file));
        let arguments = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-f"];
        program(cluster.program("psql").args(arguments).arg(&file));
        copy
    };
    let mut whole = copy("whole", &["-t", "notes", "-t", "notes_embedding_*"]);
    assert_eq!(progress(&mut whole, "notes"), "10 waiting, 0 failed");
    run(&mut whole, "INSERT INTO notes VALUES (100, 'after the restore');\nCALL imgvec_work('notes')");
    assert_complete(&mut whole, "notes", TEXT);
    let mut bare = copy("bare", &["-t", "notes"]);
    let insert = "INSERT INTO notes VALUES (100, 'after the restore')";
    let error = failure(&mut bare, insert);
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert!(error.detail().is_some_and(|detail| detail.contains("is missing")), "{error:?}");
    run(
        &mut bare,
        &format!(
            "SELECT imgvec_maintain('notes', target => 'embedding', stop => true);
             {insert};
             SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter', backfill => 'all');
             CALL imgvec_work('notes')"
        ),
    );
    assert_complete(&mut bare, "notes", TEXT);
}

#[test]
fn pictures_are_compared_without_reading_them() {
    let (_cluster, mut client) = start("pipeline-pictures");
    create_photos(&mut client, 12);
    run(&mut client, "CALL imgvec_work('photos')");
    assert_complete(&mut client, "photos", "embed_image(data, 'starter')");
    run(
        &mut client,
        "ALTER TABLE photos ADD COLUMN note text;
                      UPDATE photos SET note = 'x'",
    );
    assert_eq!(progress(&mut client, "photos"), "0 waiting, 0 failed");
    client.execute("UPDATE photos SET data = $1 WHERE id = 3", &[&picture(3)]).unwrap();
    assert_eq!(progress(&mut client, "photos"), "0 waiting, 0 failed", "the same picture again");
    client.execute("UPDATE photos SET data = $1 WHERE id = 3", &[&picture(300)]).unwrap();
    assert_eq!(progress(&mut client, "photos"), "1 waiting, 0 failed");
    run(&mut client, "CALL imgvec_work()");
    assert_complete(&mut client, "photos", "embed_image(data, 'starter')");
}
