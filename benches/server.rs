//! What embedding costs inside the server: memory of each connection, CPU of a call beyond the bare
//! model run, texts that repeat. `make bench` runs it; `benches/README.md` says how to read it.
//!
//! The model is CLIP ViT-B/32 in size, with random weights, made by `benches/clip_b32.py`; its directory,
//! called `clip-b32`, comes in `IMGVEC_CLIP_B32`. Times are processor time of one backend, so that a busy machine does not
//! change them much.

#[path = "../tests/cluster/mod.rs"]
mod cluster;

use cluster::{Cluster, Memory};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};
use postgres::Client;
use std::path::Path;
use std::time::Instant;

const CONNECTIONS: usize = 20;
const MEGABYTE: f64 = (1u64 << 20) as f64;

/// A JPEG of soft random colors, like a photograph in size; every seed is another picture.
fn photograph(width: u32, height: u32, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    let coarse = RgbImage::from_fn(width / 16, height / 16, |_, _| Rgb([random(), random(), random()]));
    let picture = resize(&coarse, width, height, FilterType::CatmullRom);
    let mut data = Vec::new();
    JpegEncoder::new_with_quality(&mut data, 88).encode_image(&picture).expect("RGB can be a JPEG");
    data
}

fn pid(client: &mut Client) -> u32 {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).expect("a process id");
    u32::try_from(row.get::<_, i32>(0)).expect("a process id is positive")
}

/// Memory that one more connection of this kind costs: what it shares with nobody.
fn private_megabytes(client: &mut Client) -> f64 {
    Memory::of(pid(client)).anonymous as f64 / MEGABYTE
}

/// Encoder and model CPU of this session in milliseconds.
fn cpu(client: &mut Client) -> (f64, f64) {
    let row = client
        .query_one("SELECT encoder_cpu_ms, inference_cpu_ms FROM imgvec_backend_stats", &[])
        .expect("one row of statistics");
    (row.get(0), row.get(1))
}

fn memory(cluster: &Cluster) {
    let mut plain = cluster.client();
    plain.batch_execute("SELECT '[1]'::imgvec <=> '[2]'").expect("a plain query");
    let plain = private_megabytes(&mut plain);
    let picture = photograph(640, 480, 1);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| cluster.client()).collect();
    let mut added = Vec::new();
    for client in &mut clients {
        client
            .query_one(
                "SELECT embed_image($1, 'clip-b32') <=> embed_text('a photo', 'clip-b32')",
                &[&picture],
            )
            .expect("an embedding");
        added.push(private_megabytes(client) - plain);
    }
    // The first connection made the shared form; what it keeps of that is said apart.
    let (first, others) = added.split_first().expect("connections");
    let mean = others.iter().sum::<f64>() / others.len() as f64;
    let most = others.iter().copied().fold(0.0, f64::max);
    println!("memory     plain backend {plain:.1} MB private");
    println!(
        "memory     {CONNECTIONS} connections, image and text each: +{mean:.1} MB mean, +{most:.1} MB most (must: 50, aim: 25); \
         the first, which prepared the model, +{first:.1} MB"
    );
}

/// One picture in each call, each call another picture.
fn overhead(cluster: &Cluster, model: &str, width: u32, height: u32, count: u32) {
    let mut client = cluster.client();
    let statement =
        client.prepare(&format!("SELECT imgvec_dims(embed_image($1, '{model}'))")).expect("a statement");
    client.query_one(&statement, &[&photograph(width, height, 7)]).expect("the model loads");
    let pictures: Vec<Vec<u8>> = (0..count).map(|seed| photograph(width, height, 100 + seed)).collect();
    let before = cpu(&mut client);
    for picture in &pictures {
        client.query_one(&statement, &[picture]).expect("an embedding");
    }
    let after = cpu(&mut client);
    let (encoder, model_run) = (after.0 - before.0, after.1 - before.1);
    let count = f64::from(count);
    println!(
        "embed_image {model} {width}x{height} JPEG: {:.2} ms CPU, model run {:.2} ms, decode and resize {:.2} ms (+{:.1} %)",
        encoder / count,
        model_run / count,
        (encoder - model_run) / count,
        100.0 * (encoder - model_run) / model_run
    );
}

fn texts(cluster: &Cluster, model: &str) {
    let mut client = cluster.client();
    client.batch_execute(&format!("SELECT embed_text('warm', '{model}')")).expect("the model loads");
    let before = cpu(&mut client);
    client
        .batch_execute(&format!(
            "SELECT count(embed_text('a photo of ' || i, '{model}')) FROM generate_series(1, 200) i"
        ))
        .expect("embeddings");
    let fresh = (cpu(&mut client).0 - before.0) / 200.0;
    const REPEATS: u32 = 100_000;
    let started = Instant::now();
    client
        .batch_execute(&format!(
            "DO $$ DECLARE v imgvec; BEGIN FOR i IN 1..{REPEATS} LOOP v := embed_text('warm', '{model}' || left('', i)); END LOOP; END $$"
        ))
        .expect("embeddings");
    let repeated = started.elapsed().as_secs_f64() * 1e6 / f64::from(REPEATS);
    println!(
        "embed_text {model}: {fresh:.3} ms CPU for a new text, {repeated:.1} us for a repeated one (plpgsql loop included)"
    );
}

fn main() {
    // `cargo bench` hands options of the standard harness over; there is nothing to choose here.
    if std::env::var_os("IMGVEC_STAGE").is_none() {
        println!("server bench SKIPPED: IMGVEC_STAGE is not set; run `make bench`");
        return;
    }
    let clip = std::env::var_os("IMGVEC_CLIP_B32").map(std::path::PathBuf::from);
    let parent = clip.as_deref().and_then(Path::parent).unwrap_or(Path::new("/nonexistent"));
    let model_path = format!("imgvec.model_path = '$sharedir/imgvec/models:{}'", parent.display());
    let cluster = Cluster::new("bench").conf(&model_path).start();
    overhead(&cluster, "starter", 640, 480, 100);
    texts(&cluster, "starter");
    if clip.is_none() {
        println!("CLIP-sized part SKIPPED: IMGVEC_CLIP_B32 names no package; run `make bench`");
        return;
    }
    memory(&cluster);
    overhead(&cluster, "clip-b32", 640, 480, 20);
    overhead(&cluster, "clip-b32", 4000, 3000, 5);
    texts(&cluster, "clip-b32");
    cluster.assert_no_crash();
}
