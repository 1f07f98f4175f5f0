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
            "clusters" => {
                let pure: bool = value(
                    &mut client,
                    "SELECT bool_and(motifs = 1) AND count(*) = 8 FROM (SELECT count(DISTINCT (photo - 1) / 10) AS motifs
                     FROM albums WHERE album IS NOT NULL GROUP BY album) AS a",
                );
                assert!(pure);
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
            "range" => assert!(!rows.is_empty()),
            "count" => assert!(rows[0].get::<_, i64>(0) > 0),
            "map" => assert_eq!(rows.len(), 82),
            other => panic!("no test looks at block {other:?}"),
        }
        seen.push(label);
    }
    assert!(seen.len() >= 15, "{seen:?}");
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
    // The backend goes on.
    client.batch_execute("RESET statement_timeout").unwrap();
    let rows = client.query("SELECT cluster(embedding, 5) OVER () FROM many WHERE i <= 10", &[]).unwrap();
    assert_eq!(rows.len(), 10);
}
