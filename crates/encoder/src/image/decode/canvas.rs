//! The canvas of an animation: frames are drawn one over the other, and each says what becomes of it before the next.

use crate::image::error::ImageError;
use crate::image::memory::try_zeroed;

/// Bytes of the canvas for each pixel, of what a frame hides, and of a frame.
pub(in crate::image) const BYTES_PER_PIXEL: u64 = 3 * 4;

/// Where a frame lies, within the canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// What becomes of a frame before the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposal {
    Keep,
    /// Its place becomes transparent.
    Clear,
    /// Its place becomes what it was before.
    Restore,
}

/// RGBA pixels, transparent at first.
pub(super) struct Canvas {
    width: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    pub(super) fn new(width: u32, height: u32) -> Result<Self, ImageError> {
        let width = width as usize;
        Ok(Self { width, pixels: try_zeroed(4 * width * height as usize)? })
    }

    pub(super) fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// The rows of a place.
    fn rows(&mut self, place: Place) -> impl Iterator<Item = &mut [u8]> {
        let rows = self.pixels.chunks_exact_mut(4 * self.width).skip(place.top).take(place.height);
        rows.map(move |row| &mut row[4 * place.left..4 * (place.left + place.width)])
    }

    /// Draws the frame that is wanted, or one before it, which then becomes what it asks for.
    pub(super) fn draw(
        &mut self,
        place: Place,
        frame: &[u8],
        blends: bool,
        disposal: Disposal,
        is_last: bool,
    ) -> Result<(), ImageError> {
        let saved = match disposal {
            Disposal::Restore if !is_last => {
                let mut saved = try_zeroed(4 * place.width * place.height)?;
                let rows = saved.chunks_exact_mut(4 * place.width.max(1));
                rows.zip(self.rows(place)).for_each(|(to, from)| to.copy_from_slice(from));
                saved
            }
            Disposal::Restore | Disposal::Keep | Disposal::Clear => Vec::new(),
        };
        for (to, from) in self.rows(place).zip(frame.chunks_exact(4 * place.width.max(1))) {
            if blends {
                let (to, from) = (to.as_chunks_mut::<4>().0, from.as_chunks::<4>().0);
                to.iter_mut().zip(from).for_each(|(to, from)| *to = over(*to, *from));
            } else {
                to.copy_from_slice(from);
            }
        }
        if is_last {
            return Ok(());
        }
        match disposal {
            Disposal::Keep => {}
            Disposal::Clear => self.rows(place).for_each(|row| row.fill(0)),
            Disposal::Restore => {
                let rows = saved.chunks_exact(4 * place.width.max(1));
                self.rows(place).zip(rows).for_each(|(to, from)| to.copy_from_slice(from));
            }
        }
        Ok(())
    }
}

/// `front` over `back`, both of colors that alpha is not multiplied into.
fn over(back: [u8; 4], front: [u8; 4]) -> [u8; 4] {
    match (front[3], back[3]) {
        (0, _) => back,
        (255, _) | (_, 0) => front,
        (front_alpha, back_alpha) => {
            let (front_alpha, back_alpha) = (u32::from(front_alpha), u32::from(back_alpha));
            // In 255ths of 255.
            let of_back = back_alpha * (255 - front_alpha);
            let alpha = 255 * front_alpha + of_back;
            let mix = |front: u8, back: u8| {
                ((u32::from(front) * 255 * front_alpha + u32::from(back) * of_back + alpha / 2) / alpha) as u8
            };
            let [red, green, blue] = [0, 1, 2].map(|channel| mix(front[channel], back[channel]));
            [red, green, blue, ((alpha + 127) / 255) as u8]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_color_lies_over_another() {
        let (red, blue) = ([255, 0, 0, 255], [0, 0, 255, 255]);
        assert_eq!(over(blue, red), red);
        assert_eq!(over(blue, [255, 0, 0, 0]), blue);
        assert_eq!(over([9, 9, 9, 0], [1, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(over(blue, [255, 0, 0, 51]), [51, 0, 204, 255]);
        // Half over half: three quarters, of which two thirds are in front.
        assert_eq!(over([0, 0, 255, 128], [255, 0, 0, 128]), [170, 0, 85, 192]);
    }

    #[test]
    fn a_frame_becomes_what_it_asks_for() {
        let place = Place { left: 1, top: 0, width: 1, height: 2 };
        let (red, blue) = ([255, 0, 0, 255].repeat(2), [0, 0, 255, 255].repeat(2));
        for (disposal, expected) in [
            (Disposal::Keep, [0, 0, 255, 255]),
            (Disposal::Clear, [0; 4]),
            (Disposal::Restore, [255, 0, 0, 255]),
        ] {
            let mut canvas = Canvas::new(3, 2).unwrap();
            canvas.draw(place, &red, true, Disposal::Keep, false).unwrap();
            canvas.draw(place, &blue, true, disposal, false).unwrap();
            let pixels = canvas.into_pixels();
            for row in 0..2 {
                assert_eq!(pixels[12 * row..][..4], [0; 4]);
                assert_eq!(pixels[12 * row + 4..][..4], expected, "{disposal:?}");
                assert_eq!(pixels[12 * row + 8..][..4], [0; 4]);
            }
        }
    }
}
