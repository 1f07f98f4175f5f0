//! Vector pages: a chain of full vectors, those of the basis or the leaders.
//!
//! | offset | width | type | field |
//! |---|---|---|---|
//! | 0 | 4 | u32 | next page of the chain, 0 if this is the last |
//! | 4 | 2 | u16 | vectors on this page |
//! | 6 | 2 | - | 0 |
//! | 8 | 2 P each | bf16 | vectors of P = padded dim elements |

use super::bytes::{get_u16, get_u32, put_u16, put_u32};
use super::{BODY_BYTES, Geometry, Kind, Page, PageError, bf16, check, expect};

const HEADER_BYTES: usize = 8;
const _: () = assert!(HEADER_BYTES + 2 * super::MAX_DIM.next_multiple_of(64) <= BODY_BYTES);

/// Vectors that fit a page.
#[must_use]
pub fn per_page(g: &Geometry) -> usize {
    (BODY_BYTES - HEADER_BYTES) / (2 * g.padded_dim())
}

fn capacity(g: &Geometry) -> u16 {
    u16::try_from(per_page(g)).expect("64 elements a vector at least")
}

/// Makes `page` a vector page without vectors.
pub fn init(page: &mut Page, g: &Geometry) {
    super::init(page, Kind::Vectors, capacity(g), g.epoch());
}

/// Next page of the chain and number of vectors on this one.
///
/// # Errors
/// [`PageError`] if it is no vector page of this geometry.
pub fn header(page: &Page, g: &Geometry) -> Result<(u32, usize), PageError> {
    expect(page, Kind::Vectors, capacity(g))?;
    let count = get_u16(page, 4);
    check("vectors", count.into(), 0, capacity(g).into())?;
    Ok((get_u32(page, 0), count.into()))
}

/// Links the next page.
pub fn set_next(page: &mut Page, next: u32) {
    put_u32(page, 0, next);
}

/// Appends the elements of vector `i` to `out`; the caller has compared `i` with the page's count.
///
/// # Errors
/// [`PageError`] if one is not finite, or so large that its square is not.
pub fn get(page: &Page, g: &Geometry, i: usize, out: &mut Vec<f32>) -> Result<(), PageError> {
    let at = HEADER_BYTES + 2 * g.padded_dim() * i;
    for element in 0..g.padded_dim() {
        let x = bf16::to_f32(get_u16(page, at + 2 * element));
        if x.is_nan() || x.abs() > LARGEST {
            return Err(PageError::NotFinite { field: "vectors" });
        }
        out.push(x);
    }
    Ok(())
}

/// Largest size of an element: that of a vector which can be indexed, less the center.
const LARGEST: f32 = 2e18;

/// Writes vector `i`, at most one after the last.
pub fn set(page: &mut Page, g: &Geometry, i: usize, vector: &[f32]) {
    let at = HEADER_BYTES + 2 * g.padded_dim() * i;
    for (element, &x) in vector.iter().enumerate() {
        put_u16(page, at + 2 * element, bf16::nearest(x));
    }
    let count = usize::from(get_u16(page, 4)).max(i + 1);
    put_u16(page, 4, u16::try_from(count).expect("within the capacity"));
}

#[cfg(test)]
mod tests {
    use super::super::PAGE_BYTES;
    use super::*;

    #[test]
    fn vectors_round_trip() {
        for dim in [1, 100, 512, 4000] {
            let g = Geometry::new(dim).unwrap();
            let mut page = [0; PAGE_BYTES];
            init(&mut page, &g);
            set_next(&mut page, 7);
            let vector =
                |i: usize| -> Vec<f32> { (0..g.padded_dim()).map(|j| ((i + j) % 256) as f32).collect() };
            for i in 0..per_page(&g) {
                set(&mut page, &g, i, &vector(i));
            }
            assert_eq!(header(&page, &g), Ok((7, per_page(&g))));
            for i in 0..per_page(&g) {
                let mut got = Vec::new();
                get(&page, &g, i, &mut got).unwrap();
                assert_eq!(got, vector(i));
            }
            put_u16(&mut page, HEADER_BYTES, 0x7F80);
            assert!(get(&page, &g, 0, &mut Vec::new()).is_err(), "infinite");
            put_u16(&mut page, 4, 60_000);
            assert!(header(&page, &g).is_err());
        }
    }
}
