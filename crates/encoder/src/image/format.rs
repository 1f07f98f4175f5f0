//! Recognizing an image format by its first bytes; file names and MIME types play no part.

use std::fmt;

/// A format that is recognized. The last one is named only to be refused clearly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// JPEG (ITU T.81), baseline and progressive Huffman coding.
    Jpeg,
    /// PNG, the first image of an animated one.
    Png,
    /// GIF, its first frame.
    Gif,
    /// WebP, lossy and lossless, the first frame of an animation.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// TIFF, its first page.
    Tiff,
    /// PNM: bitmap, graymap and pixmap, as text and as bytes.
    Pnm,
    /// QOI.
    Qoi,
    /// ICO, a Windows icon: its largest picture.
    Ico,
    /// JPEG XL, bare or in its container, the first frame of an animation.
    JpegXl,
    /// AVIF: its primary picture, or the first frame of an animation.
    Avif,
    /// HEIC: its primary picture, where the system has libheif.
    Heic,
    /// JPEG 2000: recognized, not decoded.
    Jpeg2000,
}

impl ImageFormat {
    /// The format that `data` starts like. Looks at 32 bytes at most.
    pub fn sniff(data: &[u8]) -> Option<Self> {
        let at = |offset: usize, magic: &[u8]| data.get(offset..).is_some_and(|d| d.starts_with(magic));
        // Two bytes of text ("BM...") are weak evidence of a bitmap, so the four reserved bytes
        // of its file header and the size of the next header must fit as well.
        let bitmap = || at(0, b"BM") && matches!(data.get(14..18), Some([12 | 16..=64 | 108 | 124, 0, 0, 0]));
        // As weak: a letter, a digit and a blank come before the width, or before a comment.
        let map = || match data {
            [b'P', b'1'..=b'6', blank, next, ..] => {
                blank.is_ascii_whitespace() && (next.is_ascii_digit() || matches!(next, b'#' | b' ' | b'\n'))
            }
            _ => false,
        };
        // Four bytes of small numbers; a first picture that is not in the directory itself.
        let icon = || {
            let number = |at: usize| Some(u32::from_le_bytes(data.get(at..at + 4)?.try_into().ok()?));
            let count = data.get(4..6).map_or(0, |count| u32::from(count[0]) | u32::from(count[1]) << 8);
            let is_behind = number(18).is_some_and(|offset| offset >= 6 + 16 * count);
            at(0, b"\0\0\x01\0") && count > 0 && data.get(9) == Some(&0) && is_behind
        };
        Some(match () {
            () if at(0, b"\xff\xd8\xff") => Self::Jpeg,
            () if at(0, b"\x89PNG\r\n\x1a\n") => Self::Png,
            () if at(0, b"GIF87a") || at(0, b"GIF89a") => Self::Gif,
            () if at(0, b"RIFF") && at(8, b"WEBP") => Self::WebP,
            () if at(0, b"II*\0") || at(0, b"MM\0*") || at(0, b"II+\0") || at(0, b"MM\0+") => Self::Tiff,
            () if bitmap() => Self::Bmp,
            () if at(0, b"qoif") => Self::Qoi,
            () if icon() => Self::Ico,
            () if map() => Self::Pnm,
            () if at(4, b"ftyp") => return Self::sniff_brand(data),
            () if at(0, b"\xff\x0a") || at(0, b"\0\0\0\x0cJXL \r\n\x87\n") => Self::JpegXl,
            () if at(0, b"\0\0\0\x0cjP  \r\n\x87\n") || at(0, b"\xff\x4f\xff\x51") => Self::Jpeg2000,
            () => return None,
        })
    }

    /// `data` from where a JPEG begins after bytes that do not belong to it; otherwise all of it.
    ///
    /// Some cameras and many scrapers leave a line break, the headers of an answer or a chunk's length before the first marker.
    pub(super) fn without_lead(data: &[u8]) -> &[u8] {
        /// Longest lead that is looked through.
        const LEAD: usize = 1024;
        // Files that hold a picture among other things are not pictures.
        let is_other = data.starts_with(b"%PDF") || data.get(4..8) == Some(b"ftyp");
        if Self::sniff(data).is_some() || is_other {
            return data;
        }
        // Start of image, and the marker of a segment that may come first.
        let begins = |window: &[u8]| {
            matches!(window, [0xff, 0xd8, 0xff, 0xc0..=0xc2 | 0xc4 | 0xdb | 0xdd | 0xe0..=0xef | 0xfe])
        };
        let start = data[..data.len().min(LEAD + 4)].windows(4).position(begins);
        start.map_or(data, |start| &data[start..])
    }

    /// The image formats inside an ISO base media file, distinguished by the major brand and, for
    /// the generic `mif1` and `msf1`, by the compatible brands that follow.
    fn sniff_brand(data: &[u8]) -> Option<Self> {
        let brands = data.get(8..data.len().min(32))?.chunks_exact(4);
        for brand in brands {
            match brand {
                b"avif" | b"avis" => return Some(Self::Avif),
                b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" => return Some(Self::Heic),
                _ => {}
            }
        }
        matches!(data.get(8..12)?, b"mif1" | b"msf1").then_some(Self::Heic)
    }

    /// The usual name: "JPEG", "PNG", "WebP".
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
            Self::Pnm => "PNM",
            Self::Qoi => "QOI",
            Self::Ico => "ICO",
            Self::Avif => "AVIF",
            Self::Heic => "HEIC",
            Self::JpegXl => "JPEG XL",
            Self::Jpeg2000 => "JPEG 2000",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::ImageFormat::{self, *};

    #[test]
    fn magic_numbers_name_their_formats() {
        let cases: [(&[u8], ImageFormat); 14] = [
            (b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0\x68\x04\0\0\x16\0\0\0\x28\0\0\0", Ico),
            (b"\xff\x0a\xfa\x7f", JpegXl),
            (b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ", JpegXl),
            (b"\xff\xd8\xff\xe0", Jpeg),
            (b"\x89PNG\r\n\x1a\n", Png),
            (b"GIF89a", Gif),
            (b"RIFF\0\0\0\0WEBPVP8 ", WebP),
            (b"MM\0*", Tiff),
            (b"qoif\0\0", Qoi),
            (b"P6\n64 48\n255\n", Pnm),
            (b"P1 # bits\n", Pnm),
            (b"\0\0\0\x1cftypavif\0\0\0\0", Avif),
            (b"\0\0\0\x1cftypmif1\0\0\0\0avif", Avif),
            (b"\0\0\0\x1cftypmif1\0\0\0\0heic", Heic),
        ];
        for (data, format) in cases {
            assert_eq!(ImageFormat::sniff(data), Some(format), "{data:?}");
        }
    }

    #[test]
    fn a_jpeg_begins_where_its_first_marker_is() {
        let jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF";
        for lead in [&b""[..], b"\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"\xff\xff", &[7; 1024]] {
            assert_eq!(ImageFormat::without_lead(&[lead, jpeg].concat()), jpeg, "{lead:?}");
        }
        for lead in [&b"%PDF-1.4\n"[..], b"\0\0\0\x18ftypcrx ", b"GIF89a", &[7; 1025]] {
            let data = [lead, jpeg].concat();
            assert_eq!(ImageFormat::without_lead(&data), data, "{lead:?}");
        }
    }

    #[test]
    fn text_that_starts_like_a_bitmap_is_none() {
        assert_eq!(ImageFormat::sniff(b"BM stands for Burghausen am Main"), None);
        assert_eq!(ImageFormat::sniff(b"\0\0\0\x1cftypmp42\0\0\0\0isom"), None);
        assert_eq!(ImageFormat::sniff(b"\xff"), None);
        assert_eq!(ImageFormat::sniff(b"P6 is a processor"), None);
        assert_eq!(ImageFormat::sniff(b"P7 12"), None);
        // A video of MPEG, a directory without entries, and one whose picture lies in itself.
        assert_eq!(ImageFormat::sniff(b"\0\0\x01\xba\x44\0\x04\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0"), None);
        assert_eq!(ImageFormat::sniff(&[&b"\0\0\x01\0\0\0"[..], &[0; 26]].concat()), None);
        assert_eq!(ImageFormat::sniff(&[&b"\0\0\x01\0\x01\0"[..], &[0; 12], &[4, 0, 0, 0]].concat()), None);
    }
}
