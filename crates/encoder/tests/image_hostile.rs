//! Images that were cut, bent, forged or made to cost: an error or a picture, never a panic, and
//! never more time or memory than the limits allow.
//!
//! Seeds are the pictures of tests/data/images. IMGVEC_FUZZ_SECONDS=600 lets the last test run
//! for ten minutes instead of a moment; its seed is printed and can be set by IMGVEC_FUZZ_SEED.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use imgvec_encoder::image::{ImageError, ImageFormat, ImageLimits, RgbImage, decode, decode_frame, info};
use imgvec_encoder::interrupt::never_interrupted;
use nix::time::{ClockId, clock_gettime};
use proptest::prelude::*;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name)
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// All pictures, by name: those of usual make and those of unusual one.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let entries = ["files", "cases", "frames", "heic"]
        .into_iter()
        .flat_map(|name| std::fs::read_dir(folder(name)).unwrap());
    let mut seeds: Vec<_> = entries
        .map(Result::unwrap)
        .filter(|entry| !entry.file_name().into_string().unwrap().ends_with(".expected.png"))
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect();
    seeds.sort();
    assert!(seeds.len() > 100);
    seeds
}

/// Processor time of this thread, which reads headers itself. Other programs do not count.
fn thread_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has this clock").into()
}

fn try_decode(data: &[u8]) -> Result<RgbImage, ImageError> {
    decode(data, &ImageLimits::default(), never_interrupted)
}

// --- what is no image -------------------------------------------------------------------------

#[test]
fn data_that_is_no_image_says_what_it_is() {
    assert_eq!(try_decode(b""), Err(ImageError::Empty));
    for data in
        [&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11][..], b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", b"a"]
    {
        match try_decode(data) {
            Err(ImageError::UnknownFormat { len, head }) => {
                assert_eq!(len, data.len());
                assert!(data.starts_with(head.as_bytes()));
            }
            other => panic!("{other:?}"),
        }
    }
    let error = try_decode(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).unwrap_err();
    let expected =
        "the data is 12 bytes long and starts with 00 01 02 03 04 05 06 07, which is no supported format";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn formats_that_are_not_decoded_are_named() {
    let cases = [
        (file("refused/picture.jp2"), ImageFormat::Jpeg2000),
        (file("refused/float.tif"), ImageFormat::Tiff),
    ];
    for (data, expected) in cases {
        match try_decode(&data) {
            Err(ImageError::Unsupported { format, .. }) => assert_eq!(format, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

// --- what is too large ------------------------------------------------------------------------

/// A GIF of a few bytes: screen, one frame, three bytes of pixels.
fn gif(screen: (u16, u16), frame: (u16, u16)) -> Vec<u8> {
    let mut data = b"GIF89a".to_vec();
    for side in [screen.0, screen.1] {
        data.extend(side.to_le_bytes());
    }
    data.extend([0x80, 0, 0, 0, 0, 0, 255, 255, 255]);
    data.push(b',');
    for side in [0, 0, frame.0, frame.1] {
        data.extend(side.to_le_bytes());
    }
    data.extend([0, 2, 2, 0x4c, 1, 0, b';']);
    data
}

fn png_chunk(data: &mut Vec<u8>, tag: &[u8; 4], body: &[u8]) {
    data.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    let start = data.len();
    data.extend(tag);
    data.extend(body);
    let checksum = crc32fast::hash(&data[start..]);
    data.extend(checksum.to_be_bytes());
}

/// A PNG of any sides.
fn png(width: u32, height: u32, bits: u8, color: u8, pixels: &[u8]) -> Vec<u8> {
    let mut data = b"\x89PNG\r\n\x1a\n".to_vec();
    let sides = [width.to_be_bytes(), height.to_be_bytes()].concat();
    png_chunk(&mut data, b"IHDR", &[&sides[..], &[bits, color, 0, 0, 0]].concat());
    png_chunk(&mut data, b"IDAT", pixels);
    png_chunk(&mut data, b"IEND", &[]);
    data
}

/// A zlib stream of `len` zero bytes, a thousandth as long.
fn zeros(len: usize) -> Vec<u8> {
    // Stored through the png crate's own encoder: a gray image of the same bytes.
    let mut data = Vec::new();
    let mut encoder = png::Encoder::new(&mut data, u32::try_from(len).unwrap() - 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![0; len - 1]).unwrap();
    writer.finish().unwrap();
    let start = data.windows(4).position(|tag| tag == b"IDAT").unwrap();
    let len = u32::from_be_bytes(data[start - 4..start].try_into().unwrap()) as usize;
    data[start + 4..start + 4 + len].to_vec()
}

/// A JPEG that claims other sides than it has pixels for.
fn forged_jpeg(name: &str, width: u16, height: u16) -> Vec<u8> {
    let mut data = file(name);
    let frame = data.windows(2).position(|m| matches!(m, [0xff, 0xc0 | 0xc2])).unwrap();
    data[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    data[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    data
}

/// A JPEG XL that announces these sides and nothing unusual, and has no pixels.
fn jxl(width: u32, height: u32) -> Vec<u8> {
    let mut bits = Vec::new();
    let mut put = |value: u32, count: u32| bits.extend((0..count).map(|bit| value >> bit & 1));
    // No small picture; height and width in the widest form, without a ratio; metadata and transform of the usual kind.
    for (value, count) in [(0, 1), (3, 2), (height - 1, 30), (0, 3), (3, 2), (width - 1, 30), (1, 1), (1, 1)]
    {
        put(value, count);
    }
    let byte = |bits: &[u32]| bits.iter().rev().fold(0, |byte, bit| byte << 1 | *bit as u8);
    [&[0xff, 0x0a], &bits.chunks(8).map(byte).collect::<Vec<u8>>()[..], &[0; 64]].concat()
}

/// An AVIF that announces these sides.
fn avif(width: u32, height: u32) -> Vec<u8> {
    let mut data = file("cases/avif_420_full.avif");
    let at = data.windows(4).position(|bytes| bytes == b"ispe").unwrap() + 8;
    data[at..at + 4].copy_from_slice(&width.to_be_bytes());
    data[at + 4..at + 8].copy_from_slice(&height.to_be_bytes());
    data
}

/// An icon whose only picture is this.
fn icon(picture: &[u8]) -> Vec<u8> {
    let len = u32::try_from(picture.len()).unwrap().to_le_bytes();
    [&[0, 0, 1, 0, 1, 0, 16, 16, 0, 0, 1, 0, 32, 0], &len[..], &[22, 0, 0, 0], picture].concat()
}

#[test]
fn giant_sides_are_refused_by_the_header_alone() {
    let cases = [
        gif((65_535, 65_535), (1, 1)),
        gif((19_000, 19_000), (19_000, 19_000)),
        // The screen is small, the frame on it is not.
        gif((10, 10), (65_535, 65_535)),
        png(50_000, 50_000, 1, 0, &[]),
        png(u32::MAX, u32::MAX, 16, 6, &[]),
        [&b"qoif"[..], &[0xff; 8], &[4, 0]].concat(),
        b"P6 4294967295 4294967295 65535 ".to_vec(),
        b"P1\n50000 50000\n".to_vec(),
        jxl(50_000, 50_000),
        avif(50_000, 50_000),
        icon(&png(50_000, 50_000, 1, 0, &[])),
        // The header of a bitmap counts the rows of the mask, too.
        icon(
            &[&40_u32.to_le_bytes()[..], &[0xff, 0xff, 0, 0, 0xff, 0xff, 1, 0, 1, 0, 32, 0], &[0; 24]]
                .concat(),
        ),
        forged_jpeg("files/baseline_420.jpg", 65_500, 65_500),
        forged_jpeg("files/progressive_420.jpg", 19_000, 19_000),
    ];
    for data in cases {
        let start = thread_time();
        let error = try_decode(&data).unwrap_err();
        assert!(matches!(error, ImageError::TooManyPixels { limit: 50_000_000, .. }), "{error}");
        assert_eq!(info(&data, &ImageLimits::default()), Err(error));
        assert!(thread_time() - start < Duration::from_millis(100));
    }
}

#[test]
fn what_a_decoder_would_allocate_beside_the_pixels_is_limited() {
    // Progressive coefficients: 7000 x 7000 pixels at 4:4:4 take 294 MB beside 147 MB of RGB.
    let mut coefficients = forged_jpeg("files/progressive_444.jpg", 7_000, 7_000);
    coefficients.resize(1 << 20, 0);
    // A small picture in one tile of four billion pixels.
    let mut tile = file("cases/tiff_tiled_lzw.tif");
    for tag in [322_u16, 323] {
        let entry = tile.windows(2).position(|bytes| bytes == tag.to_le_bytes()).unwrap();
        tile[entry + 2..entry + 4].copy_from_slice(&4_u16.to_le_bytes());
        tile[entry + 8..entry + 12].copy_from_slice(&65_536_u32.to_le_bytes());
    }
    for data in [coefficients, tile] {
        let error = try_decode(&data).unwrap_err();
        assert!(matches!(error, ImageError::DecoderMemory { .. }), "{error}");
    }
    for long in [png(2_000_000, 2, 1, 0, &[]), jxl(2_000_000, 2), avif(2_000_000, 2)] {
        assert!(matches!(try_decode(&long), Err(ImageError::SideTooLong { width: 2_000_000, .. })));
    }
}

/// Boxes of the kind that a reader looks into, each in the one before.
#[test]
fn boxes_nested_without_end_cost_nothing() {
    for (brand, kinds) in [
        (b"avif", &[b"meta", b"iprp", b"ipco", b"iinf"][..]),
        (b"avis", &[b"moov", b"trak", b"mdia", b"stbl"]),
        (b"heic", &[b"meta", b"iref", b"iloc", b"meta"]),
    ] {
        const DEPTH: usize = 100_000;
        let mut data = [&[0, 0, 0, 16][..], b"ftyp", brand, &[0; 4]].concat();
        for level in 0..DEPTH {
            data.extend(u32::try_from(8 * (DEPTH - level)).unwrap().to_be_bytes());
            data.extend(kinds[level % kinds.len()]);
        }
        let start = thread_time();
        let error = try_decode(&data).unwrap_err();
        assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
        assert!(thread_time() - start < Duration::from_millis(200));
    }
}

/// The stream's own sides, which memory is taken for, must be those of the file.
#[test]
fn an_avif_smaller_than_its_stream_is_refused() {
    for (width, height) in [(44, 27), (8, 8), (1, 1), (46, 27), (4_000, 4_000)] {
        let error = try_decode(&avif(width, height)).unwrap_err();
        assert!(error.to_string().contains("disagree about its size"), "{error}");
    }
}

#[test]
fn an_animation_of_endless_frames_is_refused() {
    let animation = file("frames/animation.avif");
    let at = |kind: &[u8]| animation.windows(4).position(|bytes| bytes == kind).unwrap();
    for (place, numbers) in [
        // So many frames of one size, or a table that is longer than the file.
        (at(b"stsz") + 8, [1_u32, u32::MAX]),
        (at(b"stsz") + 8, [0, 60_000]),
        (at(b"stsz") + 8, [1 << 20, 60_000]),
        // A chunk holds more frames than there are, from the chunk of the highest number on.
        (at(b"stsc") + 12, [u32::MAX, u32::MAX]),
    ] {
        let mut data = animation.clone();
        for (at, number) in (place..).step_by(4).zip(numbers) {
            data[at..at + 4].copy_from_slice(&number.to_be_bytes());
        }
        let start = Instant::now();
        let _ = try_decode(&data);
        assert!(start.elapsed() < Duration::from_secs(2));
        let header = info(&data, &ImageLimits::default());
        assert!(header.is_err() || header.as_ref().unwrap().frames.unwrap() <= 65_536, "{header:?}");
    }
}

/// A TIFF of one page whose fields are all 32-bit numbers.
fn tiff(fields: &[(u16, u32)]) -> Vec<u8> {
    let mut data = b"II*\0\x08\0\0\0".to_vec();
    data.extend(u16::try_from(fields.len()).unwrap().to_le_bytes());
    for (tag, value) in fields {
        data.extend(tag.to_le_bytes());
        data.extend(4_u16.to_le_bytes());
        data.extend(1_u32.to_le_bytes());
        data.extend(value.to_le_bytes());
    }
    data.extend([0; 64]);
    data
}

/// Products of these sides, samples and bits do not fit into 64 bits: the header's arithmetic must bear it,
/// in whichever order the limits are looked at.
#[test]
fn numbers_at_the_edge_of_their_fields_are_refused() {
    const SIDES: [u32; 5] = [1, 16, 0x7fff_ffff, u32::MAX - 15, u32::MAX];
    for compression in [1, 5, 7, 8, 32_773] {
        for (planar, samples) in [(1, 1), (1, 3), (1, 64), (2, 64)] {
            for (&side, &chunk) in SIDES.iter().flat_map(|side| SIDES.iter().map(move |chunk| (side, chunk)))
            {
                for chunk_tags in [&[322, 323][..], &[278]] {
                    let mut fields = vec![
                        (256, side),
                        (257, side),
                        (258, if compression == 7 { 8 } else { 16 }),
                        (259, compression),
                        (262, if samples == 1 { 1 } else { 2 }),
                        (273, 8),
                        (277, samples),
                        (284, planar),
                        (324, 8),
                    ];
                    fields.extend(chunk_tags.iter().map(|&tag| (tag, chunk)));
                    let data = tiff(&fields);
                    let header = info(&data, &ImageLimits::default());
                    let decoded = try_decode(&data);
                    if side > 16 || (chunk > 1 << 20 && chunk_tags.len() == 2) {
                        let error = decoded.expect_err("too large for any limit");
                        let known = matches!(
                            error,
                            ImageError::TooManyPixels { .. }
                                | ImageError::SideTooLong { .. }
                                | ImageError::DecoderMemory { .. }
                                | ImageError::Unsupported { .. }
                        );
                        assert!(known && header == Err(error.clone()), "{fields:?}: {error:?} {header:?}");
                    }
                }
            }
        }
    }
    // More than any level of JPEG XL has.
    for (width, height) in [(1 << 30, 1 << 30), (1, 1 << 30), (1 << 30, 1)] {
        let error = try_decode(&jxl(width, height)).unwrap_err();
        let known = matches!(
            error,
            ImageError::Corrupt { format: ImageFormat::JpegXl, .. } | ImageError::TooManyPixels { .. }
        );
        assert!(known, "{error}");
    }
    // Sides of bitmaps are signed; the lowest has no opposite.
    for side in [i32::MIN, i32::MIN + 1, i32::MAX] {
        for (other, bits) in [(1, 1_u16), (i32::MAX, 32), (i32::MIN, 8)] {
            let mut data = b"BM".to_vec();
            data.extend([0; 8]);
            data.extend(54_u32.to_le_bytes());
            data.extend(40_u32.to_le_bytes());
            data.extend(other.to_le_bytes());
            data.extend(side.to_le_bytes());
            data.extend(1_u16.to_le_bytes());
            data.extend(bits.to_le_bytes());
            data.resize(200, 0);
            assert!(try_decode(&data).is_err(), "{side} {other} {bits}");
        }
    }
}

#[test]
fn limits_are_inclusive_and_belong_to_the_caller() {
    let data = file("files/rgb.png");
    let limits = ImageLimits { max_pixels: 41 * 29, max_input_bytes: data.len(), ..ImageLimits::default() };
    assert!(decode(&data, &limits, never_interrupted).is_ok());
    let fewer = ImageLimits { max_pixels: 41 * 29 - 1, ..limits };
    let error = decode(&data, &fewer, never_interrupted).unwrap_err();
    assert_eq!(error, ImageError::TooManyPixels { width: 41, height: 29, limit: 41 * 29 - 1 });
    let shorter = ImageLimits { max_input_bytes: data.len() - 1, ..limits };
    let error = decode(&data, &shorter, never_interrupted).unwrap_err();
    assert_eq!(error, ImageError::InputTooLarge { len: data.len(), limit: data.len() - 1 });
    let tight = ImageLimits { max_decoder_bytes: 1_000, ..limits };
    assert!(matches!(decode(&data, &tight, never_interrupted), Err(ImageError::DecoderMemory { .. })));
}

#[test]
fn a_forged_size_within_the_limits_fails_when_the_data_ends() {
    let cases = [
        forged_jpeg("files/baseline_420.jpg", 7_000, 7_000),
        forged_jpeg("files/gray_progressive.jpg", 7_000, 7_000),
        png(7_000, 7_000, 8, 2, &zeros(5_000)),
        jxl(7_000, 7_000),
        icon(
            &[&40_u32.to_le_bytes()[..], &[0x58, 0x1b, 0, 0, 0xb0, 0x36, 0, 0, 1, 0, 32, 0], &[0; 24]]
                .concat(),
        ),
    ];
    for data in cases {
        let start = Instant::now();
        let error = try_decode(&data).unwrap_err();
        assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}

#[test]
fn a_hundred_scans_are_enough() {
    let data = file("files/progressive_420.jpg");
    let last_scan = data.windows(2).rposition(|marker| marker == [0xff, 0xda]).unwrap();
    let end = data.len() - 2;
    let mut many = data[..end].to_vec();
    for _ in 0..200 {
        many.extend(&data[last_scan..end]);
    }
    many.extend(&data[end..]);
    match try_decode(&many) {
        Err(ImageError::Corrupt { format: ImageFormat::Jpeg, reason }) => {
            assert!(reason.contains("scans"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}

// --- what is damaged --------------------------------------------------------------------------

#[test]
fn half_an_image_is_an_error_in_every_format() {
    for (name, data) in seeds() {
        // Half an animation may well hold the whole first frame.
        if info(&data, &ImageLimits::default()).unwrap().frames == Some(1) {
            let error = try_decode(&data[..data.len() / 2]).expect_err(&name);
            assert!(matches!(error, ImageError::Corrupt { .. }), "{name}: {error}");
        }
    }
}

/// Cut anywhere, an image is an error or what it was: some formats end with bytes that say
/// nothing about pixels.
#[test]
fn a_cut_image_is_an_error_or_the_same_picture() {
    for (name, data) in seeds() {
        let whole = match try_decode(&data) {
            // HEIC, where there is no libheif.
            Err(ImageError::NoDecoder { .. }) => continue,
            whole => whole.unwrap_or_else(|error| panic!("{name}: {error}")),
        };
        // Metadata after the pixels may be lost, and the orientation with it.
        let upright = info(&data, &ImageLimits::default()).unwrap().orientation == 1;
        let step = (data.len() / 150).max(1);
        for len in (0..data.len()).step_by(step).chain(data.len() - 20.min(data.len())..data.len()) {
            if let Ok(image) = try_decode(&data[..len])
                && upright
            {
                // A JPEG may lack the last bits of its last block, as Pillow tolerates as well. Its colors reach a pixel
                // into the blocks beside it.
                let (image, whole) = (image.upright_pixels().unwrap(), whole.upright_pixels().unwrap());
                let differing = image.iter().zip(whole.iter()).filter(|(a, b)| a != b).count();
                assert!(differing <= 3 * 18 * 18, "{name} cut to {len} of {}: {differing}", data.len());
            }
        }
    }
}

#[test]
fn two_hundred_bent_bytes_make_a_jpeg_an_error() {
    let mut data = file("files/baseline_420.jpg");
    let scan = data.windows(2).position(|marker| marker == [0xff, 0xda]).unwrap() + 20;
    let end = (scan + 200).min(data.len() - 2);
    for (i, byte) in data[scan..end].iter_mut().enumerate() {
        *byte = (i * 89 + 7) as u8;
    }
    assert!(matches!(try_decode(&data), Err(ImageError::Corrupt { format: ImageFormat::Jpeg, .. })));
}

/// The png crate (0.18.1) panicked on the two bytes left over.
#[test]
fn a_palette_of_broken_triples_is_an_error() {
    let data = file("files/palette.png");
    let start = data.windows(4).position(|tag| tag == b"PLTE").unwrap();
    for len in [0_usize, 1, 38, 771] {
        let mut broken = data[..start - 4].to_vec();
        png_chunk(&mut broken, b"PLTE", &vec![9; len]);
        broken.extend(&data[start + 4 + 3 * 13 + 4..]);
        match try_decode(&broken) {
            Err(ImageError::Corrupt { reason, .. }) => assert!(reason.contains("palette"), "{reason}"),
            other => panic!("{len}: {other:?}"),
        }
    }
}

// --- what takes long --------------------------------------------------------------------------

#[test]
fn an_interrupt_stops_every_decoder() {
    for (name, data) in seeds() {
        let result = decode(&data, &ImageLimits::default(), || true);
        assert_eq!(result, Err(ImageError::Interrupted), "{name}");
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

/// The largest pictures that the limits allow, interrupted in the middle.
#[test]
fn slow_images_stop_soon_after_the_interrupt() {
    let large_png = {
        let mut data = Vec::new();
        let mut encoder = png::Encoder::new(&mut data, 7_000, 7_000);
        encoder.set_color(png::ColorType::Rgb);
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&vec![99; 3 * 7_000 * 7_000]).unwrap();
        writer.finish().unwrap();
        data
    };
    let many_scans = {
        // Gray, so that its coefficients fit into the limit. The first scan has a bit for every
        // block's DC coefficient, as it must. Every scan of AC coefficients is a
        // handful of bytes that stand for all blocks ("end of band" runs of 32,767).
        let data = forged_jpeg("files/gray_progressive.jpg", 7_000, 7_000);
        let first_scan = data.windows(2).position(|marker| marker == [0xff, 0xda]).unwrap();
        let mut many = data[..first_scan].to_vec();
        // One DC table whose only code, one bit long, is a difference of zero.
        many.extend([0xff, 0xc4, 0, 20, 0x00, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        many.extend([0xff, 0xda, 0, 8, 1, 1, 0, 0, 0, 0]);
        many.extend(vec![0; 875 * 875 / 8 + 1]);
        // One AC table whose only code, one bit long, is the run of category 14.
        many.extend([0xff, 0xc4, 0, 20, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0]);
        for _ in 0..90 {
            many.extend([0xff, 0xda, 0, 8, 1, 1, 0, 1, 5, 0]);
            // 766,000 blocks in runs of 2^14: code 0 and fourteen zero bits each.
            many.extend([0; 110]);
        }
        many.extend([0xff, 0xd9]);
        many
    };
    let [lossy, lossless, avif] = ["large/lossy.jxl", "large/lossless.jxl", "large/picture.avif"].map(file);
    let pictures = [
        ("png", large_png),
        ("progressive jpeg", many_scans),
        ("lossy jpeg xl", lossy),
        ("lossless jpeg xl", lossless),
        ("avif", avif),
    ];
    for (name, data) in pictures {
        let whole = Instant::now();
        STOP.store(false, Ordering::Relaxed);
        let stopper = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(60));
            STOP.store(true, Ordering::Relaxed);
            Instant::now()
        });
        let result = decode(&data, &ImageLimits::default(), || STOP.load(Ordering::Relaxed));
        let end = Instant::now();
        let asked = stopper.join().unwrap();
        let late = end.saturating_duration_since(asked);
        assert_eq!(result, Err(ImageError::Interrupted), "{name} after {:?}", whole.elapsed());
        // Half a second on a quiet core; tests share theirs.
        assert!(late < Duration::from_secs(2), "{name}: {late:?}");
    }
}

// --- mutations --------------------------------------------------------------------------------

/// Small limits make mutations fast: most of them are about sizes.
const FUZZ_LIMITS: ImageLimits = ImageLimits {
    max_pixels: 1 << 20,
    max_input_bytes: 1 << 20,
    max_decoder_bytes: 32 << 20,
    libheif: ImageLimits::system_libheif,
};

/// Decodes whatever it is. What comes out must agree with the header.
fn check(data: &[u8]) {
    // A later frame may be there or not.
    if let Err(ImageError::Corrupt { format, reason }) =
        decode_frame(data, 3, &FUZZ_LIMITS, never_interrupted)
    {
        assert!(!reason.contains("decoder failed"), "{format}, frame 3: {reason}");
    }
    let header = info(data, &FUZZ_LIMITS);
    match decode(data, &FUZZ_LIMITS, never_interrupted) {
        Ok(image) => {
            let header = header.expect("the header of a picture that was decoded");
            let mut sides = (header.width, header.height);
            if header.orientation >= 5 {
                sides = (sides.1, sides.0);
            }
            assert_eq!((image.width(), image.height()), sides);
            assert_eq!(image.upright_pixels().unwrap().len(), 3 * sides.0 as usize * sides.1 as usize);
        }
        // Decoders must not hide their bugs in the catch.
        Err(ImageError::Corrupt { format, reason }) => {
            assert!(!reason.contains("decoder failed"), "{format}: {reason}");
        }
        Err(_) => {}
    }
}

/// Recomputes the checksums of PNG chunks, without which no mutation gets past the first of them.
fn repair_png(data: &mut [u8]) {
    let mut at = 8;
    while let Some(len) = data.get(at..at + 4) {
        let len = u32::from_be_bytes(len.try_into().unwrap()) as usize;
        let end = at.saturating_add(8).saturating_add(len);
        if data.get(end..end.saturating_add(4)).is_none() {
            return;
        }
        let checksum = crc32fast::hash(&data[at + 4..end]);
        data[end..end + 4].copy_from_slice(&checksum.to_be_bytes());
        at = end + 4;
    }
}

/// One change: position, value and kind are taken modulo what there is.
fn mutate(data: &mut Vec<u8>, position: usize, value: u8, kind: u8, other: &[u8]) {
    if data.is_empty() {
        return;
    }
    // Headers are where the decisions are.
    let range = if kind & 1 == 0 { data.len() } else { data.len().min(64) };
    let at = position % range;
    match kind >> 1 & 7 {
        0 => data[at] ^= 1 << (value & 7),
        1 => data[at] = value,
        2 => data[at] = [0, 1, 127, 128, 255][usize::from(value) % 5],
        3 => data.truncate(at),
        4 => drop(data.drain(at..(at + usize::from(value)).min(data.len()))),
        5 => {
            let piece = data[at..(at + usize::from(value)).min(data.len())].to_vec();
            data.splice(at..at, piece);
        }
        6 => {
            let from = position / 7 % other.len();
            let piece = other[from..(from + usize::from(value)).min(other.len())].to_vec();
            data.splice(at..at, piece);
        }
        _ => {
            for byte in data[at..].iter_mut().take(4) {
                *byte = value;
            }
        }
    }
}

fn bent(seeds: &[(String, Vec<u8>)], pick: usize, changes: &[(usize, u8, u8)], repair: bool) -> Vec<u8> {
    let mut data = seeds[pick % seeds.len()].1.clone();
    for &(position, value, kind) in changes {
        mutate(&mut data, position, value, kind, &seeds[position % seeds.len()].1);
    }
    if repair && data.starts_with(b"\x89PNG") {
        repair_png(&mut data);
    }
    data
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bent_images_never_panic(
        pick: usize,
        changes in prop::collection::vec((any::<usize>(), any::<u8>(), any::<u8>()), 1..8),
        repair: bool,
    ) {
        thread_local!(static SEEDS: Vec<(String, Vec<u8>)> = seeds());
        SEEDS.with(|seeds| check(&bent(seeds, pick, &changes, repair)));
    }

    #[test]
    fn noise_behind_a_magic_number_never_panics(
        magic in prop::sample::select(vec![
            &b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0",
            b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf\0\0\xff\xffmeta\0\0\0\0", b"\0\0\0\x14ftypavis\0\0\0\0avis\0\0\xff\xffmoov",
            b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl \0\0\0\0jxlc\xff\x0a",
            b"\0\0\x01\0\x01\0\x10\x10\0\0\x01\0\x20\0\xff\0\0\0\x16\0\0\0\x28\0\0\0",
            b"RIFF\xff\0\0\0WEBPVP8L", b"II*\0\x08\0\0\0", b"MM\0+\0\x08\0\0", b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
        ]),
        noise in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        check(&[magic, &noise].concat());
    }
}

#[test]
fn fuzz_for_as_long_as_asked() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seconds = number("IMGVEC_FUZZ_SECONDS").unwrap_or(1);
    let mut state = number("IMGVEC_FUZZ_SEED").unwrap_or(0x9e37_79b9_7f4a_7c15);
    println!("seed {state}");
    // SplitMix64.
    let mut random = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let seeds = seeds();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut count = 0_u64;
    while Instant::now() < end {
        let changes: Vec<_> =
            (0..=random() % 6).map(|_| (random() as usize, random() as u8, random() as u8)).collect();
        let data = bent(&seeds, random() as usize, &changes, random() & 1 == 0);
        let start = Instant::now();
        let outcome = std::panic::catch_unwind(|| check(&data));
        if outcome.is_err() || start.elapsed() > Duration::from_secs(5) {
            let path = std::env::temp_dir().join(format!("imgvec-image-{count}.bin"));
            std::fs::write(&path, &data).unwrap();
            panic!("{} after {:?}", path.display(), start.elapsed());
        }
        count += 1;
    }
    println!("{count} inputs");
    assert!(count > 0);
}
