//! A base backup and the archived log give the index as it was at a named moment, with everything before it
//! and nothing after.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::{CREATE_INDEX, assert_sound, create_items, insert_items, quiet, script};
use crate::cluster::{Cluster, run};
use crate::value;

const CONTENT: &str = "SELECT md5(string_agg(id || ' ' || embedding::text, ',' ORDER BY id)) FROM items";

/// Waits until something is true on a server, asked by SQL.
#[track_caller]
fn wait_until(cluster: &Cluster, condition: &str) {
    let begin = Instant::now();
    let mut client = cluster.client();
    while !value::<bool>(&mut client, &format!("SELECT {condition}")) {
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {condition}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_backup_recovers_the_index_to_a_named_moment() {
    let mut primary = quiet("ann-archive").start();
    let archive = primary.directory().join("archive");
    fs::create_dir(&archive).unwrap();
    primary.give(&archive);
    let archive = archive.display();
    primary.conf(&format!("archive_mode = on\narchive_command = 'cp %p {archive}/%f'"));
    primary.restart();
    let mut client = primary.client();
    create_items(&mut client, 1000);
    client.batch_execute(CREATE_INDEX).unwrap();
    let backup = primary.directory().join("backup");
    let pg_basebackup = &mut primary.program("pg_basebackup");
    run(pg_basebackup.args(["--checkpoint=fast", "--no-sync", "--pgdata"]).arg(&backup));

    insert_items(&mut client, 1001, 1500);
    script(&mut client, "DELETE FROM items WHERE id % 4 = 0; VACUUM items");
    insert_items(&mut client, 1501, 2000);
    client.batch_execute("UPDATE items SET embedding = vec(id + 1000000, 16) WHERE id % 9 = 0").unwrap();
    let expected: String = value(&mut client, CONTENT);
    let last: String = value(&mut client, "SELECT pg_walfile_name(pg_create_restore_point('wanted'))");
    script(&mut client, "DELETE FROM items WHERE id % 2 = 1; VACUUM items");
    insert_items(&mut client, 3001, 3400);
    client.batch_execute("REINDEX INDEX items_embedding; SELECT pg_switch_wal()").unwrap();
    wait_until(&primary, &format!("coalesce(last_archived_wal >= '{last}', false) FROM pg_stat_archiver"));

    // A directory and a running server's place in it, for the data of another.
    let mut restored = Cluster::new("ann-restored").start_empty();
    restored.stop();
    fs::remove_dir_all(restored.data()).unwrap();
    fs::rename(&backup, restored.data()).unwrap();
    fs::write(restored.data().join("recovery.signal"), "").unwrap();
    restored.conf(&format!(
        "unix_socket_directories = '{}'
         archive_mode = off
         restore_command = 'cp {archive}/%f %p'
         recovery_target_name = 'wanted'
         recovery_target_action = 'promote'",
        restored.directory().display()
    ));
    restored.give(&restored.data());
    restored.start();
    wait_until(&restored, "NOT pg_is_in_recovery()");

    let mut client = restored.client();
    assert_eq!(value::<String>(&mut client, CONTENT), expected);
    assert_sound(&mut client);
    insert_items(&mut client, 5001, 5300);
    client.batch_execute("VACUUM items").unwrap();
    assert_sound(&mut client);
}
