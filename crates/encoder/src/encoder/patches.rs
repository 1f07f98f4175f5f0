//! Patches of pictures as the inputs of a graph.

use std::borrow::Cow;

use super::values::{Floats, Numbers};
use crate::image::Grid;
use crate::package::{PatchInput, PatchPlaces};
use crate::runtime::Feed;

/// Patches of an image that nobody wants: a graph may not accept one alone.
const PLACEHOLDER_PATCHES: usize = 4;
/// Floats of a patch of 16 x 16 pixels, where no file has the number.
const PLACEHOLDER_LENGTH: usize = 768;

/// Patches of some pictures, and where they lie.
pub(super) struct PatchTensors<'a> {
    input: &'a PatchInput,
    shapes: PatchShapes,
    pixels: Floats<'a>,
    places: Places,
}

struct PatchShapes {
    pixels: [usize; 3],
    positions: [usize; 3],
    mask: [usize; 2],
    grids: [usize; 2],
}

enum Places {
    Positions(Vec<i64>),
    Grids { mask: Numbers, grids: Numbers },
}

impl<'a> PatchTensors<'a> {
    /// Of `pixels`, `[pictures, patches, floats]`, a grid for each picture.
    pub fn new(input: &'a PatchInput, pixels: Cow<'a, [f32]>, patches: usize, grids: &[Grid]) -> Self {
        let rows = grids.len();
        let length = pixels.len() / (rows * patches).max(1);
        let places = match &input.places {
            PatchPlaces::Positions(_) => {
                Places::Positions(grids.iter().flat_map(|grid| grid.positions(patches)).collect())
            }
            PatchPlaces::Grid { mask, shapes } => {
                let of_grid = |grid: &Grid| {
                    let used = grid.patches();
                    (0..patches).map(move |patch| i64::from(patch < used))
                };
                let sides = |grid: &Grid| [grid.rows as i64, grid.columns as i64];
                Places::Grids {
                    mask: Numbers::new(mask.element, grids.iter().flat_map(of_grid).collect()),
                    grids: Numbers::new(shapes.element, grids.iter().flat_map(sides).collect()),
                }
            }
        };
        let shapes = PatchShapes {
            pixels: [rows, patches, length],
            positions: [rows, patches, 2],
            mask: [rows, patches],
            grids: [rows, 2],
        };
        PatchTensors { input, shapes, pixels: Floats::new(input.element, pixels), places }
    }

    /// Black pictures for the half of a combined graph that is not wanted.
    pub fn placeholder(input: &'a PatchInput, rows: usize) -> Self {
        let [rows, patches, length] = placeholder_sizes(input, rows);
        let grid = Grid { rows: 1, columns: patches };
        Self::new(input, Cow::Owned(vec![0.0; rows * patches * length]), patches, &vec![grid; rows])
    }

    pub fn feeds(&self) -> Vec<(&str, &[usize], Feed<'_>)> {
        let shapes = &self.shapes;
        let mut feeds = vec![(&*self.input.pixels, &shapes.pixels[..], self.pixels.feed())];
        match (&self.input.places, &self.places) {
            (PatchPlaces::Positions(name), Places::Positions(values)) => {
                feeds.push((name, &shapes.positions, Feed::I64(values)));
            }
            (PatchPlaces::Grid { mask: hides, shapes: sides }, Places::Grids { mask, grids }) => {
                feeds.push((&hides.name, &shapes.mask, mask.feed()));
                feeds.push((&sides.name, &shapes.grids, grids.feed()));
            }
            (PatchPlaces::Positions(_) | PatchPlaces::Grid { .. }, _) => {
                unreachable!("the places are made for the input")
            }
        }
        feeds
    }
}

/// Images, patches and floats of a patch that the unwanted half of a combined graph gets.
pub(super) fn placeholder_sizes(input: &PatchInput, rows: usize) -> [usize; 3] {
    let length = input.patch_len.unwrap_or(PLACEHOLDER_LENGTH);
    [input.batch.unwrap_or(rows), input.patches.unwrap_or(PLACEHOLDER_PATCHES), length]
}
