//! Bounds pages: one for each key column, consecutive, with what sketches of its keys are made by.
//!
//! | offset | width | type | field |
//! |---|---|---|---|
//! | 0 | 2 | u16 | bounds |
//! | 2 | 6 | - | 0 |
//! | 8 | 8 each | u64 | bounds, ascending |

use super::bytes::{get_u16, get_u64, put_u16, put_u64};
use super::{Geometry, Kind, Page, PageError, check, expect};
use crate::filter::MAX_BOUNDS;

const HEADER_BYTES: usize = 8;
const _: () = assert!(HEADER_BYTES + 8 * MAX_BOUNDS <= super::BODY_BYTES);

/// Makes `page` a page with the bounds of one column, 254 at most.
pub fn init(page: &mut Page, g: &Geometry, bounds: &[u64]) {
    super::init(page, Kind::Bounds, 0, g.epoch());
    put_u16(page, 0, u16::try_from(bounds.len()).expect("at most 254"));
    for (i, &bound) in bounds.iter().enumerate() {
        put_u64(page, HEADER_BYTES + 8 * i, bound);
    }
}

/// The bounds of a column.
///
/// # Errors
/// [`PageError`] if it is no page of bounds, or they do not ascend.
pub fn get(page: &Page) -> Result<Vec<u64>, PageError> {
    expect(page, Kind::Bounds, 0)?;
    let count = usize::from(get_u16(page, 0));
    check("bounds", count as u64, 0, MAX_BOUNDS as u64)?;
    let bounds: Vec<u64> = (0..count).map(|i| get_u64(page, HEADER_BYTES + 8 * i)).collect();
    match bounds.windows(2).find(|pair| pair[0] >= pair[1]) {
        None => Ok(bounds),
        Some(pair) => Err(PageError::Field { field: "bound", found: pair[1], low: pair[0], high: u64::MAX }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::PAGE_BYTES;
    use super::*;

    #[test]
    fn bounds_round_trip_and_those_that_do_not_ascend_are_refused() {
        let g = Geometry::new(8).unwrap();
        let mut page = [0; PAGE_BYTES];
        let bounds: Vec<u64> = (0..254).map(|i| i * i + 1).collect();
        init(&mut page, &g, &bounds);
        assert_eq!(get(&page), Ok(bounds));
        put_u64(&mut page, HEADER_BYTES + 80, 3);
        assert!(matches!(get(&page), Err(PageError::Field { field: "bound", .. })));
        put_u16(&mut page, 0, 255);
        assert!(matches!(get(&page), Err(PageError::Field { field: "bounds", .. })));
    }
}
