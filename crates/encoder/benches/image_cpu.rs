//! CPU time of decoding and preprocessing the files named on the command line, in milliseconds.
//!
//! Prints one line per file: path, decode, preprocess (CLIP at 224 pixels), as medians of
//! several runs. Process CPU time, so that other work on the machine does not count.
//! image_side_by_side.py runs this next to Pillow.

use imgvec_encoder::image::{ImageLimits, Preprocessing, decode};
use imgvec_encoder::interrupt::never_interrupted;
use nix::time::{ClockId, clock_gettime};

fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).expect("every Linux has this clock");
    time.tv_sec() as f64 * 1e3 + time.tv_nsec() as f64 / 1e6
}

/// Median CPU time of `work`, run for about half a second, and its last result.
fn median<T>(mut work: impl FnMut() -> T) -> (f64, T) {
    let mut result = work();
    let mut times = Vec::new();
    while times.len() < 5 || times.iter().sum::<f64>() < 500.0 {
        let start = cpu_ms();
        result = work();
        times.push(cpu_ms() - start);
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], result)
}

fn main() {
    let settings = serde_json::json!({ "image_processor_type": "CLIPImageProcessor" });
    let clip = Preprocessing::from_hf(&settings).expect("CLIP's own defaults");
    let mut tensor = vec![0.0; clip.output_len()];
    for path in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
        let data = std::fs::read(&path).expect("a readable file");
        let limits = ImageLimits::default();
        let (decode_ms, image) = median(|| decode(&data, &limits, never_interrupted).expect("an image"));
        let (preprocess_ms, ()) = median(|| clip.apply(&image, &mut tensor).expect("the right length"));
        println!("{path} {decode_ms:.3} {preprocess_ms:.3}");
    }
}
