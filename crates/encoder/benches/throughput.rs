//! Calls a second and CPU of a call, with one and more processes, beside another build in the same run.
//!
//!     cargo bench -p imgvec-encoder --bench throughput -- [--clients 1,4,32] [--seconds 2] [--rounds 5]
//!         [--against PROGRAM] [--only NAME] [PACKAGE ...]
//!
//! PROGRAM is this bench built from another commit. Both take their turns in each round, in changing order,
//! and the ratio is the median over rounds of this build against the other: calls above 1 and CPU below 1
//! mean that this build is faster. PACKAGE is the starter model if none is named. With every package that
//! embeds texts come 64 texts of which one in eight is long, as they are and sorted by length by hand.
//! Read CPU where other programs share the machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use imgvec_encoder::image::ImageLimits;
use imgvec_encoder::interrupt::never_interrupted;
use imgvec_encoder::package::{Modality, Package};
use imgvec_encoder::{Encoder, EncoderOptions, runtime};
use nix::time::{ClockId, clock_gettime};

const CLIENT: &str = "--client";

/// How an encoder is opened. Other commits have other options: this is all that differs between them.
fn options(cache: PathBuf) -> EncoderOptions {
    EncoderOptions {
        threads: 1,
        cache_dir: Some(cache),
        interrupt: never_interrupted,
        image_limits: ImageLimits::default(),
        memory: imgvec_encoder::memory::ProcessMemory { give_back, ..Default::default() },
        map: None,
    }
}

/// As the extension gives memory back.
fn give_back() {
    #[cfg(target_env = "gnu")]
    #[allow(unsafe_code, reason = "the C library's function, which takes no pointers")]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: thread-safe, and frees nothing that is in use.
        unsafe { malloc_trim(0) };
    }
}

/// What a client calls over and over.
struct Work {
    name: &'static str,
    call: fn(&mut Encoder, &Inputs, usize),
    needs: Modality,
}

/// Inputs of all kinds of work.
struct Inputs {
    picture: Vec<u8>,
    pictures: Vec<Vec<u8>>,
    batch: Vec<String>,
    mixed: Vec<String>,
    sorted: Vec<String>,
}

const WORKS: [Work; 6] = [
    Work { name: "text", call: one_text, needs: Modality::Text },
    Work { name: "picture", call: one_picture, needs: Modality::Image },
    Work { name: "16 pictures", call: many_pictures, needs: Modality::Image },
    Work { name: "64 texts", call: |e, i, _| texts(e, &i.batch), needs: Modality::Text },
    Work { name: "64 texts mixed", call: |e, i, _| texts(e, &i.mixed), needs: Modality::Text },
    Work { name: "64 texts sorted", call: |e, i, _| sorted(e, &i.sorted), needs: Modality::Text },
];

fn one_text(encoder: &mut Encoder, _: &Inputs, round: usize) {
    drop(encoder.embed_texts(&[&sentence(12, round)]).expect("a text tower"));
}

fn one_picture(encoder: &mut Encoder, inputs: &Inputs, _: usize) {
    drop(encoder.embed_images(&[&inputs.picture]).expect("an image tower"));
}

fn many_pictures(encoder: &mut Encoder, inputs: &Inputs, _: usize) {
    let pictures: Vec<&[u8]> = inputs.pictures.iter().map(Vec::as_slice).collect();
    drop(encoder.embed_images(&pictures).expect("an image tower"));
}

fn texts(encoder: &mut Encoder, texts: &[String]) {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    drop(encoder.embed_texts(&texts).expect("a text tower"));
}

/// What a careful caller would do: short ones in batches of eight, then long ones.
fn sorted(encoder: &mut Encoder, sorted: &[String]) {
    sorted.chunks(8).for_each(|chunk| texts(encoder, chunk));
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench").peekable();
    if arguments.peek().is_some_and(|first| first == CLIENT) {
        let rest: Vec<String> = arguments.skip(1).collect();
        return client(&rest[0], Path::new(&rest[1]), rest[2].parse().expect("seconds"), &rest[3]);
    }
    let (mut clients, mut seconds, mut rounds) = (vec![1, 4, 32], 2.0, 5);
    let (mut other, mut only, mut packages) = (None, None, Vec::new());
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value");
        match argument.as_str() {
            "--clients" => {
                clients = value().split(',').map(|count| count.parse().expect("a number")).collect();
            }
            "--seconds" => seconds = value().parse().expect("a number"),
            "--rounds" => rounds = value().parse().expect("a number"),
            "--against" => other = Some(PathBuf::from(value())),
            "--only" => only = Some(value()),
            package => packages.push(PathBuf::from(package)),
        }
    }
    if packages.is_empty() {
        packages.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/starter"));
    }
    let own = std::env::current_exe().expect("this program has a path");
    let cache = std::env::temp_dir().join(format!("imgvec-throughput-{}", std::process::id()));
    println!(
        "{:28} {:16} {:>7} {:>10} {:>10}  ratios to the other: calls, CPU",
        "package", "work", "clients", "calls/s", "CPU ms"
    );
    for package in &packages {
        let opened = Package::open(package).expect("a usable package");
        for work in WORKS.iter().filter(|work| opened.embeds(work.needs)) {
            if only.as_ref().is_some_and(|only| only != work.name) {
                continue;
            }
            for &count in &clients {
                // Prepared and read once before anything is measured.
                for program in [Some(&own), other.as_ref()].into_iter().flatten() {
                    measure(program, work.name, package, &cache, 1, 0.01);
                }
                let (mut own_runs, mut ratios) = (Vec::new(), Vec::new());
                for round in 0..rounds {
                    let run =
                        |program: &PathBuf| measure(program, work.name, package, &cache, count, seconds);
                    let other_first = round % 2 == 1;
                    let before = other.as_ref().filter(|_| other_first).map(run);
                    let mine = run(&own);
                    let theirs = before.or_else(|| other.as_ref().map(run));
                    if let Some(theirs) = theirs {
                        ratios.push((mine.0 / theirs.0, mine.1 / theirs.1));
                    }
                    own_runs.push(mine);
                }
                let calls = median(own_runs.iter().map(|run| run.0));
                let cpu = median(own_runs.iter().map(|run| run.1));
                print!("{:28} {:16} {count:>7} {calls:>10.2} {cpu:>10.3}", opened.name, work.name);
                if !ratios.is_empty() {
                    let (calls, cpu) =
                        (ratios.iter().map(|ratio| ratio.0), ratios.iter().map(|ratio| ratio.1));
                    print!("  {:.3} {:.3}", median(calls), median(cpu));
                }
                println!();
            }
        }
    }
    let _ = std::fs::remove_dir_all(cache);
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Calls a second of all clients together, and milliseconds of CPU of a call.
fn measure(
    program: &Path,
    work: &str,
    package: &Path,
    cache: &Path,
    clients: usize,
    seconds: f64,
) -> (f64, f64) {
    // Builds do not share prepared forms: their keys may differ.
    let name = program.to_string_lossy().replace('/', "_");
    let start = || {
        Command::new(program)
            .args([CLIENT, work])
            .arg(package)
            .arg(seconds.to_string())
            .arg(cache.join(&name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a client")
    };
    let mut children: Vec<_> = (0..clients).map(|_| start()).collect();
    let mut outputs: Vec<_> =
        children.iter_mut().map(|child| BufReader::new(child.stdout.take().expect("piped"))).collect();
    for output in &mut outputs {
        let mut line = String::new();
        output.read_line(&mut line).expect("a client that is ready");
        assert_eq!(line, "ready\n");
    }
    for child in &mut children {
        child.stdin.take().expect("piped").write_all(b"go\n").expect("a client that waits");
    }
    let (mut calls, mut busy) = (0.0, 0.0);
    let mut counted = 0.0;
    for (mut child, mut output) in children.into_iter().zip(outputs) {
        let mut text = String::new();
        output.read_to_string(&mut text).expect("a result");
        let values: Vec<f64> =
            text.split_whitespace().map(|value| value.parse().expect("a number")).collect();
        // A client ends with its last call, so that each has a span of its own.
        calls += values[0] / values[1];
        busy += values[2];
        counted += values[0];
        assert!(child.wait().is_ok_and(|status| status.success()));
    }
    (calls, 1e3 * busy / counted)
}

fn client(work: &str, package: &Path, seconds: f64, cache: &str) {
    let library = std::env::var_os("IMGVEC_ONNXRUNTIME").expect("IMGVEC_ONNXRUNTIME names libonnxruntime.so");
    runtime::init(&[PathBuf::from(library)]).expect("a usable library");
    let work = WORKS.iter().find(|candidate| candidate.name == work).expect("a kind of work");
    let package = Package::open(package).expect("a usable package");
    let mut encoder = Encoder::open(package, options(PathBuf::from(cache))).expect("a runtime");
    let mut mixed: Vec<String> =
        (0..64).map(|place| sentence(if place % 8 == 3 { 380 } else { 4 + place % 12 }, place)).collect();
    let inputs = Inputs {
        picture: picture(0),
        pictures: (0..16).map(picture).collect(),
        batch: (0..64).map(|place| sentence(120, place)).collect(),
        mixed: mixed.clone(),
        sorted: {
            mixed.sort_by_key(String::len);
            mixed
        },
    };
    for round in 0..3 {
        (work.call)(&mut encoder, &inputs, round);
    }
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a start");
    let now = || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default();
    let (start, cpu) = (Instant::now(), now());
    let mut calls = 0;
    while start.elapsed().as_secs_f64() < seconds {
        calls += 1;
        (work.call)(&mut encoder, &inputs, calls + 3);
    }
    println!("{calls} {} {}", start.elapsed().as_secs_f64(), (now() - cpu).as_secs_f64());
}

/// Words that every vocabulary has, in an order of the seed's.
fn sentence(words: usize, seed: usize) -> String {
    const WORDS: [&str; 16] = [
        "a", "dog", "red", "on", "the", "grass", "photo", "of", "two", "cats", "water", "and", "blue", "sky",
        "with", "tree",
    ];
    let mut state = seed as u64 * 7919 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        WORDS[(state >> 60) as usize]
    };
    (0..words).map(|_| next()).collect::<Vec<_>>().join(" ")
}

/// A JPEG of 640 x 480.
fn picture(seed: u32) -> Vec<u8> {
    let picture = RgbImage::from_fn(640, 480, |x, y| {
        let noise = ((x * 7919) ^ (y * 104_729)) % 23 + seed;
        Rgb([x * 255 / 640 + noise, y * 255 / 480 + noise, (x + y) * 255 / 1200]
            .map(|value| value.min(255) as u8))
    });
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&picture).expect("RGB can be a JPEG");
    bytes
}
