use super::*;
use crate::random::SplitMix64;
use proptest::prelude::*;

fn of_line(points: &[f64], min_size: usize) -> Clusters {
    exact(points.len(), min_size, |a, b| (points[a] - points[b]).abs(), &mut || ())
}

#[test]
fn two_heaps_and_a_stray() {
    let points = [0.0, 0.1, 0.2, 0.3, 9.0, 9.1, 9.2, 50.0];
    let found = of_line(&points, 3);
    assert_eq!(found.labels, [Some(0), Some(0), Some(0), Some(0), Some(1), Some(1), Some(1), None]);
    assert_eq!(found.strengths[7], 0.0);
    assert!(found.strengths[..7].iter().all(|&strength| strength > 0.0 && strength <= 1.0));
}

#[test]
fn few_rows_are_noise_and_equal_rows_one_cluster() {
    for count in 0..5 {
        assert_eq!(of_line(&vec![1.0; count], 5).labels, vec![None; count]);
    }
    let found = of_line(&[1.0; 5], 5);
    assert_eq!((found.labels, found.strengths), (vec![Some(0); 5], vec![1.0; 5]));
    // Two heaps of equal rows.
    let found = of_line(&[1.0, 2.0, 1.0, 2.0, 1.0], 2);
    assert_eq!(found.labels, [Some(0), Some(1), Some(0), Some(1), Some(0)]);
}

/// What scikit-learn answers, in one order of the rows or another (`fixtures.py` beside the data computes it again).
#[test]
fn answers_of_scikit_learn() {
    let fixtures: serde_json::Value =
        serde_json::from_str(include_str!("../../tests/data/hdbscan.json")).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    for (name, fixture) in fixtures.as_object().unwrap() {
        let points: Vec<Vec<f64>> = fixture["points"].as_array().unwrap().iter().map(numbers).collect();
        let min_size = usize::try_from(fixture["min_size"].as_u64().unwrap()).unwrap();
        let distance = |a: usize, b: usize| {
            points[a].iter().zip(&points[b]).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
        };
        let found = exact(points.len(), min_size, distance, &mut || ());
        // Theirs have numbers in the order of first rows.
        let mut names = std::collections::BTreeMap::new();
        let labels: Vec<f64> = found
            .labels
            .iter()
            .map(|label| match label {
                Some(label) => {
                    let next = names.len() as f64;
                    *names.entry(label).or_insert(next)
                }
                None => -1.0,
            })
            .collect();
        let answers = fixture["answers"].as_array().unwrap();
        let is_near = |strengths: Vec<f64>| {
            strengths
                .iter()
                .zip(&found.strengths)
                .all(|(theirs, &ours)| (theirs - f64::from(ours)).abs() < 1e-5)
        };
        let is_ours = |answer: &serde_json::Value| {
            numbers(&answer["labels"]) == labels && is_near(numbers(&answer["strengths"]))
        };
        assert!(answers.iter().any(is_ours), "{name}: {found:?}");
    }
}

fn blobs(seed: u64, heaps: usize, each: usize) -> Vec<[f64; 3]> {
    let mut random = SplitMix64::new(seed);
    let mut noise = |scale: f64| (0..4).map(|_| random.signed_unit()).sum::<f64>() * scale;
    (0..heaps)
        .flat_map(|_| {
            let center = [(); 3].map(|()| noise(10.0));
            (0..each).map(|_| center.map(|x| x + noise(0.5))).collect::<Vec<_>>()
        })
        .collect()
}

fn apart(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
}

/// Core distances and edges of a graph in which each row has `k` neighbors.
fn graph(points: &[[f64; 3]], k: usize, min_size: usize) -> (Vec<f64>, Vec<Pair>) {
    let (mut core, mut edges) = (Vec::new(), Vec::new());
    for (i, point) in points.iter().enumerate() {
        let mut near: Vec<(f64, usize)> = points
            .iter()
            .enumerate()
            .filter(|(j, _)| *j != i)
            .map(|(j, other)| (apart(point, other), j))
            .collect();
        near.sort_by(|x, y| x.partial_cmp(y).unwrap());
        core.push(near[min_size - 2].0);
        edges.extend(near[..k].iter().map(|&(distance, j)| Pair { a: i as u32, b: j as u32, distance }));
    }
    (core, edges)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_graph_of_all_pairs_gives_the_exact_clusters(seed: u64, heaps in 1usize..6, each in 2usize..20, min_size in 2usize..8) {
        let points = blobs(seed, heaps, each);
        prop_assume!(points.len() > min_size);
        let whole = exact(points.len(), min_size, |a, b| apart(&points[a], &points[b]), &mut || ());
        let (core, edges) = graph(&points, points.len() - 1, min_size);
        let by_graph = of_graph(&core, min_size, edges, std::iter::empty(), |_, _| 0.0, &mut || ());
        prop_assert_eq!(whole.labels, by_graph.labels);
    }

    #[test]
    fn labels_are_large_enough_and_numbered_by_size(points in proptest::collection::vec(0u8..60, 0..80), min_size in 2usize..9) {
        let points: Vec<f64> = points.into_iter().map(f64::from).collect();
        let found = of_line(&points, min_size);
        let most = found.labels.iter().flatten().max().map_or(0, |&most| most as usize + 1);
        let sizes: Vec<usize> =
            (0..most).map(|label| found.labels.iter().filter(|&&of| of == Some(label as u32)).count()).collect();
        prop_assert!(sizes.iter().all(|&size| size >= min_size), "{:?}", sizes);
        prop_assert!(sizes.windows(2).all(|pair| pair[0] >= pair[1]), "{:?}", sizes);
        for (label, strength) in found.labels.iter().zip(&found.strengths) {
            prop_assert!((0.0..=1.0).contains(strength) && label.is_some() == (*strength > 0.0));
        }
        // Neither clusters nor strengths depend on the order of rows.
        let reversed: Vec<f64> = points.iter().rev().copied().collect();
        let mut again = of_line(&reversed, min_size);
        again.strengths.reverse();
        prop_assert_eq!(&again.strengths, &found.strengths);
        let mut names = std::collections::BTreeMap::new();
        for (ours, theirs) in found.labels.iter().zip(again.labels.iter().rev()) {
            prop_assert_eq!(names.entry(ours).or_insert(theirs), &theirs);
        }
    }
}

#[test]
fn a_graph_of_few_neighbors_finds_the_heaps_and_leaves_apart_what_no_edge_joins() {
    let points = blobs(7, 5, 40);
    let (core, edges) = graph(&points, 10, 5);
    let found = of_graph(&core, 5, edges, std::iter::empty(), |_, _| 0.0, &mut || ());
    for heap in found.labels.chunks(40) {
        let most = heap.iter().flatten().next().unwrap();
        assert!(heap.iter().flatten().all(|label| label == most), "{heap:?}");
        assert!(heap.iter().flatten().count() > 35, "{heap:?}");
    }
    let lonely = of_graph(&[f64::INFINITY; 9], 2, Vec::new(), std::iter::empty(), |_, _| 0.0, &mut || ());
    assert_eq!(lonely.labels, [None; 9]);
}

#[test]
fn links_join_what_edges_leave_apart() {
    let points = blobs(11, 6, 30);
    let whole = exact(points.len(), 5, |a, b| apart(&points[a], &points[b]), &mut || ());
    let (core, edges) = graph(&points, 8, 5);
    let all = (0..points.len() as u32).flat_map(|a| (0..a).map(move |b| (a, b)));
    let distance = |a: u32, b: u32| apart(&points[a as usize], &points[b as usize]);
    let linked = of_graph(&core, 5, edges, all, distance, &mut || ());
    assert_eq!(linked.labels, whole.labels);
}
