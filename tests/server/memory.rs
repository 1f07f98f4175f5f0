//! Memory of sessions that embed: bounded by a setting, given back after a call, an error of one statement
//! where the system refuses it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use image::{ExtendedColorType, ImageEncoder};
use postgres::Client;
use postgres::error::SqlState;

use crate::cluster::{Cluster, Memory};
use crate::graph::{GraphBuilder, text_tower, word_tokenizer};
use crate::models::cluster_with_packages;
use crate::{failure, picture, value};

const MEGABYTE: u64 = 1 << 20;

/// A server with the package `pairs`, whose run takes 8 bytes and more for each pair of tokens, and `clip`.
fn cluster_with_pairs(name: &str) -> Cluster {
    let (cluster, models) = cluster_with_packages(name, &["clip"]);
    let directory = models.join("pairs");
    fs::create_dir_all(&directory).unwrap();
    let attention = |graph: GraphBuilder| {
        graph
            .node_with("Transpose", &["looked_up"], "keys", &[("perm", &[0, 2, 1])])
            .node("MatMul", &["looked_up", "keys"], "scores")
            .node_with("Softmax", &["scores"], "weights", &[("axis", &[-1])])
            .node("MatMul", &["weights", "looked_up"], "worked")
    };
    let write = |name: &str, content: &[u8]| fs::write(directory.join(name), content).unwrap();
    write("model.onnx", &text_tower(5, 4, |place| (place as f32 * 0.7).sin(), attention));
    write("tokenizer.json", word_tokenizer(&["unknown", "red", "green", "blue", "black"]).as_bytes());
    write("imgvec.toml", b"[text]\nmax_length = 8192");
    write(
        "config.json",
        br#"{"hidden_size": 4, "intermediate_size": 16, "num_attention_heads": 1, "vocab_size": 5}"#,
    );
    cluster.give(&models);
    cluster
}

fn pid(client: &mut Client) -> u32 {
    u32::try_from(value::<i32>(client, "SELECT pg_backend_pid()")).unwrap()
}

/// The most private memory that was seen while `work` ran, above what there was before.
fn peak(pid: u32, work: impl FnOnce()) -> u64 {
    let before = Memory::of(pid).anonymous;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(Memory::of(pid).anonymous);
                thread::sleep(Duration::from_millis(1));
            }
            most
        });
        work();
        done.store(true, Ordering::Relaxed);
        sampler.join().unwrap().saturating_sub(before)
    })
}

fn texts(count: u32, words: u32) -> String {
    format!(
        "SELECT array_length(embed_texts(ARRAY(SELECT repeat('red ', {words} - 1) || i FROM generate_series(1, {count}) i), 'pairs'), 1)"
    )
}

#[test]
fn a_run_takes_no_more_than_the_setting_and_leaves_nothing() {
    let cluster = cluster_with_pairs("budget");
    let mut client = cluster.client();
    client.batch_execute("LOAD 'imgvec'; SET imgvec.max_run_memory = '64MB'").unwrap();
    assert_eq!(value::<i32>(&mut client, &texts(1, 1)), 1);
    let pid = pid(&mut client);
    let first = Memory::of(pid).anonymous;
    let assert_small = |what: &str| {
        let now = Memory::of(pid).anonymous;
        assert!(2 * now <= 3 * first, "{what}: {first} bytes after the first call, {now} now");
    };
    for (count, words) in [(8, 1000), (1, 2400), (20, 1500), (300, 20), (3, 2000)] {
        let call = texts(count, words);
        let peak = peak(pid, || assert_eq!(value::<i32>(&mut client, &call), i32::try_from(count).unwrap()));
        assert!(peak <= 64 * MEGABYTE * 6 / 5, "{count} texts of {words} words: {peak} bytes");
        assert_small(&format!("{count} texts of {words} words"));
    }
    let refused = peak(pid, || {
        let error = failure(&mut client, &texts(1, 8000));
        assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED, "{error:?}");
        assert_eq!(error.message(), "a run of model \"pairs\" takes too much memory");
        assert!(error.detail().unwrap().contains("8000 tokens"), "{error:?}");
        assert!(error.hint().unwrap().contains("imgvec.max_run_memory"), "{error:?}");
    });
    assert!(refused <= 64 * MEGABYTE * 6 / 5, "{refused}");
    assert_small("a refused text");

    // Whoever may raise the setting gets it done.
    client.batch_execute("SET imgvec.max_run_memory = '1GB'").unwrap();
    assert_eq!(value::<i32>(&mut client, &texts(1, 8000)), 1);
    assert_small("a large run");
    client.batch_execute("CREATE ROLE plain; SET ROLE plain").unwrap();
    let error = failure(&mut client, "SET imgvec.max_run_memory = '2GB'");
    assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{error:?}");
}

#[test]
fn a_cancelled_run_leaves_nothing() {
    let cluster = cluster_with_pairs("cancelled");
    let mut client = cluster.client();
    client.batch_execute("LOAD 'imgvec'; SET imgvec.max_run_memory = '1GB'").unwrap();
    assert_eq!(value::<i32>(&mut client, &texts(1, 1)), 1);
    let pid = pid(&mut client);
    let first = Memory::of(pid).anonymous;
    // The longest runs that the model has, one after the other, until they are cancelled.
    client.batch_execute("SET statement_timeout = '700ms'").unwrap();
    let error = failure(&mut client, &texts(100, 8000));
    assert_eq!(error.code(), &SqlState::QUERY_CANCELED, "{error:?}");
    let now = Memory::of(pid).anonymous;
    assert!(2 * now <= 3 * first, "{first} bytes after the first call, {now} now");
}

#[test]
fn an_array_too_large_for_a_value_is_refused_at_once_and_others_take_little_more_than_themselves() {
    let cluster = Cluster::new("arrays").start();
    let mut client = cluster.client();
    assert_eq!(value::<i32>(&mut client, "SELECT imgvec_dims(embed_text('a'))"), 256);
    let pid = pid(&mut client);
    for input in ["array_fill('a'::text, ARRAY[2000000])", "array_fill(''::text, ARRAY[1100000])"] {
        let peak = peak(pid, || {
            let error = failure(&mut client, &format!("SELECT array_length(embed_texts({input}), 1)"));
            assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED, "{error:?}");
            assert!(error.detail().unwrap().contains("1 GB"), "{error:?}");
            assert!(error.hint().unwrap().contains("at most"), "{error:?}");
        });
        assert!(peak < 128 * MEGABYTE, "{peak}");
    }
    let peak = peak(pid, || {
        let count = "SELECT array_length(embed_texts(array_fill('a'::text, ARRAY[200000])), 1)";
        assert_eq!(value::<i32>(&mut client, count), 200_000);
    });
    // The result has 206 MB, the argument 2.
    assert!(peak < 260 * MEGABYTE, "{peak}");
    let labels =
        "SELECT count(*) FROM classify_embedding(embed_text('a'), array_fill('a'::text, ARRAY[100000]))";
    assert_eq!(value::<i64>(&mut client, labels), 100_000);
}

/// A setting above 50 million rules: the picture is embedded, in the memory that the documentation names.
#[test]
fn pictures_of_more_than_fifty_million_pixels_are_embedded_where_the_setting_allows_them() {
    const PIXELS: u64 = 60_000_000;
    let cluster = Cluster::new("large-pictures").start();
    let mut client = cluster.client();
    client.batch_execute("SELECT embed_text('warm'); CREATE TABLE pictures (kind text, data bytea)").unwrap();
    let (width, height) = (10_000, 6_000);
    let gray = vec![200; PIXELS as usize];
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    encoder.write_image(&gray, width, height, ExtendedColorType::L8).unwrap();
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 50);
    encoder.write_image(&gray, width, height, ExtendedColorType::L8).unwrap();
    drop(gray);
    for (kind, data) in [("png", &png), ("jpeg", &jpeg)] {
        client.execute("INSERT INTO pictures VALUES ($1, $2)", &[&kind, data]).unwrap();
    }
    // What reading a row takes is not the decoder's.
    client.batch_execute("SELECT sum(length(data)) FROM pictures").unwrap();
    let pid = pid(&mut client);
    for kind in ["png", "jpeg"] {
        let embed = format!("SELECT imgvec_dims(embed_image(data)) FROM pictures WHERE kind = '{kind}'");
        client.batch_execute("RESET imgvec.max_image_pixels").unwrap();
        let refused = peak(pid, || {
            let error = failure(&mut client, &embed);
            assert_eq!(error.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED, "{kind}: {error:?}");
            assert!(error.hint().unwrap().contains("imgvec.max_image_pixels"), "{kind}: {error:?}");
        });
        client.batch_execute(&format!("SET imgvec.max_image_pixels = {PIXELS}")).unwrap();
        let taken = peak(pid, || assert_eq!(value::<i32>(&mut client, &embed), 256));
        eprintln!("{kind}: {} MB, refused in {} MB", taken / MEGABYTE, refused / MEGABYTE);
        assert!(refused < 32 * MEGABYTE, "{kind}: {refused}");
        // Three or four bytes a pixel, and what the server takes for the row.
        assert!(taken > 2 * PIXELS && taken < 5 * PIXELS + 32 * MEGABYTE, "{kind}: {taken}");
    }
    client.batch_execute("CREATE ROLE plain; SET ROLE plain").unwrap();
    let error = failure(&mut client, "SET imgvec.max_image_pixels = 90000000");
    assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{error:?}");
}

#[test]
fn arrays_keep_their_order_and_their_nulls() {
    let cluster = cluster_with_pairs("nulls");
    let mut client = cluster.client();
    // Each embedding is a run of its own: nothing is found again.
    client.batch_execute("SET imgvec.embedding_cache_entries = 0").unwrap();
    let counts = "SELECT count(*) || ' ' || count(e) FROM unnest(embed_texts(ARRAY[NULL, 'red', NULL, 'blue'], 'pairs')) e";
    assert_eq!(value::<String>(&mut client, counts), "4 2");
    for empty in [
        "embed_texts(ARRAY[]::text[], 'pairs') = '{}'",
        "embed_texts(ARRAY[NULL]::text[], 'pairs') = '{NULL}'",
    ] {
        assert!(value::<bool>(&mut client, &format!("SELECT {empty}")), "{empty}");
    }
    // Texts of many lengths are worked in another order. The package's attention sees no padding, so that a text by itself and
    // among others gives the same but for rounding.
    let wrong = value::<i64>(
        &mut client,
        "WITH a AS (SELECT array_agg(CASE WHEN i % 5 <> 0 THEN repeat('red ', 1 + i * 7 % 40) || 'blue' END ORDER BY i) a
                    FROM generate_series(0, 600) i)
         SELECT count(*) FROM a, LATERAL unnest(a, embed_texts(a, 'clip')) AS u(t, e)
         WHERE (t IS NULL) <> (e IS NULL) OR e <-> embed_text(t, 'clip') > 1e-3",
    );
    assert_eq!(wrong, 0);
}

/// Limits the data of a process to so many bytes above what it has, or lifts the limit.
fn limit(cluster: &Cluster, pid: u32, more: Option<u64>) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let data = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    let data: u64 = data.trim().trim_end_matches(" kB").parse().unwrap();
    let soft = more.map_or("unlimited".to_owned(), |more| (1024 * data + more).to_string());
    let mut command = cluster.command_of_server_user("prlimit");
    let status = command.args(["--pid", &pid.to_string(), &format!("--data={soft}:")]).status().unwrap();
    assert!(status.success());
}

/// Walks a limit on memory through a statement: each time it works or says that memory is short, and works
/// when the limit is lifted. Returns how often each came.
fn walk(cluster: &Cluster, warm: &[&str], statement: &str, most: u64) -> (usize, usize) {
    let (mut worked, mut short) = (0, 0);
    for megabytes in (0..=most).step_by(4) {
        let mut client = cluster.client();
        client.batch_execute("LOAD 'imgvec'").unwrap();
        warm.iter().for_each(|statement| client.batch_execute(statement).unwrap());
        let pid = pid(&mut client);
        limit(cluster, pid, Some(megabytes * MEGABYTE));
        match client.simple_query(statement) {
            Ok(_) => worked += 1,
            Err(error) => {
                let error =
                    error.as_db_error().unwrap_or_else(|| panic!("{statement}, {megabytes} MB: {error:?}"));
                assert_eq!(error.code(), &SqlState::OUT_OF_MEMORY, "{statement}, {megabytes} MB: {error:?}");
                short += 1;
            }
        }
        limit(cluster, pid, None);
        client
            .simple_query(statement)
            .unwrap_or_else(|error| panic!("{statement}, after {megabytes} MB: {error:?}"));
    }
    (worked, short)
}

#[test]
fn a_session_without_memory_gets_an_error_and_the_server_lives() {
    let mut cluster = cluster_with_pairs("shortage");
    // An administrator may have asked for backtraces, and they take memory.
    cluster.environment("RUST_BACKTRACE", "1");
    cluster.restart();
    let mut client = cluster.client();
    let large: String = picture(1).iter().map(|byte| format!("{byte:02x}")).collect();
    let image = format!("SELECT embed_image('\\x{large}')");
    client
        .batch_execute(&format!("SELECT embed_text('dog'); SELECT embed_text('dog', 'clip'); {image}"))
        .unwrap();
    let prepared = || {
        let mut found = Vec::new();
        let cache = cluster.data().join("pgsql_tmp_imgvec/prepared");
        for package in fs::read_dir(cache).unwrap().flatten() {
            let entries = fs::read_dir(package.path()).unwrap().flatten().map(|entry| entry.path());
            found.extend(entries.filter(|path| path.is_dir()));
        }
        found.sort();
        found
    };
    let before = prepared();
    let (blanks, mega) =
        ("SELECT embed_text(repeat(' ', 1000000), 'clip')", "SELECT embed_text(repeat('word ', 200000))");
    let warm: &[&str] = &["SELECT embed_text('warm'); SELECT embed_text('warm', 'clip')", &image];
    let cases: [(&[&str], &str, u64); 6] = [
        (&[], "SELECT embed_text('a dog', 'clip')", 160),
        (&[], "SELECT embed_text('a dog')", 120),
        (&[], &image, 120),
        (warm, blanks, 120),
        (warm, mega, 48),
        (
            warm,
            "SELECT array_length(embed_texts(ARRAY(SELECT 'word ' || i FROM generate_series(1, 500) i)), 1)",
            48,
        ),
    ];
    let mut short = 0;
    for (warm, statement, most) in cases {
        short += walk(&cluster, warm, statement, most).1;
    }
    assert!(short > 10, "{short}");
    assert_eq!(prepared(), before);
    let pairs = "SELECT embed_text(repeat('red ', 3000), 'pairs')";
    let (worked, refused) = walk(&cluster, &["SELECT embed_text('red', 'pairs')"], pairs, 120);
    assert!(worked > 0 && refused > 0, "{worked} {refused}");
    cluster.assert_no_crash();
}

#[test]
fn errors_carry_no_backtrace() {
    let mut cluster = cluster_with_pairs("backtrace");
    cluster.environment("RUST_BACKTRACE", "full");
    cluster.restart();
    let mut client = cluster.client();
    client.batch_execute("CREATE TABLE t (e imgvec(2)); INSERT INTO t VALUES ('[1,2]')").unwrap();
    let statements = [
        // Raised by the server, through us.
        "CREATE INDEX ON t USING ann (e) WITH (ef_search = -1)",
        "SELECT embed_texts(NULL::text[]) || (1 / 0)::text::imgvec[]",
        "SELECT ann_index_check('t'::regclass)",
        "INSERT INTO t VALUES ('[1,2,3]')",
        // Raised by us.
        "SELECT '[1,2'::imgvec",
        "SELECT '[1,2]'::imgvec <-> '[1]'",
        "SELECT embed_text('dog', 'no-such-model')",
        "SELECT embed_text(repeat('red ', 8000), 'pairs')",
        "SELECT embed_image('\\x00')",
        "SET statement_timeout = '1ms'; SELECT embed_texts(ARRAY(SELECT i::text FROM generate_series(1, 100000) i))",
    ];
    for statement in statements {
        let error = failure(&mut client, statement);
        let texts = [Some(error.message()), error.detail(), error.hint(), error.where_()];
        for text in texts.into_iter().flatten() {
            for mark in ["panick", "imgvec::", "pgrx", "std::", ".rs:", "<unknown>"] {
                assert!(!text.contains(mark), "{statement}: {text}");
            }
        }
        assert!(error.detail().is_none_or(|detail| detail.lines().count() == 1), "{statement}: {error:?}");
        client.batch_execute("RESET statement_timeout").unwrap();
    }
    assert!(!cluster.log().contains("stack backtrace"), "{}", cluster.log());
}
