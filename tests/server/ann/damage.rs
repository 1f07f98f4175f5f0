//! Bits of index files are flipped while the server is down. What then uses an index gives an answer or an error that
//! says the index is damaged; no process crashes, nothing hangs, the table is right, and REINDEX mends the index.
//!
//! `IMGVEC_FUZZ_INDEXES` sets the number of damaged indexes (default 24), `IMGVEC_FUZZ_SEED` the damage.

use std::fs;

use super::{VECTORS, number_from_environment, quiet};
use crate::{Random, value};

const ROWS: i64 = 120;
const PAGE_BYTES: usize = 8192;

/// Changes bits or bytes of some pages: half of the time the first two, on which everything depends, and half of the
/// time where headers are.
fn damage(file: &mut [u8], random: &mut Random) {
    let pages = file.len() / PAGE_BYTES;
    for _ in 0..=random.below(5) {
        let among = if random.below(2) == 0 { pages.min(2) } else { pages };
        let page = random.below(among);
        let among = if random.below(2) == 0 { 128 } else { PAGE_BYTES };
        let within = random.below(among);
        let at = page * PAGE_BYTES + within;
        match random.below(4) {
            0 => file[at] = [0, 1, 0x7f, 0xff][random.below(4)],
            1 => {
                let other = random.below(pages) * PAGE_BYTES;
                let length = 1 + random.below(PAGE_BYTES - within);
                file.copy_within(other + within..other + within + length, at);
            }
            _ => file[at] ^= 1 << random.below(8),
        }
    }
}

#[test]

fn flipped_bits_of_files_are_told_as_damage_at_most() {
    let count = number_from_environment("IMGVEC_FUZZ_INDEXES", 24);
    let seed = number_from_environment("IMGVEC_FUZZ_SEED", 7);
    let mut cluster = quiet("ann-damage").start();
    let mut client = cluster.client();
    client.batch_execute(VECTORS).unwrap();
    let mut files = Vec::new();
    for i in 0..count {
        let class = ["imgvec_l2_ops", "imgvec_cosine_ops", "imgvec_ip_ops"][i as usize % 3];
        client
            .batch_execute(&format!(
                "CREATE TABLE t{i} (id integer, embedding imgvec(96));
                 INSERT INTO t{i} SELECT i, vec(i % 100, 96) FROM generate_series(1, {ROWS}) AS i;
                 CREATE INDEX t{i}_embedding ON t{i} USING ann (embedding {class})"
            ))
            .unwrap();
        files.push(value::<String>(&mut client, &format!("SELECT pg_relation_filepath('t{i}_embedding')")));
    }
    drop(client);
    cluster.stop();
    let mut random = Random(seed);
    for file in files {
        let path = cluster.data().join(file);
        let mut bytes = fs::read(&path).unwrap();
        damage(&mut bytes, &mut random);
        fs::write(&path, bytes).unwrap();
    }
    cluster.start();

    let mut client = cluster.client();
    // Far beyond what any of these takes: this is about hanging.
    client
        .batch_execute("SET statement_timeout = '60s'; SET enable_seqscan = off; SET enable_sort = off")
        .unwrap();
    let (mut refused, mut wrong) = (0, Vec::new());
    for i in 0..count {
        let operator = ["<->", "<=>", "<#>"][i as usize % 3];
        let scan = format!("SELECT id FROM t{i} ORDER BY embedding {operator} vec(5, 96)");
        for statement in [
            format!("{scan} LIMIT 5"),
            scan,
            format!("SELECT ann_index_info('t{i}_embedding')"),
            format!("SELECT ann_index_check('t{i}_embedding', true)"),
            format!("INSERT INTO t{i} SELECT i, vec(i, 96) FROM generate_series(1001, 1005) AS i"),
            format!("DELETE FROM t{i} WHERE id % 7 = 3 OR id > 1000"),
            format!("VACUUM (INDEX_CLEANUP on) t{i}"),
            format!("ANALYZE t{i}"),
        ] {
            let Err(error) = client.simple_query(&statement) else { continue };
            let error = error.as_db_error().unwrap_or_else(|| panic!("seed {seed}: {statement}: {error:?}"));
            refused += 1;
            // The index is damaged; or the server itself finds so, in a page's header or when the numbers of a vector are
            // others than the table's.
            let is_told = match error.code().code() {
                "XX002" => true,
                "XX001" => error.message().starts_with("invalid page in block"),
                _ => error.message() == "index returned tuples in wrong order",
            };
            if !is_told {
                wrong.push(format!("{statement}: {} {}", error.code().code(), error.message()));
            }
        }
        for statement in [
            format!("REINDEX INDEX t{i}_embedding"),
            format!("DELETE FROM t{i} WHERE id % 7 = 3 OR id > 1000"),
            format!("VACUUM t{i}"),
        ] {
            client
                .batch_execute(&statement)
                .unwrap_or_else(|error| panic!("seed {seed}: {statement}: {error:?}"));
        }
        let rows: i64 = value(&mut client, &format!("SELECT (ann_index_check('t{i}_embedding', true)).rows"));
        assert_eq!(rows, ROWS - 17, "seed {seed}: t{i}");
    }
    eprintln!("{count} indexes, {refused} statements refused");
    assert!(refused > 0, "no damage was met");
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
}
