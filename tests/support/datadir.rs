//! Golden data directories, and databases rebuilt from what was loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dqlite::base::{EntryKind, Index};
use dqlite::codec::command::Command;
use dqlite::format::snapshot::SnapshotDatabase;
use dqlite::storage::loader::Loaded;
use serde_json::Value;

/// One golden directory.
pub struct Golden {
    /// What it is called.
    pub name: String,
    /// The files with their full sizes.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What an independent decoder found.
    pub expected: Value,
    /// What the C libraries did with a damaged one.
    pub observed: Vec<Value>,
}

/// All golden directories.
pub fn load_all() -> Vec<Golden> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/datadir");
    let mut paths: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 80, "the golden directories are not there");
    paths.iter().map(|path| load(path)).collect()
}

fn load(path: &Path) -> Golden {
    let json = |name: &str| -> Option<Value> {
        let text = fs::read_to_string(path.join(name)).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path.join("data")).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            let name = entry.file_name().into_string().unwrap();
            files.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    for (name, size) in json("sizes.json").unwrap().as_object().unwrap() {
        let size = usize::try_from(size.as_u64().unwrap()).unwrap();
        files.get_mut(name).unwrap().resize(size, 0);
    }
    Golden {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        files,
        expected: json("expected.json").unwrap(),
        observed: json("observed.json").map(|found| found.as_array().unwrap().clone()).unwrap_or_default(),
    }
}

/// The pages of one database.
#[derive(Clone, Default)]
pub struct Image {
    pages: BTreeMap<u32, Vec<u8>>,
    count: u32,
    page_size: u32,
}

impl Image {
    fn of_snapshot(database: &SnapshotDatabase) -> Self {
        let pages = (1..).zip(database.pages.iter().map(|page| page.to_vec())).collect();
        Self { pages, count: database.n_pages, page_size: database.page_size }
    }

    /// The whole file.
    pub fn bytes(&self) -> Vec<u8> {
        let blank = vec![0; self.page_size as usize];
        (1..=self.count).flat_map(|number| self.pages.get(&number).unwrap_or(&blank).clone()).collect()
    }

    /// `count(*)` and `max(a)` of table t; nothing when there is no such table.
    pub fn rows(&self) -> Option<(i64, Option<i64>)> {
        let mut bytes = self.bytes();
        // Without a WAL beside it, SQLite opens the file in rollback mode only.
        bytes[18..20].fill(1);
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let connection = rusqlite::Connection::open(file.path()).unwrap();
        let one = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
        let count = one("SELECT count(*) FROM t").ok()??;
        Some((count, one("SELECT max(a) FROM t").unwrap_or(None)))
    }
}

/// All databases after the snapshot and every entry behind it.
pub fn rebuild(loaded: &Loaded) -> BTreeMap<String, Image> {
    rebuild_up_to(loaded, loaded.last_index)
}

/// All databases after the snapshot and the entries behind it up to `last`.
pub fn rebuild_up_to(loaded: &Loaded, last: Index) -> BTreeMap<String, Image> {
    let mut images = BTreeMap::new();
    let mut start = 0;
    if let Some(snapshot) = &loaded.snapshot {
        start = snapshot.index.0;
        for database in &snapshot.databases {
            let name = String::from_utf8(database.name.clone()).unwrap();
            images.insert(name, Image::of_snapshot(database));
        }
    }
    for entry in &loaded.entries {
        if entry.index.0 <= start || entry.index > last || entry.kind != EntryKind::Command {
            continue;
        }
        let payload = entry.payload.contiguous();
        let Command::Frames(frames) = Command::decode(&payload).unwrap() else { continue };
        let name = String::from_utf8(frames.filename.to_vec()).unwrap();
        let image = images.entry(name.clone()).or_insert_with(Image::default);
        image.page_size = frames.page_size;
        for (number, page) in &frames.pages {
            image.pages.insert(number.0, page.to_vec());
            if number.0 == 1 {
                image.count = u32::from_be_bytes(page[28..32].try_into().unwrap());
            }
        }
        if image.count == 0 {
            images.remove(&name);
        }
    }
    images
}
