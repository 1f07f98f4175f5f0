//! `models/export.py`: what it makes of a model is a package, whose embeddings are the model's.
//!
//! Runs where Python has torch and transformers: `IMGVEC_EXPORT_PYTHON` names a Python that has, by default `python3`. With
//! `IMGVEC_REQUIRE_EXPORT` it fails where it would skip.

mod model_support;

use std::path::{Path, PathBuf};
use std::process::Command;

use image::codecs::png::PngEncoder;
use image::{ImageEncoder, Rgb, RgbImage};
use imgvec_encoder::package::Package;
use imgvec_encoder::{Encoder, EncoderOptions};
use model_support::{Scratch, cosine, data, onnx_runtime, options, skip};
use serde_json::Value;

const TEST: &str = "exported_models_give_what_torch_gives";

/// A Python that has what the script needs.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("IMGVEC_EXPORT_PYTHON").unwrap_or_else(|| "python3".into());
    let output = Command::new(&python).args(["-c", "import torch, transformers"]).output();
    if output.is_ok_and(|output| output.status.success()) {
        return Some(python.into());
    }
    let reason = "Python has no torch and transformers: pip install torch transformers onnx onnxruntime";
    assert!(std::env::var_os("IMGVEC_REQUIRE_EXPORT").is_none(), "{reason}");
    skip(TEST, reason);
    None
}

fn run(python: &Path, script: &Path, arguments: &[&Path]) -> String {
    let mut command = Command::new(python);
    // Nothing is looked up in the network.
    command.arg(script).args(arguments).env("HF_HUB_OFFLINE", "1");
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script:?} {arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn white() -> Vec<u8> {
    let picture = RgbImage::from_pixel(64, 64, Rgb([255; 3]));
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(&picture, 64, 64, image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

#[test]
fn exported_models_give_what_torch_gives() {
    if !onnx_runtime(TEST) {
        return;
    }
    let Some(python) = python() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = Scratch::new();
    let sources = scratch.path().join("sources");
    let printed = run(&python, &root.join("tests/golden/tiny.py"), &[&data(), &sources]);
    let expected: Value = serde_json::from_str(&printed).unwrap();
    let models = expected.as_object().unwrap();
    assert!(models.len() >= 6, "{printed}");
    for (name, expected) in models {
        let target = scratch.path().join(name);
        let said = run(&python, &root.join("../../models/export.py"), &[&sources.join(name), &target]);
        eprintln!("{name}: {}", said.trim().replace('\n', "; "));
        let package = Package::open(&target).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut encoder = Encoder::open(package, EncoderOptions { ..options() }).unwrap();
        let compare = |what: &str, found: &[f32], wanted: &Value| {
            let cosine = cosine(found, &floats(wanted));
            assert!(cosine > 0.9999, "{name}, {what}: cosine {cosine}");
        };
        let texts = expected["texts"].as_array().unwrap();
        for case in texts {
            let text = case[0].as_str().unwrap();
            compare(text, &encoder.embed_texts(&[text]).unwrap()[0], &case[1]);
        }
        let wanted = &expected["white"];
        if !wanted.is_null() {
            compare("white", &encoder.embed_images(&[&white()]).unwrap()[0], wanted);
        }
        assert!(!texts.is_empty() || !wanted.is_null());
    }
    // A directory that is there is left alone.
    let mut again = Command::new(&python);
    let clip = [sources.join("clip"), scratch.path().join("clip")];
    let output = again.arg(root.join("../../models/export.py")).args(&clip).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("exists"));
}
