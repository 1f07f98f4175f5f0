//! Images against Pillow, transformers, timm and open_clip: decoding, resizing, whole tensors.
//!
//! Expected values are made by tests/golden/images.py. Lossless formats and everything after
//! the decoder must be equal to the bit; JPEG and lossy WebP within the levels stated per file.

use std::path::PathBuf;

use imgvec_encoder::image::{Filter, ImageFormat, ImageLimits, Preprocessing, RgbImage, Window};
use imgvec_encoder::image::{decode, info, resize};
use imgvec_encoder::interrupt::never_interrupted;
use serde_json::Value;

fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/images").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn cases(name: &str) -> Vec<Value> {
    serde_json::from_slice(&data(name)).unwrap()
}

fn number(value: &Value) -> usize {
    usize::try_from(value.as_u64().unwrap()).unwrap()
}

fn pair(value: &Value) -> (u32, u32) {
    let side = |i: usize| u32::try_from(number(&value[i])).unwrap();
    (side(0), side(1))
}

/// The picture of `pattern` in images.py.
fn pattern(width: u32, height: u32) -> RgbImage {
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            for c in 0..3 {
                let smooth = (x * (3 + c)) / 2 + y * (5 - c);
                let rough = (x * x * 7 + y * y * 13 + x * y * (11 + c)) >> 3;
                let edges = if (x / 5 + y / 3) % 4 == 0 { 90 } else { 0 };
                pixels.push((smooth + (rough & 63) + edges) as u8);
            }
        }
    }
    RgbImage::new(width, height, pixels).unwrap()
}

#[test]
fn every_format_mode_and_orientation_decodes_as_in_pillow() {
    let decoded = data("decoded.bin");
    let cases = cases("decode.json");
    assert!(cases.len() > 80);
    for case in cases {
        let name = case["file"].as_str().unwrap();
        let bytes = data(&format!("files/{name}"));
        let image = decode(&bytes, &ImageLimits::default(), never_interrupted)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((image.width(), image.height()), pair(&case["upright"]), "{name}");
        let pixels = image.upright_pixels().unwrap();
        let expected = &decoded[number(&case["offset"])..][..pixels.len()];
        let differences = || pixels.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
        let worst = differences().max().unwrap();
        assert!(usize::from(worst) <= number(&case["tolerance"]), "{name}: off by {worst} levels");
        // A wrong chroma phase or range hides within a tolerance for single pixels, but shifts
        // the mean.
        let mean = differences().map(f64::from).sum::<f64>() / expected.len() as f64;
        assert!(mean <= 0.8, "{name}: off by {mean} levels in the mean");
    }
}

#[test]
fn headers_tell_what_pillow_tells() {
    for case in cases("decode.json") {
        let name = case["file"].as_str().unwrap();
        let info = info(&data(&format!("files/{name}")), &ImageLimits::default()).unwrap();
        let format = match case["format"].as_str().unwrap() {
            "JPEG" | "MPO" => ImageFormat::Jpeg,
            "PNG" => ImageFormat::Png,
            "GIF" => ImageFormat::Gif,
            "WEBP" => ImageFormat::WebP,
            "BMP" => ImageFormat::Bmp,
            "TIFF" => ImageFormat::Tiff,
            other => panic!("{other}"),
        };
        assert_eq!(info.format, format, "{name}");
        assert_eq!((info.width, info.height), pair(&case["stored"]), "{name}");
        assert_eq!(info.frames.map(|n| n as usize), Some(number(&case["frames"])), "{name}");
        assert_eq!(usize::from(info.orientation), number(&case["orientation"]), "{name}");
    }
}

#[test]
fn headers_tell_channels_and_bits() {
    let expected = [
        ("baseline_420.jpg", 3, 8),
        ("gray.jpg", 1, 8),
        ("cmyk.jpg", 4, 8),
        ("rgb_16_bits.png", 3, 16),
        ("gray_4_bits.png", 1, 4),
        ("palette.png", 3, 8),
        ("palette_transparent.png", 4, 8),
        ("gray_alpha.png", 2, 8),
        ("lossy_alpha.webp", 4, 8),
        ("lossless.webp", 3, 8),
        ("one_bit.tif", 1, 1),
        ("cmyk.tif", 4, 8),
        ("still.gif", 3, 8),
    ];
    for (name, channels, bits) in expected {
        let info = info(&data(&format!("files/{name}")), &ImageLimits::default()).unwrap();
        assert_eq!((info.channels, info.bits_per_channel), (channels, bits), "{name}");
    }
}

#[test]
fn resizing_equals_pillow_to_the_bit() {
    let cases = cases("resize.json");
    assert!(cases.len() > 90);
    for case in cases {
        let ((from_width, from_height), (width, height)) = (pair(&case["from"]), pair(&case["to"]));
        let filter = Filter::from_name(case["filter"].as_str().unwrap()).unwrap();
        let image = pattern(from_width, from_height);
        let whole = Window { left: 0, top: 0, width, height };
        let resized = resize(&image, width, height, whole, filter).unwrap();
        let pixels = resized.upright_pixels().unwrap();
        let middle = 3 * (width as usize * (height as usize / 2) + width as usize / 2);
        let middle: Vec<usize> = pixels[middle..middle + 3].iter().map(|&v| usize::from(v)).collect();
        let expected: Vec<usize> = case["middle"].as_array().unwrap().iter().map(number).collect();
        assert_eq!(middle, expected, "{case}");
        assert_eq!(crc32fast::hash(&pixels) as usize, number(&case["crc32"]), "{case}");
    }
}

#[test]
fn a_window_is_a_cut_out_of_the_whole() {
    let image = pattern(101, 67);
    for filter in [Filter::Nearest, Filter::Bicubic, Filter::Lanczos] {
        for (width, height) in [(40, 30), (101, 20), (211, 167), (30, 67)] {
            let whole =
                resize(&image, width, height, Window { left: 0, top: 0, width, height }, filter).unwrap();
            let window = Window { left: 7, top: 5, width: 17, height: 11 };
            let part = resize(&image, width, height, window, filter).unwrap();
            let (whole, part) = (whole.upright_pixels().unwrap(), part.upright_pixels().unwrap());
            for y in 0..11 {
                let cut = &whole[3 * ((y + 5) * width as usize + 7)..][..3 * 17];
                assert_eq!(&part[3 * 17 * y..][..3 * 17], cut, "{filter:?} {width} x {height} row {y}");
            }
        }
    }
}

/// Orientation is applied while resizing, and must give what turning the pixels first gives.
#[test]
fn resizing_a_turned_picture_equals_turning_it_first() {
    for orientation in 1..=8 {
        let bytes = data(&format!("files/exif_{orientation}.png"));
        let image = decode(&bytes, &ImageLimits::default(), never_interrupted).unwrap();
        let pixels = image.upright_pixels().unwrap().into_owned();
        let upright = RgbImage::new(image.width(), image.height(), pixels).unwrap();
        let filters = [Filter::Nearest, Filter::Box, Filter::Bilinear, Filter::Bicubic, Filter::Lanczos];
        for filter in filters {
            for (width, height) in
                [(9, 7), (26, 5), (17, 5), (5, 26), (40, 3), (61, 44), (image.width(), image.height())]
            {
                let window = Window { left: 1, top: 1, width: width - 2, height: height - 2 };
                let turned = resize(&image, width, height, window, filter).unwrap();
                let expected = resize(&upright, width, height, window, filter).unwrap();
                assert_eq!(turned, expected, "orientation {orientation}, {filter:?} to {width} x {height}");
            }
        }
    }
}

#[test]
fn tensors_equal_those_of_transformers_timm_and_open_clip() {
    let cases = cases("preprocess.json");
    assert!(cases.len() > 200);
    for case in cases {
        let settings = &case["settings"];
        let read = match case["kind"].as_str().unwrap() {
            "hf" => Preprocessing::from_hf(settings),
            "timm" => Preprocessing::from_timm(settings),
            "open_clip" => Preprocessing::from_open_clip(settings),
            other => panic!("{other}"),
        };
        let preprocessing = read.unwrap_or_else(|error| panic!("{settings}: {error}"));
        let (height, width) = preprocessing.output_size();
        let shape: Vec<usize> = case["shape"].as_array().unwrap().iter().map(number).collect();
        assert_eq!(shape, [3, height as usize, width as usize], "{case}");
        let mut tensor = vec![f32::NAN; preprocessing.output_len()];
        let (from_width, from_height) = pair(&case["image"]);
        preprocessing.apply(&pattern(from_width, from_height), &mut tensor).unwrap();

        let step = (tensor.len() / 7).max(1);
        let expected = case["samples"].as_array().unwrap();
        for (found, expected) in tensor.iter().step_by(step).zip(expected) {
            // One level is at least 0.004 under every normalization used here.
            let expected = expected.as_f64().unwrap();
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} is not {expected}: {case}");
        }
        let bytes: Vec<u8> = tensor.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(crc32fast::hash(&bytes) as usize, number(&case["crc32"]), "{case}");
    }
}
