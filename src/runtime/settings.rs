//! What users may tune beside the C API: environment variables, read once when a node is created.
//!
//! | Variable | Values | Default |
//! |---|---|---|
//! | `LIBDQLITE_SQLITE_THREADS` | `auto`, `keep`, `lock`, `free` | `auto` |
//! | `LIBDQLITE_WRITER_PATIENCE_MS` | milliseconds a writer waits when the program set no busy timeout | 10000 |
//! | `LIBDQLITE_SLOT_IDLE_MS` | milliseconds a transaction may idle on the writer slot while others wait; 0: for ever | 60000 |
//! | `LIBDQLITE_READER_AGE_MS` | milliseconds a reader may stay on an old version whatever that keeps in memory | 60000 |
//! | `LIBDQLITE_READER_OLD_MIB` | MiB of replaced pages per database that older readers may keep; beyond they are interrupted | 64 |
//! | `LIBDQLITE_SQL_WORKERS` | threads that run SQL while statements are short, 1 to 64 | 2 |
//! | `LIBDQLITE_METRICS` | `ADDR:PORT` or `@NAME` where figures are told over HTTP | none |
//! | `LIBDQLITE_SERVER_REFRESH_MS` | milliseconds from one refresh of a server's list of servers to the next | 30000 |

use std::time::Duration;

use super::address::parse_bind;
use crate::base::limits;
use crate::node::readers::ReaderLimits;
use crate::sqlite::threads;

/// The settings of one node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What to do about SQLite's threading mode.
    pub sqlite_threads: threads::Setting,
    /// How long a writer waits when the program set no busy timeout.
    pub writer_patience: Duration,
    /// How long a transaction may idle on the writer slot while others wait.
    pub slot_idle: Option<Duration>,
    /// What readers of old versions may keep in memory.
    pub readers: ReaderLimits,
    /// Threads that run SQL while statements are short.
    pub sql_workers: usize,
    /// Where figures are told.
    pub metrics: Option<String>,
    /// From one refresh of a managed server's list of servers to the next.
    pub server_refresh: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sqlite_threads: threads::Setting::Auto,
            writer_patience: limits::WRITER_PATIENCE,
            slot_idle: Some(limits::SLOT_IDLE_MAX),
            readers: ReaderLimits::default(),
            sql_workers: 2,
            metrics: None,
            server_refresh: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// The settings that `lookup` finds, usually in the process's environment.
    ///
    /// # Errors
    /// A variable holds something else than it may: the text says which, and what it may hold.
    pub fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut settings = Self::default();
        if let Some(value) = lookup("LIBDQLITE_SQLITE_THREADS") {
            settings.sqlite_threads = threads::Setting::parse(&value).ok_or_else(|| {
                format!("LIBDQLITE_SQLITE_THREADS: auto, keep, lock or free expected, found '{value}'")
            })?;
        }
        if let Some(ms) = number(&lookup, "LIBDQLITE_WRITER_PATIENCE_MS", 0, 3_600_000)? {
            settings.writer_patience = Duration::from_millis(ms);
        }
        if let Some(ms) = number(&lookup, "LIBDQLITE_SLOT_IDLE_MS", 0, 86_400_000)? {
            settings.slot_idle = (ms > 0).then(|| Duration::from_millis(ms));
        }
        if let Some(ms) = number(&lookup, "LIBDQLITE_READER_AGE_MS", 100, 86_400_000)? {
            settings.readers.age = Duration::from_millis(ms);
        }
        if let Some(mib) = number(&lookup, "LIBDQLITE_READER_OLD_MIB", 1, 1 << 20)? {
            settings.readers.bytes = mib << 20;
        }
        if let Some(count) = number(&lookup, "LIBDQLITE_SQL_WORKERS", 1, 64)? {
            settings.sql_workers = usize::try_from(count).unwrap_or(1);
        }
        if let Some(value) = lookup("LIBDQLITE_METRICS").filter(|value| !value.is_empty()) {
            parse_bind(value.as_bytes()).map_err(|error| format!("LIBDQLITE_METRICS: {error}"))?;
            settings.metrics = Some(value);
        }
        if let Some(ms) = number(&lookup, "LIBDQLITE_SERVER_REFRESH_MS", 1, 86_400_000)? {
            settings.server_refresh = Duration::from_millis(ms);
        }
        Ok(settings)
    }

    /// The settings of the process's environment.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_environment() -> Result<Self, String> {
        Self::read(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }
}

fn number(
    lookup: &impl Fn(&str) -> Option<String>,
    name: &str,
    min: u64,
    max: u64,
) -> Result<Option<u64>, String> {
    let Some(value) = lookup(name) else { return Ok(None) };
    match value.parse::<u64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(Some(number)),
        _ => Err(format!("{name}: a number from {min} to {max} expected, found '{value}'")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Settings;

    #[test]
    fn without_variables_the_defaults_hold() {
        let settings = Settings::read(|_| None).unwrap();
        assert_eq!(settings.writer_patience, Duration::from_secs(10));
        assert_eq!(settings.slot_idle, Some(Duration::from_secs(60)));
        assert_eq!(settings.sql_workers, 2);
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_was_expected_and_found() {
        let refused = Settings::read(|name| (name == "LIBDQLITE_SQL_WORKERS").then(|| "0".to_owned()));
        assert_eq!(refused.unwrap_err(), "LIBDQLITE_SQL_WORKERS: a number from 1 to 64 expected, found '0'");
        let refused = Settings::read(|name| (name == "LIBDQLITE_SQLITE_THREADS").then(|| "x".to_owned()));
        assert_eq!(
            refused.unwrap_err(),
            "LIBDQLITE_SQLITE_THREADS: auto, keep, lock or free expected, found 'x'"
        );
    }

    #[test]
    fn figures_are_told_where_there_is_an_address() {
        let metrics = |value: &str| {
            Settings::read(|name| (name == "LIBDQLITE_METRICS").then(|| value.to_owned()))
                .map(|settings| settings.metrics)
        };
        assert_eq!(metrics("").unwrap(), None);
        for value in ["127.0.0.1:9000", "@name", "[::1]:0"] {
            assert_eq!(metrics(value).unwrap().as_deref(), Some(value));
        }
        assert_eq!(
            metrics("somewhere").unwrap_err(),
            "LIBDQLITE_METRICS: address: a numeric IPv4 or IPv6 address expected, found 'somewhere'"
        );
    }

    #[test]
    fn zero_idle_time_means_for_ever() {
        let settings =
            Settings::read(|name| (name == "LIBDQLITE_SLOT_IDLE_MS").then(|| "0".to_owned())).unwrap();
        assert_eq!(settings.slot_idle, None);
    }
}
