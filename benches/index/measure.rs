//! What is measured of one data set.

use crate::cluster::Cluster;
use crate::contestant::{Contestant, Kind};
use crate::data::Set;
use crate::{changes, defaults, filters, search};

/// Parts of the measurement, in their order.
pub const PARTS: [&str; 5] = ["search", "defaults", "filters", "grown", "changes"];

/// Loads a set for every contestant, measures them, and drops the tables.
pub fn run(cluster: &Cluster, set: &Set, kinds: &[Kind], parts: &[String]) {
    println!("\n## {}: {} x {}, {}", set.name, set.loaded, set.dim(), set.metric.name());
    let has = |part: &str| parts.iter().any(|p| p == part);
    let memory_mb = ((set.loaded * (set.dim() * 4 + 2_048)) >> 20).max(64) * 2;
    let mut all: Vec<Contestant> = kinds
        .iter()
        .filter(|kind| kind.keys.is_empty() || has("filters"))
        .map(|&kind| Contestant::new(kind, cluster, set, memory_mb))
        .collect();
    println!("\n{:10} {:>8} {:>8} {:>11} {:>10}", "build", "wall s", "CPU s", "index B/row", "WAL B/row");
    for one in all.iter_mut().filter(|one| one.is_index()) {
        let (cost, wal) = one.build();
        let bytes = one.session.number(&format!("SELECT pg_relation_size('{}')", one.index));
        let rows = set.loaded as f64;
        println!(
            "{:10} {:8.1} {:8.1} {:11.0} {:10.0}",
            one.kind.name,
            cost.wall_seconds,
            cost.cpu_seconds,
            bytes / rows,
            wal / rows
        );
    }
    if has("search") {
        for queries in &set.queries {
            search::search(set, queries, &mut all);
        }
    }
    if has("defaults") {
        defaults::run(set, &mut all);
    }
    if has("filters") {
        filters::run(set, &mut all);
    }
    if has("grown") {
        for one in all.iter_mut().filter(|one| one.is_ours() && !one.has_keys()) {
            changes::grown(set, one);
        }
    }
    if has("changes") {
        for one in all.iter_mut().filter(|one| one.is_index()) {
            changes::find_themselves(set, one);
        }
        for one in &mut all {
            changes::changes(set, memory_mb, one);
        }
    }
    for one in &mut all {
        one.session.run(&format!("DROP TABLE {}", one.table));
    }
}
