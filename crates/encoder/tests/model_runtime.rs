//! Sharing of weights between processes, stopping, and leaving.

mod model_support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use imgvec_encoder::encoder::Warning;
use imgvec_encoder::interrupt::never_interrupted;
use imgvec_encoder::package::Package;
use imgvec_encoder::runtime::{PreparationWarning, Source};
use imgvec_encoder::{EncodeError, Encoder, EncoderOptions};
use model_support::graph::{F32, GraphBuilder, I64, text_tower, word_tokenizer};
use model_support::{Scratch, onnx_runtime, options, options_with};

/// Side of the square weight of the large package: 16 MB.
const SIDE: usize = 2048;

/// A text tower with weights of 17 MB, large enough to be prepared.
fn large_package(seed: f32) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("tokenizer.json", word_tokenizer(&["a", "dog", "cat"]));
    let wave = move |place: usize| (place as f32 * 0.37 + seed).sin();
    let weight: Vec<f32> = (0..SIDE * SIDE).map(|place| (place as f32 * 0.11 + seed).cos()).collect();
    let graph = text_tower(128, SIDE, wave, |graph| {
        graph.floats("weight", &[SIDE as u64, SIDE as u64], &weight).node(
            "MatMul",
            &["looked_up", "weight"],
            "worked",
        )
    });
    scratch.write("model.onnx", graph);
    scratch
}

fn open_with(package: &Path, cache_dir: &Path) -> Encoder {
    let options = EncoderOptions { cache_dir: Some(cache_dir.to_owned()), ..options() };
    Encoder::open(Package::open(package).unwrap(), options).unwrap()
}

/// The prepared graphs in a cache directory.
fn entries(cache: &Path) -> Vec<PathBuf> {
    let packages = std::fs::read_dir(cache.join("prepared")).into_iter().flatten().flatten();
    let mut entries: Vec<PathBuf> = packages
        .flat_map(|package| std::fs::read_dir(package.path()).unwrap().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    entries.sort();
    entries
}

fn is_shared(encoder: &Encoder) -> bool {
    matches!(encoder.loaded()[0].source, Source::Prepared { mapped_bytes } if mapped_bytes > 16 << 20)
}

#[test]
fn a_prepared_graph_is_made_once_is_private_to_the_user_and_gives_the_same() {
    if !onnx_runtime("a_prepared_graph_is_made_once_is_private_to_the_user_and_gives_the_same") {
        return;
    }
    let (package, cache) = (large_package(0.0), Scratch::new());
    let mut plain = Encoder::open(Package::open(package.path()).unwrap(), options()).unwrap();
    let expected = plain.embed_texts(&["dog cat", "a"]).unwrap();
    assert_eq!(plain.loaded()[0].source, Source::Plain);

    // Four first users at once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut encoder = open_with(package.path(), cache.path());
                assert_eq!(encoder.embed_texts(&["dog cat", "a"]).unwrap(), expected);
                assert!(is_shared(&encoder) && encoder.take_warnings().is_empty());
            });
        }
    });
    let made = entries(cache.path());
    assert_eq!(made.len(), 1, "{made:?}");
    let stamp = |path: &Path| path.join("model.onnx").metadata().unwrap().modified().unwrap();
    let first = stamp(&made[0]);
    assert!(is_shared(&{
        let mut again = open_with(package.path(), cache.path());
        again.embed_texts(&["dog"]).unwrap();
        again
    }));
    assert_eq!(stamp(&made[0]), first);

    let mut pending = vec![cache.path().to_owned()];
    while let Some(path) = pending.pop() {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        if path.is_dir() {
            assert!(path == cache.path() || mode == 0o700, "{}: {mode:o}", path.display());
            pending.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    }
}

#[test]
fn a_changed_model_replaces_its_prepared_graph_and_a_removed_one_is_swept() {
    if !onnx_runtime("a_changed_model_replaces_its_prepared_graph_and_a_removed_one_is_swept") {
        return;
    }
    let (package, other, cache) = (large_package(0.0), large_package(1.0), Scratch::new());
    let before = open_with(package.path(), cache.path()).embed_texts(&["dog"]).unwrap();
    let old = entries(cache.path());
    std::fs::copy(other.path().join("model.onnx"), package.path().join("model.onnx")).unwrap();
    let after = open_with(package.path(), cache.path()).embed_texts(&["dog"]).unwrap();
    assert_ne!(before, after);
    let new = entries(cache.path());
    assert!(new.len() == 1 && new != old, "{old:?} {new:?}");

    std::fs::remove_dir_all(package.path()).unwrap();
    open_with(other.path(), cache.path()).embed_texts(&["dog"]).unwrap();
    let left = entries(cache.path());
    assert!(left.len() == 1 && left != new, "{left:?}");
}

#[test]
fn a_damaged_prepared_graph_is_made_anew() {
    if !onnx_runtime("a_damaged_prepared_graph_is_made_anew") {
        return;
    }
    let (package, cache) = (large_package(0.0), Scratch::new());
    let expected = open_with(package.path(), cache.path()).embed_texts(&["dog"]).unwrap();
    let entry = entries(cache.path()).remove(0);

    // Cut short: the manifest tells.
    let weights = std::fs::File::options().write(true).open(entry.join("model.onnx_data")).unwrap();
    weights.set_len(1000).unwrap();
    let mut encoder = open_with(package.path(), cache.path());
    assert_eq!(encoder.embed_texts(&["dog"]).unwrap(), expected);
    assert!(is_shared(&encoder) && encoder.take_warnings().is_empty());

    // Right size, wrong content: ONNX Runtime tells; this process goes on without, the next makes it.
    let graph = entry.join("model.onnx");
    let size = graph.metadata().unwrap().len();
    std::fs::write(&graph, vec![0xff; size as usize]).unwrap();
    let mut encoder = open_with(package.path(), cache.path());
    assert_eq!(encoder.embed_texts(&["dog"]).unwrap(), expected);
    assert_eq!(encoder.loaded()[0].source, Source::Plain);
    match &encoder.take_warnings()[..] {
        [Warning::NotShared { reason: PreparationWarning::Failed { .. }, .. }] => {}
        other => panic!("{other:?}"),
    }
    let mut encoder = open_with(package.path(), cache.path());
    encoder.embed_texts(&["dog"]).unwrap();
    assert!(is_shared(&encoder));
}

/// A text tower whose table of words, 4 MB, lies in another file, here `location`.
fn external_package(location: &str, seed: f32) -> Scratch {
    const ROWS: u64 = 256;
    const DIM: u64 = 4096;
    let scratch = Scratch::new();
    scratch.write("tokenizer.json", word_tokenizer(&["a", "dog", "cat"]));
    scratch.write("model.onnx", external_tower(ROWS, DIM, location));
    scratch.write(location, external_table(ROWS * DIM, seed));
    scratch
}

fn external_tower(rows: u64, dim: u64, location: &str) -> Vec<u8> {
    GraphBuilder::new()
        .input("input_ids", I64, &[-1, -1])
        .output("text_embeds", F32, &[-1, dim as i64])
        .external("table", &[rows, dim], location, rows * dim * 4)
        .node("Gather", &["table", "input_ids"], "looked_up")
        .node_with("ReduceMean", &["looked_up"], "text_embeds", &[("axes", &[1]), ("keepdims", &[0])])
        .finish()
}

fn external_table(elements: u64, seed: f32) -> Vec<u8> {
    (0..elements).flat_map(|place| (place as f32 * 0.37 + seed).sin().to_le_bytes()).collect()
}

#[test]
fn weights_that_are_cut_or_replaced_in_place_do_not_reach_a_session() {
    let test = "weights_that_are_cut_or_replaced_in_place_do_not_reach_a_session";
    if !onnx_runtime(test) {
        return;
    }
    let package = external_package("model.onnx_data", 0.0);
    let data = package.path().join("model.onnx_data");
    let mut encoder = Encoder::open(Package::open(package.path()).unwrap(), options()).unwrap();
    let expected = encoder.embed_texts(&["dog cat", "a"]).unwrap();
    assert_eq!(encoder.loaded()[0].source, Source::Plain);

    // As `cp` over the file does: the same file, other bytes.
    std::fs::write(&data, external_table(256 * 4096, 1.0)).unwrap();
    assert_eq!(encoder.embed_texts(&["dog cat", "a"]).unwrap(), expected);
    // Every page is gone: a process that had it mapped would be killed.
    std::fs::File::options().write(true).open(&data).unwrap().set_len(0).unwrap();
    assert_eq!(encoder.embed_texts(&["dog cat", "a"]).unwrap(), expected);

    // An encoder that was opened before and loads now says what is wrong.
    std::fs::write(&data, external_table(256 * 4096, 1.0)).unwrap();
    let mut late = Encoder::open(Package::open(package.path()).unwrap(), options()).unwrap();
    std::fs::File::options().write(true).open(&data).unwrap().set_len(1000).unwrap();
    assert!(matches!(late.embed_texts(&["dog"]), Err(EncodeError::Load { .. })));
    // A graph that names another file since is not followed there.
    let mut late = {
        std::fs::write(&data, external_table(256 * 4096, 1.0)).unwrap();
        Encoder::open(Package::open(package.path()).unwrap(), options()).unwrap()
    };
    package.write("other_data", external_table(256 * 4096, 2.0));
    package.write("model.onnx", external_tower(256, 4096, "other_data"));
    assert!(matches!(late.embed_texts(&["dog"]), Err(EncodeError::Load { .. })));
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    if !onnx_runtime("a_cache_that_cannot_be_written_is_a_warning") {
        return;
    }
    let (package, scratch) = (large_package(0.0), Scratch::new());
    // Not even root can make a directory below a file.
    let cache = scratch.write("file", "").join("cache");
    let mut encoder = open_with(package.path(), &cache);
    assert_eq!(encoder.embed_texts(&["dog"]).unwrap()[0].len(), SIDE);
    match &encoder.take_warnings()[..] {
        [Warning::NotShared { reason: PreparationWarning::NotWritable { .. }, .. }] => {}
        other => panic!("{other:?}"),
    }
    assert!(encoder.take_warnings().is_empty());
}

static STOP: AtomicBool = AtomicBool::new(false);

/// A text tower that takes many seconds: one product after the other with the identity.
fn slow_package() -> Scratch {
    const WIDTH: usize = 512;
    let scratch = Scratch::new();
    scratch.write("tokenizer.json", word_tokenizer(&["a", "dog"]));
    let identity: Vec<f32> =
        (0..WIDTH * WIDTH).map(|place| f32::from(u8::from(place / WIDTH == place % WIDTH))).collect();
    let graph = text_tower(
        2,
        WIDTH,
        |place| place as f32,
        |mut graph| {
            graph = graph.floats("identity", &[WIDTH as u64, WIDTH as u64], &identity);
            let mut from = "looked_up".to_owned();
            for step in 0..6_000 {
                let to = if step == 5_999 { "worked".to_owned() } else { format!("step{step}") };
                graph = graph.node("MatMul", &[&from, "identity"], &to);
                from = to;
            }
            graph
        },
    );
    scratch.write("model.onnx", graph);
    scratch.write("imgvec.toml", "[text]\nmax_length = 512");
    scratch
}

#[test]
fn a_run_stops_soon_after_the_interrupt_and_the_session_lives_on() {
    if !onnx_runtime("a_run_stops_soon_after_the_interrupt_and_the_session_lives_on") {
        return;
    }
    let package = slow_package();
    let check = || STOP.load(Ordering::SeqCst);
    let mut encoder = Encoder::open(Package::open(package.path()).unwrap(), options_with(check)).unwrap();
    encoder.embed_texts(&["dog"]).unwrap();
    let long = "dog ".repeat(512);
    for _ in 0..2 {
        let stopper = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(400));
            STOP.store(true, Ordering::SeqCst);
            Instant::now()
        });
        let result = encoder.embed_texts(&[&long]);
        let returned = Instant::now();
        let stopped = stopper.join().unwrap();
        assert!(matches!(result, Err(EncodeError::Interrupted)), "{result:?}");
        let delay = returned.saturating_duration_since(stopped);
        assert!(delay < Duration::from_millis(500), "{delay:?}");
        STOP.store(false, Ordering::SeqCst);
        assert_eq!(encoder.embed_texts(&["dog"]).unwrap()[0].len(), 512);
    }
}

static STOP_LOADING: AtomicBool = AtomicBool::new(false);

#[test]
fn loading_and_preparing_stop_soon_after_the_interrupt_and_leave_nothing() {
    if !onnx_runtime("loading_and_preparing_stop_soon_after_the_interrupt_and_leave_nothing") {
        return;
    }
    let (package, cache) = (slow_package(), Scratch::new());
    let check = || STOP_LOADING.load(Ordering::SeqCst);
    for cache_dir in [None, Some(cache.path().to_owned())] {
        let options = EncoderOptions { cache_dir, ..options_with(check) };
        let mut encoder = Encoder::open(Package::open(package.path()).unwrap(), options).unwrap();
        let stopper = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            STOP_LOADING.store(true, Ordering::SeqCst);
            Instant::now()
        });
        let result = encoder.embed_texts(&["dog"]);
        let returned = Instant::now();
        let delay = returned.saturating_duration_since(stopper.join().unwrap());
        assert!(matches!(result, Err(EncodeError::Interrupted)), "{result:?}");
        // A tenth of that on a quiet machine; the work takes many seconds, and tests share their cores.
        assert!(delay < Duration::from_secs(4), "{delay:?}");
        assert!(entries(cache.path()).is_empty());
        STOP_LOADING.store(false, Ordering::SeqCst);
        assert_eq!(encoder.embed_texts(&["dog"]).unwrap()[0].len(), 512);
    }
}

#[test]
fn a_process_ends_quietly_with_everything_alive() {
    const CHILD: &str = "IMGVEC_TEST_CHILD";
    let test = "a_process_ends_quietly_with_everything_alive";
    if !onnx_runtime(test) {
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        let package = large_package(0.0);
        let options = EncoderOptions { threads: 3, ..options_with(never_interrupted) };
        let mut encoder = Encoder::open(Package::open(package.path()).unwrap(), options).unwrap();
        encoder.embed_texts(&["dog"]).unwrap();
        // Session, its pool and the watching thread are alive, the latter awake.
        std::mem::forget(encoder);
        drop(package);
        std::process::exit(7);
    }
    let begun = Instant::now();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(begun.elapsed() < Duration::from_secs(30));
}
