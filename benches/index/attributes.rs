//! What rows have besides their vector: columns that filters ask for.

use crate::generate::Normal;

/// Owners of rows: the first has most, as many as the law of Zipf says.
pub const OWNERS: usize = 1_000;

pub struct Attributes {
    /// Uniform in 0..1, of no relation to the vector.
    pub chance: Vec<f32>,
    /// Rank along the direction of the first row, in 0..1 over the loaded rows: near values are near in space.
    pub region: Vec<f32>,
    pub owner: Vec<i32>,
}

impl Attributes {
    pub fn new(rows: &[Vec<f32>], loaded: usize) -> Self {
        let mut random = Normal::new(7);
        let chance = rows.iter().map(|_| random.uniform()).collect();
        let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-9);
        let along = |v: &[f32]| v.iter().zip(&rows[0]).map(|(a, b)| a * b).sum::<f32>() / norm(v);
        let places: Vec<f32> = rows.iter().map(|row| along(row)).collect();
        let mut order = places[..loaded].to_vec();
        order.sort_by(f32::total_cmp);
        let rank = |place: &f32| order.partition_point(|x| x < place) as f32 / loaded as f32;
        let region = places.iter().map(rank).collect();
        // The number of the owner at a share of all rows: harmonic numbers grow as logarithms do.
        let all = (OWNERS as f32).ln() + 0.577;
        let owner = rows.iter().map(|_| {
            let place = (random.uniform() * all - 0.577).exp();
            (place.max(1.0) as i32).min(OWNERS as i32)
        });
        Self { chance, region, owner: owner.collect() }
    }
}
