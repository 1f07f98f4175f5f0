//! Linker settings of the extension.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The server loads libraries for all others to see, and rav1d defines dav1d's functions by their names. A library of the server
    // that asks for dav1d's own must not be given those.
    println!("cargo::rustc-cdylib-link-arg=-Wl,--exclude-libs,ALL");
}
