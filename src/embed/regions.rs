//! `embed_image` of a region or a frame, and `image_tiles`: parts of a picture, so that a small thing in it can be found.

use super::functions::fetch;
use super::session::{self, Embedding};
use crate::error::{Code, Report};
use crate::guc;
use crate::types::datum::{Bytea, NewVector, Text};
use imgvec_encoder::image::{self, Corners, ImageError, Region, Tiling};
use pgrx::prelude::*;

type Tiles = TableIterator<'static, (name!(region, pg_sys::BOX), name!(embedding, NewVector))>;

fn region_embedding(image: &Bytea<'_>, region: &pg_sys::BOX, model: &str) -> Embedding {
    let corners = Corners { x: [region.low.x, region.high.x], y: [region.low.y, region.high.y] };
    session::with(|session| session.embed_region(model, fetch(image)?, corners))
}

fn frame_embedding(image: &Bytea<'_>, frame: i32, model: &str) -> Embedding {
    session::with(|session| {
        let image = fetch(image)?;
        let Some(number) = u32::try_from(frame).ok().filter(|&number| number > 0) else {
            let frames = image::info(image, &guc::image_limits())?.frames;
            return Err(ImageError::NoFrame { frame: frame.into(), frames }.into());
        };
        session.embed_frame(model, image, number)
    })
}

/// The lines around a region.
fn to_box(region: Region) -> pg_sys::BOX {
    let Region { left, top, width, height } = region;
    pg_sys::BOX {
        low: pg_sys::Point { x: left.into(), y: top.into() },
        high: pg_sys::Point { x: (left + width).into(), y: (top + height).into() },
    }
}

fn tiles(image: &Bytea<'_>, grid: i32, overlap: f64, model: &str) -> Tiles {
    let tiling = Tiling::new(grid.into(), overlap).unwrap_or_else(|| {
        let (most, widest) = (Tiling::MAX_GRID, Tiling::MAX_OVERLAP);
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "grid or overlap of the tiles is out of range")
            .detail(format!(
                "The grid is {grid} and must be 1 to {most}; the overlap is {overlap} and must be 0 to {widest}."
            ))
            .hint("The grid is the number of tiles along the shorter side, and the overlap the part of its side that a tile shares with the next.")
            .raise()
    });
    let embedded = session::with(|session| session.embed_tiles(model, fetch(image)?, tiling));
    TableIterator::new(
        embedded.into_iter().map(|(region, embedding)| (to_box(region), NewVector::from_slice(&embedding))),
    )
}

#[pg_extern]
fn embed_image_region(image: Bytea<'_>, region: pg_sys::BOX) -> NewVector {
    NewVector::from_slice(&region_embedding(&image, &region, &guc::default_model()))
}

#[pg_extern]
fn embed_image_region_with(image: Bytea<'_>, region: pg_sys::BOX, model: Text<'_>) -> NewVector {
    NewVector::from_slice(&region_embedding(&image, &region, model.as_str()))
}

#[pg_extern]
fn embed_image_frame(image: Bytea<'_>, frame: i32) -> NewVector {
    NewVector::from_slice(&frame_embedding(&image, frame, &guc::default_model()))
}

#[pg_extern]
fn embed_image_frame_with(image: Bytea<'_>, frame: i32, model: Text<'_>) -> NewVector {
    NewVector::from_slice(&frame_embedding(&image, frame, model.as_str()))
}

#[pg_extern]
fn image_tiles(image: Bytea<'_>, grid: i32, overlap: f64) -> Tiles {
    tiles(&image, grid, overlap, &guc::default_model())
}

#[pg_extern]
fn image_tiles_with(image: Bytea<'_>, grid: i32, overlap: f64, model: Text<'_>) -> Tiles {
    tiles(&image, grid, overlap, model.as_str())
}
