//! What an index claims of a distance holds for the distance that the caller computes, whatever the vectors are. The
//! server raises an error otherwise. Callers are this project's operators and pgvector's, which sum in single precision,
//! in some number of lanes; f32 squares of theirs underflow to zero and overflow to infinity.

mod common;

use common::{build, row};
use half::f16;
use imgvec_ann::graph::search::{Hit, Options, Search};
use imgvec_ann::space::VectorError;
use imgvec_ann::{Index, Metric};
use imgvec_vector::distance;
use proptest::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::L2, Metric::InnerProduct];

/// A sum in single precision, every lane for itself, from the largest number of lanes to the smallest.
fn sum(lanes: usize, terms: impl Iterator<Item = f32>) -> f32 {
    let mut sums = vec![0.0f32; lanes];
    for (i, term) in terms.enumerate() {
        sums[i % lanes] += term;
    }
    sums.into_iter().sum()
}

/// pgvector's distance.
fn single(metric: Metric, lanes: usize, a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| sum(lanes, a.iter().zip(b).map(|(x, y)| x * y));
    match metric {
        Metric::L2 => f64::from(sum(lanes, a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)))).sqrt(),
        Metric::InnerProduct => -f64::from(dot(a, b)),
        Metric::Cosine => {
            let similarity = f64::from(dot(a, b)) / (f64::from(dot(a, a)) * f64::from(dot(b, b))).sqrt();
            1.0 - if similarity.is_nan() { similarity } else { similarity.clamp(-1.0, 1.0) }
        }
    }
}

/// The distances that callers may compute.
fn distances(metric: Metric, a: &[f32], b: &[f32]) -> Vec<f64> {
    let own = match metric {
        Metric::Cosine => distance::cosine(a, b),
        Metric::L2 => distance::l2(a, b),
        Metric::InnerProduct => -distance::inner_product(a, b),
    };
    [2, 4, 8, 16].into_iter().map(|lanes| single(metric, lanes, a, b)).chain([own]).collect()
}

/// As the server compares: what is not a number is larger than all numbers.
fn is_at_most(bound: f64, distance: f64) -> bool {
    distance.is_nan() || bound <= distance
}

/// A kind of numbers that vectors are made of.
#[derive(Clone, Copy, Debug)]
enum Numbers {
    /// Any finite bits.
    AnySingle,
    /// Any finite bits of a half.
    AnyHalf,
    /// Sizes round a power of two, by a few binary digits.
    Near { power: i32, spread: i32 },
    /// Whole numbers, many of them zero.
    Small,
    /// All the same but for the sign, so that sums round to one side.
    Equal { power: i32 },
}

fn numbers() -> impl Strategy<Value = Numbers> {
    prop_oneof![
        Just(Numbers::AnySingle),
        Just(Numbers::AnyHalf),
        (-149i32..128, 0i32..12).prop_map(|(power, spread)| Numbers::Near { power, spread }),
        (-75i32..-50, 0i32..12).prop_map(|(power, spread)| Numbers::Near { power, spread }),
        (55i32..66, 0i32..8).prop_map(|(power, spread)| Numbers::Near { power, spread }),
        Just(Numbers::Small),
        (-70i32..65).prop_map(|power| Numbers::Equal { power }),
    ]
}

/// A number of a kind; `bits` are random.
fn number(kind: Numbers, bits: u64) -> f32 {
    let low = u32::try_from(bits & 0xFFFF_FFFF).unwrap();
    let fraction = 1.0 + (low & 0xFFFF) as f32 / 65536.0;
    let sign = if bits >> 63 == 0 { 1.0 } else { -1.0 };
    let power = |power: i32| 2f64.powi(power) as f32;
    let x = match kind {
        Numbers::AnySingle => f32::from_bits(low),
        Numbers::AnyHalf => f16::from_bits(u16::try_from(low & 0xFFFF).unwrap()).to_f32(),
        Numbers::Near { power: p, spread } => sign * fraction * power(p - (bits >> 40) as i32 % (spread + 1)),
        Numbers::Small => f32::from(i8::try_from(low % 5).unwrap() - 2),
        Numbers::Equal { power: p } => sign * 1.1 * power(p),
    };
    if x.is_finite() { x } else { sign * f32::MAX }
}

fn vectors(kinds: &[Numbers], dim: usize, seed: u64, zeros: u64) -> Vec<Vec<f32>> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    kinds
        .iter()
        .map(|&kind| (0..dim).map(|_| if next() % 8 < zeros { 0.0 } else { number(kind, next()) }).collect())
        .collect()
}

/// All that an index of these rows says of this query: asserted for each row and caller.
fn assert_bounds(metric: Metric, rows: &[Vec<f32>], query: &[f32], dim: usize) -> usize {
    let (store, _) = build(metric, rows, dim, 1);
    let index = Index::open(&store).unwrap();
    let mut search = match Search::new(&index, query, &Options::default()) {
        Ok(search) => search,
        Err(error) => panic!("{metric:?} {query:?}: {error}"),
    };
    let hits: Vec<Hit> = std::iter::from_fn(|| search.next(&store, &index).unwrap()).collect();
    let callers = distances(metric, query, query).len();
    let exact: Vec<Vec<f64>> = hits.iter().map(|hit| distances(metric, &rows[row(hit.tid)], query)).collect();
    for (at, hit) in hits.iter().enumerate() {
        for caller in 0..callers {
            let distance = exact[at][caller];
            assert!(
                is_at_most(hit.claimed_bound(), distance),
                "{metric:?}, caller {caller}: {distance} of {hit:?}\nrow {:?}\nquery {query:?}",
                rows[row(hit.tid)]
            );
            if hit.upper_bound < f64::INFINITY {
                assert!(
                    distance <= hit.upper_bound,
                    "{metric:?}, caller {caller}: {distance} of {hit:?}\nrow {:?}\nquery {query:?}",
                    rows[row(hit.tid)]
                );
            }
            // A row whose position is final needs no distance: it is returned with its lower bound.
            if hit.placed {
                let before = &exact[..at];
                assert!(before.iter().all(|d| d[caller] <= distance), "{metric:?} {hit:?} {before:?}");
            }
        }
    }
    hits.len() * callers
}

/// Rows that an index of the metric takes.
fn accepted(metric: Metric, rows: Vec<Vec<f32>>, dim: usize) -> Vec<Vec<f32>> {
    let (store, _) = build(metric, &[], dim, 1);
    let index = Index::open(&store).unwrap();
    rows.into_iter()
        .filter(|row| match index.space().quantize(row) {
            Ok(codes) => codes.is_some(),
            Err(VectorError::TooLong) => false,
            Err(error) => panic!("{error}: {row:?}"),
        })
        .collect()
}

#[test]
fn no_bound_exceeds_the_callers_distance() {
    let (numbers_tried, compared) = (AtomicU64::new(0), AtomicU64::new(0));
    let config = ProptestConfig { cases: cases(), ..ProptestConfig::default() };
    proptest!(config, |(
        kinds in proptest::collection::vec(numbers(), 1..40),
        is_mixed in proptest::bool::weighted(0.3),
        of_query in proptest::option::weighted(0.5, numbers()),
        dim in prop_oneof![1usize..5, 5usize..70, Just(256), Just(1000)],
        seed in any::<u64>(),
        zeros in 0u64..8,
    )| {
        let kinds: Vec<Numbers> = if is_mixed { kinds } else { vec![kinds[0]; kinds.len()] };
        let mut all = vectors(&kinds, dim, seed, zeros);
        let query = match of_query {
            Some(kind) => vectors(&[kind], dim, seed ^ 0x55, zeros).swap_remove(0),
            // Near a row, or one of them.
            None => all.swap_remove(0),
        };
        // Equal and opposite directions.
        all.push(query.clone());
        all.push(query.iter().map(|x| -x).collect());
        for metric in METRICS {
            let rows = accepted(metric, all.clone(), dim);
            numbers_tried.fetch_add((rows.len() * dim) as u64, Ordering::Relaxed);
            compared.fetch_add(assert_bounds(metric, &rows, &query, dim) as u64, Ordering::Relaxed);
        }
    });
    eprintln!(
        "{} cases: {} numbers, {} distances within their bounds",
        cases(),
        numbers_tried.into_inner(),
        compared.into_inner()
    );
}

/// `PROPTEST_CASES` says how many; each is an index for each metric.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}

#[test]
fn vectors_whose_squares_leave_single_precision_fail_no_search() {
    let close = |x: f32, y: f32| vec![x, y];
    let rows: Vec<Vec<f32>> =
        (0..200).map(|i| close((i as f32).cos() * 1e-22, (i as f32).sin() * 1e-22)).collect();
    assert_bounds(Metric::L2, &rows, &close(2e-23, 1e-23), 2);
    assert_bounds(Metric::InnerProduct, &[vec![-3.89e-24], vec![-6.89e-24]], &[3.01e-24], 1);
    let mut rows: Vec<Vec<f32>> = (0..200).map(|i| close((i as f32).cos(), (i as f32).sin())).collect();
    rows.push(close(-1e20, -1e19));
    rows.push(close(1e-30, -2e-30));
    for query in [close(1.0, 1.0), close(1e20, 0.0), close(1e-30, 1e-30), close(3e38, 3e38)] {
        assert_bounds(Metric::Cosine, &rows, &query, 2);
    }
}
