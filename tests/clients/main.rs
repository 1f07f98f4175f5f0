//! Client libraries against a running server: Python, Node.js, Java and Rust programs that use columns of type
//! `imgvec` and, beside pgvector, of its `vector`. What docs/clients.md shows is taken from them.
//!
//! `tests/setup.sh test` installs the libraries below target/clients. A client that is not there is skipped, and
//! says so; with IMGVEC_REQUIRE_CLIENTS set it fails. So it is with IMGVEC_REQUIRE_PGVECTOR and a server without pgvector.

#[path = "../cluster/mod.rs"]
mod cluster;

mod docs;
mod forward;
mod rust;

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster::{Cluster, run};
use forward::Forward;

/// The type of a program's vectors, and whether the extension imgvec_pgvector is there.
#[derive(Clone, Copy)]
struct Setting {
    column_type: &'static str,
    with_pgvector: bool,
}

/// Each is a database of its own.
const SETTINGS: [Setting; 3] = [
    Setting { column_type: "imgvec", with_pgvector: false },
    Setting { column_type: "imgvec", with_pgvector: true },
    Setting { column_type: "vector", with_pgvector: true },
];

/// A file of the checkout.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Tells that something is not tested, past the test harness, which would keep the message of a test that passes
/// to itself. Fails if the environment variable `required` is set.
fn skip(test: &str, reason: &str, required: &str) {
    let is_required = env::var_os(required).is_some_and(|value| !value.is_empty());
    assert!(!is_required, "{test}: {reason}, and {required} is set");
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// Whether `tests/setup.sh test` has brought what is named, below target/clients.
fn is_installed(test: &str, what: &str) -> bool {
    let complete = path("target/clients").join(what).join("complete");
    if !complete.exists() {
        skip(test, &format!("target/clients/{what} is not complete"), "IMGVEC_REQUIRE_CLIENTS");
    }
    complete.exists()
}

/// Runs `client` in a new database for each setting that the server can offer.
fn in_each_setting(test: &str, client: impl Fn(&Cluster, &str, Setting)) {
    let cluster = Cluster::new(&format!("client-{test}")).start_empty();
    let mut session = cluster.client();
    let has_pgvector: bool = session
        .query_one("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')", &[])
        .unwrap()
        .get(0);
    for setting in SETTINGS {
        let Setting { column_type, with_pgvector } = setting;
        if with_pgvector && !has_pgvector {
            let reason = "the server has no pgvector";
            skip(&format!("{test} with pgvector"), reason, "IMGVEC_REQUIRE_PGVECTOR");
            break;
        }
        let database = format!("{column_type}_{with_pgvector}");
        session.batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
        let extension = if with_pgvector { "imgvec_pgvector CASCADE" } else { "imgvec" };
        cluster
            .client_of("postgres", &database)
            .batch_execute(&format!("CREATE EXTENSION {extension}"))
            .unwrap();
        client(&cluster, &database, setting);
    }
}

fn python(name: &str) {
    if !is_installed(name, "python") {
        return;
    }
    let clients = path("target/clients");
    in_each_setting(name, |cluster, database, setting| {
        let mut command = cluster.command(clients.join("python/bin/python3"));
        command
            .arg(path("tests/clients/python").join(format!("{name}_client.py")))
            .arg(setting.column_type)
            .env("PGDATABASE", database)
            .env("PYTHONPYCACHEPREFIX", clients.join("pycache"))
            .env_remove("PYTHONPATH");
        if name == "langchain" {
            command.env("PYTHONPATH", clients.join("langchain"));
        }
        run(&mut command);
    });
}

#[test]
fn psycopg() {
    python("psycopg");
}

#[test]
fn asyncpg() {
    python("asyncpg");
}

#[test]
fn sqlalchemy() {
    python("sqlalchemy");
}

#[test]
fn django() {
    python("django");
}

#[test]
fn langchain() {
    python("langchain");
}

#[test]
fn node() {
    if !is_installed("node", "node") {
        return;
    }
    in_each_setting("node", |cluster, database, setting| {
        run(cluster
            .command("node")
            .arg(path("tests/clients/node/client.mjs"))
            .arg(setting.column_type)
            .env("PGDATABASE", database)
            .env("NODE_PACKAGES", path("target/clients/node")));
    });
}

/// The driver knows no Unix sockets. Set-up does not install Java, which is large; the chroots of `tests/chroot.sh`
/// have it, and say so with IMGVEC_REQUIRE_JAVA.
#[test]
fn jdbc() {
    const DRIVER: &str = "/usr/share/java/postgresql.jar";
    let has_java = Command::new("javac").arg("-version").output().is_ok_and(|output| output.status.success());
    if !has_java || !Path::new(DRIVER).exists() {
        let missing = if has_java { DRIVER } else { "a Java development kit" };
        skip("jdbc", &format!("{missing} is not there"), "IMGVEC_REQUIRE_JAVA");
        return;
    }
    in_each_setting("jdbc", |cluster, database, setting| {
        let forward = Forward::to(&cluster.directory().join(".s.PGSQL.5432"));
        run(cluster
            .command("java")
            .args(["-XX:TieredStopAtLevel=1", "-cp", DRIVER])
            .arg(path("tests/clients/java/Client.java"))
            .arg(setting.column_type)
            .arg(format!("jdbc:postgresql://127.0.0.1:{}/{database}?user=postgres", forward.port())));
    });
}
