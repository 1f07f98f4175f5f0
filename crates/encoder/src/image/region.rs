//! Parts of a picture: a region that a caller names, and tiles that cover the whole.
//!
//! Coordinates are pixels of the upright picture, from its top left corner to the right and down. A region from 10 to 20
//! has the ten pixels between these lines.

use super::raster::RgbImage;

/// Two opposite corners, as a caller gives them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corners {
    /// Left and right line.
    pub x: [f64; 2],
    /// Upper and lower line.
    pub y: [f64; 2],
}

/// Whole pixels of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns, at least one.
    pub width: u32,
    /// Rows, at least one.
    pub height: u32,
}

/// Why corners enclose no part of a picture.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RegionError {
    /// A coordinate is not a number.
    #[error("the region has a coordinate that is not a number")]
    NotANumber,
    /// Nothing of the picture is inside.
    #[error(
        "the region from ({}, {}) to ({}, {}) has no pixel of the image, which is {width} x {height} pixels upright",
        corners.x[0], corners.y[0], corners.x[1], corners.y[1]
    )]
    Outside {
        /// The region.
        corners: Corners,
        /// Columns of the upright picture.
        width: u32,
        /// Rows of the upright picture.
        height: u32,
    },
}

impl Region {
    /// The pixels between two corners, those that are only touched included. What lies outside the picture is left out.
    ///
    /// # Errors
    /// [`RegionError`].
    pub fn between(corners: Corners, image: &RgbImage) -> Result<Region, RegionError> {
        let Corners { x, y } = corners;
        if x.iter().chain(&y).any(|coordinate| coordinate.is_nan()) {
            return Err(RegionError::NotANumber);
        }
        let (width, height) = (image.width(), image.height());
        match (span(x, width), span(y, height)) {
            (Some((left, width)), Some((top, height))) => Ok(Region { left, top, width, height }),
            _ => Err(RegionError::Outside { corners, width, height }),
        }
    }

    /// The whole picture.
    #[must_use]
    pub fn whole(image: &RgbImage) -> Region {
        Region { left: 0, top: 0, width: image.width(), height: image.height() }
    }
}

/// First pixel and number of pixels of a side between two lines, if there are any.
fn span([one, other]: [f64; 2], side: u32) -> Option<(u32, u32)> {
    let side = f64::from(side);
    let first = one.min(other).floor().clamp(0.0, side);
    let end = one.max(other).ceil().clamp(0.0, side);
    // Within 0 and `side`, so that both are exact.
    (end > first).then_some((first as u32, (end - first) as u32))
}

/// How a picture is covered with tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    grid: u32,
    overlap: f64,
}

impl Tiling {
    /// Most tiles along the shorter side.
    pub const MAX_GRID: u32 = 16;
    /// Most of its side that a tile shares with its neighbor.
    pub const MAX_OVERLAP: f64 = 0.9;
    /// Most tiles of a picture. Those of a very long one are longer than high.
    pub const MAX_TILES: u32 = 1000;

    /// `grid` tiles along the shorter side, of which neighbors share `overlap` of their side.
    ///
    /// Returns `None` if one of them is not within 1 and [`Self::MAX_GRID`], or 0 and [`Self::MAX_OVERLAP`].
    #[must_use]
    pub fn new(grid: i64, overlap: f64) -> Option<Tiling> {
        let grid = u32::try_from(grid).ok().filter(|grid| (1..=Self::MAX_GRID).contains(grid))?;
        (0.0..=Self::MAX_OVERLAP).contains(&overlap).then_some(Tiling { grid, overlap })
    }

    /// The whole picture, and then its tiles row by row.
    ///
    /// Tiles are squares, as the inputs of models are. Along the longer side there are as many as it takes for neighbors
    /// to share at least the overlap. All together they cover the picture. A picture of a single tile is one region.
    #[must_use]
    pub fn regions(&self, image: &RgbImage) -> Vec<Region> {
        let (width, height) = (image.width(), image.height());
        let step = 1.0 - self.overlap;
        let tile = f64::from(width.min(height)) / (1.0 + f64::from(self.grid - 1) * step);
        let most = Self::MAX_TILES / self.grid;
        let count = |side: u32| {
            // A thousandth of a tile is no reason for one more.
            let needed = 1.0 + ((f64::from(side) - tile) / (tile * step) - 1e-3).ceil().max(0.0);
            needed.min(f64::from(most)) as u32
        };
        let (columns, rows) = if width <= height {
            (self.grid, count(height).max(self.grid))
        } else {
            (count(width).max(self.grid), self.grid)
        };
        let spans = |side: u32, count: u32| {
            // Longer than the tile only where there would be too many.
            let length = tile.max(f64::from(side) / (1.0 + f64::from(count - 1) * step));
            spans(side, count, length)
        };
        let (columns, rows) = (spans(width, columns), spans(height, rows));
        let mut regions = vec![Region::whole(image)];
        for &(top, height) in &rows {
            regions.extend(columns.iter().map(|&(left, width)| Region { left, top, width, height }));
        }
        if regions.len() == 2 {
            regions.pop();
        }
        regions
    }
}

/// First pixel and number of pixels of so many tiles of a length, evenly spaced along a side; none is there twice.
fn spans(side: u32, count: u32, length: f64) -> Vec<(u32, u32)> {
    let step = (f64::from(side) - length) / f64::from(count.max(2) - 1);
    let start = |place: u32| f64::from(place) * step;
    let first = |place: u32| (start(place).round() as u32).min(side - 1);
    let mut spans: Vec<(u32, u32)> = (0..count)
        .map(|place| {
            // Rounding leaves no gap.
            let next = if place + 1 < count { first(place + 1) } else { side };
            let end = ((start(place) + length).round() as u32).clamp(next.max(first(place) + 1), side);
            (first(place), end - first(place))
        })
        .collect();
    spans.dedup();
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(width: u32, height: u32) -> RgbImage {
        RgbImage::new(width, height, vec![7; 3 * (width * height) as usize]).unwrap()
    }

    #[test]
    fn pixels_that_are_touched_belong_to_a_region_and_nothing_outside() {
        let between = |x, y| Region::between(Corners { x, y }, &image(40, 30));
        let region = |left, top, width, height| Ok(Region { left, top, width, height });
        assert_eq!(between([10.0, 20.0], [5.0, 6.0]), region(10, 5, 10, 1));
        assert_eq!(between([20.0, 10.0], [6.0, 5.0]), region(10, 5, 10, 1));
        assert_eq!(between([10.5, 10.6], [5.9, 6.1]), region(10, 5, 1, 2));
        assert_eq!(between([-9.0, 1e300], [f64::NEG_INFINITY, f64::INFINITY]), region(0, 0, 40, 30));
        assert_eq!(between([39.0, 50.0], [29.5, 30.0]), region(39, 29, 1, 1));
        for (x, y) in [
            ([40.0, 50.0], [0.0, 9.0]),
            ([-5.0, 0.0], [0.0, 9.0]),
            ([3.0, 3.0], [0.0, 9.0]),
            ([3.0, 4.0], [30.0, 31.0]),
            ([f64::INFINITY, f64::INFINITY], [0.0, 9.0]),
        ] {
            assert!(
                matches!(between(x, y), Err(RegionError::Outside { width: 40, height: 30, .. })),
                "{x:?} {y:?}"
            );
        }
        assert_eq!(between([f64::NAN, 1.0], [0.0, 1.0]), Err(RegionError::NotANumber));
    }

    #[test]
    fn tiles_of_a_square_are_a_grid_behind_the_whole() {
        let regions = Tiling::new(3, 0.5).unwrap().regions(&image(80, 80));
        assert_eq!(regions.len(), 10);
        assert_eq!(regions[0], Region { left: 0, top: 0, width: 80, height: 80 });
        assert_eq!(regions[1], Region { left: 0, top: 0, width: 40, height: 40 });
        assert_eq!(regions[2], Region { left: 20, top: 0, width: 40, height: 40 });
        assert_eq!(regions[9], Region { left: 40, top: 40, width: 40, height: 40 });
        assert_eq!(Tiling::new(1, 0.0).unwrap().regions(&image(80, 80)).len(), 1);
    }

    #[test]
    fn settings_out_of_bounds_are_refused() {
        for (grid, overlap) in
            [(0, 0.5), (17, 0.5), (-1, 0.5), (3, -0.1), (3, 0.95), (3, f64::NAN), (i64::MAX, 0.5)]
        {
            assert!(Tiling::new(grid, overlap).is_none(), "{grid} {overlap}");
        }
    }

    /// Whatever the shape: bounded, inside, no gap, no tile twice, and nearly square while there are few.
    #[test]
    fn tiles_of_every_shape_cover_it_within_the_bound() {
        let shapes =
            [(1, 1), (2, 3), (1, 5000), (5000, 1), (640, 480), (33, 1000), (7, 11), (3000, 40), (100, 100)];
        for (width, height) in shapes {
            let image = image(width, height);
            for (grid, overlap) in [(1, 0.0), (1, 0.9), (2, 0.25), (3, 0.5), (16, 0.0), (16, 0.9)] {
                let regions = Tiling::new(grid, overlap).unwrap().regions(&image);
                let told = format!("{width} x {height}, {grid}, {overlap}");
                assert!(regions.len() <= 1 + Tiling::MAX_TILES as usize, "{told}: {}", regions.len());
                let tiles = &regions[usize::from(regions.len() > 1)..];
                let mut covered = vec![false; (width * height) as usize];
                for tile in tiles {
                    assert!(tile.width > 0 && tile.left + tile.width <= width, "{told}: {tile:?}");
                    assert!(tile.height > 0 && tile.top + tile.height <= height, "{told}: {tile:?}");
                    for row in tile.top..tile.top + tile.height {
                        let start = (row * width + tile.left) as usize;
                        covered[start..start + tile.width as usize].fill(true);
                    }
                    let is_few = regions.len() < 200 && tile.width.min(tile.height) > 20;
                    let ratio = f64::from(tile.width) / f64::from(tile.height);
                    assert!(!is_few || (0.6..1.7).contains(&ratio), "{told}: {tile:?}");
                }
                assert!(covered.into_iter().all(|covered| covered), "{told}");
                let mut sorted: Vec<_> =
                    tiles.iter().map(|tile| (tile.top, tile.left, tile.height, tile.width)).collect();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len(), tiles.len(), "{told}");
            }
        }
    }
}
