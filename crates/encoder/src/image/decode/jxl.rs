//! JPEG XL through the `jxl` crate, in one thread.
//!
//! The crate works group by group, of 256 to 1,024 pixels square, and takes a runner for these tasks. Ours asks between two of them
//! whether to stop, and looks at the memory of the process: what a picture takes depends on its coding, up to several frames of
//! floats that later ones refer to, and no header tells that before.

use std::cell::Cell;

use jxl::api::{Event, JxlColorType, JxlDataFormat, JxlParallelRunner, JxlParallelRunnerFun, JxlPixelFormat};

use super::{Samples, buffer_len, check_size};
use crate::image::alpha::Layout;
use crate::image::error::ImageError;
use crate::image::format::ImageFormat::JpegXl;
use crate::image::header::ImageInfo;
use crate::image::header::jxl::{Channels, Feed, channels, decoder};
use crate::image::limits::ImageLimits;
use crate::image::memory::try_zeroed;
use crate::image::reader::Reader;
use crate::memory;

/// Samples that any frame may have: patches of a small picture may be larger than itself.
const SMALL_FRAME: usize = 1 << 22;
/// Channels of a picture of level 5, those that are not shown among them.
const MAX_CHANNELS: usize = 3 + 4;

pub(super) fn decode(
    data: &[u8],
    reader: &mut Reader<'_>,
    info: &ImageInfo,
    limits: &ImageLimits,
    frame: u32,
) -> Result<Samples, ImageError> {
    let base = memory::private_bytes();
    let sides = info.width.max(16) as usize * info.height as usize;
    let mut decoder = decoder(Some(SMALL_FRAME.max(sides.saturating_mul(MAX_CHANNELS) + 1)), false);
    let mut feed = Feed::new(data);
    let grown = Cell::new(0);
    let mut guard = Guard { reader, base, limit: limits.max_decoder_bytes, grown: &grown };
    let stopped = |guard: &Guard<'_, '_>, error: ImageError| match guard.grown.get() {
        bytes if bytes > guard.limit => {
            ImageError::DecoderMemory { format: JpegXl, bytes, limit: guard.limit }
        }
        _ => error,
    };

    let first = feed.next(&mut decoder, None, &mut guard)?;
    let Some(basic) = decoder.basic_info().filter(|_| first == Some(Event::BasicInfo)) else {
        return Err(cut_off());
    };
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    check_size(info, side(basic.size.0), side(basic.size.1))?;
    let others = basic.extra_channels.len();
    let Channels { is_gray, has_alpha } = channels(&decoder)?;
    let (layout, color_type) = match (is_gray, has_alpha) {
        (true, false) => (Layout::Gray, JxlColorType::Grayscale),
        (true, true) => (Layout::GrayAlpha, JxlColorType::GrayscaleAlpha),
        (false, false) => (Layout::Rgb, JxlColorType::Rgb),
        (false, true) => (Layout::Rgba, JxlColorType::Rgba),
    };
    let format = JxlPixelFormat {
        color_type,
        color_data_format: Some(JxlDataFormat::U8 { bit_depth: 8 }),
        extra_channel_format: vec![None; others],
    };
    decoder.set_pixel_format(format).map_err(|error| feed.refused(error))?;

    let stride = info.width as usize * layout.channels();
    feed.wanted_bytes = buffer_len(info, layout.channels());
    let mut samples = try_zeroed(buffer_len(info, layout.channels()))?;
    let mut left = frame;
    loop {
        let pixels = Some((&mut samples[..], info.height as usize, stride));
        let event = feed.next(&mut decoder, pixels, &mut guard);
        match event.map_err(|error| stopped(&guard, error))? {
            Some(Event::FrameComplete { .. }) if left == 1 => break,
            Some(Event::FrameComplete { has_more_frames: false }) => return Err(super::no_frame(frame)),
            Some(Event::FrameComplete { .. }) => left -= 1,
            Some(Event::FrameHeader) => {}
            _ => return Err(cut_off()),
        }
    }
    Ok(Samples { layout, data: samples })
}

fn cut_off() -> ImageError {
    ImageError::corrupt(JpegXl, "the pixels are cut off")
}

/// Runs the decoder's tasks in turn, until the caller wants to stop or they take too much memory.
struct Guard<'a, 'b> {
    reader: &'a mut Reader<'b>,
    /// Private memory of the process at the start, if the system reports it.
    base: Option<u64>,
    limit: u64,
    /// What was added to it when it was looked at last.
    grown: &'a Cell<u64>,
}

impl Guard<'_, '_> {
    fn check(&mut self) -> jxl::error::Result<()> {
        let stop = |reason| Err(std::io::Error::other(reason).into());
        // As much as a group has at least, so that each asks.
        if self.reader.checkpoint(1 << 16).is_err() {
            return stop("interrupted");
        }
        if let Some(base) = self.base {
            let grown = memory::private_bytes().unwrap_or(0).saturating_sub(base);
            self.grown.set(grown);
            if grown > self.limit {
                return stop("it takes too much memory");
            }
        }
        Ok(())
    }
}

impl JxlParallelRunner for Guard<'_, '_> {
    fn run(&mut self, count: usize, task: &JxlParallelRunnerFun<'_>) -> jxl::error::Result<()> {
        (0..count).try_for_each(|index| {
            self.check()?;
            task(index)
        })
    }

    fn num_threads(&self) -> usize {
        1
    }

    fn run_ordered(
        &mut self,
        count: usize,
        _max_threads: Option<usize>,
        task: &JxlParallelRunnerFun<'_>,
    ) -> jxl::error::Result<()> {
        self.run(count, task)
    }
}
