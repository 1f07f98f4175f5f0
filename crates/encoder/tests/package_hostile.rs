//! Packages whose files are bent: settings, tokenizers and graphs with bytes changed, cut, repeated or exchanged. Opening
//! one and reading text with it gives a value or an error, and never panics; no graph is run.
//!
//! `IMGVEC_FUZZ_CASES` sets the number of bent files (default 400), `IMGVEC_FUZZ_SEED` the first of their seeds; the seed of
//! a failure is printed.

mod model_support;

use imgvec_encoder::interrupt::never_interrupted;
use imgvec_encoder::package::Package;
use imgvec_encoder::text::TextEncoder;
use model_support::copy_of;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Numbers and words that are extreme where a JSON value stands.
const VALUES: [&str; 10] = [
    "null",
    "-1",
    "0",
    "1e308",
    "18446744073709551615",
    "\"\"",
    "[]",
    "{}",
    "true",
    "99999999999999999999999",
];

/// One change of a file's bytes.
fn bend(data: &mut Vec<u8>, random: &mut Random) {
    if data.is_empty() {
        return;
    }
    match random.below(6) {
        0 => data.truncate(random.below(data.len())),
        1 => {
            let at = random.below(data.len());
            data[at] ^= 1 << random.below(8);
        }
        2 => {
            let at = random.below(data.len());
            data[at] = [0, 0x22, 0x5b, 0x7b, 0x80, 0xff][random.below(6)];
        }
        3 => {
            // A part twice.
            let from = random.below(data.len());
            let to = (from + 1 + random.below(200)).min(data.len());
            let part = data[from..to].to_vec();
            let at = random.below(data.len());
            data.splice(at..at, part);
        }
        _ => {
            // Another value where one stands, if the file is text.
            let colons: Vec<usize> = (0..data.len()).filter(|&i| data[i] == b':').collect();
            if let Some(&colon) = colons.get(random.below(colons.len())) {
                let end =
                    data[colon..].iter().position(|b| b",}]\n".contains(b)).map_or(data.len(), |n| colon + n);
                let value = VALUES[random.below(VALUES.len())];
                data.splice(colon + 1..end, value.bytes());
            }
        }
    }
}

fn open(directory: &Path) {
    let Ok(package) = Package::open(directory) else { return };
    let Some(tower) = &package.text else { return };
    let Ok(encoder) = TextEncoder::open(tower) else { return };
    for text in ["", "a photo of a dog", "\u{fffd}\u{1f600}\u{301} \u{0} ", &"long words ".repeat(300)] {
        if let Ok(tokens) = encoder.tokenize(text, never_interrupted) {
            let (mut ids, mut mask) = (Vec::new(), Vec::new());
            encoder.fill_row(&tokens, encoder.width(tokens.ids.len()), &mut ids, &mut mask);
        }
    }
}

#[test]
fn bent_packages_never_panic() {
    let (first, cases) = (number("IMGVEC_FUZZ_SEED", 1), number("IMGVEC_FUZZ_CASES", 400));
    let names = [
        "clip",
        "siglip2",
        "bert-mean",
        "resnet",
        "clip-external",
        "siglip",
        "clip-int8",
        "dinov2",
        "siglip2-naflex",
    ];
    let mut failures = Vec::new();
    for name in names {
        let scratch = copy_of(name);
        let paths: Vec<_> = files(scratch.path())
            .into_iter()
            .filter(|path| fs::metadata(path).unwrap().len() < 2_000_000)
            .collect();
        for seed in first..first + cases.div_ceil(names.len() as u64) {
            let mut random = Random(seed);
            let path = &paths[random.below(paths.len())];
            let whole = fs::read(path).unwrap();
            let mut data = whole.clone();
            for _ in 0..=random.below(3) {
                bend(&mut data, &mut random);
            }
            fs::write(path, &data).unwrap();
            let begin = Instant::now();
            let outcome = catch_unwind(AssertUnwindSafe(|| open(scratch.path())));
            // Far beyond what any of these takes on a busy machine: this is about hanging.
            if outcome.is_err() || begin.elapsed() > Duration::from_secs(60) {
                failures.push(format!("{name}, {}, seed {seed}", path.file_name().unwrap().display()));
            }
            fs::write(path, &whole).unwrap();
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}
