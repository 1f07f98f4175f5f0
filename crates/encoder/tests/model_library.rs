//! Loading ONNX Runtime: what is tried, what is said, and the signals of the threads that come of it.
//!
//! A library is loaded once per process, so that this file has one test.

mod model_support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use imgvec_encoder::package::Package;
use imgvec_encoder::runtime::{self, RuntimeError};
use imgvec_encoder::{EncodeError, Encoder, EncoderOptions};
use model_support::{Scratch, data, options, skip};

const FAKE: &str = r#"
    static const char *version(void) { return "1.11.1"; }
    static const void *api(unsigned wanted) { return 0; }
    static struct { const void *(*api)(unsigned); const char *(*version)(void); } base = { api, version };
    const void *OrtGetApiBase(void) { return &base; }
"#;

fn threads() -> BTreeSet<PathBuf> {
    std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The blocked signals of a thread, one bit each.
fn blocked(thread: &Path) -> u64 {
    let status = std::fs::read_to_string(thread.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn the_first_usable_library_is_loaded_and_its_threads_take_no_signals() {
    let test = "the_first_usable_library_is_loaded_and_its_threads_take_no_signals";
    let Some(library) = std::env::var_os("IMGVEC_ONNXRUNTIME").map(PathBuf::from) else {
        return skip(test, "IMGVEC_ONNXRUNTIME does not name libonnxruntime.so");
    };
    let package = || Package::open(&data().join("clip")).unwrap();
    match Encoder::open(package(), options()) {
        Err(EncodeError::Runtime(RuntimeError::NotLoaded)) => {}
        _ => panic!("an encoder without a runtime"),
    }

    let missing = ["/nowhere/libonnxruntime.so", "libno_such_library.so.9"].map(PathBuf::from);
    match runtime::init(&missing) {
        Err(RuntimeError::NotFound { candidates }) => assert_eq!(candidates, missing),
        other => panic!("{other:?}"),
    }
    let scratch = Scratch::new();
    let text = scratch.write("libonnxruntime.so", "no library");
    match runtime::init(&[missing[0].clone(), text.clone(), library.clone()]) {
        Err(RuntimeError::NotOnnxRuntime { path, .. }) => assert_eq!(path, text),
        other => panic!("{other:?}"),
    }
    let source = scratch.write("fake.c", FAKE);
    let fake = scratch.path().join("libold.so");
    match Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).arg(&fake).arg(&source).status() {
        Ok(status) if status.success() => match runtime::init(std::slice::from_ref(&fake)) {
            Err(RuntimeError::TooOld { path, found, needed }) => {
                assert_eq!((path, &*found, &*needed), (fake, "1.11.1", "1.24"));
            }
            other => panic!("{other:?}"),
        },
        _ => skip(test, "there is no C compiler for the library that is too old"),
    }

    let before = threads();
    let info = runtime::init(&[missing[0].clone(), library.clone()]).unwrap();
    assert_eq!(info.path, library);
    assert!(info.version.starts_with("1.") && info.version.len() < 12, "{}", info.version);
    // Later calls change nothing.
    assert_eq!(runtime::init(&missing).unwrap(), info);

    let mut encoder = Encoder::open(package(), EncoderOptions { threads: 3, ..options() }).unwrap();
    encoder.embed_texts(&["a dog"]).unwrap();
    let new: Vec<PathBuf> = threads().difference(&before).cloned().collect();
    // Two of the pool and the watching one; ONNX Runtime's environment may add its own.
    assert!(new.len() >= 3, "{new:?}");
    // SIGKILL (9), SIGSTOP (19) and the two that the C library keeps for itself cannot be blocked.
    let blockable = !(1_u64 << 8 | 1 << 18 | 1 << 31 | 1 << 32);
    for thread in new {
        assert_eq!(blocked(&thread) & blockable, blockable, "{}", thread.display());
    }
    assert_eq!(blocked(Path::new("/proc/thread-self")), 0);
}
