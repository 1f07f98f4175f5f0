//! Every call of the server fails in turn while columns are maintained and a library is asked: with an error, a panic, a
//! request to cancel, or for want of memory. After each failure the session goes on, and no row is lost: what has no
//! embedding yet waits, is known to have failed, or lies after the place of the backfill.
//!
//! `make test` lets one call of each place fail, in one way; `IMGVEC_FAULTS=all`, as in `make test-long`, each call in all ways.

use std::collections::BTreeSet;
use std::env;

use postgres::Client;

use super::migrate::write_other_model;
use super::{assert_complete, run};
use crate::fault_points::{KINDS, chosen, places_in_source, told};
use crate::models::cluster_with_packages;
use crate::{skip, value};

/// What is done while a call fails.
struct Work {
    name: &'static str,
    /// Makes something to do; runs without faults before each turn.
    before: &'static str,
    statement: &'static str,
}

const WORKS: [Work; 11] = [
    Work {
        name: "insert",
        before: "SELECT 1",
        statement: "INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1000, 1003) AS i",
    },
    Work {
        name: "update",
        before: "INSERT INTO notes VALUES (1000, 'thing'), (1001, 'thing');\nCALL imgvec_work('notes')",
        statement: "UPDATE notes SET caption = 'number ' || id WHERE id >= 1000",
    },
    Work {
        name: "work",
        before: "INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1000, 1005) AS i;
                 UPDATE notes SET caption = 'number ' || id WHERE id < 3",
        statement: "CALL imgvec_work('notes')",
    },
    Work {
        name: "work at rows that fail",
        before: "INSERT INTO notes SELECT i, CASE WHEN i % 2 = 0 THEN 'odd' ELSE 'thing' END FROM generate_series(1000, 1003) AS i",
        statement: "CALL imgvec_work('notes')",
    },
    Work {
        name: "retry",
        before: "INSERT INTO notes VALUES (1000, 'odd'), (1001, 'odd');\nCALL imgvec_work('notes');
                 UPDATE notes SET caption = 'even' WHERE id = 1000",
        statement: "SELECT imgvec_retry('notes')",
    },
    Work {
        name: "views",
        before: "INSERT INTO notes VALUES (1000, 'odd'), (1001, 'odd');\nCALL imgvec_work('notes')",
        statement: "SELECT (SELECT count(*) FROM imgvec_failures), (SELECT sum(waiting) FROM imgvec_progress), (SELECT sum(outdated) FROM imgvec_models)",
    },
    Work {
        name: "declare",
        before: "SELECT 1",
        statement: "SELECT imgvec_maintain('more', 'caption', 'embedding', 'starter')",
    },
    Work {
        name: "end",
        before: "SELECT imgvec_maintain('more', 'caption', 'embedding', 'starter')",
        statement: "SELECT imgvec_maintain('more', target => 'embedding', stop => true)",
    },
    Work {
        name: "backfill",
        before: "UPDATE more SET embedding = NULL;
                 SELECT imgvec_maintain('more', 'caption', 'embedding', 'starter')",
        statement: "CALL imgvec_work('more')",
    },
    Work {
        name: "migrate",
        before: "UPDATE more SET embedding = NULL;
                 SELECT imgvec_maintain('more', 'caption', 'embedding', 'starter');
                 CALL imgvec_work('more')",
        statement: "CALL imgvec_migrate('more', 'embedding', 'other')",
    },
    Work {
        name: "library",
        before: "SELECT 1",
        statement: "SELECT (SELECT count(*) FROM ann_pairs('vectors_embedding', 0.3)), (SELECT count(*) FROM ann_groups('vectors_embedding', 0.3)),
            (SELECT count(*) FROM ann_clusters('vectors_embedding', 3)), (SELECT count(c) FROM (SELECT cluster(embedding, 3) OVER () AS c FROM vectors) AS s),
            (SELECT count(c) FROM (SELECT duplicate_group(embedding, 0.1) OVER () AS c FROM vectors) AS s)",
    },
];

/// What must hold after each failure, in the same session.
#[track_caller]
fn assert_whole(client: &mut Client, turn: &str) {
    client
        .batch_execute("SET imgvec.fault_at = 0")
        .unwrap_or_else(|error| panic!("{turn}: the session does not go on: {error:?}"));
    eprintln_on_panic(turn, || {
        // Rows that failed by themselves are there no more; those that the fault had fail are tried again.
        run(client, "UPDATE notes SET caption = 'even' WHERE caption = 'odd'");
        go_on(client, "notes");
        assert_complete(client, "notes", "embed_text(caption, 'starter')");
        assert_eq!(value::<i64>(client, "SELECT count(*) FROM notes_embedding_queue"), 0);
        run(client, "DELETE FROM notes WHERE id >= 1000");
        let maintained = "SELECT count(*) FROM imgvec_progress WHERE relation = 'more'::regclass";
        match value::<i64>(client, maintained) {
            0 => {}
            1 => {
                let model = "SELECT model FROM imgvec_progress WHERE relation = 'more'::regclass";
                let model: String = value(client, model);
                go_on(client, "more");
                assert_complete(client, "more", &format!("embed_text(caption, '{model}')"));
                run(client, "SELECT imgvec_maintain('more', target => 'embedding', stop => true)");
            }
            // A migration that was broken off goes on.
            _ => {
                go_on(client, "more");
                run(client, "CALL imgvec_migrate('more', 'embedding', 'other')");
                assert_complete(client, "more", "embed_text(caption, 'other')");
                run(client, "SELECT imgvec_maintain('more', target => 'embedding', stop => true)");
            }
        }
        let left =
            "SELECT string_agg(relname, ', ') FROM pg_class WHERE relname ~ '^more_.*(queue|log|next)'";
        assert_eq!(value::<Option<String>>(client, left), None);
        let triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'more'::regclass";
        assert_eq!(value::<i64>(client, triggers), 0);
        for index in ["notes_index", "more_index"] {
            let checked =
                client.query_one("SELECT (ann_index_check($1::text::regclass, true)).rows", &[&index]);
            checked.unwrap_or_else(|error| panic!("{index}: {error:?}"));
        }
    });
}

/// Says which turn it was where an assertion fails.
fn eprintln_on_panic(turn: &str, check: impl FnOnce()) {
    struct Told<'a>(&'a str);
    impl Drop for Told<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("after: {}", self.0);
            }
        }
    }
    let _told = Told(turn);
    check();
}

/// Works until nothing waits, rows that failed included.
#[track_caller]
fn go_on(client: &mut Client, table: &str) {
    run(
        client,
        &format!(
            "CALL imgvec_work('{table}');\nSELECT imgvec_retry('{table}');\nCALL imgvec_work('{table}')"
        ),
    );
}

#[test]
fn every_call_of_the_pipeline_may_fail() {
    let (cluster, models) = cluster_with_packages("pipeline-faults", &[]);
    write_other_model(&models.join("other"), 1);
    cluster.give(&models);
    let mut client = cluster.client();
    run(
        &mut client,
        "CREATE FUNCTION picky(caption text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
             IF caption = 'odd' THEN RAISE EXCEPTION 'odd'; END IF; RETURN caption; END $$;
         CREATE TABLE notes (id integer PRIMARY KEY, caption text, embedding imgvec(256));
         SELECT imgvec_maintain('notes', 'picky(caption)', 'embedding', 'starter');
         INSERT INTO notes SELECT i, 'thing ' || i FROM generate_series(1, 5) AS i;
         CREATE INDEX notes_index ON notes USING ann (embedding);
         CALL imgvec_work('notes');
         CREATE TABLE more (id integer PRIMARY KEY, caption text, embedding imgvec(256));
         INSERT INTO more SELECT i, 'thing ' || i FROM generate_series(1, 5) AS i;
         CREATE INDEX more_index ON more USING ann (embedding);
         CREATE TABLE vectors (embedding imgvec(3));
         INSERT INTO vectors SELECT ARRAY[i % 7, i % 5, i]::imgvec FROM generate_series(1, 40) AS i;
         CREATE INDEX vectors_embedding ON vectors USING ann (embedding)",
    );
    if value::<Option<String>>(&mut client, "SELECT current_setting('imgvec.fault_at', true)").is_none() {
        skip(
            "every_call_of_the_pipeline_may_fail",
            "the extension was built as a release",
            "IMGVEC_REQUIRE_FAULTS",
        );
        return;
    }
    let all = env::var("IMGVEC_FAULTS").is_ok_and(|value| value == "all");
    let (mut seen, mut turns) = (0, 0);
    let mut failed = BTreeSet::new();
    for work in &WORKS {
        run(&mut client, work.before);
        told(&cluster, &mut seen, "LOG:  point ");
        run(&mut client, &format!("SET imgvec.fault_place = '';\nSET imgvec.fault_at = {}", i32::MAX));
        run(&mut client, work.statement);
        let points = told(&cluster, &mut seen, "LOG:  point ");
        assert_whole(&mut client, work.name);
        assert!(points.len() > 2, "{}: {points:?}", work.name);
        let places: Vec<&String> = points.iter().collect::<BTreeSet<_>>().into_iter().collect();
        let chosen: Vec<(&str, usize)> = chosen(&points, all)
            .into_iter()
            .filter(|&(place, at)| {
                // The first call of every other place, and the last one of the rest.
                let count = points.iter().filter(|other| *other == place).count();
                let is_odd = places.iter().position(|other| *other == place).unwrap() % 2 == 1;
                all || at == if is_odd { 1 } else { count }
            })
            .collect();
        eprintln!(
            "{}: {} of {} calls at {} places fail",
            work.name,
            chosen.len(),
            points.len(),
            places.len()
        );
        for (number, &(place, at)) in chosen.iter().enumerate() {
            for (kind, (kind_name, _)) in KINDS.iter().enumerate() {
                if !all && number % KINDS.len() != kind {
                    continue;
                }
                let turn = format!("{}, {kind_name} where it would {place}, time {at}", work.name);
                eprintln_on_panic(&turn, || run(&mut client, work.before));
                let order = format!(
                    "SET imgvec.fault_kind = {kind}; SET imgvec.fault_place = '{}'; SET imgvec.fault_at = {at}",
                    place.replace('\'', "''")
                );
                client.batch_execute(&order).unwrap();
                if let Err(error) = client.batch_execute(work.statement) {
                    assert!(error.code().is_some(), "{turn}: the session ended: {error:?}");
                }
                assert_whole(&mut client, &turn);
                let fault = told(&cluster, &mut seen, "LOG:  fault ");
                turns += fault.len();
                failed.extend(fault);
            }
        }
    }
    eprintln!("{turns} failures at {} places, all survived", failed.len());
    let named = places_in_source(&["src/server", "src/pipeline", "src/library"]);
    let never: Vec<_> = named.difference(&failed).cloned().collect();
    // Whether threads are looked for before they have ended depends on the clock.
    assert!(never.iter().all(|place| place.starts_with("look while")), "these did not fail: {never:?}");
    let log = cluster.log();
    for sign in ["leak", "PANIC:", "still referenced"] {
        let line = log.lines().find(|line| line.contains(sign));
        assert!(line.is_none(), "the log has {line:?}");
    }
}
