//! Files of unusual make that decoders get wrong in silence or refuse: each stands for a kind.
//!
//! tests/data/images/cases has each as written by cjpeg, jpegtran, tiffcp, cwebp or Pillow, some with a
//! few bytes changed, and beside it `NAME.expected.png`, the same picture as Pillow decodes it.

use std::path::{Path, PathBuf};

use imgvec_encoder::image::{ImageLimits, RgbImage, decode};
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
            _ => 0,
        };
        assert!(differences.max().unwrap() <= tolerance, "{}", file.display());
    }
}
