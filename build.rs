//! Gives the shared library the name that programs linked with the C library look for.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // `cargo cinstall` passes its own soname; of two the build script's would win silently.
    if std::env::var_os("CARGO_FEATURE_CAPI").is_none() {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libdqlite.so.0");
    }
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,relro,-z,now,-z,nodelete");
}
