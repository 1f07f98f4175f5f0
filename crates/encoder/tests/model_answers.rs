//! Questions about pictures: ViLT against transformers.
//!
//! `golden/vilt.py` makes the package and says what to expect.

mod model_support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use imgvec_encoder::encoder::{EncodeError, Part};
use imgvec_encoder::image::{ImageLimits, Shaping, decode};
use imgvec_encoder::interrupt::never_interrupted;
use imgvec_encoder::memory::ProcessMemory;
use imgvec_encoder::package::{Family, MalformedFile, Modality, Package, PackageError, Unsupported};
use imgvec_encoder::{Encoder, EncoderOptions};
use model_support::graph::{F32, GraphBuilder, I64};
use model_support::{Scratch, copy, greatest_difference, onnx_runtime, options, options_with};
use serde_json::{Value, json};

const I32: u64 = 6;

/// Whether a test asks its encoder to stop.
static STOP: AtomicBool = AtomicBool::new(false);

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/vilt")
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(package().join(name)).unwrap()
}

fn read(name: &str) -> Value {
    serde_json::from_slice(&file(name)).unwrap()
}

fn samples() -> Vec<Value> {
    let samples = read("expected.json")["samples"].as_array().unwrap().clone();
    assert!(samples.len() >= 18);
    samples
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn text<'a>(sample: &'a Value, key: &str) -> &'a str {
    sample[key].as_str().unwrap()
}

fn copied() -> Scratch {
    let scratch = Scratch::new();
    copy(&package(), scratch.path());
    scratch
}

fn open(package: Package) -> Encoder {
    Encoder::open(package, options()).unwrap()
}

#[test]
fn pixels_are_the_processors() {
    let shaping = Shaping::from_hf(&read("preprocessor_config.json")).unwrap();
    for sample in samples() {
        let name = text(&sample, "picture");
        let image = decode(&file(name), &ImageLimits::default(), never_interrupted).unwrap();
        let shaped = shaping.apply(&image).unwrap();
        assert_eq!(json!([shaped.size.height, shaped.size.width]), sample["shape"], "{name}");
        assert_eq!(shaped.pixels.len() as u32, 3 * shaped.size.height * shaped.size.width);
        let found: Vec<f32> = shaped.pixels.into_iter().step_by(97).collect();
        let worst = greatest_difference(&found, &floats(&sample["every_97th"]));
        assert!(worst <= 2e-6, "{name}: {worst}");
    }
}

#[test]
fn the_package_says_what_it_is() {
    let package = Package::open(&package()).unwrap();
    assert_eq!((package.family, package.dim), (Family::Vilt, None));
    assert!(package.modalities.is_empty());
    assert_eq!(json!(package.answers.as_ref().unwrap().labels), read("expected.json")["answers"]);
    assert_eq!(package.graphs().len(), 1);
    assert_eq!(package.answers.unwrap().questions.max_length, 20);
}

#[test]
fn scores_are_those_of_transformers() {
    if !onnx_runtime("scores_are_those_of_transformers") {
        return;
    }
    let mut encoder = open(Package::open(&package()).unwrap());
    for sample in samples() {
        let (name, question) = (text(&sample, "picture"), text(&sample, "question"));
        let ids = encoder.token_ids_of_question(question).unwrap().ids;
        assert_eq!(json!(ids), sample["ids"], "{question}");
        let found = encoder.answer(&file(name), question).unwrap();
        let worst = greatest_difference(&found, &floats(&sample["scores"]));
        assert!(worst <= 1e-4, "{name}, {question}: {worst}");
    }
    // What the reference refuses: a picture so thin that a side is less than a patch.
    let line = file("../embedding_gemma2/line.png");
    let scores = encoder.answer(&line, "what is this").unwrap();
    assert!(scores.len() == 9 && scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
    // A megabyte is cut where the model stops reading.
    let long = "red dog ".repeat(200_000);
    assert_eq!(encoder.token_ids_of_question(&long).unwrap().ids.len(), 20);
}

#[test]
fn a_prepared_form_gives_the_same_and_is_made_ahead() {
    if !onnx_runtime("a_prepared_form_gives_the_same_and_is_made_ahead") {
        return;
    }
    let cache = Scratch::new();
    let options = EncoderOptions { cache_dir: Some(cache.path().to_owned()), ..options() };
    let mut encoder = Encoder::open(Package::open(&package()).unwrap(), options).unwrap();
    encoder.prepare().unwrap();
    assert!(!encoder.wants_preparing_answers().unwrap());
    let sample = &samples()[0];
    let found = encoder.answer(&file(text(sample, "picture")), text(sample, "question")).unwrap();
    assert!(greatest_difference(&found, &floats(&sample["scores"])) <= 1e-4);
}

#[test]
fn it_embeds_nothing_and_others_have_no_answers() {
    if !onnx_runtime("it_embeds_nothing_and_others_have_no_answers") {
        return;
    }
    let mut encoder = open(Package::open(&package()).unwrap());
    let picture = file("small.png");
    for error in [
        encoder.embed_images(&[&picture]).unwrap_err(),
        encoder.embed_texts(&["a dog"]).unwrap_err(),
        encoder.embed_frame(&picture, 1).unwrap_err(),
        encoder.embed_parts(&[Part::Text("a"), Part::Picture(&picture)]).unwrap_err(),
    ] {
        assert!(matches!(error, EncodeError::NoTower { answers: true, .. }), "{error:?}");
    }
    let clip = Package::open(&model_support::data().join("clip")).unwrap();
    assert!(clip.answers.is_none() && clip.embeds(Modality::Image));
    let error = open(clip).answer(&picture, "what is this").unwrap_err();
    assert!(matches!(error, EncodeError::NoAnswers { .. }), "{error:?}");
}

#[test]
fn memory_and_interrupts_are_those_of_other_runs() {
    if !onnx_runtime("memory_and_interrupts_are_those_of_other_runs") {
        return;
    }
    let memory = ProcessMemory { max_run_bytes: 1 << 14, ..ProcessMemory::default() };
    let limited = EncoderOptions { memory, ..options() };
    let mut encoder = Encoder::open(Package::open(&package()).unwrap(), limited).unwrap();
    let error = encoder.answer(&file("large.png"), "what is this").unwrap_err();
    assert!(matches!(error, EncodeError::RunTooLarge { .. }), "{error:?}");

    let options = options_with(|| STOP.load(Ordering::Relaxed));
    let mut encoder = Encoder::open(Package::open(&package()).unwrap(), options).unwrap();
    let answer = |encoder: &mut Encoder| encoder.answer(&file("wide.png"), "what is this");
    answer(&mut encoder).unwrap();
    STOP.store(true, Ordering::Relaxed);
    assert!(matches!(answer(&mut encoder), Err(EncodeError::Interrupted)));
    STOP.store(false, Ordering::Relaxed);
    answer(&mut encoder).unwrap();
    assert!(matches!(encoder.answer(b"no picture", "?"), Err(EncodeError::Image { index: 0, .. })));
}

/// The error of a package one of whose files was changed.
fn broken(name: &str, change: impl Fn(&mut Value)) -> PackageError {
    let scratch = copied();
    let mut value = read(name);
    change(&mut value);
    scratch.write(name, value.to_string());
    Package::open(scratch.path()).unwrap_err()
}

#[test]
fn answers_that_do_not_fit_the_graph_are_refused() {
    let labels =
        |change: &dyn Fn(&mut Value)| broken("config.json", |config| change(&mut config["id2label"]));
    let changes: [&dyn Fn(&mut Value); 8] = [
        &|labels| *labels = Value::Null,
        &|labels| *labels = json!({}),
        &|labels| *labels = json!(["yes", "no"]),
        &|labels| labels["3"] = json!(3),
        &|labels| labels["3"] = json!(["red"]),
        &|labels| labels["3"] = json!("r\u{0}d"),
        &|labels| labels["-1"] = json!("red"),
        &|labels| labels["99"] = json!("red"),
    ];
    for change in changes {
        let error = labels(change);
        let is_setting = matches!(
            &error,
            PackageError::Malformed { source: MalformedFile::Setting { setting: "id2label", .. }, .. }
        );
        assert!(is_setting, "{error:?}");
    }
    let error = labels(&|labels| labels["9"] = json!("a tenth"));
    let is_count = matches!(
        error,
        PackageError::Malformed { source: MalformedFile::Answers { answers: 10, scores: 9 }, .. }
    );
    assert!(is_count, "{error:?}");
}

#[test]
fn other_files_that_do_not_fit_say_why() {
    let error =
        broken("preprocessor_config.json", |value| value["size"] = json!({ "height": 48, "width": 48 }));
    assert!(matches!(error, PackageError::Malformed { .. }), "{error:?}");
    let error = broken("preprocessor_config.json", |value| {
        value["image_processor_type"] = json!("CLIPImageProcessor")
    });
    assert!(matches!(error, PackageError::Malformed { .. }), "{error:?}");
    // The same graph under another name is nothing that we know how to feed.
    let error = broken("config.json", |value| value["model_type"] = json!("vilt9"));
    assert!(matches!(error, PackageError::UnsupportedInputs { .. }), "{error:?}");
    for name in ["preprocessor_config.json", "tokenizer.json", "onnx/model.onnx"] {
        let scratch = copied();
        std::fs::remove_file(scratch.path().join(name)).unwrap();
        assert!(Package::open(scratch.path()).is_err(), "{name}");
    }
    let scratch = copied();
    scratch.write("imgvec.toml", "[image]\npackage = \"other\"");
    assert!(matches!(Package::open(scratch.path()), Err(PackageError::Malformed { .. })));
}

/// A graph for questions by hand: its scores are the means of the picture's channels.
fn by_hand(pixels: &[i64], scores: &[i64], with_ids: bool) -> Vec<u8> {
    let axes: &[i64] = if pixels[1] == 3 { &[2, 3] } else { &[1, 2] };
    let graph =
        GraphBuilder::new().input("pixel_values", F32, pixels).input("pixel_mask", I32, &[-1, -1, -1]);
    let graph = if with_ids { graph.input("input_ids", I64, &[-1, -1]) } else { graph };
    graph
        .output("logits", F32, scores)
        .node_with("ReduceMean", &["pixel_values"], "logits", &[("axes", axes), ("keepdims", &[0])])
        .finish()
}

#[test]
fn graphs_for_questions_of_other_shapes_work_or_say_what_is_wrong() {
    let opened = |graph: Vec<u8>, labels: usize| {
        let scratch = copied();
        scratch.write("onnx/model.onnx", graph);
        let mut config = read("config.json");
        let labels: serde_json::Map<String, Value> =
            (0..labels).map(|number| (number.to_string(), json!(format!("answer {number}")))).collect();
        config["id2label"] = labels.into();
        scratch.write("config.json", config.to_string());
        let package = Package::open(scratch.path());
        (scratch, package)
    };
    let (_kept, package) = opened(by_hand(&[-1, 3, 48, 48], &[-1, 3], true), 3);
    let is_fixed = matches!(&package, Err(PackageError::Unsupported { feature: Unsupported::OneShape, .. }));
    assert!(is_fixed, "{package:?}");
    let (_kept, package) = opened(by_hand(&[-1, 3, -1, -1], &[-1, 3], false), 3);
    let is_half = matches!(&package, Err(PackageError::Unsupported { feature: Unsupported::NoQuestion, .. }));
    assert!(is_half, "{package:?}");
    if !onnx_runtime("graphs_for_questions_of_other_shapes_work_or_say_what_is_wrong") {
        return;
    }
    let answer = |graph: Vec<u8>, labels: usize| {
        let (_kept, package) = opened(graph, labels);
        open(package.unwrap()).answer(&file("square.png"), "what is this")
    };
    let first = answer(by_hand(&[-1, 3, -1, -1], &[-1, 3], true), 3).unwrap();
    // The pixels are -1 to 1.
    assert!(first.iter().all(|score| (0.26..0.74).contains(score)), "{first:?}");
    for pixels in [[2, 3, -1, -1], [-1, -1, -1, 3], [1, -1, -1, 3]] {
        let found = answer(by_hand(&pixels, &[-1, 3], true), 3).unwrap();
        assert!(greatest_difference(&found, &first) < 1e-6, "{pixels:?}");
    }
    // A graph may not say how many scores it gives before it runs.
    let error = answer(by_hand(&[-1, 3, -1, -1], &[-1, -1], true), 5).unwrap_err();
    assert!(matches!(error, EncodeError::AnswersDiffer { expected: 5, found: 3, .. }), "{error:?}");
}
