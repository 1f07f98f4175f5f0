//! Rows that cannot be embedded: exactly those fail, for as long as it makes sense, and the rest does not wait.

use image::{ImageFormat, RgbImage};
use std::io::Cursor;

use super::{CAPTIONS, assert_complete, create_photos, progress, run, start};
use crate::{failure, picture, value};

/// A PNG that says that it is 30,000 pixels wide and high.
fn bomb() -> Vec<u8> {
    let mut data = Cursor::new(Vec::new());
    RgbImage::new(1, 1).write_to(&mut data, ImageFormat::Png).unwrap();
    let mut data = data.into_inner();
    data[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]);
    data
}

#[test]
fn broken_pictures_fail_alone() {
    let (_cluster, mut client) = start("pipeline-broken");
    create_photos(&mut client, 100);
    run(&mut client, "CALL imgvec_work('photos')");
    // Of new rows and of changed ones.
    for id in [7, 50, 51, 52, 88] {
        client
            .execute("UPDATE photos SET data = $1 WHERE id = $2", &[&b"not a picture".as_slice(), &id])
            .unwrap();
    }
    for id in [200, 201] {
        client.execute("INSERT INTO photos VALUES ($2, $1)", &[&bomb(), &id]).unwrap();
    }
    client.execute("INSERT INTO photos VALUES (202, $1)", &[&&picture(202)[..500]]).unwrap();
    client.execute("INSERT INTO photos VALUES (203, $1)", &[&picture(203)]).unwrap();
    run(&mut client, "CALL imgvec_work('photos')");
    assert_eq!(progress(&mut client, "photos"), "0 waiting, 8 failed");
    let failed = "SELECT string_agg(format('%s %s %s', key->>'id', left(sqlstate, 2), attempts), ', ' ORDER BY (key->>'id')::int) FROM imgvec_failures";
    assert_eq!(
        value::<String>(&mut client, failed),
        "7 22 1, 50 22 1, 51 22 1, 52 22 1, 88 22 1, 200 54 1, 201 54 1, 202 22 1"
    );
    // An embedding of what was there before would be wrong.
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM photos WHERE embedding IS NULL"), 8);
    let right = "SELECT count(*) FROM photos WHERE embedding IS NOT NULL AND abs(embedding <=> embed_image(data, 'starter')) < 1e-5";
    assert_eq!(value::<i64>(&mut client, right), 96);
    let error: String = value(&mut client, "SELECT last_error FROM imgvec_progress");
    assert!(
        error.starts_with("22P03 could not decode image")
            || error.starts_with("54000")
            || error.starts_with("22P03"),
        "{error}"
    );

    // Mended, deleted, emptied, and left as they are.
    client.execute("UPDATE photos SET data = $1 WHERE id = 7", &[&picture(7)]).unwrap();
    run(
        &mut client,
        "DELETE FROM photos WHERE id IN (50, 200);
                      UPDATE photos SET data = NULL WHERE id = 51;
                      CALL imgvec_work('photos')",
    );
    assert_eq!(progress(&mut client, "photos"), "0 waiting, 4 failed");
    assert_eq!(value::<i64>(&mut client, "SELECT imgvec_retry('photos', sqlstate => '00000')"), 0);
    assert_eq!(value::<i64>(&mut client, "SELECT imgvec_retry('photos', sqlstate => '54000')"), 2);
    assert!(value::<i64>(&mut client, "SELECT imgvec_retry('photos')") >= 3);
    assert_eq!(value::<i64>(&mut client, "SELECT imgvec_retry('photos')"), 0, "queued already");
    run(&mut client, "CALL imgvec_work('photos')");
    let failed = "SELECT string_agg(format('%s %s', key->>'id', attempts), ', ' ORDER BY (key->>'id')::int) FROM imgvec_failures";
    assert_eq!(value::<String>(&mut client, failed), "52 1, 88 1, 201 1, 202 1");
}

#[test]
fn an_expression_or_an_update_that_raises_fails_its_row() {
    let (_cluster, mut client) = start("pipeline-raise");
    run(
        &mut client,
        "CREATE FUNCTION words(id int, caption text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
             IF id % 50 = 0 THEN RAISE EXCEPTION 'no words for %', id USING ERRCODE = 'P0042'; END IF; RETURN caption; END $$;
         CREATE TABLE notes (id int PRIMARY KEY, caption text, embedding imgvec(256), CHECK (id <> 77 OR embedding IS NULL));
         SELECT imgvec_maintain('notes', 'words(id, caption)', 'embedding', 'starter');
         INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 300) AS i;
         CALL imgvec_work('notes')",
    );
    let failed = "SELECT string_agg(format('%s %s', key->>'id', sqlstate), ', ' ORDER BY (key->>'id')::int) FROM imgvec_failures";
    assert_eq!(
        value::<String>(&mut client, failed),
        "50 P0042, 77 23514, 100 P0042, 150 P0042, 200 P0042, 250 P0042, 300 P0042"
    );
    assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM notes"), 293);
    // Where all rows fail alike, none is given up.
    run(
        &mut client,
        "UPDATE notes SET caption = 'again' WHERE id < 10;
                      ALTER FUNCTION words(int, text) RENAME TO other_words",
    );
    let error = failure(&mut client, "CALL imgvec_work('notes')");
    assert_eq!(error.code().code(), "42883", "{error:?}");
    assert_eq!(progress(&mut client, "notes"), "9 waiting, 7 failed");
    let error: String = value(&mut client, "SELECT last_error FROM imgvec_progress");
    assert!(error.starts_with("42883 function public.words"), "{error}");
    run(
        &mut client,
        "ALTER FUNCTION other_words(int, text) RENAME TO words;
                      CALL imgvec_work('notes')",
    );
    assert_eq!(progress(&mut client, "notes"), "0 waiting, 7 failed");
    // A trigger that leaves the update out is told of, and does not keep the queue from getting empty.
    run(
        &mut client,
        "CREATE FUNCTION leave_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.id = 5 AND NEW.caption = OLD.caption THEN RETURN NULL; END IF; RETURN NEW; END $$;
         CREATE TRIGGER leave_out BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION leave_out();
         UPDATE notes SET caption = 'once more' WHERE id IN (5, 6);
         CALL imgvec_work('notes')",
    );
    assert_eq!(progress(&mut client, "notes"), "0 waiting, 8 failed");
    let why = "SELECT sqlstate FROM imgvec_failures WHERE key->>'id' = '5'";
    assert_eq!(value::<String>(&mut client, why), "09000");
}

#[test]
fn a_failure_that_may_pass_is_tried_again_later() {
    let (cluster, mut client) = start("pipeline-later");
    let path = cluster.directory().join("data").join("picture.png");
    run(
        &mut client,
        "CREATE TABLE photos (id int PRIMARY KEY, path text, embedding imgvec(256));
         SELECT imgvec_maintain('photos', 'pg_read_binary_file(path)', 'embedding', 'starter');
         INSERT INTO photos VALUES (1, 'picture.png');
         CALL imgvec_work('photos')",
    );
    // It waits, and nothing is embedded before its time.
    assert_eq!(progress(&mut client, "photos"), "1 waiting, 0 failed");
    let log = "SELECT format('%s %s %s', kind, sqlstate, attempts) FROM photos_embedding_log WHERE kind IN ('failed', 'retry')";
    assert_eq!(value::<String>(&mut client, log), "retry 58P01 1");
    run(&mut client, "CALL imgvec_work('photos')");
    assert_eq!(value::<String>(&mut client, log), "retry 58P01 1");
    // As if its time had come, again and again.
    for attempts in 2..=8 {
        run(
            &mut client,
            "UPDATE photos_embedding_log SET not_before = now() WHERE kind = 'retry';
                          CALL imgvec_work('photos')",
        );
        let kind = if attempts == 8 { "failed" } else { "retry" };
        assert_eq!(value::<String>(&mut client, log), format!("{kind} 58P01 {attempts}"));
    }
    std::fs::write(&path, picture(1)).unwrap();
    cluster.give(&path);
    assert_eq!(value::<i64>(&mut client, "SELECT imgvec_retry('photos')"), 1);
    run(&mut client, "CALL imgvec_work('photos')");
    assert_eq!(progress(&mut client, "photos"), "0 waiting, 0 failed");
    assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM photos"), 1);
}

#[test]
fn a_model_that_is_missing_stops_the_work_and_loses_nothing() {
    let (_cluster, mut client) = start("pipeline-model");
    run(&mut client, CAPTIONS);
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 30) AS i;
                      SET imgvec.model_path = '/nowhere'",
    );
    let error = failure(&mut client, "CALL imgvec_work('notes')");
    assert_eq!(error.code().code(), "42704", "{error:?}");
    assert_eq!(progress(&mut client, "notes"), "30 waiting, 0 failed");
    run(
        &mut client,
        "RESET imgvec.model_path;
                      CALL imgvec_work('notes')",
    );
    assert_complete(&mut client, "notes", "embed_text(caption, 'starter')");
    assert_eq!(value::<i64>(&mut client, "SELECT count(last_error) FROM imgvec_progress"), 0);
}

#[test]
fn a_call_for_all_tables_goes_on_after_an_error_of_one() {
    let (_cluster, mut client) = start("pipeline-several");
    run(&mut client, "CREATE FUNCTION broken(text) RETURNS text LANGUAGE sql AS 'SELECT $1'");
    let create = |client: &mut postgres::Client, name: &str, source: &str| {
        run(
            client,
            &format!(
                "CREATE TABLE {name} (id bigint PRIMARY KEY, caption text, embedding imgvec(256));
                 SELECT imgvec_maintain('{name}', '{source}', 'embedding', 'starter');
                 INSERT INTO {name} SELECT i, 'thing ' || i FROM generate_series(1, 50) AS i"
            ),
        );
    };
    // Whichever way they are sorted, one comes before the good one.
    create(&mut client, "bad_first", "broken(caption)");
    create(&mut client, "good", "caption");
    create(&mut client, "very_bad", "broken(caption)");
    run(&mut client, "DROP FUNCTION broken(text)");
    let error = failure(&mut client, "CALL imgvec_work()");
    assert_eq!(error.code().code(), "42883", "{error:?}");
    for part in ["2 columns", "bad_first", "very_bad"] {
        assert!(error.message().contains(part), "{error:?}");
    }
    assert!(error.detail().is_some_and(|detail| detail.contains("broken")), "{error:?}");
    assert_complete(&mut client, "good", "embed_text(caption, 'starter')");
    for bad in ["bad_first", "very_bad"] {
        assert_eq!(progress(&mut client, bad), "50 waiting, 0 failed");
    }
    let told: i64 = value(
        &mut client,
        "SELECT count(*) FROM imgvec_progress WHERE last_error LIKE '42883 function%broken%'",
    );
    assert_eq!(told, 2);
    // One that fails among several is named.
    run(&mut client, "SELECT imgvec_maintain('very_bad', target => 'embedding', stop => true)");
    let error = failure(&mut client, "CALL imgvec_work()");
    assert_eq!(error.code().code(), "42883", "{error:?}");
    assert!(error.message().contains("bad_first") && error.message().contains("broken"), "{error:?}");
    run(
        &mut client,
        "CREATE FUNCTION broken(text) RETURNS text LANGUAGE sql AS 'SELECT $1';
         INSERT INTO good SELECT i, 'more ' || i FROM generate_series(51, 60) AS i;
         CALL imgvec_work()",
    );
    assert_complete(&mut client, "bad_first", "embed_text(caption, 'starter')");
    assert_complete(&mut client, "good", "embed_text(caption, 'starter')");
}

#[test]
fn a_lock_timeout_of_one_table_does_not_keep_others_waiting() {
    let (cluster, mut client) = start("pipeline-locked");
    for name in ["a", "b", "c"] {
        run(
            &mut client,
            &format!(
                "CREATE TABLE {name} (id bigint PRIMARY KEY, caption text, embedding imgvec(256));
                 SELECT imgvec_maintain('{name}', 'caption', 'embedding', 'starter');
                 INSERT INTO {name} SELECT i, 'thing ' || i FROM generate_series(1, 50) AS i"
            ),
        );
    }
    let mut holder = cluster.client();
    run(&mut holder, "BEGIN;\nLOCK TABLE a, c IN SHARE MODE");
    run(&mut client, "SET lock_timeout = '200ms'");
    let error = failure(&mut client, "CALL imgvec_work()");
    assert_eq!(error.code().code(), "55P03", "{error:?}");
    assert!(error.message().contains("2 columns"), "{error:?}");
    assert_complete(&mut client, "b", "embed_text(caption, 'starter')");
    run(&mut holder, "COMMIT");
    run(&mut client, "CALL imgvec_work()");
    for name in ["a", "c"] {
        assert_complete(&mut client, name, "embed_text(caption, 'starter')");
    }
}

#[test]
fn cancelling_ends_the_call_for_all_tables() {
    let (_cluster, mut client) = start("pipeline-cancel-all");
    run(
        &mut client,
        "CREATE FUNCTION slow(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.1); RETURN $1; END $$",
    );
    for name in ["a", "b"] {
        run(
            &mut client,
            &format!(
                "CREATE TABLE {name} (id bigint PRIMARY KEY, caption text, embedding imgvec(256));
                 SELECT imgvec_maintain('{name}', 'slow(caption)', 'embedding', 'starter');
                 INSERT INTO {name} SELECT i, 'thing ' || i FROM generate_series(1, 200) AS i"
            ),
        );
    }
    run(&mut client, "SET statement_timeout = '2s'");
    let error = failure(&mut client, "CALL imgvec_work()");
    assert_eq!(error.code().code(), "57014", "{error:?}");
    run(&mut client, "SET statement_timeout = 0");
    let untouched =
        "SELECT count(*) FROM imgvec_progress WHERE waiting = 200 AND embedded = 0 AND last_error IS NULL";
    assert!(value::<i64>(&mut client, untouched) >= 1, "the second table was not begun");
    let all = "SELECT sum(waiting + embedded)::bigint FROM imgvec_progress";
    assert_eq!(value::<i64>(&mut client, all), 400);
}

#[test]
fn failures_are_told_however_many_there_are() {
    let (_cluster, mut client) = start("pipeline-many-failures");
    run(&mut client, CAPTIONS);
    run(
        &mut client,
        "INSERT INTO notes SELECT i, 'thing' FROM generate_series(1, 3000) AS i;
         TRUNCATE notes_embedding_queue;
         INSERT INTO notes_embedding_log (k1, kind, at, sqlstate, message, attempts)
             SELECT i, 'failed', '2026-01-01'::timestamptz + make_interval(secs => i), '22000', repeat('é', 500) || i, i % 7
             FROM generate_series(1, 3005) AS i;
         CREATE TABLE more (id text PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('more', 'caption', 'embedding', 'starter');
         INSERT INTO more SELECT 'row ' || i, 'thing' FROM generate_series(1, 300) AS i;
         INSERT INTO more_embedding_log (k1, kind, at, sqlstate, message, attempts)
             SELECT 'row ' || i, 'failed', now(), '22001', 'no', 1 FROM generate_series(1, 300) AS i;
         SET work_mem = '64kB'",
    );
    // Rows that are gone are left out, and the rest comes in order.
    let wrong = "SELECT count(*) FROM (SELECT *, row_number() OVER () AS number FROM imgvec_failures) AS f
        WHERE relation = 'notes'::regclass AND (target, key, sqlstate, message, attempts, at) IS DISTINCT FROM
            ('embedding', jsonb_build_object('id', number), '22000', repeat('é', 500) || number, (number % 7)::int,
                '2026-01-01'::timestamptz + make_interval(secs => number))";
    assert_eq!(value::<i64>(&mut client, wrong), 0);
    let counts =
        "SELECT string_agg(format('%s %s %s', relation, n, keys), ', ' ORDER BY relation::text) FROM (
        SELECT relation, count(*) AS n, count(DISTINCT key) AS keys FROM imgvec_failures GROUP BY 1) AS c";
    assert_eq!(value::<String>(&mut client, counts), "more 300 300, notes 3000 3000");
    // Where the server wants values, and where it reads back and forth.
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM (SELECT imgvec_failure_list()) AS f"), 3300);
    run(
        &mut client,
        "BEGIN;\nDECLARE c SCROLL CURSOR FOR SELECT message FROM imgvec_failures WHERE relation = 'notes'::regclass;
         MOVE 2999 FROM c",
    );
    assert!(value::<String>(&mut client, "FETCH NEXT FROM c").ends_with("é3000"));
    assert!(value::<String>(&mut client, "FETCH ABSOLUTE 7 FROM c").ends_with("é7"));
    run(&mut client, "COMMIT");
    // The log of a column may be gone: the others are told.
    run(&mut client, "DROP TABLE notes_embedding_log CASCADE");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM imgvec_failures"), 300);
}
