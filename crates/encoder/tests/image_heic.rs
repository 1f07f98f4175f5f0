//! HEIC through libheif: as pillow-heif decodes it, and what is said where there is no libheif.
//!
//! IMGVEC_LIBHEIF names the library, and else the system's is taken. Where there is none, the tests that need it say that they are skipped;
//! with IMGVEC_REQUIRE_PICTURES set they fail.

use std::path::{Path, PathBuf};
use std::time::Instant;

use imgvec_encoder::image::{ImageError, ImageFormat, ImageLimits, RgbImage, decode, decode_frame, info};
use imgvec_encoder::interrupt::never_interrupted;

fn library() -> Option<PathBuf> {
    std::env::var_os("IMGVEC_LIBHEIF").map(PathBuf::from).or_else(ImageLimits::system_libheif)
}

fn limits() -> ImageLimits {
    ImageLimits { libheif: library, ..ImageLimits::default() }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/images/heic")
}

fn picture(path: &Path) -> Result<RgbImage, ImageError> {
    decode(&std::fs::read(path).unwrap(), &limits(), never_interrupted)
}

/// Whether libheif is there and can decode. Loading is looked at once: a process keeps its library.
fn has_libheif() -> bool {
    match picture(&folder().join("420.heic")) {
        Err(ImageError::NoDecoder { reason, .. }) => {
            assert!(std::env::var_os("IMGVEC_REQUIRE_PICTURES").is_none(), "{reason}");
            eprintln!("skipped: {reason}");
            false
        }
        _ => true,
    }
}

fn files() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "heic"));
    files.sort();
    assert!(files.len() > 10);
    files
}

#[test]
fn pictures_are_as_pillow_heif_shows_them() {
    if !has_libheif() {
        return;
    }
    let mut differ = Vec::new();
    for file in files() {
        let name = file.file_name().unwrap().display().to_string();
        let image = picture(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = picture(&file.with_extension("expected.png")).unwrap();
        assert_eq!((image.width(), image.height()), (expected.width(), expected.height()), "{name}");
        let (pixels, expected) = (image.upright_pixels().unwrap(), expected.upright_pixels().unwrap());
        let greatest = pixels.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // Versions of libheif and of libde265 round chroma another way; samples of 10 bits lose their lower ones.
        if greatest > 2 {
            differ.push(format!("{name}: {greatest} levels"));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}

/// Headers are read without libheif.
#[test]
fn headers_are_ours() {
    for (name, sides, channels, bits) in [
        ("420.heic", (45, 27), 3, 8),
        ("gray.heic", (45, 27), 1, 8),
        ("alpha.heic", (64, 48), 4, 8),
        ("10_bits.heic", (45, 27), 3, 10),
        ("grid.heic", (150, 100), 3, 8),
        ("orientation_6.heic", (28, 46), 3, 8),
    ] {
        let found = info(&std::fs::read(folder().join(name)).unwrap(), &limits()).unwrap();
        assert_eq!(found.format, ImageFormat::Heic);
        assert_eq!(
            ((found.width, found.height), found.orientation, found.frames),
            (sides, 1, Some(1)),
            "{name}"
        );
        assert_eq!((found.channels, found.bits_per_channel), (channels, bits), "{name}");
    }
    let data = std::fs::read(folder().join("420.heic")).unwrap();
    let error = decode_frame(&data, 2, &limits(), never_interrupted).unwrap_err();
    assert!(matches!(error, ImageError::NoFrame { frame: 2, frames: Some(1) }), "{error}");
}

#[test]
fn without_libheif_the_error_says_so() {
    let data = std::fs::read(folder().join("420.heic")).unwrap();
    let off = ImageLimits { libheif: || None, ..ImageLimits::default() };
    let error = decode(&data, &off, never_interrupted).unwrap_err();
    assert_eq!(error.to_string(), "HEIC data is not supported here: libheif is switched off");
}

/// What libheif would take memory for is compared with the file before it is asked.
#[test]
fn streams_that_disagree_with_their_file_are_refused() {
    let data = std::fs::read(folder().join("420.heic")).unwrap();
    let at = |kind: &[u8]| data.windows(4).position(|bytes| bytes == kind).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut data = data.clone();
        data[at..at + bytes.len()].copy_from_slice(bytes);
        data
    };
    let giant = with(at(b"ispe") + 8, &[50_000_u32.to_be_bytes(), 50_000_u32.to_be_bytes()].concat());
    let error = decode(&giant, &limits(), never_interrupted).unwrap_err();
    assert!(matches!(error, ImageError::DecoderMemory { .. } | ImageError::TooManyPixels { .. }), "{error}");
    // Larger than a block beyond what the file says.
    let small = std::fs::read(folder().join("grid.heic")).unwrap();
    let sides = small.windows(12).position(|bytes| &bytes[4..8] == b"ispe").unwrap();
    let mut cut = small.clone();
    cut.truncate(sides + 8);
    assert!(decode(&cut, &limits(), never_interrupted).is_err());
    // A stream of two pictures: the only one, twice.
    for len in (0..data.len()).step_by(7) {
        assert!(decode(&data[..len], &limits(), never_interrupted).is_err(), "{len}");
    }
}

/// Stopped at once, and usable afterwards.
#[test]
fn decoding_can_be_left_behind() {
    if !has_libheif() {
        return;
    }
    let data = std::fs::read(folder().join("grid.heic")).unwrap();
    let start = Instant::now();
    assert_eq!(decode(&data, &limits(), || true), Err(ImageError::Interrupted));
    assert!(start.elapsed().as_secs() < 2);
    decode(&data, &limits(), never_interrupted).unwrap();
}
