//! A long call ends within a second when it is told to, and the session and server go on.

use std::fs;
use std::io::Cursor;
use std::thread;
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use postgres::Client;
use postgres::error::SqlState;

use crate::cluster::{Cluster, processor_time};
use crate::{encoder_data, failure, skip, value};

/// Tens of seconds of decoding: pictures of 12 megapixels that differ in a comment only.
const LONG_IMAGES: &str = "SELECT array_length(embed_images(ARRAY(
    SELECT set_byte(set_byte(data, 6, i % 256), 7, i / 256) FROM large, generate_series(1, 300) AS i)), 1)";
/// Tens of seconds of inference in small pieces.
const LONG_TEXTS: &str = "SELECT array_length(embed_texts(ARRAY(SELECT repeat(md5(i::text) || ' ', 20) FROM generate_series(1, 300000) AS i)), 1)";
/// The same without a batch: one call for each row.
const LONG_ROWS: &str = "SELECT count(embed_image(set_byte(set_byte(data, 6, i % 256), 7, i / 256))) FROM large, generate_series(1, 3000) AS i";

/// Pictures of phones and the web, each with another empty box at its end.
const LONG_BOXES: &str = "SELECT count(embed_image(data || '\\x0000000c66726565' || int4send(i)))
    FROM large, generate_series(1, 3000) AS i";

/// Processor time that a session may use until it notices. On an idle machine that is the time that passes.
const PROMPT: Duration = Duration::from_secs(1);

/// A JPEG of 4000 x 3000 pixels with a comment of four bytes from offset 6.
fn large_jpeg() -> Vec<u8> {
    let image =
        RgbImage::from_fn(4000, 3000, |x, y| Rgb([(x / 16) as u8, (y / 12) as u8, ((x ^ y) / 32) as u8]));
    let mut encoded = Cursor::new(Vec::new());
    JpegEncoder::new_with_quality(&mut encoded, 80).encode_image(&image).unwrap();
    let encoded = encoded.into_inner();
    [&encoded[..2], &[0xff, 0xfe, 0, 6, 0, 0, 0, 0], &encoded[2..]].concat()
}

fn cluster_with_large_picture(name: &str) -> Cluster {
    let cluster = Cluster::new(name).start();
    let mut client = cluster.client();
    client.batch_execute("CREATE TABLE large (data bytea NOT NULL)").unwrap();
    set_picture(&mut client, &large_jpeg());
    assert_eq!(value::<i32>(&mut client, "SELECT imgvec_dims(embed_image(data)) FROM large"), 256);
    cluster
}

fn set_picture(client: &mut Client, picture: &[u8]) {
    client.batch_execute("TRUNCATE large").unwrap();
    client.execute("INSERT INTO large VALUES ($1)", &[&picture]).unwrap();
}

/// The session has the model loaded, so that what follows measures the call alone.
fn warm_session(cluster: &Cluster) -> (Client, u32) {
    let mut client = cluster.client();
    value::<i32>(&mut client, "SELECT imgvec_dims(embed_image(data)) FROM large");
    let pid: i32 = value(&mut client, "SELECT pg_backend_pid()");
    (client, pid.unsigned_abs())
}

fn assert_usable(client: &mut Client) {
    assert_eq!(value::<i32>(client, "SELECT imgvec_dims(embed_text('dog'))"), 256);
    assert_eq!(value::<i32>(client, "SELECT imgvec_dims(embed_image(data)) FROM large"), 256);
}

#[test]
fn statement_timeout_ends_long_calls() {
    let cluster = cluster_with_large_picture("timeout");
    let (mut client, pid) = warm_session(&cluster);
    for statement in [LONG_IMAGES, LONG_TEXTS, LONG_ROWS] {
        client.batch_execute("SET statement_timeout = '2s'").unwrap();
        let before = processor_time(pid).unwrap();
        let error = failure(&mut client, statement);
        let late = (processor_time(pid).unwrap() - before).saturating_sub(Duration::from_secs(2));
        assert_eq!(error.code(), &SqlState::QUERY_CANCELED, "{error:?}");
        assert_eq!(error.message(), "canceling statement due to statement timeout");
        assert!(late < PROMPT, "{statement}: worked for {late:?} after the timeout");
        client.batch_execute("RESET statement_timeout").unwrap();
        assert_usable(&mut client);
    }
}

/// Runs a long statement, sends a signal by SQL when the session is at work, and returns the session, the error it
/// got, and the processor time it used until then.
fn interrupted(
    cluster: &Cluster,
    statement: &'static str,
    signal: &str,
) -> (Client, postgres::Error, Duration) {
    let (mut client, pid) = warm_session(cluster);
    let mut other = cluster.client();
    let idle = processor_time(pid).unwrap();
    let session = thread::spawn(move || {
        let error = client.simple_query(statement).expect_err("the statement is interrupted");
        (client, error)
    });
    // It is in the midst of it.
    while processor_time(pid).unwrap() - idle < Duration::from_millis(700) {
        assert!(!session.is_finished(), "the statement is not long enough");
        thread::sleep(Duration::from_millis(10));
    }
    let before = processor_time(pid).unwrap();
    let mut used = before;
    assert!(value::<bool>(&mut other, &format!("SELECT {signal}({pid})")));
    while !session.is_finished() {
        used = processor_time(pid).unwrap_or(used);
        assert!(used - before < PROMPT, "{statement}: still works after {:?}", used - before);
        thread::sleep(Duration::from_millis(2));
    }
    let (client, error) = session.join().unwrap();
    (client, error, used - before)
}

#[test]
fn cancel_ends_long_calls() {
    let cluster = cluster_with_large_picture("cancel");
    for statement in [LONG_IMAGES, LONG_TEXTS] {
        let (mut client, error, took) = interrupted(&cluster, statement, "pg_cancel_backend");
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code(), &SqlState::QUERY_CANCELED);
        assert_eq!(error.message(), "canceling statement due to user request");
        assert!(took < PROMPT, "{statement}: worked for {took:?}");
        assert_usable(&mut client);
    }
}

#[test]
fn terminate_ends_the_session_cleanly() {
    let cluster = cluster_with_large_picture("terminate");
    let (_, error, took) = interrupted(&cluster, LONG_IMAGES, "pg_terminate_backend");
    // A client that comes late finds the end of the connection together with the message, and tells only of the end.
    assert!(error.code().is_none_or(|code| *code == SqlState::ADMIN_SHUTDOWN), "{error:?}");
    assert!(cluster.log().contains("FATAL:  terminating connection due to administrator command"));
    assert!(took < PROMPT, "worked for {took:?}");
    assert_usable(&mut cluster.client());
}

/// rav1d and libheif cannot be stopped within a frame, so that a thread is left behind. It must not outlive what it uses when the
/// session ends.
#[test]
fn decoders_that_cannot_be_stopped_are_left_behind() {
    let cluster = cluster_with_large_picture("left-behind");
    for name in ["picture.avif", "picture.heic"] {
        let mut client = cluster.client();
        set_picture(&mut client, &fs::read(encoder_data(&format!("images/large/{name}"))).unwrap());
        if let Err(error) = client.simple_query("SELECT embed_image(data) FROM large") {
            assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{error:?}");
            skip(name, &error.as_db_error().unwrap().to_string(), "IMGVEC_REQUIRE_PICTURES");
            continue;
        }
        let (mut client, error, took) = interrupted(&cluster, LONG_BOXES, "pg_cancel_backend");
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{name}: {error:?}");
        assert!(took < PROMPT, "{name}: worked for {took:?}");
        assert_usable(&mut client);
        for _ in 0..3 {
            let (_, _, took) = interrupted(&cluster, LONG_BOXES, "pg_terminate_backend");
            assert!(took < PROMPT, "{name}: worked for {took:?}");
        }
        // Those sessions are gone, and nothing of them brought the server down.
        let mut others = 1;
        while others > 0 {
            others = value::<i64>(
                &mut cluster.client(),
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%int4send%' AND pid <> pg_backend_pid()",
            );
            thread::sleep(Duration::from_millis(10));
        }
        assert_usable(&mut client);
        cluster.assert_no_crash();
    }
}

#[test]
fn a_session_that_embedded_leaves_at_once() {
    let cluster = cluster_with_large_picture("exit");
    let (client, pid) = warm_session(&cluster);
    let mut other = cluster.client();
    client.close().unwrap();
    let (before, mut used) = (processor_time(pid).unwrap_or_default(), Duration::ZERO);
    let there = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    while value::<i64>(&mut other, &there) > 0 {
        used = processor_time(pid).map_or(used, |now| now.saturating_sub(before));
        assert!(used < PROMPT, "the backend is still at work");
        thread::sleep(Duration::from_millis(10));
    }
}
