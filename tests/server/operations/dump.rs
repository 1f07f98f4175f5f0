//! Dumps in every format and in parts: generated columns, indexes of every shape, an extension outside the search
//! path. (Plain dumps: `dump.rs`, `ann/manners.rs`; beside pgvector: `ann/pgvector.rs`.)

use postgres::Client;

use crate::ann::{by_index, ids, quiet};
use crate::cluster::{Cluster, run};
use crate::value;

/// Everything of `public`, whose owner has the extension in schema `extensions` and nothing on the search path.
const ALBUM: &str = "CREATE SCHEMA extensions; CREATE EXTENSION imgvec SCHEMA extensions; SET search_path = '';
    CREATE FUNCTION public.vec(seed bigint) RETURNS extensions.imgvec LANGUAGE sql IMMUTABLE STRICT AS $$
        SELECT pg_catalog.array_agg(((pg_catalog.hashint8extended(seed, i) OPERATOR(pg_catalog.%) 1000003)::double precision
            OPERATOR(pg_catalog./) 1000003)::real)::extensions.imgvec FROM pg_catalog.generate_series(1, 16) AS i $$;
    CREATE TABLE public.photos (id integer PRIMARY KEY, caption text, note text, embedding extensions.imgvec(256)
        GENERATED ALWAYS AS (extensions.embed_text(caption, 'starter')) STORED);
    INSERT INTO public.photos (id, caption) SELECT i, 'thing number ' || i FROM pg_catalog.generate_series(1, 300) AS i;
    INSERT INTO public.photos (id) VALUES (0);
    CREATE INDEX photos_embedding ON public.photos USING ann (embedding) WITH (ef_search = 120);
    CREATE INDEX photos_few ON public.photos USING ann (embedding extensions.imgvec_l2_ops) WHERE note IS NULL;
    CREATE INDEX photos_short ON public.photos
        USING ann ((extensions.subvector(embedding, 1, 64)::extensions.imgvec(64)) extensions.imgvec_ip_ops);
    CREATE TABLE public.parts (id integer, embedding extensions.imgvec(16)) PARTITION BY RANGE (id);
    CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM (0) TO (500);
    CREATE TABLE public.parts_2 PARTITION OF public.parts FOR VALUES FROM (500) TO (1000);
    INSERT INTO public.parts SELECT i, public.vec(i) FROM pg_catalog.generate_series(1, 999) AS i;
    CREATE INDEX parts_embedding ON public.parts USING ann (embedding extensions.imgvec_l2_ops);
    CREATE MATERIALIZED VIEW public.halves AS SELECT id, embedding FROM public.parts WHERE id OPERATOR(pg_catalog.<) 300;
    CREATE INDEX halves_embedding ON public.halves USING ann (embedding);
    CREATE VIEW public.nearest AS SELECT id FROM public.photos
        ORDER BY embedding OPERATOR(extensions.<=>) extensions.embed_text('thing number 7', 'starter') LIMIT 5";

const CONTENTS: &str = "SELECT md5(string_agg(line, ',' ORDER BY line)) FROM (
    SELECT photos::text AS line FROM public.photos UNION ALL SELECT parts::text FROM public.parts
    UNION ALL SELECT halves::text FROM public.halves) AS everything";

const INDEXES: &str = "SELECT string_agg(pg_get_indexdef(i.indexrelid) || ' ' || coalesce(h.inhparent::regclass::text, ''), '; '
        ORDER BY i.indexrelid::regclass::text)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    LEFT JOIN pg_inherits h ON h.inhrelid = c.oid WHERE a.amname = 'ann'";

/// Rows of each index.
const SIZES: [(&str, i64); 6] = [
    ("photos_embedding", 300),
    ("photos_few", 300),
    ("photos_short", 300),
    ("parts_1_embedding_idx", 499),
    ("parts_2_embedding_idx", 500),
    ("halves_embedding", 299),
];

struct Album {
    cluster: Cluster,
    contents: String,
    indexes: String,
}

impl Album {
    fn new() -> Self {
        let cluster = quiet("dump-formats").start_empty();
        cluster.client().batch_execute("CREATE DATABASE album").unwrap();
        let mut client = cluster.client_of("postgres", "album");
        client.batch_execute(ALBUM).unwrap();
        let contents = value(&mut client, CONTENTS);
        let indexes: String = value(&mut client, INDEXES);
        // One more than have sizes: that of the partitioned table itself.
        assert_eq!(indexes.matches("USING ann").count(), SIZES.len() + 1, "{indexes}");
        Self { cluster, contents, indexes }
    }

    fn dump(&self, name: &str, arguments: &[&str]) -> String {
        let path = self.cluster.directory().join(name).display().to_string();
        run(self.cluster.program("pg_dump").args(["--dbname=album", "--file", &path]).args(arguments));
        path
    }

    fn create(&self, database: &str) {
        self.cluster.client().batch_execute(&format!("CREATE DATABASE {database}")).unwrap();
    }

    fn restore(&self, database: &str, path: &str, arguments: &[&str]) {
        let database = format!("--dbname={database}");
        run(self.cluster.program("pg_restore").args(["--exit-on-error", &database, path]).args(arguments));
    }

    fn psql(&self, database: &str, path: &str) {
        run(self.cluster.program("psql").args([
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            database,
            "-f",
            path,
        ]));
    }

    /// The copy has the same rows and indexes, and the indexes answer.
    #[track_caller]
    fn assert_copied(&self, database: &str) {
        let mut copy = self.cluster.client_of("postgres", database);
        copy.batch_execute("SET search_path = ''").unwrap();
        assert_eq!(value::<String>(&mut copy, CONTENTS), self.contents, "{database}");
        assert_eq!(value::<String>(&mut copy, INDEXES), self.indexes, "{database}");
        for (index, rows) in SIZES {
            assert_eq!(indexed_rows(&mut copy, index), rows, "{database}: {index}");
        }
        let query = "SELECT id FROM public.photos
            ORDER BY embedding OPERATOR(extensions.<=>) extensions.embed_text('thing number 42', 'starter') LIMIT 3";
        assert_eq!(ids(&by_index(&mut copy, query))[0], 42, "{database}");
        let query = "SELECT id FROM public.parts_2 ORDER BY embedding OPERATOR(extensions.<->) public.vec(700) LIMIT 3";
        assert_eq!(ids(&by_index(&mut copy, query))[0], 700, "{database}");
        assert_eq!(value::<i32>(&mut copy, "SELECT id FROM public.nearest LIMIT 1"), 7, "{database}");
    }
}

#[track_caller]
fn indexed_rows(client: &mut Client, index: &str) -> i64 {
    value(
        client,
        &format!("SELECT rows FROM extensions.ann_index_check('public.{index}', heapallindexed => true)"),
    )
}

#[test]
fn dumps_of_every_format_and_in_parts_restore_data_and_indexes() {
    let album = Album::new();
    let custom = album.dump("custom.dump", &["--format=custom"]);
    let folder = album.dump("folder", &["--format=directory", "--jobs=2"]);
    let archive = album.dump("archive.tar", &["--format=tar"]);
    for (database, path, jobs) in
        [("custom", &custom, "--jobs=1"), ("parallel", &folder, "--jobs=3"), ("tar", &archive, "--jobs=1")]
    {
        album.create(database);
        album.restore(database, path, &[jobs]);
        album.assert_copied(database);
    }

    // Section by section, in one transaction each, indexes last.
    album.create("sections");
    for section in ["pre-data", "data", "post-data"] {
        album.restore("sections", &custom, &["--single-transaction", &format!("--section={section}")]);
    }
    album.assert_copied("sections");

    // The schema first: then data fill indexes that are there, and generated columns are computed again.
    let schema = album.dump("schema.sql", &["--schema-only"]);
    let data = album.dump("data.sql", &["--data-only"]);
    album.create("parts");
    album.psql("parts", &schema);
    assert_eq!(
        indexed_rows(&mut album.cluster.client_of("postgres", "parts"), "photos_embedding"),
        0,
        "a schema has no rows"
    );
    album.psql("parts", &data);
    // pg_dump counts a refresh neither to the one nor to the other.
    let mut parts = album.cluster.client_of("postgres", "parts");
    parts.batch_execute("REFRESH MATERIALIZED VIEW public.halves").unwrap();
    album.assert_copied("parts");

    // One table of the archive; and the extension again, over a database that has everything.
    album.create("single");
    album
        .cluster
        .client_of("postgres", "single")
        .batch_execute("CREATE SCHEMA extensions; CREATE EXTENSION imgvec SCHEMA extensions")
        .unwrap();
    album.restore("single", &custom, &["--table=photos", "--index=photos_embedding"]);
    let mut single = album.cluster.client_of("postgres", "single");
    assert_eq!(value::<i64>(&mut single, "SELECT count(embedding) FROM public.photos"), 300);
    album.restore("custom", &custom, &["--clean", "--if-exists"]);
    album.assert_copied("custom");
}
