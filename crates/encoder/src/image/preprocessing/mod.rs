//! From RGB pixels to the tensor that a model expects, and where its settings come from.
//!
//! Settings are plain data ([`Preprocessing`]). They are read from the three kinds of files that
//! models come with: [`hf`] (`preprocessor_config.json`), [`timm`] (`pretrained_cfg`) and
//! [`open_clip`] (`preprocess_cfg`). A setting that would change pixels and is not understood is
//! an error, never ignored.

mod apply;
mod geometry;
mod hf;
mod open_clip;
mod patches;
mod settings;
mod shape;
mod timm;

pub use apply::PreprocessError;
pub use geometry::{Crop, CropRounding, Resize, Size};
pub use patches::{Fit, Grid, Patches, Patching};
pub use settings::SettingsError;
pub use shape::{Shaped, Shaping};

use super::resample::Filter;
use serde::{Deserialize, Serialize};

/// What happens to an upright RGB image on its way into a model.
///
/// In this order: resize with `filter`, crop (or pad) to the output size, scale and normalize,
/// and lay out as `[channel, height, width]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// How the image is resized before the crop.
    pub resize: Resize,
    /// Filter of the resize.
    pub filter: Filter,
    /// The part that is kept; its size is the size of the output.
    pub crop: Crop,
    /// From bytes to floats.
    pub normalization: Normalization,
    /// Order of the planes in the output.
    #[serde(default)]
    pub channels: ChannelOrder,
}

/// `((byte * scale + offset) - mean) / std`, per channel and in that order.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Usually 1/255.
    pub scale: f64,
    /// Usually 0; -1 where scale is 1/127.5.
    #[serde(default)]
    pub offset: f64,
    /// Red, green, blue.
    pub mean: [f64; 3],
    /// Red, green, blue; not zero.
    pub std: [f64; 3],
}

/// Which plane comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red, green, blue: almost every model.
    #[default]
    Rgb,
    /// Blue, green, red: MobileViT.
    Bgr,
}
