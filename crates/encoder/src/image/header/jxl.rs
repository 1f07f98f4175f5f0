//! JPEG XL: what the decoder of the `jxl` crate tells before the first frame (ISO 18181), and a count of an animation's frames.
//!
//! The codestream lies bare or in the boxes of a container. Its header is a stream of bits that goes on with entropy-coded color
//! profiles, so that it is left to the crate; nothing of what it allocates here grows with the sides.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jxl::api::{Event, ExtraChannel, JxlDecoder, JxlDecoderOptions, JxlParallelRunner};
use jxl::error::Error;

use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::JpegXl;
use crate::image::error::ImageError;

/// Most frames that are counted: each costs the decoder some 300 bytes.
const MAX_COUNTED: u32 = 10_000;
/// What is shown to the decoder at once, so that it holds no copy of the whole file.
const WINDOW: usize = 64 << 10;
/// Bytes of a pixel that the decoder works with at its least, beside those of the result: a compressed picture is decoded by
/// groups. Those that take more are stopped while they do.
const LEAST_WORK: u64 = 2;

/// Color channels and alpha of the result.
pub(in crate::image) struct Channels {
    pub(in crate::image) is_gray: bool,
    pub(in crate::image) has_alpha: bool,
}

/// A decoder with the options that header and pixels have in common.
pub(in crate::image) fn decoder(sample_limit: Option<usize>, scans: bool) -> JxlDecoder {
    let mut options = JxlDecoderOptions::default();
    // The resizer turns.
    options.adjust_orientation = false;
    options.skip_preview = true;
    options.sample_limit = sample_limit;
    options.scan_frames_only = scans;
    options.alpha_mode = jxl::api::AlphaMode::Unpremultiplied;
    JxlDecoder::new(options)
}

/// Feeds a decoder until something happens.
pub(in crate::image) struct Feed<'a> {
    data: &'a [u8],
    position: usize,
    /// What was wanted when memory is refused, as the decoder does not say.
    pub(in crate::image) wanted_bytes: usize,
}

impl<'a> Feed<'a> {
    pub(in crate::image) fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0, wanted_bytes: data.len() }
    }

    /// The next event, and none where the data end before it. `pixels` are bytes, rows and bytes of a row.
    pub(in crate::image) fn next(
        &mut self,
        decoder: &mut JxlDecoder,
        pixels: Option<(&mut [u8], usize, usize)>,
        runner: &mut dyn JxlParallelRunner,
    ) -> Result<Option<Event>, ImageError> {
        let mut buffer =
            pixels.map(|(bytes, rows, stride)| jxl::api::JxlOutputBuffer::new(bytes, rows, stride));
        let mut window = WINDOW;
        loop {
            // Nothing to do, but a moment to stop.
            runner.run(1, &|_| Ok(())).map_err(|error| self.refused(error))?;
            let end = self.data.len().min(self.position + window);
            let mut part = &self.data[self.position..end];
            let event = decoder.process(&mut part, buffer.as_mut().map(std::slice::from_mut), Some(runner));
            let left = part.len();
            let taken = end - self.position - left;
            self.position += taken;
            match event.map_err(|error| self.refused(error))? {
                Event::NeedMoreInput { .. } if taken == 0 && end == self.data.len() => return Ok(None),
                // It wants more at once.
                Event::NeedMoreInput { .. } if taken == 0 => window *= 2,
                Event::NeedMoreInput { .. } => {}
                event @ (Event::BasicInfo
                | Event::FrameHeader
                | Event::FrameComplete { .. }
                | Event::Complete) => return Ok(Some(event)),
            }
        }
    }
}

impl Feed<'_> {
    /// What an error of the decoder means.
    pub(in crate::image) fn refused(&self, error: Error) -> ImageError {
        if let Error::LevelLimitExceeded { limit, .. } = &error {
            return ImageError::unsupported(JpegXl, format_args!("beyond level 5 ({limit})"));
        }
        if matches!(error, Error::OutOfMemory(_) | Error::ImageOutOfMemory(..)) {
            return ImageError::OutOfMemory { bytes: self.wanted_bytes };
        }
        ImageError::corrupt(JpegXl, error)
    }
}

/// Runs one task after the other.
struct InTurn;

impl JxlParallelRunner for InTurn {
    fn run(&mut self, count: usize, task: &jxl::api::JxlParallelRunnerFun<'_>) -> jxl::error::Result<()> {
        (0..count).try_for_each(task)
    }

    fn num_threads(&self) -> usize {
        1
    }
}

/// The channels that a decoder which has read the header will give.
pub(in crate::image) fn channels(decoder: &JxlDecoder) -> Result<Channels, ImageError> {
    let (Some(info), Some(profile)) = (decoder.basic_info(), decoder.embedded_color_profile()) else {
        return Err(cut_off(JpegXl));
    };
    let has = |kind: ExtraChannel| info.extra_channels.iter().any(|channel| channel.ec_type == kind);
    if profile.is_cmyk() || has(ExtraChannel::Black) {
        return Err(ImageError::unsupported(JpegXl, "of four inks"));
    }
    let is_gray = decoder.current_pixel_format().is_some_and(|format| format.color_type.is_grayscale());
    Ok(Channels { is_gray, has_alpha: has(ExtraChannel::Alpha) })
}

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    catch_unwind(AssertUnwindSafe(|| read_with_crate(data)))
        .unwrap_or_else(|_| Err(ImageError::corrupt(JpegXl, "the decoder failed at its header")))
}

fn read_with_crate(data: &[u8]) -> Result<Header, ImageError> {
    let mut decoder = decoder(None, true);
    let mut feed = Feed::new(data);
    let mut next = |decoder: &mut JxlDecoder| feed.next(decoder, None, &mut InTurn);
    if next(&mut decoder)? != Some(Event::BasicInfo) {
        return Err(cut_off(JpegXl));
    }
    let Channels { is_gray, has_alpha } = channels(&decoder)?;
    let info = decoder.basic_info().expect("just read");
    let side = |side: usize| u32::try_from(side).unwrap_or(u32::MAX);
    let (width, height) = (side(info.size.0), side(info.size.1));
    let orientation = info.orientation as u8;
    let bits = info.bit_depth.bits_per_sample();
    let frames = if info.animation.is_some() { count_frames(&mut decoder, next) } else { Some(1) };
    let channels = if is_gray { 1 } else { 3 } + u8::from(has_alpha);
    let info = ImageInfo {
        format: JpegXl,
        width,
        height,
        frames,
        orientation,
        channels,
        bits_per_channel: u8::try_from(bits).unwrap_or(u8::MAX),
    };
    let pixels = u64::from(width) * u64::from(height);
    let result = if is_gray { u64::from(channels) + 3 } else { channels.into() };
    Ok(Header { info, least_bytes: 0, peak_bytes: pixels.saturating_mul(result + LEAST_WORK) })
}

/// Frames that are shown, if the file is whole and they can be counted.
fn count_frames(
    decoder: &mut JxlDecoder,
    mut next: impl FnMut(&mut JxlDecoder) -> Result<Option<Event>, ImageError>,
) -> Option<u32> {
    let mut frames = 0;
    while frames <= MAX_COUNTED {
        match next(decoder) {
            Ok(Some(Event::FrameComplete { has_more_frames })) => {
                frames += 1;
                if !has_more_frames {
                    return Some(frames);
                }
            }
            Ok(Some(Event::FrameHeader)) => {}
            Ok(_) | Err(_) => return None,
        }
    }
    None
}
