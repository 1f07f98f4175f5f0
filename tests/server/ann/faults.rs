//! Every call of the server fails in turn: with an error, a panic, a request to cancel, or for want of memory. After
//! each failure the session goes on, the table is as it was, and the index is whole and has every row.
//!
//! `make test` lets some calls of each place fail; `IMGVEC_FAULTS=all`, as in `make test-long`, every call; names of `WORKS`
//! (`IMGVEC_FAULTS='vacuum,scan'`) every call of these.
//! A server without the settings, which is one that was built as a release, skips the test and says so.

use std::collections::BTreeSet;
use std::env;

use postgres::Client;

use super::{CREATE_INDEX, VECTORS, quiet};
use crate::fault_points::{KINDS, chosen, places_in_source, told};
use crate::{skip, value};

const ROWS: i64 = 160;

/// What is done while a call fails.
struct Work {
    name: &'static str,
    /// Makes something to do; runs without faults before each turn.
    before: &'static str,
    statement: &'static str,
}

const WORKS: [Work; 9] = [
    Work { name: "build", before: "SELECT 1", statement: "REINDEX INDEX items_embedding" },
    Work {
        name: "build with files",
        before: "SET maintenance_work_mem = '1MB'",
        statement: "REINDEX INDEX wide_embedding",
    },
    Work {
        name: "insert",
        before: "SELECT 1",
        statement: "INSERT INTO items SELECT i, vec(i, 192) FROM generate_series(1001, 1030) AS i",
    },
    Work {
        // A new index has room for no node: each page is added to its file.
        name: "insert into an empty index",
        before: "DROP TABLE IF EXISTS fresh; CREATE TABLE fresh (id integer, embedding imgvec(1000), name text);
                 CREATE INDEX fresh_embedding ON fresh USING ann (embedding imgvec_l2_ops, id, name)",
        statement: "INSERT INTO fresh SELECT i, vec(i, 1000), 'name' || i FROM generate_series(1, 12) AS i",
    },
    Work {
        // The transaction goes on after the failure.
        name: "insert in a subtransaction",
        before: "SELECT 1",
        statement: "DO $$ BEGIN
            BEGIN
                INSERT INTO items SELECT i, vec(i, 192) FROM generate_series(1001, 1002) AS i;
            EXCEPTION WHEN OTHERS THEN NULL;
            END;
            INSERT INTO items SELECT i, vec(i, 192) FROM generate_series(1003, 1004) AS i;
        END $$",
    },
    Work {
        name: "vacuum",
        before: "INSERT INTO items SELECT i, vec(i, 192) FROM generate_series(1001, 1012) AS i;
                 DELETE FROM items WHERE id > 1000",
        statement: "VACUUM (INDEX_CLEANUP on) items",
    },
    Work {
        name: "scan",
        before: "SET enable_seqscan = off; SET enable_sort = off",
        statement: "SELECT count(*) FROM (SELECT id FROM items ORDER BY embedding <-> vec(-1, 192) LIMIT 60) AS nearest",
    },
    Work {
        name: "scan with conditions",
        before: "SET enable_seqscan = off; SET enable_sort = off; DROP TABLE IF EXISTS keyed;
                 CREATE TABLE keyed AS SELECT i AS id, vec(i, 16)::imgvec(16) AS embedding, ARRAY['t' || i % 5] AS tags FROM generate_series(1, 50) AS i;
                 CREATE INDEX keyed_embedding ON keyed USING ann (embedding, id, tags)",
        statement: "SELECT count(*) FROM (SELECT id FROM keyed WHERE id IN (1, 2, 3, 20, 40) AND tags && '{t1,t0}' ORDER BY embedding <=> vec(-1, 16) LIMIT 3) AS nearest",
    },
    Work {
        name: "check and recall",
        before: "SELECT 1",
        statement: "SELECT ann_index_recall('items_embedding', 3, 3), (ann_index_check('items_embedding', true)).rows",
    },
];

/// What must hold after each failure, in the same session.
#[track_caller]
fn assert_whole(client: &mut Client, turn: &str) {
    client
        .batch_execute("SET imgvec.fault_at = 0; DELETE FROM items WHERE id > 1000")
        .unwrap_or_else(|error| panic!("{turn}: the session does not go on: {error:?}"));
    assert_eq!(value::<i64>(client, "SELECT count(*) FROM items"), ROWS, "{turn}");
    // The build of the other index is the one that needs files.
    let other = match () {
        () if turn.contains("files") => Some("wide_embedding"),
        () if turn.contains("empty index") => Some("fresh_embedding"),
        () => None,
    };
    for index in ["items_embedding"].into_iter().chain(other) {
        let checked =
            client.query_one("SELECT rows FROM ann_index_check($1::text::regclass, true)", &[&index]);
        checked.unwrap_or_else(|error| panic!("{turn}: {index}: {error:?}"));
    }
    let nearest = "SELECT id FROM items ORDER BY embedding <-> vec(77, 192) LIMIT 1";
    assert_eq!(value::<i32>(client, nearest), 77, "{turn}");
}

#[test]
fn every_call_of_the_server_may_fail() {
    let cluster = quiet("ann-faults").start();
    let mut client = cluster.client();
    client
        .batch_execute(&format!(
            "{VECTORS}; CREATE TABLE items (id integer, embedding imgvec(192));
             INSERT INTO items SELECT i, vec(i, 192) FROM generate_series(1, {ROWS}) AS i;
             CREATE TABLE wide (id integer, embedding imgvec(1000));
             INSERT INTO wide SELECT i, vec(i, 1000) FROM generate_series(1, 1100) AS i;
             {CREATE_INDEX}; CREATE INDEX wide_embedding ON wide USING ann (embedding imgvec_l2_ops)"
        ))
        .unwrap();
    if value::<Option<String>>(&mut client, "SELECT current_setting('imgvec.fault_at', true)").is_none() {
        skip(
            "every_call_of_the_server_may_fail",
            "the extension was built as a release",
            "IMGVEC_REQUIRE_FAULTS",
        );
        return;
    }
    let wanted = env::var("IMGVEC_FAULTS").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split(',').filter(|name| !name.is_empty()).collect();
    let known = |name: &&str| *name == "all" || WORKS.iter().any(|work| work.name == *name);
    assert!(wanted.iter().all(known), "IMGVEC_FAULTS is `all` or names of {:?}", WORKS.map(|work| work.name));
    let (mut seen, mut turns) = (0, 0);
    let mut failed = BTreeSet::new();
    for work in &WORKS {
        client.batch_execute(work.before).unwrap();
        told(&cluster, &mut seen, "LOG:  point ");
        let order = format!("SET imgvec.fault_place = ''; SET imgvec.fault_at = {}", i32::MAX);
        client.batch_execute(&order).unwrap();
        client.batch_execute(work.statement).unwrap();
        let points = told(&cluster, &mut seen, "LOG:  point ");
        assert_whole(&mut client, work.name);
        assert!(points.len() > 10, "{}: {points:?}", work.name);
        let chosen = chosen(&points, wanted.contains(&"all") || wanted.contains(&work.name));
        eprintln!("{}: {} of {} calls fail, in four ways", work.name, chosen.len(), points.len());
        for (kind, (kind_name, code)) in KINDS.iter().enumerate() {
            for &(place, at) in &chosen {
                let turn = format!("{}, {kind_name} where it would {place}, time {at}", work.name);
                client.batch_execute(work.before).unwrap_or_else(|error| panic!("{turn}: {error:?}"));
                let order = format!(
                    "SET imgvec.fault_kind = {kind}; SET imgvec.fault_place = '{}'; SET imgvec.fault_at = {at}",
                    place.replace('\'', "''")
                );
                client.batch_execute(&order).unwrap();
                let result = client.batch_execute(work.statement);
                if let Err(error) = result {
                    let given =
                        error.code().unwrap_or_else(|| panic!("{turn}: the session ended: {error:?}"));
                    assert_eq!(given.code(), *code, "{turn}: {error:?}");
                }
                assert_whole(&mut client, &turn);
                // Seeds differ from run to run, and so does the number of calls a little.
                let fault = told(&cluster, &mut seen, "LOG:  fault ");
                turns += fault.len();
                failed.extend(fault);
            }
        }
    }
    eprintln!("{turns} failures at {} places, all survived", failed.len());
    let never: Vec<_> =
        places_in_source(&["src/am", "src/am/inspect", "src/storage"]).difference(&failed).cloned().collect();
    eprintln!("never failed: {never:?}");
    // What a free-space map says depends on the order of pages, which differs from run to run.
    assert!(never.len() <= 3, "these did not fail: {never:?}");
    let log = cluster.log();
    for sign in ["leak", "PANIC", "still referenced", "WARNING:"] {
        let line = log.lines().find(|line| line.contains(sign));
        assert!(line.is_none(), "the log has {line:?}");
    }
}
