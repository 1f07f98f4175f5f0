//! The SQL of README.md, as somebody would paste it who reads it from the top.

use std::fs;

use crate::cluster::Cluster;
use crate::operations::pages::{blocks, statements};
use crate::{picture, value};

#[test]
fn what_the_readme_shows_works() {
    let cluster = Cluster::new("readme").start_empty();
    let mut client = cluster.client();
    let file = cluster.directory().join("dog.jpg");
    fs::write(&file, picture(1)).unwrap();
    let start = blocks("../README.md", "start").remove(0);
    assert!(start.contains("/srv/photos/dog.jpg"), "{start}");
    client.batch_execute(&start.replace("/srv/photos/dog.jpg", file.to_str().unwrap())).unwrap();
    assert_eq!(value::<i64>(&mut client, "SELECT count(*) FROM photos WHERE embedding IS NOT NULL"), 1);

    client
        .batch_execute(
            "ALTER TABLE photos ADD owner integer DEFAULT 7, ADD taken date DEFAULT '2026-02-01';
             INSERT INTO photos (data) SELECT data FROM photos;
             CREATE TABLE products (id integer PRIMARY KEY, photo bytea, embedding imgvec(256))",
        )
        .unwrap();
    for statement in statements(&blocks("../README.md", "lines").remove(0)) {
        let rows = client.query(&statement, &[]).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        assert!(!rows.is_empty() || statement.starts_with("CREATE"), "{statement}: no row");
    }
}
