//! Packages that are wrong in one way each, and what is said about them; finding and listing; digests.

mod model_support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use imgvec_encoder::interrupt::never_interrupted;
use imgvec_encoder::package::{
    Family, FileRole, MalformedFile, Modality, OnnxError, Package, PackageError, Padding, Precision, Scoring,
    Unsupported,
};
use imgvec_encoder::{EncodeError, Encoder};
use model_support::graph::{F32, GraphBuilder, I64, STRING, text_tower, word_tokenizer};
use model_support::{Scratch, copy, copy_of, data, encoder, onnx_runtime, options};

/// The error of opening a directory; a package that opens is a failure of the test.
fn error(scratch: &Scratch) -> PackageError {
    Package::open(scratch.path()).expect_err("the package is broken")
}

/// Matches a pattern with its condition, or shows what was there instead.
macro_rules! assert_matches {
    ($value:expr, $($pattern:tt)+) => {
        match $value {
            $($pattern)+ => {}
            other => panic!("found {other:?}"),
        }
    };
}

#[test]
fn an_empty_directory_has_no_graph() {
    assert_matches!(error(&Scratch::new()), PackageError::NoGraph { .. });
}

#[test]
fn missing_files_are_named_with_their_role() {
    for (file, role) in [
        ("tokenizer.json", FileRole::Tokenizer),
        ("preprocessor_config.json", FileRole::Preprocessing),
        ("onnx/text_model.onnx_data", FileRole::ExternalData),
    ] {
        let scratch = copy_of("clip-external");
        fs::remove_file(scratch.path().join(file)).unwrap();
        assert_matches!(error(&scratch), PackageError::Missing { path, role: found }
            if path == scratch.path().join(file) && found == role);
    }
}

#[test]
fn a_graph_named_in_the_toml_must_be_there() {
    let scratch = copy_of("clip");
    scratch.write("imgvec.toml", "[image]\ngraph = \"onnx/other.onnx\"");
    assert_matches!(error(&scratch), PackageError::Missing { role: FileRole::Graph, path } if path.ends_with("onnx/other.onnx"));
}

#[test]
fn half_copied_graphs_and_weights_are_found_without_loading_them() {
    for file in ["onnx/vision_model.onnx", "onnx/vision_model.onnx_data"] {
        let scratch = copy_of("clip-external");
        let path = scratch.path().join(file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert_matches!(error(&scratch), PackageError::Truncated { path: found, expected, found: size }
            if found == path && expected > size && size == bytes.len() as u64 / 2);
    }
}

#[test]
fn every_cut_of_a_graph_is_an_error_and_never_a_panic() {
    let scratch = copy_of("resnet");
    let path = scratch.path().join("onnx/model.onnx");
    let bytes = fs::read(&path).unwrap();
    // The last field is the operator set, after the graph: a file without it is refused on loading.
    for length in (0..bytes.len() - 64).step_by(101) {
        fs::write(&path, &bytes[..length]).unwrap();
        assert_matches!(error(&scratch), PackageError::Truncated { .. } | PackageError::Malformed { .. });
    }
}

#[test]
fn damaged_graphs_never_panic() {
    let scratch = copy_of("bert-cls");
    let path = scratch.path().join("onnx/model.onnx");
    let mut bytes = fs::read(&path).unwrap();
    // A fixed sequence of places and values.
    let mut state = 12345_u64;
    for _ in 0..2000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let place = (state >> 33) as usize % bytes.len();
        let old = std::mem::replace(&mut bytes[place], (state >> 24) as u8);
        fs::write(&path, &bytes).unwrap();
        let _ = Package::open(scratch.path());
        bytes[place] = old;
    }
}

#[test]
fn other_files_under_the_name_of_a_graph_are_recognized() {
    let scratch = copy_of("dinov2");
    let pointer = "version https://git-lfs.example/spec/v1\noid sha256:0\nsize 1\n";
    scratch.write("onnx/model.onnx", pointer);
    assert_matches!(
        error(&scratch),
        PackageError::Malformed { source: MalformedFile::Onnx(OnnxError::LfsPointer), .. }
    );
    scratch.write("onnx/model.onnx", "<html>404 not found</html>");
    assert_matches!(
        error(&scratch),
        PackageError::Malformed { source: MalformedFile::Onnx(OnnxError::NotOnnx { .. }), .. }
            | PackageError::Truncated { .. }
    );
    scratch.write("onnx/model.onnx", "");
    assert_matches!(error(&scratch), PackageError::Malformed { .. });
}

#[test]
fn external_data_cannot_lie_elsewhere() {
    for location in
        ["../secret", "/etc/passwd", "a/../../b", "", ".", "a/./../b", "a\0b", "a\nb", "\u{1b}[2J"]
    {
        let scratch = copy_of("dinov2");
        let graph = GraphBuilder::new()
            .input("pixel_values", F32, &[-1, 3, 28, 28])
            .output("pooler_output", F32, &[-1, 4])
            .external("weight", &[4, 4], location, 64);
        scratch.write("onnx/model.onnx", graph.finish());
        assert_matches!(error(&scratch), PackageError::Malformed {
            source: MalformedFile::Onnx(OnnxError::ExternalDataEscapes { location: found }), ..
        } if found == location);
    }
}

/// What a `TensorProto` with external data holds: name and the entries given.
fn external_tensor(entries: &[(&str, &str)]) -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let mut tensor = vec![1 << 3, 4, 2 << 3, 1];
    tensor.extend(field(8, b"weight"));
    for (key, value) in entries {
        tensor.extend(field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat()));
    }
    tensor
}

/// A graph around some bytes of a `GraphProto`.
fn graph_with(extra: &[u8]) -> Vec<u8> {
    GraphBuilder::new()
        .input("pixel_values", F32, &[-1, 3, 28, 28])
        .output("pooler_output", F32, &[-1, 4])
        .raw(extra)
        .finish()
}

#[test]
fn external_data_cannot_lie_elsewhere_wherever_a_graph_hides_it() {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let bad = external_tensor(&[("location", "../secret")]);
    // Of several locations ONNX Runtime takes the last.
    let twice = external_tensor(&[("location", "data"), ("location", "../secret")]);
    let attribute = |number, bytes: &[u8]| field(1, &field(5, &field(number, bytes)));
    let sparse = field(1, &bad);
    let cases = [
        ("weight", field(5, &bad)),
        ("weight with two locations", field(5, &twice)),
        ("sparse weight", [&[15 << 3 | 2, sparse.len() as u8], &sparse[..]].concat()),
        ("attribute", attribute(5, &bad)),
        ("attribute of several", attribute(10, &bad)),
        ("graph in an attribute", attribute(6, &field(5, &bad))),
        ("node of a graph in an attribute", attribute(11, &attribute(5, &bad))),
    ];
    for (what, extra) in cases {
        let scratch = copy_of("dinov2");
        scratch.write("onnx/model.onnx", graph_with(&extra));
        scratch.write("onnx/data", [0; 64]);
        assert_matches!(error(&scratch), PackageError::Malformed {
            source: MalformedFile::Onnx(OnnxError::ExternalDataEscapes { location }), ..
        } if location == "../secret");
        println!("refused in a {what}");
    }
}

#[test]
fn other_content_of_the_same_size_and_time_is_another_model() {
    use std::os::unix::fs::MetadataExt;
    let (scratch, cache) = (copy_of("clip-external"), Scratch::new());
    let path = scratch.path().join("onnx/text_model.onnx_data");
    let before = path.metadata().unwrap();
    let package = Package::open(scratch.path()).unwrap();
    let digest = package.digest(Some(cache.path())).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[0] ^= 1;
    // The system's clock of files ticks every few milliseconds.
    while path.metadata().unwrap().ctime_nsec() == before.ctime_nsec() {
        fs::write(&path, &bytes).unwrap();
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(before.modified().unwrap())
            .unwrap();
    }
    let after = path.metadata().unwrap();
    assert_eq!(
        (after.len(), after.mtime_nsec(), after.ino()),
        (before.len(), before.mtime_nsec(), before.ino())
    );
    assert!(package.changed_since_open());
    assert_ne!(Package::open(scratch.path()).unwrap().digest(Some(cache.path())).unwrap(), digest);
}

#[test]
fn a_tokenizer_that_the_library_panics_at_is_malformed() {
    let scratch = copy_of("bert-mean");
    // The second half of a merge is shorter than the prefix that is to be cut off it.
    let tokenizer = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "continuing_subword_prefix": "@@@@", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#;
    scratch.write("tokenizer.json", tokenizer);
    let package = Package::open(scratch.path()).unwrap();
    let opened = imgvec_encoder::text::TextEncoder::open(package.text.as_deref().unwrap());
    assert_matches!(
        opened.map(|_| ()),
        Err(PackageError::Malformed { source: MalformedFile::Tokenizer(_), .. })
    );
}

#[test]
fn links_are_followed_within_the_model_path_only() {
    let (models, elsewhere) = (Scratch::new(), Scratch::new());
    let root = [models.path().to_owned()];
    copy(&data().join("clip-external"), &models.path().join("clip"));
    copy(&data().join("clip-external"), &elsewhere.path().join("clip"));
    assert!(Package::find(&root, "clip").is_ok());

    // Each file in turn is a link out of the model path; then a directory above it.
    let files = [
        "config.json",
        "preprocessor_config.json",
        "tokenizer.json",
        "onnx/text_model.onnx",
        "onnx/text_model.onnx_data",
        "onnx",
    ];
    for file in files {
        let (path, kept) = (models.path().join("clip").join(file), models.path().join("kept"));
        fs::rename(&path, &kept).unwrap();
        symlink(elsewhere.path().join("clip").join(file), &path).unwrap();
        assert_matches!(Package::find(&root, "clip"), Err(PackageError::Outside { path }) if path.starts_with(models.path()));
        // Allowed where the model path says so.
        let both = [root[0].clone(), elsewhere.path().to_owned()];
        assert!(Package::find(&both, "clip").is_ok(), "{file}");
        fs::remove_file(&path).unwrap();
        // A link to another place within is nobody's harm.
        symlink(&kept, &path).unwrap();
        assert!(Package::find(&root, "clip").is_ok(), "{file}");
        fs::remove_file(&path).unwrap();
        fs::rename(&kept, &path).unwrap();
    }

    // The package itself, an owner of packages, and names in imgvec.toml.
    symlink(elsewhere.path().join("clip"), models.path().join("linked")).unwrap();
    symlink(elsewhere.path(), models.path().join("owner")).unwrap();
    assert_matches!(Package::find(&root, "linked"), Err(PackageError::Outside { .. }));
    assert_matches!(Package::find(&root, "owner/clip"), Err(PackageError::Outside { .. }));
    let absolute = elsewhere.path().join("clip/tokenizer.json");
    for tokenizer in [absolute.to_str().unwrap(), "../../../../../../../../../etc/passwd", "/dev/zero"] {
        fs::write(models.path().join("clip/imgvec.toml"), format!("[text]\ntokenizer = {tokenizer:?}"))
            .unwrap();
        assert_matches!(Package::find(&root, "clip"), Err(PackageError::Outside { .. }));
    }
    let listed = Package::list(&root);
    let states: Vec<_> = listed.iter().map(|listed| (&*listed.name, listed.package.is_ok())).collect();
    assert_eq!(states, [("clip", false), ("linked", false)]);
}

#[test]
fn the_cache_of_hugging_face_works_as_it_is() {
    let hub = Scratch::new();
    let snapshots = hub.path().join("models--openai--clip/snapshots");
    let blobs = hub.path().join("models--openai--clip/blobs");
    copy(&data().join("clip-external"), &snapshots.join("0a1b"));
    fs::create_dir_all(&blobs).unwrap();
    let mut count = 0;
    for (dir, up) in [("", "../../blobs"), ("onnx", "../../../blobs")] {
        for entry in fs::read_dir(snapshots.join("0a1b").join(dir)).unwrap().flatten() {
            if entry.path().is_file() {
                count += 1;
                fs::rename(entry.path(), blobs.join(format!("hash{count}"))).unwrap();
                symlink(format!("{up}/hash{count}"), entry.path()).unwrap();
            }
        }
    }
    assert!(count > 6);
    // By the directory of revisions, by the whole cache through a link, and by the revision alone.
    let by_revision = Package::find(std::slice::from_ref(&snapshots), "0a1b").unwrap();
    symlink(snapshots.join("0a1b"), hub.path().join("clip")).unwrap();
    let by_link = Package::find(&[hub.path().to_owned()], "clip").unwrap();
    let alone = Package::open(&snapshots.join("0a1b")).unwrap();
    let expected = Package::open(&data().join("clip-external")).unwrap().digest(None).unwrap();
    for package in [by_revision, by_link, alone] {
        assert_eq!(package.digest(None).unwrap(), expected);
        if onnx_runtime("the_cache_of_hugging_face_works_as_it_is") {
            let mut linked = Encoder::open(package, options()).unwrap();
            let texts = ["a dog", "two cats"];
            let reference = encoder(&data().join("clip-external")).embed_texts(&texts).unwrap();
            assert_eq!(linked.embed_texts(&texts).unwrap(), reference);
        }
    }
    // Only the blobs are allowed beside the snapshots.
    fs::write(hub.path().join("models--openai--clip/secret"), "{}").unwrap();
    fs::remove_file(snapshots.join("0a1b/config.json")).unwrap();
    symlink("../../secret", snapshots.join("0a1b/config.json")).unwrap();
    assert_matches!(Package::find(&[snapshots], "0a1b"), Err(PackageError::Outside { .. }));
}

#[test]
fn only_regular_files_are_opened() {
    // Opening a pipe would wait for a writer for ever; a socket cannot be opened.
    for file in
        ["config.json", "tokenizer.json", "onnx/text_model.onnx", "onnx/text_model.onnx_data", "README.md"]
    {
        let scratch = copy_of("clip-external");
        let path = scratch.path().join(file);
        let _ = fs::remove_file(&path);
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        match Package::open(scratch.path()) {
            // The model card decides nothing.
            Ok(package) => assert!(file == "README.md" && package.license.is_none(), "{file}"),
            Err(PackageError::Unreadable { path: found, .. }) => assert_eq!(found, path),
            other => panic!("{file}: {other:?}"),
        }
        fs::remove_file(&path).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        if file != "README.md" {
            assert_matches!(error(&scratch), PackageError::Unreadable { .. });
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        if file != "README.md" {
            assert_matches!(error(&scratch), PackageError::Unreadable { .. });
        }
    }
    // A file that claims more than any model has is not read through for its digest.
    let scratch = copy_of("clip-external");
    let data =
        fs::File::options().write(true).open(scratch.path().join("onnx/text_model.onnx_data")).unwrap();
    data.set_len(1 << 40).unwrap();
    assert_matches!(error(&scratch), PackageError::Malformed { source: MalformedFile::TooLarge { .. }, .. });
}

#[test]
fn unreadable_files_are_told_from_missing_ones() {
    let scratch = copy_of("clip");
    let config = scratch.path().join("config.json");
    fs::remove_file(&config).unwrap();
    // A directory in place of a file, and a link to itself, are unreadable even for root.
    symlink(&config, &config).unwrap();
    assert_matches!(error(&scratch), PackageError::Unreadable { path, .. } if path == config);
}

#[test]
fn malformed_json_is_named_with_its_place() {
    for file in ["config.json", "preprocessor_config.json", "tokenizer_config.json"] {
        let scratch = copy_of("clip");
        scratch.write(file, "{\"a\": 1,\n]");
        assert_matches!(error(&scratch), PackageError::Malformed { path, source: MalformedFile::Json(error) }
            if path.ends_with(file) && error.line() == 2);
    }
    let scratch = copy_of("clip");
    scratch.write("config.json", [0xff, 0xfe]);
    assert_matches!(error(&scratch), PackageError::Malformed { source: MalformedFile::NotUtf8, .. });
    scratch.write("config.json", vec![b' '; 9 << 20]);
    assert_matches!(error(&scratch), PackageError::Malformed { source: MalformedFile::TooLarge { .. }, .. });
}

#[test]
fn preprocessing_that_is_not_known_is_refused() {
    let scratch = copy_of("clip");
    scratch.write("preprocessor_config.json", r#"{"image_processor_type": "OneFormerImageProcessor"}"#);
    assert_matches!(error(&scratch), PackageError::Malformed { source: MalformedFile::Preprocessing(_), .. });
}

#[test]
fn typing_errors_in_the_toml_are_errors() {
    for (toml, word) in [
        ("normalise = true", "normalise"),
        ("[text]\nmax_lenght = 5", "max_lenght"),
        ("[image]\npooling = \"average\"", "average"),
        ("family = \"clap\"", "clap"),
        ("precision = 8", "precision"),
        ("[text", "text"),
    ] {
        let scratch = copy_of("clip");
        scratch.write("imgvec.toml", toml);
        assert_matches!(error(&scratch), PackageError::Malformed { path, source: MalformedFile::Toml(error) }
            if path.ends_with("imgvec.toml") && error.to_string().contains(word));
    }
    for (toml, wanted) in [
        ("truncate_dims = 0", "truncate_dims"),
        ("truncate_dims = 13", "truncate_dims"),
        ("[text]\nmax_length = 1", "text.max_length"),
        ("[classification]\ntemperature = -1.0", "classification.temperature"),
        ("[classification]\ntemperature = 0.1\nscale = 2.0", "classification.temperature"),
        ("[classification]\ntemplates = [\"a photo\"]", "classification.templates"),
    ] {
        let scratch = copy_of("clip");
        scratch.write("imgvec.toml", toml);
        assert_matches!(error(&scratch), PackageError::Malformed {
            source: MalformedFile::Setting { setting, .. }, ..
        } if setting == wanted);
    }
}

#[test]
fn inputs_that_cannot_be_fed_are_listed() {
    for (name, element, shape) in
        [("spatial_shapes", I64, &[-1, 2][..]), ("past_key", F32, &[-1, 2, 4]), ("label", STRING, &[-1])]
    {
        let scratch = copy_of("dinov2");
        let graph = GraphBuilder::new()
            .input("pixel_values", F32, &[-1, 3, -1, -1])
            .input(name, element, shape)
            .output("pooler_output", F32, &[-1, 16]);
        scratch.write("onnx/model.onnx", graph.finish());
        assert_matches!(error(&scratch), PackageError::UnsupportedInputs { inputs, unsupported, .. }
            if inputs.len() == 2 && unsupported == [name]);
    }
    // A gray picture is no color picture.
    let scratch = copy_of("dinov2");
    let graph = GraphBuilder::new().input("x", F32, &[-1, 1, 28, 28]).output("y", F32, &[-1, 16]);
    scratch.write("onnx/model.onnx", graph.finish());
    assert_matches!(error(&scratch), PackageError::UnsupportedInputs { .. });
}

#[test]
fn outputs_that_are_not_there_are_listed() {
    let scratch = copy_of("clip");
    scratch.write("imgvec.toml", "[text]\noutput = \"sentence\"");
    assert_matches!(error(&scratch), PackageError::NoOutput { wanted: Some(wanted), outputs, .. }
        if wanted == "sentence" && outputs.len() == 2 && outputs[0].name == "text_embeds");
    let scratch = copy_of("dinov2");
    let graph =
        GraphBuilder::new().input("pixel_values", F32, &[-1, 3, 28, 28]).output("classes", I64, &[-1]);
    scratch.write("onnx/model.onnx", graph.finish());
    assert_matches!(error(&scratch), PackageError::NoOutput { wanted: None, .. });
    // The type is told, also where the output was asked for.
    for (element, name) in [(7, "int64"), (11, "float64"), (16, "bfloat16"), (9, "bool")] {
        let graph =
            GraphBuilder::new().input("pixel_values", F32, &[-1, 3, 28, 28]).output("y", element, &[-1, 4]);
        scratch.write("onnx/model.onnx", graph.finish());
        scratch.write("imgvec.toml", "[image]\noutput = \"y\"");
        assert_matches!(error(&scratch), PackageError::NoOutput { outputs, .. } if outputs[0].element.name() == name);
    }
}

#[test]
fn towers_of_different_models_do_not_fit() {
    let scratch = copy_of("clip");
    scratch.write("onnx/text_model.onnx", text_tower(10, 8, |_| 1.0, |graph| graph));
    assert_matches!(error(&scratch), PackageError::TowersDiffer { image: 12, text: 8 });
}

#[test]
fn a_graph_of_one_size_and_preprocessing_of_another_do_not_fit() {
    let scratch = copy_of("dinov2");
    let graph = GraphBuilder::new().input("pixel_values", F32, &[1, 3, 32, 48]).output("y", F32, &[1, 16]);
    scratch.write("onnx/model.onnx", graph.finish());
    assert_matches!(
        error(&scratch),
        PackageError::ImageSizeDiffers { graph: (48, 32), preprocessing: (28, 28), .. }
    );
}

#[test]
fn sentence_encoders_with_unknown_parts_are_refused() {
    let scratch = copy_of("bert-mean");
    scratch.write(
        "1_Pooling/config.json",
        r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#,
    );
    assert_matches!(error(&scratch), PackageError::Unsupported { feature: Unsupported::Pooling(mode), .. }
        if mode == "cls_token+mean_tokens");
    // A module that is not known, and a dense layer of token vectors.
    for (modules, kind) in [
        (
            r#"[{"type": "sentence_transformers.models.Pooling"}, {"type": "sentence_transformers.models.CNN"}]"#,
            "CNN",
        ),
        (r#"[{"type": "sentence_transformers.models.Dense"}]"#, "Dense"),
    ] {
        let scratch = copy_of("bert-mean");
        scratch.write("modules.json", modules);
        assert_matches!(error(&scratch), PackageError::Unsupported { feature: Unsupported::Module(module), .. }
            if module == kind);
    }
}

/// The error of `bert-dense` after a change.
fn error_of_dense(change: impl FnOnce(&Scratch)) -> PackageError {
    let scratch = copy_of("bert-dense");
    change(&scratch);
    error(&scratch)
}

#[test]
fn layers_behind_the_pooling_must_fit() {
    let package = Package::open(&data().join("bert-dense")).unwrap();
    let tower = package.text.as_ref().unwrap();
    assert_eq!((package.dim, tower.output.dim, tower.modules.len()), (Some(12), Some(16), 4));
    let config = |inputs: usize, outputs: usize, activation: &str| {
        format!(
            r#"{{"in_features": {inputs}, "out_features": {outputs}, "bias": true, "activation_function": "{activation}"}}"#
        )
    };
    let tanh = "torch.nn.modules.activation.Tanh";
    let written =
        |content: String| error_of_dense(|scratch| drop(scratch.write("2_Dense/config.json", content)));
    assert_matches!(written(config(16, 24, "torch.nn.modules.activation.Mish")),
        PackageError::Unsupported { feature: Unsupported::Activation(name), .. } if name.ends_with("Mish"));
    assert_matches!(written(config(8, 24, tanh)), PackageError::Malformed { .. });
    // The tensor has another shape than the configuration, and then the next layer takes another number.
    assert_matches!(written(config(16, 20, tanh)),
        PackageError::Malformed { path, source: MalformedFile::Weights(reason) }
            if path.ends_with("2_Dense/model.safetensors") && reason.contains("[24, 16]"));
    assert_matches!(
        written("{}".to_owned()),
        PackageError::Malformed { source: MalformedFile::Setting { setting: "in_features", .. }, .. }
    );
    for width in ["0", "-1", "65537", "1e300", "\"16\"", "18446744073709551616"] {
        let content = format!(r#"{{"in_features": {width}, "out_features": 24}}"#);
        assert_matches!(
            written(content),
            PackageError::Malformed { source: MalformedFile::Setting { setting: "in_features", .. }, .. }
        );
    }
    let of_tokens = config(16, 24, tanh).replace("{", r#"{"module_input_name": "token_embeddings", "#);
    assert_matches!(
        written(of_tokens),
        PackageError::Unsupported { feature: Unsupported::ModuleInput(_), .. }
    );
    let narrower = error_of_dense(|scratch| {
        for (from, to) in [("5_Dense", "2_Dense")] {
            for file in ["config.json", "model.safetensors"] {
                fs::copy(scratch.path().join(from).join(file), scratch.path().join(to).join(file)).unwrap();
            }
        }
    });
    assert_matches!(
        narrower,
        PackageError::Malformed { source: MalformedFile::Width { expected: 16, found: 24 }, .. }
    );
    let missing = |file: &'static str| {
        error_of_dense(move |scratch| fs::remove_file(scratch.path().join(file)).unwrap())
    };
    assert_matches!(missing("2_Dense/config.json"), PackageError::Missing { role: FileRole::Config, .. });
    assert_matches!(
        missing("2_Dense/model.safetensors"),
        PackageError::Missing { role: FileRole::Weights, .. }
    );
    let pickled = error_of_dense(|scratch| {
        let dir = scratch.path().join("2_Dense");
        fs::rename(dir.join("model.safetensors"), dir.join("pytorch_model.bin")).unwrap();
    });
    assert_matches!(pickled, PackageError::Unsupported { feature: Unsupported::Pickle, path } if path.ends_with("pytorch_model.bin"));
    let many = error_of_dense(|scratch| {
        let entry = r#"{"type": "sentence_transformers.models.Normalize", "path": ""}"#;
        let pooling = r#"{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}"#;
        scratch.write("modules.json", format!("[{pooling}, {}]", [entry; 17].join(", ")));
    });
    assert_matches!(
        many,
        PackageError::Malformed { source: MalformedFile::Setting { setting: "modules", .. }, .. }
    );
    // A path out of the package.
    let outside = error_of_dense(|scratch| {
        let modules = fs::read_to_string(scratch.path().join("modules.json")).unwrap();
        scratch.write("modules.json", modules.replace("2_Dense", "../../../../../../../../../../etc"));
    });
    assert_matches!(outside, PackageError::Missing { .. } | PackageError::Outside { .. });
}

#[test]
fn weights_cut_short_or_bent_are_errors_and_never_a_panic() {
    let scratch = copy_of("bert-dense");
    let path = scratch.path().join("2_Dense/model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        fs::write(&path, &whole[..length]).unwrap();
        assert_matches!(error(&scratch), PackageError::Truncated { path: found, .. } if found == path);
    }
    // A header that claims everything.
    for length in [u64::MAX, 1 << 40, (1 << 20) + 1] {
        fs::write(&path, [&length.to_le_bytes(), &whole[8..]].concat()).unwrap();
        assert_matches!(error(&scratch), PackageError::Malformed { source: MalformedFile::Weights(_), .. });
    }
    let header = |json: &str, data: usize| {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let tensors = |dtype: &str, weight: &str, offsets: [usize; 4]| {
        format!(
            r#"{{"linear.weight": {{"dtype": "{dtype}", "shape": {weight}, "data_offsets": [{}, {}]}},
                "linear.bias": {{"dtype": "F32", "shape": [24], "data_offsets": [{}, {}]}}}}"#,
            offsets[0], offsets[1], offsets[2], offsets[3]
        )
    };
    for json in [
        "[]".to_owned(),
        "{".to_owned(),
        r#"{"linear.bias": {"dtype": "F32", "shape": [24], "data_offsets": [0, 96]}}"#.to_owned(),
        tensors("I8", "[24, 16]", [0, 384, 384, 480]),
        tensors("F64", "[24, 16]", [0, 3072, 3072, 3168]),
        // Overlapping, backwards, overflowing.
        tensors("F32", "[24, 16]", [0, 1536, 1500, 1596]),
        tensors("F32", "[24, 16]", [1536, 0, 1536, 1632]),
        tensors("F32", "[4294967296, 4294967296]", [0, 1536, 1536, 1632]),
        tensors("F32", "[24, 16]", [0, 1536, 1536, 18_446_744_073_709_551_615]),
        "[".repeat(100_000),
    ] {
        fs::write(&path, header(&json, 4096)).unwrap();
        assert_matches!(error(&scratch), PackageError::Malformed { source: MalformedFile::Weights(_), .. });
    }
    // A fixed sequence of places and values; whatever opens also reads.
    let mut state = 54321_u64;
    for _ in 0..2000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut bytes = whole.clone();
        bytes[(state >> 33) as usize % 300] = (state >> 24) as u8;
        fs::write(&path, &bytes).unwrap();
        if let Ok(package) = Package::open(scratch.path()) {
            let tower = package.text.unwrap();
            let weights = tower.modules.iter().flat_map(|module| module.weights());
            assert!(weights.map(|weights| weights.read(never_interrupted)).all(|read| read.is_ok()));
        }
    }
}

#[test]
fn weights_that_change_after_the_package_was_opened_are_told() {
    let scratch = copy_of("bert-dense");
    let package = Package::open(scratch.path()).unwrap();
    let digest = package.digest(None).unwrap();
    let path = scratch.path().join("2_Dense/model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(package.changed_since_open());
    assert_ne!(Package::open(scratch.path()).unwrap().digest(None).unwrap(), digest);
    fs::write(&path, &bytes[..last]).unwrap();
    let tower = package.text.unwrap();
    let read: Vec<_> = tower
        .modules
        .iter()
        .flat_map(|module| module.weights())
        .map(|weights| weights.read(never_interrupted))
        .collect();
    assert!(read.iter().any(|read| matches!(read, Err(PackageError::Truncated { .. }))), "{read:?}");
    let stopped =
        tower.modules.iter().flat_map(|module| module.weights()).last().unwrap().read(|| true).unwrap();
    assert_eq!(stopped, None);
}

#[test]
fn an_output_that_holds_the_layers_is_not_treated_twice() {
    // The graph of `bert-dense` beside an output of whole embeddings: these are taken, and as they are.
    let scratch = copy_of("bert-dense");
    let table: Vec<f32> = (0..200 * 12).map(|index| (index % 7) as f32 - 3.0).collect();
    let graph = GraphBuilder::new()
        .input("input_ids", I64, &[-1, -1])
        .output("token_embeddings", F32, &[-1, -1, 12])
        .output("sentence_embedding", F32, &[-1, 12])
        .floats("table", &[200, 12], &table)
        .node("Gather", &["table", "input_ids"], "token_embeddings")
        .node_with(
            "ReduceMean",
            &["token_embeddings"],
            "sentence_embedding",
            &[("axes", &[1]), ("keepdims", &[0])],
        );
    scratch.write("onnx/model.onnx", graph.finish());
    let package = Package::open(scratch.path()).unwrap();
    let tower = package.text.as_ref().unwrap();
    assert_eq!((&*tower.output.name, tower.modules.len(), package.dim), ("sentence_embedding", 0, Some(12)));
    if onnx_runtime("an_output_that_holds_the_layers_is_not_treated_twice") {
        let mut encoder = Encoder::open(package, options()).unwrap();
        let ids = encoder.token_ids(&["a dog"]).unwrap();
        let sum = |dim: usize| ids[0].ids.iter().map(|&id| table[id as usize * 12 + dim]).sum::<f32>();
        let expected: Vec<f32> = (0..12).map(sum).collect();
        let found = encoder.embed_texts(&["a dog"]).unwrap();
        assert!(model_support::cosine(&found[0], &expected) > 0.999_999);
    }
}

#[test]
fn precision_is_fp32_unless_the_toml_chooses() {
    let scratch = copy_of("clip");
    for tower in ["vision_model", "text_model"] {
        let (from, to) = (format!("onnx/{tower}_quantized.onnx"), format!("onnx/{tower}_int8.onnx"));
        fs::copy(data().join("clip-int8").join(from), scratch.path().join(to)).unwrap();
    }
    let plain = Package::open(scratch.path()).unwrap();
    assert_eq!(plain.precision, Precision::Fp32);
    scratch.write("imgvec.toml", "precision = \"int8\"");
    let quantized = Package::open(scratch.path()).unwrap();
    assert_eq!(quantized.precision, Precision::Int8);
    assert!(quantized.image.unwrap().graph.outline.dynamic_quantization);
    scratch.write("imgvec.toml", "precision = \"q4\"");
    assert_matches!(error(&scratch), PackageError::NoSuchPrecision { wanted: Precision::Q4, found, .. }
        if found == [Precision::Fp32, Precision::Int8]);
    assert_eq!(Package::open(&data().join("clip-fp16io")).unwrap().precision, Precision::Fp16);
}

#[test]
fn the_toml_overrules_what_the_files_say() {
    let scratch = copy_of("siglip");
    scratch.write(
        "imgvec.toml",
        r#"
        license = "MIT"
        truncate_dims = 4
        [image]
        output = "last_hidden_state"
        pooling = "mean"
        [image.preprocessing]
        image_mean = [0.1, 0.2, 0.3]
        [text]
        padding = "longest"
        max_length = 9
        prompt = "query: "
        [classification]
        templates = ["{}", "a {}"]
        temperature = 0.5
        "#,
    );
    let package = Package::open(scratch.path()).unwrap();
    assert_eq!((package.license.as_deref(), package.dim), (Some("MIT"), Some(4)));
    assert_eq!(package.classification.scoring, Scoring::Softmax { temperature: 0.5 });
    assert_eq!(package.classification.prompts("dog"), ["dog", "a dog"]);
    let image = package.image.unwrap();
    assert_eq!(image.output.name, "last_hidden_state");
    assert_eq!(image.preprocessing().unwrap().normalization.mean, [0.1, 0.2, 0.3]);
    let text = package.text.unwrap();
    assert_eq!((text.max_length, text.padding, &*text.prompt), (9, Padding::Longest, "query: "));
}

#[test]
fn the_license_is_read_from_the_model_card() {
    let scratch = copy_of("dinov2");
    scratch.write("README.md", "---\ntags:\n- x\nlicense: apache-2.0\n---\nlicense: no\n");
    assert_eq!(Package::open(scratch.path()).unwrap().license.as_deref(), Some("apache-2.0"));
    scratch.write("README.md", "license: mit\n");
    assert_eq!(Package::open(scratch.path()).unwrap().license, None);
}

#[test]
fn packages_of_immich_and_open_clip_are_read() {
    let scratch = Scratch::new();
    let clip = data().join("clip");
    scratch.write(
        "config.json",
        r#"{"embed_dim": 12, "vision_cfg": {"image_size": 30}, "text_cfg": {"context_length": 20}}"#,
    );
    scratch.write("visual/model.onnx", fs::read(clip.join("onnx/vision_model.onnx")).unwrap());
    scratch.write(
        "visual/preprocess_cfg.json",
        r#"{"size": [30, 30], "mode": "RGB", "interpolation": "bicubic", "resize_mode": "shortest"}"#,
    );
    scratch.write("textual/model.onnx", fs::read(clip.join("onnx/text_model.onnx")).unwrap());
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        scratch.write(&format!("textual/{file}"), fs::read(clip.join(file)).unwrap());
    }
    let package = Package::open(scratch.path()).unwrap();
    assert_eq!((package.family.name(), package.dim), ("open_clip", Some(12)));
    let text = package.text.unwrap();
    assert_eq!((text.max_length, text.padding, text.pad_id), (20, Padding::Longest, Some(0)));

    // Towers that look at all positions need the padding that they were trained with.
    for (config, family) in [
        (r#"{"embed_dim": 12, "vision_cfg": {}, "text_cfg": {"no_causal_mask": true}}"#, "open_clip"),
        (
            r#"{"embed_dim": 12, "vision_cfg": {"timm_model_name": "fastvit_mci2"}, "text_cfg": {}}"#,
            "mobile_clip",
        ),
        (
            r#"{"embed_dim": 12, "init_logit_bias": -10, "vision_cfg": {}, "text_cfg": {"context_length": 77}}"#,
            "siglip",
        ),
    ] {
        scratch.write("config.json", config);
        let package = Package::open(scratch.path()).unwrap();
        assert_eq!(package.family.name(), family);
        assert_eq!(package.text.unwrap().padding, Padding::Fixed(77), "{config}");
    }
}

#[test]
fn packages_are_found_by_name_in_order_and_nowhere_else() {
    let scratch = Scratch::new();
    let (first, second) = (scratch.path().join("first"), scratch.path().join("second"));
    copy(&data().join("dinov2"), &first.join("dinov2"));
    copy(&data().join("clip"), &second.join("openai/clip-vit"));
    copy(&data().join("clip"), &second.join("dinov2"));
    fs::create_dir_all(second.join("broken/onnx")).unwrap();
    let model_path = [first.clone(), PathBuf::from("/nowhere"), second.clone()];

    assert_eq!(Package::find(&model_path, "dinov2").unwrap().dir, first.join("dinov2"));
    let package = Package::find(&model_path, "openai/clip-vit").unwrap();
    assert_eq!((&*package.name, package.dir), ("openai/clip-vit", second.join("openai/clip-vit")));
    assert_matches!(Package::find(&model_path, "clip-vlt"), Err(PackageError::NotFound { searched, similar, .. })
        if searched == model_path && similar == ["openai/clip-vit"]);
    for name in ["../second/dinov2", "/etc", "openai/../../x", "", ".", "a\0b"] {
        assert_matches!(Package::find(&model_path, name), Err(PackageError::InvalidName { .. }));
    }

    let listed = Package::list(&model_path);
    let names: Vec<_> = listed.iter().map(|listed| (&*listed.name, listed.package.is_ok())).collect();
    assert_eq!(names, [("dinov2", true), ("broken", false), ("openai/clip-vit", true)]);
}

#[test]
fn the_digest_follows_content_and_not_place_or_time() {
    let (one, other) = (copy_of("clip-external"), copy_of("clip-external"));
    let cache = Scratch::new();
    let digest =
        |scratch: &Scratch| Package::open(scratch.path()).unwrap().digest(Some(cache.path())).unwrap();
    let before = digest(&one);
    assert_eq!(before, digest(&other));
    assert_eq!(before, Package::open(one.path()).unwrap().digest(None).unwrap());
    assert_eq!(before.to_string().len(), 64);
    // A graph of a precision that is not used, and the model card, decide nothing.
    one.write("README.md", "words");
    one.write("onnx/text_model_fp16.onnx", "anything");
    assert_eq!(before, digest(&one));

    // Whatever changes a byte is seen, also if the time of change is set back.
    let weights = other.path().join("onnx/text_model.onnx_data");
    let mut bytes = fs::read(&weights).unwrap();
    bytes[100] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    assert_ne!(before, digest(&other));
    bytes[100] ^= 1;
    fs::write(&weights, &bytes).unwrap();
    assert_eq!(before, digest(&other));

    // What was hashed is not read again: a remembered hash decides, right or wrong.
    let remembered = fs::read_dir(cache.path().join("digests")).unwrap().map(|entry| entry.unwrap().path());
    for path in remembered {
        let text = fs::read_to_string(&path).unwrap();
        let hash = text.split('"').find(|part| part.len() == 64).unwrap();
        fs::write(&path, text.replace(hash, &"0".repeat(64))).unwrap();
    }
    assert_ne!(before, digest(&other));
    assert_eq!(before, Package::open(other.path()).unwrap().digest(None).unwrap());
}

#[test]
fn changes_to_a_package_are_noticed() {
    for change in ["config.json", "onnx/text_model.onnx", "imgvec.toml"] {
        let scratch = copy_of("clip");
        let package = Package::open(scratch.path()).unwrap();
        assert!(!package.changed_since_open());
        scratch.write(change, "{}");
        assert!(package.changed_since_open(), "{change}");
    }
    let scratch = copy_of("clip");
    let package = Package::open(scratch.path()).unwrap();
    fs::remove_file(scratch.path().join("tokenizer.json")).unwrap();
    assert!(package.changed_since_open());
}

#[test]
fn garbage_in_place_of_a_tokenizer_is_an_error_of_that_file() {
    if !onnx_runtime("garbage_in_place_of_a_tokenizer_is_an_error_of_that_file") {
        return;
    }
    for garbage in ["", "{}", "not json", r#"{"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}"#] {
        let scratch = copy_of("clip");
        let path = scratch.write("tokenizer.json", garbage);
        assert_matches!(encoder(scratch.path()).embed_texts(&["dog"]), Err(EncodeError::Package(
            PackageError::Malformed { path: found, source: MalformedFile::Tokenizer(_) })) if found == path);
    }
}

#[test]
fn a_tokenizer_of_another_model_is_recognized() {
    if !onnx_runtime("a_tokenizer_of_another_model_is_recognized") {
        return;
    }
    // Known from the configuration: before anything runs.
    let scratch = copy_of("bert-mean");
    let words: Vec<String> = (0..500).map(|number| format!("w{number}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    scratch.write("tokenizer.json", word_tokenizer(&words));
    let failure = encoder(scratch.path()).embed_texts(&["w1", "w499"]).unwrap_err();
    assert_matches!(
        failure,
        EncodeError::Text { index: 1, source: imgvec_encoder::text::TextError::IdOutOfRange { id: 499, .. } }
    );

    // Not known: ONNX Runtime's answer is understood.
    let scratch = Scratch::new();
    scratch.write("tokenizer.json", word_tokenizer(&words));
    scratch.write(
        "text_model.onnx",
        text_tower(10, 4, |place| place as f32, |graph| graph.node("Identity", &["looked_up"], "worked")),
    );
    let mut encoder = encoder(scratch.path());
    assert_matches!(encoder.embed_texts(&["w499"]), Err(EncodeError::TokenizerMismatch { .. }));
    assert_eq!(encoder.embed_texts(&["w1"]).unwrap()[0].len(), 4);
}

#[test]
fn graphs_that_do_not_load_or_give_nonsense_are_errors() {
    if !onnx_runtime("graphs_that_do_not_load_or_give_nonsense_are_errors") {
        return;
    }
    let scratch = Scratch::new();
    scratch.write("tokenizer.json", word_tokenizer(&["a", "dog"]));
    let try_with = |graph: Vec<u8>| {
        scratch.write("text_model.onnx", graph);
        encoder(scratch.path()).embed_texts(&["dog"])
    };
    let plain = |values: fn(usize) -> f32| {
        text_tower(2, 4, values, |graph| graph.node("Identity", &["looked_up"], "worked"))
    };
    assert_eq!(try_with(plain(|place| place as f32)).unwrap()[0].len(), 4);
    assert_matches!(try_with(plain(|_| f32::NAN)), Err(EncodeError::Flawed { .. }));
    assert_matches!(try_with(plain(|_| 0.0)), Err(EncodeError::Flawed { .. }));
    let unknown = text_tower(2, 4, |_| 1.0, |graph| graph.node("NoSuchOperator", &["looked_up"], "worked"));
    assert_matches!(try_with(unknown), Err(EncodeError::Load { .. }));
    let disagrees = GraphBuilder::new()
        .input("input_ids", I64, &[-1, -1])
        .output("text_embeds", F32, &[-1, -1])
        .node_with("Cast", &["input_ids"], "text_embeds", &[("to", &[1])]);
    scratch.write("config.json", r#"{"model_type": "clip", "projection_dim": 12}"#);
    assert_matches!(
        try_with(disagrees.finish()),
        Err(EncodeError::Dimensions { expected: 12, found: 1, .. })
    );
}

/// A model path with copies of packages from `data` and one more, `pair`, of this `imgvec.toml`.
fn model_path_with_pair(packages: &[&str], toml: &str) -> (Scratch, [PathBuf; 1]) {
    let models = Scratch::new();
    for package in packages {
        copy(&data().join(package), &models.path().join(package));
    }
    models.write("pair/imgvec.toml", toml);
    let root = [models.path().to_owned()];
    (models, root)
}

/// The tower of texts of one package and that of pictures of another.
const PAIR: &str = "[image]\npackage = \"clip\"\n[text]\npackage = \"bert-dense\"";

#[test]
fn two_halves_make_one_model() {
    let (models, root) = model_path_with_pair(&["clip", "bert-dense"], PAIR);
    let pair = Package::find(&root, "pair").unwrap();
    assert_eq!((pair.family, pair.dim, pair.modalities.len()), (Family::Clip, Some(12), 2));
    let lenders: Vec<_> = pair.lenders().map(|(modality, lender)| (modality, &*lender.name)).collect();
    assert_eq!(lenders, [(Modality::Image, "clip"), (Modality::Text, "bert-dense")]);
    assert_eq!(pair.graphs().len(), 2);
    // Beside each other, packages are found without a model path, too.
    assert_eq!(Package::open(&models.path().join("pair")).unwrap().dim, Some(12));
    let listed = Package::list(&root);
    assert_eq!(listed.iter().filter(|listed| listed.package.is_ok()).count(), 3);
    if onnx_runtime("two_halves_make_one_model") {
        let cache = Scratch::new();
        let picture = fs::read(data().join("pictures/wide.png")).unwrap();
        let mut options = options();
        options.cache_dir = Some(cache.path().to_owned());
        let mut encoder = Encoder::open(pair, options.clone()).unwrap();
        let alone = |name: &str| Encoder::open(Package::find(&root, name).unwrap(), options.clone()).unwrap();
        let (image, text) =
            (encoder.embed_images(&[&picture]).unwrap(), encoder.embed_texts(&["a dog"]).unwrap());
        assert_eq!(image, alone("clip").embed_images(&[&picture]).unwrap());
        assert_eq!(text, alone("bert-dense").embed_texts(&["a dog"]).unwrap());
        assert_eq!(encoder.loaded().len(), 2);
        // What was prepared belongs to the packages that have the graphs, and serves them as well.
        let sources: std::collections::BTreeSet<String> = fs::read_dir(cache.path().join("prepared"))
            .into_iter()
            .flatten()
            .map(|entry| fs::read_to_string(entry.unwrap().path().join("source")).unwrap())
            .collect();
        assert!(sources.iter().all(|source| !source.trim().ends_with("pair")), "{sources:?}");
    }
}

#[test]
fn the_digest_of_two_halves_follows_both_and_not_their_names() {
    let (models, root) = model_path_with_pair(&["clip", "bert-dense"], PAIR);
    let digest = |name: &str| Package::find(&root, name).unwrap().digest(None).unwrap();
    let first = digest("pair");
    assert!(first != digest("clip") && first != digest("bert-dense"));
    let pair = Package::find(&root, "pair").unwrap();
    fs::rename(models.path().join("clip"), models.path().join("other")).unwrap();
    assert!(pair.changed_since_open());
    assert_matches!(Package::find(&root, "pair"), Err(PackageError::Half { modality: Modality::Image, source, .. })
        if matches!(*source, PackageError::NotFound { .. }));
    models.write("pair/imgvec.toml", PAIR.replace("clip", "other"));
    let renamed = Package::find(&root, "pair").unwrap();
    // The file of the pair is part of it; the lender's name is not.
    assert_eq!(renamed.owner_of(Modality::Image).digest(None).unwrap(), digest("other"));
    for (package, file) in [("other", "config.json"), ("bert-dense", "2_Dense/model.safetensors")] {
        let before = Package::find(&root, "pair").unwrap();
        let digest = before.digest(None).unwrap();
        let path = models.path().join(package).join(file);
        let mut bytes = fs::read(&path).unwrap();
        if file.ends_with("json") {
            bytes.push(b'\n')
        } else {
            *bytes.last_mut().unwrap() ^= 1
        }
        fs::write(&path, bytes).unwrap();
        assert!(before.changed_since_open(), "{package}");
        assert_ne!(Package::find(&root, "pair").unwrap().digest(None).unwrap(), digest, "{package}");
    }
}

#[test]
fn one_tower_may_be_replaced() {
    let (models, root) = model_path_with_pair(&["clip", "bert-dense"], "");
    fs::write(models.path().join("clip/imgvec.toml"), "license = \"MIT\"\n[text]\npackage = \"bert-dense\"")
        .unwrap();
    let package = Package::find(&root, "clip").unwrap();
    assert_eq!(
        (package.family, package.license.as_deref(), package.dim),
        (Family::Clip, Some("MIT"), Some(12))
    );
    assert!(package.text.as_ref().unwrap().graph.path.starts_with(models.path().join("bert-dense")));
    assert!(package.image.as_ref().unwrap().graph.path.starts_with(models.path().join("clip")));
    // The half of a combined graph gets pictures of the size of its own package.
    let (_models, root) =
        model_path_with_pair(&["clip-combined", "clip"], &PAIR.replace("bert-dense", "clip-combined"));
    let package = Package::find(&root, "pair").unwrap();
    assert_eq!(package.text.as_ref().unwrap().picture_size, Some((30, 30)));
    if onnx_runtime("one_tower_may_be_replaced") {
        let found = Encoder::open(package, options()).unwrap().embed_texts(&["a dog"]).unwrap();
        assert_eq!(found, encoder(&data().join("clip-combined")).embed_texts(&["a dog"]).unwrap());
    }
}

#[test]
fn halves_that_do_not_fit_are_refused() {
    let half = |toml: &str| {
        let (_models, root) = model_path_with_pair(&["clip", "bert-dense", "bert-mean", "dinov2"], toml);
        Package::find(&root, "pair").expect_err("the halves do not fit")
    };
    assert_matches!(
        half(&PAIR.replace("bert-dense", "bert-mean")),
        PackageError::TowersDiffer { image: 12, text: 16 }
    );
    assert_matches!(half(&PAIR.replace("bert-dense", "dinov2")),
        PackageError::Half { modality: Modality::Text, source, .. } if matches!(*source, PackageError::NoHalf { .. }));
    for name in ["../clip", "/etc", "a/../../b", "", ".", "..", "clip/../clip", "pair/.."] {
        assert_matches!(half(&PAIR.replace("\"clip\"", &format!("{name:?}"))),
            PackageError::Half { source, .. } if matches!(*source, PackageError::InvalidName { .. }));
    }
    // A package that takes a tower of itself, or of one that takes one itself.
    assert_matches!(half(&PAIR.replace("\"clip\"", "\"pair\"")),
        PackageError::Half { source, .. } if matches!(&*source, PackageError::NestedHalf { package } if package == "pair"));
    let (models, root) = model_path_with_pair(&["clip", "bert-dense"], PAIR);
    models.write("second/imgvec.toml", PAIR.replace("\"clip\"", "\"pair\""));
    models.write("pair/imgvec.toml", PAIR.replace("\"clip\"", "\"second\""));
    for name in ["pair", "second"] {
        assert_matches!(Package::find(&root, name), Err(PackageError::Half { source, .. })
            if matches!(*source, PackageError::NestedHalf { .. }));
    }
    assert_eq!(Package::list(&root).iter().filter(|listed| listed.package.is_err()).count(), 2);
    for table in ["image", "text"] {
        let other = if table == "image" { "graph = \"a.onnx\"" } else { "prompt = \"a\"" };
        assert_matches!(half(&format!("[{table}]\npackage = \"clip\"\n{other}")),
            PackageError::Malformed { source: MalformedFile::Setting { setting, .. }, .. }
                if setting.starts_with(table) && setting.ends_with(".package"));
    }
    // What is wrong with a half is said of the pair.
    let (models, root) = model_path_with_pair(&["clip", "bert-dense"], PAIR);
    fs::remove_file(models.path().join("clip/preprocessor_config.json")).unwrap();
    assert_matches!(Package::find(&root, "pair"), Err(PackageError::Half { source, .. })
        if matches!(*source, PackageError::Missing { role: FileRole::Preprocessing, .. }));
    // A package out of the model path.
    let elsewhere = Scratch::new();
    copy(&data().join("clip"), &elsewhere.path().join("clip"));
    fs::remove_dir_all(models.path().join("clip")).unwrap();
    symlink(elsewhere.path().join("clip"), models.path().join("clip")).unwrap();
    assert_matches!(Package::find(&root, "pair"), Err(PackageError::Half { source, .. })
        if matches!(*source, PackageError::Outside { .. }));
}
