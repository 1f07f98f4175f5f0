//! pg_upgrade takes databases with `ann` indexes as they are: files are linked, nothing is built again. Always from
//! the server's version to itself; from an older one where `tests/pg-upgrade.sh` has put its installation.

use std::path::{Path, PathBuf};
use std::{env, fs};

use postgres::Client;

use crate::ann::{
    CREATE_INDEX, assert_each_row_once, by_index, check, create_items, ids, quiet, recall, script,
};
use crate::cluster::{Stage, run};
use crate::{skip, value};

/// Indexes and the rows in them.
const INDEXES: [(&str, i64); 5] = [
    ("items_embedding", 1500),
    ("photos_embedding", 200),
    ("parts_1_embedding_idx", 300),
    ("parts_2_embedding_idx", 300),
    ("halves_embedding", 150),
];

const CONTENTS: &str = "SELECT md5(string_agg(line, ',' ORDER BY line)) FROM (SELECT items::text AS line FROM items
    UNION ALL SELECT photos::text FROM photos UNION ALL SELECT parts::text FROM parts UNION ALL SELECT halves::text FROM halves) AS everything";

fn is_available(client: &mut Client, extension: &str) -> bool {
    let query = format!("SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = '{extension}')");
    value(client, &query)
}

/// The last lines of each log below a directory: pg_upgrade names the one that says why.
fn ends_of_logs(directory: &Path) -> String {
    let mut ends = String::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            ends += &ends_of_logs(&path);
        } else if let Ok(log) = fs::read_to_string(&path) {
            let lines: Vec<&str> = log.lines().rev().take(12).collect();
            let lines: Vec<&str> = lines.into_iter().rev().collect();
            ends += &format!("{}:\n{}\n", path.display(), lines.join("\n"));
        }
    }
    ends
}

fn upgrade(name: &str, old_stage: Stage) {
    let mut old = quiet(&format!("{name}-old")).stage(old_stage).start();
    let mut new = quiet(&format!("{name}-new")).start_empty();
    let mut client = old.client();
    let with_pgvector = is_available(&mut client, "vector") && is_available(&mut new.client(), "vector");
    create_items(&mut client, 1500);
    script(
        &mut client,
        &format!(
            "{CREATE_INDEX} WITH (ef_search = 130); DELETE FROM items WHERE id % 10 = 0; VACUUM items;
             INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(2001, 2150) AS i;
             CREATE TABLE photos (id integer PRIMARY KEY, caption text, embedding imgvec(256)
                 GENERATED ALWAYS AS (embed_text(caption, 'starter')) STORED);
             INSERT INTO photos SELECT i, 'thing number ' || i FROM generate_series(1, 200) AS i;
             CREATE INDEX photos_embedding ON photos USING ann (embedding);
             CREATE TABLE parts (id integer, embedding imgvec(16)) PARTITION BY HASH (id);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE parts_2 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             CREATE INDEX parts_embedding ON parts USING ann (embedding imgvec_ip_ops);
             INSERT INTO parts_1 SELECT i, vec(i, 16) FROM generate_series(1, 2000) AS i
                 WHERE satisfies_hash_partition('parts'::regclass, 2, 0, i) LIMIT 300;
             INSERT INTO parts_2 SELECT i, vec(i, 16) FROM generate_series(1, 2000) AS i
                 WHERE satisfies_hash_partition('parts'::regclass, 2, 1, i) LIMIT 300;
             CREATE MATERIALIZED VIEW halves AS SELECT id, embedding FROM items WHERE id > 2000;
             CREATE INDEX halves_embedding ON halves USING ann (embedding)"
        ),
    );
    if with_pgvector {
        script(
            &mut client,
            "CREATE EXTENSION imgvec_pgvector CASCADE;
             CREATE TABLE theirs (id integer PRIMARY KEY, single vector(16), half halfvec(16));
             INSERT INTO theirs SELECT i, vec(i, 16), vec(i, 16) FROM generate_series(1, 400) AS i;
             CREATE INDEX theirs_single ON theirs USING ann (single vector_l2_ops);
             CREATE INDEX theirs_half ON theirs USING ann (half);
             CREATE INDEX theirs_hnsw ON theirs USING hnsw (single vector_cosine_ops)",
        );
    }
    let files = "SELECT string_agg(relname || ' ' || pg_relation_filenode(c.oid), ', ' ORDER BY relname) FROM pg_class c
        JOIN pg_am a ON a.oid = relam WHERE amname = 'ann' AND relkind = 'i'";
    let members = "SELECT string_agg(f.opfname || ' ' || amopopr::regoperator::text, ', ' ORDER BY f.opfname, amopopr::regoperator::text)
        FROM pg_amop o JOIN pg_opfamily f ON f.oid = o.amopfamily JOIN pg_am a ON a.oid = o.amopmethod WHERE a.amname = 'ann'";
    let contents: String = value(&mut client, CONTENTS);
    let old_files: String = value(&mut client, files);
    let old_members: String = value(&mut client, members);
    let old_checksums: String = value(&mut client, "SHOW data_checksums");
    let new_checksums: String = value(&mut new.client(), "SHOW data_checksums");
    drop(client);
    old.stop();
    new.stop();
    if old_checksums != new_checksums {
        let to = if new_checksums == "on" { "--enable" } else { "--disable" };
        run(old
            .command_of_server_user(old.stage().program("pg_checksums"))
            .args([to, "--no-sync", "-D"])
            .arg(old.data()));
    }
    let mut pg_upgrade = new.command_of_server_user(new.stage().program("pg_upgrade"));
    pg_upgrade
        .current_dir(new.directory())
        .args(["--link", "--username=postgres", "--old-bindir"])
        .arg(old.stage().program(""))
        .arg("--new-bindir")
        .arg(new.stage().program(""))
        .arg("--old-datadir")
        .arg(old.data())
        .arg("--new-datadir")
        .arg(new.data())
        .arg("--socketdir")
        .arg(new.directory())
        .env_remove("PGOPTIONS");
    let output = pg_upgrade.output().unwrap();
    assert!(
        output.status.success(),
        "pg_upgrade: {}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        ends_of_logs(&new.data().join("pg_upgrade_output.d"))
    );

    new.start();
    let mut client = new.client();
    assert_eq!(value::<String>(&mut client, CONTENTS), contents);
    assert_eq!(value::<String>(&mut client, members), old_members);
    // Since PostgreSQL 15 files even keep their numbers.
    assert_eq!(value::<String>(&mut client, files), old_files);
    for (index, rows) in INDEXES {
        assert_eq!(check(&mut client, index).rows, rows, "{index}");
    }
    let definition: String = value(&mut client, "SELECT pg_get_indexdef('items_embedding'::regclass)");
    assert!(definition.contains("ef_search='130'"), "{definition}");
    assert_each_row_once(&mut client, "items", "<->", "vec(-1, 16)");
    assert!(recall(&mut client, "items", "<->", 16, 40, 10) >= 0.9);
    let nearest =
        "SELECT id FROM photos ORDER BY embedding <=> embed_text('thing number 42', 'starter') LIMIT 2";
    assert_eq!(ids(&by_index(&mut client, nearest))[0], 42);
    if with_pgvector {
        for index in ["theirs_single", "theirs_half"] {
            assert_eq!(check(&mut client, index).rows, 400, "{index}");
        }
        let nearest = "SELECT id FROM theirs ORDER BY single <-> vec(42, 16)::vector LIMIT 2";
        assert_eq!(ids(&by_index(&mut client, nearest))[0], 42);
        let mixed = "SELECT id FROM items ORDER BY embedding <-> vec(42, 16)::vector LIMIT 2";
        assert_eq!(ids(&by_index(&mut client, mixed))[0], 42);
    }
    // The index goes on: changes, vacuum, a rebuild, and the extension can be dropped whole.
    script(
        &mut client,
        "DELETE FROM items WHERE id % 3 = 0; UPDATE items SET embedding = vec(id + 10000, 16) WHERE id % 7 = 0; VACUUM items;
         INSERT INTO items SELECT i, vec(i, 16) FROM generate_series(3001, 3300) AS i",
    );
    check(&mut client, "items_embedding");
    assert_each_row_once(&mut client, "items", "<->", "vec(-1, 16)");
    script(&mut client, "REINDEX INDEX CONCURRENTLY items_embedding");
    check(&mut client, "items_embedding");
    script(&mut client, "DROP EXTENSION imgvec CASCADE");
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM pg_am WHERE amname = 'ann'"), 0);
}

#[test]
fn pg_upgrade_keeps_indexes_of_the_same_version() {
    upgrade("upgrade", Stage::from_environment());
}

#[test]
fn pg_upgrade_keeps_indexes_of_an_older_version() {
    let Some(root) = env::var_os("IMGVEC_OLD_STAGE").filter(|root| !root.is_empty()) else {
        skip(
            "pg_upgrade from an older version",
            "IMGVEC_OLD_STAGE names no installation; tests/pg-upgrade.sh makes one",
            "IMGVEC_REQUIRE_OLD_STAGE",
        );
        return;
    };
    upgrade("upgrade-major", Stage::at(PathBuf::from(root)));
}
