//! Databases whose encoding is not UTF-8: what comes in is read as what it is, and what goes out, errors and notices
//! included, arrives as what it says. The client here speaks UTF-8.

use std::fs;
use std::sync::{Arc, Mutex};

use postgres::error::{DbError, SqlState};
use postgres::{Client, NoTls};

use crate::cluster::Cluster;
use crate::{failure, value};

const ENCODINGS: [&str; 4] = ["UTF8", "LATIN1", "EUC_JP", "SQL_ASCII"];

fn database(cluster: &Cluster, encoding: &str) -> Client {
    let name = encoding.to_lowercase();
    cluster
        .client()
        .batch_execute(&format!(
            "CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        ))
        .unwrap();
    let mut client = cluster.client_of("postgres", &name);
    client.batch_execute("SET client_encoding = 'UTF8'; CREATE EXTENSION imgvec").unwrap();
    client
}

#[test]
fn errors_and_notices_arrive_in_the_clients_letters() {
    let cluster = Cluster::new("encodings").start_empty();
    for encoding in ENCODINGS {
        let mut client = database(&cluster, encoding);
        // The server's own words are the measure.
        let core = failure(&mut client, "SELECT '[é]'::integer[]");
        assert!(core.message().contains("\"[é]\""), "{encoding}: {core:?}");
        client
            .batch_execute(
                "CREATE TABLE \"dépôt\" (e imgvec(3)); CREATE INDEX \"dépôt_é\" ON \"dépôt\" USING ann (e);
                 INSERT INTO \"dépôt\" SELECT ARRAY[i, 1, 2]::imgvec FROM generate_series(1, 50) AS i;
                 CREATE TABLE free (e imgvec); CREATE INDEX \"libéré\" ON free USING ann (e);
                 INSERT INTO free VALUES ('[1,2]')",
            )
            .unwrap();
        for (statement, code, quoted) in [
            ("SELECT '[é]'::imgvec", SqlState::INVALID_TEXT_REPRESENTATION, "\"[é]\""),
            ("SELECT '[1,2]é'::imgvec(7)", SqlState::INVALID_TEXT_REPRESENTATION, "\"[1,2]é\""),
            ("SELECT embed_text('x', 'modèle')", SqlState::INVALID_PARAMETER_VALUE, "\"modèle\""),
            ("SELECT embed_text('x', 'naïve.é')", SqlState::INVALID_PARAMETER_VALUE, "\"naïve.é\""),
            (
                "SET imgvec.default_model = 'modèle'; SELECT embed_text('x')",
                SqlState::INVALID_PARAMETER_VALUE,
                "\"modèle\"",
            ),
            ("SELECT ann_index_check('\"dépôt\"')", SqlState::WRONG_OBJECT_TYPE, "\"dépôt\""),
            ("INSERT INTO free VALUES ('[1,2,3]')", SqlState::DATA_EXCEPTION, "\"libéré\""),
            (
                "SET enable_seqscan = off; SELECT e FROM \"dépôt\" ORDER BY e <=> '[1,2]'",
                SqlState::DATA_EXCEPTION,
                "\"dépôt_é\"",
            ),
        ] {
            let error = failure(&mut client, statement);
            let told = format!("{} {}", error.message(), error.detail().unwrap_or_default());
            assert_eq!(error.code(), &code, "{encoding}: {statement}: {told}");
            assert!(told.contains(quoted), "{encoding}: {statement}: {told}");
        }
        // A long text is cut between two characters.
        let error = failure(&mut client, "SELECT (repeat('é', 500))::imgvec");
        assert!(error.message().contains(&format!("\"{}...\"", "é".repeat(60))), "{encoding}: {error:?}");

        let notices = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&notices);
        let mut listener = cluster
            .config()
            .dbname(&encoding.to_lowercase())
            .notice_callback(move |notice| kept.lock().unwrap().push(notice.message().to_owned()))
            .connect(NoTls)
            .unwrap();
        listener
            .batch_execute(
                "SET client_encoding = 'UTF8'; SET enable_seqscan = off; SET imgvec.max_scan_rows = 1;
                 SELECT e FROM \"dépôt\" ORDER BY e <=> '[1,2,3]' LIMIT 5",
            )
            .unwrap();
        let notices = notices.lock().unwrap();
        assert!(notices.iter().any(|notice| notice.contains("\"dépôt_é\"")), "{encoding}: {notices:?}");
    }
}

/// What the server reports of an error: code, message, detail and hint.
fn told(error: &DbError) -> (String, String, Option<String>, Option<String>) {
    let text = |text: Option<&str>| text.map(str::to_owned);
    (error.code().code().to_owned(), error.message().to_owned(), text(error.detail()), text(error.hint()))
}

#[test]
fn errors_of_the_server_pass_through_the_extension_as_they_are() {
    let cluster = Cluster::new("encodings-passing").start_empty();
    for encoding in ENCODINGS {
        let mut client = database(&cluster, encoding);
        let word = if encoding == "LATIN1" { "dépôt à Noël" } else { "dépôt à 日本語" };
        client
            .batch_execute(&format!(
                "CREATE FUNCTION broken(i integer) RETURNS imgvec LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
                     IF current_setting('my.state', true) = 'whole' THEN RETURN ARRAY[i, 1, 2]::public.imgvec; END IF;
                     RAISE EXCEPTION '{word}: %', i USING DETAIL = 'Détail: {word}.', HINT = 'Ôtez {word}.',
                         ERRCODE = coalesce(nullif(current_setting('my.code', true), ''), 'MY001'); END $$;
                 CREATE TABLE items (i integer); INSERT INTO items VALUES (7), (7), (7);
                 SET my.state = 'whole';
                 CREATE TABLE whole (i integer); INSERT INTO whole VALUES (7);
                 CREATE INDEX whole_broken ON whole USING ann ((broken(i)::imgvec(3)));
                 CREATE TABLE vectors (e imgvec(256));
                 CREATE INDEX ON vectors USING ann (e) WITH (model = 'starter');
                 CREATE FUNCTION query(i integer) RETURNS imgvec LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN broken(i); END $$;
                 CREATE FUNCTION saved(i integer) RETURNS imgvec LANGUAGE plpgsql AS $$ BEGIN RETURN broken(i);
                     EXCEPTION WHEN OTHERS THEN PERFORM set_config('my.seen', SQLERRM, false); RETURN '[1,2]'; END $$;
                 CREATE FUNCTION caught(statement text) RETURNS text LANGUAGE plpgsql AS $$
                     DECLARE state text; message text; detail text; hint text; BEGIN EXECUTE statement; RETURN NULL;
                     EXCEPTION WHEN OTHERS THEN
                         GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
                             detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
                         RETURN concat_ws('|', state, message, detail, hint); END $$;
                 SET my.state = 'broken'; SET enable_seqscan = off"
            ))
            .unwrap();
        for code in ["MY001", "22000", "XX000"] {
            client.batch_execute(&format!("SET my.code = '{code}'")).unwrap();
            let expected = told(&failure(&mut client, "SELECT broken(7)"));
            assert_eq!(expected.0, code);
            assert_eq!(expected.1, format!("{word}: 7"), "{encoding}");
            for statement in [
                // A build, by itself and in a subtransaction of another language.
                "CREATE INDEX ON items USING ann ((broken(i)::imgvec(3)))",
                "DO $$ BEGIN CREATE INDEX ON items USING ann ((broken(i)::imgvec(3))); END $$",
                "REINDEX INDEX whole_broken",
                // Functions that have rows evaluated.
                "SELECT cluster(broken(i), 2) OVER () FROM items",
                "SELECT ann_index_recall('whole_broken', 1, 1)",
                "SELECT ann_index_check('whole_broken', true)",
                // The planner, which wants to know the query of a model's index.
                "SELECT FROM vectors ORDER BY e <=> query(7) LIMIT 1",
            ] {
                let error = failure(&mut client, statement);
                assert_eq!(told(&error), expected, "{encoding}: {statement}");
            }
            // Who catches it after the extension sees the same, and so does who catches it before.
            let parts = [Some(expected.0), Some(expected.1), expected.2, expected.3];
            let all: Vec<String> = parts.into_iter().flatten().collect();
            let seen: String = value(&mut client, "SELECT caught('REINDEX INDEX whole_broken')");
            assert_eq!(seen, all.join("|"), "{encoding}");
            client.batch_execute("SELECT cluster(saved(i), 2) OVER () FROM items").unwrap();
            let seen: String = value(&mut client, "SELECT current_setting('my.seen')");
            assert_eq!(seen, all[1], "{encoding}");
        }
        // A row's failure is written down with the same words.
        client
            .batch_execute(
                "SET my.code = ''; CREATE TABLE notes (id integer PRIMARY KEY, i integer, embedding imgvec(256));
                 SELECT imgvec_maintain('notes', 'left(broken(i)::text, 9)', 'embedding', 'starter');
                 INSERT INTO notes VALUES (1, 7)",
            )
            .unwrap();
        client.batch_execute("CALL imgvec_work('notes')").unwrap();
        let failed: String = value(&mut client, "SELECT sqlstate || ' ' || message FROM imgvec_failures");
        assert_eq!(failed, format!("MY001 {word}: 7. Détail: {word}. Ôtez {word}."), "{encoding}");
        client
            .batch_execute(
                "SELECT imgvec_maintain('notes', target => 'embedding', stop => true);
                 SELECT imgvec_maintain('notes', $$(('[é' || i || ']')::imgvec)::text$$, 'embedding', 'starter', backfill => 'all')",
            )
            .unwrap();
        client.batch_execute("CALL imgvec_work('notes')").unwrap();
        let failed: String = value(&mut client, "SELECT message FROM imgvec_failures");
        assert!(failed.contains("\"[é7]\""), "{encoding}: {failed}");
    }
}

#[test]
fn texts_and_labels_mean_the_same_in_every_encoding() {
    let cluster = Cluster::new("encodings-texts").start_empty();
    let mut expected = None;
    for encoding in ENCODINGS {
        let mut client = database(&cluster, encoding);
        let found: String = value(
            &mut client,
            "SELECT embed_text('un château à Noël')::text || embed_texts(ARRAY['été'])::text
                || embed_text('un château à Noël', 'starter')::text",
        );
        assert_eq!(&found, expected.get_or_insert_with(|| found.clone()), "{encoding}");
        let label: String = value(
            &mut client,
            "SELECT label FROM classify_embedding(embed_text('Noël'), ARRAY['Noël', 'une usine']) LIMIT 1",
        );
        assert_eq!(label, "Noël", "{encoding}");
    }
}

#[test]
fn what_a_database_cannot_write_does_not_make_a_view_fail() {
    let cluster = Cluster::new("encodings-models").start_empty();
    // The configuration file holds bytes, as every path does; these are UTF-8.
    let models = cluster.directory().join("modèles/日本");
    fs::create_dir_all(models.join("broken")).unwrap();
    fs::write(models.join("broken/config.json"), "{}").unwrap();
    cluster.give(&cluster.directory().join("modèles"));
    let mut cluster = cluster;
    cluster.conf(&format!("imgvec.model_path = '{}'", models.display()));
    cluster.restart();
    for (encoding, written) in [
        ("UTF8", "modèles/日本"),
        ("LATIN1", "modèles/??"),
        ("EUC_JP", "modèles/日本"),
        ("SQL_ASCII", "modèles/日本"),
    ] {
        let mut client = database(&cluster, encoding);
        let row = client.query_one("SELECT name, path, state, detail FROM imgvec_models", &[]).unwrap();
        let [name, path, state, detail] = [0, 1, 2, 3].map(|column| row.get::<_, String>(column));
        assert_eq!((name.as_str(), state.as_str()), ("broken", "broken"), "{encoding}: {detail}");
        assert!(path.ends_with(&format!("{written}/broken")), "{encoding}: {path}");
    }
}
