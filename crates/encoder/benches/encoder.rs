//! What embedding costs beyond the bare model run, what loading costs, and what a process keeps.
//!
//! ```text
//! IMGVEC_ONNXRUNTIME=/path/libonnxruntime.so cargo bench -p imgvec-encoder --bench encoder -- DIR ...
//! ```
//!
//! Each `DIR` is a model package; without one the starter model is measured. Every row of the table
//! comes from a process of its own, so that memory is that of one model in one form. Times are CPU
//! milliseconds of the process, which other work on the machine changes little.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};
use imgvec_encoder::image::ImageLimits;
use imgvec_encoder::interrupt::never_interrupted;
use imgvec_encoder::memory::ProcessMemory;
use imgvec_encoder::package::{Modality, Package};
use imgvec_encoder::{Encoder, EncoderOptions, runtime};
use nix::time::{ClockId, clock_gettime};

const ROW: &str = "--row";
const TEXT: &str = "two dogs playing on the grass";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == ROW) {
        return row(Path::new(&arguments[1]), arguments.get(2).map(PathBuf::from));
    }
    let starter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/starter");
    let packages = match arguments.is_empty() {
        true => vec![starter],
        false => arguments.iter().map(PathBuf::from).collect(),
    };
    let cache = std::env::temp_dir().join(format!("imgvec-bench-{}", std::process::id()));
    println!("CPU ms; \"over\" is the whole call beyond the bare run; memory in MB after use");
    println!(
        "{:28} {:>9} {:>9} {:>8} {:>8} {:>6} {:>8} {:>8} {:>6} {:>8} {:>7}",
        "package, form",
        "open",
        "load",
        "image",
        "bare",
        "over%",
        "text",
        "bare",
        "over%",
        "private",
        "shared"
    );
    for package in packages {
        // Twice with a cache: making the prepared form, and using it.
        for cache in [None, Some(&cache), Some(&cache)] {
            let status = Command::new(std::env::current_exe().expect("this program has a path"))
                .arg(ROW)
                .arg(&package)
                .args(cache)
                .status();
            assert!(status.is_ok_and(|status| status.success()), "{}", package.display());
        }
    }
    let _ = std::fs::remove_dir_all(cache);
}

fn row(dir: &Path, cache_dir: Option<PathBuf>) {
    let library = std::env::var_os("IMGVEC_ONNXRUNTIME").expect("IMGVEC_ONNXRUNTIME names libonnxruntime.so");
    runtime::init(&[PathBuf::from(library)]).expect("a usable library");
    let before = memory("Anonymous:");
    let (package, open) = timed(|| Package::open(dir).expect("a usable package"));
    let (images, texts) = (package.embeds(Modality::Image), package.embeds(Modality::Text));
    let form = if cache_dir.is_some() { "cache" } else { "plain" };
    let name = format!("{}, {form}", package.name);
    let image_limits = ImageLimits::default();
    let options = EncoderOptions {
        threads: 1,
        cache_dir,
        interrupt: never_interrupted,
        image_limits,
        memory: ProcessMemory::default(),
        map: None,
    };
    let mut encoder = Encoder::open(package, options).expect("a runtime");

    let picture = photograph();
    let ((), load) = timed(|| {
        if images {
            encoder.embed_images(&[&picture]).expect("an image tower");
        }
        if texts {
            encoder.embed_texts(&[TEXT]).expect("a text tower");
        }
    });
    let mut measure = |wanted: bool, work: &mut dyn FnMut(&mut Encoder)| {
        if !wanted {
            return (f64::NAN, f64::NAN);
        }
        let bare = encoder.cost().cpu;
        let mut whole = Duration::ZERO;
        let mut rounds = 0;
        while rounds < 10 || (whole < Duration::from_secs(2) && rounds < 5000) {
            whole += timed(|| work(&mut encoder)).1;
            rounds += 1;
        }
        let bare = encoder.cost().cpu - bare;
        (milliseconds(whole) / f64::from(rounds), milliseconds(bare) / f64::from(rounds))
    };
    let image = measure(images, &mut |encoder| drop(encoder.embed_images(&[&picture])));
    let text = measure(texts, &mut |encoder| drop(encoder.embed_texts(&[TEXT])));
    let over = |(whole, bare): (f64, f64)| 100.0 * (whole - bare) / bare;
    println!(
        "{name:28} {:9.2} {:9.1} {:8.3} {:8.3} {:6.1} {:8.4} {:8.4} {:6.1} {:8.1} {:7.1}",
        milliseconds(open),
        milliseconds(load),
        image.0,
        image.1,
        over(image),
        text.0,
        text.1,
        over(text),
        memory("Anonymous:") - before,
        memory("Shared_Clean:") + memory("Private_Clean:"),
    );
}

/// A JPEG of 640 x 480 with soft colors and some noise.
fn photograph() -> Vec<u8> {
    let picture = RgbImage::from_fn(640, 480, |x, y| {
        let noise = ((x * 7919) ^ (y * 104_729)) % 23;
        Rgb([x * 255 / 640 + noise, y * 255 / 480 + noise, (x + y) * 255 / 1200]
            .map(|value| value.min(255) as u8))
    });
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 90).encode_image(&picture).expect("RGB can be a JPEG");
    bytes
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let now = || clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default();
    let begun = now();
    let result = work();
    (result, now() - begun)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// A line of this process's memory map totals in MB.
fn memory(line: &str) -> f64 {
    let totals = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let value = totals.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_default();
    value.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.0
}
