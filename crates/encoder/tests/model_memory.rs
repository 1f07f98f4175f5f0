//! What a run may take: batches that fit, texts that do not, batches that a graph fixes, order of results.

mod model_support;

use imgvec_encoder::memory::ProcessMemory;
use imgvec_encoder::package::Package;
use imgvec_encoder::{EncodeError, Encoder, EncoderOptions};
use model_support::graph::{F32, GraphBuilder, I64, text_tower, word_tokenizer};
use model_support::{Scratch, onnx_runtime, options};

/// Memory is measured for the whole process: one test at a time.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

const WORDS: [&str; 5] = ["unknown", "red", "green", "blue", "black"];

/// A text tower with one head over all pairs of tokens, and a file that says so.
fn pairs(heads: u32) -> Scratch {
    let scratch = Scratch::new();
    let attention = |graph: GraphBuilder| {
        graph
            .node_with("Transpose", &["looked_up"], "keys", &[("perm", &[0, 2, 1])])
            .node("MatMul", &["looked_up", "keys"], "scores")
            .node_with("Softmax", &["scores"], "weights", &[("axis", &[-1])])
            .node("MatMul", &["weights", "looked_up"], "worked")
    };
    scratch.write("model.onnx", text_tower(5, 4, |place| (place as f32 * 0.7).sin(), attention));
    scratch.write("tokenizer.json", word_tokenizer(&WORDS));
    scratch.write("imgvec.toml", "[text]\nmax_length = 8192");
    let config = format!(
        r#"{{"hidden_size": 4, "intermediate_size": 16, "num_attention_heads": {heads}, "vocab_size": 5}}"#
    );
    scratch.write("config.json", config);
    scratch
}

fn encoder(scratch: &Scratch, megabytes: u64) -> Encoder {
    let memory = ProcessMemory { max_run_bytes: megabytes << 20, ..ProcessMemory::default() };
    Encoder::open(Package::open(scratch.path()).unwrap(), EncoderOptions { memory, ..options() }).unwrap()
}

fn text(words: usize, seed: usize) -> String {
    (0..words).map(|place| WORDS[1 + (place * place + seed * (place + 1)) % 4]).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_text_that_takes_too_much_is_refused_before_it_runs_and_the_next_is_embedded() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !onnx_runtime("a_text_that_takes_too_much_is_refused_before_it_runs_and_the_next_is_embedded") {
        return;
    }
    let scratch = pairs(1);
    let mut encoder = encoder(&scratch, 32);
    let long = text(8000, 1);
    for _ in 0..2 {
        match encoder.embed_texts(&[&long]) {
            Err(EncodeError::RunTooLarge { size, needed_bytes, limit_bytes, .. }) => {
                // Twice 8,000 x 8,000 floats; a short run that measures the graph may see half of that.
                assert!((64 << 20..900 << 20).contains(&needed_bytes), "{needed_bytes}");
                assert_eq!((size.rows, size.tokens, limit_bytes), (1, Some(8000), 32 << 20));
                let fitting = size.fitting_tokens.unwrap();
                assert!((1000..3000).contains(&fitting), "{fitting}");
                encoder.embed_texts(&[&text(fitting, 2)]).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    let mut large = self::encoder(&scratch, 1024);
    assert_eq!(large.embed_texts(&[&long]).unwrap()[0].len(), 4);
}

#[test]
fn a_graph_that_takes_more_than_its_files_say_is_stopped_or_refused() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !onnx_runtime("a_graph_that_takes_more_than_its_files_say_is_stopped_or_refused") {
        return;
    }
    // The file says one head, and the graph has twelve.
    let scratch = pairs(1);
    let attention = |graph: GraphBuilder| {
        graph
            .integers("axis", &[1], &[1])
            .node("Unsqueeze", &["looked_up", "axis"], "one")
            .floats("heads", &[1, 12, 1, 1], &[1.0; 12])
            .node("Mul", &["one", "heads"], "many")
            .node_with("Transpose", &["many"], "keys", &[("perm", &[0, 1, 3, 2])])
            .node("MatMul", &["many", "keys"], "scores")
            .node_with("Softmax", &["scores"], "weights", &[("axis", &[-1])])
            .node("MatMul", &["weights", "many"], "mixed")
            .node_with("ReduceMean", &["mixed"], "worked", &[("axes", &[1]), ("keepdims", &[0])])
    };
    scratch.write("model.onnx", text_tower(5, 4, |place| (place as f32 * 0.7).sin(), attention));
    let mut encoder = encoder(&scratch, 64);
    // By the file 36 MB, in truth 384.
    match encoder.embed_texts(&[&text(2000, 1)]) {
        Err(EncodeError::RunTooLarge { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(encoder.embed_texts(&[&text(100, 1)]).unwrap().len(), 1);
}

#[test]
fn long_and_short_texts_run_apart() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !onnx_runtime("long_and_short_texts_run_apart") {
        return;
    }
    let scratch = pairs(1);
    let mut encoder = encoder(&scratch, 32);
    let texts: Vec<String> =
        (0..64).map(|seed| text(if seed % 8 == 3 { 900 + seed } else { 3 + seed % 20 }, seed)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let together = encoder.embed_texts(&texts).unwrap();
    assert_eq!(together.len(), texts.len());
    // Fifty-six short texts in at least seven runs, eight long ones in at most eight; before, each of
    // eight groups ran at the length of its longest.
    let runs = encoder.cost().runs;
    assert!((8..=24).contains(&runs), "{runs}");
}

#[test]
fn a_batch_that_a_graph_fixes_is_bounded() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !onnx_runtime("a_batch_that_a_graph_fixes_is_bounded") {
        return;
    }
    let scratch = Scratch::new();
    let graph = GraphBuilder::new()
        .input("pixel_values", F32, &[1_000_000, 3, 16, 16])
        .output("y", F32, &[1_000_000, 3])
        .node_with("ReduceMean", &["pixel_values"], "y", &[("axes", &[2, 3]), ("keepdims", &[0])])
        .finish();
    scratch.write("model.onnx", graph);
    let preprocessing = r#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16}}"#;
    scratch.write("preprocessor_config.json", preprocessing);
    let picture = std::fs::read(model_support::data().join("pictures/wide.png")).unwrap();
    match encoder(&scratch, 256).embed_images(&[&picture]) {
        Err(EncodeError::RunTooLarge { size, .. }) => assert_eq!(size.rows, 1_000_000),
        other => panic!("{other:?}"),
    }

    let scratch = Scratch::new();
    let graph = GraphBuilder::new()
        .input("input_ids", I64, &[1_000_000, -1])
        .output("text_embeds", F32, &[1_000_000, 4])
        .floats("table", &[5, 4], &[0.5; 20])
        .node("Gather", &["table", "input_ids"], "looked_up")
        .node_with("ReduceMean", &["looked_up"], "text_embeds", &[("axes", &[1]), ("keepdims", &[0])])
        .finish();
    scratch.write("model.onnx", graph);
    scratch.write("tokenizer.json", word_tokenizer(&WORDS));
    match encoder(&scratch, 256).embed_texts(&["red green"]) {
        Err(EncodeError::RunTooLarge { size, .. }) => assert_eq!(size.rows, 1_000_000),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_shortage_is_an_error_that_leaves_the_encoder_usable() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !onnx_runtime("a_shortage_is_an_error_that_leaves_the_encoder_usable") {
        return;
    }
    use std::sync::atomic::{AtomicBool, Ordering};
    static SHORT: AtomicBool = AtomicBool::new(false);
    let scratch = pairs(1);
    let memory = ProcessMemory { is_short: || SHORT.load(Ordering::Relaxed), ..ProcessMemory::default() };
    let options = EncoderOptions { memory, ..options() };
    let mut encoder = Encoder::open(Package::open(scratch.path()).unwrap(), options).unwrap();
    let before = encoder.embed_texts(&["red"]).unwrap();
    SHORT.store(true, Ordering::Relaxed);
    match encoder.embed_texts(&["red"]) {
        Err(EncodeError::OutOfMemory(_)) => {}
        other => panic!("{other:?}"),
    }
    SHORT.store(false, Ordering::Relaxed);
    assert_eq!(encoder.embed_texts(&["red"]).unwrap(), before);
}

/// A small text graph keeps a plan of memory for each shape that it has seen: all of them together are little.
#[cfg(target_os = "linux")]
#[test]
fn texts_of_all_lengths_leave_little_behind() {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !onnx_runtime("texts_of_all_lengths_leave_little_behind") {
        return;
    }
    let starter = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/starter");
    let mut encoder = Encoder::open(Package::open(&starter).unwrap(), options()).unwrap();
    let words = |count: usize| vec!["dog"; count].join(" ");
    let mut embed = |lengths: &mut dyn Iterator<Item = usize>| {
        for length in lengths {
            for batch in 1..=8 {
                let text = words(length);
                encoder.embed_texts(&vec![text.as_str(); batch]).unwrap();
            }
        }
    };
    // What the longest inputs take is taken before, and the arena given back or kept.
    embed(&mut [1, 128, 256].into_iter());
    let before = private_kilobytes();
    embed(&mut (1..=256));
    let grown = private_kilobytes().saturating_sub(before);
    println!("{grown} kB");
    // Plans of 2,048 shapes do not show.
    assert!(grown < 4 << 10, "{grown} kB");
}

#[cfg(target_os = "linux")]
fn private_kilobytes() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
