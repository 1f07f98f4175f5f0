//! Decoding, preprocessing and both, for pictures drawn here.
//!
//!     cargo bench -p imgvec-encoder --bench image
//!
//! Pictures are gradients with noise, encoded as PNG by the `image` crate and as JPEG (4:2:0,
//! quality 90) by its encoder, at 640 x 480 and 12 megapixels. For CPU time next to Pillow see
//! image_side_by_side.py.

use std::hint::black_box;
use std::io::Cursor;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use image::codecs::jpeg::JpegEncoder;
use imgvec_encoder::image::{Filter, ImageLimits, Preprocessing, RgbImage, Window, decode, resize};
use imgvec_encoder::interrupt::never_interrupted;

fn picture(width: u32, height: u32) -> RgbImage {
    let mut state = 7_u32;
    let mut pixels = Vec::with_capacity(3 * width as usize * height as usize);
    for y in 0..height {
        for x in 0..width {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 27) as u8;
            let smooth = [x * 200 / width, y * 200 / height, (x + y) * 200 / (width + height)];
            pixels.extend(smooth.map(|value| value as u8 + noise));
        }
    }
    RgbImage::new(width, height, pixels).expect("as many pixels as sides say")
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90)
        .encode(
            &image.upright_pixels().expect("nothing to turn"),
            image.width(),
            image.height(),
            image::ExtendedColorType::Rgb8,
        )
        .expect("a valid picture");
    bytes
}

fn png(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let format = image::ImageFormat::Png;
    let (width, height) = (image.width(), image.height());
    image::write_buffer_with_format(
        &mut bytes,
        &image.upright_pixels().expect("nothing to turn"),
        width,
        height,
        image::ExtendedColorType::Rgb8,
        format,
    )
    .expect("a valid picture");
    bytes.into_inner()
}

fn benches(criterion: &mut Criterion) {
    let limits = ImageLimits::default();
    let settings = serde_json::json!({ "image_processor_type": "CLIPImageProcessor" });
    let clip = Preprocessing::from_hf(&settings).expect("CLIP's own defaults");
    let mut tensor = vec![0.0; clip.output_len()];
    for (width, height) in [(640, 480), (4000, 3000)] {
        let image = picture(width, height);
        let mut group = criterion.benchmark_group(format!("{width}x{height}"));
        group.sample_size(10).throughput(Throughput::Elements(u64::from(width) * u64::from(height)));
        let (jpeg, png) = (jpeg(&image), png(&image));
        for (name, data) in [("decode jpeg", &jpeg), ("decode png", &png)] {
            group.bench_function(name, |bencher| {
                bencher.iter(|| decode(black_box(data), &limits, never_interrupted));
            });
        }
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            let whole = Window { left: 0, top: 0, width: 224, height: 224 };
            group.bench_function(format!("resize {filter:?}"), |bencher| {
                bencher.iter(|| resize(black_box(&image), 224, 224, whole, filter));
            });
        }
        group.bench_function("jpeg to CLIP tensor", |bencher| {
            bencher.iter(|| {
                let image = decode(black_box(&jpeg), &limits, never_interrupted).expect("a picture");
                clip.apply(&image, &mut tensor).expect("the right length");
            });
        });
    }
}

criterion_group!(image, benches);
criterion_main!(image);
