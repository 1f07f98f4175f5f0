//! QOI, the Quite OK Image format: a header of 14 bytes (specification 1.0).

use super::bytes::Bytes;
use super::{Header, ImageInfo, cut_off};
use crate::image::ImageFormat::Qoi;
use crate::image::error::ImageError;

/// Bytes before the first pixel.
pub(in crate::image) const HEADER: usize = 14;
/// Most pixels that one byte stands for.
const LONGEST_RUN: u64 = 62;

pub(super) fn read(data: &[u8]) -> Result<Header, ImageError> {
    let bytes = Bytes::big(data);
    let u32 = |offset| bytes.u32(offset).ok_or_else(|| cut_off(Qoi));
    let (width, height) = (u32(4)?, u32(8)?);
    let [channels, space] =
        data.get(12..HEADER).and_then(|pair| pair.try_into().ok()).ok_or_else(|| cut_off(Qoi))?;
    if !matches!(channels, 3 | 4) || space > 1 {
        let reason = format_args!("its header tells of {channels} channels in color space {space}");
        return Err(ImageError::corrupt(Qoi, reason));
    }
    let pixels = u64::from(width) * u64::from(height);
    let info = ImageInfo {
        format: Qoi,
        width,
        height,
        frames: Some(1),
        orientation: 1,
        channels,
        bits_per_channel: 8,
    };
    let least_bytes = HEADER as u64 + pixels.div_ceil(LONGEST_RUN);
    Ok(Header { info, least_bytes, peak_bytes: pixels.saturating_mul(channels.into()) })
}
