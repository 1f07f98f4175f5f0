//! Embedding pictures.

use std::borrow::Cow;
use std::sync::Arc;

use half::f16;

use super::error::RunSize;
use super::patches::PatchTensors;
use super::pooling::Mask;
use super::values::Floats;
use super::{EncodeError, Encoder, Expected, MAX_BATCH};
use crate::image::{self, Corners, Grid, ImageError, Region, RgbImage, Tiling};
use crate::memory::OutOfMemory;
use crate::package::{Element, ImageTower, Layout, Modality, PixelInput, Preparation, TokenInput, TokenRole};
use crate::runtime::Feed;

impl Encoder {
    /// Embeds encoded pictures, in order, each as a vector of unit length.
    ///
    /// At most eight are decoded and run at a time, and no more than the memory of a run allows; a graph
    /// that quantizes activations at run time gets one at a time, since its results depend on the batch.
    ///
    /// # Errors
    /// [`EncodeError`]; what is wrong with one picture is said with its place in `images`.
    pub fn embed_images(&mut self, images: &[&[u8]]) -> Result<Vec<Vec<f32>>, EncodeError> {
        if self.package.joint.is_some() {
            return self.embed_pictures_jointly(images);
        }
        let tower = self.image_tower()?;
        let result = self.embed_images_with(&tower, Pictures::Encoded(images));
        self.drop_kept(result)
    }

    /// Embeds the part of an encoded picture between two corners.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn embed_region(&mut self, image: &[u8], corners: Corners) -> Result<Vec<f32>, EncodeError> {
        let decoded = self.decode(image, 1)?;
        let region = Region::between(corners, &decoded)?;
        let mut vectors = self.embed_regions(&decoded, &[region])?;
        Ok(vectors.swap_remove(0))
    }

    /// Embeds a frame of an animation or a page of a TIFF, from 1.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn embed_frame(&mut self, image: &[u8], frame: u32) -> Result<Vec<f32>, EncodeError> {
        let decoded = self.decode(image, frame)?;
        let mut vectors = self.embed_regions(&decoded, &[Region::whole(&decoded)])?;
        Ok(vectors.swap_remove(0))
    }

    /// Embeds an encoded picture and its tiles, with their places. The picture is decoded once.
    ///
    /// # Errors
    /// [`EncodeError`].
    pub fn embed_tiles(
        &mut self,
        image: &[u8],
        tiling: Tiling,
    ) -> Result<Vec<(Region, Vec<f32>)>, EncodeError> {
        let decoded = self.decode(image, 1)?;
        let regions = tiling.regions(&decoded);
        let vectors = self.embed_regions(&decoded, &regions)?;
        Ok(regions.into_iter().zip(vectors).collect())
    }

    fn embed_regions(&mut self, image: &RgbImage, regions: &[Region]) -> Result<Vec<Vec<f32>>, EncodeError> {
        if self.package.joint.is_some() {
            return self.embed_regions_jointly(image, regions);
        }
        let tower = self.image_tower()?;
        let result = self.embed_images_with(&tower, Pictures::Parts(image, regions));
        self.drop_kept(result)
    }

    /// Decodes a picture for a model that embeds some.
    fn decode(&self, image: &[u8], frame: u32) -> Result<RgbImage, EncodeError> {
        if self.package.joint.is_none() {
            self.image_tower()?;
        }
        self.decode_frame_at(0, image, frame)
    }

    fn image_tower(&self) -> Result<Arc<ImageTower>, EncodeError> {
        self.package.image.clone().ok_or_else(|| self.no_tower(Modality::Image))
    }

    /// Decodes the picture at a place among those of a call.
    pub(super) fn decode_at(&self, index: usize, bytes: &[u8]) -> Result<RgbImage, EncodeError> {
        self.decode_frame_at(index, bytes, 1)
    }

    fn decode_frame_at(&self, index: usize, bytes: &[u8], frame: u32) -> Result<RgbImage, EncodeError> {
        let decoded = image::decode_frame(bytes, frame, &self.options.image_limits, self.options.interrupt);
        decoded.map_err(|source| {
            if source == ImageError::Interrupted {
                EncodeError::Interrupted
            } else {
                EncodeError::Image { index, source }
            }
        })
    }

    fn embed_images_with(
        &mut self,
        tower: &ImageTower,
        images: Pictures<'_>,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let batch = batch_size(tower.batch(), tower.graph.outline.dynamic_quantization);
        let length = tower.values_per_picture();
        let mut vectors = Vec::with_capacity(images.len());
        let mut values = Vec::new();
        let mut grids = Vec::new();
        while vectors.len() < images.len() {
            self.check()?;
            let first = vectors.len();
            let most = batch.items.min(images.len() - first);
            let footprint = *self.footprint(&tower.graph);
            let estimate = |items: usize| self.estimate_pictures(tower, batch.rows(items));
            let fitting = (1..=most).rev().find(|&items| footprint.fits(estimate(items)));
            let items = match fitting {
                Some(items) => items,
                // Nothing smaller can be tried: the run is stopped if it takes too much.
                None if footprint.may_fit(estimate(1)) => 1,
                None => {
                    let needed = footprint.expected(estimate(1));
                    return Err(self.too_large(needed, RunSize::pictures(batch.rows(1))));
                }
            };
            let rows = batch.rows(items);
            let later = images.len() - first - items;
            let next = (later > 0).then(|| estimate(later.min(items)));
            let expected = Expected { bytes: estimate(items), next };
            let needed = rows * length;
            values.clear();
            values
                .try_reserve_exact(needed)
                .map_err(|_| OutOfMemory { purpose: "hold the pixels of a batch" })?;
            values.resize(needed, 0.0);
            grids.clear();
            grids.resize(rows, Grid::ONE);
            for ((index, out), grid) in
                (first..).zip(values.chunks_exact_mut(length)).zip(&mut grids).take(items)
            {
                *grid = self.pixel_values(tower, images, index, out)?;
                self.check()?;
            }
            match self.run_images(tower, &values, &grids, items, expected) {
                Ok(embedded) => vectors.extend(embedded),
                // A smaller batch comes next, as the footprint has learned.
                Err(EncodeError::RunTooLarge { .. }) if items > 1 && batch.rows(1) < rows => continue,
                Err(error) => return Err(error),
            }
            self.counts.images += items as u64;
        }
        Ok(vectors)
    }

    /// Bytes that a run of the image tower takes, with what the other half of a combined graph gets.
    fn estimate_pictures(&self, tower: &ImageTower, rows: usize) -> u64 {
        let architecture = self.architectures.image;
        let own = match &tower.preparation {
            Preparation::Tensor(preprocessing) => {
                let (height, width) = preprocessing.output_size();
                architecture.of_pixels(rows as u64, height.into(), width.into())
            }
            Preparation::Patches(patching) => {
                let (patches, length) = (patching.patches() as u64, patching.patch_len() as u64);
                architecture.of_patches(rows as u64, patches, length)
            }
        };
        let others = if tower.inputs.shared_batch { rows } else { 1 };
        own.saturating_add(self.architectures.of_placeholder_tokens(&tower.inputs.tokens, others))
    }

    /// Preprocesses the picture at `index` into `out`: `[channel, height, width]`, or patches, whose grid is returned.
    fn pixel_values(
        &self,
        tower: &ImageTower,
        images: Pictures<'_>,
        index: usize,
        out: &mut [f32],
    ) -> Result<Grid, EncodeError> {
        let image = match images {
            Pictures::Encoded(images) => Cow::Owned(self.decode_at(index, images[index])?),
            Pictures::Parts(image, regions) => {
                image.part(regions[index]).map_err(|source| EncodeError::Image { index, source })?
            }
        };
        let applied = match &tower.preparation {
            Preparation::Tensor(preprocessing) => preprocessing.apply(&image, out).map(|()| Grid::ONE),
            Preparation::Patches(patching) => patching.apply_to(&image, out),
        };
        applied.map_err(|source| EncodeError::Preprocess { index, source })
    }

    fn run_images(
        &mut self,
        tower: &ImageTower,
        values: &[f32],
        grids: &[Grid],
        items: usize,
        expected: Expected,
    ) -> Result<Vec<Vec<f32>>, EncodeError> {
        let rows = grids.len();
        let tensors = match &tower.preparation {
            Preparation::Tensor(preprocessing) => {
                let pixels = tower.inputs.pixels.as_ref().expect("the tower takes pixels");
                let (height, width) = preprocessing.output_size();
                let sizes = [rows, height as usize, width as usize];
                ImageTensors::Pixels(PixelTensor::new(pixels, values, sizes))
            }
            Preparation::Patches(patching) => {
                let input = tower.inputs.patches.as_ref().expect("the tower takes patches");
                let values = Cow::Borrowed(values);
                ImageTensors::Patches(PatchTensors::new(input, values, patching.patches(), grids))
            }
        };
        // The text half of a combined graph gets the shortest input that it accepts. Its memory is part of
        // the estimate, as a graph may fix its sizes as it likes.
        let others =
            Placeholder::tokens(&tower.inputs.tokens, if tower.inputs.shared_batch { rows } else { 1 });
        let mut feeds: Vec<(&str, &[usize], Feed<'_>)> = match &tensors {
            ImageTensors::Pixels(tensor) => vec![tensor.feed()],
            ImageTensors::Patches(tensors) => tensors.feeds(),
        };
        feeds.extend(others.iter().map(Placeholder::feed));

        let size = RunSize::pictures(rows);
        let tensor =
            self.run(&tower.graph, &feeds, &tower.output.name, expected, size).map_err(|failure| {
                failure.or_word(|error| EncodeError::from_run(tower.graph.path.clone(), error))
            })?;
        let vectors = self.finish(Modality::Image, &tensor, Mask::All, items);
        self.free(tensor);
        vectors
    }
}

/// The pictures of a call.
#[derive(Clone, Copy)]
enum Pictures<'a> {
    /// Files, decoded when it is their turn.
    Encoded(&'a [&'a [u8]]),
    /// Parts of one picture.
    Parts(&'a RgbImage, &'a [Region]),
}

impl Pictures<'_> {
    fn len(self) -> usize {
        match self {
            Pictures::Encoded(images) => images.len(),
            Pictures::Parts(_, regions) => regions.len(),
        }
    }
}

/// Items of one run.
pub(super) struct BatchSize {
    /// Items that are put in.
    pub items: usize,
    /// Rows that the graph insists on.
    fixed: Option<usize>,
}

impl BatchSize {
    /// Rows of a run with so many items: a graph with a fixed batch gets the rest as zeros.
    pub fn rows(&self, items: usize) -> usize {
        self.fixed.unwrap_or(items)
    }
}

/// How many items a run takes.
pub(super) fn batch_size(fixed: Option<usize>, depends_on_batch: bool) -> BatchSize {
    let items = match fixed {
        _ if depends_on_batch => 1,
        // The memory of a run decides whether a large fixed batch is possible at all.
        Some(fixed) => fixed,
        None => MAX_BATCH,
    };
    BatchSize { items, fixed }
}

/// The pictures of a run, as the tower takes them.
enum ImageTensors<'a> {
    Pixels(PixelTensor<'a>),
    Patches(PatchTensors<'a>),
}

/// Pictures in the type and the order of axes that a graph takes.
pub(super) struct PixelTensor<'a> {
    name: &'a str,
    shape: [usize; 4],
    values: Floats<'a>,
}

impl<'a> PixelTensor<'a> {
    /// Of `values`, `[rows, 3, height, width]`.
    pub(super) fn new(
        input: &'a PixelInput,
        values: &'a [f32],
        [rows, height, width]: [usize; 3],
    ) -> PixelTensor<'a> {
        let (shape, values) = match input.layout {
            Layout::ChannelsFirst => ([rows, 3, height, width], Cow::Borrowed(values)),
            Layout::ChannelsLast => {
                ([rows, height, width, 3], Cow::Owned(channels_last(values, height * width)))
            }
        };
        PixelTensor { name: &input.name, shape, values: Floats::new(input.element, values) }
    }

    pub(super) fn feed(&self) -> (&str, &[usize], Feed<'_>) {
        (self.name, &self.shape, self.values.feed())
    }
}

/// `[.., 3, area]` to `[.., area, 3]`.
fn channels_last(values: &[f32], area: usize) -> Vec<f32> {
    let mut turned = Vec::with_capacity(values.len());
    for item in values.chunks_exact(3 * area) {
        turned.extend((0..area).flat_map(|pixel| [item[pixel], item[area + pixel], item[2 * area + pixel]]));
    }
    turned
}

/// Input for the half of a combined graph that is not wanted.
pub(super) struct Placeholder<'a> {
    name: &'a str,
    shape: Vec<usize>,
    values: Zeros,
}

/// Element type and values, all zero or all one.
enum Zeros {
    I64(Vec<i64>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl<'a> Placeholder<'a> {
    /// Token inputs of `rows` rows: two tokens with id 0, as an input of one is rare enough to be
    /// refused by some graphs.
    pub(super) fn tokens(inputs: &'a [TokenInput], rows: usize) -> Vec<Placeholder<'a>> {
        let of = |input: &'a TokenInput| {
            let shape = vec![input.batch.unwrap_or(rows), input.tokens.unwrap_or(2)];
            let count = shape.iter().product();
            let value = u8::from(input.role == TokenRole::Mask);
            let values = match input.element {
                Element::I32 => Zeros::I32(vec![i32::from(value); count]),
                Element::F32 => Zeros::F32(vec![f32::from(value); count]),
                Element::I64 | Element::F16 | Element::Other(_) => Zeros::I64(vec![i64::from(value); count]),
            };
            Placeholder { name: &input.name, shape, values }
        };
        inputs.iter().map(of).collect()
    }

    /// A pixel input of `rows` gray pictures.
    pub(super) fn pixels(input: &'a PixelInput, rows: usize, width: usize, height: usize) -> Placeholder<'a> {
        let rows = input.batch.unwrap_or(rows);
        let shape = match input.layout {
            Layout::ChannelsFirst => vec![rows, 3, height, width],
            Layout::ChannelsLast => vec![rows, height, width, 3],
        };
        let count = shape.iter().product();
        let values = if input.element == Element::F16 {
            Zeros::F16(vec![f16::ZERO; count])
        } else {
            Zeros::F32(vec![0.0; count])
        };
        Placeholder { name: &input.name, shape, values }
    }

    pub(super) fn feed(&self) -> (&str, &[usize], Feed<'_>) {
        let feed = match &self.values {
            Zeros::I64(values) => Feed::I64(values),
            Zeros::I32(values) => Feed::I32(values),
            Zeros::F32(values) => Feed::F32(values),
            Zeros::F16(values) => Feed::F16(values),
        };
        (self.name, &self.shape, feed)
    }
}
