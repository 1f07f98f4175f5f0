//! The vectors of a window's partition.

use super::memory;
use crate::error::{Code, OrRaise, Report, vector};
use crate::server::window::Window;
use crate::types::Vector;
use imgvec_library::vectors::Vectors;
use pgrx::datum::FromDatum;

/// What each row takes, whether it has a vector or not.
const NUMBERED_BYTES: usize = 32;

/// What of a vector is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The vector as it is.
    Values,
    /// The unit vector.
    Directions,
}

/// Vectors with a direction, in the order of their values, so that no answer depends on the order of the rows.
pub struct Partition {
    /// By place.
    pub vectors: Vectors,
    /// The place of each row's vector, if it has one.
    pub places: Vec<Option<u32>>,
}

impl Partition {
    /// Reads argument 0 of all rows. Raises an error if they take more memory than is allowed, with `row_bytes` more for each.
    pub fn read(window: Window, keep: Keep, row_bytes: usize) -> Self {
        let rows = window.row_count();
        let mut unsorted = Vectors::new(0);
        // Rows without a vector take a number, a place and an answer, too.
        memory::require(
            rows.saturating_mul(NUMBERED_BYTES),
            &format!("{rows} rows"),
            "divide the rows with PARTITION BY",
        );
        let mut numbers: Vec<Option<u32>> = Vec::new();
        numbers
            .try_reserve_exact(rows)
            .map_err(|_| memory::refused(rows * size_of::<Option<u32>>()))
            .or_raise();
        window.each(0, |_, value, is_null| {
            // SAFETY: the functions are declared with an imgvec as first argument.
            let value = unsafe { Vector::<f32>::from_datum(value, is_null) };
            let number = value.and_then(|vector| {
                let elements = vector.elements();
                if unsorted.dim() == 0 {
                    // Twice: sorted into another place.
                    let bytes = rows.saturating_mul(2 * size_of_val(elements) + row_bytes);
                    memory::require(
                        bytes,
                        &format!("{rows} rows of {} dimensions", elements.len()),
                        "divide the rows with PARTITION BY",
                    );
                    unsorted = Vectors::new(elements.len());
                    unsorted.reserve(rows).map_err(|_| memory::refused(bytes)).or_raise();
                }
                if unsorted.dim() != elements.len() {
                    vector::different_dims(unsorted.dim(), elements.len()).raise();
                }
                let number = u32::try_from(unsorted.len()).expect("rows are counted by 31 bits");
                let is_there = match keep {
                    Keep::Directions => unsorted.push_direction(elements),
                    Keep::Values => {
                        let has_direction = elements.iter().any(|&x| x != 0.0);
                        if has_direction {
                            unsorted.push(elements);
                        }
                        has_direction
                    }
                };
                is_there.then_some(number)
            });
            numbers.push(number);
        });
        let order = unsorted.order();
        let mut place = vec![0; order.len()];
        let mut vectors = Vectors::new(unsorted.dim());
        vectors
            .reserve(order.len())
            .map_err(|_| memory::refused(order.len() * unsorted.row_bytes()))
            .or_raise();
        for (at, &number) in (0..).zip(&order) {
            place[number as usize] = at;
            vectors.push(unsorted.row(number as usize));
        }
        let places = numbers.into_iter().map(|number| number.map(|number| place[number as usize])).collect();
        Self { vectors, places }
    }

    /// Answers by row from answers by place.
    pub fn by_row<T>(&self, answer: impl Fn(usize) -> Option<T>) -> Vec<Option<T>> {
        self.places.iter().map(|place| place.and_then(|place| answer(place as usize))).collect()
    }
}

/// An argument that is the same for all rows of a partition: that of the row which is asked for first.
pub fn constant<T: FromDatum>(window: Window, argument: i32, name: &str) -> T {
    // SAFETY: the functions are declared with such an argument.
    let value = window.current(argument).and_then(|value| unsafe { T::from_datum(value, false) });
    value.unwrap_or_else(|| {
        Report::new(Code::ERRCODE_NULL_VALUE_NOT_ALLOWED, format!("{name} must not be null"))
            .detail("It applies to all rows of a partition.")
            .hint(format!("Give {name} a value."))
            .raise()
    })
}

/// A call's check for interrupts.
pub fn check() {
    pgrx::check_for_interrupts!();
}
