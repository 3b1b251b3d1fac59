//! `include/dqlite.h` is what the sources say. `REWRITE=1` writes it anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::fs;

const HEADER: &str = "include/dqlite.h";

/// In the order in which the header shows them.
const SOURCES: &[&str] = &["handle", "version", "node", "config", "recover", "server"];

fn generated() -> String {
    let mut builder =
        cbindgen::Builder::new().with_config(cbindgen::Config::from_file("cbindgen.toml").unwrap());
    for source in SOURCES {
        builder = builder.with_src(format!("src/ffi/{source}.rs"));
    }
    let mut header = Vec::new();
    builder.generate().expect("src/ffi is understood").write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn the_header_is_what_the_sources_say() {
    let generated = generated();
    if std::env::var_os("REWRITE").is_some() {
        fs::write(HEADER, &generated).unwrap();
    }
    let committed = fs::read_to_string(HEADER).unwrap_or_default();
    assert!(
        committed == generated,
        "{HEADER} differs from the sources: run `make header` and look at the change"
    );
}

#[test]
fn the_version_macros_are_the_version_of_the_package() {
    let header = fs::read_to_string(HEADER).unwrap();
    for (part, value) in [
        ("MAJOR", env!("CARGO_PKG_VERSION_MAJOR")),
        ("MINOR", env!("CARGO_PKG_VERSION_MINOR")),
        ("RELEASE", env!("CARGO_PKG_VERSION_PATCH")),
    ] {
        let line = format!("#define DQLITE_VERSION_{part} {value}\n");
        assert!(header.contains(&line), "expected {line}");
    }
}

#[test]
fn every_exported_symbol_is_declared_once_and_nothing_else() {
    let header = fs::read_to_string(HEADER).unwrap();
    let mut declared: Vec<&str> = header
        .split("DQLITE_API")
        .skip(1)
        .filter_map(|rest| {
            let end = rest.find(['(', ';'])?;
            let name = rest[..end].rsplit([' ', '*', '\n']).next()?;
            name.starts_with("dqlite_").then_some(name)
        })
        .collect();
    declared.sort_unstable();
    // Once for C and once for C++.
    declared.dedup();
    let symbols = fs::read_to_string("include/symbols.txt").unwrap();
    assert_eq!(declared, symbols.lines().collect::<Vec<_>>());
}
