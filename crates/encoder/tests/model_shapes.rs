//! Graphs of unusual shape: fixed batches, channels last, feature maps, integer and float types, and
//! text of unusual size.

mod model_support;

use std::time::{Duration, Instant};

use imgvec_encoder::image::{ImageLimits, decode};
use imgvec_encoder::interrupt::never_interrupted;
use imgvec_encoder::package::{Family, Package};
use imgvec_encoder::{EncodeError, Encoder};
use model_support::graph::{F32, GraphBuilder, I64, text_tower, word_tokenizer};
use model_support::{Scratch, data, encoder, greatest_difference, onnx_runtime, options_with};

const I32: u64 = 6;

const PREPROCESSING: &str = r#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 16},
    "crop_size": {"height": 12, "width": 16}}"#;

fn pictures() -> Vec<Vec<u8>> {
    ["wide.png", "tall.png", "translucent.png"]
        .map(|name| std::fs::read(data().join("pictures").join(name)).unwrap())
        .into()
}

/// Means of the pixel values by channel, which the graphs below compute.
fn means(encoder: &Encoder, picture: &[u8]) -> Vec<f32> {
    let preprocessing = encoder.package().image.as_ref().unwrap().preprocessing().unwrap();
    let image = decode(picture, &ImageLimits::default(), never_interrupted).unwrap();
    let mut values = vec![0.0; preprocessing.output_len()];
    preprocessing.apply(&image, &mut values).unwrap();
    let area = values.len() / 3;
    values.chunks(area).map(|plane| plane.iter().sum::<f32>() / area as f32).collect()
}

#[test]
fn every_layout_and_batch_of_an_image_tower_gives_the_same() {
    if !onnx_runtime("every_layout_and_batch_of_an_image_tower_gives_the_same") {
        return;
    }
    let reduce = |graph: GraphBuilder, axes: &[i64]| {
        graph.node_with("ReduceMean", &["x"], "y", &[("axes", axes), ("keepdims", &[0])]).finish()
    };
    let graph = |shape: &[i64]| GraphBuilder::new().input("x", F32, shape).output("y", F32, &[-1, 3]);
    let feature_map =
        GraphBuilder::new().input("x", F32, &[-1, 3, -1, -1]).output("y", F32, &[-1, 3, -1, -1]);
    for (name, bytes) in [
        ("channels first", reduce(graph(&[-1, 3, 12, 16]), &[2, 3])),
        ("channels last", reduce(graph(&[-1, 12, 16, 3]), &[1, 2])),
        ("batch of one", reduce(graph(&[1, 3, 12, 16]), &[2, 3])),
        ("batch of two", reduce(graph(&[2, 12, 16, 3]), &[1, 2])),
        ("feature map", feature_map.node("Identity", &["x"], "y").finish()),
    ] {
        let scratch = Scratch::new();
        scratch.write("preprocessor_config.json", PREPROCESSING);
        scratch.write("imgvec.toml", "normalize = false");
        scratch.write("model.onnx", bytes);
        let mut encoder = encoder(scratch.path());
        let pictures = pictures();
        let slices: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
        let found = encoder.embed_images(&slices).unwrap();
        assert_eq!((found.len(), encoder.dim()), (3, Some(3)), "{name}");
        for (picture, found) in pictures.iter().zip(found) {
            let difference = greatest_difference(&found, &means(&encoder, picture));
            assert!(difference < 1e-4, "{name}: {difference}");
        }
    }
}

#[test]
fn a_bad_picture_is_named_by_its_place() {
    if !onnx_runtime("a_bad_picture_is_named_by_its_place") {
        return;
    }
    let mut encoder = encoder(&data().join("clip"));
    let good = pictures().remove(0);
    let mut batch: Vec<&[u8]> = vec![&good; 12];
    batch[10] = b"no picture";
    match encoder.embed_images(&batch) {
        Err(EncodeError::Image { index: 10, .. }) => {}
        other => panic!("{other:?}"),
    }
    batch[10] = &good;
    let vectors = encoder.embed_images(&batch).unwrap();
    assert!(vectors.iter().all(|vector| greatest_difference(vector, &vectors[0]) < 1e-6));
    assert_eq!(encoder.counts().images, 8 + 12);
    assert!(encoder.embed_images(&[]).unwrap().is_empty());
    assert!(encoder.embed_texts(&[]).unwrap().is_empty());
}

#[test]
fn a_tower_that_is_not_there_is_an_error() {
    if !onnx_runtime("a_tower_that_is_not_there_is_an_error") {
        return;
    }
    match encoder(&data().join("dinov2")).embed_texts(&["dog"]) {
        Err(EncodeError::NoTower { model, .. }) if model == "dinov2" => {}
        other => panic!("{other:?}"),
    }
    match encoder(&data().join("bert-mean")).embed_images(&[b""]) {
        Err(EncodeError::NoTower { model, .. }) if model == "bert-mean" => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn ids_masks_types_and_positions_are_fed_in_every_type() {
    if !onnx_runtime("ids_masks_types_and_positions_are_fed_in_every_type") {
        return;
    }
    // 1000 * id + 100 * mask + 10 * type + position, summed over the tokens by sum pooling's stand-in.
    let scaled = |graph: GraphBuilder, from: &str, factor: f32| {
        let (cast, weight, to) =
            (format!("{from}_float"), format!("{from}_weight"), format!("{from}_scaled"));
        graph.floats(&weight, &[1], &[factor]).node_with("Cast", &[from], &cast, &[("to", &[1])]).node(
            "Mul",
            &[&cast, &weight],
            &to,
        )
    };
    for (ids, mask) in [(I64, I64), (I32, I32), (I64, F32)] {
        let mut graph = GraphBuilder::new()
            .input("input_ids", ids, &[-1, -1])
            .input("attention_mask", mask, &[-1, -1])
            .input("token_type_ids", ids, &[-1, -1])
            .input("position_ids", ids, &[-1, -1])
            .output("sentence_embedding", F32, &[-1, 1]);
        for (name, factor) in [
            ("input_ids", 1000.0),
            ("attention_mask", 100.0),
            ("token_type_ids", 10.0),
            ("position_ids", 1.0),
        ] {
            graph = scaled(graph, name, factor);
        }
        let graph = graph
            .node(
                "Sum",
                &[
                    "input_ids_scaled",
                    "attention_mask_scaled",
                    "token_type_ids_scaled",
                    "position_ids_scaled",
                ],
                "all",
            )
            .node_with("ReduceMean", &["all"], "sentence_embedding", &[("axes", &[1]), ("keepdims", &[1])]);
        let scratch = Scratch::new();
        scratch.write("model.onnx", graph.finish());
        scratch.write("tokenizer.json", word_tokenizer(&["unknown", "one", "two", "three", "pad"]));
        scratch.write(
            "imgvec.toml",
            "normalize = false\n[text]\npadding = \"max_length\"\nmax_length = 4\npad_id = 4",
        );
        let vectors = encoder(scratch.path()).embed_texts(&["three", "one two"]).unwrap();
        // Ids 3 4 4 4 and 1 2 4 4, masks 1 0 0 0 and 1 1 0 0, positions 0 1 2 3.
        assert_eq!(vectors, [[(15_000.0 + 100.0 + 6.0) / 4.0], [(11_000.0 + 200.0 + 6.0) / 4.0]]);
    }
}

#[test]
fn texts_of_megabytes_cost_little_and_read_as_their_beginning() {
    if !onnx_runtime("texts_of_megabytes_cost_little_and_read_as_their_beginning") {
        return;
    }
    for name in ["clip", "siglip2", "bert-mean"] {
        let mut encoder = encoder(&data().join(name));
        let start = "a photo of a dog on the grass with two red cats ";
        let reference = encoder.token_ids(&[&start.repeat(20)]).unwrap();
        let long = start.repeat(500_000);
        let huge = ["x".repeat(20 << 20), "\u{1F436}".repeat(5 << 20), "\0\u{200b}\u{301}".repeat(4 << 20)];
        let blanks = " ".repeat(24 << 20) + "dog";
        let begun = Instant::now();
        assert_eq!(encoder.token_ids(&[&long]).unwrap(), reference, "{name}");
        for text in &huge {
            encoder.embed_texts(&[text]).unwrap();
        }
        // The word lies beyond what is ever read.
        let _ = encoder.embed_texts(&[&blanks]);
        assert!(begun.elapsed() < Duration::from_secs(20), "{name}: {:?}", begun.elapsed());
        if name == "siglip2" {
            // Its blanks are tokens.
            continue;
        }
        // Blanks that are read do not push words out.
        let spaced = " ".repeat(100_000) + "dog";
        assert_eq!(encoder.token_ids(&[&spaced]).unwrap(), encoder.token_ids(&["dog"]).unwrap(), "{name}");
    }
}

#[test]
fn an_interrupt_ends_the_work_between_batches() {
    if !onnx_runtime("an_interrupt_ends_the_work_between_batches") {
        return;
    }
    let package = || Package::open(&data().join("clip")).unwrap();
    let mut encoder = Encoder::open(package(), options_with(|| true)).unwrap();
    let picture = pictures().remove(0);
    assert!(matches!(encoder.embed_images(&[&picture]), Err(EncodeError::Interrupted)));
    assert!(matches!(encoder.embed_texts(&["dog"]), Err(EncodeError::Interrupted)));
    assert_eq!(encoder.counts().images + encoder.counts().texts, 0);
}

#[test]
fn matryoshka_dimensions_are_kept_and_normalized_again() {
    if !onnx_runtime("matryoshka_dimensions_are_kept_and_normalized_again") {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("tokenizer.json", word_tokenizer(&["a", "dog"]));
    scratch.write(
        "model.onnx",
        text_tower(2, 4, |place| place as f32, |graph| graph.node("Identity", &["looked_up"], "worked")),
    );
    scratch.write("imgvec.toml", "truncate_dims = 2");
    let vectors = encoder(scratch.path()).embed_texts(&["dog"]).unwrap();
    // The table's second row is 4 5 6 7.
    let norm = 41_f32.sqrt();
    assert!(greatest_difference(&vectors[0], &[4.0 / norm, 5.0 / norm]) < 1e-6);
}

#[test]
fn a_kind_of_model_that_is_not_known_runs_by_the_names_of_its_files() {
    let test = "a_kind_of_model_that_is_not_known_runs_by_the_names_of_its_files";
    if !onnx_runtime(test) {
        return;
    }
    let scratch = model_support::copy_of("clip");
    let config = std::fs::read_to_string(scratch.path().join("config.json")).unwrap();
    scratch.write("config.json", config.replace("\"model_type\": \"clip\"", "\"model_type\": \"clip9\""));
    let package = Package::open(scratch.path()).unwrap();
    assert_eq!((package.family, package.dim, package.modalities.len()), (Family::Generic, Some(12), 2));
    let mut found = encoder(scratch.path());
    let mut known = encoder(&data().join("clip"));
    let pictures = pictures();
    let pictures: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
    assert_eq!(found.embed_images(&pictures).unwrap(), known.embed_images(&pictures).unwrap());
    let texts = ["a photo of a dog", "two red cats", ""];
    assert_eq!(found.embed_texts(&texts).unwrap(), known.embed_texts(&texts).unwrap());
}
