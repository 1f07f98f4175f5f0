//! Columns that keep their embeddings, in running servers. Each module tells one story; here is what they share.

mod changes;
mod copies;
mod crash;
mod ddl;
mod declare;
mod docs;
mod failures;
mod faults;
mod hostile;
mod limits;
pub(crate) mod migrate;
mod pace;
mod rights;
mod sharing;
mod workers;

use postgres::Client;

use crate::cluster::Cluster;
use crate::{picture, value};

/// Embeddings of one model differ in their last digits with the size of a batch.
const SAME: f64 = 1e-5;

/// A server and a superuser's session.
fn start(name: &str) -> (Cluster, Client) {
    let cluster = Cluster::new(name).start();
    let client = cluster.client();
    (cluster, client)
}

/// Runs statements one by one: a CALL that ends transactions must stand alone.
#[track_caller]
fn run(client: &mut Client, sql: &str) {
    for statement in sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty()) {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
}

const CAPTIONS: &str =
    "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, other text, embedding imgvec(256));
    SELECT imgvec_maintain('notes', source => 'caption', target => 'embedding', model => 'starter')";

/// Rows of a table whose embedding is not that of their source; `source` is `embed_text(caption, 'starter')`.
#[track_caller]
fn wrong(client: &mut Client, table: &str, source: &str) -> i64 {
    value(
        client,
        &format!(
            "SELECT count(*) FROM {table} WHERE ({source}) IS NULL <> (embedding IS NULL)
             OR abs(embedding <=> ({source})) > {SAME}"
        ),
    )
}

/// Nothing waits, nothing failed, and every row has its embedding.
#[track_caller]
fn assert_complete(client: &mut Client, table: &str, source: &str) {
    assert_eq!(progress(client, table), "0 waiting, 0 failed", "{table}");
    assert_eq!(wrong(client, table, source), 0, "{table}");
}

#[track_caller]
fn progress(client: &mut Client, table: &str) -> String {
    value(
        client,
        &format!(
            "SELECT format('%s waiting, %s failed', sum(waiting), sum(failed)) FROM imgvec_progress WHERE relation = '{table}'::regclass"
        ),
    )
}

/// A table `photos (id, data, embedding)` with pictures of seeds 1 to `count`, maintained.
fn create_photos(client: &mut Client, count: i32) {
    client
        .batch_execute("CREATE TABLE photos (id integer PRIMARY KEY, data bytea, embedding imgvec(256))")
        .unwrap();
    let insert = client.prepare("INSERT INTO photos VALUES ($1, $2)").unwrap();
    for id in 1..=count {
        client.execute(&insert, &[&id, &picture(id.unsigned_abs())]).unwrap();
    }
    client
        .batch_execute(
            "SELECT imgvec_maintain('photos', source => 'data', target => 'embedding', model => 'starter')",
        )
        .unwrap();
}
