//! A perceptual hash: 64 bits that stay mostly the same when a picture is encoded again, made smaller or brighter.
//!
//! In the manner of pHash (Zauner 2010): the picture becomes 32 x 32 gray values, each the mean of its part, and those a
//! discrete cosine transform. A bit says whether one of its 8 x 8 lowest frequencies lies above their median. The constant,
//! which is the brightness, is left out: rows and columns of frequencies count from 0 to 8, and bit 0 is the ninth of the first row.
//!
//! Hashes are stored, so that this never changes: all of it is arithmetic of whole numbers, the same on every machine,
//! and known answers pin it.

use super::error::ImageError;
use super::raster::RgbImage;

/// Gray values on a side.
const SIDE: usize = 32;
/// Frequencies on a side.
const FREQUENCIES: usize = 8;
/// One, as the cosines have it.
const ONE: f64 = 16384.0;

/// The hash; the first bit is the most significant one.
///
/// # Errors
/// [`ImageError::OutOfMemory`], where the picture is turned.
pub fn perceptual_hash(image: &RgbImage) -> Result<u64, ImageError> {
    let pixels = image.upright_pixels()?;
    let gray = shrink(&pixels, image.width() as usize, image.height() as usize);
    Ok(bits(&frequencies(&gray)))
}

/// Mean luma of each part of the picture, in 256ths of a thousandth of a level.
fn shrink(pixels: &[u8], width: usize, height: usize) -> Vec<i64> {
    // A pixel is SIDE units wide and high, a part as many as the picture has pixels.
    let overlaps = |at: usize, length: usize| {
        let (start, end) = (at * SIDE, (at + 1) * SIDE);
        (start / length..=(end - 1) / length)
            .map(move |part| (part, (end.min((part + 1) * length) - start.max(part * length)) as u64))
    };
    let mut sums = vec![0u64; SIDE * SIDE];
    let mut row_sums = [0u64; SIDE];
    for (y, row) in pixels.chunks_exact(3 * width).enumerate() {
        row_sums.fill(0);
        for (x, pixel) in row.chunks_exact(3).enumerate() {
            let luma = 299 * u64::from(pixel[0]) + 587 * u64::from(pixel[1]) + 114 * u64::from(pixel[2]);
            for (part, share) in overlaps(x, width) {
                row_sums[part] += share * luma;
            }
        }
        for (part, share) in overlaps(y, height) {
            for (sum, row) in sums[part * SIDE..].iter_mut().zip(row_sums) {
                *sum += share * row;
            }
        }
    }
    // Below 2^63 up to 10^13 pixels.
    let area = (width * height) as u64;
    let mean = |sum: u64| (u128::from(sum) * 256 + u128::from(area) / 2) / u128::from(area);
    sums.into_iter().map(|sum| i64::try_from(mean(sum)).expect("a gray value")).collect()
}

/// The lowest frequencies, row by row, and beside each row and column one more.
fn frequencies(gray: &[i64]) -> [[i64; FREQUENCIES + 1]; FREQUENCIES + 1] {
    let cosine = |frequency: usize, at: usize| {
        let angle = ((2 * at + 1) * frequency) as f64 * std::f64::consts::PI / (2 * SIDE) as f64;
        // Rounded, so that the last digit of the library's cosine does not matter.
        (angle.cos() * ONE).round() as i64
    };
    let mut by_row = [[0; FREQUENCIES + 1]; SIDE];
    for (row, gray) in by_row.iter_mut().zip(gray.chunks_exact(SIDE)) {
        for (frequency, sum) in row.iter_mut().enumerate() {
            *sum = gray.iter().enumerate().map(|(x, &gray)| gray * cosine(frequency, x)).sum();
        }
    }
    let mut result = [[0; FREQUENCIES + 1]; FREQUENCIES + 1];
    for (vertical, line) in result.iter_mut().enumerate() {
        for (horizontal, sum) in line.iter_mut().enumerate() {
            *sum =
                by_row.iter().enumerate().map(|(y, row)| (row[horizontal] >> 14) * cosine(vertical, y)).sum();
        }
    }
    result
}

fn bits(frequencies: &[[i64; FREQUENCIES + 1]; FREQUENCIES + 1]) -> u64 {
    // The constant makes room for one frequency more.
    let mut values: Vec<i64> =
        frequencies[..FREQUENCIES].iter().flat_map(|row| row[..FREQUENCIES].to_vec()).collect();
    values[0] = frequencies[0][FREQUENCIES];
    let mut sorted = values.clone();
    sorted.sort_unstable();
    let (low, high) = (sorted[values.len() / 2 - 1], sorted[values.len() / 2]);
    // Above the mean of the two in the middle.
    values.iter().fold(0, |hash, &value| hash << 1 | u64::from(2 * value > low + high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32, color: impl Fn(f64, f64) -> [f64; 3]) -> RgbImage {
        let mut pixels = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let at = |i: u32, length: u32| (f64::from(i) + 0.5) / f64::from(length);
                pixels
                    .extend(color(at(x, width), at(y, height)).map(|c| (c * 255.0).clamp(0.0, 255.0) as u8));
            }
        }
        RgbImage::new(width, height, pixels).unwrap()
    }

    fn waves(x: f64, y: f64) -> [f64; 3] {
        let wave = |a: f64, b: f64| 0.5 + 0.4 * (a * x + b * y + 2.0 * x * y).sin();
        [wave(7.0, 2.0), wave(3.0, 9.0), wave(12.0, -5.0)]
    }

    fn apart(a: &RgbImage, b: &RgbImage) -> u32 {
        (perceptual_hash(a).unwrap() ^ perceptual_hash(b).unwrap()).count_ones()
    }

    #[test]
    fn known_answers() {
        let hash = |image: &RgbImage| format!("{:016x}", perceptual_hash(image).unwrap());
        assert_eq!(hash(&picture(200, 150, waves)), "75e2fac49d2a982a");
        assert_eq!(hash(&picture(31, 77, |x, y| [x, y, x * y])), "00751877d3755477");
        assert_eq!(hash(&picture(1, 1, |_, _| [0.3, 0.6, 0.1])), "0000000000000000");
        assert_eq!(hash(&picture(640, 480, |_, _| [1.0; 3])), "0000000000000000");
    }

    #[test]
    fn size_and_brightness_hardly_matter_and_the_picture_does() {
        let original = picture(300, 200, waves);
        for (width, height) in [(150, 100), (64, 64), (601, 399), (1200, 30)] {
            assert!(apart(&original, &picture(width, height, waves)) <= 4, "{width} x {height}");
        }
        let brighter = picture(300, 200, |x, y| waves(x, y).map(|c| 1.15 * c + 0.02));
        assert!(apart(&original, &brighter) <= 4);
        let other = picture(300, 200, |x, y| waves(1.0 - x, y * y));
        assert!(apart(&original, &other) > 16, "{}", apart(&original, &other));
    }

    #[test]
    fn half_of_the_bits_are_set() {
        let ones = perceptual_hash(&picture(90, 60, waves)).unwrap().count_ones();
        assert_eq!(ones, 32);
    }
}
