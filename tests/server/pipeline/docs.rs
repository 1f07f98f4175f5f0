//! The SQL of `docs/pipeline.md`, in the order of the page.

use super::{run, start};
use crate::operations::pages::{all_blocks, statements};
use crate::{picture, value};

/// Labels of blocks that no test runs: pg_cron is not at hand.
const NOT_RUN: [&str; 1] = ["cron"];

#[test]
fn every_block_of_the_page_does_what_it_says() {
    let (_cluster, mut client) = start("pipeline-docs");
    for (label, block) in all_blocks("pipeline.md") {
        if NOT_RUN.contains(&label.as_str()) {
            continue;
        }
        if label == "work" {
            for seed in 1..=20 {
                client
                    .execute("INSERT INTO photos (data, title) VALUES ($1, 'picture')", &[&picture(seed)])
                    .unwrap();
            }
            client.execute("INSERT INTO photos (data) VALUES ($1)", &[&b"broken".as_slice()]).unwrap();
        }
        for statement in statements(&block) {
            run(&mut client, &statement);
        }
        match label.as_str() {
            "work" => assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM photos"), 20),
            "look" => assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM imgvec_failures"), 1),
            "retry" => {
                run(&mut client, "CALL imgvec_work()");
                assert_eq!(value::<i64>(&mut client, "SELECT count(title_embedding) FROM photos"), 20);
            }
            "migrate" => {
                assert_eq!(value::<i64>(&mut client, "SELECT count(embedding) FROM photos"), 20);
                assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM imgvec_progress"), 2);
                client.execute("INSERT INTO photos (data) VALUES ($1)", &[&picture(100)]).unwrap();
                run(&mut client, "CALL imgvec_work('photos')");
                let right = "SELECT count(*) FROM (SELECT * FROM photos WHERE embedding IS NOT NULL OFFSET 0) AS p WHERE abs(embedding <=> embed_image(data, 'starter')) < 1e-5
                    AND embedding IS NOT NULL AND id > 1";
                assert_eq!(value::<i64>(&mut client, right), 20);
            }
            "search" => {
                let same =
                    "SELECT embed_text_for('photos', 'embedding', 'a dog') = embed_text('a dog', 'starter')";
                assert!(value::<bool>(&mut client, same));
            }
            _ => {}
        }
    }
}
