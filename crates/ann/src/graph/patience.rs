//! How far a search looks around before it gives out a row.
//!
//! A row that is found when rows behind it have been given out comes too late, so before each row the walk
//! goes on among the candidates that could still beat it. An estimate alone cannot tell: it is off by a
//! *deviation*, which differs between data and between queries, and which every expansion measures (the
//! candidate's estimate against its distance). So all candidates are expanded whose estimate lies below the
//! row's score and a margin in deviations. Two rules of thumb hold where the deviation misleads: a fewest
//! and a most of hops, which grow with the rank of the row as the number of nodes that are near it does,
//! and in proportion to the beam's width.
//!
//! The constants are fitted to recall@10 of .95 and more at a beam of 100, where 1 row in 1, 2, 10 and 100
//! matches a filter, on the sets of `benches/recall.rs`.

/// Deviations that an estimate may lie above a score and still be looked at.
const MARGIN: f64 = 0.2;
/// Both numbers of hops grow by this power of the rank.
const GROWTH: f64 = 0.83;
/// Fewest hops before the first row, for each candidate of the beam; the beam makes them, but for far ranks.
const FEWEST: f64 = 0.1;
/// Most hops beyond the beam of a row of rank 1 if ranks began with `FIRST_RANKS`, for each candidate of the beam.
const MOST: f64 = 0.48;
/// Near ranks are cheap: they share what the first of them need.
const FIRST_RANKS: f64 = 30.0;

/// How far estimates were off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deviation {
    squares: f64,
    count: f64,
}

impl Deviation {
    /// Learns from one more node.
    #[inline]
    pub fn add(&mut self, estimate: f32, score: f32) {
        let error = f64::from(score) - f64::from(estimate);
        if error.is_finite() {
            self.squares += error * error;
            self.count += 1.0;
        }
    }

    /// Root of the mean square; 0 if nothing is known.
    #[must_use]
    pub fn rms(&self) -> f64 {
        if self.count == 0.0 { 0.0 } else { (self.squares / self.count).sqrt() }
    }
}

/// Before a row of this score and rank (from 1) is given out, candidates are expanded whose estimates lie
/// below the answer. Of the hops so far, `extra` were made beyond the beam, which is `ef` wide.
#[must_use]
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a rule of thumb")]
pub fn limit(rank: usize, score: f32, ef: usize, hops: u64, extra: u64, deviation: Deviation) -> f32 {
    let (rank, ef, hops, extra) = (rank as f64, ef as f64, hops as f64, extra as f64);
    if hops < ef * FEWEST * rank.powf(GROWTH) {
        f32::INFINITY
    } else if extra > ef * MOST * (rank + FIRST_RANKS).powf(GROWTH) {
        f32::NEG_INFINITY
    } else {
        (f64::from(score) + MARGIN * deviation.rms()) as f32
    }
}

/// Hops of a search that gives out so many rows, as the planner should expect them.
#[must_use]
pub fn expected_hops(ef: f64, rows: f64) -> f64 {
    // Between the fewest and the most; nearer to the most for cross-modal queries.
    ef + 2.0 * ef * FEWEST * rows.max(0.0).powf(GROWTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_counts_between_the_fewest_and_the_most_hops() {
        let mut deviation = Deviation::default();
        assert_eq!(limit(1, 5.0, 100, 20, 0, deviation), 5.0, "nothing known");
        for (estimate, score) in [(1.0, 3.0), (3.0, 1.0), (f32::NAN, 1.0)] {
            deviation.add(estimate, score);
        }
        assert_eq!(deviation.rms(), 2.0);
        assert_eq!(limit(1, 5.0, 100, 20, 20, deviation), 5.4);
        assert_eq!(limit(1, 5.0, 100, 9, 9, deviation), f32::INFINITY);
        assert_eq!(limit(1, 5.0, 100, 2000, 2000, deviation), f32::NEG_INFINITY);
        assert_eq!(limit(1000, 5.0, 100, 2000, 2000, deviation), f32::INFINITY, "far rows may cost more");
        assert_eq!(limit(1000, 5.0, 100, 4000, 4000, deviation), 5.4);
        assert_eq!(limit(1000, 5.0, 100, 2000 * 2000, 2000 * 2000, deviation), f32::NEG_INFINITY);
        assert!(limit(1, f32::NAN, 100, 20, 20, deviation).is_nan());
    }

    #[test]
    fn expected_hops_lie_between_the_fewest_and_the_most() {
        for rows in [1.0f64, 10.0, 1e3, 1e6] {
            let beyond = expected_hops(100.0, rows) - 100.0;
            assert!(beyond >= 100.0 * FEWEST * rows.powf(GROWTH));
            assert!(beyond <= 100.0 * MOST * (rows + FIRST_RANKS).powf(GROWTH));
        }
    }
}
