//! `preprocessor_config.json` of Hugging Face `transformers`.
//!
//! A processor class is a set of defaults and, for a few, a rule of its own; the file overrides
//! the defaults. The defaults here are those of transformers 5.23 (`PilBackend` classes).

use serde_json::Value;

use super::geometry::{Crop, CropRounding, Resize, Size};
use super::open_clip::{CLIP_MEAN, CLIP_STD};
use super::settings::{Settings, SettingsError, invalid, missing, pair, side, unsupported};
use super::timm::{IMAGENET_MEAN, IMAGENET_STD};
use super::{ChannelOrder, Fit, Normalization, Patching, Preprocessing, Shaping};
use crate::image::resample::Filter;

const HALF: [f64; 3] = [0.5; 3];

/// What a class does when the file is silent.
#[derive(Clone, Copy)]
struct Class {
    rule: Rule,
    resize: Resize,
    /// Side of the center crop where the class crops by default.
    crop: Option<u32>,
    filter: Filter,
    mean: [f64; 3],
    std: [f64; 3],
    normalize: bool,
}

/// How a class departs from resize, crop, rescale, normalize.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    Plain,
    /// Below 384 pixels: resize to `size / crop_pct` and crop. From there on: squash.
    ConvNext,
    /// The shortest edge grows by 256/224 before the crop.
    Levit,
    /// Optional shift to -1..1, and division by the deviation once more with `include_top`.
    EfficientNet,
    /// Blue comes first.
    MobileVit,
}

impl Class {
    const fn new(resize: Resize, filter: Filter, mean: [f64; 3], std: [f64; 3]) -> Self {
        Self { rule: Rule::Plain, resize, crop: None, filter, mean, std, normalize: true }
    }

    const fn cropped(self, side: u32) -> Self {
        Self { crop: Some(side), ..self }
    }

    const fn with_rule(self, rule: Rule) -> Self {
        Self { rule, ..self }
    }

    /// The class of that name, its backend suffix and its role removed.
    fn named(name: &str) -> Option<Self> {
        use Filter::{Bicubic, Bilinear};
        let short = Resize::ShortestEdge;
        let square = |side| Resize::Exact(Size::square(side));
        Some(match name {
            "CLIP" | "Bit" | "ChineseCLIP" => {
                Self::new(short(224), Bicubic, CLIP_MEAN, CLIP_STD).cropped(224)
            }
            "Siglip" => Self::new(square(224), Bicubic, HALF, HALF),
            "ViT" => Self::new(square(224), Bilinear, HALF, HALF),
            "DeiT" => Self::new(square(256), Bicubic, HALF, HALF).cropped(224),
            "Beit" => Self::new(square(224), Bicubic, HALF, HALF),
            "Blip" => Self::new(square(384), Bicubic, CLIP_MEAN, CLIP_STD),
            "Pvt" => Self::new(square(224), Bicubic, IMAGENET_MEAN, IMAGENET_STD),
            "DINOv3ViT" => Self::new(square(224), Bilinear, IMAGENET_MEAN, IMAGENET_STD),
            "ConvNext" => Self::new(short(384), Bicubic, HALF, HALF).with_rule(Rule::ConvNext),
            "MobileNetV1" | "MobileNetV2" => Self::new(short(256), Bilinear, HALF, HALF).cropped(224),
            "MobileViT" => Self {
                normalize: false,
                ..Self::new(short(224), Bicubic, HALF, HALF).cropped(256).with_rule(Rule::MobileVit)
            },
            "Levit" => Self::new(short(224), Bicubic, IMAGENET_MEAN, IMAGENET_STD)
                .cropped(224)
                .with_rule(Rule::Levit),
            "EfficientNet" => Self::new(square(346), Bicubic, HALF, HALF).with_rule(Rule::EfficientNet),
            _ => return None,
        })
    }
}

/// Settings that are read, or that leave pixels alone.
const KNOWN: [&str; 31] = [
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "auto_map",
    "_valid_processor_keys",
    "_processor_class",
    "transformers_version",
    "size",
    "crop_size",
    "resample",
    "image_mean",
    "image_std",
    "rescale_factor",
    "crop_pct",
    "do_resize",
    "do_center_crop",
    "do_rescale",
    "do_normalize",
    "do_convert_rgb",
    "do_flip_channel_order",
    "rescale_offset",
    "include_top",
    "use_square_size",
    "default_to_square",
    "data_format",
    "input_data_format",
    "return_tensors",
    "device",
    "disable_grouping",
    "do_reduce_labels",
    "image_seq_length",
];

impl Preprocessing {
    /// Settings from a `preprocessor_config.json`, or from a `processor_config.json` around it.
    ///
    /// # Errors
    /// The class is not known, a setting is senseless, or a setting would change pixels in a
    /// way that is not implemented.
    pub fn from_hf(value: &Value) -> Result<Self, SettingsError> {
        let value = value.get("image_processor").unwrap_or(value);
        let settings = Settings::new(value)?;
        let name = class_name(settings)?;
        match name {
            "TimmWrapperImageProcessor" => return Self::from_timm(value),
            "JinaCLIPImageProcessor" => return Self::from_open_clip(value),
            _ => {}
        }
        let class = bare(name).and_then(Class::named);
        let class = class.ok_or_else(|| unsupported("image_processor_type", &name.into()))?;
        refuse_unknown(settings, &[])?;
        let (resize, crop) = geometry(settings, class)?;
        Self {
            resize,
            filter: filter(settings)?.unwrap_or(class.filter),
            crop: Crop { size: crop, rounding: CropRounding::Floor, fill: [0; 3] },
            normalization: normalization(settings, class)?,
            channels: if class.rule == Rule::MobileVit
                && settings.bool("do_flip_channel_order")?.unwrap_or(true)
            {
                ChannelOrder::Bgr
            } else {
                ChannelOrder::Rgb
            },
        }
        .validate()
    }
}

/// Most pixels that a side may be a multiple of.
const MAX_DIVISOR: u64 = 256;

impl Shaping {
    /// Settings of ViLT's image processor, from a `preprocessor_config.json` or a `processor_config.json` around it.
    ///
    /// # Errors
    /// As [`Preprocessing::from_hf`].
    pub fn from_hf(value: &Value) -> Result<Self, SettingsError> {
        let settings = Settings::new(value.get("image_processor").unwrap_or(value))?;
        let name = class_name(settings)?;
        if bare(name) != Some("Vilt") {
            return Err(unsupported("image_processor_type", &name.into()));
        }
        // One picture at a time needs no filling up.
        refuse_unknown(settings, &["size_divisor", "do_pad"])?;
        only_resizes(settings)?;
        let class = Class::new(Resize::ShortestEdge(384), Filter::Bicubic, HALF, HALF);
        let Resize::ShortestEdge(shorter) = read_size(settings, class)? else {
            return Err(unsupported("size", settings.get("size").unwrap_or(&Value::Null)));
        };
        let read = |value: &Value| value.as_u64().filter(|divisor| (1..=MAX_DIVISOR).contains(divisor));
        let divisor = settings.read("size_divisor", "a number from 1 to 256", read)?.unwrap_or(32);
        let normalization = usable_normalization(settings, class)?;
        let filter = filter(settings)?.unwrap_or(class.filter);
        Ok(Shaping { shorter, divisor: divisor as u32, filter, normalization })
    }
}

/// Longest side of a patch in pixels, and most patches of a picture. Published models have 16 and up to 1,024.
const MAX_PATCH_SIDE: u64 = 64;
const MAX_PATCHES: u64 = 4096;

impl Patching {
    /// Settings of the image processor of SigLIP 2 that keeps the shape of pictures (NaFlex), from a `preprocessor_config.json`
    /// or a `processor_config.json` around it.
    ///
    /// # Errors
    /// As [`Preprocessing::from_hf`].
    pub fn naflex_from_hf(value: &Value) -> Result<Self, SettingsError> {
        let settings = Settings::new(value.get("image_processor").unwrap_or(value))?;
        let name = class_name(settings)?;
        if bare(name) != Some("Siglip2") {
            return Err(unsupported("image_processor_type", &name.into()));
        }
        refuse_unknown(settings, &["patch_size", "max_num_patches"])?;
        only_resizes(settings)?;
        let class = Class::new(Resize::Keep, Filter::Bilinear, HALF, HALF);
        let number = |key, expected, most| {
            settings.read(key, expected, |value| value.as_u64().filter(|number| (1..=most).contains(number)))
        };
        let patch = number("patch_size", "a number from 1 to 64", MAX_PATCH_SIDE)?.unwrap_or(16);
        let patches = number("max_num_patches", "a number from 1 to 4096", MAX_PATCHES)?.unwrap_or(256);
        Ok(Patching {
            patch: patch as u32,
            fit: Fit::Cover { patches: patches as u32 },
            filter: filter(settings)?.unwrap_or(class.filter),
            normalization: usable_normalization(settings, class)?,
        })
    }
}

/// Refuses pictures that keep their size, or are cropped.
fn only_resizes(settings: Settings<'_>) -> Result<(), SettingsError> {
    for (key, wanted) in [("do_resize", true), ("do_center_crop", false)] {
        if settings.bool(key)?.is_some_and(|told| told != wanted) {
            return Err(unsupported(key, &(!wanted).into()));
        }
    }
    Ok(())
}

/// A normalization that does not divide by zero.
fn usable_normalization(settings: Settings<'_>, class: Class) -> Result<Normalization, SettingsError> {
    let normalization = normalization(settings, class)?;
    if normalization.std.iter().any(|&std| std as f32 == 0.0) {
        return Err(invalid("image_std", &normalization.std.to_vec().into(), "numbers other than zero"));
    }
    Ok(normalization)
}

/// The name of the class of the processor.
fn class_name(settings: Settings<'_>) -> Result<&str, SettingsError> {
    let name = match settings.str("image_processor_type")? {
        Some(name) => Some(name),
        None => settings.str("feature_extractor_type")?,
    };
    name.ok_or_else(|| missing("image_processor_type"))
}

/// The name of a class without its backend suffix and its role.
fn bare(name: &str) -> Option<&str> {
    let class = ["Fast", "Pil"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
    class.strip_suffix("ImageProcessor").or_else(|| class.strip_suffix("FeatureExtractor"))
}

/// Refuses settings that are neither known, nor of the class, nor off.
fn refuse_unknown(settings: Settings<'_>, own: &[&str]) -> Result<(), SettingsError> {
    let is_off = |value: &Value| value.is_null() || value == &Value::Bool(false);
    let is_known = |key: &str| KNOWN.contains(&key) || own.contains(&key);
    match settings.0.iter().find(|(key, value)| !is_known(key) && !is_off(value)) {
        Some((key, value)) => Err(unsupported(key, value)),
        None => Ok(()),
    }
}

fn filter(settings: Settings<'_>) -> Result<Option<Filter>, SettingsError> {
    settings.read("resample", "a Pillow filter number from 0 to 5", |value| {
        value.as_u64().and_then(Filter::from_pillow)
    })
}

/// `size` as a resize. A number means the shortest edge, or a square, by class.
fn read_size(settings: Settings<'_>, class: Class) -> Result<Resize, SettingsError> {
    let Some(value) = settings.get("size") else {
        return Ok(class.resize);
    };
    let expected =
        "a side, [height, width], or an object with height and width or with shortest_edge, at most 4096";
    let read = |value: &Value| -> Option<Resize> {
        if let Some(side) = side(value) {
            let square =
                settings.bool("default_to_square").ok()?.unwrap_or(matches!(class.resize, Resize::Exact(_)));
            return Some(if square { Resize::Exact(Size::square(side)) } else { Resize::ShortestEdge(side) });
        }
        if let Some(size) = pair(value) {
            return Some(Resize::Exact(size));
        }
        let given = |key: &str| value.get(key).filter(|value| !value.is_null());
        match (given("height"), given("width"), given("shortest_edge")) {
            (Some(height), Some(width), None) => {
                Some(Resize::Exact(Size { height: side(height)?, width: side(width)? }))
            }
            (None, None, Some(edge)) => Some(Resize::ShortestEdge(side(edge)?)),
            _ => None,
        }
    };
    if let Some(object) = value.as_object() {
        // longest_edge, max_height and others bound a size that depends on the image.
        let known = ["height", "width", "shortest_edge"];
        if object.iter().any(|(key, value)| !known.contains(&key.as_str()) && !value.is_null()) {
            return Err(unsupported("size", value));
        }
    }
    read(value).ok_or_else(|| invalid("size", value, expected))
}

/// The resize, and the size of the output.
fn geometry(settings: Settings<'_>, class: Class) -> Result<(Resize, Size), SettingsError> {
    let mut resize =
        if settings.bool("do_resize")?.unwrap_or(true) { read_size(settings, class)? } else { Resize::Keep };
    if settings.bool("use_square_size")?.unwrap_or(false)
        && let Resize::ShortestEdge(edge) = resize
    {
        resize = Resize::Exact(Size::square(edge));
    }
    let crop_pct = settings.number("crop_pct")?;
    match (class.rule, resize) {
        (Rule::ConvNext, Resize::ShortestEdge(edge)) => {
            let crop_pct = crop_pct.unwrap_or(224.0 / 256.0);
            if !(0.1..=1.0).contains(&crop_pct) {
                return Err(invalid("crop_pct", &crop_pct.into(), "a number between 0.1 and 1"));
            }
            let size = Size::square(edge);
            return Ok(if edge < 384 {
                (Resize::ShortestEdge((f64::from(edge) / crop_pct) as u32), size)
            } else {
                (Resize::Exact(size), size)
            });
        }
        (Rule::ConvNext, _) => return Err(unsupported("size", settings.get("size").unwrap_or(&Value::Null))),
        (Rule::Levit, Resize::ShortestEdge(edge)) => {
            resize = Resize::ShortestEdge((256.0 / 224.0 * f64::from(edge)) as u32);
        }
        (Rule::Levit | Rule::Plain | Rule::EfficientNet | Rule::MobileVit, _) => {
            if let Some(crop_pct) = crop_pct {
                return Err(unsupported("crop_pct", &crop_pct.into()));
            }
        }
    }
    if settings.bool("do_center_crop")?.unwrap_or(class.crop.is_some()) {
        let expected = "a side, or an object with height and width, at most 4096";
        let read = |value: &Value| {
            let given = |key: &str| value.get(key).and_then(side);
            side(value)
                .map(Size::square)
                .or_else(|| pair(value))
                .or_else(|| Some(Size { height: given("height")?, width: given("width")? }))
        };
        let size = match settings.read("crop_size", expected, read)? {
            Some(size) => size,
            None => Size::square(class.crop.ok_or_else(|| missing("crop_size"))?),
        };
        return Ok((resize, size));
    }
    match resize {
        Resize::Exact(size) => Ok((resize, size)),
        // The output would be as long as the picture, and a model takes one size.
        Resize::Keep | Resize::ShortestEdge(_) | Resize::Cover(_) | Resize::Fit(_) => {
            Err(unsupported("do_center_crop", &false.into()))
        }
    }
}

fn normalization(settings: Settings<'_>, class: Class) -> Result<Normalization, SettingsError> {
    let rescale = settings.bool("do_rescale")?.unwrap_or(true);
    let scale = if rescale { settings.number("rescale_factor")?.unwrap_or(1.0 / 255.0) } else { 1.0 };
    let (mut mean, mut std) = ([0.0; 3], [1.0; 3]);
    let normalize = settings.bool("do_normalize")?.unwrap_or(class.normalize);
    if normalize {
        mean = settings.channels("image_mean")?.unwrap_or(class.mean);
        std = settings.channels("image_std")?.unwrap_or(class.std);
    }
    let mut offset = 0.0;
    let (shift, include_top) = (settings.bool("rescale_offset")?, settings.bool("include_top")?);
    if class.rule == Rule::EfficientNet {
        if rescale && shift.unwrap_or(false) {
            offset = -1.0;
        }
        if include_top.unwrap_or(true) {
            let again = settings.channels("image_std")?.unwrap_or(class.std);
            for (std, again) in std.iter_mut().zip(again) {
                *std *= again;
            }
        }
    } else if shift == Some(true) {
        return Err(unsupported("rescale_offset", &true.into()));
    }
    Ok(Normalization { scale, offset, mean, std })
}
