//! Model packages and ONNX Runtime as files that are there, missing, half-copied or unreadable.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use postgres::Client;
use postgres::error::SqlState;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::{encoder_data, failure, value};

/// Largest difference of an element from the reference implementation.
const TOLERANCE: f64 = 1e-4;

fn copy_tree(from: &Path, to: &Path) {
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
fn cluster_with_packages(name: &str, packages: &[&str]) -> (Cluster, PathBuf) {
    let mut cluster = Cluster::new(name).start();
    let models = cluster.directory().join("models");
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
        "dinov2",
        "resnet",
        "bert-mean",
        "bert-cls",
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
