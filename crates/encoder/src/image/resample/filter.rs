//! Pillow's filters, as functions of the distance from the center in output pixels.

use std::f64::consts::PI;

/// A resampling filter, numbered in Pillow as the `resample` setting of processors has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// The one source pixel under the center.
    Nearest,
    /// Mean of the covered pixels.
    Box,
    /// Triangle.
    Bilinear,
    /// Raised cosine times sinc, as wide as bilinear.
    Hamming,
    /// Keys' cubic with a = -0.5.
    Bicubic,
    /// Sinc windowed by a wider sinc, three lobes.
    Lanczos,
}

impl Filter {
    /// The filter of a `resample` number (`PIL.Image.Resampling`).
    pub fn from_pillow(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Nearest,
            1 => Self::Lanczos,
            2 => Self::Bilinear,
            3 => Self::Bicubic,
            4 => Self::Box,
            5 => Self::Hamming,
            _ => return None,
        })
    }

    /// The filter of an interpolation name, as torchvision, timm and open_clip spell it.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "nearest" => Self::Nearest,
            "lanczos" => Self::Lanczos,
            "bilinear" => Self::Bilinear,
            "bicubic" => Self::Bicubic,
            "box" => Self::Box,
            "hamming" => Self::Hamming,
            _ => return None,
        })
    }

    /// Distance beyond which the filter is zero.
    pub(super) fn support(self) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// Value at distance `x`. The arithmetic follows Pillow's term by term, because the result
    /// is rounded to fixed point later and must fall on the same side.
    pub(super) fn at(self, x: f64) -> f64 {
        match self {
            Self::Nearest => 0.0,
            Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Hamming => {
                let x = x.abs();
                match x {
                    0.0 => 1.0,
                    _ if x >= 1.0 => 0.0,
                    _ => {
                        let x = x * PI;
                        // Single-precision constants, as in the reference.
                        x.sin() / x * (f64::from(0.54_f32) + f64::from(0.46_f32) * x.cos())
                    }
                }
            }
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * PI;
    x.sin() / x
}
