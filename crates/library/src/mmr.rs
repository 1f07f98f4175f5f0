//! Ranks in which a page does not repeat itself: maximal marginal relevance (Carbonell and Goldstein 1998).
//!
//! The next row is the one with the greatest `(1 - diversity) * score - diversity * similarity`, where the similarity is
//! the greatest to a row that stands before. Unlike in the paper both are first scaled to 0 to 1 over the candidates: scores
//! of a text's query lie within a few hundredths, those of ratings are whole numbers, and similarities of pictures of one
//! subject differ little; a diversity of 0.3 should mean about the same for each.

use crate::Check;
use crate::vectors::Vectors;

/// Rank from 0 of each row. `directions` are unit vectors, `scores` finite, larger is better; `diversity` is within 0 to 1:
/// 0 ranks by score alone. Ties go to the greater score, then to the earlier row.
///
/// Time is quadratic in the rows; memory is 24 bytes a row.
///
/// # Panics
/// If there are not as many scores as directions.
pub fn ranks(directions: &Vectors, scores: &[f64], diversity: f64, check: Check) -> Vec<u32> {
    let count = scores.len();
    assert_eq!(directions.len(), count, "a score for each direction");
    let scores = scaled(scores);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let mut ranks = vec![0; count];
    if diversity > 0.0 {
        diversify(directions, &scores, diversity, &mut order, check);
    }
    for (rank, &row) in (0..).zip(&order) {
        ranks[row] = rank;
    }
    ranks
}

/// Scores from 0 to 1; 0 if all are equal.
fn scaled(scores: &[f64]) -> Vec<f64> {
    let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Halved, as the range of the greatest numbers is no number.
    let range = greatest / 2.0 - least / 2.0;
    scores.iter().map(|score| if range > 0.0 { (score / 2.0 - least / 2.0) / range } else { 0.0 }).collect()
}

fn diversify(directions: &Vectors, scores: &[f64], diversity: f64, order: &mut [usize], check: Check) {
    let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
    for a in 0..scores.len() {
        check();
        for b in a + 1..scores.len() {
            let similarity = directions.inner_product(a, b);
            least = least.min(similarity);
            greatest = greatest.max(similarity);
        }
    }
    let range = if greatest > least { greatest - least } else { 1.0 };
    // The greatest similarity of each row to one that is ranked.
    let mut similarity = vec![0.0f64; scores.len()];
    for place in 0..order.len() {
        check();
        let value = |row: usize| (1.0 - diversity) * scores[row] - diversity * similarity[row];
        let mut best = place;
        for at in place + 1..order.len() {
            // What remains is in the order of scores, so that of equal ones the first stays.
            if value(order[at]) > value(order[best]) {
                best = at;
            }
        }
        order[place..=best].rotate_right(1);
        let ranked = order[place];
        for &row in &order[place + 1..] {
            let near = (directions.inner_product(ranked, row) - least) / range;
            similarity[row] = similarity[row].max(near);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn directions(rows: &[[f32; 2]]) -> Vectors {
        let mut vectors = Vectors::new(2);
        rows.iter().for_each(|row| assert!(vectors.push_direction(row)));
        vectors
    }

    #[test]
    fn the_second_of_a_kind_comes_after_another_kind() {
        let rows = directions(&[[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]]);
        let scores = [0.9, 0.89, 0.8, 0.79];
        assert_eq!(ranks(&rows, &scores, 0.0, &mut || ()), [0, 1, 2, 3]);
        assert_eq!(ranks(&rows, &scores, 0.6, &mut || ()), [0, 2, 1, 3]);
        // Whatever the scale of the scores.
        let ratings = scores.map(|score| 1e300 * score);
        assert_eq!(ranks(&rows, &ratings, 0.6, &mut || ()), [0, 2, 1, 3]);
    }

    #[test]
    fn few_and_equal_rows_have_ranks() {
        assert_eq!(ranks(&Vectors::new(2), &[], 0.5, &mut || ()), [0u32; 0]);
        assert_eq!(ranks(&directions(&[[1.0, 2.0]]), &[7.0], 1.0, &mut || ()), [0]);
        assert_eq!(ranks(&directions(&[[1.0, 2.0]; 3]), &[1.0; 3], 0.5, &mut || ()), [0, 1, 2]);
        assert_eq!(
            ranks(&directions(&[[1.0, 2.0]; 3]), &[f64::MIN, f64::MAX, 0.0], 0.5, &mut || ()),
            [2, 0, 1]
        );
    }

    proptest! {
        #[test]
        fn ranks_are_a_permutation_and_the_best_is_first(
            rows in proptest::collection::vec((-1.0f32..1.0, 0.1f32..1.0, 0.0..1.0f64), 1..40), diversity in 0.0..=1.0f64
        ) {
            let vectors = directions(&rows.iter().map(|row| [row.0, row.1]).collect::<Vec<_>>());
            let scores: Vec<f64> = rows.iter().map(|row| row.2).collect();
            let ranks = ranks(&vectors, &scores, diversity, &mut || ());
            let mut sorted = ranks.clone();
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..rows.len() as u32));
            let first = ranks.iter().position(|&rank| rank == 0).unwrap();
            if diversity < 1.0 {
                prop_assert!(scores.iter().all(|&score| score <= scores[first]));
            }
        }
    }
}
