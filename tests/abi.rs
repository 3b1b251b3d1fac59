//! What the built shared library shows to the linker and the loader.
//!
//! `DQLITE_LIBRARY` names the file to look at; without it that is the one cargo has just built for this profile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::process::Command;

fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("DQLITE_LIBRARY") {
        return path.into();
    }
    // tests run as target/PROFILE/deps/abi-*.
    let program = std::env::current_exe().unwrap();
    program.parent().unwrap().join("libdqlite.so")
}

fn output(program: &str, arguments: &[&str]) -> String {
    let library = library();
    let output =
        Command::new(program).args(arguments).arg(&library).output().expect("binutils are installed");
    assert!(
        output.status.success(),
        "{program} {}: {}",
        library.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The texts in brackets of the dynamic section's entries with this tag.
fn dynamic(tag: &str) -> Vec<String> {
    let tag = format!("({tag})");
    let section = output("readelf", &["-dW"]);
    let bracketed = |line: &str| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned());
    section.lines().filter(|line| line.contains(&tag)).filter_map(bracketed).collect()
}

#[test]
fn the_soname_is_the_c_librarys() {
    assert_eq!(dynamic("SONAME"), ["libdqlite.so.0"]);
}

#[test]
fn exactly_the_reviewed_symbols_are_exported() {
    let symbols = output("nm", &["-D", "--defined-only", "--format=posix"]);
    let mut found = Vec::new();
    for line in symbols.lines() {
        let (name, rest) = line.split_once(' ').unwrap();
        let expected = if name == "dqlite_version_string" { "D" } else { "T" };
        assert!(rest.starts_with(expected), "{line}: type {expected} expected");
        found.push(name);
    }
    found.sort_unstable();
    let reviewed = std::fs::read_to_string("include/symbols.txt").unwrap();
    assert_eq!(found, reviewed.lines().collect::<Vec<_>>());
}

#[test]
fn the_version_string_is_a_pointer() {
    let symbols = output("readelf", &["-W", "--dyn-syms"]);
    let line = symbols.lines().find(|line| line.ends_with(" dqlite_version_string")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((words[2], words[3]), ("8", "OBJECT"), "{line}");
}

#[test]
fn it_needs_sqlite_and_the_system_and_nothing_else() {
    let needed = dynamic("NEEDED");
    for name in &needed {
        let system =
            ["libgcc_s.so.1", "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"];
        let known =
            name == "libsqlite3.so.0" || system.contains(&name.as_str()) || name.starts_with("ld-linux");
        assert!(known, "{name} is not expected among {needed:?}");
    }
    // One SQLite for the whole process: the host's.
    assert!(needed.iter().any(|name| name == "libsqlite3.so.0"), "{needed:?}");
    let undefined = output("nm", &["-D", "--undefined-only"]);
    assert!(undefined.contains(" sqlite3_open_v2"), "sqlite3_open_v2 comes from outside");
    let all = output("nm", &["-D", "--defined-only"]);
    assert!(!all.contains(" sqlite3_"), "no SQLite inside");
}

#[test]
fn it_defines_no_symbol_versions_and_no_paths_and_binds_at_start() {
    let versions = output("readelf", &["-VW"]);
    assert!(!versions.contains(".gnu.version_d"), "version definitions: {versions}");
    let section = output("readelf", &["-dW"]);
    assert!(!section.contains("RPATH") && !section.contains("RUNPATH"), "{section}");
    assert!(section.contains("NOW"), "{section}");
    assert!(section.contains("NODELETE"), "threads keep the library loaded: {section}");
    // A constructor that touched SQLite would break hosts that configure it first; ours has none that does.
    assert!(!section.contains("TEXTREL"), "{section}");
}
