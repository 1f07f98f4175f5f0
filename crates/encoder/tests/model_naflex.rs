//! SigLIP 2 NaFlex: patches of pictures in their own shape, a mask, and rows and columns. `model_golden.rs` compares the
//! package with transformers; here are graphs of other types and shapes, and packages that are wrong in one way each.

mod model_support;

use imgvec_encoder::image::{ImageLimits, Patches, decode};
use imgvec_encoder::interrupt::never_interrupted;
use imgvec_encoder::memory::ProcessMemory;
use imgvec_encoder::package::{Family, MalformedFile, Modality, Package, PackageError};
use imgvec_encoder::{EncodeError, Encoder, EncoderOptions};
use model_support::graph::{F32, GraphBuilder, I64, STRING, word_tokenizer};
use model_support::{Scratch, copy_of, data, encoder, greatest_difference, onnx_runtime, options};

const F16: u64 = 10;
const I32: u64 = 6;
const BOOL: u64 = 9;

const PROCESSOR: &str =
    r#"{"image_processor_type": "Siglip2ImageProcessorFast", "patch_size": 8, "max_num_patches": 40}"#;

const INPUTS: [(&str, u64, &[i64]); 3] = [
    ("pixel_values", F32, &[-1, -1, 192]),
    ("pixel_attention_mask", I64, &[-1, -1]),
    ("spatial_shapes", I64, &[-1, 2]),
];

fn pictures() -> Vec<Vec<u8>> {
    ["line.png", "panorama.png", "square.png"]
        .map(|name| std::fs::read(data().join("pictures").join(name)).unwrap())
        .into()
}

/// A package whose graph gives the mean pixel value plus the share of patches under the mask, and 10 and 20 times rows and
/// columns on top: `[batch, 2]`.
fn package(inputs: [(&str, u64, &[i64]); 3], more: impl FnOnce(GraphBuilder) -> GraphBuilder) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("config.json", r#"{"model_type": "siglip2"}"#);
    scratch.write("preprocessor_config.json", PROCESSOR);
    scratch.write("imgvec.toml", "normalize = false");
    let mut graph = GraphBuilder::new();
    for (name, element, shape) in inputs {
        graph = graph.input(name, element, shape);
    }
    let graph = inputs
        .iter()
        .fold(graph, |graph, (name, ..)| {
            graph.node_with("Cast", &[name], &format!("{name}_float"), &[("to", &[1])])
        })
        .output("pooler_output", F32, &[-1, 2])
        .floats("tens", &[2], &[10.0, 20.0])
        .node_with("ReduceMean", &["pixel_values_float"], "by_patch", &[("axes", &[2]), ("keepdims", &[0])])
        .node_with("ReduceMean", &["by_patch"], "pixels", &[("axes", &[1]), ("keepdims", &[1])])
        .node_with(
            "ReduceMean",
            &["pixel_attention_mask_float"],
            "share",
            &[("axes", &[1]), ("keepdims", &[1])],
        )
        .node("Mul", &["spatial_shapes_float", "tens"], "sides")
        .node("Sum", &["pixels", "share", "sides"], "pooler_output");
    scratch.write("model.onnx", more(graph).finish());
    scratch
}

fn open(scratch: &Scratch) -> Result<Package, PackageError> {
    Package::open(scratch.path())
}

#[test]
fn every_type_and_batch_is_fed_with_patches_a_mask_and_sides() {
    if !onnx_runtime("every_type_and_batch_is_fed_with_patches_a_mask_and_sides") {
        return;
    }
    for (pixels, mask, sides, batch, patches) in
        [(F32, I64, I64, -1, -1), (F16, I32, I32, -1, 40), (F32, F32, I64, 2, -1), (F32, I64, I32, 1, 40)]
    {
        let what = format!("{pixels} {mask} {sides} {batch} {patches}");
        let scratch = package(
            [
                ("pixel_values", pixels, &[batch, patches, 192]),
                ("pixel_attention_mask", mask, &[batch, patches]),
                ("spatial_shapes", sides, &[batch, 2]),
            ],
            |graph| graph,
        );
        let mut encoder = encoder(scratch.path());
        assert_eq!(encoder.package().family, Family::Siglip2Naflex);
        let pictures = pictures();
        let slices: Vec<&[u8]> = pictures.iter().map(Vec::as_slice).collect();
        let found = encoder.embed_images(&slices).unwrap();
        assert_eq!(found.len(), 3);
        for (picture, found) in pictures.iter().zip(found) {
            let tower = encoder.package().image.clone().unwrap();
            let decoded = decode(picture, &ImageLimits::default(), never_interrupted).unwrap();
            let Patches { pixels: values, grid } = tower.patching().unwrap().apply(&decoded).unwrap();
            let mean = values.iter().sum::<f32>() / values.len() as f32 + grid.patches() as f32 / 40.0;
            let wanted = [mean + 10.0 * grid.rows as f32, mean + 20.0 * grid.columns as f32];
            let difference = greatest_difference(&found, &wanted);
            assert!(difference < if pixels == F16 { 1e-2 } else { 1e-3 }, "{what}: {difference}");
        }
    }
}

#[test]
fn both_towers_may_be_in_one_graph() {
    if !onnx_runtime("both_towers_may_be_in_one_graph") {
        return;
    }
    for (batch, patches) in [(-1, -1), (-1, 40), (2, 40)] {
        let scratch = package(
            [
                ("pixel_values", F32, &[batch, patches, -1]),
                ("pixel_attention_mask", I64, &[batch, patches]),
                ("spatial_shapes", I64, &[batch, 2]),
            ],
            |graph| {
                graph
                    .input("input_ids", I64, &[batch, -1])
                    .output("text_embeds", F32, &[-1, 2])
                    .node_with("Cast", &["input_ids"], "ids", &[("to", &[1])])
                    .node_with("ReduceMean", &["ids"], "mean_id", &[("axes", &[1]), ("keepdims", &[1])])
                    .node("Mul", &["mean_id", "tens"], "text_embeds")
            },
        );
        scratch.write("tokenizer.json", word_tokenizer(&["unknown", "red", "dog"]));
        scratch.write("imgvec.toml", "normalize = false\n[text]\npadding = \"longest\"\npad_id = 0\n");
        let mut both = encoder(scratch.path());
        assert_eq!(both.package().modalities, [Modality::Image, Modality::Text]);
        // The other half gets patches that nobody wants.
        assert_eq!(
            both.embed_texts(&["red dog", "dog dog", "Red red"]).unwrap(),
            [[15.0, 30.0], [20.0, 40.0], [10.0, 20.0]]
        );
        let alone = package(INPUTS, |graph| graph);
        for picture in pictures() {
            let found = both.embed_images(&[&picture]).unwrap();
            assert_eq!(found, encoder(alone.path()).embed_images(&[&picture]).unwrap());
        }
    }
}

#[test]
fn inputs_that_are_missing_or_of_another_type_are_listed() {
    for (place, element) in [(0, I64), (0, STRING), (1, BOOL), (1, STRING), (2, F32), (2, BOOL)] {
        let mut inputs = INPUTS;
        inputs[place].1 = element;
        match open(&package(inputs, |graph| graph)) {
            Err(PackageError::UnsupportedInputs { inputs, unsupported, .. }) => {
                assert_eq!((inputs.len(), unsupported.len()), (3, 3), "{unsupported:?}");
            }
            other => panic!("{other:?}"),
        }
    }
    for missing in 0..3 {
        let scratch = package(INPUTS, |graph| graph);
        let mut graph = GraphBuilder::new().output("pooler_output", F32, &[-1, 2]);
        for (name, element, shape) in
            INPUTS.iter().enumerate().filter(|(place, _)| *place != missing).map(|(_, input)| input)
        {
            graph = graph.input(name, *element, shape);
        }
        scratch.write("model.onnx", graph.finish());
        match open(&scratch) {
            Err(PackageError::UnsupportedInputs { inputs, unsupported, .. }) => {
                assert_eq!((inputs.len(), unsupported.len()), (2, 2), "{unsupported:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn models_of_other_kinds_with_such_inputs_are_refused() {
    for kind in ["clip", "embedding_gemma2", "siglip", "lfm2_vl", "dinov2"] {
        let scratch = package(INPUTS, |graph| graph);
        scratch.write("config.json", format!(r#"{{"model_type": "{kind}"}}"#));
        match open(&scratch) {
            Err(PackageError::UnsupportedInputs { unsupported, .. }) => {
                assert_eq!(unsupported, ["pixel_values", "pixel_attention_mask", "spatial_shapes"], "{kind}");
            }
            other => panic!("{kind}: {other:?}"),
        }
        // Whoever knows better may say so.
        scratch.write("imgvec.toml", "family = \"siglip2_naflex\"");
        assert_eq!(open(&scratch).unwrap().family, Family::Siglip2Naflex, "{kind}");
    }
}

#[test]
fn the_family_follows_the_inputs_of_the_graph() {
    for family in ["siglip2", "siglip2_naflex"] {
        for (name, found) in [("siglip2", Family::Siglip2), ("siglip2-naflex", Family::Siglip2Naflex)] {
            let scratch = copy_of(name);
            scratch.write("imgvec.toml", format!("family = \"{family}\""));
            assert_eq!(open(&scratch).unwrap().family, found, "{name} {family}");
        }
    }
    assert_eq!(Family::Siglip2Naflex.name(), "siglip2_naflex");
    let package = Package::open(&data().join("siglip2-naflex")).unwrap();
    assert_eq!(package.modalities, [Modality::Image, Modality::Text]);
    assert_eq!(package.image.as_ref().unwrap().size(), None);
    // Texts are treated as SigLIP 2's.
    let text = package.text.as_ref().unwrap();
    assert!(text.lowercase && !text.mask_padding && text.max_length == 16);
    // Of the settings, those that decide patches belong to the digest.
    let scratch = copy_of("siglip2-naflex");
    let digest = |scratch: &Scratch| open(scratch).unwrap().digest(None).unwrap();
    let before = digest(&scratch);
    assert_eq!(before, package.digest(None).unwrap());
    let settings = std::fs::read_to_string(scratch.path().join("preprocessor_config.json")).unwrap();
    scratch.write("preprocessor_config.json", settings.replace("256", "255"));
    assert_ne!(before, digest(&scratch));
}

#[test]
fn settings_that_make_no_sense_are_named() {
    for (setting, value) in [
        ("max_num_patches", "0"),
        ("max_num_patches", "1000000"),
        ("max_num_patches", "-1"),
        ("patch_size", "0"),
        ("patch_size", "1e9"),
        ("image_processor_type", "\"SiglipImageProcessor\""),
    ] {
        let scratch = package(INPUTS, |graph| graph);
        scratch.write("imgvec.toml", format!("[image.preprocessing]\n{setting} = {value}"));
        match open(&scratch) {
            Err(PackageError::Malformed { path, source: MalformedFile::Preprocessing(error) }) => {
                assert!(
                    path.ends_with("preprocessor_config.json") && error.to_string().contains(setting),
                    "{error}"
                );
            }
            other => panic!("{setting} {value}: {other:?}"),
        }
    }
    let scratch = package(INPUTS, |graph| graph);
    std::fs::remove_file(scratch.path().join("preprocessor_config.json")).unwrap();
    assert!(matches!(open(&scratch), Err(PackageError::Missing { .. })));
}

#[test]
fn a_graph_of_other_patches_than_the_settings_make_is_refused() {
    for (patches, length) in [(-1, 768), (256, -1), (40, 191), (41, 192)] {
        let mut inputs = INPUTS;
        let shape = [-1, patches, length];
        inputs[0].2 = &shape;
        match open(&package(inputs, |graph| graph)) {
            Err(PackageError::PatchesDiffer { graph, preprocessing, .. }) => {
                let fixed = |size: i64| usize::try_from(size).ok();
                assert_eq!((graph, preprocessing), ([fixed(patches), fixed(length)], [40, 192]));
            }
            other => panic!("{patches} {length}: {other:?}"),
        }
    }
}

#[test]
fn patches_that_do_not_fit_are_refused_before_they_are_made() {
    if !onnx_runtime("patches_that_do_not_fit_are_refused_before_they_are_made") {
        return;
    }
    let mut inputs = INPUTS;
    inputs[0].2 = &[-1, -1, 12_288];
    let scratch = package(inputs, |graph| graph);
    let toml = "normalize = false\n[image.preprocessing]\npatch_size = 64\nmax_num_patches = 4096\n";
    scratch.write("imgvec.toml", toml);
    let memory = ProcessMemory { max_run_bytes: 64 << 20, ..ProcessMemory::default() };
    let package = open(&scratch).unwrap();
    let mut encoder = Encoder::open(package, EncoderOptions { memory, ..options() }).unwrap();
    // The picture is never looked at.
    match encoder.embed_images(&[b"no picture"]) {
        Err(EncodeError::RunTooLarge { needed_bytes, .. }) => assert!(needed_bytes > 4096 * 12_288 * 4),
        other => panic!("{other:?}"),
    }
    assert_eq!(encoder.counts().images, 0);
}
