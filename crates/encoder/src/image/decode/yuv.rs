//! From planes of luma and chroma to RGB, as libavif does it for Pillow.
//!
//! The common matrices go through libyuv there: samples keep their upper 8 bits, chroma is drawn out with weights of 3 and 1, and the
//! products have 6 bits after the point. We compute the same. Others are computed in floats.

use crate::image::error::ImageError;
use crate::image::header::heif::Crop;
use crate::image::memory::try_zeroed;

/// Rows of samples. Above 8 bits a sample is two bytes, in the order of this machine.
pub(super) trait Planes {
    fn width(&self) -> usize;
    fn height(&self) -> usize;
    fn bits(&self) -> u8;
    /// Columns and rows of luma for one sample of chroma; none without chroma.
    fn subsampling(&self) -> Option<(usize, usize)>;
    fn row(&self, plane: usize, row: usize) -> &[u8];

    fn chroma_sides(&self) -> (usize, usize) {
        self.subsampling()
            .map_or((0, 0), |(across, down)| (self.width().div_ceil(across), self.height().div_ceil(down)))
    }
}

/// How samples become colors: numbers of ITU-T H.273.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coding {
    pub(super) primaries: u16,
    pub(super) matrix: u16,
    pub(super) is_full_range: bool,
}

/// Shares of red and blue in luma.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Matrix {
    Shares { red: f64, blue: f64, through_libyuv: bool },
    Identity,
    YCgCo,
}

impl Coding {
    /// What the numbers mean, or nothing where this is not known here.
    fn matrix(self) -> Option<Matrix> {
        let shares = |red, blue, through_libyuv| Some(Matrix::Shares { red, blue, through_libyuv });
        match (self.matrix, self.primaries) {
            (0, _) => Some(Matrix::Identity),
            (1, _) | (12, 1) => shares(0.2126, 0.0722, true),
            // What is not told is taken for BT.601.
            (2 | 5 | 6, _) | (12, 2 | 5 | 6) => shares(0.299, 0.114, true),
            (4, _) => shares(0.30, 0.11, false),
            (7, _) => shares(0.212, 0.087, false),
            (8, _) => Some(Matrix::YCgCo),
            (9, _) | (12, 9) => shares(0.2627, 0.0593, true),
            _ => None,
        }
    }
}

/// Products of each sample, as integers with 6 bits after the point.
struct Tables {
    luma: [i16; 256],
    red_of_v: [i16; 256],
    green_of_u: [i16; 256],
    green_of_v: [i16; 256],
    blue_of_u: [i16; 256],
}

impl Tables {
    fn new(red: f64, blue: f64, is_full_range: bool) -> Self {
        let green = 1.0 - red - blue;
        let chroma_scale = if is_full_range { 1.0 } else { 255.0 / 224.0 };
        // For two of the matrices, libyuv has rounded the factor before.
        let luma_scale = match (is_full_range, red == 0.2627) {
            (true, _) => 1.0,
            (false, true) => 255.0 / 219.0,
            (false, false) => 1.164,
        };
        let factor = |share: f64| (share * chroma_scale * 64.0).round() as i32;
        let products = |factor: i32| std::array::from_fn(|sample| ((sample as i32 - 128) * factor) as i16);
        let scale = (luma_scale * 64.0 * 65536.0 / 257.0_f64).round() as i64;
        let offset = if is_full_range { 32 } else { (-luma_scale * 64.0 * 16.0 + 32.0).round() as i64 };
        Self {
            luma: std::array::from_fn(|sample| (((sample as i64 * 257 * scale) >> 16) + offset) as i16),
            red_of_v: products(factor(2.0 * (1.0 - red))),
            green_of_u: products(factor(2.0 * blue * (1.0 - blue) / green)),
            green_of_v: products(factor(2.0 * red * (1.0 - red) / green)),
            // The factor is one byte there, and cut short in the limited range.
            blue_of_u: products(factor(2.0 * (1.0 - blue)).min(128)),
        }
    }

    #[inline]
    fn pixel(&self, y: u8, u: u8, v: u8) -> [u8; 3] {
        let (y, u, v) = (usize::from(y), usize::from(u), usize::from(v));
        let luma = i32::from(self.luma[y]);
        let level = |sum: i32| (sum >> 6).clamp(0, 255) as u8;
        [
            level(luma + i32::from(self.red_of_v[v])),
            level(luma - i32::from(self.green_of_u[u]) - i32::from(self.green_of_v[v])),
            level(luma + i32::from(self.blue_of_u[u])),
        ]
    }
}

/// Sample number `column` of a row.
#[inline]
fn sample(row: &[u8], column: usize, bits: u8) -> u16 {
    if bits == 8 {
        u16::from(row[column])
    } else {
        u16::from_ne_bytes([row[2 * column], row[2 * column + 1]])
    }
}

/// The upper 8 bits of each sample of a row.
fn upper_bits(row: &[u8], bits: u8, to: &mut [u8]) {
    if bits == 8 {
        to.copy_from_slice(&row[..to.len()]);
        return;
    }
    for (to, &pair) in to.iter_mut().zip(row.as_chunks::<2>().0) {
        *to = (u16::from_ne_bytes(pair) >> (bits - 8)).min(255) as u8;
    }
}

/// Draws chroma out to the columns of luma. `far` is the row that counts for a quarter.
fn draw_out(near: &[u8], far: &[u8], across: usize, to: &mut [u8]) {
    let down = |column: usize| 3 * u16::from(near[column]) + u16::from(far[column]);
    let is_one_row = std::ptr::eq(near, far);
    let round = |sum: u16, weight: u16| ((sum + weight / 2) / weight) as u8;
    if across == 1 {
        for (column, to) in to.iter_mut().enumerate() {
            *to = if is_one_row { near[column] } else { round(down(column), 4) };
        }
        return;
    }
    let width = to.len();
    let last = width - 1;
    for column in 0..last / 2 {
        let (left, right) = if is_one_row {
            (u16::from(near[column]), u16::from(near[column + 1]))
        } else {
            (down(column), down(column + 1))
        };
        let (first, second, weight) = (3 * left + right, left + 3 * right, if is_one_row { 4 } else { 16 });
        to[2 * column + 1] = round(first, weight);
        if 2 * column + 2 < width {
            to[2 * column + 2] = round(second, weight);
        }
    }
    to[0] = if is_one_row { near[0] } else { round(down(0), 4) };
    to[last] = if is_one_row { near[last / 2] } else { round(down(last / 2), 4) };
}

/// The row of chroma that is nearest to row `row` of luma, and the next nearest.
fn chroma_rows(row: usize, height: usize, down: usize, chroma_height: usize) -> (usize, usize) {
    let near = row / down;
    if down == 1 || row == 0 || (row == height - 1 && row % 2 == 1) {
        return (near, near);
    }
    let far = if row.is_multiple_of(2) { near - 1 } else { (near + 1).min(chroma_height - 1) };
    (near, far)
}

/// The kept part of a picture as RGB, or RGBA where there is `alpha`. `stop` is asked for each row.
pub(super) fn to_rgb(
    picture: &dyn Planes,
    alpha: Option<(&dyn Planes, bool)>,
    coding: Coding,
    crop: Crop,
    mut stop: impl FnMut() -> Result<(), ImageError>,
) -> Result<Vec<u8>, ToRgb> {
    let matrix = coding.matrix().ok_or(ToRgb::Unknown)?;
    if matrix == Matrix::Identity && picture.subsampling().is_some_and(|factors| factors != (1, 1)) {
        return Err(ToRgb::Unknown);
    }
    let (left, top, width, height) =
        (crop.left as usize, crop.top as usize, crop.width as usize, crop.height as usize);
    let channels = if alpha.is_some() { 4 } else { 3 };
    let mut pixels = try_zeroed(width * height * channels)?;
    let mut rows = Rows::new(picture, coding, matrix)?;
    for (row, target) in pixels.chunks_exact_mut(width * channels).enumerate() {
        stop()?;
        let colors = rows.row(top + row);
        let colors = colors[left..left + width].iter();
        match &alpha {
            None => {
                let target = target.as_chunks_mut::<3>().0;
                target.iter_mut().zip(colors).for_each(|(to, color)| *to = *color);
            }
            Some((alpha, is_full_range)) => {
                let bits = alpha.bits();
                let alphas = alpha.row(0, top + row);
                for (column, (to, color)) in target.as_chunks_mut::<4>().0.iter_mut().zip(colors).enumerate()
                {
                    let alpha = alpha_of(sample(alphas, left + column, bits), bits, *is_full_range);
                    *to = [color[0], color[1], color[2], alpha];
                }
            }
        }
    }
    Ok(pixels)
}

/// Why planes do not become RGB.
pub(super) enum ToRgb {
    /// Their matrix is not known here.
    Unknown,
    Failed(ImageError),
}

impl From<ImageError> for ToRgb {
    fn from(error: ImageError) -> Self {
        Self::Failed(error)
    }
}

/// Alpha of 8 bits, rounded. Early writers used the limited range.
fn alpha_of(sample: u16, bits: u8, is_full_range: bool) -> u8 {
    let max = (1_u32 << bits) - 1;
    let mut alpha = u32::from(sample).min(max);
    if !is_full_range {
        let (black, range) = (16 << (bits - 8), 219 << (bits - 8));
        alpha = ((alpha.saturating_sub(black) * max + range / 2) / range).min(max);
    }
    if bits == 8 { alpha as u8 } else { ((alpha * 255 + max / 2) / max) as u8 }
}

/// Makes one row of colors after the other.
struct Rows<'a> {
    picture: &'a dyn Planes,
    kind: Kind,
    colors: Vec<[u8; 3]>,
    /// Samples of luma, drawn-out chroma, and rows of chroma before that.
    luma: Vec<u8>,
    chroma: [Vec<u8>; 2],
    narrow: [Vec<u8>; 2],
}

enum Kind {
    Integers(Box<Tables>),
    Floats { matrix: Matrix, is_full_range: bool },
}

impl<'a> Rows<'a> {
    fn new(picture: &'a dyn Planes, coding: Coding, matrix: Matrix) -> Result<Self, ImageError> {
        // Gray of more bits is rounded.
        let is_wide_gray = picture.subsampling().is_none() && picture.bits() > 8;
        let kind = match matrix {
            Matrix::Shares { red, blue, through_libyuv: true } if !is_wide_gray => {
                Kind::Integers(Box::new(Tables::new(red, blue, coding.is_full_range)))
            }
            Matrix::Shares { .. } | Matrix::Identity | Matrix::YCgCo => {
                Kind::Floats { matrix, is_full_range: coding.is_full_range }
            }
        };
        let width = picture.width();
        let (chroma_width, _) = picture.chroma_sides();
        let chroma = || try_zeroed(if chroma_width > 0 { width } else { 0 });
        let mut colors = Vec::new();
        colors.try_reserve_exact(width).map_err(|_| ImageError::OutOfMemory { bytes: 3 * width })?;
        colors.resize(width, [0; 3]);
        Ok(Self {
            picture,
            kind,
            colors,
            luma: try_zeroed(width)?,
            chroma: [chroma()?, chroma()?],
            narrow: [try_zeroed(chroma_width)?, try_zeroed(chroma_width)?],
        })
    }

    fn row(&mut self, row: usize) -> &[[u8; 3]] {
        match &self.kind {
            Kind::Integers(_) => self.integers(row),
            Kind::Floats { matrix, is_full_range } => {
                let (matrix, is_full_range) = (*matrix, *is_full_range);
                self.floats(row, matrix, is_full_range);
            }
        }
        &self.colors
    }

    fn integers(&mut self, row: usize) {
        let Self { picture, kind: Kind::Integers(tables), colors, luma, chroma, narrow } = self else {
            return;
        };
        let bits = picture.bits();
        upper_bits(picture.row(0, row), bits, luma);
        let Some((across, down)) = picture.subsampling() else {
            for (color, &y) in colors.iter_mut().zip(luma.iter()) {
                *color = tables.pixel(y, 128, 128);
            }
            return;
        };
        let (near, far) = chroma_rows(row, picture.height(), down, picture.chroma_sides().1);
        for (plane, wide) in (1..).zip(chroma.iter_mut()) {
            let [near_row, far_row] = narrow;
            upper_bits(picture.row(plane, near), bits, near_row);
            if near == far {
                draw_out(near_row, near_row, across, wide);
            } else {
                upper_bits(picture.row(plane, far), bits, far_row);
                draw_out(near_row, far_row, across, wide);
            }
        }
        let [u, v] = chroma;
        for (((color, &y), &u), &v) in colors.iter_mut().zip(luma.iter()).zip(u.iter()).zip(v.iter()) {
            *color = tables.pixel(y, u, v);
        }
    }

    fn floats(&mut self, row: usize, matrix: Matrix, is_full_range: bool) {
        let picture = self.picture;
        let bits = picture.bits();
        let max = f32::from((1_u16 << bits) - 1);
        let step = f32::from(1_u16 << (bits - 8));
        let (black, luma_range, chroma_range) =
            if is_full_range { (0.0, max, max) } else { (16.0 * step, 219.0 * step, 224.0 * step) };
        let middle = if is_full_range && matrix == Matrix::Identity { 0.0 } else { 128.0 * step };
        let factors = picture.subsampling();
        let (chroma_width, chroma_height) = picture.chroma_sides();
        let luma = picture.row(0, row);
        for (column, color) in self.colors.iter_mut().enumerate() {
            let y = (f32::from(sample(luma, column, bits)) - black) / luma_range;
            let chroma = |plane: usize| {
                let Some((across, down)) = factors else { return 0.0 };
                let (near, far) = chroma_rows(row, picture.height(), down, chroma_height);
                let (column_near, column_far) = chroma_rows(column, picture.width(), across, chroma_width);
                let at = |row: usize, column: usize| f32::from(sample(picture.row(plane, row), column, bits));
                9.0 / 16.0 * at(near, column_near)
                    + 3.0 / 16.0 * (at(near, column_far) + at(far, column_near))
                    + 1.0 / 16.0 * at(far, column_far)
            };
            let (u, v) = (chroma(1), chroma(2));
            let [red, green, blue] = match matrix {
                Matrix::Identity if factors.is_none() => [y, y, y],
                Matrix::Identity => {
                    let of = |value: f32| (value - black) / luma_range;
                    [of(v), y, of(u)]
                }
                Matrix::YCgCo => {
                    let (green, orange) = ((u - middle) / chroma_range, (v - middle) / chroma_range);
                    let (green, orange) = if factors.is_none() { (0.0, 0.0) } else { (green, orange) };
                    [y - green + orange, y + green, y - green - orange]
                }
                Matrix::Shares { red: of_red, blue: of_blue, .. } => {
                    let (u, v) = ((u - middle) / chroma_range, (v - middle) / chroma_range);
                    let (u, v) = if factors.is_none() { (0.0, 0.0) } else { (u, v) };
                    let (of_red, of_blue) = (of_red as f32, of_blue as f32);
                    let red = y + 2.0 * (1.0 - of_red) * v;
                    let blue = y + 2.0 * (1.0 - of_blue) * u;
                    [red, (y - of_red * red - of_blue * blue) / (1.0 - of_red - of_blue), blue]
                }
            };
            *color = [red, green, blue].map(|level| (level.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Factors that libyuv has as numbers.
    #[test]
    fn products_have_the_usual_factors() {
        for (coding, [blue, green_of_u, green_of_v, red]) in [
            ((0.299, 0.114, false), [128, 25, 52, 102]),
            ((0.299, 0.114, true), [113, 22, 46, 90]),
            ((0.2126, 0.0722, false), [128, 14, 34, 115]),
            ((0.2126, 0.0722, true), [119, 12, 30, 101]),
            ((0.2627, 0.0593, false), [128, 12, 42, 107]),
            ((0.2627, 0.0593, true), [120, 11, 37, 94]),
        ] {
            let tables = Tables::new(coding.0, coding.1, coding.2);
            let found = [tables.blue_of_u, tables.green_of_u, tables.green_of_v, tables.red_of_v]
                .map(|table| table[129]);
            assert_eq!(found, [blue, green_of_u, green_of_v, red], "{coding:?}");
            let gray = |level| tables.pixel(level, 128, 128);
            let (black, white) = if coding.2 { (0, 255) } else { (16, 235) };
            assert_eq!((gray(black), gray(white)), ([0; 3], [255; 3]), "{coding:?}");
        }
    }

    #[test]
    fn chroma_is_drawn_out_between_its_samples() {
        let mut wide = [0; 5];
        draw_out(&[0, 100, 200], &[0, 100, 200], 2, &mut wide);
        assert_eq!(wide, [0, 25, 75, 125, 200]);
        let (near, far) = ([0, 80], [80, 80]);
        let mut wide = [0; 4];
        draw_out(&near, &far, 2, &mut wide);
        assert_eq!(wide, [20, 35, 65, 80]);
        assert_eq!([0, 1, 2, 3].map(|row| chroma_rows(row, 4, 2, 2)), [(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert_eq!([0, 1, 2].map(|row| chroma_rows(row, 3, 2, 2)), [(0, 0), (0, 1), (1, 0)]);
    }
}
