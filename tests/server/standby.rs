//! A standby embeds too: nothing of ours writes to the database, and what it keeps are files of its own.

use crate::cluster::Cluster;
use crate::{create_pictures, value};

#[test]
fn a_standby_embeds_and_finds_the_same_rows() {
    const SEARCH: &str = "SELECT string_agg(id::text, ' ') FROM
        (SELECT id FROM pictures ORDER BY embed_image(data) <=> embed_text('dog') LIMIT 10) AS nearest";
    let primary = Cluster::new("primary").start();
    let mut client = primary.client();
    create_pictures(&mut client, 40);
    let standby = primary.standby("standby");
    client.batch_execute("DELETE FROM pictures WHERE id <= 5").unwrap();
    primary.wait_for(&standby);
    let mut reader = standby.client();
    assert!(value::<bool>(&mut reader, "SELECT pg_is_in_recovery()"));
    let expected: String = value(&mut client, SEARCH);
    assert_eq!(expected.split(' ').count(), 10);
    assert_eq!(value::<String>(&mut reader, SEARCH), expected);

    standby.promote();
    reader.batch_execute("DELETE FROM pictures WHERE id > 20").unwrap();
    assert_eq!(value::<i64>(&mut reader, "SELECT count(embed_image(data)) FROM pictures"), 15);
}
