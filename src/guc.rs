//! Every setting: name, default, limits, one sentence.
//!
//! Only superusers can set what names a file or limits a resource: a session must not make
//! the server read a file of its choice. Every setting but those of the server's own workers works with SET LOCAL and
//! ALTER DATABASE. A value that was set before the library is loaded is checked when it is loaded.

use crate::encoding;
use crate::error::{Code, Report};
use crate::server::version;
use imgvec_encoder::image::ImageLimits;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::ffi::{CStr, CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

static MODEL_PATH: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"$sharedir/imgvec/models"));
static ONNXRUNTIME_LIBRARY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static LIBHEIF_LIBRARY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CACHE_DIRECTORY: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"pgsql_tmp_imgvec"));
static DEFAULT_MODEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"starter"));
static THREADS: GucSetting<i32> = GucSetting::<i32>::new(1);
static EMBEDDING_CACHE_ENTRIES: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static EF_SEARCH: GucSetting<i32> = GucSetting::<i32>::new(0);
static TARGET_RECALL: GucSetting<f64> = GucSetting::<f64>::new(0.0);
static MAX_SCAN_ROWS: GucSetting<i32> = GucSetting::<i32>::new(0);
static STRICT_ORDER: GucSetting<bool> = GucSetting::<bool>::new(false);
static MAX_IMAGE_PIXELS: GucSetting<i32> = GucSetting::<i32>::new(50_000_000);
static MAX_IMAGE_BYTES: GucSetting<i32> = GucSetting::<i32>::new(64 << 20);
static WORKERS: GucSetting<i32> = GucSetting::<i32>::new(1);
static WORKER_DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static WORKER_NICE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_RUN_MEMORY: GucSetting<i32> = GucSetting::<i32>::new(256);

/// Farthest lookahead of an index search.
pub const MAX_EF_SEARCH: i32 = 10_000;
/// Highest share of the nearest rows that can be asked for.
pub const MAX_TARGET_RECALL: f64 = 0.9999;

/// Registers the settings and reserves the prefix.
pub fn define() {
    GucRegistry::define_string_guc(
        c"imgvec.model_path",
        c"Sets the directories that are searched for model packages.",
        c"Separated by colons; $sharedir stands for the server's share directory.",
        &MODEL_PATH,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"imgvec.onnxruntime_library",
        c"Sets the ONNX Runtime library to load.",
        c"When empty, libonnxruntime.so is searched in the imgvec directory of the server's library directory, then on the system's library path. Has no effect after the first embedding of a session.",
        &ONNXRUNTIME_LIBRARY,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"imgvec.libheif_library",
        c"Sets the libheif library to load for HEIC images.",
        c"When empty, libheif.so.1 is searched on the system's library path. With \"none\", HEIC images are refused. Has no effect on the library after the first HEIC image of a session.",
        &LIBHEIF_LIBRARY,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"imgvec.cache_directory",
        c"Sets the directory for the form of models that backends share.",
        c"A relative path is below the data directory. When empty, nothing is stored, and every backend holds a private copy of its models.",
        &CACHE_DIRECTORY,
        GucContext::Suset,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"imgvec.default_model",
        c"Sets the model of encoder functions that are called without one.",
        c"The name of a package on imgvec.model_path; the view imgvec_models lists them.",
        &DEFAULT_MODEL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"imgvec.threads",
        c"Sets the threads that one inference may use.",
        c"Takes effect for models that are loaded later in the session.",
        &THREADS,
        1,
        64,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"imgvec.embedding_cache_entries",
        c"Sets how many recent embeddings a session caches.",
        c"With 0, a query may run the model once for each row.",
        &EMBEDDING_CACHE_ENTRIES,
        0,
        100_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"imgvec.max_image_pixels",
        c"Sets the largest number of pixels of an image.",
        c"Decoding can take 8 bytes of memory per pixel, and 256 MB at any setting. Most images take 3 or 4 bytes per pixel.",
        &MAX_IMAGE_PIXELS,
        1,
        1_000_000_000,
        GucContext::Suset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"imgvec.max_image_bytes",
        c"Sets the largest size of an encoded image.",
        c"A larger image is refused before it is read.",
        &MAX_IMAGE_BYTES,
        1,
        1 << 30,
        GucContext::Suset,
        GucFlags::UNIT_BYTE,
    );
    GucRegistry::define_int_guc(
        c"imgvec.max_run_memory",
        c"Sets the maximum memory of one run of a model.",
        c"Larger batches are split. A single input that needs more, such as a long text, is refused. Weights are not counted.",
        &MAX_RUN_MEMORY,
        16,
        1 << 20,
        GucContext::Suset,
        GucFlags::UNIT_MB,
    );
    GucRegistry::define_int_guc(
        c"imgvec.ef_search",
        c"Sets how far a search of an ann index looks ahead.",
        c"The number of extra rows that a search considers. Higher values raise recall and cost. 0 uses the index's own option, or else what imgvec.target_recall needs.",
        &EF_SEARCH,
        0,
        MAX_EF_SEARCH,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_float_guc(
        c"imgvec.target_recall",
        c"Sets the share of the nearest rows that searches of an ann index should find.",
        c"A build measures how far searches of the index must look ahead for that. 0 uses the index's own option, or else 0.95. imgvec.ef_search overrides it.",
        &TARGET_RECALL,
        0.0,
        MAX_TARGET_RECALL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"imgvec.max_scan_rows",
        c"Sets the number of rows after which a scan of an ann index ends.",
        c"A query whose filter rejects most rows can then return fewer rows than its LIMIT; a NOTICE reports it. 0 uses the index's own option, or else no limit.",
        &MAX_SCAN_ROWS,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"imgvec.strict_order",
        c"Omits rows that an ann index scan finds out of order.",
        c"When off, such rows are returned last. When on, a query can return fewer rows than its LIMIT; a NOTICE reports it.",
        &STRICT_ORDER,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"imgvec.workers",
        c"Sets how many workers the server starts for each database of imgvec.worker_databases.",
        c"Takes effect when the server starts, with imgvec in shared_preload_libraries.",
        &WORKERS,
        0,
        64,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"imgvec.worker_databases",
        c"Sets the databases whose waiting rows the server's own workers embed.",
        c"Separated by commas. Takes effect when the server starts, with imgvec in shared_preload_libraries.",
        &WORKER_DATABASES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"imgvec.worker_nice",
        c"Sets the priority of workers below other processes.",
        c"The system's nice value, 0 to 19. Takes effect for workers that start later.",
        &WORKER_NICE,
        0,
        19,
        GucContext::Sighup,
        GucFlags::default(),
    );
    version::reserve_prefix(c"imgvec");
}

fn string(setting: &'static GucSetting<Option<CString>>) -> Vec<u8> {
    setting.get().map(CString::into_bytes).unwrap_or_default()
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// The raw value, to notice changes.
pub fn model_path_setting() -> Vec<u8> {
    string(&MODEL_PATH)
}

/// Directories that are searched for packages, in order.
pub fn model_path() -> Vec<PathBuf> {
    string(&MODEL_PATH)
        .split(|&byte| byte == b':')
        .filter(|part| !part.is_empty())
        .map(|part| match part.strip_prefix(b"$sharedir") {
            Some(rest) => {
                let mut full = share_directory();
                full.extend_from_slice(rest);
                path(full)
            }
            None => path(part.to_vec()),
        })
        .collect()
}

/// Where to look for ONNX Runtime, best first.
pub fn onnxruntime_candidates() -> Vec<PathBuf> {
    let setting = string(&ONNXRUNTIME_LIBRARY);
    if !setting.is_empty() {
        return vec![path(setting)];
    }
    // SAFETY: the server sets pkglib_path, a NUL-terminated array, when it starts.
    let libdir = unsafe { CStr::from_ptr(std::ptr::addr_of!(pg_sys::pkglib_path).cast()) };
    vec![
        path(libdir.to_bytes().to_vec()).join("imgvec/libonnxruntime.so"),
        PathBuf::from("libonnxruntime.so.1"),
        PathBuf::from("libonnxruntime.so"),
    ]
}

/// Where shared forms of models are kept; `None` keeps none.
pub fn cache_directory() -> Option<PathBuf> {
    let setting = string(&CACHE_DIRECTORY);
    // A backend's working directory is the data directory, but say it in full: ONNX Runtime compares
    // paths of external data.
    // SAFETY: the server sets DataDir, NUL-terminated, before any backend starts.
    let data_directory = unsafe { CStr::from_ptr(pg_sys::DataDir) };
    (!setting.is_empty()).then(|| path(data_directory.to_bytes().to_vec()).join(path(setting)))
}

/// The model of calls that name none.
pub fn default_model() -> String {
    let name = string(&DEFAULT_MODEL);
    if name.is_empty() {
        Report::new(Code::ERRCODE_INVALID_PARAMETER_VALUE, "no default model is set")
            .detail("The setting \"imgvec.default_model\" is empty.")
            .hint("Name a model in the call, or set imgvec.default_model to one of the view imgvec_models.")
            .raise();
    }
    encoding::to_utf8_lossy(&name).into_owned()
}

/// Threads of one inference.
pub fn threads() -> usize {
    usize::try_from(THREADS.get()).expect("bounded by the setting")
}

/// Capacity of the embedding cache.
pub fn embedding_cache_entries() -> usize {
    usize::try_from(EMBEDDING_CACHE_ENTRIES.get()).expect("bounded by the setting")
}

/// Largest encoded image, in bytes.
pub fn max_image_bytes() -> usize {
    usize::try_from(MAX_IMAGE_BYTES.get()).expect("bounded by the setting")
}

/// Most memory of one run of a model, in bytes.
pub fn max_run_bytes() -> u64 {
    u64::from(MAX_RUN_MEMORY.get().unsigned_abs()) << 20
}

/// Workers for each database that the server starts by itself.
pub fn workers() -> i32 {
    WORKERS.get()
}

/// Databases that the server starts workers for by itself.
pub fn worker_databases() -> Vec<String> {
    let setting = string(&WORKER_DATABASES);
    let names = String::from_utf8_lossy(&setting);
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The nice value of workers.
pub fn worker_nice() -> i32 {
    WORKER_NICE.get()
}

/// Share of the nearest rows to find, if the session sets it.
pub fn target_recall() -> Option<f64> {
    Some(TARGET_RECALL.get()).filter(|&target| target > 0.0)
}

/// Lookahead of index searches, if the session sets it.
pub fn ef_search() -> Option<usize> {
    usize::try_from(EF_SEARCH.get()).ok().filter(|&ef| ef > 0)
}

/// Rows after which an index scan ends, if the session sets it.
pub fn max_scan_rows() -> Option<u64> {
    u64::try_from(MAX_SCAN_ROWS.get()).ok().filter(|&rows| rows > 0)
}

/// Whether an index scan ends before the first row that comes too late for its place.
pub fn strict_order() -> bool {
    STRICT_ORDER.get()
}

/// What a decoder may use.
pub fn image_limits() -> ImageLimits {
    let max_pixels = u64::from(MAX_IMAGE_PIXELS.get().unsigned_abs());
    ImageLimits {
        max_input_bytes: max_image_bytes(),
        libheif: libheif_library,
        ..ImageLimits::of_pixels(max_pixels)
    }
}

/// The libheif to load, or none to refuse HEIC.
fn libheif_library() -> Option<PathBuf> {
    let setting = string(&LIBHEIF_LIBRARY);
    match &setting[..] {
        b"" => ImageLimits::system_libheif(),
        b"none" => None,
        _ => Some(path(setting)),
    }
}

fn share_directory() -> Vec<u8> {
    let mut buffer = [0 as std::ffi::c_char; pg_sys::MAXPGPATH as usize];
    // SAFETY: the buffer has MAXPGPATH bytes, as the function asks; the server sets my_exec_path.
    unsafe {
        pg_sys::get_share_path(std::ptr::addr_of!(pg_sys::my_exec_path).cast(), buffer.as_mut_ptr());
        CStr::from_ptr(buffer.as_ptr()).to_bytes().to_vec()
    }
}
