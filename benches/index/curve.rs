//! Recall against cost, and the cost at a recall between two measured points.

/// One effort.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub effort: u32,
    pub recall: f64,
    pub cpu_ms: f64,
    pub wall_ms: f64,
    /// Index pages per query, each time one is looked at.
    pub pages: f64,
}

/// The cost of a recall.
#[derive(Clone, Copy, Debug)]
pub enum Cost {
    Between(Point),
    /// The least effort finds more than asked for; nothing cheaper exists.
    Least(Point),
    /// No effort finds so much.
    Never,
}

impl Cost {
    pub fn point(self) -> Option<Point> {
        match self {
            Self::Between(point) | Self::Least(point) => Some(point),
            Self::Never => None,
        }
    }
}

/// The cost of `recall`: between the cheapest point that finds so much and the best of the cheaper ones, interpolating
/// logarithms of cost over those of the missing share.
pub fn cost_at(points: &[Point], recall: f64) -> Cost {
    let enough = points.iter().filter(|p| p.recall >= recall);
    let Some(&after) = enough.min_by(|a, b| a.cpu_ms.total_cmp(&b.cpu_ms)) else { return Cost::Never };
    let cheaper = points.iter().filter(|p| p.cpu_ms < after.cpu_ms);
    let Some(&before) = cheaper.max_by(|a, b| a.recall.total_cmp(&b.recall)) else {
        return Cost::Least(after);
    };
    // Recall 1 has no logarithm; a tenth of what one query of hundreds can miss stands for it.
    let missing = |recall: f64| (1.0 - recall).max(1e-4).ln();
    let span = missing(before.recall) - missing(after.recall);
    let share = if span > 0.0 { (missing(before.recall) - missing(recall)) / span } else { 1.0 };
    let between = |a: f64, b: f64| (a.max(1e-9).ln() * (1.0 - share) + b.max(1e-9).ln() * share).exp();
    Cost::Between(Point {
        effort: between(f64::from(before.effort), f64::from(after.effort)).round() as u32,
        recall,
        cpu_ms: between(before.cpu_ms, after.cpu_ms),
        wall_ms: between(before.wall_ms, after.wall_ms),
        pages: between(before.pages, after.pages),
    })
}
