//! `preprocess_cfg` of OpenCLIP, which Immich stores as `preprocess_cfg.json`.
//!
//! Source: `image_transform` in `open_clip/transform.py` for evaluation.

use serde_json::Value;

use super::geometry::{Crop, CropRounding, Resize, Size};
use super::settings::{Settings, SettingsError, invalid, missing, pair, side, unsupported};
use super::{ChannelOrder, Normalization, Preprocessing};
use crate::image::resample::Filter;

/// Constants of the original CLIP, OpenCLIP's default.
pub(super) const CLIP_MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
/// See [`CLIP_MEAN`].
pub(super) const CLIP_STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

impl Preprocessing {
    /// Settings from a `preprocess_cfg`, or from a whole `open_clip_config.json` around it.
    ///
    /// # Errors
    /// The size is missing, or a setting is unknown or senseless.
    pub fn from_open_clip(value: &Value) -> Result<Self, SettingsError> {
        let value = value.get("preprocess_cfg").unwrap_or(value);
        let settings = Settings::new(value)?;
        const KNOWN: [&str; 7] =
            ["size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"];
        for (key, value) in settings.0 {
            // Immich and jina-clip add names of things that leave pixels alone.
            let named = key == "processor_class" || key == "auto_map" || key.ends_with("_type");
            if !KNOWN.contains(&key.as_str()) && !named && !value.is_null() {
                return Err(unsupported(key, value));
            }
        }
        let size = settings
            .read("size", "one side or [height, width], at most 4096", |value| {
                side(value).map(Size::square).or_else(|| pair(value))
            })?
            .ok_or_else(|| missing("size"))?;
        if let Some(mode) = settings.str("mode")?
            && mode != "RGB"
        {
            return Err(unsupported("mode", &Value::from(mode)));
        }
        let fill = settings
            .read("fill_color", "a number between 0 and 255", |value| u8::try_from(value.as_u64()?).ok())?;
        let resize = match settings.str("resize_mode")?.unwrap_or("shortest") {
            "shortest" if size.height == size.width => Resize::ShortestEdge(size.height),
            "shortest" => Resize::Cover(size),
            "longest" => Resize::Fit(size),
            "squash" => Resize::Exact(size),
            other => return Err(invalid("resize_mode", &other.into(), "shortest, longest or squash")),
        };
        Self {
            resize,
            filter: filter(settings)?.unwrap_or(Filter::Bicubic),
            crop: Crop { size, rounding: CropRounding::HalfEven, fill: [fill.unwrap_or(0); 3] },
            normalization: Normalization {
                scale: 1.0 / 255.0,
                offset: 0.0,
                mean: settings.channels("mean")?.unwrap_or(CLIP_MEAN),
                std: settings.channels("std")?.unwrap_or(CLIP_STD),
            },
            channels: ChannelOrder::Rgb,
        }
        .validate()
    }
}

/// The filter named by `interpolation`; "random" is a training setting and means the default.
pub(super) fn filter(settings: Settings<'_>) -> Result<Option<Filter>, SettingsError> {
    let known = "nearest, box, bilinear, hamming, bicubic or lanczos";
    match settings.str("interpolation")? {
        None | Some("random") => Ok(None),
        Some(name) => {
            Filter::from_name(name).map(Some).ok_or_else(|| invalid("interpolation", &name.into(), known))
        }
    }
}
