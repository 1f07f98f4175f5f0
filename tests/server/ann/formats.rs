//! An index of format 1, as release 0.1.0 wrote it, goes on working in a server of today, tells its format, and gets the
//! new one by REINDEX. Its pages are written by the crate that can still make them, in the place of those of today.

use std::fs;
use std::sync::atomic::AtomicBool;

use imgvec_ann::Metric;
use imgvec_ann::build::executor::Threads;
use imgvec_ann::build::{Builder, Parameters};
use imgvec_ann::layout::{BlockNumber, Geometry, HeapTid};
use imgvec_ann::store::PageStore;
use imgvec_ann::store::mem::MemStore;

use super::{CREATE_INDEX, DIM, assert_sound, check, create_items, insert_items, quiet};
use crate::value;

const ROWS: i32 = 1500;
const BLOCK_BYTES: usize = 8192;
const HEADER_BYTES: usize = 24;

/// The pages of an index of format 1.
fn pages_of_format_1(rows: &[(HeapTid, Vec<f32>)]) -> Vec<Vec<u8>> {
    let geometry = Geometry::new(DIM as usize).unwrap().in_format_1();
    let sample: Vec<&[f32]> = rows.iter().step_by(3).map(|(_, vector)| &vector[..]).collect();
    let parameters = Parameters::default();
    let mut builder = Builder::new(Metric::L2, geometry, 42, &sample, usize::MAX, parameters).unwrap();
    for (tid, vector) in rows {
        builder.add(vector, *tid).unwrap();
    }
    let (cancel, mut store) = (AtomicBool::new(false), MemStore::new());
    builder.finish(&Threads::new(1, &cancel), &mut store, &mut |_| ()).unwrap();
    (0..store.block_count().unwrap()).map(|block| store.read(BlockNumber(block)).unwrap().to_vec()).collect()
}

fn numbers<T: std::str::FromStr>(text: &str) -> Vec<T> {
    let inner = text.trim_matches(['[', ']', '(', ')']);
    inner.split(',').map(|number| number.parse().ok().expect("a number")).collect()
}

#[test]
fn an_index_of_format_1_lives_on_and_tells_what_it_is() {
    let mut cluster = quiet("ann-formats").start();
    let mut client = cluster.client();
    create_items(&mut client, ROWS);
    client.batch_execute(&format!("{CREATE_INDEX}; CHECKPOINT")).unwrap();
    let format = "SELECT format_version FROM ann_index_info('items_embedding')";
    assert_eq!(value::<i32>(&mut client, format), 2);
    let rows = client.query("SELECT ctid::text, embedding::text FROM items", &[]).unwrap();
    let rows: Vec<(HeapTid, Vec<f32>)> = rows
        .iter()
        .map(|row| {
            let tid = numbers::<u32>(row.get(0));
            (HeapTid { block: tid[0], offset: u16::try_from(tid[1]).unwrap() }, numbers(row.get(1)))
        })
        .collect();
    let path: String = value(&mut client, "SELECT pg_relation_filepath('items_embedding')");
    drop(client);

    cluster.stop();
    // Servers with checksums would find those of the old pages. Where there are none, this refuses, which is as good.
    let mut without = cluster.command_of_server_user(cluster.program("pg_checksums").get_program());
    let _ = without.args(["--disable", "--pgdata"]).arg(cluster.data()).output().unwrap();
    let path = cluster.data().join(path);
    let header = fs::read(&path).unwrap()[..HEADER_BYTES].to_vec();
    let pages = pages_of_format_1(&rows);
    assert!(pages.iter().all(|page| page.len() == BLOCK_BYTES - HEADER_BYTES));
    let file: Vec<u8> = pages.iter().flat_map(|page| header.iter().chain(page).copied()).collect();
    fs::write(&path, file).unwrap();
    cluster.start();

    let mut client = cluster.client();
    assert_eq!(value::<i32>(&mut client, format), 1);
    assert_eq!(check(&mut client, "items_embedding").rows, i64::from(ROWS));
    assert_sound(&mut client);
    insert_items(&mut client, ROWS + 1, ROWS + 300);
    client.batch_execute("DELETE FROM items WHERE id % 5 = 0").unwrap();
    client.batch_execute("VACUUM items").unwrap();
    assert_sound(&mut client);
    assert_eq!(value::<i32>(&mut client, format), 1);
    client.batch_execute("REINDEX INDEX items_embedding").unwrap();
    assert_eq!(value::<i32>(&mut client, format), 2);
    assert_sound(&mut client);
}
