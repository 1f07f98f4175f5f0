//! libheif as the dynamic linker gives it: the functions that are called, by their names, and what they take.
//!
//! Contexts, handles and pictures are pointers to things that only libheif looks into. The one structure that passes by value is its error.

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use libloading::os::unix::{Library as Loaded, RTLD_LOCAL, RTLD_NOW};

use crate::signals::SignalsBlocked;

/// Oldest version: `heif_init`, which loads decoders that are plugins, came with it.
const OLDEST: u32 = version(1, 13);
const NEWEST: u32 = version(2, 0);

const fn version(major: u32, minor: u32) -> u32 {
    major << 24 | minor << 16
}

/// What a function of libheif says, with words that belong to the context or to nobody.
#[repr(C)]
pub(super) struct HeifError {
    pub(super) code: c_int,
    pub(super) subcode: c_int,
    message: *const c_char,
}

impl HeifError {
    /// # Safety
    /// The error is the latest of a context that still lives.
    pub(super) unsafe fn message(&self) -> String {
        if self.message.is_null() {
            return "it does not say why".to_owned();
        }
        // SAFETY: libheif's messages end with a 0, and live as long as the caller promises.
        unsafe { CStr::from_ptr(self.message) }.to_string_lossy().into_owned()
    }
}

/// Something that only libheif looks into.
pub(super) type Opaque = *mut c_void;

macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions, valid as long as the library is loaded.
        #[allow(missing_docs, reason = "they are libheif's")]
        #[derive(Clone, Copy)]
        pub(super) struct Functions { $(pub(super) $name: unsafe extern "C" fn($($argument),*) -> $result,)* }

        impl Functions {
            /// # Safety
            /// The library is libheif.
            unsafe fn load(library: &Loaded) -> Result<Self, libloading::Error> {
                Ok(Self { $(
                    // SAFETY: the types are those of the function in the public header of libheif.
                    $name: *unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) }?,
                )* })
            }
        }
    };
}

functions! {
    heif_init: fn(Opaque) -> HeifError;
    heif_context_alloc: fn() -> Opaque;
    heif_context_free: fn(Opaque) -> ();
    heif_context_set_max_decoding_threads: fn(Opaque, c_int) -> ();
    heif_context_read_from_memory_without_copy: fn(Opaque, *const c_void, usize, *const c_void) -> HeifError;
    heif_context_get_primary_image_handle: fn(Opaque, *mut Opaque) -> HeifError;
    heif_image_handle_release: fn(Opaque) -> ();
    heif_image_handle_get_width: fn(Opaque) -> c_int;
    heif_image_handle_get_height: fn(Opaque) -> c_int;
    heif_image_handle_has_alpha_channel: fn(Opaque) -> c_int;
    heif_image_handle_is_premultiplied_alpha: fn(Opaque) -> c_int;
    heif_image_handle_get_luma_bits_per_pixel: fn(Opaque) -> c_int;
    heif_decode_image: fn(Opaque, *mut Opaque, c_int, c_int, *const c_void) -> HeifError;
    heif_image_get_width: fn(Opaque, c_int) -> c_int;
    heif_image_get_height: fn(Opaque, c_int) -> c_int;
    heif_image_get_bits_per_pixel_range: fn(Opaque, c_int) -> c_int;
    heif_image_get_plane_readonly: fn(Opaque, c_int, *mut c_int) -> *const u8;
    heif_image_release: fn(Opaque) -> ();
}

/// libheif, loaded until the process ends.
#[derive(Clone, Copy)]
pub struct Library {
    pub(super) functions: Functions,
    version: u32,
}

/// Why libheif is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// No library of that name can be loaded.
    #[error("{reason}")]
    NotLoaded {
        /// The dynamic linker's words.
        reason: String,
    },
    /// It is too old, too new, or another library.
    #[error("{} has version {version}, and 1.13 or a later 1 is needed", path.display())]
    WrongVersion {
        /// What was loaded.
        path: PathBuf,
        /// The version that it says.
        version: String,
    },
}

/// The dynamic linker's own words, which are the cause of the error, or what failed.
fn words(error: &libloading::Error) -> String {
    let cause = error.source().map(ToString::to_string);
    cause.unwrap_or_else(|| error.to_string())
}

impl Library {
    /// Loads libheif from a file, or by a name that the dynamic linker looks for. The first success of a process stays.
    ///
    /// # Errors
    /// See [`LibraryError`]. Another call may succeed.
    pub fn open(path: &Path) -> Result<Self, LibraryError> {
        static OPENED: Mutex<Option<(PathBuf, Library)>> = Mutex::new(None);
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, library)) = &*opened {
            return Ok(*library);
        }
        // Its constructors may start threads.
        let blocked =
            SignalsBlocked::new().map_err(|error| LibraryError::NotLoaded { reason: error.to_string() })?;
        let library = Self::load(path)?;
        drop(blocked);
        *opened = Some((path.to_owned(), library));
        Ok(library)
    }

    fn load(path: &Path) -> Result<Self, LibraryError> {
        let not_loaded = |error: libloading::Error| LibraryError::NotLoaded { reason: words(&error) };
        // SAFETY: a superuser names the library, or the system's own is taken; its constructors are those of a C++ library.
        let loaded = unsafe { Loaded::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(not_loaded)?;
        // SAFETY: every version of libheif has this function, without arguments; in another library the name does not exist.
        let version = unsafe {
            let ask = loaded.get::<unsafe extern "C" fn() -> u32>(b"heif_get_version_number\0");
            ask.map(|ask| ask()).map_err(not_loaded)?
        };
        if !(OLDEST..NEWEST).contains(&version) {
            let [major, minor, patch, _] = version.to_be_bytes();
            let version = format!("{major}.{minor}.{patch}");
            return Err(LibraryError::WrongVersion { path: path.to_owned(), version });
        }
        // SAFETY: it said that it is libheif.
        let functions = unsafe { Functions::load(&loaded) }.map_err(not_loaded)?;
        // Threads of it may outlive everything of ours.
        std::mem::forget(loaded);
        // SAFETY: NULL stands for the usual parameters.
        let error = unsafe { (functions.heif_init)(std::ptr::null_mut()) };
        if error.code != 0 {
            // SAFETY: the error is of no context, so that its words are constant.
            return Err(LibraryError::NotLoaded { reason: unsafe { error.message() } });
        }
        // It takes itself apart when the process ends: not under a thread that still decodes.
        crate::worker::wait_at_exit();
        Ok(Self { functions, version })
    }

    /// Its version, as "1.15.1".
    pub fn version(&self) -> String {
        let [major, minor, patch, _] = self.version.to_be_bytes();
        format!("{major}.{minor}.{patch}")
    }
}
