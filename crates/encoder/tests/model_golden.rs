//! Packages against transformers and torch: token ids, pixel values, embeddings.
//!
//! `golden/models.py` makes the packages and says what to expect. Every package of `data/models` is
//! tested, so that a new one needs no code here.

mod model_support;

use std::path::{Path, PathBuf};

use imgvec_encoder::image::{ImageLimits, Patches, decode};
use imgvec_encoder::interrupt::never_interrupted;
use imgvec_encoder::package::{Family, Modality, Package, Preparation};
use model_support::{copy_of, cosine, data, encoder, greatest_difference, onnx_runtime};
use serde_json::Value;

/// Largest difference of a pixel value after normalization: rounding in another order.
const PIXELS: f32 = 2e-6;

fn packages() -> Vec<PathBuf> {
    let mut packages: Vec<_> = std::fs::read_dir(data())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|dir| dir.join("expected.json").exists())
        .collect();
    packages.sort();
    assert!(packages.len() >= 27, "{packages:?}");
    packages
}

fn expected(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("expected.json")).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn cases<'a>(expected: &'a Value, key: &str) -> &'a [Value] {
    expected[key].as_array().map_or(&[], Vec::as_slice)
}

fn picture(case: &Value) -> Vec<u8> {
    std::fs::read(data().join("pictures").join(case["file"].as_str().unwrap())).unwrap()
}

/// Tolerance of an element, and least cosine.
fn tolerance(expected: &Value) -> (f32, f64) {
    match expected["tolerance"].as_f64().unwrap() {
        // 32-bit floats: the bar of the project.
        exact if exact <= 1e-4 => (1e-4, 0.9999),
        // 16-bit floats and 8-bit integers: what the package itself differs from torch.
        coarse => (coarse as f32, 0.999),
    }
}

fn check(name: &str, what: &str, expected: &Value, case: &Value, found: &[f32]) {
    let wanted = floats(&case["embedding"]);
    let (difference, least) = tolerance(expected);
    let worst = greatest_difference(found, &wanted);
    assert!(worst <= difference, "{name}: {what} differs by {worst}");
    let cosine = cosine(found, &wanted);
    assert!(cosine >= least, "{name}: {what} has cosine {cosine}");
    let norm = found.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    assert!((norm - 1.0).abs() < 1e-6, "{name}: {what} has norm {norm}");
}

#[test]
fn families_and_dimensions_are_read_from_the_files() {
    for (name, family, modalities, dim) in [
        ("clip", Family::Clip, &[Modality::Image, Modality::Text][..], 12),
        ("clip-combined", Family::Clip, &[Modality::Image, Modality::Text], 12),
        ("clip-external", Family::Clip, &[Modality::Image, Modality::Text], 12),
        ("clip-fp16io", Family::Clip, &[Modality::Image, Modality::Text], 12),
        ("clip-int8", Family::Clip, &[Modality::Image, Modality::Text], 12),
        ("siglip", Family::Siglip, &[Modality::Image, Modality::Text], 12),
        ("siglip2", Family::Siglip2, &[Modality::Image, Modality::Text], 12),
        ("siglip2-naflex", Family::Siglip2Naflex, &[Modality::Image, Modality::Text], 12),
        ("dinov2", Family::Dinov2, &[Modality::Image], 16),
        ("bert-mean", Family::Sentence, &[Modality::Text], 16),
        ("bert-cls", Family::Sentence, &[Modality::Text], 16),
        ("bert-dense", Family::Sentence, &[Modality::Text], 12),
        ("metaclip2", Family::Clip, &[Modality::Image, Modality::Text], 12),
        ("dinov3", Family::Dinov2, &[Modality::Image], 16),
        ("embeddinggemma", Family::Sentence, &[Modality::Text], 16),
        ("qwen3-embedding", Family::Sentence, &[Modality::Text], 16),
        ("xlm-clip", Family::OpenClip, &[Modality::Image, Modality::Text], 12),
        ("clip-uint8", Family::Clip, &[Modality::Image, Modality::Text], 12),
        ("clip-q4", Family::Clip, &[Modality::Image, Modality::Text], 12),
        ("pe-core", Family::OpenClip, &[Modality::Image, Modality::Text], 12),
        ("mobileclip2", Family::MobileClip, &[Modality::Image, Modality::Text], 12),
        ("nllb-clip", Family::Siglip, &[Modality::Image, Modality::Text], 16),
        ("jina-clip-v2", Family::JinaClip, &[Modality::Image, Modality::Text], 16),
        ("nomic-embed-text-v1.5", Family::Sentence, &[Modality::Text], 16),
        ("nomic-embed-vision-v1.5", Family::Sentence, &[Modality::Image], 16),
        ("nomic-embed-v1.5", Family::Sentence, &[Modality::Image, Modality::Text], 16),
    ] {
        let package = Package::open(&data().join(name)).unwrap();
        assert_eq!(package.name, name);
        assert_eq!(package.family, family, "{name}");
        assert_eq!(package.modalities, modalities, "{name}");
        assert_eq!(package.dim, Some(dim), "{name}");
    }
    let classifier = Package::open(&data().join("resnet")).unwrap();
    assert_eq!((classifier.family, &classifier.modalities[..]), (Family::Cnn, &[Modality::Image][..]));
}

#[test]
fn prompts_of_a_pair_are_its_own() {
    let pair = Package::open(&data().join("nomic-embed-v1.5")).unwrap();
    assert_eq!(pair.prompts["query"], "search_query: ");
    assert_eq!(pair.lenders().count(), 2);
}

#[test]
fn a_matryoshka_model_keeps_the_first_dimensions() {
    if !onnx_runtime("a_matryoshka_model_keeps_the_first_dimensions") {
        return;
    }
    let scratch = copy_of("jina-clip-v2");
    scratch.write("imgvec.toml", "truncate_dims = 8");
    let expected = expected(scratch.path());
    let mut encoder = encoder(scratch.path());
    for case in cases(&expected, "texts") {
        let found = encoder.embed_texts(&[case["text"].as_str().unwrap()]).unwrap();
        assert!(cosine(&found[0], &floats(&case["embedding"])[..8]) > 0.9999, "{}", case["text"]);
    }
    for case in cases(&expected, "images") {
        let found = encoder.embed_images(&[&picture(case)]).unwrap();
        assert!(cosine(&found[0], &floats(&case["embedding"])[..8]) > 0.9999, "{}", case["file"]);
    }
}

#[test]
fn pixel_values_are_those_of_transformers() {
    for dir in packages() {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let expected = expected(&dir);
        for case in cases(&expected, "images") {
            let package = Package::open(&dir).unwrap();
            let image = decode(&picture(case), &ImageLimits::default(), never_interrupted).unwrap();
            let sample = match &package.image.as_ref().unwrap().preparation {
                Preparation::Tensor(preprocessing) => {
                    let mut values = vec![0.0; preprocessing.output_len()];
                    preprocessing.apply(&image, &mut values).unwrap();
                    let (height, width) = preprocessing.output_size();
                    assert_eq!(case["shape"], serde_json::json!([3, height, width]), "{name}");
                    values.into_iter().step_by(97).collect::<Vec<f32>>()
                }
                Preparation::Patches(patching) => {
                    let Patches { pixels, grid } = patching.apply(&image).unwrap();
                    let length = patching.patch_len();
                    assert_eq!(case["shape"], serde_json::json!([patching.patches(), length]), "{name}");
                    assert_eq!(case["grid"], serde_json::json!([grid.rows, grid.columns]), "{name}");
                    let (used, filling) = pixels.split_at(grid.patches() * length);
                    assert!(filling.iter().all(|value| *value == 0.0), "{name}");
                    used.iter().copied().step_by(997).collect()
                }
            };
            let every = if case["every_97th"].is_null() { "every_997th" } else { "every_97th" };
            let worst = greatest_difference(&sample, &floats(&case[every]));
            assert!(worst <= PIXELS, "{name}, {}: pixels differ by {worst}", case["file"]);
        }
    }
}

#[test]
fn token_ids_are_those_of_transformers() {
    if !onnx_runtime("token_ids_are_those_of_transformers") {
        return;
    }
    for dir in packages() {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let expected = expected(&dir);
        let cases = cases(&expected, "texts");
        let texts: Vec<&str> = cases.iter().map(|case| case["text"].as_str().unwrap()).collect();
        if texts.is_empty() {
            continue;
        }
        let found = encoder(&dir).token_ids(&texts).unwrap();
        for (case, found) in cases.iter().zip(found) {
            assert_eq!(serde_json::json!(found.ids), case["ids"], "{name}: {}", case["text"]);
        }
    }
}

#[test]
fn embeddings_are_those_of_torch_alone_and_in_batches() {
    if !onnx_runtime("embeddings_are_those_of_torch_alone_and_in_batches") {
        return;
    }
    for dir in packages() {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        let expected = expected(&dir);
        let mut encoder = encoder(&dir);
        let images = cases(&expected, "images");
        let pictures: Vec<Vec<u8>> = images.iter().map(picture).collect();
        let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
        if !pictures.is_empty() {
            let together = encoder.embed_images(&pictures).unwrap();
            for ((case, picture), together) in images.iter().zip(&pictures).zip(together) {
                let what = case["file"].as_str().unwrap();
                check(&name, what, &expected, case, &together);
                check(&name, what, &expected, case, &encoder.embed_images(&[picture]).unwrap()[0]);
            }
        }
        let texts = cases(&expected, "texts");
        let words: Vec<&str> = texts.iter().map(|case| case["text"].as_str().unwrap()).collect();
        if !words.is_empty() {
            let together = encoder.embed_texts(&words).unwrap();
            for ((case, word), together) in texts.iter().zip(&words).zip(together) {
                check(&name, word, &expected, case, &together);
                check(&name, word, &expected, case, &encoder.embed_texts(&[word]).unwrap()[0]);
            }
        }
        assert_eq!(
            encoder.dim(),
            Some(floats(&images.iter().chain(texts).next().unwrap()["embedding"]).len())
        );
        assert!(encoder.take_warnings().is_empty());
    }
}
