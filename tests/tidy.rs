//! The layout of the source, checked on its text: who imports whom, where `unsafe` may stand, how long a file
//! may be, and what must not be left behind. Each check is first shown to fail on a sample that breaks it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "reads the source files of the package")]

use std::fs;
use std::path::{Path, PathBuf};

/// What each module may import of the crate, and which external crates are its own business.
const MODULES: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("codec", &["base"]),
    ("format", &["base", "codec"]),
    ("disk", &["base"]),
    ("storage", &["base", "codec", "format", "disk"]),
    ("pages", &["base"]),
    ("vfs", &["base", "pages"]),
    ("sqlite", &["base", "pages", "vfs"]),
    ("consensus", &["base", "codec"]),
    ("roles", &["base"]),
    ("session", &["base", "codec"]),
    ("engine", &["base", "codec", "pages", "session"]),
    ("node", &["base", "codec", "format", "pages", "consensus", "roles", "session", "engine"]),
    (
        "runtime",
        &[
            "base",
            "codec",
            "format",
            "disk",
            "storage",
            "pages",
            "vfs",
            "sqlite",
            "consensus",
            "roles",
            "session",
            "engine",
            "node",
        ],
    ),
    (
        "admin",
        &[
            "base", "codec", "format", "disk", "storage", "pages", "vfs", "sqlite", "session", "engine",
            "node", "runtime",
        ],
    ),
    ("ffi", &["base", "runtime", "admin"]),
];

/// External crates that only the named modules may mention.
const CRATES: &[(&str, &[&str])] = &[
    ("crc32fast", &["base"]),
    ("crossbeam_channel", &["runtime"]),
    ("getrandom", &["vfs", "sqlite", "runtime", "admin"]),
    ("libc", &["ffi", "vfs", "sqlite"]),
    ("libsqlite3_sys", &["vfs", "sqlite"]),
    ("lz4_flex", &["format"]),
    ("mio", &["runtime"]),
    ("raft", &["consensus"]),
    ("rustix", &["disk", "runtime"]),
    ("sha1", &["admin"]),
    ("slog", &["consensus"]),
];

const UNSAFE_MODULES: &[&str] = &["ffi", "vfs", "sqlite"];

/// House style asks for about 400 lines; beyond this a file has become two concepts.
const FILE_LINES_MAX: usize = 500;

/// What must not stay anywhere.
const LEFTOVERS: &[&str] =
    &["todo!(", "unimplemented!(", "dbg!(", "#[ignore", "#[should_panic", "TODO", "FIXME", "XXX"];

/// What the library must not do beside that: it shares its process, so it neither prints nor exits; and a lint
/// that no longer applies must show, which `expect` does and `allow` does not.
const LEFTOVERS_OF_THE_LIBRARY: &[&str] =
    &["println!(", " print!(", "process::exit", "process::abort", "allow(unsafe_code", "allow(dead_code"];

struct Source {
    path: PathBuf,
    module: String,
    /// Without the unit tests at the end.
    text: String,
    /// `text` without comments and string contents.
    code: String,
}

impl Source {
    fn new(path: &Path, text: &str) -> Self {
        let inside = path.strip_prefix("src").unwrap_or(path);
        let module = inside.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        let text = without_unit_tests(text).to_owned();
        let code = without_comments_and_strings(&text);
        Self { path: path.to_owned(), module, text, code }
    }
}

/// Unit tests stand at the end of a file, in `mod tests`; what they import and how long they are is their affair.
fn without_unit_tests(text: &str) -> &str {
    for marker in ["\n#[cfg(test)]\nmod tests {", "\n#[cfg(test)]\n#[path"] {
        if let Some(at) = text.find(marker) {
            return &text[..at];
        }
    }
    text
}

/// Replaces comments, string and character literals by nothing, lines kept.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |end| end + 2);
        } else if let Some(hashes) = raw_string(&code, rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = rest.find('"').unwrap() + 1;
            at += rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len());
        } else if rest.starts_with('"') {
            at += quoted_length(rest, b'"');
        } else if rest.starts_with("'\\") || (rest.starts_with('\'') && is_char_literal(rest)) {
            at += quoted_length(rest, b'\'');
        } else {
            let character = rest.chars().next().unwrap();
            code.push(character);
            at += character.len_utf8();
        }
    }
    code
}

/// The number of `#` of a raw string that begins here.
fn raw_string(before: &str, rest: &str) -> Option<usize> {
    let body = rest.strip_prefix('r')?;
    if before.ends_with(|c: char| c.is_alphanumeric() && c != 'b' && c != 'c' || c == '_') {
        return None;
    }
    let hashes = body.len() - body.trim_start_matches('#').len();
    body[hashes..].starts_with('"').then_some(hashes)
}

fn is_char_literal(rest: &str) -> bool {
    let mut characters = rest.chars().skip(1);
    characters.next().is_some_and(|c| c != '\'') && characters.next() == Some('\'')
}

fn quoted_length(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn word_at(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The first path segment after every `crate::`, groups included.
fn crate_imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with('$') || code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(word_at(rest).to_owned());
            continue;
        };
        let (mut depth, mut start) = (1, true);
        for (offset, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => start = true,
                c if start && !c.is_whitespace() => {
                    found.push(word_at(&group[offset..]).to_owned());
                    start = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

/// Whether `word` stands in `code` as a whole word followed by one of `::` or ` as`, or after `use `.
fn mentions_crate(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = &code[..at];
        let after = &code[at + word.len()..];
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':' || c == '.')
            && (after.starts_with("::") || (before.ends_with("use ") && after.starts_with(';')))
    })
}

fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let around = |c: char| c.is_alphanumeric() || c == '_';
        !code[..at].ends_with(around) && !code[at + word.len()..].starts_with(around)
    })
}

fn wrong_imports(source: &Source) -> Vec<String> {
    if source.path == Path::new("src/lib.rs") {
        return Vec::new();
    }
    let place = source.path.display();
    let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == source.module) else {
        return vec![format!("{place}: module '{}' is not in the layout", source.module)];
    };
    let own = crate_imports(&source.code)
        .into_iter()
        .filter(|name| *name != source.module && !allowed.contains(&name.as_str()))
        .map(|name| format!("{place}: '{}' must not import '{name}'", source.module));
    let external = CRATES
        .iter()
        .filter(|(name, users)| {
            mentions_crate(&source.code, name) && !users.contains(&source.module.as_str())
        })
        .map(|(name, users)| format!("{place}: only {users:?} may use the crate '{name}'"));
    own.chain(external).collect()
}

fn misplaced_unsafe(source: &Source) -> Option<String> {
    let may = UNSAFE_MODULES.contains(&source.module.as_str());
    (!may && has_word(&source.code, "unsafe"))
        .then(|| format!("{}: `unsafe` outside {UNSAFE_MODULES:?}", source.path.display()))
}

fn too_long(source: &Source) -> Option<String> {
    let lines = source.text.lines().count();
    (lines > FILE_LINES_MAX).then(|| {
        format!("{}: at most {FILE_LINES_MAX} lines without tests, found {lines}", source.path.display())
    })
}

fn leftovers(path: &Path, text: &str) -> Vec<String> {
    let library = if path.starts_with("src") { LEFTOVERS_OF_THE_LIBRARY } else { &[] };
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for marker in LEFTOVERS.iter().chain(library).filter(|marker| line.contains(*marker)) {
            found.push(format!("{}:{}: left behind: {marker}", path.display(), number + 1));
        }
    }
    found
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file but the ones that hold unit tests only.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    rust_files(Path::new("src"), &mut paths);
    assert!(paths.len() > 10, "the tests run in the folder of the package");
    paths
        .iter()
        .filter(|path| {
            !path.ends_with("tests.rs") && !path.components().any(|part| part.as_os_str() == "tests")
        })
        .map(|path| Source::new(path, &fs::read_to_string(path).unwrap()))
        .collect()
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn modules_import_only_what_the_layout_allows() {
    let sample = |path: &str, text: &str| wrong_imports(&Source::new(Path::new(path), text));
    assert_eq!(sample("src/pages/store.rs", "use crate::base::Index;\nuse crate::pages::Page;"), [""; 0]);
    assert_eq!(sample("src/pages/store.rs", "// crate::vfs\nlet a = \"crate::vfs\";"), [""; 0]);
    assert_eq!(sample("src/pages/store.rs", "use crate::{base::Index, vfs::{a, b}};").len(), 1);
    assert_eq!(sample("src/vfs/mod.rs", "use crate::sqlite::Conn;").len(), 1);
    assert_eq!(sample("src/vfs/mod.rs", "fn f() { mio::net::f(); }").len(), 1);
    assert_eq!(sample("src/vfs/mod.rs", "use crate::base::raft::f;"), [""; 0]);
    assert_eq!(sample("src/elsewhere/mod.rs", "").len(), 1);

    assert_none(&sources().iter().flat_map(wrong_imports).collect::<Vec<_>>());
}

#[test]
fn unsafe_code_stays_in_the_modules_that_may_hold_it() {
    let sample = |path: &str, text: &str| misplaced_unsafe(&Source::new(Path::new(path), text));
    assert_eq!(sample("src/ffi/node.rs", "unsafe { f() }"), None);
    assert_eq!(sample("src/disk/real.rs", "// unsafe\nfn unsafely() {}"), None);
    assert!(sample("src/disk/real.rs", "let x = 'a'; unsafe { f() }").is_some());

    assert_none(&sources().iter().filter_map(misplaced_unsafe).collect::<Vec<_>>());
}

#[test]
fn a_file_is_one_concept() {
    let long = "line\n".repeat(FILE_LINES_MAX + 1);
    assert!(too_long(&Source::new(Path::new("src/base/a.rs"), &long)).is_some());
    let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(too_long(&Source::new(Path::new("src/base/a.rs"), &tested)), None);

    assert_none(&sources().iter().filter_map(too_long).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_behind() {
    let sample =
        |path: &str, marker: &str| leftovers(Path::new(path), &format!("fn a() {{ {marker}) }}")).len();
    assert_eq!(sample("src/base/a.rs", LEFTOVERS[0]), 1);
    assert_eq!(sample("tests/a.rs", LEFTOVERS[0]), 1);
    assert_eq!(sample("src/base/a.rs", LEFTOVERS_OF_THE_LIBRARY[0]), 1);
    assert_eq!(sample("tests/a.rs", LEFTOVERS_OF_THE_LIBRARY[0]), 0);

    let mut paths = Vec::new();
    for folder in ["src", "tests"] {
        rust_files(Path::new(folder), &mut paths);
    }
    let found: Vec<_> = paths
        .iter()
        .filter(|path| !path.ends_with("tidy.rs"))
        .flat_map(|path| leftovers(path, &fs::read_to_string(path).unwrap()))
        .collect();
    assert_none(&found);
}
