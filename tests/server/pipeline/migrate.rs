//! Another model for a column while it is searched and written.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use super::{CAPTIONS, assert_complete, progress, run};
use crate::ann::number_from_environment;
use crate::cluster::{Cluster, signal};
use crate::models::cluster_with_packages;
use crate::{Random, failure, graph, value};

const OLD: &str = "embed_text(caption, 'starter')";
const NEXT: &str = "embed_text(caption, 'other')";

/// A model of texts that has as many dimensions as the starter, and nothing else in common with it: the mean of a vector for
/// each word, of which numbers up to 4,000 are some. `seed` changes the vectors.
pub fn write_other_model(dir: &Path, seed: u32) {
    const WIDTH: usize = 256;
    fs::create_dir_all(dir).unwrap();
    let words: Vec<String> = ["thing", "number", "a", "new"]
        .map(str::to_owned)
        .into_iter()
        .chain((0..=4_000).map(|n| n.to_string()))
        .collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    fs::write(dir.join("tokenizer.json"), graph::word_tokenizer(&words)).unwrap();
    let identity: Vec<f32> =
        (0..WIDTH * WIDTH).map(|place| f32::from(u8::from(place / WIDTH == place % WIDTH))).collect();
    let bytes = graph::text_tower(
        4_096,
        WIDTH,
        |place| {
            let mixed = (u32::try_from(place).unwrap() ^ seed.rotate_left(16)).wrapping_mul(2_654_435_761);
            let mixed = (mixed ^ (mixed >> 15)).wrapping_mul(0x85eb_ca6b);
            f32::from(i16::from_ne_bytes([(mixed >> 8).to_le_bytes()[0], (mixed >> 16).to_le_bytes()[0]]))
                / 32_768.0
        },
        |graph| {
            let graph = graph.floats("identity", &[WIDTH as u64, WIDTH as u64], &identity);
            graph.node("MatMul", &["looked_up", "identity"], "worked")
        },
    );
    fs::write(dir.join("model.onnx"), bytes).unwrap();
}

/// A server with the models `starter`, `other` and `clip`.
fn start(name: &str) -> (Cluster, Client) {
    let (cluster, models) = cluster_with_packages(name, &["clip"]);
    write_other_model(&models.join("other"), 1);
    cluster.give(&models);
    let client = cluster.client();
    (cluster, client)
}

fn fill(client: &mut Client, rows: usize) {
    run(client, CAPTIONS);
    run(
        client,
        &format!(
            "INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, {rows}) AS i;
             CALL imgvec_work('notes')"
        ),
    );
}

fn model(client: &mut Client) -> String {
    value(
        client,
        "SELECT string_agg(format('%s %s', target, model), ', ' ORDER BY target) FROM imgvec_progress",
    )
}

/// Columns, tables, triggers and indexes, by name.
fn objects(client: &mut Client) -> String {
    value(
        client,
        "SELECT string_agg(name, ' ' ORDER BY name) FROM (
             SELECT relname::text AS name FROM pg_class WHERE relname ~ '^notes' AND relname !~ '_log.*_idx' AND relkind IN ('r', 'i')
             UNION ALL SELECT tgname FROM pg_trigger WHERE tgrelid = 'notes'::regclass
             UNION ALL SELECT attname FROM pg_attribute WHERE attrelid = 'notes'::regclass AND attnum > 0 AND NOT attisdropped) AS all_names",
    )
}

#[test]
fn another_model_takes_over_with_indexes_like_the_old_ones() {
    let (cluster, mut client) = start("migrate-indexes");
    fill(&mut client, 400);
    run(
        &mut client,
        "CREATE ROLE reader;
         GRANT SELECT (embedding) ON notes TO reader;
         COMMENT ON COLUMN notes.embedding IS 'of captions';
         ALTER TABLE notes ALTER COLUMN embedding SET (n_distinct = -0.5);
         CREATE INDEX notes_ann ON notes USING ann (embedding imgvec_l2_ops) WITH (target_recall = 0.97, m = 10) WHERE id > 5;
         COMMENT ON INDEX notes_ann IS 'like a hand';
         CREATE INDEX notes_there ON notes (id) WHERE embedding IS NOT NULL",
    );
    let before = objects(&mut client);
    // Other dimensions.
    run(&mut client, "CALL imgvec_migrate('notes', 'embedding', model => 'clip')");
    assert_eq!(model(&mut client), "embedding clip");
    assert_eq!(objects(&mut client), before);
    assert_complete(&mut client, "notes", "embed_text(caption, 'clip')");
    let definition: String = value(&mut client, "SELECT pg_get_indexdef('notes_ann'::regclass)");
    assert_eq!(
        definition,
        "CREATE INDEX notes_ann ON public.notes USING ann (embedding imgvec_l2_ops) WITH (target_recall='0.97', m='10', model=clip) WHERE (id > 5)"
    );
    assert_eq!(
        value::<String>(&mut client, "SELECT pg_get_indexdef('notes_there'::regclass)"),
        "CREATE INDEX notes_there ON public.notes USING btree (id) WHERE (embedding IS NOT NULL)"
    );
    assert_eq!(value::<String>(&mut client, "SELECT obj_description('notes_ann'::regclass)"), "like a hand");
    assert_eq!(
        value::<String>(
            &mut client,
            "SELECT col_description('notes'::regclass, attnum) FROM pg_attribute WHERE attrelid = 'notes'::regclass AND attname = 'embedding'"
        ),
        "of captions"
    );
    assert_eq!(
        value::<String>(
            &mut client,
            "SELECT attoptions::text FROM pg_attribute WHERE attrelid = 'notes'::regclass AND attname = 'embedding'"
        ),
        "{n_distinct=-0.5}"
    );
    assert!(value::<bool>(
        &mut client,
        "SELECT has_column_privilege('reader', 'notes', 'embedding', 'SELECT')"
    ));
    assert_eq!(
        value::<i64>(
            &mut client,
            "SELECT count(*) FROM pg_index WHERE indrelid = 'notes'::regclass AND NOT indisvalid"
        ),
        0
    );
    // It keeps its embeddings as before, in a copy of the database too, where names count and not numbers.
    run(
        &mut client,
        "INSERT INTO notes VALUES (1000, 'a new thing'), (1001, NULL);\nCALL imgvec_work('notes')",
    );
    assert_complete(&mut client, "notes", "embed_text(caption, 'clip')");
    let triggers: String =
        value(&mut client, "SELECT string_agg(encode(tgargs, 'escape'), '') FROM pg_trigger");
    assert!(!triggers.contains("_next"), "{triggers}");
    // And back again.
    run(&mut client, "CALL imgvec_migrate('notes', 'embedding', model => 'starter')");
    assert_eq!(objects(&mut client), before);
    assert_complete(&mut client, "notes", OLD);
    drop(cluster);
}

#[test]
fn partitions_get_indexes_like_their_old_ones() {
    let (_cluster, mut client) = start("migrate-partitions");
    run(
        &mut client,
        "CREATE SCHEMA parts;
         CREATE TABLE notes (id int, caption text, embedding imgvec(256), PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE parts.notes_a PARTITION OF notes FOR VALUES FROM (0) TO (100);
         CREATE TABLE notes_b (embedding imgvec(256), gone int, id int NOT NULL, caption text);
         ALTER TABLE notes_b DROP COLUMN gone;
         ALTER TABLE notes ATTACH PARTITION notes_b FOR VALUES FROM (100) TO (200);
         CREATE TABLE notes_c PARTITION OF notes FOR VALUES FROM (200) TO (400) PARTITION BY RANGE (id);
         CREATE TABLE parts.notes_c1 PARTITION OF notes_c FOR VALUES FROM (200) TO (300);
         CREATE INDEX notes_ann ON notes USING ann (embedding imgvec_l2_ops) WITH (target_recall = 0.97);
         CREATE INDEX notes_b_only ON notes_b (id) WHERE embedding IS NOT NULL;
         SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter');
         INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, 299) AS i;
         CALL imgvec_work('notes')",
    );
    let indexes = "SELECT string_agg(format('%s %s %s', i.indexrelid::regclass, i.indisvalid, h.inhparent::regclass), ', ' ORDER BY i.indexrelid::regclass::text)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_inherits h ON h.inhrelid = c.oid WHERE c.relname ~ '^notes_' AND c.relname !~ '_log'";
    let before: String = value(&mut client, indexes);
    assert!(before.contains("notes_ann t ") && before.contains("notes_b_only t "), "{before}");
    // A view over a partition is in the way as well.
    run(&mut client, "CREATE VIEW seen AS SELECT embedding FROM parts.notes_c1");
    let error = failure(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'clip')");
    assert_eq!(error.code().code(), "2BP01", "{error:?}");
    assert!(error.detail().is_some_and(|detail| detail.contains("view public.seen")), "{error:?}");
    run(&mut client, "DROP VIEW seen;\nCALL imgvec_migrate('notes', 'embedding', 'clip')");
    assert_eq!(value::<String>(&mut client, indexes), before);
    assert_eq!(model(&mut client), "embedding clip");
    assert_complete(&mut client, "notes", "embed_text(caption, 'clip')");
    let definition = "SELECT string_agg(pg_get_indexdef(c.oid), '; ' ORDER BY relname) FROM pg_class AS c WHERE relname IN ('notes_ann', 'notes_b_embedding_idx')";
    assert_eq!(
        value::<String>(&mut client, definition),
        "CREATE INDEX notes_ann ON ONLY public.notes USING ann (embedding imgvec_l2_ops) WITH (target_recall='0.97'); \
         CREATE INDEX notes_b_embedding_idx ON public.notes_b USING ann (embedding imgvec_l2_ops) WITH (target_recall='0.97', model=clip)"
    );
    // A partition that comes later has its index, its triggers and its model.
    run(
        &mut client,
        "CREATE TABLE notes_d PARTITION OF notes FOR VALUES FROM (400) TO (500);
         INSERT INTO notes VALUES (400, 'a new thing');
         CALL imgvec_work('notes')",
    );
    assert_complete(&mut client, "notes", "embed_text(caption, 'clip')");
    let later = "SELECT count(*) FROM pg_index WHERE indrelid = 'notes_d'::regclass AND indisvalid";
    assert_eq!(value::<i64>(&mut client, later), 2);
    let search = "SELECT id FROM notes ORDER BY embedding <-> embed_text('a new thing', 'clip') LIMIT 1";
    assert_eq!(value::<i32>(&mut client, search), 400);
    let error = failure(&mut client, &search.replace("clip", "starter"));
    assert_eq!(error.code().code(), "22000", "{error:?}");
    // And back.
    run(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'starter')");
    assert_complete(&mut client, "notes", OLD);
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM pg_class WHERE relname ~ '_next'"), 0);
}

#[test]
fn what_stands_in_the_way_is_named_before_anything_is_done() {
    let (_cluster, mut client) = start("migrate-obstacles");
    fill(&mut client, 20);
    let before = objects(&mut client);
    for (create, drop, named) in [
        ("CREATE VIEW seen AS SELECT id, embedding FROM notes", "DROP VIEW seen", "seen"),
        (
            "CREATE MATERIALIZED VIEW kept AS SELECT embedding FROM notes",
            "DROP MATERIALIZED VIEW kept",
            "kept",
        ),
        (
            "ALTER TABLE notes ADD COLUMN length float8 GENERATED ALWAYS AS (imgvec_norm(embedding)) STORED",
            "ALTER TABLE notes DROP COLUMN length",
            "length",
        ),
        (
            "ALTER TABLE notes ADD CONSTRAINT whole CHECK (imgvec_norm(embedding) > 0)",
            "ALTER TABLE notes DROP CONSTRAINT whole",
            "constraint whole",
        ),
        (
            "CREATE POLICY few ON notes USING (embedding IS NOT NULL)",
            "DROP POLICY few ON notes",
            "policy few",
        ),
        (
            "CREATE INDEX fourth ON notes (imgvec_dims(embedding::imgvec(256)))",
            "DROP INDEX fourth",
            "index fourth over an expression",
        ),
        (
            "ALTER TABLE notes ALTER COLUMN embedding SET NOT NULL",
            "ALTER TABLE notes ALTER COLUMN embedding DROP NOT NULL",
            "",
        ),
    ] {
        run(&mut client, create);
        let error = failure(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'clip')");
        assert_eq!(error.code().code(), "2BP01", "{create}: {error:?}");
        assert!(error.detail().is_some_and(|detail| detail.contains(named)), "{create}: {error:?}");
        assert!(error.hint().is_some(), "{error:?}");
        run(&mut client, drop);
    }
    assert_eq!(objects(&mut client), before);
    for (call, code) in [
        ("CALL imgvec_migrate('notes', 'nothing', 'clip')", "42704"),
        ("CALL imgvec_migrate('notes', 'embedding')", "22004"),
        ("CALL imgvec_migrate(NULL, 'embedding', 'clip')", "22004"),
        ("CALL imgvec_migrate('notes', NULL, 'clip')", "22004"),
        ("CALL imgvec_migrate('notes', 'embedding', 'no-such-model')", "42704"),
        ("CALL imgvec_migrate('notes', 'embedding', 'clip', min_recall => 2)", "22023"),
        ("CALL imgvec_migrate('notes', 'embedding', 'clip', min_recall => 'NaN')", "22023"),
        ("CALL imgvec_migrate('notes', 'embedding', give_up => true)", "55000"),
        (
            "DO $$ BEGIN CALL imgvec_migrate('notes', 'embedding', 'clip'); EXCEPTION WHEN division_by_zero THEN END $$",
            "2D000",
        ),
    ] {
        let error = failure(&mut client, call);
        assert_eq!(error.code().code(), code, "{call}: {error:?}");
        assert!(error.detail().is_some() && error.hint().is_some(), "{call}: {error:?}");
    }
    assert_eq!(objects(&mut client), before);
}

#[test]
fn a_plain_owner_migrates_without_search_path_under_row_security_and_others_do_not() {
    let (cluster, mut client) = start("migrate-rights");
    run(
        &mut client,
        "CREATE ROLE owner; CREATE ROLE member LOGIN; CREATE ROLE stranger LOGIN; GRANT owner TO member;
         GRANT CREATE ON SCHEMA public TO owner, member, stranger",
    );
    run(&mut client, "SET ROLE owner");
    fill(&mut client, 200);
    run(
        &mut client,
        "CREATE INDEX notes_ann ON notes USING ann (embedding);
         ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
         ALTER TABLE notes FORCE ROW LEVEL SECURITY;
         CREATE POLICY few ON notes USING (id < 10)",
    );
    let mut stranger = cluster.client_of("stranger", "postgres");
    for call in ["'other'", "give_up => true"] {
        let error = failure(&mut stranger, &format!("CALL imgvec_migrate('notes', 'embedding', {call})"));
        assert_eq!(error.code().code(), "42501", "{error:?}");
    }
    let mut member = cluster.client_of("member", "postgres");
    run(
        &mut member,
        "SET search_path = '';
         CALL public.imgvec_migrate('public.notes', 'embedding', 'other', min_recall => 0)",
    );
    run(&mut client, "RESET ROLE");
    assert_complete(&mut client, "notes", NEXT);
    assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM notes"), 200);
    assert_eq!(
        value::<i64>(
            &mut client,
            "SELECT count(*) FROM pg_class WHERE relname ~ '^notes' AND relowner <> 'owner'::regrole"
        ),
        0
    );
}

#[test]
fn rows_that_the_new_model_cannot_embed_stop_it() {
    let (_cluster, mut client) = start("migrate-failures");
    fill(&mut client, 100);
    let before = objects(&mut client);
    run(
        &mut client,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF NEW.id = 7 AND to_jsonb(NEW) ->> 'embedding_next' IS NOT NULL THEN RAISE 'not this one'; END IF; RETURN NEW; END $$",
    );
    let refuse = "CREATE TRIGGER refuse BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION refuse()";
    run(&mut client, refuse);
    let error = failure(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'other', min_recall => 0)");
    assert_eq!(error.code().code(), "55000", "{error:?}");
    assert!(error.message().starts_with("1 row "), "{error:?}");
    run(
        &mut client,
        "DROP TRIGGER refuse ON notes;
         SELECT imgvec_retry('notes');
         CALL imgvec_migrate('notes', 'embedding', min_recall => 0)",
    );
    assert_complete(&mut client, "notes", NEXT);
    assert_eq!(objects(&mut client), before);
    // Or it is done without them.
    run(&mut client, refuse);
    run(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'starter', accept_failures => true)");
    assert_eq!(progress(&mut client, "notes"), "0 waiting, 1 failed");
    assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM notes"), 99);
}

#[test]
fn without_a_free_worker_it_is_given_up_or_the_index_built_by_hand() {
    let (mut cluster, client) = start("migrate-no-worker");
    drop(client);
    cluster.conf("max_worker_processes = 1");
    cluster.restart();
    let mut client = cluster.client();
    fill(&mut client, 100);
    run(&mut client, "CREATE INDEX notes_ann ON notes USING ann (embedding)");
    let before = objects(&mut client);
    let call = "CALL imgvec_migrate('notes', 'embedding', 'other', min_recall => 0)";
    let error = failure(&mut client, call);
    assert_eq!(error.code().code(), "53400", "{error:?}");
    assert!(error.message().contains("notes_ann_next"), "{error:?}");
    assert_eq!(model(&mut client), "embedding starter, embedding_next other");
    let error = failure(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'clip')");
    assert_eq!(error.code().code(), "55000", "{error:?}");
    run(&mut client, "CALL imgvec_migrate('notes', 'embedding', give_up => true)");
    assert_eq!(model(&mut client), "embedding starter");
    assert_eq!(objects(&mut client), before);
    assert_complete(&mut client, "notes", OLD);
    failure(&mut client, call);
    run(
        &mut client,
        "CREATE INDEX CONCURRENTLY notes_ann_next ON notes USING ann (embedding_next) WITH (model = 'other');
         CALL imgvec_migrate('notes', 'embedding', min_recall => 0)",
    );
    assert_eq!(model(&mut client), "embedding other");
    assert_complete(&mut client, "notes", NEXT);
    assert_eq!(objects(&mut client), before);
}

#[test]
fn a_query_of_another_model_than_its_index_is_an_error() {
    let (cluster, mut client) = start("migrate-mixing");
    fill(&mut client, 100);
    // Declared before or after the index is made.
    run(
        &mut client,
        "SELECT imgvec_maintain('notes', target => 'embedding', stop => true);
         CREATE INDEX notes_ann ON notes USING ann (embedding);
         SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter');
         CREATE FUNCTION passes(imgvec) RETURNS imgvec LANGUAGE plpgsql VOLATILE AS $$ BEGIN RETURN $1; END $$",
    );
    let options: String =
        value(&mut client, "SELECT reloptions::text FROM pg_class WHERE relname = 'notes_ann'");
    assert_eq!(options, "{model=starter}");
    let by = |query: &str| format!("SELECT id FROM notes ORDER BY embedding <=> {query} LIMIT 3");
    for scan in ["SET enable_seqscan = on", "SET enable_seqscan = off"] {
        run(&mut client, scan);
        for query in ["embed_text('thing', 'other')", "embed_text('thing', 'other')::imgvec(256)"] {
            let error = failure(&mut client, &by(query));
            assert_eq!(error.code().code(), "22000", "{error:?}");
            assert!(
                error.message().contains("\"starter\"") && error.message().contains("\"other\""),
                "{error:?}"
            );
            assert!(error.hint().is_some_and(|hint| hint.contains("embed_text_for")), "{error:?}");
        }
        for query in [
            "embed_text('thing', 'starter')",
            "embed_text_for('notes', 'embedding', 'thing')",
            "(SELECT embedding FROM notes WHERE id = 5)",
            // Of nobody knows which.
            "(SELECT array_agg((i / 7.0)::float8)::imgvec(256) FROM generate_series(1, 256) AS i)",
        ] {
            run(&mut client, &by(query));
        }
    }
    // Where the planner cannot know the value, the scan does.
    for query in ["(SELECT embed_text('thing', 'other'))", "(SELECT passes(embed_text('thing', 'other')))"] {
        let error = failure(&mut client, &by(query));
        assert_eq!(error.code().code(), "22000", "{error:?}");
    }
    // A model by another name is the same model.
    run(&mut client, "ALTER INDEX notes_ann SET (model = 'twin')");
    let models = cluster.directory().join("models");
    assert_eq!(failure(&mut client, &by("embed_text('thing', 'other')")).code().code(), "22000");
    write_other_model(&models.join("twin"), 1);
    cluster.give(&models);
    run(&mut client, &by("embed_text('thing', 'other')"));
    // An index that was not told, or that comes later, has the model of its column as long as that is maintained.
    for change in [
        "ALTER INDEX notes_ann RESET (model)",
        "DROP INDEX notes_ann;\nCREATE INDEX notes_later ON notes USING ann (embedding)",
        "ALTER TABLE notes RENAME COLUMN embedding TO vector;\nALTER TABLE notes ADD COLUMN embedding imgvec(3);\n
         ALTER TABLE notes DROP COLUMN embedding;\nALTER TABLE notes RENAME COLUMN vector TO embedding",
    ] {
        run(&mut client, change);
        for scan in ["SET enable_seqscan = on", "SET enable_seqscan = off"] {
            run(&mut client, scan);
            assert_eq!(failure(&mut client, &by("embed_text('thing', 'other')")).code().code(), "22000", "{change}");
            run(&mut client, &by("embed_text('thing', 'starter')"));
        }
    }
    run(&mut client, "SELECT imgvec_maintain('notes', target => 'embedding', stop => true)");
    run(&mut client, &by("embed_text('thing', 'other')"));
    // Partitions are of their root's model, whatever the place of the column.
    run(
        &mut client,
        "CREATE TABLE parted (id int, caption text, embedding imgvec(256), PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE parted_a PARTITION OF parted FOR VALUES FROM (0) TO (10);
         CREATE TABLE parted_b (embedding imgvec(256), id int NOT NULL, caption text);
         ALTER TABLE parted ATTACH PARTITION parted_b FOR VALUES FROM (10) TO (20);
         SELECT imgvec_maintain('parted', 'caption', 'embedding', 'starter');
         INSERT INTO parted SELECT i, 'thing ' || i FROM generate_series(1, 19) AS i;
         CALL imgvec_work('parted');
         CREATE INDEX ON parted USING ann (embedding)",
    );
    for table in ["parted", "parted_a", "parted_b"] {
        let by = |model: &str| {
            format!("SELECT id FROM {table} ORDER BY embedding <=> embed_text('thing', '{model}') LIMIT 3")
        };
        assert_eq!(failure(&mut client, &by("other")).code().code(), "22000", "{table}");
        run(&mut client, &by("starter"));
    }
    // What goes to clients and to disk has nothing of it.
    let bytes: Vec<u8> = value(&mut client, "SELECT imgvec_send(embed_text('thing', 'other'))");
    assert_eq!(bytes[..4], [1, 0, 0, 0]);
}

/// Whether a query's answer is that of one model: the row that was asked for is its own nearest neighbor, at no distance.
const SEARCH: &str = "SELECT id, embedding <=> embed_text_for('notes', 'embedding', 'thing number ' || $1::text) AS distance FROM notes
    ORDER BY embedding <=> embed_text_for('notes', 'embedding', 'thing number ' || $1::text) LIMIT 3";

#[test]
fn no_query_fails_and_none_sees_a_mixture_while_a_model_takes_over() {
    let rows = number_from_environment("IMGVEC_MIGRATION_ROWS", 3_000) as usize;
    let (cluster, mut client) = start("migrate-clients");
    fill(&mut client, rows);
    run(&mut client, "CREATE INDEX notes_ann ON notes USING ann (embedding) WITH (target_recall = 0.99)");
    let (is_over, searches, longest) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for seed in 1..=4 {
            let mut client = cluster.client();
            let (is_over, searches, longest) = (&is_over, &searches, &longest);
            scope.spawn(move || {
                let mut random = Random(seed);
                run(&mut client, "SET statement_timeout = '60s'");
                if seed % 2 == 0 {
                    run(&mut client, "SET default_transaction_isolation = 'repeatable read'");
                }
                while !is_over.load(Ordering::Relaxed) {
                    let id = 1 + random.below(rows);
                    let begin = Instant::now();
                    if seed < 3 {
                        let found = client.query(SEARCH, &[&id.to_string()]);
                        let found = found.unwrap_or_else(|error| panic!("a search: {error:?}"));
                        // Distances to another model's embeddings are nowhere near.
                        let nearest: f64 = found[0].get(1);
                        assert!(nearest < 0.01, "{id}: {found:?}");
                        searches.fetch_add(1, Ordering::Relaxed);
                    } else {
                        let new = rows + seed as usize * 1_000_000 + random.below(1000);
                        let statement = match random.below(3) {
                            0 => format!("INSERT INTO notes (id, caption) VALUES ({new}, 'a new thing') ON CONFLICT DO NOTHING"),
                            1 => format!("DELETE FROM notes WHERE id = {new}"),
                            _ => format!("UPDATE notes SET other = '{new}' WHERE id = {id}"),
                        };
                        // What a serialization failure is for, a client that asks for it repeats.
                        if let Err(error) = client.batch_execute(&statement) {
                            assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{statement}: {error:?}");
                        }
                        let took = begin.elapsed().as_millis();
                        longest.fetch_max(usize::try_from(took).unwrap(), Ordering::Relaxed);
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            });
        }
        run(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'other', min_recall => 0)");
        let before = searches.load(Ordering::Relaxed);
        // They go on afterwards.
        let begin = Instant::now();
        while searches.load(Ordering::Relaxed) < before + 50 && begin.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(10));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(searches.load(Ordering::Relaxed) > 50);
    println!("{} searches, the longest write took {} ms", searches.into_inner(), longest.into_inner());
    assert_eq!(model(&mut client), "embedding other");
    run(&mut client, "CALL imgvec_work('notes')");
    assert_complete(&mut client, "notes", NEXT);
}

#[test]
fn a_migration_goes_on_after_a_crash_at_any_step() {
    let cycles = number_from_environment("IMGVEC_CRASH_CYCLES", 6).min(30);
    let (mut cluster, mut client) = start("migrate-crash");
    fill(&mut client, 3_000);
    run(&mut client, "CREATE INDEX notes_ann ON notes USING ann (embedding)");
    let before = objects(&mut client);
    drop(client);
    let mut random = Random(number_from_environment("IMGVEC_CRASH_SEED", 1).max(1));
    for cycle in 0..cycles {
        let mut migrator = cluster.client();
        let begun = thread::spawn(move || {
            migrator
                .batch_execute("CALL imgvec_migrate('notes', 'embedding', 'other', min_recall => 0)")
                .is_ok()
        });
        // Half of them while the index is built, the others at any moment.
        let mut client = cluster.client();
        let begin = Instant::now();
        if cycle % 2 == 0 {
            let builder = "SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'imgvec index builder'";
            while begin.elapsed() < Duration::from_secs(30) && !begun.is_finished() {
                let pid: i32 = value(&mut client, builder);
                if pid != 0 {
                    thread::sleep(Duration::from_millis(u64::from(random.next() % 200)));
                    signal(pid.unsigned_abs(), "KILL");
                    break;
                }
            }
            drop(client);
            let is_done = begun.join().unwrap();
            cluster.wait_until_ready();
            println!("cycle {cycle}: {}", if is_done { "was done" } else { "killed the builder" });
        } else {
            thread::sleep(Duration::from_millis(u64::from(random.next() % 2_000)));
            drop(client);
            cluster.crash();
            let is_done = begun.join().unwrap();
            cluster.start();
            println!("cycle {cycle}: {}", if is_done { "was done" } else { "crashed" });
        }
        let mut client = cluster.client();
        // The old one answers, or the new one, by the model that the column says.
        let nearest: i64 = client.query(SEARCH, &[&"77"]).unwrap()[0].get(0);
        assert_eq!(nearest, 77);
        if cycle % 3 == 2 {
            // Completed, and begun again the other way round.
            run(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'other', min_recall => 0)");
            assert_complete(&mut client, "notes", NEXT);
            assert_eq!(objects(&mut client), before);
            run(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'starter', min_recall => 0)");
            assert_complete(&mut client, "notes", OLD);
        }
        drop(client);
    }
    let mut client = cluster.client();
    run(&mut client, "CALL imgvec_migrate('notes', 'embedding', 'other', min_recall => 0)");
    assert_eq!(model(&mut client), "embedding other");
    assert_complete(&mut client, "notes", NEXT);
    assert_eq!(progress(&mut client, "notes"), "0 waiting, 0 failed");
    assert_eq!(objects(&mut client), before);
    cluster.forgive_kills();
}
