//! `embedding_map`: a point for each row, near each other for near rows.

use super::partition::{Keep, Partition, check};
use crate::server::window::Window;
use imgvec_library::map;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn embedding_map(call: pg_sys::FunctionCallInfo) -> Option<pg_sys::Point> {
    // SAFETY: the call's own.
    let window = unsafe { Window::of_call(call) };
    let point = window.answer(|| {
        let partition = Partition::read(window, Keep::Directions, map::ROW_BYTES);
        let points = map::layout(&partition.vectors, &mut check);
        partition.by_row(|place| Some(points[place]))
    });
    point.map(|[x, y]| pg_sys::Point { x, y })
}
