//! The index inside PostgreSQL beside a scan of the whole table and, where the server has it, pgvector's hnsw:
//! build, recall and cost of searches, filters, inserts, deletes. `make bench-index`; how to read it: `benches/README.md`.
//!
//! All contestants run in one server, one at a time and in turn, each in a session of its own with prepared statements.
//! Times are processor time of that backend; queries per second are those of one connection and count the round trip.

mod attributes;
mod changes;
#[path = "../../tests/cluster/mod.rs"]
mod cluster;
mod contestant;
mod curve;
mod data;
mod defaults;
mod filters;
#[path = "../../crates/ann/tests/common/generate.rs"]
mod generate;
mod measure;
mod search;
mod session;
mod truth;

use cluster::Cluster;
use data::Set;
use session::Session;
use std::path::Path;

/// A setting from the environment; the Makefile hands its variables over so.
fn option(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str, default: usize) -> usize {
    option(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} is no number: {v}")))
}

/// Embeds the pictures of a directory with the starter model, in the server.
fn photos(cluster: &Cluster, directory: &Path) -> Vec<Vec<f32>> {
    let mut client = cluster.client();
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", directory.display()))
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let statement = client.prepare("SELECT embed_image($1)::real[]").expect("the model loads");
    let count = files.len();
    let vectors: Vec<Vec<f32>> = files
        .iter()
        .filter_map(|file| {
            let bytes = std::fs::read(file).ok()?;
            client.query_one(&statement, &[&bytes]).ok().map(|row| row.get(0))
        })
        .collect();
    println!("{} of {count} files in {} are pictures", vectors.len(), directory.display());
    vectors
}

fn main() {
    if option("IMGVEC_STAGE").is_none() {
        println!("index bench SKIPPED: IMGVEC_STAGE is not set; run `make bench-index`");
        return;
    }
    let (loaded, queries) = (number("ROWS", 100_000), number("COUNT", 200));
    let vectors_mb = (loaded.max(10_000) * data::DIM * 4) >> 20;
    let cluster = Cluster::new("index")
        .conf(&format!("shared_buffers = '{}MB'", (8 * vectors_mb).clamp(256, 8_192)))
        .conf("max_wal_size = '4GB'")
        .conf("checkpoint_timeout = '1h'")
        // WAL then says what an index writes, not how long ago a checkpoint was.
        .conf("full_page_writes = off")
        .conf("autovacuum = off")
        .conf("jit = off")
        .start();
    let mut session = Session::new(&cluster);
    let has_vector = session.has("SELECT FROM pg_available_extensions WHERE name = 'vector'");
    let mut kinds = vec![contestant::FLAT, contestant::ANN, contestant::ANN_KEYS];
    if has_vector && loaded <= number("HNSW_ROWS", 250_000) {
        session.run("CREATE EXTENSION vector");
        kinds.push(contestant::HNSW);
        if option("HALFVEC").is_some() {
            kinds.push(contestant::HALFVEC);
        }
    } else if has_vector {
        println!("pgvector SKIPPED: its build takes too long above HNSW_ROWS = 250000 rows");
    } else {
        println!(
            "pgvector SKIPPED: this server has no extension vector (tests/chroot.sh makes one that has)"
        );
    }
    let version: String = session.client.query_one("SELECT version()", &[]).expect("a version").get(0);
    let versions = session.client.query(
        "SELECT extname || ' ' || extversion FROM pg_extension WHERE extname IN ('imgvec', 'vector') ORDER BY 1",
        &[],
    );
    let versions: Vec<String> = versions.expect("extensions").iter().map(|row| row.get(0)).collect();
    println!("{}; {}", version.split(" on ").next().unwrap_or_default(), versions.join(", "));

    let list = |name: &str, default: &[&str]| -> Vec<String> {
        let list = option(name).unwrap_or_else(|| default.join(","));
        list.split(',').map(|one| one.trim().to_owned()).filter(|one| one != "none").collect()
    };
    let parts = list("PARTS", &measure::PARTS);
    if let Some(unknown) = parts.iter().find(|part| !measure::PARTS.contains(&part.as_str())) {
        panic!("PARTS knows {}, not {unknown}", measure::PARTS.join(", "));
    }
    for name in list("SETS", &data::SETS) {
        let set = Set::generate(&name, loaded, queries)
            .unwrap_or_else(|| panic!("SETS knows {} and none, not {name}", data::SETS.join(", ")));
        measure::run(&cluster, &set, &kinds, &parts);
    }
    if let Some(path) = option("VECTORS") {
        let mut set = Set::of_vectors("vectors", data::read(Path::new(&path)), queries);
        if let Some(path) = option("TEXTS") {
            set.ask("texts", data::read(Path::new(&path)), queries);
        }
        measure::run(&cluster, &set, &kinds, &parts);
    }
    if let Some(path) = option("PHOTOS") {
        let set = Set::of_vectors("photos", photos(&cluster, Path::new(&path)), queries);
        measure::run(&cluster, &set, &kinds, &parts);
    }
}
