//! JPEG: walks the marker segments (ITU T.81, annex B), and decides what no decoder is trusted
//! with: the color space, the components of each scan, and which bytes are no segment at all.

use super::bytes::Bytes;
use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::Jpeg;
use crate::image::error::ImageError;
use crate::image::orientation;

const SOF_BASELINE: u8 = 0xc0;
const SOF_EXTENDED: u8 = 0xc1;
const SOF_PROGRESSIVE: u8 = 0xc2;
const DHT: u8 = 0xc4;
const JPG: u8 = 0xc8;
const DAC: u8 = 0xcc;
const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DQT: u8 = 0xdb;
const DRI: u8 = 0xdd;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP14: u8 = 0xee;

/// Scans of an image. Encoders write about ten; each one costs a pass over the picture, however
/// few bytes it has.
pub(in crate::image) const MAX_SCANS: usize = 100;

/// What the components mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) enum Color {
    Gray,
    YCbCr,
    Rgb,
    Cmyk,
    Ycck,
}

/// Which decoder makes the right pixels of a shape of file; the README lists what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::image) enum Decoder {
    /// zune-jpeg: fast, and right about what cameras and most programs write.
    Fast,
    /// jpeg-decoder: slower, and right about scans and sampling of every other kind.
    General,
}

/// A component of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Component {
    id: u8,
    /// Sampling factors.
    h: u8,
    v: u8,
    table: u8,
}

/// What is known once the first scan is reached.
#[derive(Debug)]
pub(in crate::image) struct Survey {
    width: u32,
    height: u32,
    precision: u8,
    frame_marker: u8,
    components: Vec<Component>,
    pub(in crate::image) color: Color,
    orientation: u8,
    /// Nothing in the file can mislead a decoder.
    plain: bool,
    /// The first scan has all components.
    whole_scan: bool,
    first_scan: usize,
}

impl Survey {
    pub(in crate::image) fn progressive(&self) -> bool {
        self.frame_marker == SOF_PROGRESSIVE
    }

    pub(in crate::image) fn info(&self) -> ImageInfo {
        ImageInfo {
            format: Jpeg,
            width: self.width,
            height: self.height,
            frames: Some(1),
            orientation: self.orientation,
            channels: u8::try_from(self.components.len()).expect("at most four"),
            bits_per_channel: self.precision,
        }
    }

    /// The same with a color space that is known from elsewhere.
    ///
    /// Another number of channels leaves the color as it was found.
    pub(in crate::image) fn with_color(mut self, color: Color) -> Self {
        let three = matches!(color, Color::YCbCr | Color::Rgb);
        if three && self.components.len() == 3 {
            self.color = color;
            self.plain = false;
        }
        self
    }

    fn max_factors(&self) -> (u8, u8) {
        let of = |factor: fn(&Component) -> u8| self.components.iter().map(factor).max().unwrap_or(1);
        (of(|c| c.h), of(|c| c.v))
    }

    pub(in crate::image) fn decoder(&self) -> Decoder {
        let (h, v) = self.max_factors();
        let power = |factor: u8| factor.is_power_of_two();
        let luma_is_finest = (self.components[0].h, self.components[0].v) == (h, v);
        let usual = luma_is_finest && self.components.iter().all(|c| power(c.h) && power(c.v));
        // The fast one takes a baseline file with several scans apart wrongly.
        if usual && (self.progressive() || self.whole_scan) { Decoder::Fast } else { Decoder::General }
    }

    /// 8x8 blocks of all components, each padded to whole MCUs, as decoders hold them.
    fn blocks(&self) -> u64 {
        let (h, v) = self.max_factors();
        let across = |side: u32, max: u8| u64::from(side).div_ceil(8 * u64::from(max));
        let mcus = across(self.width, h) * across(self.height, v);
        self.components.iter().map(|c| mcus * u64::from(c.h) * u64::from(c.v)).sum()
    }

    /// Blocks that are certainly in the file: scans of one component are not padded.
    fn least_blocks(&self) -> u64 {
        let (h, v) = self.max_factors();
        let across = |side: u32, factor: u8, max: u8| {
            (u64::from(side) * u64::from(factor)).div_ceil(8 * u64::from(max))
        };
        self.components.iter().map(|c| across(self.width, c.h, h) * across(self.height, c.v, v)).sum()
    }

    pub(in crate::image) fn peak_bytes(&self) -> u64 {
        let pixels = u64::from(self.width) * u64::from(self.height);
        let channels = if self.components.len() == 4 { 4 } else { 3 };
        // Images that come in several scans keep their coefficients, two bytes each.
        let coefficients = if self.progressive() { 2 * 64 * self.blocks() } else { 0 };
        let planes = if self.decoder() == Decoder::General { 64 * self.blocks() } else { 0 };
        channels * pixels + coefficients + planes
    }
}

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let survey = survey(data)?;
    // Every block has a code for its DC coefficient, and one for the end of its AC coefficients
    // unless those come in other scans; no code is shorter than a bit. A file with fewer bits
    // lies about its size, and a decoder would fill up what is missing with gray.
    let bits_per_block = if survey.progressive() { 1 } else { 2 };
    let least_bytes = survey.first_scan as u64 + (survey.least_blocks() * bits_per_block).div_ceil(8);
    Ok(Header { info: survey.info(), least_bytes, peak_bytes: survey.peak_bytes() })
}

/// Reads all segments up to the first scan.
pub(in crate::image) fn survey(data: &[u8]) -> Result<Survey, ImageError> {
    let mut walk = Walk::new(data);
    let mut frame = None;
    let mut orientation = None;
    let mut jfif = false;
    let mut adobe = None;
    let mut cut_short = false;
    loop {
        let segment = walk.next()?.ok_or_else(|| cut_off(Jpeg))?;
        let body = segment.body;
        match segment.marker {
            SOF_BASELINE | SOF_EXTENDED | SOF_PROGRESSIVE => {
                if frame.is_some() {
                    return Err(ImageError::corrupt(Jpeg, "it has two frame headers"));
                }
                frame = Some(read_frame(body, segment.marker)?);
            }
            DHT | JPG => {}
            DAC | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Err(ImageError::unsupported(Jpeg, "with arithmetic coding"));
            }
            0xc3 => return Err(ImageError::unsupported(Jpeg, "with lossless coding")),
            0xc5..=0xc7 => return Err(ImageError::unsupported(Jpeg, "with hierarchical coding")),
            APP0 => jfif |= body.starts_with(b"JFIF\0") && body.len() >= 14,
            APP1 if orientation.is_none() => {
                orientation = body.strip_prefix(b"Exif\0\0").map(orientation::of_exif);
            }
            APP14 if body.len() < 12 => cut_short = true,
            APP14 if body.starts_with(b"Adobe") => adobe = Some(body[11]),
            EOI => return Err(ImageError::corrupt(Jpeg, "it ends before its first scan")),
            SOS => {
                let mut survey: Survey = frame.ok_or_else(|| {
                    ImageError::corrupt(Jpeg, "its first scan comes before its frame header")
                })?;
                survey.first_scan = segment.offset;
                survey.orientation = orientation.unwrap_or(1);
                survey.whole_scan =
                    usize::from(body.first().copied().unwrap_or(0)) == survey.components.len();
                survey.color = color(&survey.components, jfif, adobe);
                // The fast decoder refuses a file for an application segment that others pass over.
                survey.plain =
                    !walk.strayed && !cut_short && is_plain(&survey.components, survey.color, adobe);
                return Ok(survey);
            }
            _ => {}
        }
    }
}

/// The color space, by the rules of libjpeg (`default_decompress_parms`): JFIF decides, then
/// Adobe's transform, then the ids of the components.
fn color(components: &[Component], jfif: bool, adobe: Option<u8>) -> Color {
    let ids: Vec<u8> = components.iter().map(|c| c.id).collect();
    match (components.len(), adobe) {
        (1, _) => Color::Gray,
        (3, _) if jfif => Color::YCbCr,
        (3, Some(0)) => Color::Rgb,
        (3, None) if ids == *b"RGB" => Color::Rgb,
        (3, _) => Color::YCbCr,
        (_, None | Some(0)) => Color::Cmyk,
        (_, Some(_)) => Color::Ycck,
    }
}

/// Whether decoders that look at ids and at Adobe's segment come to the same color, and every
/// component has a name of its own.
fn is_plain(components: &[Component], color: Color, adobe: Option<u8>) -> bool {
    let numbered = components.iter().zip(1..).all(|(component, id)| component.id == id);
    match color {
        Color::Gray => components[0].h == 1 && components[0].v == 1,
        Color::YCbCr => numbered && matches!(adobe, None | Some(1)),
        Color::Rgb => numbered && adobe == Some(0),
        Color::Cmyk => numbered && adobe == Some(0),
        Color::Ycck => numbered && adobe == Some(2),
    }
}

/// Parses the body of a start-of-frame segment (T.81, B.2.2).
fn read_frame(body: &[u8], frame_marker: u8) -> Result<Survey, ImageError> {
    let bytes = Bytes::big(body);
    let header = (|| Some((bytes.u8(0)?, bytes.u16(1)?, bytes.u16(3)?, bytes.u8(5)?)))();
    let (precision, height, width, count) = header.ok_or_else(|| cut_off(Jpeg))?;
    if precision != 8 {
        return Err(ImageError::unsupported(Jpeg, format_args!("with {precision} bits per channel")));
    }
    if height == 0 {
        return Err(ImageError::unsupported(Jpeg, "with its height behind the pixels"));
    }
    if !matches!(count, 1 | 3 | 4) {
        return Err(ImageError::unsupported(Jpeg, format_args!("with {count} components")));
    }
    let mut components = Vec::with_capacity(usize::from(count));
    for i in 0..usize::from(count) {
        let entry = (|| Some((bytes.u8(6 + 3 * i)?, bytes.u8(7 + 3 * i)?, bytes.u8(8 + 3 * i)?)))();
        let (id, factors, table) = entry.ok_or_else(|| cut_off(Jpeg))?;
        let (h, v) = (factors >> 4, factors & 15);
        if !matches!((h, v), (1..=4, 1..=4)) {
            return Err(ImageError::corrupt(Jpeg, "a sampling factor is not between 1 and 4"));
        }
        components.push(Component { id, h, v, table });
    }
    let survey = Survey {
        width: u32::from(width),
        height: u32::from(height),
        precision,
        frame_marker,
        components,
        color: Color::Gray,
        orientation: 1,
        plain: false,
        whole_scan: false,
        first_scan: 0,
    };
    let (h, v) = survey.max_factors();
    if survey.components.iter().any(|c| h % c.h != 0 || v % c.v != 0) {
        return Err(ImageError::unsupported(Jpeg, "with a fractional ratio of sampling factors"));
    }
    Ok(survey)
}

/// A marker segment.
struct Segment<'a> {
    marker: u8,
    /// Of its marker.
    offset: usize,
    /// After its length; empty for a marker that stands alone.
    body: &'a [u8],
    /// What follows a start of scan, up to the next marker that is no restart.
    entropy: &'a [u8],
}

/// Walks over segments and entropy-coded data.
struct Walk<'a> {
    data: &'a [u8],
    offset: usize,
    /// Bytes that belong to no segment have been met.
    strayed: bool,
}

impl<'a> Walk<'a> {
    fn new(data: &'a [u8]) -> Self {
        Self { data, offset: 2, strayed: false }
    }

    /// The next segment, `None` at the end of the data.
    ///
    /// The entropy-coded data of a scan is looked for when the following segment is.
    fn next(&mut self) -> Result<Option<Segment<'a>>, ImageError> {
        let bytes = Bytes::big(self.data);
        loop {
            let Some(marker) = bytes.u8(self.offset + 1) else { return Ok(None) };
            if bytes.u8(self.offset) != Some(0xff) {
                self.strayed = true;
                let Some(next) = next_ff(self.data, self.offset) else { return Ok(None) };
                self.offset = next;
                continue;
            }
            match marker {
                // Fill bytes.
                0xff => self.offset += 1,
                0x00 | 0x01 | 0xd0..=SOI => {
                    self.strayed = true;
                    self.offset += 2;
                }
                EOI => {
                    let offset = self.offset;
                    self.offset += 2;
                    return Ok(Some(Segment { marker, offset, body: &[], entropy: &[] }));
                }
                _ => {
                    let len = usize::from(bytes.u16(self.offset + 2).ok_or_else(|| cut_off(Jpeg))?);
                    let Some(body_len) = len.checked_sub(2) else {
                        return Err(ImageError::corrupt(
                            Jpeg,
                            format_args!("a segment announces {len} bytes"),
                        ));
                    };
                    let body = bytes.slice(self.offset + 4, body_len).ok_or_else(|| cut_off(Jpeg))?;
                    let offset = self.offset;
                    self.offset += 2 + len;
                    return Ok(Some(Segment { marker, offset, body, entropy: &[] }));
                }
            }
        }
    }

    /// The entropy-coded data that follows the start of scan just read.
    fn entropy(&mut self) -> &'a [u8] {
        let start = self.offset;
        let mut at = start;
        while let Some(next) = next_ff(self.data, at.wrapping_sub(1)) {
            match self.data.get(next + 1) {
                Some(0x00 | 0xd0..=0xd7) => at = next + 2,
                Some(0xff) => at = next + 1,
                _ => {
                    self.offset = next;
                    return &self.data[start..next];
                }
            }
        }
        self.offset = self.data.len();
        &self.data[start..]
    }
}

/// Offset of the next 0xff after `offset`.
fn next_ff(data: &[u8], offset: usize) -> Option<usize> {
    let start = offset.wrapping_add(1);
    let rest = data.get(start..)?;
    rest.iter().position(|&byte| byte == 0xff).map(|at| start + at)
}

/// The file for the decoder: as it is where that is safe, otherwise in a form that leaves nothing to
/// interpret. That has no bytes between segments, no application segments but Adobe's, which names
/// the color space found here, and components numbered from 1.
///
/// # Errors
/// As [`rewritten`].
pub(in crate::image) fn canonical(data: &[u8], survey: &Survey) -> Result<Option<Vec<u8>>, ImageError> {
    if survey.plain && survey.decoder() == Decoder::Fast {
        return Ok(None);
    }
    rewritten(data, survey).map(|(file, _)| Some(file))
}

/// That form of any file, and whether bytes between segments were left out.
///
/// # Errors
/// Too many scans; scans that no decoder here takes apart rightly; memory for the copy refused.
pub(in crate::image) fn rewritten(data: &[u8], survey: &Survey) -> Result<(Vec<u8>, bool), ImageError> {
    // Each segment grows by nothing, and one of Adobe's may come in.
    let len = data.len() + 32;
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| ImageError::OutOfMemory { bytes: len })?;
    out.extend([0xff, SOI]);
    let transform = match survey.color {
        Color::Gray => None,
        Color::YCbCr => Some(1),
        Color::Rgb | Color::Cmyk => Some(0),
        Color::Ycck => Some(2),
    };
    if let Some(transform) = transform {
        out.extend([0xff, APP14, 0, 14]);
        out.extend(b"Adobe\0\x64\0\0\0\0");
        out.push(transform);
    }
    let mut scans = 0;
    let mut walk = Walk::new(data);
    while let Some(mut segment) = walk.next()? {
        let start = out.len();
        match segment.marker {
            EOI => {
                out.extend([0xff, EOI]);
                break;
            }
            SOS => {
                scans += 1;
                if scans > MAX_SCANS {
                    return Err(ImageError::corrupt(
                        Jpeg,
                        format_args!("it has more than {MAX_SCANS} scans"),
                    ));
                }
                segment.entropy = walk.entropy();
                push_segment(&mut out, &segment);
                number_scan(&mut out[start + 4..], survey)?;
                out.extend(segment.entropy);
            }
            SOF_BASELINE | SOF_EXTENDED | SOF_PROGRESSIVE => {
                if scans > 0 {
                    return Err(ImageError::corrupt(Jpeg, "it has two frame headers"));
                }
                push_segment(&mut out, &segment);
                let body = &mut out[start + 4..];
                for (i, id) in (1..=survey.components.len()).zip(1..) {
                    body[3 + 3 * i] = id;
                }
                // A single component is never interleaved, whatever its factors say.
                if survey.components.len() == 1 {
                    body[7] = 0x11;
                }
            }
            DHT | DQT | DRI => push_segment(&mut out, &segment),
            _ => {}
        }
    }
    Ok((out, walk.strayed))
}

fn push_segment(out: &mut Vec<u8>, segment: &Segment<'_>) {
    let len = u16::try_from(segment.body.len() + 2).expect("a length that was 16 bits wide");
    out.extend([0xff, segment.marker]);
    out.extend(len.to_be_bytes());
    out.extend(segment.body);
}

/// Replaces the ids of a scan's components by their places in the frame, counted from 1.
fn number_scan(body: &mut [u8], survey: &Survey) -> Result<(), ImageError> {
    let components = &survey.components;
    let count = usize::from(body.first().copied().unwrap_or(0));
    if count == 0 || count > components.len() || body.len() < 1 + 2 * count + 3 {
        return Err(ImageError::corrupt(Jpeg, format_args!("a scan announces {count} components")));
    }
    // Components that share an id are distinguished by their order, if they come together.
    let shared = (1..components.len()).any(|i| components[..i].iter().any(|c| c.id == components[i].id));
    if shared && count != components.len() {
        return Err(ImageError::unsupported(Jpeg, "with scans of components that share an id"));
    }
    let mut taken = [false; 4];
    for i in 0..count {
        let id = body[1 + 2 * i];
        let place = (0..components.len()).find(|&place| components[place].id == id && !taken[place]);
        let Some(place) = place else {
            return Err(ImageError::corrupt(Jpeg, format_args!("a scan has no component {id}")));
        };
        taken[place] = true;
        body[1 + 2 * i] = u8::try_from(place + 1).expect("at most four");
        // The general decoder counts the blocks of a component by itself wrongly where that is
        // neither the finest nor one block to the MCU.
        let (h, v) = survey.max_factors();
        let between = |factor: u8, max: u8| factor > 1 && factor < max;
        let Component { h: own_h, v: own_v, .. } = components[place];
        if count == 1
            && components.len() > 1
            && survey.decoder() == Decoder::General
            && (between(own_h, h) || between(own_v, v))
        {
            return Err(ImageError::unsupported(
                Jpeg,
                "with a scan of its own for a component at half of four sampling factors",
            ));
        }
    }
    Ok(())
}
