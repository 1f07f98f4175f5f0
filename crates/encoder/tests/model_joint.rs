//! Pictures and words in one input: EmbeddingGemma 2 against transformers.
//!
//! `golden/embedding_gemma2.py` makes the package and says what to expect.

mod model_support;

use std::path::PathBuf;

use imgvec_encoder::encoder::{EncodeError, Part};
use imgvec_encoder::image::{ImageLimits, Patching, decode};
use imgvec_encoder::interrupt::never_interrupted;
use imgvec_encoder::memory::ProcessMemory;
use imgvec_encoder::package::{Family, Modality, Package, PackageError, Precision};
use imgvec_encoder::{Encoder, EncoderOptions};
use model_support::{Scratch, cosine, greatest_difference, onnx_runtime, options};
use serde_json::Value;

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/embedding_gemma2")
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(package().join(name)).unwrap()).unwrap()
}

fn samples() -> Vec<Value> {
    let samples = json("expected.json")["samples"].as_array().unwrap().clone();
    assert!(samples.len() >= 14);
    samples
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(package().join(name)).unwrap()
}

/// Texts, and pictures whose names are in brackets.
enum Owned {
    Text(String),
    Picture(Vec<u8>),
}

fn owned(sample: &Value) -> Vec<Owned> {
    let parts = sample["parts"].as_array().unwrap().iter().map(|part| part.as_str().unwrap());
    parts
        .map(|part| match part.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(name) => Owned::Picture(file(name)),
            None => Owned::Text(part.to_owned()),
        })
        .collect()
}

fn parts(owned: &[Owned]) -> Vec<Part<'_>> {
    owned.iter().map(part).collect()
}

fn part(part: &Owned) -> Part<'_> {
    match part {
        Owned::Text(text) => Part::Text(text),
        Owned::Picture(bytes) => Part::Picture(bytes),
    }
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

/// A copy of the package that a test may change.
fn copy() -> Scratch {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path().join("onnx")).unwrap();
    for name in [
        "config.json",
        "config_sentence_transformers.json",
        "modules.json",
        "onnx/model.onnx",
        "onnx/vision_encoder.onnx",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        scratch.write(name, file(name));
    }
    scratch
}

fn open(package: Package) -> Encoder {
    Encoder::open(package, options()).unwrap()
}

#[test]
fn patches_and_their_places_are_the_processors() {
    let patching = Patching::gemma_from_hf(&json("processor_config.json")["image_processor"]).unwrap();
    let mut seen = 0;
    for picture in samples().iter().flat_map(|sample| sample["pictures"].as_array().unwrap().clone()) {
        let name = picture["file"].as_str().unwrap();
        let decoded = decode(&file(name), &ImageLimits::default(), never_interrupted).unwrap();
        let patches = patching.apply(&decoded).unwrap();
        let pixels: Vec<u8> = patches.pixels.iter().flat_map(|value| value.to_le_bytes()).collect();
        let positions = patches.grid.positions(patching.patches());
        let positions: Vec<u8> = positions.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(patches.grid.patches() as u64, picture["patches"].as_u64().unwrap(), "{name}");
        assert_eq!(9 * patching.soft_tokens(patches.grid), patches.grid.patches(), "{name}");
        assert_eq!(u64::from(crc32fast::hash(&positions)), picture["positions"].as_u64().unwrap(), "{name}");
        assert_eq!(u64::from(crc32fast::hash(&pixels)), picture["pixels"].as_u64().unwrap(), "{name}");
        seen += 1;
    }
    assert!(seen >= 15);
}

#[test]
fn the_package_says_what_it_is() {
    let package = Package::open(&package()).unwrap();
    assert_eq!((package.family, package.dim), (Family::EmbeddingGemma2, Some(24)));
    assert_eq!(package.modalities, [Modality::Image, Modality::Text]);
    assert_eq!(package.text.as_ref().unwrap().max_length, 1024);
    assert_eq!(package.prompts["query"], "task: search result | query: ");
    assert_eq!(package.graphs().len(), 2);
}

#[test]
fn ids_and_embeddings_are_the_references() {
    if !onnx_runtime("ids_and_embeddings_are_the_references") {
        return;
    }
    let mut encoder = open(Package::open(&package()).unwrap());
    for sample in samples() {
        let owned = owned(&sample);
        let parts = parts(&owned);
        let name = &sample["parts"];
        let ids: Vec<u64> =
            encoder.token_ids_of_parts(&parts).unwrap().ids.into_iter().map(u64::from).collect();
        let wanted: Vec<u64> =
            sample["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
        assert_eq!(ids, wanted, "{name}");
        let (found, wanted) = (encoder.embed_parts(&parts).unwrap(), floats(&sample["embedding"]));
        let difference = greatest_difference(&found, &wanted);
        assert!(difference <= 1e-4, "{name}: {difference}");
        // A part alone is the same as a text or a picture.
        let alone = match &parts[..] {
            [Part::Text(text)] => encoder.embed_texts(&[text]).unwrap(),
            [Part::Picture(bytes)] => encoder.embed_images(&[bytes]).unwrap(),
            _ => continue,
        };
        assert!(cosine(&alone[0], &found) > 0.999_999, "{name}");
    }
}

#[test]
fn a_batch_of_pictures_gives_what_each_gives() {
    if !onnx_runtime("a_batch_of_pictures_gives_what_each_gives") {
        return;
    }
    let mut encoder = open(Package::open(&package()).unwrap());
    let pictures = ["wide.png", "line.png", "large.png"].map(file);
    let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
    let together = encoder.embed_images(&pictures).unwrap();
    for (picture, vector) in pictures.iter().zip(&together) {
        assert_eq!(encoder.embed_images(&[picture]).unwrap()[0], *vector);
    }
    match encoder.embed_images(&[pictures[0], b"nothing"]) {
        Err(EncodeError::Image { index: 1, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn texts_alone_need_no_vision_encoder_and_do_not_load_it() {
    if !onnx_runtime("texts_alone_need_no_vision_encoder_and_do_not_load_it") {
        return;
    }
    let mut encoder = open(Package::open(&package()).unwrap());
    let expected = encoder.embed_texts(&["a dog"]).unwrap();
    assert_eq!(encoder.loaded().len(), 1);
    let scratch = copy();
    std::fs::remove_file(scratch.path().join("onnx/vision_encoder.onnx")).unwrap();
    let package = Package::open(scratch.path()).unwrap();
    assert_eq!(package.modalities, [Modality::Text]);
    let mut encoder = open(package);
    assert_eq!(encoder.embed_texts(&["a dog"]).unwrap(), expected);
    assert!(matches!(encoder.embed_images(&[&file("wide.png")]), Err(EncodeError::NoTower { .. })));
    let both = [Part::Text("a"), Part::Picture(b"")];
    assert!(matches!(encoder.embed_parts(&both), Err(EncodeError::NoJointInput { .. })));
}

#[test]
fn long_inputs_lose_the_end_of_their_texts_and_too_many_pictures_are_refused() {
    if !onnx_runtime("long_inputs_lose_the_end_of_their_texts_and_too_many_pictures_are_refused") {
        return;
    }
    let scratch = copy();
    scratch.write("imgvec.toml", "[text]\nmax_length = 150");
    let mut encoder = open(Package::open(scratch.path()).unwrap());
    let picture = file("square.png");
    let long = "grass and water ".repeat(200);
    let ids = encoder.token_ids_of_parts(&[Part::Picture(&picture), Part::Text(&long)]).unwrap().ids;
    assert_eq!((ids.len(), ids.last()), (150, Some(&1)));
    let pictures = [Part::Picture(&picture); 3];
    match encoder.embed_parts(&pictures) {
        Err(EncodeError::TooManyTokens { tokens, limit: 150, .. }) => assert!(tokens > 190, "{tokens}"),
        other => panic!("{other:?}"),
    }
    // And a run over what fits into the context but not into memory is refused as others are.
    let within = |max_run_bytes: u64| {
        let memory = ProcessMemory { max_run_bytes, ..ProcessMemory::default() };
        let options = EncoderOptions { memory, ..options() };
        Encoder::open(Package::open(scratch.path()).unwrap(), options).unwrap()
    };
    match within(1 << 20).embed_parts(&pictures) {
        // 70 is the least that there is.
        Err(EncodeError::RunTooLarge { size, .. }) => assert_eq!(size.fitting_soft_tokens, None),
        other => panic!("{other:?}"),
    }
    // Many patches of a picture take more than fewer would.
    scratch.write("imgvec.toml", "[image.preprocessing]\nmax_soft_tokens = 1120");
    match within(64 << 20).embed_images(&[&picture]) {
        Err(EncodeError::RunTooLarge { size, .. }) => {
            let fitting = size.fitting_soft_tokens.unwrap();
            scratch.write("imgvec.toml", format!("[image.preprocessing]\nmax_soft_tokens = {fitting}"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(within(64 << 20).embed_images(&[&picture]).unwrap().len(), 1);
}

#[test]
fn precisions_that_overflow_are_taken_last() {
    let scratch = copy();
    for name in ["model", "vision_encoder"] {
        let from = |suffix: &str| scratch.path().join(format!("onnx/{name}{suffix}.onnx"));
        std::fs::copy(from(""), from("_fp16")).unwrap();
        std::fs::copy(from(""), from("_q4")).unwrap();
        std::fs::remove_file(from("")).unwrap();
    }
    assert_eq!(Package::open(scratch.path()).unwrap().precision, Precision::Q4);
    scratch.write("imgvec.toml", "precision = \"fp16\"");
    assert_eq!(Package::open(scratch.path()).unwrap().precision, Precision::Fp16);
}

#[test]
fn packages_that_do_not_fit_together_say_why() {
    let broken = |name: &str, change: &dyn Fn(&mut Value)| {
        let scratch = copy();
        let mut value = json(name);
        change(&mut value);
        scratch.write(name, value.to_string());
        Package::open(scratch.path()).unwrap_err()
    };
    let error =
        broken("processor_config.json", &|value| value["image_processor"]["max_soft_tokens"] = 71.into());
    assert!(matches!(error, PackageError::Malformed { .. }), "{error:?}");
    let error = broken("processor_config.json", &|value| value["image_processor"]["patch_size"] = 8.into());
    assert!(matches!(error, PackageError::PatchesDiffer { graph: [None, Some(768)], .. }), "{error:?}");
    let error = broken("config.json", &|value| value["image_token_id"] = "no".into());
    assert!(matches!(error, PackageError::Malformed { .. }), "{error:?}");
    // The same graphs under another name are nothing that we know how to feed.
    let error = broken("config.json", &|value| value["model_type"] = "gemma9".into());
    assert!(matches!(error, PackageError::UnsupportedInputs { .. }), "{error:?}");
    let scratch = copy();
    std::fs::remove_file(scratch.path().join("processor_config.json")).unwrap();
    assert!(matches!(Package::open(scratch.path()), Err(PackageError::Missing { .. })));
}
