//! A plain user's table with a generated embedding, the extension in a schema of its own, an empty
//! search path: all of it survives dump and restore.

use crate::cluster::{Cluster, run};
use crate::{failure, picture, value};
use postgres::error::SqlState;

const CONTENT: &str = "SET search_path = '';
    SELECT string_agg(id || ':' || md5(embedding::text), ',' ORDER BY id) FROM public.photos";

#[test]
fn a_generated_column_survives_dump_and_restore() {
    let cluster = Cluster::new("dump").start_empty();
    let mut admin = cluster.client();
    for statement in [
        "CREATE ROLE painter LOGIN",
        "CREATE DATABASE album OWNER painter",
        "CREATE DATABASE copy OWNER painter",
    ] {
        admin.batch_execute(statement).unwrap();
    }
    let mut owner = cluster.client_of("postgres", "album");
    owner.batch_execute("CREATE SCHEMA extensions; CREATE EXTENSION imgvec SCHEMA extensions").unwrap();
    owner
        .batch_execute(
            "GRANT USAGE ON SCHEMA extensions TO painter; GRANT CREATE ON SCHEMA public TO painter",
        )
        .unwrap();

    let mut painter = cluster.client_of("painter", "album");
    painter
        .batch_execute(
            "SET search_path = '';
             CREATE TABLE public.photos (id integer PRIMARY KEY, data bytea,
                 embedding extensions.imgvec(256)
                     GENERATED ALWAYS AS (extensions.embed_image(data, 'starter')) STORED);
             CREATE INDEX ON public.photos (embedding);
             CREATE VIEW public.nearest AS SELECT id FROM public.photos
                 ORDER BY embedding OPERATOR(extensions.<=>) extensions.embed_text('dog', 'starter')",
        )
        .unwrap();
    for id in 1..=3_u32 {
        let sql = "INSERT INTO public.photos (id, data) VALUES ($1, $2)";
        painter.execute(sql, &[&i32::try_from(id).unwrap(), &picture(id)]).unwrap();
    }
    painter.execute("INSERT INTO public.photos (id) VALUES (4)", &[]).unwrap();

    let file = cluster.directory().join("album.sql");
    run(cluster.program("pg_dump").args(["--dbname=album", "--file"]).arg(&file));
    run(cluster.program("psql").args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "copy", "-f"]).arg(&file));

    let content = |database: &str| {
        let output =
            run(cluster.program("psql").args(["-X", "-A", "-t", "-q", "-d", database, "-c", CONTENT]));
        output.trim().to_owned()
    };
    assert_eq!(content("album").split(',').count(), 3, "{}", content("album"));
    assert_eq!(content("copy"), content("album"));
    let mut copy = cluster.client_of("painter", "copy");
    assert_eq!(
        value::<String>(&mut copy, "SELECT string_agg(id::text, ' ') FROM public.nearest"),
        value::<String>(&mut painter, "SELECT string_agg(id::text, ' ') FROM public.nearest")
    );
    assert_eq!(
        value::<String>(&mut copy, "SELECT extname::text FROM pg_extension WHERE extname = 'imgvec'"),
        "imgvec"
    );
}

#[test]
fn a_plain_user_embeds_but_names_no_files() {
    let cluster = Cluster::new("plain").start();
    cluster.client().batch_execute("CREATE ROLE painter LOGIN").unwrap();
    let mut painter = cluster.client_of("painter", "postgres");
    assert_eq!(value::<i32>(&mut painter, "SELECT imgvec_dims(embed_text('dog'))"), 256);
    assert_eq!(value::<i64>(&mut painter, "SELECT texts_embedded FROM imgvec_backend_stats"), 1);
    let models = "SELECT name || ' ' || coalesce(path, 'unknown') FROM imgvec_models WHERE name = 'starter'";
    assert_eq!(value::<String>(&mut painter, models), "starter unknown");
    for setting in [
        "model_path",
        "onnxruntime_library",
        "libheif_library",
        "cache_directory",
        "max_image_pixels",
        "max_image_bytes",
    ] {
        let error = failure(&mut painter, &format!("SET imgvec.{setting} = '1'"));
        assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{setting}");
    }
    for setting in ["model_path", "onnxruntime_library", "libheif_library", "cache_directory"] {
        let error = failure(&mut painter, &format!("SHOW imgvec.{setting}"));
        assert_eq!(error.code(), &SqlState::INSUFFICIENT_PRIVILEGE, "{setting}");
    }
}
