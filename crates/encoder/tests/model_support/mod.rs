//! What the model tests share: ONNX Runtime, scratch directories, pictures, packages from `data`.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod graph;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use imgvec_encoder::image::ImageLimits;
use imgvec_encoder::interrupt::{InterruptCheck, never_interrupted};
use imgvec_encoder::memory::ProcessMemory;
use imgvec_encoder::package::Package;
use imgvec_encoder::runtime;
use imgvec_encoder::{Encoder, EncoderOptions};

/// Loads ONNX Runtime from `IMGVEC_ONNXRUNTIME`. Without it the test cannot run: it says so on the
/// real standard error, which the test harness does not swallow.
pub fn onnx_runtime(test: &str) -> bool {
    match std::env::var_os("IMGVEC_ONNXRUNTIME") {
        Some(path) => {
            runtime::init(&[PathBuf::from(path)]).expect("IMGVEC_ONNXRUNTIME names a usable library");
            true
        }
        None => {
            skip(test, "IMGVEC_ONNXRUNTIME does not name libonnxruntime.so");
            false
        }
    }
}

/// Says that a test has proved nothing.
pub fn skip(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// A directory that is removed with its content.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("imgvec-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and the directories above it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/models")
}

/// A copy of a package from `data` that a test may break.
pub fn copy_of(name: &str) -> Scratch {
    let scratch = Scratch::new();
    copy(&data().join(name), scratch.path());
    scratch
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn options() -> EncoderOptions {
    options_with(never_interrupted)
}

pub fn options_with(interrupt: InterruptCheck) -> EncoderOptions {
    EncoderOptions {
        threads: 1,
        cache_dir: None,
        interrupt,
        image_limits: ImageLimits::default(),
        memory: ProcessMemory::default(),
        map: None,
    }
}

pub fn encoder(dir: &Path) -> Encoder {
    Encoder::open(Package::open(dir).unwrap(), options()).unwrap()
}

pub fn cosine(left: &[f32], right: &[f32]) -> f64 {
    assert_eq!(left.len(), right.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

pub fn greatest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
