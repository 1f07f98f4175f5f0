//! Two real towers that were trained apart, joined into one package by `imgvec.toml`.
//!
//! The files lie outside the repository; without them the test says that it was skipped. The expected
//! cosines are those of the README beside them. The text tower quantizes at run time, so that its
//! vectors differ from one processor and one batch to another: onnxruntime in Python gave cosines from
//! 0.66 to 0.73 for "cat" with different batches and paddings, and 0.698 with ours.

mod model_support;

use std::path::Path;

use imgvec_encoder::package::{Family, Package};
use model_support::{Scratch, cosine, encoder, onnx_runtime, skip};

const TOML: &str = r#"
family = "generic"
license = "Apache-2.0"

[image]
graph = "image_mobilenetv2_conse.onnx"

# (x - 128) / 128 of a picture that is squeezed to a square.
[image.preprocessing]
size = { height = 224, width = 224 }
resample = 3
do_center_crop = false
do_rescale = false
image_mean = [128, 128, 128]
image_std = [128, 128, 128]

[text]
graph = "text_minilm_centered_int8.onnx"
max_length = 256
"#;

#[test]
fn the_reference_towers_agree_about_a_cat() {
    let test = "the_reference_towers_agree_about_a_cat";
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/reference-encoder");
    if !shared.is_dir() {
        return skip(test, "the reference encoder is not there");
    }
    if !onnx_runtime(test) {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("imgvec.toml", TOML);
    for file in ["image_mobilenetv2_conse.onnx", "text_minilm_centered_int8.onnx", "tokenizer.json"] {
        std::fs::copy(shared.join(file), scratch.path().join(file)).unwrap();
    }
    let package = Package::open(scratch.path()).unwrap();
    assert_eq!((package.family, package.dim), (Family::Generic, Some(384)));
    assert!(package.text.as_ref().unwrap().graph.outline.dynamic_quantization);

    let picture = std::fs::read(shared.join("cat.bmp")).unwrap();
    let mut encoder = encoder(scratch.path());
    let image = encoder.embed_images(&[&picture, &picture]).unwrap();
    assert_eq!(image[0], image[1]);
    let texts = encoder.embed_texts(&["cat", "dog", "parrot"]).unwrap();
    for (label, text, expected) in [("cat", 0, 0.728), ("dog", 1, 0.190), ("parrot", 2, 0.183)] {
        let found = cosine(&image[0], &texts[text]);
        assert!((found - expected).abs() < 0.04, "{label}: {found:.4} instead of {expected}");
    }
}
