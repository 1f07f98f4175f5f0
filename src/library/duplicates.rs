//! `duplicate_group`: groups of rows that are near each other.

use super::memory;
use super::partition::{Keep, Partition, check, constant};
use crate::error::{Code, Report};
use crate::server::window::Window;
use crate::types::datum::Text;
use imgvec_library::linkage::{self, Linkage, Pair};
use imgvec_library::vectors::Vectors;
use imgvec_vector::distance;
use pgrx::prelude::*;

/// Bytes that grouping takes for each pair, beside the pair.
pub const GROUPING_BYTES: usize = 80;

#[pg_extern(sql = false)]
fn duplicate_group(call: pg_sys::FunctionCallInfo) -> Option<i32> {
    // SAFETY: the call's own.
    let window = unsafe { Window::of_call(call) };
    window.answer(|| groups(window, Linkage::Complete))
}

#[pg_extern(sql = false)]
fn duplicate_group_linked(call: pg_sys::FunctionCallInfo) -> Option<i32> {
    // SAFETY: the call's own.
    let window = unsafe { Window::of_call(call) };
    window.answer(|| groups(window, parse_linkage(constant::<Text>(window, 2, "linkage").as_str())))
}

/// A distance as messages show it: a huge one without its hundreds of digits.
pub fn shown(distance: f64) -> String {
    if distance < 1e15 { distance.to_string() } else { format!("{distance:e}") }
}

/// A linkage by its name.
pub fn parse_linkage(name: &str) -> Linkage {
    match name {
        "single" => Linkage::Single,
        "complete" => Linkage::Complete,
        _ => Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, format!("unknown linkage \"{name}\""))
            .detail("With \"complete\", all rows of a group are near each other. With \"single\", each is near another one.")
            .hint("Leave it out for \"complete\".")
            .raise(),
    }
}

/// Raises an error unless a distance is a number from 0 on.
pub fn require_distance(distance: f64) {
    if distance.is_nan() || distance < 0.0 {
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "max_distance is out of range")
            .detail(format!("It is {distance}, and must be 0 or greater."))
            .hint("Give the largest distance between copies, such as 0.05.")
            .raise();
    }
}

fn groups(window: Window, linkage: Linkage) -> Vec<Option<i32>> {
    let max_distance: f64 = constant(window, 1, "max_distance");
    require_distance(max_distance);
    let partition = Partition::read(window, Keep::Values, size_of::<f64>() + 40);
    // Equal rows are next to each other, and belong together whatever else does.
    let vectors = &partition.vectors;
    let mut distinct: Vec<usize> = Vec::new();
    let mut of: Vec<u32> = Vec::with_capacity(vectors.len());
    for at in 0..vectors.len() {
        if distinct.last().is_none_or(|&last| vectors.row(last) != vectors.row(at)) {
            distinct.push(at);
        }
        of.push(u32::try_from(distinct.len() - 1).expect("rows are counted by 31 bits"));
    }
    let spent = vectors.len() * (2 * vectors.row_bytes() + size_of::<f64>() + 40);
    let mut pairs = pairs(vectors, &distinct, max_distance, memory::allowed_bytes().saturating_sub(spent));
    let groups = linkage::groups(distinct.len(), &mut pairs, linkage, &mut check);
    let mut copies = vec![0u32; distinct.len()];
    of.iter().for_each(|&one| copies[one as usize] += 1);
    // Numbered again, as rows that are only equal are a group too.
    let mut numbers: Vec<Option<i32>> = vec![None; distinct.len()];
    let mut last = 0;
    let mut next = || {
        last += 1;
        last
    };
    let answers: Vec<Option<i32>> = (0..distinct.len())
        .map(|one| match groups[one] {
            None => (copies[one] > 1).then(&mut next),
            Some(group) => Some(*numbers[group as usize].get_or_insert_with(&mut next)),
        })
        .collect();
    partition.by_row(|place| answers[of[place] as usize])
}

/// Pairs of distinct vectors within a distance.
fn pairs(vectors: &Vectors, distinct: &[usize], max_distance: f64, allowed: usize) -> Vec<Pair> {
    let most = allowed / (size_of::<Pair>() + GROUPING_BYTES);
    let squares: Vec<f64> = distinct.iter().map(|&at| distance::square(vectors.row(at))).collect();
    let (mut pairs, mut count) = (Vec::new(), 0usize);
    for (a, &row) in (0..).zip(distinct) {
        check();
        let (row, square) = (vectors.row(row), squares[a as usize]);
        for (b, &other) in (a + 1..).zip(&distinct[a as usize + 1..]) {
            let distance = distance::cosine_by_squares(row, vectors.row(other), square, squares[b as usize]);
            if distance <= max_distance {
                count += 1;
                if count <= most {
                    pairs.push(Pair { a, b, distance });
                }
            }
        }
    }
    if count > most {
        let bytes = count.saturating_mul(size_of::<Pair>() + GROUPING_BYTES);
        let what = format!("{count} pairs of rows within {}", shown(max_distance));
        memory::exceeded(bytes, allowed, &what, "give a smaller max_distance").raise();
    }
    pairs
}
