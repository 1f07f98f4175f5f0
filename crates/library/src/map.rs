//! A map: points in the plane, where similar images are near each other.
//!
//! The layout starts with the two principal directions. From there it pulls neighbors together and pushes other rows apart, like
//! UMAP (McInnes, Healy and Melville 2018): with the same graph of fuzzy neighbors, whose strength falls off from the
//! nearest one at a rate that adapts to each row, and the same sampled descent. Unlike UMAP, nearness in the plane is
//! `1 / (1 + d^2)`, as in t-SNE (van der Maaten and Hinton 2008): it needs no powers, looks the same, and costs a third.
//! Neighbors are exact.
//!
//! Equal rows share a point. The generator's seed is fixed, and rows are processed in the order of their values, so the map
//! depends only on the set of rows.

use crate::Check;
use crate::random::SplitMix64;
use crate::vectors::Vectors;
use imgvec_vector::distance;

/// Neighbors of each row, as usual with UMAP.
const NEIGHBORS: usize = 15;
/// Others that each pull is set against.
const PUSHES: usize = 5;
/// Rows above which fewer rounds do.
const MANY: usize = 2000;
const ROUNDS: usize = 500;
const ROUNDS_OF_MANY: usize = 200;
/// Steps of the search for the principal directions: a start needs no more.
const POWER_STEPS: usize = 30;
/// Half the side of the square that the layout starts in.
const EXTENT: f64 = 10.0;
/// The longest step in one direction.
const LONGEST: f64 = 4.0;
const SEED: u64 = 0x6d61_7020_6f66_2061;

/// Bytes that [`layout`] takes for a row, beside the vectors.
pub const ROW_BYTES: usize = NEIGHBORS * 60 + 100;

/// A point for each row, within -1 to 1, around the origin. The time is quadratic in the rows.
pub fn layout(vectors: &Vectors, check: Check) -> Vec<[f64; 2]> {
    let order = vectors.order();
    let mut distinct: Vec<u32> = Vec::new();
    let mut place = vec![0; vectors.len()];
    for &row in &order {
        if distinct.last().is_none_or(|&last| vectors.row(last as usize) != vectors.row(row as usize)) {
            distinct.push(row);
        }
        place[row as usize] = distinct.len() - 1;
    }
    let rows = Rows { vectors, order: &distinct };
    let mut points = principal(&rows, check);
    if rows.len() > 4 {
        spread(&mut points);
        let edges = neighbors(&rows, check);
        descend(&mut points, &edges, check);
    }
    fit(&mut points);
    place.into_iter().map(|at| points[at]).collect()
}

/// Different rows in order.
struct Rows<'a> {
    vectors: &'a Vectors,
    order: &'a [u32],
}

impl Rows<'_> {
    fn len(&self) -> usize {
        self.order.len()
    }

    fn row(&self, at: usize) -> &[f32] {
        self.vectors.row(self.order[at] as usize)
    }
}

/// Coordinates along the two directions of the greatest variance, by orthogonal iteration.
fn principal(rows: &Rows, check: Check) -> Vec<[f64; 2]> {
    let dim = rows.vectors.dim();
    let mut mean = vec![0.0f64; dim];
    for at in 0..rows.len() {
        mean.iter_mut().zip(rows.row(at)).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    mean.iter_mut().for_each(|sum| *sum /= rows.len() as f64);
    let mut random = SplitMix64::new(SEED);
    let mut directions =
        [(); 2].map(|()| (0..dim).map(|_| random.signed_unit() as f32).collect::<Vec<f32>>());
    orthonormalize(&mut directions);
    let mut points = vec![[0.0; 2]; rows.len()];
    for _ in 0..POWER_STEPS {
        check();
        project(rows, &mean, &directions, &mut points);
        let mut next = [vec![0.0f64; dim], vec![0.0f64; dim]];
        for (at, point) in points.iter().enumerate() {
            for (sum, &length) in next.iter_mut().zip(point) {
                sum.iter_mut().zip(rows.row(at)).for_each(|(sum, &x)| *sum += length * f64::from(x));
            }
        }
        // Rows less their mean: what the mean adds is taken off at once.
        for (axis, sum) in next.iter_mut().enumerate() {
            let total: f64 = points.iter().map(|point| point[axis]).sum();
            sum.iter_mut().zip(&mean).for_each(|(sum, mean)| *sum -= total * mean);
            let length = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
            if length > 0.0 {
                directions[axis] = sum.iter().map(|x| (x / length) as f32).collect();
            }
        }
        orthonormalize(&mut directions);
    }
    // A direction is as good as its opposite: its greatest element is positive.
    for direction in &mut directions {
        let greatest =
            direction.iter().copied().fold(0.0f32, |most, x| if x.abs() > most.abs() { x } else { most });
        if greatest < 0.0 {
            direction.iter_mut().for_each(|x| *x = -*x);
        }
    }
    project(rows, &mean, &directions, &mut points);
    points
}

/// Makes the second direction orthogonal to the first, and both unit vectors; what is zero stays.
fn orthonormalize([first, second]: &mut [Vec<f32>; 2]) {
    unit(first);
    let along = distance::inner_product(first, second) as f32;
    second.iter_mut().zip(&*first).for_each(|(x, &y)| *x -= along * y);
    unit(second);
}

fn unit(direction: &mut [f32]) {
    let norm = distance::norm(direction);
    if norm > 1e-6 {
        direction.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    } else {
        direction.fill(0.0);
    }
}

fn project(rows: &Rows, mean: &[f64], directions: &[Vec<f32>; 2], points: &mut [[f64; 2]]) {
    let offsets =
        [0, 1].map(|axis| mean.iter().zip(&directions[axis]).map(|(x, &y)| x * f64::from(y)).sum::<f64>());
    for (at, point) in points.iter_mut().enumerate() {
        *point = [0, 1].map(|axis| distance::inner_product(rows.row(at), &directions[axis]) - offsets[axis]);
    }
}

/// Scales points to the square that the layout starts in. Those that lie on one another are moved a little.
fn spread(points: &mut [[f64; 2]]) {
    fit(points);
    let mut random = SplitMix64::new(SEED);
    for x in points.iter_mut().flatten() {
        *x = *x * EXTENT + random.signed_unit() * 1e-3;
    }
}

/// Moves points around the origin, and scales them to -1 to 1.
fn fit(points: &mut [[f64; 2]]) {
    let count = points.len() as f64;
    for axis in 0..2 {
        let mean = points.iter().map(|point| point[axis]).sum::<f64>() / count;
        points.iter_mut().for_each(|point| point[axis] -= mean);
    }
    let most = points.iter().flatten().fold(0.0f64, |most, x| most.max(x.abs()));
    if most > 0.0 {
        points.iter_mut().flatten().for_each(|x| *x = (*x / most).clamp(-1.0, 1.0));
    }
}

/// Two rows that belong together, and how strongly: within 0 to 1.
struct Edge {
    a: u32,
    b: u32,
    strength: f64,
}

/// The graph of fuzzy neighbors.
fn neighbors(rows: &Rows, check: Check) -> Vec<Edge> {
    let count = rows.len();
    let k = NEIGHBORS.min(count - 1);
    let mut edges: Vec<Edge> = Vec::with_capacity(count * k);
    let mut nearest: Vec<(f64, u32)> = Vec::with_capacity(count);
    for at in 0..count {
        check();
        nearest.clear();
        for other in (0..count).filter(|&other| other != at) {
            let number = u32::try_from(other).expect("rows are numbered by 32 bits");
            nearest.push((distance::l2(rows.row(at), rows.row(other)), number));
        }
        let order = |x: &(f64, u32), y: &(f64, u32)| x.0.total_cmp(&y.0).then(x.1.cmp(&y.1));
        nearest.select_nth_unstable_by(k - 1, order);
        let found = &mut nearest[..k];
        found.sort_unstable_by(order);
        let distances: Vec<f64> = found.iter().map(|neighbor| neighbor.0).collect();
        let here = u32::try_from(at).expect("rows are numbered by 32 bits");
        for (&(_, other), strength) in found.iter().zip(strengths(&distances)) {
            edges.push(Edge { a: here.min(other), b: here.max(other), strength });
        }
    }
    // Both directions become one: what either says (probabilistic t-conorm).
    edges.sort_by_key(|edge| (edge.a, edge.b));
    edges.dedup_by(|edge, kept| {
        let is_same = (edge.a, edge.b) == (kept.a, kept.b);
        if is_same {
            kept.strength += edge.strength - kept.strength * edge.strength;
        }
        is_same
    });
    edges
}

/// Strength of each neighbor by its distance, ascending: 1 for the nearest, and a sum of `log2(k)`.
fn strengths(distances: &[f64]) -> Vec<f64> {
    let nearest = distances[0];
    let target = (distances.len() as f64).log2();
    let all = |scale: f64| distances.iter().map(move |distance| (-(distance - nearest) / scale).exp());
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut scale = distances[distances.len() - 1].max(f64::MIN_POSITIVE);
    for _ in 0..64 {
        if all(scale).sum::<f64>() > target {
            high = scale;
        } else {
            low = scale;
        }
        scale = if high.is_finite() { f64::midpoint(low, high) } else { scale * 2.0 };
    }
    // No scale so small that all but one vanish.
    let mean = distances.iter().sum::<f64>() / distances.len() as f64;
    all(scale.max(1e-3 * mean).max(f64::MIN_POSITIVE)).collect()
}

/// Sampled gradient descent: an edge is pulled as often as it is strong, each time against some pushes.
fn descend(points: &mut [[f64; 2]], edges: &[Edge], check: Check) {
    let rounds = if points.len() > MANY { ROUNDS_OF_MANY } else { ROUNDS };
    let mut random = SplitMix64::new(SEED);
    let strongest = edges.iter().map(|edge| edge.strength).fold(0.0, f64::max);
    // How many times each was pulled, as a fraction that is due at 1.
    let mut due = vec![0.0; edges.len()];
    for round in 0..rounds {
        check();
        let step = 1.0 - round as f64 / rounds as f64;
        for (edge, due) in edges.iter().zip(&mut due) {
            *due += edge.strength / strongest;
            if *due < 1.0 {
                continue;
            }
            *due -= 1.0;
            let (a, b) = (edge.a as usize, edge.b as usize);
            let away = [0, 1].map(|axis| points[a][axis] - points[b][axis]);
            let squared = away[0] * away[0] + away[1] * away[1];
            let pull = -2.0 / (1.0 + squared);
            for axis in 0..2 {
                let change = (pull * away[axis]).clamp(-LONGEST, LONGEST) * step;
                points[a][axis] += change;
                points[b][axis] -= change;
            }
            for end in [a, b] {
                for _ in 0..PUSHES {
                    let other = random.below(points.len());
                    if other == end {
                        continue;
                    }
                    let away = [0, 1].map(|axis| points[end][axis] - points[other][axis]);
                    let squared = away[0] * away[0] + away[1] * away[1];
                    let push = 2.0 / ((0.001 + squared) * (1.0 + squared));
                    for axis in 0..2 {
                        points[end][axis] += (push * away[axis]).clamp(-LONGEST, LONGEST) * step;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn heaps(seed: u64, count: usize, each: usize) -> Vectors {
        let mut random = SplitMix64::new(seed);
        let mut vectors = Vectors::new(16);
        for _ in 0..count {
            let center: Vec<f64> = (0..16).map(|_| random.signed_unit()).collect();
            for _ in 0..each {
                let row: Vec<f32> = center.iter().map(|x| (x + 0.1 * random.signed_unit()) as f32).collect();
                assert!(vectors.push_direction(&row));
            }
        }
        vectors
    }

    fn apart(a: [f64; 2], b: [f64; 2]) -> f64 {
        (a[0] - b[0]).hypot(a[1] - b[1])
    }

    #[test]
    fn neighbors_of_the_map_are_of_the_same_heap() {
        let vectors = heaps(3, 12, 30);
        let points = layout(&vectors, &mut || ());
        let same = (0..points.len())
            .filter(|&at| {
                let others = (0..points.len()).filter(|&other| other != at);
                let nearest = others
                    .min_by(|&x, &y| apart(points[at], points[x]).total_cmp(&apart(points[at], points[y])));
                nearest.unwrap() / 30 == at / 30
            })
            .count();
        assert!(same * 100 > points.len() * 98, "{same} of {}", points.len());
    }

    #[test]
    fn few_rows_have_a_map() {
        for count in 0..7 {
            let mut vectors = Vectors::new(3);
            for row in 0..count {
                vectors.push(&[row as f32, 1.0, 0.0]);
            }
            let points = layout(&vectors, &mut || ());
            assert_eq!(points.len(), count);
            assert!(points.iter().flatten().all(|x| (-1.0..=1.0).contains(x)), "{points:?}");
        }
        let mut equal = Vectors::new(2);
        (0..20).for_each(|_| equal.push(&[0.6, 0.8]));
        assert_eq!(layout(&equal, &mut || ()), vec![[0.0; 2]; 20]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn the_map_does_not_depend_on_the_order_of_rows(seed: u64, each in 1usize..8) {
            let vectors = heaps(seed, 4, each);
            let points = layout(&vectors, &mut || ());
            let mut reversed = Vectors::new(16);
            (0..vectors.len()).rev().for_each(|at| reversed.push(vectors.row(at)));
            let mut again = layout(&reversed, &mut || ());
            again.reverse();
            prop_assert!(points.iter().flatten().all(|x| (-1.0..=1.0).contains(x)));
            prop_assert_eq!(points, again);
        }
    }
}
