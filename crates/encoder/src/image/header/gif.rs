//! GIF: the logical screen, the first frame's place on it, and a count of the frames (GIF89a).

use super::bytes::Bytes;
use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::Gif;
use crate::image::error::ImageError;

const EXTENSION: u8 = 0x21;
const IMAGE: u8 = 0x2c;
const TRAILER: u8 = 0x3b;

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let bytes = Bytes::little(data);
    let screen = (|| Some((bytes.u16(6)?, bytes.u16(8)?, bytes.u8(10)?)))();
    let (width, height, flags) = screen.ok_or_else(|| cut_off(Gif))?;
    let walk = Walk::new(bytes, 13 + color_table_len(flags));
    let first = walk.clone().next().ok_or_else(|| ImageError::corrupt(Gif, "it has no frame"))?;
    // A screen that is smaller than the first frame, or 0 x 0, grows, as in Pillow and browsers.
    let width = u32::from(width).max(u32::from(first.left) + u32::from(first.width));
    let height = u32::from(height).max(first.top + u32::from(first.height));
    let info = ImageInfo {
        format: Gif,
        width,
        height,
        frames: walk.count_frames(),
        orientation: 1,
        channels: 3,
        bits_per_channel: 8,
    };
    let screen = u64::from(width) * u64::from(height);
    let frame = u64::from(first.width) * u64::from(first.height);
    Ok(Header { info, least_bytes: 0, peak_bytes: 3 * screen + frame })
}

fn color_table_len(flags: u8) -> usize {
    if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) }
}

struct FramePlace {
    left: u16,
    top: u32,
    width: u16,
    height: u16,
}

/// Walks over blocks, yielding frames.
#[derive(Clone)]
struct Walk<'a> {
    bytes: Bytes<'a>,
    offset: usize,
    complete: bool,
}

impl<'a> Walk<'a> {
    fn new(bytes: Bytes<'a>, offset: usize) -> Self {
        Self { bytes, offset, complete: false }
    }

    fn count_frames(mut self) -> Option<u32> {
        let frames = self.by_ref().count();
        self.complete.then_some(u32::try_from(frames).ok()?)
    }

    /// Skips data sub-blocks: a length byte before each, an empty one at the end.
    fn skip_sub_blocks(&mut self) -> Option<()> {
        loop {
            let len = usize::from(self.bytes.u8(self.offset)?);
            self.offset += 1 + len;
            if len == 0 {
                return Some(());
            }
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = FramePlace;

    fn next(&mut self) -> Option<FramePlace> {
        loop {
            match self.bytes.u8(self.offset)? {
                EXTENSION => {
                    self.offset += 2;
                    self.skip_sub_blocks()?;
                }
                IMAGE => {
                    let at = |i| self.bytes.u16(self.offset + i);
                    let place =
                        FramePlace { left: at(1)?, top: u32::from(at(3)?), width: at(5)?, height: at(7)? };
                    self.offset += 10 + color_table_len(self.bytes.u8(self.offset + 9)?) + 1;
                    // A frame whose pixels are cut off still announces its size.
                    if self.skip_sub_blocks().is_none() {
                        self.offset = usize::MAX;
                    }
                    return Some(place);
                }
                TRAILER => {
                    self.complete = true;
                    return None;
                }
                _ => return None,
            }
        }
    }
}
