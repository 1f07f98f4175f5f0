//! Columns of half precision: generated, searched, dumped and restored, copied in binary, kept up to date.

use crate::cluster::{Cluster, run};
use crate::pipeline::migrate::write_other_model;
use crate::{failure, picture, value};
use postgres::Client;
use postgres::error::SqlState;

const NEAREST: &str = "SELECT string_agg(id::text, ' ') FROM (SELECT id FROM photos ORDER BY embedding <=> embed_text('dog', 'starter') LIMIT 5) AS s";

/// The answer by the index, which a plan must use, and by the table.
fn by_index_and_table(client: &mut Client) -> (String, String) {
    client.batch_execute("SET enable_seqscan = off").unwrap();
    let plan: Vec<String> =
        client.query(&format!("EXPLAIN {NEAREST}"), &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert!(plan.iter().any(|line| line.contains("Index Scan using photos_ann")), "{plan:#?}");
    let by_index = value(client, NEAREST);
    client.batch_execute("RESET enable_seqscan; SET enable_indexscan = off").unwrap();
    let by_table = value(client, NEAREST);
    client.batch_execute("RESET enable_indexscan").unwrap();
    (by_index, by_table)
}

#[test]
fn a_generated_column_of_half_precision_is_searched_dumped_and_copied() {
    let cluster = Cluster::new("half").start();
    let mut client = cluster.client();
    client
        .batch_execute(
            "CREATE TABLE photos (id integer PRIMARY KEY, data bytea,
                 embedding imghalf(256) GENERATED ALWAYS AS (embed_image(data, 'starter')) STORED);
             CREATE INDEX photos_ann ON photos USING ann (embedding)",
        )
        .unwrap();
    for id in 1..=20_i32 {
        let data = picture(id.unsigned_abs());
        client.execute("INSERT INTO photos VALUES ($1, $2)", &[&id, &data]).unwrap();
    }
    client.execute("INSERT INTO photos VALUES (21)", &[]).unwrap();
    client.batch_execute("ANALYZE photos").unwrap();
    // Half the bytes, in the row, and only rounded.
    let stored: bool = value(
        &mut client,
        "SELECT bool_and(pg_column_size(embedding) = 520 AND embedding = embed_image(data, 'starter')::imghalf
             AND embedding <=> embed_image(data, 'starter') < 1e-6) FROM photos WHERE id <= 20",
    );
    assert!(stored);
    let (by_index, by_table) = by_index_and_table(&mut client);
    assert_eq!(by_index, by_table);
    // Another model's dimensions do not fit.
    let error = failure(
        &mut client,
        "ALTER TABLE photos ADD COLUMN more imghalf(255) GENERATED ALWAYS AS (embed_image(data, 'starter')) STORED",
    );
    assert_eq!(error.code(), &SqlState::DATA_EXCEPTION, "{error:?}");

    client.batch_execute("CREATE DATABASE copy").unwrap();
    let dump = cluster.directory().join("half.sql");
    run(cluster.program("pg_dump").args(["--dbname=postgres", "--file"]).arg(&dump));
    run(cluster.program("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "copy", "-f"]).arg(&dump));
    let mut copy = cluster.client_of("postgres", "copy");
    let content =
        "SELECT md5(string_agg(id || ':' || coalesce(embedding::text, ''), ',' ORDER BY id)) FROM photos";
    assert_eq!(value::<String>(&mut copy, content), value::<String>(&mut client, content));
    assert_eq!(by_index_and_table(&mut copy).0, by_index);

    // Bits that are not easy: signed zero, the least and the greatest, a subnormal number.
    let file = cluster.directory().join("half.copy");
    let file = file.to_str().unwrap();
    client
        .batch_execute(&format!(
            "CREATE TABLE plain (embedding imghalf);
             INSERT INTO plain SELECT embedding FROM photos;
             INSERT INTO plain VALUES ('[-0,5.9604645e-08,65504,-65504,6.097555e-05]');
             CREATE TABLE back (LIKE plain);
             COPY plain TO '{file}' (FORMAT binary);
             COPY back FROM '{file}' (FORMAT binary)"
        ))
        .unwrap();
    let same = "SELECT (SELECT array_agg(embedding::text) FROM plain) = (SELECT array_agg(embedding::text) FROM back)";
    assert!(value::<bool>(&mut client, same));
}

#[test]
fn a_column_of_half_precision_is_kept_up_to_date_and_changes_its_model() {
    let (cluster, models) = crate::models::cluster_with_packages("half-maintained", &["clip"]);
    write_other_model(&models.join("other"), 1);
    cluster.give(&models);
    let mut client = cluster.client();
    let notes = "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, embedding imghalf(256))";
    client.batch_execute(notes).unwrap();
    for statement in [
        "SELECT imgvec_maintain('notes', source => 'caption', target => 'embedding', model => 'other')",
        "INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 400) AS i",
        "CALL imgvec_work('notes')",
        "CREATE INDEX notes_ann ON notes USING ann (embedding imghalf_cosine_ops)",
        "UPDATE notes SET caption = 'a new thing number 7' WHERE id = 7",
        "CALL imgvec_work('notes')",
    ] {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let assert_complete = |client: &mut Client, model: &str| {
        let wrong = format!(
            "SELECT count(*) FROM notes WHERE embedding IS NULL OR abs(embedding <=> embed_text(caption, '{model}')) > 1e-5"
        );
        assert_eq!(value::<i64>(client, &wrong), 0, "{model}");
        let progress =
            "SELECT format('%s %s waiting %s failed', model, waiting, failed) FROM imgvec_progress";
        assert_eq!(value::<String>(client, progress), format!("{model} 0 waiting 0 failed"));
        let definition: String = value(client, "SELECT pg_get_indexdef('notes_ann'::regclass)");
        assert!(definition.contains("USING ann (embedding"), "{definition}");
    };
    assert_complete(&mut client, "other");
    client.batch_execute("SET enable_seqscan = off").unwrap();
    let nearest = "SELECT id FROM notes ORDER BY embedding <=> embed_text_for('notes', 'embedding', 'a new thing number 7') LIMIT 1";
    assert_eq!(value::<i64>(&mut client, nearest), 7);
    // A query of another model is refused, as on a column of single precision.
    let error = failure(
        &mut client,
        "SELECT id FROM notes ORDER BY embedding <=> embed_text('thing', 'starter') LIMIT 1",
    );
    assert!(error.message().contains("model") || error.detail().is_some(), "{error:?}");
    client.batch_execute("CALL imgvec_migrate('notes', 'embedding', model => 'clip')").unwrap();
    assert_complete(&mut client, "clip");
    let column = "SELECT format('%s %s', format_type(atttypid, NULL), atttypmod = (SELECT dims FROM imgvec_models WHERE name = 'clip'))
        FROM pg_attribute WHERE attrelid = 'notes'::regclass AND attname = 'embedding'";
    assert_eq!(value::<String>(&mut client, column), "imghalf t");
}
