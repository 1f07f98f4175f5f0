//! Jobs of a picture library: the SQL of `docs/library.md` in its order, and what regression tests cannot show.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, imageops};
use postgres::Client;

use crate::cluster::Cluster;
use crate::operations::pages::{all_blocks, statements};
use crate::{failure, picture, value};

/// Pictures of eight motifs, each ten times: as it is, its file again, smaller, brighter, and with other corners.
fn fill(client: &mut Client) {
    let insert = client.prepare("INSERT INTO photos (owner, data) VALUES ($1, $2)").unwrap();
    for motif in 1..=8u32 {
        let original = image::load_from_memory(&picture(motif)).unwrap();
        for variant in 0..10u32 {
            let changed = match variant {
                0 | 1 => original.clone(),
                2 => original.resize_exact(40, 40, imageops::FilterType::Triangle),
                3 => original.brighten(12),
                _ => {
                    let mut changed = original.to_rgb8();
                    for at in 0..variant {
                        changed.put_pixel(at, variant, image::Rgb([255, 255, 255]));
                    }
                    DynamicImage::ImageRgb8(changed)
                }
            };
            let mut data = Cursor::new(Vec::new());
            changed.write_to(&mut data, ImageFormat::Png).unwrap();
            let owner = if variant < 5 { 1 } else { 2 };
            client.execute(&insert, &[&owner, &data.into_inner()]).unwrap();
        }
    }
}

#[test]
fn every_block_of_the_page_does_what_it_says() {
    let cluster = Cluster::new("library-docs").start();
    let mut client = cluster.client();
    let mut seen = Vec::new();
    for (label, block) in all_blocks("library.md") {
        let mut rows = Vec::new();
        if label == "incremental" {
            // A copy of a member, and a picture of nothing that is there.
            client
                .batch_execute("INSERT INTO photos (owner, data) SELECT 1, data FROM photos WHERE id = 1")
                .unwrap();
            client.execute("INSERT INTO photos (owner, data) VALUES (1, $1)", &[&picture(99)]).unwrap();
        }
        for statement in statements(&block) {
            rows = client.query(&statement, &[]).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        }
        let ids = || rows.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>();
        match label.as_str() {
            "tables" => {
                fill(&mut client);
                // Motif 1 is liked very much, motif 2 as well, and motif 3 is not.
                client
                    .batch_execute(
                        "INSERT INTO ratings VALUES (1, 1, 5), (1, 3, 5), (1, 11, 4), (1, 13, 5), (1, 21, 1)",
                    )
                    .unwrap();
            }
            "files" => assert_eq!(rows.len(), 8),
            "hashes" => {
                let same = rows
                    .iter()
                    .filter(|row| (row.get::<_, i64>(0) - 1) / 10 == (row.get::<_, i64>(1) - 1) / 10);
                assert_eq!(same.count(), rows.len(), "pairs are of one motif");
                // All but the few with many white dots.
                assert!(rows.len() > 8 * 30, "{}", rows.len());
            }
            "groups" => assert_eq!(rows.len(), 80),
            "one" => {
                let kept = ids();
                assert!((16..80).contains(&kept.len()), "{kept:?}");
                for motif in 0..8 {
                    assert!(kept.iter().any(|id| (id - 1) / 10 == motif), "{kept:?}");
                }
            }
            "index" => {}
            "pairs" => {
                let exact = "SELECT count(*) FROM photos a JOIN photos b ON a.id < b.id AND a.embedding <=> b.embedding <= 0.05";
                assert_eq!(rows.len() as i64, value::<i64>(&mut client, exact));
                assert!(rows.iter().all(|row| row.get::<_, f64>(2) <= 0.05));
            }
            "groups_of_all" => {
                let groups: Vec<Vec<i64>> = rows.iter().map(|row| row.get(1)).collect();
                assert!(groups.len() >= 8, "{groups:?}");
                assert!(
                    groups.iter().all(|group| group.iter().all(|id| (id - 1) / 10 == (group[0] - 1) / 10))
                );
            }
            "clusters" => {
                let pure: bool = value(
                    &mut client,
                    "SELECT bool_and(motifs = 1) AND count(*) = 8 FROM (SELECT count(DISTINCT (photo - 1) / 10) AS motifs
                     FROM albums WHERE album IS NOT NULL GROUP BY album) AS a",
                );
                assert!(pure);
            }
            "clusters_of_all" => {
                assert_eq!(rows.len(), 80);
                // One cluster a motif, and few rows in none.
                let of =
                    |row: &postgres::Row| ((row.get::<_, i64>(0) - 1) / 10, row.get::<_, Option<i32>>(1));
                let pairs: std::collections::BTreeSet<_> =
                    rows.iter().map(of).filter_map(|(motif, cluster)| Some((motif, cluster?))).collect();
                let clusters: std::collections::BTreeSet<_> = pairs.iter().map(|pair| pair.1).collect();
                assert_eq!((pairs.len(), clusters.len()), (8, 8), "{pairs:?}");
                assert!(rows.iter().filter(|row| of(row).1.is_none()).count() < 16);
            }
            "names" => assert_eq!(rows.len(), 8),
            "radius" => assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM radii"), 8),
            "incremental" => {
                let right: bool = value(
                    &mut client,
                    "SELECT (SELECT album FROM albums WHERE photo = 81) = (SELECT album FROM albums WHERE photo = 1)
                     AND (SELECT album IS NULL FROM albums WHERE photo = 82)",
                );
                assert!(right);
            }
            "taste" => {
                let found = ids();
                assert!(found[..10].iter().all(|id| (id - 1) / 10 < 2), "{found:?}");
            }
            "diverse" | "interests" => assert_eq!(rows.len(), 20, "{label}"),
            "range" | "count" => {
                // How near the model finds these pictures to the word is its own affair.
                let number = |rows: &[postgres::Row]| match label.as_str() {
                    "range" => rows.len() as i64,
                    _ => rows[0].get(0),
                };
                let exact =
                    "SELECT count(*) FROM photos WHERE embedding <=> embed_text('flower', 'starter') <= 0.8";
                assert_eq!(number(&rows), value::<i64>(&mut client, exact), "{label}");
                let wider = client.query(&block.replace("0.8", "2"), &[]).unwrap();
                assert_eq!(number(&wider), 82, "{label}");
            }
            "map" => assert_eq!(rows.len(), 82),
            "tiles" => assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM tiles"), 82 * 10),
            "small" => {
                let found = ids();
                let exact = client
                    .query(
                        "SELECT photo, min(embedding <=> embed_text('flower', 'starter')) FROM tiles GROUP BY 1 ORDER BY 2 LIMIT 20",
                        &[],
                    )
                    .unwrap();
                // Copies are equally near, and the index may leave a tile out.
                let last: f64 = exact[19].get(1);
                let near = rows.iter().filter(|row| row.get::<_, f64>(2) <= last + 1e-6).count();
                assert!(near >= 18, "{near} of {}", rows.len());
                let distinct: std::collections::BTreeSet<_> = found.iter().collect();
                assert_eq!((found.len(), distinct.len()), (20, 20));
            }
            "region" => {
                assert_eq!(rows.len(), 10);
                let same = "SELECT bool_and(embed_image(data, region => region, model => 'starter') <=> t.embedding < 1e-6)
                            FROM tiles t JOIN photos ON id = photo WHERE photo = 1";
                assert!(value::<bool>(&mut client, same));
            }
            other => panic!("no test looks at block {other:?}"),
        }
        seen.push(label);
    }
    assert!(seen.len() >= 15, "{seen:?}");
}

/// A picture of 1,024 x 768 pixels with another of 64 x 64 in it.
fn with_a_small_picture(small: &[u8]) -> Vec<u8> {
    let mut large =
        image::RgbImage::from_fn(1024, 768, |x, y| image::Rgb([(x / 8) as u8, (y / 4) as u8, 90]));
    imageops::overlay(&mut large, &image::load_from_memory(small).unwrap().to_rgb8(), 704, 192);
    let mut data = Cursor::new(Vec::new());
    large.write_to(&mut data, ImageFormat::Png).unwrap();
    data.into_inner()
}

#[test]
fn a_small_thing_is_found_by_a_tile_and_its_place_is_told() {
    let cluster = Cluster::new("library-tiles").start();
    let mut client = cluster.client();
    let small = picture(5);
    client
        .batch_execute("CREATE TABLE large (id integer, data bytea); CREATE TABLE tiles (id integer, region box, embedding imgvec)")
        .unwrap();
    for (id, thing) in [(1, picture(4)), (2, small.clone()), (3, picture(6))] {
        client.execute("INSERT INTO large VALUES ($1, $2)", &[&id, &with_a_small_picture(&thing)]).unwrap();
    }
    // Tiles of 64 pixels: one of them is the small picture.
    client.batch_execute("INSERT INTO tiles SELECT id, t.* FROM large, image_tiles(data, 12, 0) t").unwrap();
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM tiles"), 3 * (1 + 12 * 16));
    let found = client
        .query_one(
            "SELECT id, region::text, embedding <=> embed_image($1) < 1e-5 FROM tiles ORDER BY embedding <=> embed_image($1) LIMIT 1",
            &[&small],
        )
        .unwrap();
    assert_eq!(
        (found.get::<_, i32>(0), found.get::<_, String>(1), found.get::<_, bool>(2)),
        (2, "(768,256),(704,192)".to_owned(), true)
    );
    let part = "SELECT embed_image(data, region => '((704,192),(768,256))') <=> embed_image($1) < 1e-5 FROM large WHERE id = 2";
    assert!(client.query_one(part, &[&small]).unwrap().get::<_, bool>(0));

    // Each region is asked of the model once in a session.
    let counts = "SELECT images_embedded FROM imgvec_backend_stats";
    let before: i64 = value(&mut client, counts);
    assert!(client.query_one(part, &[&small]).unwrap().get::<_, bool>(0));
    assert_eq!(value::<i64>(&mut client, counts), before);

    client.batch_execute("SET statement_timeout = '30ms'").unwrap();
    let error = failure(&mut client, "SELECT count(*) FROM large, image_tiles(data, 16, 0.9)");
    assert_eq!(error.code().code(), "57014", "{error:?}");
    client.batch_execute("RESET statement_timeout").unwrap();
    assert!(client.query_one(part, &[&small]).unwrap().get::<_, bool>(0));
}

/// A partition that takes minutes.
const MANY: &str = "CREATE TABLE many AS SELECT i, (SELECT array_agg(sin(i * j)) FROM generate_series(1, 64) AS j)::imgvec AS embedding
    FROM generate_series(1, 30000) AS i";

#[test]
fn a_call_over_many_rows_ends_when_it_is_cancelled() {
    let cluster = Cluster::new("library-cancel").start();
    let mut client = cluster.client();
    client.batch_execute(MANY).unwrap();
    for call in [
        "duplicate_group(embedding, 0.0001)",
        "cluster(embedding, 5)",
        "diverse_rank(embedding, i, 0.5)",
        "embedding_map(embedding)",
    ] {
        client.batch_execute("SET statement_timeout = '200ms'").unwrap();
        let error = failure(&mut client, &format!("SELECT {call} OVER () FROM many"));
        assert_eq!(error.code().code(), "57014", "{call}: {error:?}");
    }
    client
        .batch_execute("RESET statement_timeout; CREATE INDEX many_embedding ON many USING ann (embedding)")
        .unwrap();
    for call in [
        "ann_pairs('many_embedding', 0.3)",
        "ann_groups('many_embedding', 0.3)",
        "ann_clusters('many_embedding')",
    ] {
        client.batch_execute("SET statement_timeout = '20ms'").unwrap();
        let error = failure(&mut client, &format!("SELECT count(*) FROM {call}"));
        assert_eq!(error.code().code(), "57014", "{call}: {error:?}");
    }
    // The backend goes on.
    client.batch_execute("RESET statement_timeout").unwrap();
    let rows = client.query("SELECT cluster(embedding, 5) OVER () FROM many WHERE i <= 10", &[]).unwrap();
    assert_eq!(rows.len(), 10);
}

/// Pairs of an index are those of the table, while rows come, change and go, and on a standby.
#[test]
fn pairs_are_those_of_the_table_whatever_happens_to_its_rows() {
    let cluster = Cluster::new("library-pairs").start();
    let mut client = cluster.client();
    client
        .batch_execute(
            "CREATE TABLE many (id integer, note text, embedding imgvec(16));
             CREATE INDEX many_embedding ON many USING ann (embedding);
             CREATE FUNCTION motif(i integer) RETURNS imgvec LANGUAGE sql IMMUTABLE AS $$
                 SELECT (SELECT array_agg(sin((i / 3) * j) + 0.02 * cos(i * j)) FROM generate_series(1, 16) AS j)::imgvec $$;
             INSERT INTO many SELECT i, 'a', motif(i) FROM generate_series(1, 3000) AS i",
        )
        .unwrap();
    let differ = |client: &mut Client| -> i64 {
        value(
            client,
            "WITH found AS (SELECT a.id AS a, b.id AS b FROM ann_pairs('many_embedding', 0.005) p
                 JOIN many a ON a.ctid = p.a JOIN many b ON b.ctid = p.b),
             exact AS (SELECT a.id AS a, b.id AS b FROM many a JOIN many b ON a.ctid < b.ctid AND a.embedding <=> b.embedding <= 0.005)
             SELECT count(*) FROM (SELECT least(a, b), greatest(a, b) FROM found) f
             FULL JOIN (SELECT least(a, b), greatest(a, b) FROM exact) e USING (least, greatest)
             WHERE f IS NULL OR e IS NULL",
        )
    };
    let count =
        |client: &mut Client| value::<i64>(client, "SELECT count(*) FROM ann_pairs('many_embedding', 0.005)");
    assert!(count(&mut client) > 1000);
    assert_eq!(differ(&mut client), 0);
    for change in [
        "UPDATE many SET note = 'b' WHERE id % 2 = 0",
        "UPDATE many SET embedding = motif(id + 1) WHERE id % 5 = 0",
        "DELETE FROM many WHERE id % 7 = 0",
        "VACUUM many",
        "INSERT INTO many SELECT i, 'c', motif(i) FROM generate_series(1, 200) AS i",
        "REINDEX TABLE many",
    ] {
        client.batch_execute(change).unwrap();
        assert_eq!(differ(&mut client), 0, "{change}");
    }
    // An older snapshot sees the rows that it saw.
    let mut other = cluster.client();
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    let before = count(&mut client);
    other.batch_execute("DELETE FROM many WHERE id < 1000; INSERT INTO many SELECT 1, 'd', motif(1) FROM generate_series(1, 20)").unwrap();
    assert_eq!(count(&mut client), before);
    client.batch_execute("COMMIT").unwrap();
    assert_ne!(count(&mut client), before);
    assert_eq!(differ(&mut client), 0);
    let standby = cluster.standby("library-pairs-standby");
    cluster.wait_for(&standby);
    assert_eq!(count(&mut standby.client()), count(&mut client));
}
