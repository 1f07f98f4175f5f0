//! Which pixels of the picture end up where: target size and crop window.

use serde::{Deserialize, Serialize};

/// Height and width in pixels, in the order of the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl Size {
    /// Both sides alike.
    pub fn square(side: u32) -> Self {
        Self { height: side, width: side }
    }
}

/// The size to which an image is resized before the crop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// No resize.
    Keep,
    /// Exactly this size, whatever that does to the aspect ratio.
    Exact(Size),
    /// The shorter edge gets this length, the longer one `edge * long / short` rounded down
    /// (`transformers.get_resize_output_image_size`, `torchvision.transforms.Resize`).
    ShortestEdge(u32),
    /// The smallest size of the same aspect ratio that covers this one, rounded half to even
    /// (`ResizeKeepRatio` of timm and open_clip with `longest = 0`).
    Cover(Size),
    /// The largest size of the same aspect ratio that fits into this one, rounded half to even
    /// (`ResizeKeepRatio` with `longest = 1`).
    Fit(Size),
}

impl Resize {
    /// The size of an image of `from` after the resize, no side below one.
    pub(super) fn target(self, from: Size) -> Size {
        match self {
            Self::Keep => from,
            Self::Exact(size) => size,
            Self::ShortestEdge(edge) => {
                let longer = |long: u32, short: u32| {
                    u32::try_from(u64::from(edge) * u64::from(long) / u64::from(short)).unwrap_or(u32::MAX)
                };
                if from.width <= from.height {
                    Size { height: longer(from.height, from.width), width: edge }
                } else {
                    Size { height: edge, width: longer(from.width, from.height) }
                }
            }
            Self::Cover(size) => scaled(from, size, f64::min),
            Self::Fit(size) => scaled(from, size, f64::max),
        }
    }
}

fn scaled(from: Size, to: Size, choose: impl Fn(f64, f64) -> f64) -> Size {
    let ratio = |from: u32, to: u32| f64::from(from) / f64::from(to);
    let ratio = choose(ratio(from.height, to.height), ratio(from.width, to.width));
    // A very thin image would lose a side, which the references refuse; one pixel is kind.
    let side = |side: u32| ((f64::from(side) / ratio).round_ties_even() as u32).max(1);
    Size { height: side(from.height), width: side(from.width) }
}

/// A window of fixed size in the middle of the resized image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crop {
    /// Size of the window, which is the size of the output.
    pub size: Size,
    /// Where the middle is when it falls between two pixels.
    #[serde(default)]
    pub rounding: CropRounding,
    /// Red, green and blue where the window is larger than the image.
    #[serde(default)]
    pub fill: [u8; 3],
}

/// How half a pixel of margin is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropRounding {
    /// Down: `(side - crop) // 2`, `transformers.center_crop`.
    #[default]
    Floor,
    /// To the even neighbor when cropping, toward zero when padding: torchvision's
    /// `CenterCrop`, and timm's and open_clip's `center_crop_or_pad`.
    HalfEven,
}

/// A window along one side: what it shows of the image, and where in the output that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First pixel of the image that is shown.
    pub(super) source: u32,
    /// Where it goes.
    pub(super) target: u32,
    /// Pixels shown, at least one.
    pub(super) len: u32,
}

impl CropRounding {
    /// The window of `crop` pixels in the middle of `side` pixels; both at least one.
    pub(super) fn span(self, side: u32, crop: u32) -> Span {
        let margin = i64::from(side) - i64::from(crop);
        let offset = match self {
            Self::Floor => margin.div_euclid(2),
            Self::HalfEven if margin < 0 => -(-margin / 2),
            // Half of an odd margin: to the even one of its neighbors.
            Self::HalfEven => margin / 2 + (margin % 2) * (margin / 2 % 2),
        };
        let source = u32::try_from(offset.max(0)).expect("not beyond the side");
        let target = u32::try_from((-offset).max(0)).expect("not beyond the crop");
        Span { source, target, len: (side - source).min(crop - target) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_edge_is_rounded_down() {
        let target = |width, height| Resize::ShortestEdge(224).target(Size { height, width });
        assert_eq!(target(640, 480), Size { height: 224, width: 298 });
        assert_eq!(target(480, 640), Size { height: 298, width: 224 });
        assert_eq!(target(7, 7), Size::square(224));
        assert_eq!(target(10_000, 1), Size { height: 224, width: 2_240_000 });
    }

    #[test]
    fn kept_ratios_round_half_to_even_and_keep_a_pixel() {
        let from = Size { height: 3, width: 4 };
        assert_eq!(Resize::Fit(Size::square(6)).target(from), Size { height: 4, width: 6 });
        assert_eq!(Resize::Cover(Size::square(6)).target(from), Size { height: 6, width: 8 });
        let thin = Size { height: 1, width: 10_000 };
        assert_eq!(Resize::Fit(Size::square(224)).target(thin), Size { height: 1, width: 224 });
    }

    #[test]
    fn margins_of_both_signs_and_parities() {
        let spans = |rounding: CropRounding| {
            [(298, 224), (227, 224), (225, 224), (224, 224), (223, 224), (220, 225)].map(|(side, crop)| {
                let span = rounding.span(side, crop);
                (span.source, span.target, span.len)
            })
        };
        // transformers: int((side - crop) / 2) from below; odd padding has its larger half in front.
        let floor = [(37, 0, 224), (1, 0, 224), (0, 0, 224), (0, 0, 224), (0, 1, 223), (0, 3, 220)];
        assert_eq!(spans(CropRounding::Floor), floor);
        // torchvision: round(1.5) is 2, round(0.5) is 0; odd padding has its larger half at the end.
        let half_even = [(37, 0, 224), (2, 0, 224), (0, 0, 224), (0, 0, 224), (0, 0, 223), (0, 2, 220)];
        assert_eq!(spans(CropRounding::HalfEven), half_even);
    }
}
