//! What images may hold in memory. One test, alone in its process, because it watches the
//! process's high-water mark.

use std::io::Write;
use std::path::PathBuf;

use imgvec_encoder::image::{ImageError, ImageLimits, decode};
use imgvec_encoder::interrupt::never_interrupted;

/// A field of /proc/self/status, in MiB.
fn status_mib(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn png_chunk(data: &mut Vec<u8>, tag: &[u8; 4], body: &[u8]) {
    data.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    let checksum = crc32fast::hash(&[&tag[..], body].concat());
    data.extend([&tag[..], body, &checksum.to_be_bytes()].concat());
}

/// A gray PNG of zeros, a thousandth of its pixels long, made without ever holding them.
fn black_png(width: u32, height: u32) -> Vec<u8> {
    let mut data = Vec::new();
    let mut encoder = png::Encoder::new(&mut data, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let mut writer = encoder.write_header().unwrap();
    let mut stream = writer.stream_writer().unwrap();
    let row = vec![0; width as usize];
    for _ in 0..height {
        stream.write_all(&row).unwrap();
    }
    stream.finish().unwrap();
    writer.finish().unwrap();
    data
}

/// The zlib stream of a PNG: the bodies of its IDAT chunks.
fn pixels_of(png: &[u8]) -> Vec<u8> {
    let mut pixels = Vec::new();
    let mut at = 8;
    while at < png.len() {
        let len = u32::from_be_bytes(png[at..at + 4].try_into().unwrap()) as usize;
        if &png[at + 4..at + 8] == b"IDAT" {
            pixels.extend(&png[at + 8..at + 8 + len]);
        }
        at += 12 + len;
    }
    pixels
}

#[test]
fn memory_stays_within_the_limits_and_comes_back() {
    let limits = ImageLimits::default();

    // 200 MiB of zeros as the color profile, and as a text, of a picture of one pixel.
    let bomb = pixels_of(&black_png(20_000, 10_000));
    let pixel = black_png(1, 1);
    let mut data = pixel[..33].to_vec();
    png_chunk(&mut data, b"iCCP", &[b"profile\0\0", &bomb[..]].concat());
    png_chunk(&mut data, b"zTXt", &[b"Comment\0\0", &bomb[..]].concat());
    data.extend(&pixel[33..]);
    let before = status_mib("VmHWM");
    let image = decode(&data, &limits, never_interrupted).unwrap();
    assert_eq!(*image.upright_pixels().unwrap(), [0, 0, 0]);
    let grown = status_mib("VmHWM") - before;
    assert!(grown < 10.0, "the bomb took {grown} MiB");

    // Refused by the header: nothing is allocated for 361 million pixels.
    let gif =
        b"GIF89a\x38\x4a\x38\x4a\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x38\x4a\x38\x4a\0\x02\x02\x4c\x01\0;";
    assert!(matches!(decode(gif, &limits, never_interrupted), Err(ImageError::TooManyPixels { .. })));
    let grown = status_mib("VmHWM") - before;
    assert!(grown < 10.0, "a refused picture took {grown} MiB");

    // As large as it may be: gray samples and the RGB made of them, 4 bytes per pixel.
    let large = black_png(7_000, 7_000);
    let before = status_mib("VmHWM");
    let image = decode(&large, &limits, never_interrupted).unwrap();
    let grown = status_mib("VmHWM") - before;
    assert!(grown < 256.0, "{grown} MiB for {} x {}", image.width(), image.height());
    drop(image);

    // JPEG XL tells by no header what it takes. These are 46 megapixels of gray: samples, the RGB made of them, and the
    // groups under way, or all samples of the lossless one once more as wider numbers.
    let large = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/images/large");
    for (name, most) in [("lossy.jxl", 300.0), ("lossless.jxl", 400.0)] {
        let data = std::fs::read(large.join(name)).unwrap();
        let before = status_mib("VmRSS");
        let image = decode(&data, &limits, never_interrupted).unwrap();
        let grown = status_mib("VmHWM") - before;
        println!("{name}: {grown} MiB for {} x {}", image.width(), image.height());
        assert!(grown < most, "{name}: {grown} MiB");
    }
    // 24 megapixels of AVIF: the frame, the RGB made of it, and what the decoder keeps of blocks.
    let data = std::fs::read(large.join("picture.avif")).unwrap();
    let before = status_mib("VmRSS");
    decode(&data, &limits, never_interrupted).unwrap();
    let grown = status_mib("VmHWM") - before;
    println!("picture.avif: {grown} MiB");
    assert!(grown < 400.0, "{grown} MiB");
    let tight = ImageLimits { max_decoder_bytes: 100 << 20, ..limits };
    let error = decode(&data, &tight, never_interrupted).unwrap_err();
    assert!(matches!(error, ImageError::DecoderMemory { .. }), "{error}");
    // What takes more than it may is stopped on the way.
    let data = std::fs::read(large.join("lossless.jxl")).unwrap();
    let tight = ImageLimits { max_decoder_bytes: 190 << 20, ..limits };
    let error = decode(&data, &tight, never_interrupted).unwrap_err();
    assert!(matches!(error, ImageError::DecoderMemory { .. }), "{error}");

    // A thousand broken images in one session.
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/images/files");
    let seeds: Vec<Vec<u8>> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    let round = |seed: usize| {
        for i in 0..1_000 {
            let mut data = seeds[(seed + i) % seeds.len()].clone();
            let at = (seed + 31 * i) % data.len();
            data[at] ^= 1 << (i % 8);
            data.truncate(data.len() - i % 7);
            let _ = decode(&data, &limits, never_interrupted);
        }
    };
    round(0);
    let before = status_mib("VmRSS");
    round(5);
    let grown = status_mib("VmRSS") - before;
    assert!(grown < 4.0, "a thousand broken images left {grown} MiB behind");
}
