//! Points of the code that can be told to fail, in builds with debug assertions; see `src/fault.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::cluster::Cluster;

/// Ways to fail, by the numbers of `imgvec.fault_kind`, and the SQLSTATE of each.
pub const KINDS: [(&str, &str); 4] =
    [("error", "XX000"), ("panic", "XX000"), ("cancel", "57014"), ("no memory", "53200")];

/// What the log has told since the last look, of lines that begin like this: the place in each.
pub fn told(cluster: &Cluster, seen: &mut usize, begin: &str) -> Vec<String> {
    let log = cluster.log();
    let new = log[*seen..].lines().filter_map(|line| line.split_once(begin)?.1.split_once(": "));
    let places = new.map(|(_, place)| place.to_owned()).collect();
    *seen = log.len();
    places
}

/// Which points are to fail: of each place, all of them or the first two, one in the midst and the last two, counted
/// from 1.
pub fn chosen(points: &[String], all: bool) -> Vec<(&str, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for place in points {
        *counts.entry(place).or_insert(0) += 1;
    }
    let mut chosen = Vec::new();
    for (place, count) in counts {
        let some = BTreeSet::from([1, 2, count / 2, count - 1, count]);
        let some = some.into_iter().filter(|&n| (1..=count).contains(&n));
        let numbers: Vec<usize> = if all { (1..=count).collect() } else { some.collect() };
        chosen.extend(numbers.into_iter().map(|n| (place, n)));
    }
    chosen
}

/// Places in the source that can be told to fail.
pub fn places_in_source(directories: &[&str]) -> BTreeSet<String> {
    let mut places = BTreeSet::new();
    for directory in directories {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            places.extend(
                text.split("fault::point(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()),
            );
        }
    }
    places
}
