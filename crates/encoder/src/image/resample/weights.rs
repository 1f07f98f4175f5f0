//! Weights of source pixels for every output pixel along one side.

use std::ops::Range;

use super::filter::Filter;

/// Bits after the binary point. 8 bits of pixel, 22 of weight and 2 for the overshoot of
/// negative lobes fill 32.
pub(super) const FRACTION_BITS: u32 = 22;

/// Fixed-point weights for a run of output pixels along one side.
pub(super) struct Weights {
    /// First source pixel and number of weights, per output pixel.
    spans: Vec<(usize, usize)>,
    /// `stride` weights per output pixel, those after the span zero.
    weights: Vec<i32>,
    stride: usize,
}

impl Weights {
    /// Weights for the outputs `first .. first + count` when `from` pixels become `to`.
    pub(super) fn new(filter: Filter, from: u32, to: u32, first: u32, count: u32) -> Self {
        let scale = f64::from(from) / f64::from(to);
        // When an image shrinks, the filter grows to cover all source pixels ("antialias").
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let inverse = 1.0 / filter_scale;
        let stride = support.ceil() as usize * 2 + 1;

        let mut spans = Vec::with_capacity(count as usize);
        let mut weights = vec![0; stride * count as usize];
        let mut exact = Vec::with_capacity(stride);
        for (output, target) in (first..first + count).zip(weights.chunks_exact_mut(stride)) {
            let center = (f64::from(output) + 0.5) * scale;
            // Conversions saturate at zero, as Pillow's clamp does.
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from as usize);
            exact.clear();
            exact.extend((start..end).map(|source| filter.at((source as f64 - center + 0.5) * inverse)));
            let sum: f64 = exact.iter().sum();
            for (weight, exact) in target.iter_mut().zip(&exact) {
                let share = if sum == 0.0 { *exact } else { exact / sum };
                *weight = to_fixed(share);
            }
            spans.push((start, end - start));
        }
        Self { spans, weights, stride }
    }

    /// Weights that copy the pixels `first .. first + count`: an output equals its source.
    pub(super) fn identity(first: u32, count: u32) -> Self {
        let spans = (first..first + count).map(|source| (source as usize, 1)).collect();
        Self { spans, weights: vec![1 << FRACTION_BITS; count as usize], stride: 1 }
    }

    /// The same weights for a source of `from` pixels that is stored in reverse.
    ///
    /// Not the same as weights for reversed outputs: where a span starts is rounded, and to
    /// reverse that as well is what makes a turned picture equal to the bit.
    pub(super) fn mirrored(mut self, from: u32) -> Self {
        for ((start, len), weights) in self.spans.iter_mut().zip(self.weights.chunks_exact_mut(self.stride)) {
            *start = from as usize - *start - *len;
            weights[..*len].reverse();
        }
        self
    }

    /// Outputs that have weights.
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// First source pixel and weights of the `i`-th output.
    pub(super) fn of(&self, i: usize) -> (usize, &[i32]) {
        let (start, len) = self.spans[i];
        (start, &self.weights[i * self.stride..][..len])
    }

    /// All source pixels that have a weight.
    pub(super) fn sources(&self) -> Range<usize> {
        // Starts and ends grow with the output, or shrink when mirrored.
        let ends = [self.spans[0], self.spans[self.spans.len() - 1]].map(|(start, len)| (start, start + len));
        ends[0].0.min(ends[1].0)..ends[0].1.max(ends[1].1)
    }

    /// The largest number of weights of one output.
    pub(super) fn longest(&self) -> usize {
        self.spans.iter().map(|span| span.1).max().unwrap_or(0)
    }
}

/// Rounds half away from zero, by adding and cutting off as Pillow does.
fn to_fixed(share: f64) -> i32 {
    let half = if share < 0.0 { -0.5 } else { 0.5 };
    (half + share * f64::from(1 << FRACTION_BITS)) as i32
}
