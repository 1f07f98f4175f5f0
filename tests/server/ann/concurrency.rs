//! Eight sessions insert, update, delete and search while others vacuum, build and rebuild. Every session owns
//! its rows and knows them, so each answer can be judged at once, and at the end no row is lost or doubled.
//!
//! `IMGVEC_CONCURRENCY_SECONDS` sets how long (default 12), `IMGVEC_CONCURRENCY_SEED` what they do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use super::{CREATE_INDEX, DIM, assert_sound, check, create_items, number_from_environment, quiet};
use crate::{Random, value};

const SESSIONS: i32 = 8;
/// Rows before the sessions start; nobody changes them.
const CONSTANT_ROWS: i32 = 1000;
/// A vector that many rows of all sessions have.
const SHARED: i32 = 0;

/// A session that changes only ids of its own, and what must be in the table because of it.
struct Session {
    client: Client,
    random: Random,
    /// Seed of the vector of each of its rows.
    rows: BTreeMap<i32, i32>,
    next: i32,
    searches: u32,
    changes: u32,
}

impl Session {
    fn new(client: Client, number: i32, seed: u32) -> Self {
        let next = (number + 1) * 1_000_000;
        let random = Random(seed.wrapping_mul(1000) + u32::try_from(number).unwrap() + 1);
        Self { client, random, rows: BTreeMap::new(), next, searches: 0, changes: 0 }
    }

    fn execute(&mut self, statement: &str, rows: usize) {
        let changed = self.client.execute(statement, &[]);
        let changed = changed.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        assert_eq!(changed, rows as u64, "{statement}");
        self.changes += 1;
    }

    /// A seed that no row had before, or in one case of eight the shared one.
    fn seed(&mut self) -> i32 {
        self.next += 1;
        if self.random.below(8) == 0 { SHARED } else { self.next }
    }

    fn own(&mut self) -> Option<i32> {
        let count = self.rows.len();
        (count > 0).then(|| *self.rows.keys().nth(self.random.below(count)).unwrap())
    }

    fn insert(&mut self) {
        let seed = self.seed();
        let id = self.next;
        self.execute(&format!("INSERT INTO items SELECT {id}, vec({seed}, {DIM})"), 1);
        self.rows.insert(id, seed);
        self.find(id);
    }

    fn insert_many(&mut self) {
        let (first, last) = (self.next + 1, self.next + 15);
        self.next = last;
        let source = format!("generate_series({first}, {last}) AS i");
        self.execute(&format!("INSERT INTO items SELECT i, vec(i, {DIM}) FROM {source}"), 15);
        self.rows.extend((first..=last).map(|id| (id, id)));
    }

    fn step(&mut self) {
        let own = self.own();
        match (self.random.below(12), own) {
            (0..2, _) | (_, None) => self.insert(),
            (2, _) => self.insert_many(),
            (3..5, Some(id)) => {
                let seed = self.seed();
                self.execute(&format!("UPDATE items SET embedding = vec({seed}, {DIM}) WHERE id = {id}"), 1);
                self.rows.insert(id, seed);
                self.find(id);
            }
            (5, Some(id)) => self.execute(&format!("UPDATE items SET note = note || 'x' WHERE id = {id}"), 1),
            (6..8, Some(id)) => {
                self.execute(&format!("DELETE FROM items WHERE id = {id}"), 1);
                self.rows.remove(&id);
            }
            (8, Some(id)) => self.rolled_back(id),
            (_, Some(id)) => self.find(id),
        }
    }

    /// Changes that must leave no trace.
    fn rolled_back(&mut self, id: i32) {
        let mut transaction = self.client.transaction().unwrap();
        transaction
            .execute(&format!("UPDATE items SET embedding = vec(-{id}, {DIM}) WHERE id = {id}"), &[])
            .unwrap();
        transaction.execute(&format!("INSERT INTO items SELECT -{id}, vec({id}, {DIM})"), &[]).unwrap();
        transaction.rollback().unwrap();
    }

    /// A search by the vector of an own row: the row is there, at distance 0, once, and the rest is in order.
    fn find(&mut self, id: i32) {
        let seed = self.rows[&id];
        let search = format!(
            "SELECT id, embedding <-> vec({seed}, {DIM}) FROM items ORDER BY embedding <-> vec({seed}, {DIM}) LIMIT 10"
        );
        let rows = self.client.query(&search, &[]).unwrap_or_else(|error| panic!("{search}: {error:?}"));
        let answers: Vec<(i32, f64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        assert_eq!(answers.len(), 10, "{answers:?}");
        assert!(answers.is_sorted_by(|a, b| a.1 <= b.1), "{answers:?}");
        let mut unique: Vec<i32> = answers.iter().map(|answer| answer.0).collect();
        unique.sort_unstable();
        assert!(unique.windows(2).all(|pair| pair[0] < pair[1]), "a row came out twice: {answers:?}");
        assert!(answers[0].1 == 0.0, "row {id} of seed {seed} is missing: {answers:?}");
        if seed != SHARED {
            assert_eq!(answers[0].0, id, "{answers:?}");
        }
        self.searches += 1;
    }
}

/// How much longer than it should the run may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn eight_sessions_lose_and_double_no_row() {
    let duration = Duration::from_secs(number_from_environment("IMGVEC_CONCURRENCY_SECONDS", 12).into());
    let seed = number_from_environment("IMGVEC_CONCURRENCY_SEED", 1);
    let cluster =
        quiet("ann-concurrency").conf("deadlock_timeout = '200ms'").conf("synchronous_commit = off").start();
    let mut client = cluster.client();
    create_items(&mut client, CONSTANT_ROWS);
    client.batch_execute(CREATE_INDEX).unwrap();
    // Searches shall go through the index also while the table is small and no statistics exist.
    client
        .batch_execute(
            "ALTER DATABASE postgres SET enable_seqscan = off; ALTER DATABASE postgres SET enable_sort = off",
        )
        .unwrap();

    let stop = AtomicBool::new(false);
    let (mut rows, mut searches, mut changes) = (BTreeMap::new(), 0, 0);
    let (vacuums, builds) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let (mut session, stop) = (Session::new(cluster.client(), number, seed), &stop);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        session.step();
                    }
                    session
                })
            })
            .collect();
        let vacuum = scope.spawn(|| {
            let mut client = cluster.client();
            while !stop.load(Ordering::Relaxed) {
                client.batch_execute("VACUUM items").unwrap();
                vacuums.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(50));
            }
        });
        let build = scope.spawn(|| {
            let mut client = cluster.client();
            while !stop.load(Ordering::Relaxed) {
                for statement in [
                    "CREATE INDEX CONCURRENTLY items_second ON items USING ann (embedding imgvec_l2_ops)",
                    "REINDEX INDEX CONCURRENTLY items_embedding",
                    "DROP INDEX CONCURRENTLY items_second",
                ] {
                    client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
                }
                builds.fetch_add(1, Ordering::Relaxed);
            }
        });
        let begin = Instant::now();
        // A busy machine takes longer to do enough.
        let is_enough = || {
            let (vacuums, builds) = (vacuums.load(Ordering::Relaxed), builds.load(Ordering::Relaxed));
            begin.elapsed() >= duration && vacuums > 2 && builds > 0 || begin.elapsed() >= duration + PATIENCE
        };
        // Whoever fails ends the run at once; joining it then tells why.
        let has_failed = || {
            sessions.iter().any(thread::ScopedJoinHandle::is_finished)
                || vacuum.is_finished()
                || build.is_finished()
        };
        while !is_enough() && !has_failed() {
            thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
        for session in sessions {
            let session = session.join().unwrap();
            rows.extend(session.rows);
            searches += session.searches;
            changes += session.changes;
        }
        vacuum.join().unwrap();
        build.join().unwrap();
    });
    let (vacuums, builds) = (vacuums.into_inner(), builds.into_inner());
    eprintln!(
        "seed {seed}: {changes} changes, {searches} searches, {vacuums} vacuums, {builds} rounds of builds"
    );
    assert!(vacuums > 2 && builds > 0 && searches > 100 && changes > 100);

    rows.extend((1..=CONSTANT_ROWS).map(|id| (id, id)));
    let expected = rows.len();
    let table: BTreeMap<i32, i32> = client
        .query("SELECT id, 0 FROM items", &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert!(table.keys().eq(rows.keys()), "the table has {} rows instead of {expected}", table.len());
    let given = rows.iter().map(|(id, seed)| format!("({id}, {seed})")).collect::<Vec<_>>().join(", ");
    let wrong: i64 = value(
        &mut client,
        &format!(
            "SELECT count(*) FROM items JOIN (VALUES {given}) AS given (id, seed) USING (id) WHERE embedding <> vec(seed, {DIM})"
        ),
    );
    assert_eq!(wrong, 0, "rows with another vector than their session gave them");

    assert_sound(&mut client);
    client.batch_execute("VACUUM items").unwrap();
    // Each row once and nothing else: rows that were rolled back, deleted or moved are gone.
    assert_eq!(assert_sound(&mut client).rows, expected as i64);
    client.batch_execute("CREATE INDEX items_fresh ON items USING ann (embedding imgvec_l2_ops)").unwrap();
    assert_eq!(check(&mut client, "items_fresh").rows, expected as i64);
}
