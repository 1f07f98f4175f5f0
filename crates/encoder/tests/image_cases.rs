//! Files of unusual make that decoders get wrong in silence or refuse: each stands for a kind.
//!
//! tests/data/images/cases has each as written by cjpeg, jpegtran, tiffcp, cwebp or Pillow, some with a
//! few bytes changed, and beside it `NAME.expected.png`, the same picture as Pillow decodes it.

use std::path::{Path, PathBuf};

use imgvec_encoder::image::{ImageError, ImageLimits, RgbImage, decode, decode_frame, info};
use imgvec_encoder::interrupt::never_interrupted;

fn picture(path: &Path) -> RgbImage {
    let data = std::fs::read(path).unwrap();
    decode(&data, &ImageLimits::default(), never_interrupted)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn unusual_files_decode_as_in_pillow() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/images/cases");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let expected_of = |file: &Path| file.with_extension("expected.png");
    let files: Vec<PathBuf> = files.into_iter().filter(|file| expected_of(file).exists()).collect();
    assert!(!files.is_empty());
    let mut differ = Vec::new();
    for file in files {
        let (image, expected) = (picture(&file), picture(&expected_of(&file)));
        let sides = |image: &RgbImage| (image.width(), image.height());
        assert_eq!(sides(&image), sides(&expected), "{}", file.display());
        let (pixels, expected) = (image.upright_pixels().unwrap(), expected.upright_pixels().unwrap());
        let differences = pixels.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b));
        // JPEG: inverse DCT and chroma upsampling differ, as between any two decoders.
        let tolerance = match file.extension().and_then(|extension| extension.to_str()).unwrap() {
            "jpg" => 6,
            "webp" | "tif" => 1,
            // Lossy JPEG XL is computed in floats. What is lossless has no tolerance.
            "jxl" if file.to_str().is_some_and(|name| !name.contains("lossless")) => 2,
            // Beside alpha, libyuv draws out chroma before it drops bits.
            "avif" if file.to_str().is_some_and(|name| name.contains("bits_alpha")) => 3,
            "avif" if file.to_str().is_some_and(|name| name.contains("premultiplied")) => 2,
            // What is not converted by libyuv, and colors that alpha was multiplied into, are rounded another way.
            "avif" => 1,
            _ => 0,
        };
        let greatest = differences.max().unwrap();
        if greatest > tolerance {
            differ.push(format!("{}: {greatest} levels", file.file_name().unwrap().display()));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}

/// tests/data/images/frames has animations and pages, and `NAME.N.expected.png` for frames from the second on.
#[test]
fn each_frame_is_as_pillow_shows_it() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/images/frames");
    let limits = ImageLimits::default();
    for (name, frames) in [
        ("disposals.gif", 5),
        ("disposals.png", 5),
        ("lossless.webp", 5),
        ("lossless.jxl", 5),
        ("animation.avif", 5),
        ("animation_alpha.avif", 5),
        ("pages.tif", 3),
    ] {
        let data = std::fs::read(folder.join(name)).unwrap();
        assert_eq!(info(&data, &limits).unwrap().frames, Some(frames), "{name}");
        let of = |frame| decode_frame(&data, frame, &limits, never_interrupted);
        assert_eq!(of(1).unwrap(), picture(&folder.join(name)), "{name}");
        for frame in 2..=frames {
            let found = of(frame).unwrap_or_else(|error| panic!("{name}, frame {frame}: {error}"));
            let expected = picture(&folder.join(format!("{name}.{frame}.expected.png")));
            assert_eq!(
                (found.width(), found.height()),
                (expected.width(), expected.height()),
                "{name} {frame}"
            );
            let (found, expected) = (found.upright_pixels().unwrap(), expected.upright_pixels().unwrap());
            let worst = found.iter().zip(expected.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert_eq!(worst, 0, "{name}, frame {frame}");
        }
        for frame in [0, frames + 1, u32::MAX] {
            assert_eq!(
                of(frame),
                Err(ImageError::NoFrame { frame: frame.into(), frames: Some(frames) }),
                "{name}"
            );
        }
        assert_eq!(decode_frame(&data, frames, &limits, || true), Err(ImageError::Interrupted), "{name}");
        // Half of it has fewer frames, or ends in one; cut anywhere, it is an error or a picture.
        for len in (0..data.len()).step_by(37) {
            if let Err(error) = decode_frame(&data[..len], frames, &limits, never_interrupted) {
                assert!(!error.to_string().contains("decoder failed"), "{name} cut to {len}: {error}");
            }
        }
    }
    // Formats of one picture.
    let still = std::fs::read(folder.join("../cases/qoi_rgb.qoi")).unwrap();
    let error = decode_frame(&still, 2, &limits, never_interrupted).unwrap_err();
    assert_eq!(error.to_string(), "the image has no frame 2, only one");
}
