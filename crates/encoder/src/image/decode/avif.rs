//! AVIF: coded pictures through `imgvec-codecs`, put together and made RGB here.

use std::ops::Range;

use imgvec_codecs::av1::{self, Failure, Layout as Planar, Limits, Picture};

use super::yuv::{self, Coding, Planes, ToRgb};
use super::{Samples, divided, no_frame};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::Avif;
use crate::image::header::ImageInfo;
use crate::image::header::avif::{Coded, Located, locate};
use crate::image::header::heif::Crop;
use crate::image::limits::ImageLimits;
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;
use crate::interrupt::InterruptCheck;
use crate::memory;

pub(super) fn decode(
    data: &[u8],
    reader: &mut Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
    frame: u32,
    interrupt: InterruptCheck,
) -> Result<Samples, ImageError> {
    let located = locate(data)?;
    let Located { width, height, .. } = located;
    let crop = located.crop.unwrap_or(Crop { left: 0, top: 0, width, height });
    super::check_size(info, crop.width, crop.height)?;
    let mut work = Work { data, limits, interrupt, frame, is_animation: located.is_animation };
    let color = work.planes(&located.color, (width, height))?;
    let alpha = located.alpha.as_ref().map(|alpha| work.planes(alpha, (width, height))).transpose()?;
    let (color_planes, of_sequence) = (color.planes(), color.coding());
    let coding = located.colors.map_or(of_sequence, |colors| Coding {
        primaries: colors.primaries,
        matrix: colors.matrix,
        is_full_range: colors.is_full_range,
    });
    let alpha_planes = alpha.as_ref().map(|alpha| (alpha.planes(), alpha.coding().is_full_range));
    let row_bytes = crop.width as usize * 4;
    let pixels = yuv::to_rgb(color_planes, alpha_planes, coding, crop, || reader.checkpoint(row_bytes));
    let mut data = pixels.map_err(|error| match error {
        ToRgb::Failed(error) => error,
        ToRgb::Unknown => {
            ImageError::unsupported(Avif, format_args!("with the matrix {} of colors", coding.matrix))
        }
    })?;
    if alpha.is_none() {
        return Ok(Samples { layout: Layout::Rgb, data });
    }
    if located.is_premultiplied {
        divided(&mut data);
    }
    Ok(Samples { layout: Layout::Rgba, data })
}

/// What all coded pictures of a file are decoded with.
struct Work<'a> {
    data: &'a [u8],
    limits: &'a ImageLimits,
    interrupt: InterruptCheck,
    frame: u32,
    is_animation: bool,
}

impl Work<'_> {
    fn planes(&mut self, coded: &Coded, sides: (u32, u32)) -> Result<Decoded, ImageError> {
        if self.is_animation {
            let wanted = (self.frame - 1) as usize;
            if wanted >= coded.parts.len() {
                return Err(no_frame(self.frame));
            }
            // From the last one that stands by itself.
            let sync = coded.sync.as_ref().map_or(wanted, |sync| {
                sync.iter().copied().filter(|&number| number <= wanted).max().unwrap_or(0)
            });
            return self.picture(coded, sync..wanted + 1).map(Decoded::One);
        }
        if let [_] = coded.parts[..] {
            return self.picture(coded, 0..1).map(Decoded::One);
        }
        let mut grid: Option<Grid> = None;
        for cell in 0..coded.parts.len() {
            let picture = self.picture(coded, cell..cell + 1)?;
            let grid = match &mut grid {
                Some(grid) => grid,
                None => grid.insert(Grid::new(&picture, sides)?),
            };
            grid.put(&picture, cell % coded.columns as usize, cell / coded.columns as usize)?;
        }
        grid.map(Decoded::Grid).ok_or_else(|| ImageError::corrupt(Avif, "a grid has no cells"))
    }

    /// The last picture of some parts, decoded in turn.
    fn picture(&self, coded: &Coded, parts: Range<usize>) -> Result<Picture, ImageError> {
        let mut samples = Vec::new();
        for part in &coded.parts[parts] {
            let len = part.iter().map(Range::len).sum();
            let mut sample = Vec::new();
            sample.try_reserve_exact(len).map_err(|_| ImageError::OutOfMemory { bytes: len })?;
            part.iter().for_each(|piece| sample.extend_from_slice(&self.data[piece.clone()]));
            samples.push(sample);
        }
        let (width, height) = coded.cell;
        // The frame can be refused memory by the system; what the decoder keeps of blocks beside it cannot.
        let bytes = width as usize * height as usize * 6;
        memory::reserve(bytes, "decode a picture").map_err(|_| ImageError::OutOfMemory { bytes })?;
        let limits = Limits {
            max_pixels: u32::try_from(u64::from(width) * u64::from(height)).unwrap_or(u32::MAX).max(1),
            max_bytes: self.limits.max_decoder_bytes,
        };
        let picture = av1::decode(samples, coded.operating_point, limits, self.interrupt);
        let picture = picture.map_err(|failure| match failure {
            Failure::Interrupted => ImageError::Interrupted,
            Failure::OutOfMemory => ImageError::OutOfMemory { bytes },
            Failure::TooMuchMemory { bytes } => {
                ImageError::DecoderMemory { format: Avif, bytes, limit: self.limits.max_decoder_bytes }
            }
            Failure::TooLarge => ImageError::corrupt(Avif, "its headers disagree about its size"),
            Failure::Damaged | Failure::NoFrame | Failure::GaveUp(_) => ImageError::corrupt(Avif, failure),
        })?;
        if (picture.width(), picture.height()) != (width as usize, height as usize) {
            return Err(ImageError::corrupt(Avif, "its headers disagree about its size"));
        }
        Ok(picture)
    }
}

/// The planes of a whole picture.
enum Decoded {
    One(Picture),
    Grid(Grid),
}

impl Decoded {
    fn planes(&self) -> &dyn Planes {
        match self {
            Self::One(picture) => picture,
            Self::Grid(grid) => grid,
        }
    }

    fn coding(&self) -> Coding {
        match self {
            Self::One(picture) => coding(picture),
            Self::Grid(grid) => grid.coding,
        }
    }
}

fn coding(picture: &Picture) -> Coding {
    Coding {
        primaries: picture.primaries().into(),
        matrix: picture.matrix().into(),
        is_full_range: picture.is_full_range(),
    }
}

fn subsampling(layout: Planar) -> Option<(usize, usize)> {
    match layout {
        Planar::Gray => None,
        Planar::Yuv420 => Some((2, 2)),
        Planar::Yuv422 => Some((2, 1)),
        Planar::Yuv444 => Some((1, 1)),
    }
}

impl Planes for Picture {
    fn width(&self) -> usize {
        self.width()
    }

    fn height(&self) -> usize {
        self.height()
    }

    fn bits(&self) -> u8 {
        self.bits()
    }

    fn subsampling(&self) -> Option<(usize, usize)> {
        subsampling(self.layout())
    }

    fn row(&self, plane: usize, row: usize) -> &[u8] {
        self.row(plane, row)
    }
}

/// The planes of a grid, without what its last cells have beyond its sides.
struct Grid {
    width: usize,
    height: usize,
    layout: Planar,
    bits: u8,
    coding: Coding,
    planes: [Vec<u8>; 3],
}

impl Grid {
    fn new(first: &Picture, (width, height): (u32, u32)) -> Result<Self, ImageError> {
        let (width, height) = (width as usize, height as usize);
        let (chroma_width, chroma_height) = first.layout().chroma_sides(width, height);
        let sample = if first.bits() > 8 { 2 } else { 1 };
        let chroma = || try_zeroed(chroma_width * chroma_height * sample);
        Ok(Self {
            width,
            height,
            layout: first.layout(),
            bits: first.bits(),
            coding: coding(first),
            planes: [try_zeroed(width * height * sample)?, chroma()?, chroma()?],
        })
    }

    /// Sides of a plane.
    fn sides(&self, plane: usize) -> (usize, usize) {
        if plane == 0 { (self.width, self.height) } else { self.layout.chroma_sides(self.width, self.height) }
    }

    fn put(&mut self, cell: &Picture, column: usize, row: usize) -> Result<(), ImageError> {
        if (cell.layout(), cell.bits()) != (self.layout, self.bits) || coding(cell) != self.coding {
            return Err(ImageError::corrupt(Avif, "the cells of its grid differ"));
        }
        let sample = if self.bits > 8 { 2 } else { 1 };
        let planes = if self.layout == Planar::Gray { 1 } else { 3 };
        for plane in 0..planes {
            let (cell_width, cell_height) = match plane {
                0 => (cell.width(), cell.height()),
                _ => self.layout.chroma_sides(cell.width(), cell.height()),
            };
            let (width, height) = self.sides(plane);
            let (left, top) = (column * cell_width, row * cell_height);
            let len = cell_width.min(width.saturating_sub(left)) * sample;
            for line in 0..cell_height.min(height.saturating_sub(top)) {
                let start = ((top + line) * width + left) * sample;
                self.planes[plane][start..start + len].copy_from_slice(&cell.row(plane, line)[..len]);
            }
        }
        Ok(())
    }
}

impl Planes for Grid {
    fn width(&self) -> usize {
        self.width
    }

    fn height(&self) -> usize {
        self.height
    }

    fn bits(&self) -> u8 {
        self.bits
    }

    fn subsampling(&self) -> Option<(usize, usize)> {
        subsampling(self.layout)
    }

    fn row(&self, plane: usize, row: usize) -> &[u8] {
        let (width, _) = self.sides(plane);
        let len = width * if self.bits > 8 { 2 } else { 1 };
        &self.planes[plane][row * len..][..len]
    }
}
