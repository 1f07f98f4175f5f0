//! `diverse_rank`: ranks in which like rows do not follow each other.

use super::partition::{Keep, Partition, check, constant};
use crate::error::{Code, Report};
use crate::server::window::Window;
use imgvec_library::mmr;
use imgvec_library::vectors::Vectors;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn diverse_rank(call: pg_sys::FunctionCallInfo) -> Option<i64> {
    // SAFETY: the call's own.
    let window = unsafe { Window::of_call(call) };
    window.answer(|| ranks(window))
}

fn ranks(window: Window) -> Vec<Option<i64>> {
    let diversity: f64 = constant(window, 2, "diversity");
    if !(0.0..=1.0).contains(&diversity) {
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "diversity is out of range")
            .detail(format!("It is {diversity}, and must be between 0 and 1. 0 ranks by score alone."))
            .hint("A diversity of 0.3 is a good start.")
            .raise();
    }
    let partition = Partition::read(window, Keep::Directions, 80);
    // Rows with a score as well.
    let mut scores: Vec<Option<f64>> = vec![None; partition.vectors.len()];
    window.each(1, |row, value, is_null| {
        // SAFETY: the function is declared with a double precision as second argument.
        let score = unsafe { f64::from_datum(value, is_null) }.filter(|score| score.is_finite());
        if let Some(place) = partition.places[row] {
            scores[place as usize] = score;
        }
    });
    let mut ranked = Vectors::new(partition.vectors.dim());
    let mut rank_of = vec![None; scores.len()];
    let mut known = Vec::with_capacity(scores.len());
    for (place, score) in scores.into_iter().enumerate() {
        if let Some(score) = score {
            rank_of[place] = Some(known.len());
            known.push(score);
            ranked.push(partition.vectors.row(place));
        }
    }
    let ranks = mmr::ranks(&ranked, &known, diversity, &mut check);
    partition.by_row(|place| rank_of[place].map(|at| i64::from(ranks[at]) + 1))
}
