//! Model packages and ONNX Runtime as files that are there, missing, half-copied or unreadable.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use postgres::Client;
use postgres::error::SqlState;
use serde_json::Value;

use crate::cluster::{Cluster, Memory};
use crate::{encoder_data, failure, graph, value};

/// Largest difference of an element from the reference implementation.
const TOLERANCE: f64 = 1e-4;

pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A server that finds copies of the encoder's tiny packages beside the starter model.
pub fn cluster_with_packages(name: &str, packages: &[&str]) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::new(name).start();
    let models = cluster.directory().join("models");
    fs::create_dir(&models).unwrap();
    for package in packages {
        copy_tree(&encoder_data("models").join(package), &models.join(package));
    }
    cluster.give(&models);
    cluster.conf(&format!("imgvec.model_path = '$sharedir/imgvec/models:{}'", models.display()));
    cluster.restart();
    (cluster, models)
}

/// A session in which the extension's library is loaded, so that its settings are known.
fn loaded(cluster: &Cluster) -> Client {
    let mut client = cluster.client();
    client.batch_execute("LOAD 'imgvec'").unwrap();
    client
}

fn assert_close(found: &[f32], expected: &Value, what: &str) {
    let expected: Vec<f64> =
        expected.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!((f64::from(*found) - expected).abs() < TOLERANCE, "{what}: {found} for {expected}");
    }
}

#[test]
fn packages_of_every_family_give_the_embeddings_of_their_reference() {
    let packages = [
        "clip",
        "clip-external",
        "clip-combined",
        "siglip",
        "siglip2",
        "siglip2-naflex",
        "pe-core",
        "mobileclip2",
        "nllb-clip",
        "jina-clip-v2",
        "dinov2",
        "resnet",
        "bert-mean",
        "bert-cls",
        "bert-dense",
        "nomic-embed-text-v1.5",
        "nomic-embed-vision-v1.5",
        "nomic-embed-v1.5",
    ];
    let (cluster, _) = cluster_with_packages("families", &packages);
    let mut client = cluster.client();
    let (mut images, mut texts) = (0, 0);
    for package in packages {
        let expected = fs::read(encoder_data("models").join(package).join("expected.json")).unwrap();
        let expected: Value = serde_json::from_slice(&expected).unwrap();
        let cases = |key: &str| expected[key].as_array().cloned().unwrap_or_default();
        for case in cases("images") {
            let file = case["file"].as_str().unwrap();
            let data = fs::read(encoder_data("models/pictures").join(file)).unwrap();
            let row = client.query_one("SELECT embed_image($1, $2)::real[]", &[&data, &package]).unwrap();
            assert_close(&row.get::<_, Vec<f32>>(0), &case["embedding"], &format!("{package}, {file}"));
            images += 1;
        }
        for case in cases("texts") {
            let text = case["text"].as_str().unwrap();
            let row = client.query_one("SELECT embed_text($1, $2)::real[]", &[&text, &package]).unwrap();
            assert_close(&row.get::<_, Vec<f32>>(0), &case["embedding"], &format!("{package}, {text:?}"));
            texts += 1;
        }
    }
    assert!(images >= 15 && texts >= 50, "{images} images and {texts} texts");
    let loaded = "SELECT count(*) FROM imgvec_models WHERE state = 'loaded'";
    assert_eq!(value::<i64>(&mut client, loaded), i64::try_from(packages.len()).unwrap());
}

#[test]
fn numbers_of_patches_that_no_package_has_are_refused() {
    let (cluster, models) = cluster_with_packages("patches", &["siglip2-naflex"]);
    let mut client = cluster.client();
    let overrides = models.join("siglip2-naflex/imgvec.toml");
    for patches in ["0", "4097", "1e18", "-1"] {
        fs::write(&overrides, format!("[image.preprocessing]\nmax_num_patches = {patches}\n")).unwrap();
        cluster.give(&overrides);
        let error = failure(&mut client, "SELECT embed_image('\\x00', 'siglip2-naflex')");
        assert_eq!(error.code(), &SqlState::CONFIG_FILE_ERROR, "{error:?}");
        let said = format!("{} {}", error.message(), error.detail().unwrap());
        assert!(said.contains("max_num_patches"), "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    }
}

#[test]
fn a_package_that_is_completed_works_in_the_same_session() {
    let (cluster, models) = cluster_with_packages("partial", &["clip"]);
    let graph = models.join("clip/onnx/text_model.onnx");
    let hidden = models.join("text_model.onnx.part");
    fs::rename(&graph, &hidden).unwrap();
    let mut client = cluster.client();
    let error = failure(&mut client, "SELECT embed_text('dog', 'clip')");
    assert_eq!(error.code(), &SqlState::FEATURE_NOT_SUPPORTED, "{error:?}");
    assert!(error.hint().is_some(), "{error:?}");

    fs::copy(&hidden, &graph).unwrap();
    let whole = fs::read(&graph).unwrap();
    fs::write(&graph, &whole[..whole.len() / 2]).unwrap();
    cluster.give(&graph);
    let error = failure(&mut client, "SELECT embed_text('dog', 'clip')");
    assert_eq!(error.code(), &SqlState::CONFIG_FILE_ERROR, "{error:?}");
    let state = "SELECT state || ': ' || detail FROM imgvec_models WHERE name = 'clip'";
    let state: String = value(&mut client, state);
    assert!(state.starts_with("broken: "), "{state}");

    fs::write(&graph, &whole).unwrap();
    assert_eq!(value::<i32>(&mut client, "SELECT imgvec_dims(embed_text('dog', 'clip'))"), 12);
}

#[test]
fn layers_behind_the_pooling_that_do_not_fit_are_told_with_what_to_do() {
    let (cluster, models) = cluster_with_packages("layers", &["bert-dense"]);
    let layer = models.join("bert-dense/2_Dense");
    let mut client = cluster.client();
    assert_eq!(value::<i32>(&mut client, "SELECT dims FROM imgvec_models WHERE name = 'bert-dense'"), 12);
    let mut told = |code: &SqlState, word: &str| {
        let error = failure(&mut client, "SELECT embed_text('dog', 'bert-dense')");
        assert_eq!(error.code(), code, "{error:?}");
        assert!(error.detail().is_some_and(|detail| detail.contains(word)), "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
    };
    let config = fs::read_to_string(layer.join("config.json")).unwrap();
    fs::write(layer.join("config.json"), config.replace("Tanh", "Mish")).unwrap();
    told(&SqlState::FEATURE_NOT_SUPPORTED, "Mish");
    fs::write(layer.join("config.json"), config.replace("16", "15")).unwrap();
    told(&SqlState::CONFIG_FILE_ERROR, "15");
    fs::write(layer.join("config.json"), config).unwrap();
    let (weights, pickle) = (layer.join("model.safetensors"), layer.join("pytorch_model.bin"));
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() - 1]).unwrap();
    told(&SqlState::CONFIG_FILE_ERROR, "should have at least");
    fs::rename(&weights, &pickle).unwrap();
    told(&SqlState::FEATURE_NOT_SUPPORTED, "pickle");
    fs::remove_file(&pickle).unwrap();
    told(&SqlState::UNDEFINED_FILE, "weights");
    fs::write(&weights, &whole).unwrap();
    cluster.give(&weights);
    assert_eq!(value::<i32>(&mut client, "SELECT imgvec_dims(embed_text('dog', 'bert-dense'))"), 12);
}

#[test]
fn two_packages_make_one_model() {
    let (cluster, models) = cluster_with_packages("halves", &["clip", "bert-dense", "bert-mean"]);
    let toml = models.join("pair/imgvec.toml");
    fs::create_dir(models.join("pair")).unwrap();
    let write = |text: &str| {
        fs::write(&toml, format!("[image]\npackage = \"clip\"\n[text]\npackage = \"{text}\"\n")).unwrap();
        cluster.give(&models.join("pair"));
    };
    write("bert-dense");
    let mut client = cluster.client();
    let row = client
        .query_one(
            "SELECT modalities, dims, state, detail, digest FROM imgvec_models WHERE name = 'pair'",
            &[],
        )
        .unwrap();
    assert_eq!(row.get::<_, Vec<String>>(0), ["image", "text"]);
    assert_eq!((row.get::<_, i32>(1), row.get::<_, &str>(2)), (12, "available"));
    assert_eq!(
        row.get::<_, &str>(3),
        "its image tower is that of \"clip\"; its text tower is that of \"bert-dense\""
    );
    let digest: String = row.get(4);
    let equal = "SELECT embed_text('a dog', 'pair') = embed_text('a dog', 'bert-dense')";
    assert!(value::<bool>(&mut client, equal));

    // A session that has the pair open sees that one half is another.
    let weights = models.join("bert-dense/2_Dense/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, &bytes).unwrap();
    let now: String = value(&mut client, "SELECT digest FROM imgvec_models WHERE name = 'pair'");
    assert_ne!(now, digest);
    assert!(value::<bool>(&mut client, equal));

    for (text, code, word) in [
        ("bert-mean", SqlState::CONFIG_FILE_ERROR, "dimensions"),
        ("none", SqlState::UNDEFINED_OBJECT, "does not exist"),
        ("pair", SqlState::CONFIG_FILE_ERROR, "itself takes a tower from another model"),
        ("../clip", SqlState::INVALID_PARAMETER_VALUE, "invalid model name"),
    ] {
        write(text);
        let error = failure(&mut client, "SELECT embed_text('a dog', 'pair')");
        assert_eq!(error.code(), &code, "{text}: {error:?}");
        assert!(error.message().contains(word), "{text}: {error:?}");
        assert!(error.detail().is_some() && error.hint().is_some(), "{text}: {error:?}");
        let state: String = value(&mut client, "SELECT state FROM imgvec_models WHERE name = 'pair'");
        assert_eq!(state, "broken", "{text}");
    }
    write("bert-dense");
    assert!(value::<bool>(&mut client, equal));
}

#[test]
fn a_package_that_the_server_cannot_read_says_so() {
    let (cluster, models) = cluster_with_packages("unreadable", &["clip"]);
    fs::set_permissions(models.join("clip"), fs::Permissions::from_mode(0o000)).unwrap();
    let mut client = cluster.client();
    let error = failure(&mut client, "SELECT embed_text('dog', 'clip')");
    assert_eq!(error.code(), &SqlState::IO_ERROR, "{error:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("readable")), "{error:?}");
    let starter = "SELECT count(*) FROM imgvec_models WHERE name = 'starter' AND state <> 'broken'";
    assert_eq!(value::<i64>(&mut client, starter), 1);
    // So that the harness can remove it.
    fs::set_permissions(models.join("clip"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_runtime_that_is_missing_or_none_is_an_error_and_can_be_corrected() {
    let cluster = Cluster::new("runtime").start();
    let mut client = loaded(&cluster);
    client.batch_execute("SET imgvec.onnxruntime_library = '/nonexistent/libonnxruntime.so'").unwrap();
    let error = failure(&mut client, "SELECT embed_text('dog')");
    assert_eq!(error.code(), &SqlState::UNDEFINED_FILE, "{error:?}");
    assert!(
        error.detail().is_some_and(|detail| detail.contains("/nonexistent/libonnxruntime.so")),
        "{error:?}"
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("imgvec.onnxruntime_library")), "{error:?}");

    // A library of the server that is no ONNX Runtime, and a file that is no library.
    let library = cluster.stage().config("--pkglibdir").join("imgvec.so");
    let text = cluster.data().join("postgresql.conf");
    for wrong in [library, text] {
        client.batch_execute(&format!("SET imgvec.onnxruntime_library = '{}'", wrong.display())).unwrap();
        let error = failure(&mut client, "SELECT embed_text('dog')");
        assert_eq!(error.code(), &SqlState::UNDEFINED_FILE, "{error:?}");
    }
    client.batch_execute("RESET imgvec.onnxruntime_library").unwrap();
    assert_eq!(value::<i32>(&mut client, "SELECT imgvec_dims(embed_text('dog'))"), 256);
}

#[test]
fn sessions_that_start_together_and_a_crash_leave_a_usable_cache() {
    let (mut cluster, _) = cluster_with_packages("cache", &["clip"]);
    let embed =
        |mut client: Client| -> Vec<f32> { value(&mut client, "SELECT embed_text('a dog', 'clip')::real[]") };
    let clients: Vec<_> = (0..8).map(|_| cluster.client()).collect();
    let sessions: Vec<_> =
        clients.into_iter().map(|client| std::thread::spawn(move || embed(client))).collect();
    let found: Vec<_> = sessions.into_iter().map(|session| session.join().unwrap()).collect();
    assert!(found.iter().all(|embedding| *embedding == found[0]));

    for _ in 0..3 {
        cluster.crash();
        let cache = cluster.data().join("pgsql_tmp_imgvec");
        let _ = fs::remove_dir_all(&cache);
        cluster.start();
        // The crash comes while the first user prepares the model, if it is quick enough.
        let client = cluster.client();
        let session = std::thread::spawn(move || {
            let mut client = client;
            client.query("SELECT embed_text('a dog', 'clip')", &[]).is_ok()
        });
        std::thread::sleep(std::time::Duration::from_millis(20));
        cluster.crash();
        let _ = session.join().unwrap();
        cluster.start();
        assert_eq!(embed(cluster.client()), found[0]);
    }
}

/// Ways in which a package can be broken, and what is done to a copy of `clip-external` for each.
fn break_in_every_way(models: &Path, elsewhere: &Path) -> Vec<String> {
    const GRAPH: &str = "onnx/text_model.onnx";
    let location = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |package: &Path| {
            let path = package.join(GRAPH);
            let bytes = fs::read(&path).unwrap();
            let place = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            fs::write(&path, [&bytes[..place], to.as_bytes(), &bytes[place + from.len()..]].concat())
                .unwrap();
        }
    };
    let write = |file: &'static str, content: &'static [u8]| {
        move |package: &Path| fs::write(package.join(file), content).unwrap()
    };
    let link = |file: &'static str, target: PathBuf| {
        move |package: &Path| {
            let _ = fs::remove_file(package.join(file));
            std::os::unix::fs::symlink(&target, package.join(file)).unwrap();
        }
    };
    type Way = Box<dyn Fn(&Path)>;
    let ways: Vec<(&str, Way)> = vec![
        ("location-nul", Box::new(location("text_model.onnx_data", "text_model.onnx\0data"))),
        ("location-up", Box::new(location("text_model.onnx_data", "../../../elsewhere/x"))),
        ("json", Box::new(write("config.json", b"{\"model_type\": "))),
        ("json-nul", Box::new(write("config.json", b"{\"model_type\": \"a\\u0000b\"}\0"))),
        (
            "json-deep",
            Box::new(|package: &Path| fs::write(package.join("config.json"), "[".repeat(1 << 20)).unwrap()),
        ),
        ("json-latin", Box::new(write("preprocessor_config.json", b"{\"a\": \"\xe9\"}"))),
        ("toml", Box::new(write("imgvec.toml", b"family = clip"))),
        ("toml-nul", Box::new(write("imgvec.toml", b"[text]\noutput = \"a\\u0000b\\u001b[2J\""))),
        ("toml-absolute", Box::new(write("imgvec.toml", b"[text]\ntokenizer = \"/etc/passwd\""))),
        ("loop", Box::new(link("config.json", "config.json".into()))),
        ("linked-file", Box::new(link("config.json", elsewhere.join("config.json")))),
        (
            "linked-data",
            Box::new(link("onnx/text_model.onnx_data", elsewhere.join("onnx/text_model.onnx_data"))),
        ),
        ("device", Box::new(link("tokenizer.json", "/dev/zero".into()))),
        (
            "pipe",
            Box::new(|package: &Path| {
                fs::remove_file(package.join("config.json")).unwrap();
                assert!(
                    std::process::Command::new("mkfifo")
                        .arg(package.join("config.json"))
                        .status()
                        .unwrap()
                        .success()
                );
            }),
        ),
        (
            "huge",
            Box::new(|package: &Path| {
                let file = fs::File::options()
                    .write(true)
                    .open(package.join("onnx/vision_model.onnx_data"))
                    .unwrap();
                file.set_len(1 << 41).unwrap();
            }),
        ),
        (
            "cut",
            Box::new(|package: &Path| {
                let file = fs::File::options().write(true).open(package.join(GRAPH)).unwrap();
                file.set_len(100).unwrap();
            }),
        ),
        (
            "unreadable",
            Box::new(|package: &Path| {
                fs::set_permissions(package, fs::Permissions::from_mode(0o000)).unwrap();
            }),
        ),
    ];
    for (name, way) in &ways {
        copy_tree(&encoder_data("models/clip-external"), &models.join(name));
        way(&models.join(name));
    }
    ways.into_iter().map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn broken_packages_break_their_own_rows_and_tell_plain_roles_no_paths() {
    let (mut cluster, models) = cluster_with_packages("broken", &["clip"]);
    // What is added from here on belongs to somebody else, and the server may read it.
    let elsewhere = cluster.directory().join("elsewhere");
    copy_tree(&encoder_data("models/clip-external"), &elsewhere);
    let broken = break_in_every_way(&models, &elsewhere);
    // These are no reason to say that a model is broken.
    fs::write(models.join("clip/imgvec.toml"), "license = \"a\\u0000b\\u001b[31m\"").unwrap();
    use std::os::unix::ffi::OsStrExt as _;
    fs::write(models.join("clip").join(std::ffi::OsStr::from_bytes(b"\xff.onnx")), "").unwrap();
    fs::create_dir(models.join(std::ffi::OsStr::from_bytes(b"\xff\xfe"))).unwrap();
    let mut superuser = loaded(&cluster);
    superuser
        .batch_execute("CREATE ROLE plain LOGIN; CREATE ROLE reader LOGIN IN ROLE pg_read_server_files")
        .unwrap();
    let mut plain = cluster.client_of("plain", "postgres");

    let rows = "SELECT name, state, path, coalesce(detail, ''), license FROM imgvec_models";
    type Row = (String, String, Option<String>, String, Option<String>);
    let rows = |client: &mut Client| -> Vec<Row> {
        let rows = client.query(rows, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect()
    };
    let shows_a_path = |text: &str| {
        text.contains(models.to_str().unwrap())
            || ["/tmp", "/etc", "/dev"].iter().any(|root| text.contains(root))
    };
    let seen = rows(&mut plain);
    for (name, state, path, detail, license) in &seen {
        assert_eq!(state == "broken", broken.contains(name), "{name}: {state}, {detail}");
        assert!(path.is_none() && !shows_a_path(detail) && !detail.contains('\u{1b}'), "{name}: {detail}");
        assert_eq!(license.is_some(), ["clip", "starter"].contains(&name.as_str()), "{name}: {license:?}");
    }
    assert_eq!(seen.iter().filter(|(_, state, ..)| state == "broken").count(), broken.len());
    for mut client in [superuser, cluster.client_of("reader", "postgres")] {
        let seen = rows(&mut client);
        assert_eq!(seen.iter().filter(|(_, state, ..)| state == "broken").count(), broken.len());
        assert!(seen.iter().all(|(_, _, path, ..)| path.is_some()));
        assert!(seen.iter().any(|(.., detail, _)| detail.contains(models.to_str().unwrap())));
    }

    let picture = "'\\x89504e47'::bytea";
    for name in &broken {
        for call in [
            format!("SELECT embed_text('dog', '{name}')"),
            format!("SELECT embed_image({picture}, '{name}')"),
            format!("SELECT * FROM classify_image({picture}, ARRAY['a'], '{name}')"),
        ] {
            let error = failure(&mut plain, &call);
            let text = [Some(error.message()), error.detail(), error.hint()]
                .map(Option::unwrap_or_default)
                .join(" ");
            assert!(!shows_a_path(&text), "{call}: {text}");
            assert!(error.detail().is_some() && error.hint().is_some(), "{call}: {error:?}");
            let expected = [
                SqlState::CONFIG_FILE_ERROR.code(),
                SqlState::IO_ERROR.code(),
                SqlState::FEATURE_NOT_SUPPORTED.code(),
                SqlState::INSUFFICIENT_PRIVILEGE.code(),
            ];
            assert!(expected.contains(&error.code().code()), "{call}: {error:?}");
        }
    }
    // A file in the way of the text tower's outline does not hide what a role typed itself.
    let error = failure(&mut plain, "SELECT embed_text('dog', '/etc/passwd')");
    assert_eq!(error.message(), "invalid model name \"/etc/passwd\"");

    // The library, and the directory of prepared models.
    let mut superuser = cluster.client();
    superuser
        .batch_execute("ALTER ROLE plain SET imgvec.onnxruntime_library = '/tmp/no/such/library.so'")
        .unwrap();
    let error = failure(&mut cluster.client_of("plain", "postgres"), "SELECT embed_text('dog')");
    assert!(error.detail().is_some_and(|detail| detail.contains("\"library.so\"")), "{error:?}");
    superuser
        .batch_execute(
            "ALTER ROLE plain RESET imgvec.onnxruntime_library;
             ALTER ROLE plain SET imgvec.cache_directory = '/dev/null/cache'",
        )
        .unwrap();
    let (sender, notices) = std::sync::mpsc::channel();
    let mut config = cluster.config();
    config.user("plain").notice_callback(move |notice| sender.send(notice).unwrap());
    let mut plain = config.connect(postgres::NoTls).unwrap();
    value::<i32>(&mut plain, "SELECT imgvec_dims(embed_text('dog'))");
    let warnings: Vec<String> =
        notices.try_iter().map(|notice| format!("{} {:?}", notice.message(), notice.detail())).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("are not shared"), "{warnings:?}");
    assert!(!warnings[0].contains("/dev"), "{warnings:?}");
    // So that the harness can remove it.
    fs::set_permissions(models.join("unreadable"), fs::Permissions::from_mode(0o700)).unwrap();
    drop(cluster.client());
    cluster.stop();
}

#[test]
fn an_output_that_is_no_embedding_is_told_with_its_type() {
    let (cluster, models) = cluster_with_packages("types", &["dinov2"]);
    let graph = models.join("dinov2/onnx/model.onnx");
    let bytes = fs::read(&graph).unwrap();
    // The declared type of the output, a field of its TypeProto.Tensor: 1 is float32.
    let name = b"pooler_output";
    let places: Vec<usize> =
        (0..bytes.len() - name.len()).filter(|&place| bytes[place..].starts_with(name)).collect();
    let declared = *places.last().unwrap() + name.len();
    let element = bytes[declared..].windows(2).position(|pair| pair == [1 << 3, 1]).unwrap() + declared + 1;
    let mut client = cluster.client();
    for (number, kind) in [(7, "int64"), (11, "float64")] {
        let mut changed = bytes.clone();
        changed[element] = number;
        fs::write(&graph, changed).unwrap();
        fs::write(models.join("dinov2/imgvec.toml"), "[image]\noutput = \"pooler_output\"").unwrap();
        let error = failure(&mut client, "SELECT embed_image('\\x00'::bytea, 'dinov2')");
        assert_eq!(error.code(), &SqlState::FEATURE_NOT_SUPPORTED, "{error:?}");
        let told = format!("\"pooler_output\" ({kind}, 2 axes)");
        assert!(error.detail().is_some_and(|detail| detail.contains(&told)), "{error:?}");
    }
}

/// Width of the products in the package that is slow to prepare.
const WIDTH: usize = 256;

/// A text tower of thousands of products one after the other, which take seconds to optimize.
fn write_slow_package(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("tokenizer.json"), graph::word_tokenizer(&["a", "dog"])).unwrap();
    let identity: Vec<f32> =
        (0..WIDTH * WIDTH).map(|place| f32::from(u8::from(place / WIDTH == place % WIDTH))).collect();
    let bytes = graph::text_tower(
        1_024,
        WIDTH,
        |place| (place as f32).sin(),
        |mut graph| {
            graph = graph.floats("identity", &[WIDTH as u64, WIDTH as u64], &identity);
            let mut from = "looked_up".to_owned();
            for step in 0..8_000 {
                let to = if step == 7_999 { "worked".to_owned() } else { format!("step{step}") };
                graph = graph.node("MatMul", &[&from, "identity"], &to);
                from = to;
            }
            graph
        },
    );
    fs::write(dir.join("model.onnx"), bytes).unwrap();
}

/// Whole prepared forms in a server's cache directory whose names begin so.
fn prepared(cluster: &Cluster, label: &str) -> usize {
    let packages = fs::read_dir(cluster.data().join("pgsql_tmp_imgvec/prepared"));
    let entries = packages.into_iter().flatten().flatten();
    let entries = entries.flat_map(|package| fs::read_dir(package.path()).into_iter().flatten().flatten());
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(label)).count()
}

#[test]
fn a_cold_model_becomes_usable_under_a_timeout_that_is_shorter_than_preparing_it() {
    let (cluster, models) = cluster_with_packages("cold", &[]);
    write_slow_package(&models.join("slow"));
    let mut client = cluster.client();
    // The library is loaded, so that the timeout is for the model alone.
    value::<i32>(&mut client, "SELECT imgvec_dims(embed_text('dog', 'starter'))");
    client.batch_execute("SET statement_timeout = '100ms'").unwrap();
    if let Err(error) = client.simple_query("SELECT embed_text('dog', 'slow')") {
        assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED), "{error:?}");
        // Nobody asks again, and all the same it gets done.
        let begun = std::time::Instant::now();
        while prepared(&cluster, "model-") == 0 {
            assert!(begun.elapsed() < std::time::Duration::from_secs(300), "the model is not prepared");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    assert_eq!(prepared(&cluster, "model-"), 1);
    client.batch_execute("RESET statement_timeout").unwrap();
    assert_eq!(value::<i32>(&mut client, "SELECT imgvec_dims(embed_text('dog', 'slow'))"), 256);
    assert_eq!(prepared(&cluster, "model-"), 1);
}

#[test]
fn a_model_is_prepared_ahead_of_use_by_anyone_and_without_a_worker_too() {
    let (mut cluster, models) = cluster_with_packages("ahead", &["clip"]);
    write_slow_package(&models.join("slow"));
    cluster.client().batch_execute("CREATE ROLE plain LOGIN").unwrap();
    for workers in ["8", "0"] {
        cluster.conf(&format!("max_worker_processes = {workers}"));
        cluster.restart();
        let _ = fs::remove_dir_all(cluster.data().join("pgsql_tmp_imgvec"));
        let mut client = cluster.client_of("plain", "postgres");
        client.batch_execute("SELECT imgvec_prepare('slow')").unwrap();
        assert_eq!(prepared(&cluster, "model-"), 1, "{workers} workers");
        // Nothing to do: a small model, and one that is prepared.
        client.batch_execute("SELECT imgvec_prepare('clip'), imgvec_prepare('slow')").unwrap();
        assert_eq!(prepared(&cluster, ""), 3, "lock and source beside it");
        assert_eq!(value::<i32>(&mut client, "SELECT imgvec_dims(embed_text('dog', 'slow'))"), 256);
    }
    let mut client = cluster.client_of("plain", "postgres");
    assert_eq!(failure(&mut client, "SELECT imgvec_prepare('none')").code(), &SqlState::UNDEFINED_OBJECT);
    fs::write(models.join("slow/tokenizer.json"), "{}").unwrap();
    let error = failure(&mut client, "SELECT embed_text('dog', 'slow')");
    assert_eq!(error.code(), &SqlState::CONFIG_FILE_ERROR, "{error:?}");
}

#[test]
fn workers_that_prepare_end_with_the_server() {
    let (mut cluster, models) = cluster_with_packages("ending", &[]);
    write_slow_package(&models.join("slow"));
    let mut client = cluster.client();
    client.batch_execute("LOAD 'imgvec'; SET statement_timeout = '50ms'").unwrap();
    let _ = client.simple_query("SELECT embed_text('dog', 'slow')");
    drop(client);
    // A fast shutdown waits for every process.
    cluster.restart();
    let mut client = cluster.client();
    assert_eq!(value::<i32>(&mut client, "SELECT imgvec_dims(embed_text('dog', 'slow'))"), 256);
}

#[test]
fn analyze_leaves_out_an_expression_without_statistics() {
    let cluster = Cluster::new("analyze").start();
    let mut client = cluster.client();
    crate::create_pictures(&mut client, 20);
    client
        .batch_execute(
            "SET imgvec.embedding_cache_entries = 0;
             CREATE INDEX pictures_index ON pictures USING ann ((embed_image(data, 'starter')::imgvec(256)) imgvec_cosine_ops)",
        )
        .unwrap();
    let embedded =
        |client: &mut Client| -> i64 { value(client, "SELECT images_embedded FROM imgvec_backend_stats") };
    let before = embedded(&mut client);
    client.batch_execute("ANALYZE pictures").unwrap();
    assert_eq!(embedded(&mut client), before + 20);
    client.batch_execute("ALTER INDEX pictures_index ALTER COLUMN 1 SET STATISTICS 0").unwrap();
    client.batch_execute("ANALYZE pictures").unwrap();
    assert_eq!(embedded(&mut client), before + 20);
}

/// `tokenizer.json` of a byte pair encoding with 266,304 tokens: all texts of up to three of 64 letters.
fn large_tokenizer() -> String {
    let letters: Vec<char> =
        "\u{2581}abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.".chars().collect();
    let (mut vocab, mut merges) = (serde_json::Map::new(), Vec::new());
    let add = |token: String, vocab: &mut serde_json::Map<String, Value>| {
        let id = vocab.len();
        vocab.insert(token, id.into());
    };
    letters.iter().for_each(|letter| add(letter.to_string(), &mut vocab));
    let pairs: Vec<(String, String)> = letters
        .iter()
        .flat_map(|left| letters.iter().map(move |right| (left.to_string(), right.to_string())))
        .collect();
    let triples = pairs
        .iter()
        .flat_map(|(one, two)| letters.iter().map(move |three| (format!("{one}{two}"), three.to_string())));
    for (left, right) in pairs.iter().cloned().chain(triples) {
        add(format!("{left}{right}"), &mut vocab);
        merges.push(serde_json::json!([left, right]));
    }
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    })
    .to_string()
}

#[test]
fn sessions_share_the_tables_of_a_large_tokenizer() {
    let (cluster, models) = cluster_with_packages("tokenizer", &["bert-mean"]);
    let package = models.join("large");
    fs::create_dir(&package).unwrap();
    fs::write(package.join("tokenizer.json"), large_tokenizer()).unwrap();
    fs::write(
        package.join("model.onnx"),
        graph::text_tower(
            266_304,
            2,
            |place| place as f32,
            |graph| graph.node("Identity", &["looked_up"], "worked"),
        ),
    )
    .unwrap();
    let embed = |client: &mut Client, model: &str| -> Vec<f32> {
        value(client, &format!("SELECT embed_text('a photo of 2 dogs', '{model}')::real[]"))
    };
    let first = embed(&mut cluster.client(), "large");
    assert_eq!(prepared(&cluster, "=tokenizer-"), 1);
    let memory_of = |model: &str| {
        let mut client = cluster.client();
        let pid = u32::try_from(value::<i32>(&mut client, "SELECT pg_backend_pid()")).unwrap();
        (embed(&mut client, model), Memory::of(pid).anonymous)
    };
    let ((_, small), (second, large)) = (memory_of("bert-mean"), memory_of("large"));
    assert_eq!(first, second);
    // The library takes 100 MB for it.
    assert!(large < small + (15 << 20), "{large} bytes with the large tokenizer, {small} with a small one");

    // Without a place for the shared form the library does it, to the same result.
    let mut client = loaded(&cluster);
    client.batch_execute("SET imgvec.cache_directory = ''").unwrap();
    assert_eq!(embed(&mut client, "large"), first);
    // A damaged form is made again.
    for package in fs::read_dir(cluster.data().join("pgsql_tmp_imgvec/prepared")).unwrap().flatten() {
        for entry in fs::read_dir(package.path()).unwrap().flatten() {
            let file = entry.path().join("tokenizer");
            if file.exists() {
                let mut bytes = fs::read(&file).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&file, bytes).unwrap();
            }
        }
    }
    for _ in 0..2 {
        assert_eq!(embed(&mut cluster.client(), "large"), first);
    }
    assert_eq!(prepared(&cluster, "=tokenizer-"), 1);
}
