//! Errors of the server that pass through functions of the extension: names and context arrive, once.

use postgres::Client;
use postgres::error::DbError;

use crate::cluster::Cluster;
use crate::{failure, value};

/// Names of schema, table, column, data type and constraint.
fn names(error: &DbError) -> [Option<&str>; 5] {
    [error.schema(), error.table(), error.column(), error.datatype(), error.constraint()]
}

fn client() -> (Cluster, Client) {
    let cluster = Cluster::new("passing").start_empty();
    let mut client = cluster.client();
    client
        .batch_execute(
            "CREATE EXTENSION imgvec;
             CREATE FUNCTION broken(i integer) RETURNS imgvec LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                 IF current_setting('my.state', true) = 'whole' THEN RETURN ARRAY[i, 1, 2]::public.imgvec; END IF;
                 RAISE EXCEPTION 'broken' USING SCHEMA = 'a', TABLE = 'b', COLUMN = 'c', DATATYPE = 'd', CONSTRAINT = 'e';
             END $$;
             CREATE TABLE items (i integer); INSERT INTO items VALUES (7), (7);
             SET my.state = 'whole';
             CREATE TABLE whole (i integer); INSERT INTO whole VALUES (7);
             CREATE INDEX whole_broken ON whole USING ann ((broken(i)::imgvec(3)));
             SET my.state = 'broken'",
        )
        .unwrap();
    (cluster, client)
}

#[test]
fn names_and_context_arrive_as_they_are() {
    let (_cluster, mut client) = client();
    let line = "PL/pgSQL function broken(integer) line 3 at RAISE";
    for statement in [
        "SELECT broken(7)",
        "CREATE INDEX ON items USING ann ((broken(i)::imgvec(3)))",
        "DO $$ BEGIN CREATE INDEX ON items USING ann ((broken(i)::imgvec(3))); END $$",
        "REINDEX INDEX whole_broken",
        "SELECT cluster(broken(i), 2) OVER () FROM items",
        "SELECT ann_index_recall('whole_broken', 1, 1)",
        "DO $$ BEGIN PERFORM ann_index_check('whole_broken', true); END $$",
    ] {
        let error = failure(&mut client, statement);
        assert_eq!(error.message(), "broken", "{statement}");
        assert_eq!(names(&error), [Some("a"), Some("b"), Some("c"), Some("d"), Some("e")], "{statement}");
        let context = error.where_().unwrap_or_default();
        assert_eq!(context.matches(line).count(), 1, "{statement}: {context}");
        assert!(context.contains(line), "{statement}: {context}");
        // Lines of what lies around us come last, and once.
        let around = context.matches("PL/pgSQL function inline_code_block line 1").count();
        assert_eq!(around, usize::from(statement.starts_with("DO")), "{statement}: {context}");
    }
}

#[test]
fn the_same_error_again_has_a_context_of_its_own() {
    let (_cluster, mut client) = client();
    let catch = "EXCEPTION WHEN OTHERS THEN GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT; all_lines := all_lines || substring(context FROM 'twice.*line \\d+')";
    client
        .batch_execute(&format!(
            "CREATE FUNCTION twice() RETURNS text[] LANGUAGE plpgsql AS $$ DECLARE context text; all_lines text[]; BEGIN
                 BEGIN PERFORM ann_index_recall('whole_broken', 1, 1); {catch}; END;
                 BEGIN PERFORM broken(7); {catch}; END;
                 BEGIN PERFORM ann_index_recall('whole_broken', 1, 1); {catch}; END;
                 BEGIN PERFORM ann_index_recall('whole_broken', 1, 1); {catch}; END;
                 RETURN all_lines; END $$"
        ))
        .unwrap();
    let lines: Vec<String> = value(&mut client, "SELECT twice()");
    assert_eq!(lines, [2, 3, 4, 5].map(|line| format!("twice() line {line}")));
}

#[test]
fn a_violated_constraint_of_the_pipelines_tables_is_named() {
    let (_cluster, mut client) = client();
    client
        .batch_execute(
            "CREATE FUNCTION picky(caption text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
                 IF caption = 'odd' THEN RAISE EXCEPTION 'odd'; END IF; RETURN caption; END $$;
             CREATE TABLE notes (id integer PRIMARY KEY, caption text, embedding imgvec(256));
             SELECT imgvec_maintain('notes', 'picky(caption)', 'embedding', 'starter')",
        )
        .unwrap();
    client.batch_execute("INSERT INTO notes VALUES (1, 'odd')").unwrap();
    client.batch_execute("CALL imgvec_work('notes')").unwrap();
    client.batch_execute("ALTER TABLE notes_embedding_queue ADD CONSTRAINT large CHECK (k1 > 5)").unwrap();
    // An error that nobody catches on its way.
    let error = failure(&mut client, "SELECT imgvec_retry('notes')");
    let table = Some("notes_embedding_queue");
    assert_eq!(error.code().code(), "23514");
    assert_eq!(names(&error), [Some("public"), table, None, None, Some("large")], "{error:?}");
    assert!(error.where_().unwrap_or_default().contains("INSERT INTO"), "{error:?}");
    // An error that is caught, noted, and raised again.
    client
        .batch_execute(
            "ALTER TABLE notes_embedding_log ADD CONSTRAINT quiet CHECK (kind <> 'failed') NOT VALID;
             INSERT INTO notes VALUES (6, 'odd')",
        )
        .unwrap();
    let error = failure(&mut client, "CALL imgvec_work('notes')");
    let table = Some("notes_embedding_log");
    assert_eq!(error.code().code(), "23514");
    assert!(error.where_().unwrap_or_default().contains("INSERT INTO"), "{error:?}");
    assert_eq!(names(&error), [Some("public"), table, None, None, Some("quiet")], "{error:?}");
}
