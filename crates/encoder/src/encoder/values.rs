//! Numbers in the element types of graphs.

use std::borrow::Cow;

use half::f16;
use half::vec::HalfFloatVecExt;

use crate::package::Element;
use crate::runtime::Feed;

/// Small whole numbers, such as token ids, masks and places.
pub(super) enum Numbers {
    I64(Vec<i64>),
    I32(Vec<i32>),
    F32(Vec<f32>),
}

impl Numbers {
    pub fn new(element: Element, values: Vec<i64>) -> Numbers {
        match element {
            // Ids and positions are far below 2^31, and a mask is 0 or 1.
            Element::I32 => Numbers::I32(values.into_iter().map(|value| value as i32).collect()),
            Element::F32 => Numbers::F32(values.into_iter().map(|value| value as f32).collect()),
            Element::I64 | Element::F16 | Element::Other(_) => Numbers::I64(values),
        }
    }

    pub fn feed(&self) -> Feed<'_> {
        match self {
            Numbers::I64(values) => Feed::I64(values),
            Numbers::I32(values) => Feed::I32(values),
            Numbers::F32(values) => Feed::F32(values),
        }
    }
}

/// Pixel values.
pub(super) enum Floats<'a> {
    F32(Cow<'a, [f32]>),
    F16(Vec<f16>),
}

impl<'a> Floats<'a> {
    pub fn new(element: Element, values: Cow<'a, [f32]>) -> Floats<'a> {
        if element == Element::F16 {
            Floats::F16(Vec::<f16>::from_f32_slice(&values))
        } else {
            Floats::F32(values)
        }
    }

    pub fn feed(&self) -> Feed<'_> {
        match self {
            Floats::F32(values) => Feed::F32(values),
            Floats::F16(values) => Feed::F16(values),
        }
    }
}
