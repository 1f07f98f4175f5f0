//! The extension in a running server: what SQL files cannot show, because it takes several sessions,
//! processes, files or clocks. One program, so that it is linked once; each module has its own servers.

#[path = "../cluster/mod.rs"]
mod cluster;
#[path = "../../crates/encoder/tests/model_support/graph.rs"]
#[allow(dead_code, reason = "the encoder's tests use the rest")]
mod graph;

mod ann;
mod answers;
mod cancel;
mod cases;
mod dump;
mod encodings;
mod fault_points;
mod gallery;
mod half;
mod hostile;
mod joint;
mod library;
mod memory;
mod models;
mod operations;
mod passing;
mod pipeline;
mod plans;
mod ported;
mod readme;
mod reference;
mod release;
mod soft_errors;
mod standby;

use std::env;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};

use image::{ImageFormat, Rgb, RgbImage};
use postgres::Client;
use postgres::error::DbError;
use postgres::types::FromSqlOwned;

/// Test files of the encoder crate.
fn encoder_data(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/encoder/tests/data").join(path)
}

/// Numbers that look random and are the same in every run (xorshift; Marsaglia 2003).
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() as usize % bound
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[2]
    }
}

/// A small PNG of random blocks; every seed from 1 is another picture.
fn picture(seed: u32) -> Vec<u8> {
    let mut random = Random(seed);
    let colors: Vec<_> = (0..64).map(|_| Rgb([random.byte(), random.byte(), random.byte()])).collect();
    let image = RgbImage::from_fn(64, 64, |x, y| colors[(y / 8 * 8 + x / 8) as usize]);
    let mut data = Cursor::new(Vec::new());
    image.write_to(&mut data, ImageFormat::Png).unwrap();
    data.into_inner()
}

/// The only value of a query's only row.
#[track_caller]
fn value<T: FromSqlOwned>(client: &mut Client, query: &str) -> T {
    client.query_one(query, &[]).unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

/// The error that a statement must give.
#[track_caller]
fn failure(client: &mut Client, statement: &str) -> DbError {
    match client.simple_query(statement) {
        Ok(_) => panic!("{statement}: succeeded"),
        Err(error) => error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error:?}")).clone(),
    }
}

/// Says that a test is skipped for want of something, past the test harness, which would keep the message of a
/// test that passes to itself. Where the environment variable `required` is set, the test fails instead.
#[track_caller]
fn skip(test: &str, reason: &str, required: &str) {
    let is_required = env::var_os(required).is_some_and(|value| !value.is_empty());
    assert!(!is_required, "{test}: {reason}, and {required} is set");
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// Whether the server has pgvector; says that the test is skipped otherwise.
#[track_caller]
fn has_pgvector(client: &mut Client, test: &str) -> bool {
    let found: bool =
        value(client, "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector')");
    if !found {
        skip(test, "the server has no pgvector", "IMGVEC_REQUIRE_PGVECTOR");
    }
    found
}

/// A table `pictures (id, data)` with the pictures of seeds 1 to `count`.
fn create_pictures(client: &mut Client, count: u32) {
    client.batch_execute("CREATE TABLE pictures (id integer PRIMARY KEY, data bytea NOT NULL)").unwrap();
    let insert = client.prepare("INSERT INTO pictures VALUES ($1, $2)").unwrap();
    for seed in 1..=count {
        client.execute(&insert, &[&i32::try_from(seed).unwrap(), &picture(seed)]).unwrap();
    }
}
