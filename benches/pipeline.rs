//! What columns that keep their embeddings cost: the COPY that queues, the sessions that embed, a queue that is long.
//! `make bench` runs it; `benches/README.md` says how to read it. The model is the starter.
//!
//! `COPIES` (default 10000) pictures of 30 kB and ten times as many captions are copied; `PICTURES` (2000) are embedded;
//! so are `BROKEN` (5000), 1 in 50 of which is none, and 1 in 1,000 a bomb; `MIGRATED` (20000) captions get another model;
//! `QUEUE` (5000000) rows wait. `PARTS="copies work broken migration idle queue"` names the parts to run. What is compared is
//! measured in turn, in one run.

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use cluster::{Cluster, processor_time};
use image::{Rgb, RgbImage};
use postgres::{Client, NoTls};
use std::io::{Cursor, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Bytes that look random (xorshift; Marsaglia 2003), so that nothing compresses.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A JPEG of 224 x 224 pixels; every seed is another one.
fn photograph(seed: u64) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let colors: Vec<Rgb<u8>> = (0..196)
        .map(|_| {
            let [r, g, b, ..] = random.next().to_le_bytes();
            Rgb([r, g, b])
        })
        .collect();
    let image = RgbImage::from_fn(224, 224, |x, y| colors[(y / 16 * 14 + x / 16) as usize]);
    let mut data = Cursor::new(Vec::new());
    image.write_to(&mut data, image::ImageFormat::Jpeg).expect("RGB can be a JPEG");
    data.into_inner()
}

fn run(client: &mut Client, sql: &str) {
    client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
}

fn value(client: &mut Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error}")).get(0)
}

/// Seconds of a COPY of these lines into an empty table.
fn copy(client: &mut Client, table: &str, data: &[u8]) -> f64 {
    run(client, &format!("TRUNCATE {table}"));
    run(client, "CHECKPOINT");
    let begin = Instant::now();
    let mut writer = client.copy_in(&format!("COPY {table} (id, data) FROM STDIN")).expect("COPY begins");
    data.chunks(1 << 20).for_each(|chunk| writer.write_all(chunk).expect("COPY goes on"));
    writer.finish().expect("COPY ends");
    begin.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn copies(cluster: &Cluster, rows: u64) {
    let mut client = cluster.client();
    let mut random = Random(7);
    let mut pictures = Vec::new();
    for id in 0..rows {
        write!(pictures, "{id}\t\\\\x").expect("memory");
        for _ in 0..30_000 / 8 {
            write!(pictures, "{:016x}", random.next()).expect("memory");
        }
        pictures.push(b'\n');
    }
    let mut captions = Vec::new();
    for id in 0..10 * rows {
        writeln!(captions, "{id}\ta caption of forty bytes, number {id:07}").expect("memory");
    }
    for (what, kind, source, data) in [
        ("pictures of 30 kB", "bytea", "data", &pictures),
        ("captions of 40 bytes", "text", "data", &captions),
    ] {
        run(
            &mut client,
            &format!(
                "CREATE TABLE plain (id bigint PRIMARY KEY, data {kind}, embedding imgvec(256));
                 CREATE TABLE kept (LIKE plain INCLUDING ALL);
                 SELECT imgvec_maintain('kept', '{source}', 'embedding', 'starter')"
            ),
        );
        let (mut plain, mut kept) = (Vec::new(), Vec::new());
        // In turn, so that both meet the same machine.
        for _ in 0..5 {
            plain.push(copy(&mut client, "plain", data));
            run(&mut client, "TRUNCATE kept_embedding_queue");
            kept.push(copy(&mut client, "kept", data));
        }
        let count = value(&mut client, "SELECT count(*) FROM kept_embedding_queue");
        let ratios = plain.iter().zip(&kept).map(|(plain, kept)| kept / plain).collect();
        let (plain, kept, ratio) = (median(plain), median(kept), median(ratios));
        println!(
            "COPY of {count} {what}: {plain:.3} s plain, {kept:.3} s maintained, {:+.1} % (medians of five pairs)",
            100.0 * (ratio - 1.0)
        );
        run(&mut client, "DROP TABLE plain, kept");
    }
}

fn work(cluster: &Cluster, rows: u64) {
    let mut client = cluster.client();
    run(&mut client, "CREATE TABLE photos (id bigint PRIMARY KEY, data bytea, embedding imgvec(256))");
    let insert = client.prepare("INSERT INTO photos VALUES ($1, $2)").expect("a statement");
    for id in 0..rows {
        client.execute(&insert, &[&i64::try_from(id).expect("a count"), &photograph(id + 1)]).expect("a row");
    }
    run(&mut client, "SELECT imgvec_prepare('starter')");
    let rate = |seconds: f64| rows as f64 / seconds;
    // What the session remembers must not answer, and opening the model must not count.
    let ready =
        "SET imgvec.embedding_cache_entries = 0; SELECT embed_image(data, 'starter') FROM photos LIMIT 1";
    let (mut updates, mut ones, mut twos) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..3 {
        run(&mut client, "UPDATE photos SET embedding = NULL");
        run(&mut client, "VACUUM photos");
        let mut session = cluster.client();
        run(&mut session, ready);
        let begin = Instant::now();
        run(&mut session, "UPDATE photos SET embedding = embed_image(data, 'starter')");
        updates.push(rate(begin.elapsed().as_secs_f64()));
        for (sessions, rates) in [(1, &mut ones), (2, &mut twos)] {
            run(&mut client, "UPDATE photos SET embedding = NULL");
            run(&mut client, "VACUUM photos");
            run(&mut client, "SELECT imgvec_maintain('photos', 'data', 'embedding', 'starter')");
            let workers: Vec<Client> = (0..sessions)
                .map(|_| {
                    let mut worker = cluster.config().connect(NoTls).expect("a session");
                    run(&mut worker, ready);
                    worker
                })
                .collect();
            let begin = Instant::now();
            thread::scope(|scope| {
                for mut worker in workers {
                    scope.spawn(move || run(&mut worker, "CALL imgvec_work('photos')"));
                }
            });
            rates.push(rate(begin.elapsed().as_secs_f64()));
            assert_eq!(value(&mut client, "SELECT count(*) FROM photos WHERE embedding IS NULL"), 0);
            run(&mut client, "SELECT imgvec_maintain('photos', target => 'embedding', stop => true)");
        }
    }
    let ratios = |these: &[f64], those: &[f64]| median(these.iter().zip(those).map(|(a, b)| a / b).collect());
    println!(
        "{rows} pictures, medians of three turns: UPDATE ... SET embedding = embed_image(data) {:.1} rows a second; imgvec_work in \
         one session {:.1}, {:.2} times the UPDATE; in two sessions {:.1}, {:.2} times one",
        median(updates.clone()),
        median(ones.clone()),
        ratios(&ones, &updates),
        median(twos.clone()),
        ratios(&twos, &ones)
    );
    run(&mut client, "DROP TABLE photos");
}

/// A PNG of a few bytes that stands for 30,000 x 30,000 pixels.
fn bomb() -> Vec<u8> {
    let mut data = Cursor::new(Vec::new());
    image::GrayImage::new(1, 1).write_to(&mut data, image::ImageFormat::Png).expect("a PNG");
    let mut data = data.into_inner();
    data[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]);
    let crc = crc32(&data[12..29]);
    data[29..33].copy_from_slice(&crc.to_be_bytes());
    data
}

/// The checksum of PNG's chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

/// Pictures of which some cannot be embedded: who fails, and what the session's memory grows by.
fn broken(cluster: &Cluster, rows: u64) {
    let mut client = cluster.client();
    let bomb = bomb();
    for is_broken in [false, true] {
        run(&mut client, "CREATE TABLE photos (id bigint PRIMARY KEY, data bytea, embedding imgvec(256))");
        let insert = client.prepare("INSERT INTO photos VALUES ($1, $2)").expect("a statement");
        for id in 0..rows {
            let data = match id {
                _ if !is_broken => photograph(id + 1),
                id if id % 1000 == 7 => bomb.clone(),
                id if id % 50 == 3 => b"this is no picture".to_vec(),
                id => photograph(id + 1),
            };
            client.execute(&insert, &[&i64::try_from(id).expect("a count"), &data]).expect("a row");
        }
        run(&mut client, "SELECT imgvec_maintain('photos', 'data', 'embedding', 'starter')");
        let mut worker = cluster.client();
        run(&mut worker, "SELECT embed_image(data, 'starter') FROM photos WHERE id = 0");
        let pid = value(&mut worker, "SELECT pg_backend_pid()::bigint");
        let begin = Instant::now();
        run(&mut worker, "CALL imgvec_work('photos')");
        let seconds = begin.elapsed().as_secs_f64();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
        let peak =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux").trim().to_owned();
        let wrong = value(
            &mut client,
            "SELECT count(*) FROM photos WHERE embedding IS NULL
             AND id NOT IN (SELECT (key->>'id')::bigint FROM imgvec_failures)",
        );
        println!(
            "{rows} pictures in {seconds:.1} s: {} embedded, {} in imgvec_failures, {wrong} in neither; peak of the session {peak}",
            value(&mut client, "SELECT count(embedding) FROM photos"),
            value(&mut client, "SELECT count(*) FROM imgvec_failures"),
        );
        run(&mut client, "DROP TABLE photos");
    }
}

/// A batch from a queue of few and of many rows, whose rows are gone, so that the queue alone costs.
fn queue(cluster: &Cluster, rows: u64) {
    let mut client = cluster.client();
    for waiting in [5_000, rows] {
        run(&mut client, "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, embedding imgvec(256))");
        run(&mut client, "SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter')");
        run(
            &mut client,
            "INSERT INTO notes_embedding_queue SELECT i, now() FROM generate_series(1, 500) AS i",
        );
        run(
            &mut client,
            &format!(
                "INSERT INTO notes_embedding_queue SELECT i + 500, now() FROM generate_series(1, {waiting}) AS i"
            ),
        );
        run(&mut client, "CALL imgvec_work('notes', max_seconds => 0)");
        let begin = Instant::now();
        let before = value(&mut client, "SELECT count(*) FROM notes_embedding_queue");
        let counted = begin.elapsed();
        let begin = Instant::now();
        run(&mut client, "CALL imgvec_work('notes', max_seconds => 0)");
        let batch = begin.elapsed();
        let after = value(&mut client, "SELECT count(*) FROM notes_embedding_queue");
        println!(
            "a call of one batch with {before} rows waiting: {} rows in {:.1} ms (counting them takes {:.1} ms)",
            before - after,
            batch.as_secs_f64() * 1e3,
            counted.as_secs_f64() * 1e3
        );
        let begin = Instant::now();
        run(&mut client, "CALL imgvec_work('notes')");
        println!(
            "  to the end in {:.1} s; the queue's file then has {} bytes",
            begin.elapsed().as_secs_f64(),
            value(&mut client, "SELECT pg_relation_size('notes_embedding_queue')")
        );
        run(&mut client, "DROP TABLE notes");
    }
}

/// Another model for a column with an index, beside clients that search and write. What the call itself tells is printed.
fn migration(cluster: &Cluster, rows: u64) {
    let mut client = cluster.client();
    run(
        &mut client,
        "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, other text, embedding imgvec(256))",
    );
    run(&mut client, "SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter')");
    run(
        &mut client,
        &format!("INSERT INTO notes SELECT i, 'thing number ' || i FROM generate_series(1, {rows}) AS i"),
    );
    run(&mut client, "CALL imgvec_work('notes')");
    run(&mut client, "CREATE INDEX ON notes USING ann (embedding)");
    let is_over = AtomicBool::new(false);
    let (migrated, longest) = thread::scope(|scope| {
        let clients: Vec<_> = (0..4_u64)
            .map(|number| {
                let mut client = cluster.client();
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut random = Random(number + 11);
                    let mut longest = Duration::ZERO;
                    while !is_over.load(Ordering::Relaxed) {
                        let id = 1 + random.next() % rows;
                        let sql = if number < 2 {
                            format!("SELECT id FROM notes ORDER BY embedding <=> embed_text_for('notes', 'embedding', 'thing number {id}') LIMIT 10")
                        } else {
                            format!("UPDATE notes SET other = 'x' WHERE id = {id}")
                        };
                        let begin = Instant::now();
                        client.batch_execute(&sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
                        longest = longest.max(begin.elapsed());
                        thread::sleep(Duration::from_millis(10));
                    }
                    longest
                })
            })
            .collect();
        let begin = Instant::now();
        let mut migrator = cluster
            .config()
            .notice_callback(|notice| println!("  {}", notice.message()))
            .connect(NoTls)
            .expect("a session");
        run(&mut migrator, "SET client_min_messages = notice");
        run(&mut migrator, "CALL imgvec_migrate('notes', 'embedding', 'starter')");
        let migrated = begin.elapsed();
        is_over.store(true, Ordering::Relaxed);
        let longest = clients.into_iter().map(|client| client.join().expect("a client")).max();
        (migrated, longest.unwrap_or_default())
    });
    println!(
        "migration of {rows} rows beside 4 clients: {:.1} s, the longest statement of a client {:.0} ms",
        migrated.as_secs_f64(),
        longest.as_secs_f64() * 1e3
    );
    run(&mut client, "DROP TABLE notes");
}

/// Processor time of a worker that has nothing to do.
fn idle(cluster: &Cluster) {
    let mut client = cluster.client();
    run(&mut client, "CREATE TABLE notes (id bigint PRIMARY KEY, caption text, embedding imgvec(256))");
    run(&mut client, "SELECT imgvec_maintain('notes', 'caption', 'embedding', 'starter')");
    run(&mut client, "SELECT imgvec_start_workers()");
    thread::sleep(Duration::from_secs(2));
    let pid =
        value(&mut client, "SELECT pid::bigint FROM pg_stat_activity WHERE backend_type = 'imgvec worker'");
    let pid = u32::try_from(pid).expect("a process id");
    let before = processor_time(pid).expect("the worker lives");
    thread::sleep(Duration::from_secs(20));
    let used = processor_time(pid).expect("the worker lives") - before;
    println!("an idle worker: {:.1} ms of processor time a second", used.as_secs_f64() * 1e3 / 20.0);
    run(&mut client, "SELECT imgvec_stop_workers()");
    run(&mut client, "DROP TABLE notes");
}

fn main() {
    let cluster = Cluster::new("bench-pipeline")
        .conf("shared_buffers = '512MB'")
        .conf("max_wal_size = '8GB'")
        .conf("client_min_messages = warning")
        .start();
    let parts =
        std::env::var("PARTS").unwrap_or_else(|_| "copies work broken migration idle queue".to_owned());
    for part in parts.split_whitespace() {
        match part {
            "copies" => copies(&cluster, number("COPIES", 10_000)),
            "work" => work(&cluster, number("PICTURES", 2_000)),
            "broken" => broken(&cluster, number("BROKEN", 5_000)),
            "migration" => migration(&cluster, number("MIGRATED", 20_000)),
            "idle" => idle(&cluster),
            "queue" => queue(&cluster, number("QUEUE", 5_000_000)),
            other => panic!("no such part: {other}"),
        }
    }
}
