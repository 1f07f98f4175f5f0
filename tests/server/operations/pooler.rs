//! PgBouncer in transaction mode: a server session serves one client after another, so settings are local to a
//! transaction or belong to the index, and no client sees what another one set.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use postgres::types::Type;
use postgres::{Client, NoTls};

use super::wait_until;
use crate::ann::{CREATE_INDEX, create_items, explain, ids, is_ordered_by_index, quiet};
use crate::cluster::{Cluster, run, signal};
use crate::{failure, skip, value};

/// Where distributions put it, which not everybody's PATH has.
const PLACES: [&str; 2] = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];

/// A pooler before a server; ends when dropped.
struct Pooler {
    process: Child,
    directory: PathBuf,
    /// Named prepared statements of the protocol are carried over from 1.21 on.
    prepares: bool,
}

impl Pooler {
    /// A pooler that keeps `sessions` sessions with the server for all its clients.
    fn start(cluster: &Cluster, sessions: u32) -> Option<Self> {
        let Some(program) = PLACES.into_iter().find(|place| Path::new(place).exists()) else {
            skip("pooler", "pgbouncer is not installed", "IMGVEC_REQUIRE_PGBOUNCER");
            return None;
        };
        let version = run(Command::new(program).arg("--version"));
        let number = version.split_whitespace().nth(1).unwrap_or_default();
        let mut parts = number.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let prepares = (parts.next() >= Some(2)) || parts.next() >= Some(21);
        let directory = cluster.directory().join("pool");
        fs::create_dir(&directory).unwrap();
        let settings = format!(
            "[databases]\npostgres = host={server} dbname=postgres user=postgres pool_size={sessions}\n\
             [pgbouncer]\npool_mode = transaction\nauth_type = any\nlisten_port = 6432\nlisten_addr =\n\
             unix_socket_dir = {pool}\nlogfile = {pool}/log\nmax_client_conn = 200\n{prepared}\n",
            server = cluster.directory().display(),
            pool = directory.display(),
            prepared = if prepares { "max_prepared_statements = 100" } else { "" },
        );
        fs::write(directory.join("pgbouncer.ini"), settings).unwrap();
        cluster.give(&directory);
        let process = cluster
            .command_of_server_user(program)
            .arg("--quiet")
            .arg(directory.join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pooler = Self { process, directory, prepares };
        wait_until("the pooler accepts connections", || pooler.connect().is_ok());
        Some(pooler)
    }

    fn connect(&self) -> Result<Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host_path(&self.directory).port(6432).user("postgres").dbname("postgres");
        config.connect(NoTls)
    }

    fn client(&self) -> Client {
        self.connect().unwrap_or_else(|error| {
            let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            panic!("{error}; log of the pooler:\n{log}")
        })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        signal(self.process.id(), "TERM");
        let _ = self.process.wait();
    }
}

/// The first value of the first row; without a prepared statement.
#[track_caller]
fn text(client: &mut Client, query: &str) -> String {
    let messages = client.simple_query(query).unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let found = messages.iter().find_map(|message| {
        if let postgres::SimpleQueryMessage::Row(row) = message {
            row.get(0).map(str::to_owned)
        } else {
            None
        }
    });
    found.unwrap_or_else(|| panic!("{query}: no row"))
}

#[test]
fn settings_of_a_transaction_do_not_reach_the_next_client() {
    let cluster = quiet("pooler").start();
    create_items(&mut cluster.client(), 1000);
    cluster.client().batch_execute(CREATE_INDEX).unwrap();
    let Some(pooler) = Pooler::start(&cluster, 1) else { return };
    let (mut one, mut two) = (pooler.client(), pooler.client());

    // The very first statement of a fresh session sets what only the library, not loaded yet, knows.
    one.batch_execute("BEGIN; SET LOCAL imgvec.ef_search = 33; SET LOCAL imgvec.default_model = 'missing'")
        .unwrap();
    let session = text(&mut one, "SELECT pg_backend_pid()");
    text(&mut one, "SELECT vec(1, 16) <-> vec(2, 16)");
    assert_eq!(text(&mut one, "SHOW imgvec.ef_search"), "33");
    assert_eq!(text(&mut one, "SHOW imgvec.default_model"), "missing");
    one.batch_execute("COMMIT").unwrap();
    assert_eq!(text(&mut two, "SELECT pg_backend_pid()"), session, "the pooler has one session for both");
    assert_eq!(text(&mut two, "SHOW imgvec.ef_search"), "0");
    assert_eq!(text(&mut two, "SHOW imgvec.default_model"), "starter");
    let dims = "SELECT imgvec_dims(embed_text('a dog'))";
    assert_eq!(text(&mut two, dims), "256");

    // A transaction that ends by an error, one that is rolled back, one whose client disappears.
    one.batch_execute("BEGIN; SET LOCAL imgvec.ef_search = 34; SET LOCAL imgvec.default_model = 'missing'")
        .unwrap();
    assert_eq!(failure(&mut one, dims).code().code(), "42704");
    one.batch_execute("ROLLBACK").unwrap();
    assert_eq!(text(&mut two, "SHOW imgvec.ef_search"), "0");
    assert_eq!(text(&mut two, dims), "256");
    one.batch_execute("BEGIN; SET LOCAL imgvec.max_scan_rows = 5; ROLLBACK").unwrap();
    assert_eq!(text(&mut two, "SHOW imgvec.max_scan_rows"), "0");
    one.batch_execute("BEGIN; SET LOCAL imgvec.max_scan_rows = 6").unwrap();
    drop(one);
    // Maybe in another session: the pooler ends one whose client left in a transaction.
    text(&mut two, dims);
    assert_eq!(text(&mut two, "SHOW imgvec.max_scan_rows"), "0");

    // What SET LOCAL sets does take effect: a scan that may give six rows gives six.
    let search = "SELECT count(*) FROM (SELECT FROM items ORDER BY embedding <-> vec(-1, 16) LIMIT 50) AS s";
    two.batch_execute("BEGIN; SET LOCAL enable_seqscan = off; SET LOCAL imgvec.max_scan_rows = 6").unwrap();
    assert_eq!(text(&mut two, search), "6");
    two.batch_execute("COMMIT").unwrap();
    assert_eq!(text(&mut two, search), "50");
}

#[test]
fn an_index_and_a_database_carry_settings_that_every_client_gets() {
    let cluster = quiet("pooler-options").start();
    let mut admin = cluster.client();
    create_items(&mut admin, 1000);
    admin
        .batch_execute(&format!(
            "{CREATE_INDEX} WITH (max_scan_rows = 7); ALTER DATABASE postgres SET enable_seqscan = off;
             ALTER DATABASE postgres SET imgvec.default_model = 'missing'"
        ))
        .unwrap();
    let Some(pooler) = Pooler::start(&cluster, 1) else { return };
    let search = "SELECT count(*) FROM (SELECT FROM items ORDER BY embedding <-> vec(-1, 16) LIMIT 50) AS s";
    for _ in 0..2 {
        let mut client = pooler.client();
        assert_eq!(text(&mut client, search), "7");
        assert_eq!(failure(&mut client, "SELECT embed_text('a dog')").code().code(), "42704");
        client.batch_execute("BEGIN; SET LOCAL imgvec.max_scan_rows = 9").unwrap();
        assert_eq!(text(&mut client, search), "9", "SET LOCAL prevails");
        client.batch_execute("COMMIT").unwrap();
    }
}

#[test]
fn prepared_statements_search_by_the_index() {
    let cluster = quiet("pooler-prepared").start();
    create_items(&mut cluster.client(), 1000);
    cluster.client().batch_execute(CREATE_INDEX).unwrap();
    cluster
        .client()
        .batch_execute("ALTER DATABASE postgres SET enable_seqscan = off; ALTER DATABASE postgres SET plan_cache_mode = force_generic_plan")
        .unwrap();
    let Some(pooler) = Pooler::start(&cluster, 2) else { return };
    let mut clients = [pooler.client(), pooler.client(), pooler.client()];
    let query = "SELECT id FROM items ORDER BY embedding <-> $1::text::imgvec LIMIT 3";
    let vectors: Vec<String> =
        (1..=6).map(|id| value(&mut cluster.client(), &format!("SELECT vec({id}, 16)::text"))).collect();
    for number in 1..=6_i32 {
        let client = &mut clients[number as usize % 3];
        // Parsed, bound and executed in one message: no pooler minds.
        let vector = &vectors[number as usize - 1];
        let rows = client.query_typed(query, &[(vector, Type::TEXT)]).unwrap();
        assert_eq!(ids(&rows)[0], number);
    }
    let plan = explain(&mut clients[0], "SELECT id FROM items ORDER BY embedding <-> vec(1, 16) LIMIT 3");
    assert!(is_ordered_by_index(&plan), "{plan:#?}");
    if pooler.prepares {
        let prepared: Vec<_> = clients.iter_mut().map(|client| client.prepare(query).unwrap()).collect();
        for (vector, number) in vectors.iter().zip(1..=6_i32) {
            let which = number as usize % 3;
            let rows = clients[which].query(&prepared[which], &[vector]).unwrap();
            assert_eq!(ids(&rows)[0], number);
        }
    } else {
        // Statements of SQL live in a transaction.
        for client in &mut clients {
            client
                .batch_execute("BEGIN; PREPARE search (imgvec) AS SELECT id FROM items ORDER BY embedding <-> $1 LIMIT 3")
                .unwrap();
            assert_eq!(text(client, &format!("EXECUTE search ('{}')", vectors[3])), "4");
            client.batch_execute("DEALLOCATE search; COMMIT").unwrap();
        }
    }
}

#[test]
fn many_clients_embed_through_few_sessions() {
    const CLIENTS: usize = 24;
    const TEXTS: usize = 8;
    let cluster = quiet("pooler-many").start();
    let Some(pooler) = Pooler::start(&cluster, 2) else { return };
    let mut direct = cluster.client();
    let expected: Vec<String> = (0..TEXTS)
        .map(|number| value(&mut direct, &format!("SELECT md5(embed_text('text {number}')::text)")))
        .collect();
    let work = |client_number: usize| {
        let mut client = pooler.client();
        let mut sessions = BTreeSet::new();
        for step in 0..TEXTS {
            let number = (step + client_number) % TEXTS;
            let query = format!("SELECT md5(embed_text('text {number}')::text) || ' ' || pg_backend_pid()");
            let answer = text(&mut client, &query);
            let (digest, session) = answer.split_once(' ').unwrap();
            assert_eq!(digest, expected[number], "client {client_number}, text {number}");
            sessions.insert(session.to_owned());
        }
        sessions
    };
    let sessions: BTreeSet<String> = thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS)
            .map(|number| {
                scope.spawn({
                    let work = &work;
                    move || work(number)
                })
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(sessions.len() <= 2, "{CLIENTS} clients used sessions {sessions:?}");
    // Each session embedded each text once, whoever asked.
    let mut client = pooler.client();
    let embedded: i64 = text(&mut client, "SELECT texts_embedded FROM imgvec_backend_stats").parse().unwrap();
    assert!((1..=TEXTS as i64).contains(&embedded), "{embedded} texts embedded");
}
