//! Databases whose encoding is not UTF-8: what comes in is read as what it is, and what goes out, errors and notices
//! included, arrives as what it says. The client here speaks UTF-8.

use std::fs;
use std::sync::{Arc, Mutex};

use postgres::error::SqlState;
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
