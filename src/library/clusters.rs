//! `cluster`: clusters of the rows of a partition.

use super::partition::{Keep, Partition, check, constant};
use crate::error::{Code, Report};
use crate::server::window::Window;
use imgvec_library::hdbscan;
use pgrx::prelude::*;

/// The smallest clusters that can be asked for.
const SMALLEST: i32 = 2;

#[pg_extern(sql = false)]
fn cluster(call: pg_sys::FunctionCallInfo) -> Option<i32> {
    // SAFETY: the call's own.
    let window = unsafe { Window::of_call(call) };
    window.answer(|| {
        let min_size = require_size(constant(window, 1, "min_size"));
        let partition = Partition::read(window, Keep::Directions, hdbscan::EXACT_ROW_BYTES);
        let vectors = &partition.vectors;
        let found = hdbscan::exact(vectors.len(), min_size, |a, b| vectors.distance(a, b), &mut check);
        partition.by_row(|place| found.labels[place].map(from_one))
    })
}

/// Raises an error unless clusters can have so few rows.
pub fn require_size(min_size: i32) -> usize {
    if min_size < SMALLEST {
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "min_size is out of range")
            .detail(format!("It is {min_size}; a cluster has {SMALLEST} rows at least."))
            .hint("Give the number of rows below which a group is no cluster, such as 5.")
            .raise();
    }
    usize::try_from(min_size).expect("not negative")
}

/// Numbers as SQL counts.
pub fn from_one(number: u32) -> i32 {
    i32::try_from(number).expect("rows are counted by 31 bits") + 1
}
