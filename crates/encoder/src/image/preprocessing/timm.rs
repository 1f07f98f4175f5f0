//! `pretrained_cfg` of timm, as `config.json` of its models on the hub has it.
//!
//! Source: `resolve_data_config` in `timm/data/config.py` and `transforms_imagenet_eval` in
//! `timm/data/transforms_factory.py`.

use serde_json::Value;

use super::geometry::{Crop, CropRounding, Resize, Size};
use super::open_clip::filter;
use super::settings::{Settings, SettingsError, invalid, missing, side};
use super::{ChannelOrder, Normalization, Preprocessing};
use crate::image::resample::Filter;

pub(super) const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
pub(super) const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];
/// timm's default: an image of 256 is cropped to 224.
const CROP_PCT: f64 = 0.875;

impl Preprocessing {
    /// Settings from a `pretrained_cfg`, or from a whole timm `config.json` around it.
    ///
    /// The settings for evaluation at the training size; `test_input_size` and its kin are not
    /// used, as `timm.data.create_transform` does not use them either. Unknown keys are skipped:
    /// the object mostly describes the network, and its pixel settings are all known here.
    ///
    /// # Errors
    /// The input size is missing or not RGB, or a setting is senseless.
    pub fn from_timm(value: &Value) -> Result<Self, SettingsError> {
        let value = value.get("pretrained_cfg").unwrap_or(value);
        let settings = Settings::new(value)?;
        let size = settings
            .read("input_size", "[3, height, width], sides at most 4096", |value| {
                let [channels, height, width] = value.as_array()?.as_slice() else {
                    return None;
                };
                let size = Size { height: side(height)?, width: side(width)? };
                (channels.as_u64() == Some(3)).then_some(size)
            })?
            .ok_or_else(|| missing("input_size"))?;
        let crop_pct = settings
            .read("crop_pct", "a number above 0.1", |value| value.as_f64().filter(|&pct| pct > 0.1))?
            .unwrap_or(CROP_PCT);
        let scaled = |side: u32| (f64::from(side) / crop_pct).floor() as u32;
        let scaled = Size { height: scaled(size.height), width: scaled(size.width) };
        let mean = settings.channels("mean")?.unwrap_or(IMAGENET_MEAN);
        let mut fill = [0; 3];
        let resize = match settings.str("crop_mode")?.unwrap_or("center") {
            "center" if scaled.height == scaled.width => Resize::ShortestEdge(scaled.height),
            "center" => Resize::Cover(scaled),
            "squash" => Resize::Exact(scaled),
            "border" => {
                fill = mean.map(|mean| (255.0 * mean).round_ties_even() as u8);
                Resize::Fit(scaled)
            }
            other => return Err(invalid("crop_mode", &other.into(), "center, squash or border")),
        };
        Self {
            resize,
            filter: filter(settings)?.unwrap_or(Filter::Bilinear),
            crop: Crop { size, rounding: CropRounding::HalfEven, fill },
            normalization: Normalization {
                scale: 1.0 / 255.0,
                offset: 0.0,
                mean,
                std: settings.channels("std")?.unwrap_or(IMAGENET_STD),
            },
            channels: ChannelOrder::Rgb,
        }
        .validate()
    }
}
