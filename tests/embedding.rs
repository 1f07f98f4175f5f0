//! Around embedding in a running server: JIT and threads, dump and COPY, stored bytes, broken packages,
//! settings, first use by many sessions at once. What an embedding call itself does is in `tests/server`.

mod cluster;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use cluster::{Cluster, run};
use image::codecs::png::PngEncoder;
use image::{Rgb, RgbImage};
use postgres::Client;
use postgres::error::SqlState;

fn png(width: u32, height: u32, seed: u8) -> Vec<u8> {
    let picture = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8 ^ seed, y as u8, seed]));
    let mut data = Vec::new();
    picture.write_with_encoder(PngEncoder::new(&mut data)).expect("RGB can be a PNG");
    data
}

fn golden_models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/encoder/tests/data/models")
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a scratch directory can be made");
    for entry in fs::read_dir(from).expect("the source can be listed") {
        let entry = entry.expect("the source can be listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

/// A server whose model path has, before the usual place, a scratch directory with some of the tiny
/// golden packages.
fn with_models(name: &str, packages: &[&str]) -> (Cluster, PathBuf) {
    let models = std::env::temp_dir().join(format!("imgvec-models-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&models);
    fs::create_dir_all(&models).expect("a scratch directory can be made");
    for package in packages {
        copy_tree(&golden_models().join(package), &models.join(package));
    }
    let conf = format!("imgvec.model_path = '{}:$sharedir/imgvec/models'", models.display());
    let cluster = Cluster::new(name).conf(&conf).start();
    cluster.give(&models);
    (cluster, models)
}

/// Message, detail and hint of a failing statement, after checking its SQLSTATE.
#[track_caller]
fn fails(client: &mut Client, sql: &str, code: &SqlState) -> (String, String, String) {
    let error = client.simple_query(sql).expect_err("the statement fails");
    let error = error.as_db_error().unwrap_or_else(|| panic!("not an error of the server: {error}"));
    assert_eq!(error.code(), code, "{sql}: {error:?}");
    let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
    assert!(error.detail().is_some(), "no detail: {error:?}");
    assert!(error.hint().is_some(), "no hint: {error:?}");
    (error.message().to_owned(), text(error.detail()), text(error.hint()))
}

fn is_well(client: &mut Client) {
    let dims: i32 = client.query_one("SELECT imgvec_dims(embed_text('dog'))", &[]).expect("embeds").get(0);
    assert_eq!(dims, 256);
}

#[test]
fn jit_and_exit_are_clean() {
    let cluster = Cluster::new("jit")
        .conf("jit = on")
        .conf("jit_above_cost = 0")
        .conf("jit_inline_above_cost = 0")
        .start();
    for _ in 0..3 {
        let mut client = cluster.client();
        client.batch_execute("SET max_parallel_workers_per_gather = 0").expect("a setting");
        let count: i64 = client
            .query_one("SELECT count(*) FROM generate_series(1, 500) i WHERE embed_text('word ' || i % 10) <=> embed_text('dog') < 3", &[])
            .expect("a count")
            .get(0);
        assert_eq!(count, 500);
        is_well(&mut client);
    }
    // Threads of ONNX Runtime and ours take no signals, and none is in the postmaster.
    let mut client = cluster.client();
    is_well(&mut client);
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).expect("a process id").get(0);
    let mut others = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).expect("threads") {
        let status = fs::read_to_string(task.expect("a thread").path().join("status")).expect("a status");
        let field = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim().to_owned()
        };
        if field("Pid:") != pid.to_string() {
            others += 1;
            let blocked = u64::from_str_radix(&field("SigBlk:"), 16).expect("a mask");
            for signal in [1, 2, 3, 10, 12, 14, 15, 23] {
                assert!(blocked >> (signal - 1) & 1 == 1, "signal {signal} may reach a thread: {blocked:x}");
            }
        }
    }
    assert!(others >= 1, "expected at least the thread that watches for interrupts");
    cluster.assert_no_crash();
}

#[test]
fn dump_and_restore_keep_a_generated_column_in_another_schema() {
    let cluster = Cluster::new("dump").start_empty();
    let mut client = cluster.client();
    for statement in
        ["CREATE ROLE app LOGIN", "CREATE DATABASE source OWNER app", "CREATE DATABASE target OWNER app"]
    {
        client.batch_execute(statement).expect("roles and databases");
    }
    let mut admin = cluster.client_of("postgres", "source");
    admin.batch_execute("CREATE SCHEMA ext; CREATE EXTENSION imgvec SCHEMA ext; GRANT USAGE ON SCHEMA ext TO app; GRANT CREATE ON SCHEMA public TO app").expect("the extension");
    // A plain user with an empty search_path.
    let mut app = cluster.client_of("app", "source");
    app.batch_execute(
        "SET search_path = ''; \
         CREATE TABLE public.photos (id serial PRIMARY KEY, data bytea, \
             embedding ext.imgvec(256) GENERATED ALWAYS AS (ext.embed_image(data, 'starter')) STORED, \
             words ext.imgvec DEFAULT ext.embed_text('nothing', 'starter')); \
         CREATE INDEX ON public.photos (words); \
         CREATE VIEW public.near AS SELECT id, embedding OPERATOR(ext.<=>) ext.embed_text('dog') AS distance FROM public.photos;",
    )
    .expect("a schema of a plain user");
    for seed in 0..5 {
        app.execute("INSERT INTO public.photos (data) VALUES ($1)", &[&png(80, 60, seed)]).expect("a row");
    }
    let fingerprint =
        "SELECT string_agg(id || embedding::text || words::text, ',' ORDER BY id) FROM public.photos";
    let before: String = app.query_one(fingerprint, &[]).expect("rows").get(0);
    let file = cluster.directory().join("dump");
    run(cluster.program("pg_dump").args(["-Fc", "-d", "source", "-f"]).arg(&file));
    run(cluster.program("pg_restore").args(["-d", "target", "--exit-on-error", "-j", "2"]).arg(&file));
    let mut restored = cluster.client_of("app", "target");
    let after: String = restored.query_one(fingerprint, &[]).expect("rows").get(0);
    assert_eq!(before, after);
    let nearest = restored.query("SELECT id FROM public.near ORDER BY distance LIMIT 2", &[]).expect("rows");
    assert_eq!(nearest.len(), 2);
    // COPY BINARY both ways.
    let copied: i64 = {
        restored.batch_execute("CREATE TABLE public.copy (e ext.imgvec(256))").expect("a table");
        let path = cluster.directory().join("copy.bin");
        let mut super_user = cluster.client_of("postgres", "target");
        super_user.batch_execute(&format!("COPY (SELECT embedding FROM public.photos) TO '{0}' (FORMAT binary); COPY public.copy FROM '{0}' (FORMAT binary)", path.display())).expect("COPY");
        restored
            .query_one(
                "SELECT count(*) FROM public.copy c JOIN public.photos p ON c.e OPERATOR(ext.=) p.embedding",
                &[],
            )
            .expect("a count")
            .get(0)
    };
    assert_eq!(copied, 5);
}

#[test]
fn stored_bytes_have_the_layout_of_pgvector() {
    let cluster = Cluster::new("layout").start();
    let mut client = cluster.client();
    client
        .batch_execute(
            "CREATE EXTENSION pageinspect; CREATE TABLE t (v imgvec(3)); INSERT INTO t VALUES ('[1,-2,0.5]')",
        )
        .expect("a table");
    let tuple: Vec<u8> = client
        .query_one("SELECT t_data FROM heap_page_items(get_raw_page('t', 0))", &[])
        .expect("a tuple")
        .get(0);
    // A short value has a one-byte header: its length times two plus one. Then int16 3, int16 0, three float4.
    let mut expected = vec![(17 << 1) | 1, 3, 0, 0, 0];
    for element in [1.0f32, -2.0, 0.5] {
        expected.extend_from_slice(&element.to_le_bytes());
    }
    assert_eq!(tuple, expected);
}

#[test]
fn many_sessions_may_use_a_model_first_at_the_same_time() {
    let (cluster, models) = with_models("first-use", &["clip", "bert-mean"]);
    // A directory that cannot be written to must cost memory, not answers.
    let mut answers: Vec<String> = Vec::new();
    for cache in ["fresh_cache", "", "/proc/nowhere"] {
        let threads: Vec<_> = (0..6)
            .map(|_| {
                let mut client = cluster.client();
                let setting = format!("SET imgvec.cache_directory = '{cache}'");
                thread::spawn(move || {
                    client.batch_execute(&setting).expect("a setting");
                    client
                        .query_one("SELECT md5(embed_text('a dog', 'clip')::text || embed_text('a dog', 'bert-mean')::text || embed_image($1, 'clip')::text)", &[&png(50, 40, 3)])
                        .expect("embeddings")
                        .get::<_, String>(0)
                })
            })
            .collect();
        answers.extend(threads.into_iter().map(|thread| thread.join().expect("the thread ends")));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    let _ = fs::remove_dir_all(models);
}

#[test]
fn broken_models_say_what_is_wrong() {
    let (cluster, models) = with_models("broken", &["clip", "bert-mean", "dinov2"]);
    let variant = |name: &str| {
        copy_tree(&golden_models().join("clip"), &models.join(name));
        models.join(name)
    };
    let half = variant("half-copied").join("onnx/text_model.onnx");
    let bytes = fs::read(&half).expect("a graph");
    fs::write(&half, &bytes[..bytes.len() / 2]).expect("a file");
    fs::remove_file(variant("no-tokenizer").join("tokenizer.json")).expect("a file");
    fs::write(variant("bad-toml").join("imgvec.toml"), "no_such_key = 1\n").expect("a file");
    fs::write(variant("bad-config").join("config.json"), "{").expect("a file");
    fs::write(variant("garbage").join("onnx/vision_model.onnx"), vec![7; 5000]).expect("a file");
    fs::create_dir_all(models.join("empty")).expect("a directory");
    cluster.give(&models);
    let closed = variant("closed");
    cluster.give(&closed);
    fs::set_permissions(closed.join("config.json"), fs::Permissions::from_mode(0o000)).expect("permissions");

    let mut client = cluster.client();
    let undefined_file = SqlState::UNDEFINED_FILE;
    let config = SqlState::CONFIG_FILE_ERROR;
    fails(&mut client, "SELECT embed_text('dog', 'half-copied')", &config);
    fails(&mut client, "SELECT embed_text('dog', 'bad-toml')", &config);
    fails(&mut client, "SELECT embed_text('dog', 'bad-config')", &config);
    fails(&mut client, "SELECT embed_text('dog', 'garbage')", &config);
    fails(&mut client, "SELECT embed_text('dog', 'closed')", &SqlState::IO_ERROR);
    fails(&mut client, "SELECT embed_text('dog', 'empty')", &undefined_file);
    fails(&mut client, "SELECT embed_text('dog', 'dinov2')", &SqlState::FEATURE_NOT_SUPPORTED);
    fails(&mut client, "SELECT embed_image('\\x00', 'bert-mean')", &SqlState::FEATURE_NOT_SUPPORTED);
    let error = client.query("SELECT embed_text('dog', 'no-tokenizer')", &[]).expect_err("no tokenizer");
    assert!(
        [Some(&undefined_file), Some(&SqlState::FEATURE_NOT_SUPPORTED)].contains(&error.code()),
        "{error:?}"
    );

    let listed =
        client.query("SELECT name, state, detail FROM imgvec_models ORDER BY name", &[]).expect("models");
    let state_of = |name: &str| {
        let row = listed.iter().find(|row| row.get::<_, String>(0) == name);
        row.map(|row| (row.get::<_, String>(1), row.get::<_, Option<String>>(2)))
    };
    for broken in ["half-copied", "bad-toml", "bad-config", "garbage", "closed"] {
        let (state, detail) = state_of(broken).unwrap_or_else(|| panic!("{broken} is not listed"));
        assert_eq!(state, "broken", "{broken}");
        assert!(detail.is_some_and(|detail| detail.len() > 20), "{broken} has no detail");
    }
    assert_eq!(state_of("clip"), Some(("available".to_owned(), None)));

    // Mended on disk, it works in the same session.
    copy_tree(&golden_models().join("clip"), &models.join("half-copied"));
    cluster.give(&models);
    client.query_one("SELECT embed_text('dog', 'half-copied')", &[]).expect("mended");
    let _ = fs::remove_dir_all(models);
}

#[test]
fn settings_given_before_the_library_is_loaded_are_checked_and_used() {
    let (cluster, models) = with_models("settings", &["clip"]);
    let mut client = cluster.client();
    client.batch_execute("ALTER DATABASE postgres SET imgvec.default_model = 'clip'").expect("a setting");
    let mut later = cluster.client();
    let same: bool =
        later.query_one("SELECT embed_text('dog') = embed_text('dog', 'clip')", &[]).expect("embeds").get(0);
    assert!(same);
    later
        .batch_execute("BEGIN; SET LOCAL imgvec.default_model = 'starter'; CREATE TEMP TABLE e AS SELECT embed_text('dog') AS e; COMMIT")
        .expect("SET LOCAL");
    let dims: i32 = later.query_one("SELECT imgvec_dims(e) FROM e", &[]).expect("a row").get(0);
    assert_eq!(dims, 256);
    let _ = fs::remove_dir_all(models);
}
