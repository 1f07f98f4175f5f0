//! Images: from a `bytea` of unknown origin to the `[channel, height, width]` tensor of a model.
//!
//! [`info`] reads a header, [`decode`] makes RGB pixels, [`Preprocessing`] makes the tensor. The
//! README beside this file holds the vocabulary, the limits and how we differ from references.

mod alpha;
mod decode;
mod error;
mod format;
mod hash;
mod header;
mod limits;
mod memory;
mod orientation;
mod preprocessing;
mod raster;
mod reader;
mod region;
mod resample;

pub use decode::{decode, decode_frame};
pub use error::{Head, ImageError};
pub use format::ImageFormat;
pub use hash::perceptual_hash;
pub use header::{ImageInfo, info};
pub use limits::ImageLimits;
pub use preprocessing::{
    ChannelOrder, Crop, CropRounding, Fit, Grid, Normalization, Patches, Patching, PreprocessError,
    Preprocessing, Resize, SettingsError, Shaped, Shaping, Size,
};
pub use raster::RgbImage;
pub use region::{Corners, Region, RegionError, Tiling};
pub use resample::{Filter, Window, resize};
