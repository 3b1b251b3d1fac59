//! `LIBDQLITE_TRACE`: log lines on stderr, for the whole process and for good.
//!
//! A Rust program that has set a logger of its own keeps it; then the variable has no effect.
#![expect(clippy::disallowed_methods, reason = "a log line carries the wall clock")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Once;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// A longer message is cut.
const MESSAGE_BYTES_MAX: usize = 1023;

/// Turns tracing on when `LIBDQLITE_TRACE` is set to anything, even nothing. Called at start and recover, and when a call
/// before them fails.
pub fn install_from_environment() {
    static INSTALLED: Once = Once::new();
    if let Some(value) = std::env::var_os("LIBDQLITE_TRACE") {
        INSTALLED.call_once(|| {
            // Fails where the program has a logger: then that one shall have the lines.
            if log::set_logger(&Stderr).is_ok() {
                log::set_max_level(level(&value.to_string_lossy()));
            }
        });
    }
}

/// A line about a call that failed before a start turned tracing on: nobody else would say why.
pub fn tell_of_refusal(text: impl std::fmt::Display) {
    install_from_environment();
    log::warn!("{text}");
}

/// The number in front of the text is the lowest level that is shown: 1 debug to 5 fatal, anything else is all.
fn level(value: &str) -> LevelFilter {
    let digits = value.trim_start();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    match digits.get(..end).and_then(|number| number.parse::<u32>().ok()) {
        Some(1) => LevelFilter::Debug,
        Some(2) => LevelFilter::Info,
        Some(3) => LevelFilter::Warn,
        Some(4) => LevelFilter::Error,
        Some(5) => LevelFilter::Off,
        _ => LevelFilter::Trace,
    }
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let thread = std::thread::current();
            let line = line(now, std::process::id(), thread.name().unwrap_or("-"), record);
            // Nobody is left to tell when stderr is gone.
            drop(std::io::stderr().write_all(line.as_bytes()));
        }
    }

    fn flush(&self) {}
}

fn line(now: Duration, pid: u32, thread: &str, record: &Record<'_>) -> String {
    let seconds = now.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let level = match record.level() {
        Level::Error => "ERROR",
        Level::Warn => "WARN",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
        Level::Trace => "TRACE",
    };
    let mut line = format!(
        "LIBDQLITE[{pid:06}] {year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09} {thread:<15} \
         {level:<7} {:<20} {}:{:<3} ",
        now.subsec_nanos(),
        record.target().rsplit("::").next().unwrap_or_default(),
        record.file().unwrap_or("-"),
        record.line().unwrap_or(0),
    );
    let message_at = line.len();
    // Writing to a string cannot fail, but a Display of the message may; then the line ends there.
    let _ = write!(line, "{}", record.args());
    let mut end = line.len().min(message_at + MESSAGE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line.truncate(end);
    line.push('\n');
    line
}

/// The date of a day counted from 1970-01-01 (the algorithm of the proleptic Gregorian calendar with years
/// that begin in March, so that the leap day is the last of its year).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use log::{Level, LevelFilter, Record};

    use super::{civil_date, level, line};

    #[test]
    fn the_value_is_the_lowest_level_shown_and_anything_else_shows_all() {
        for (value, shown) in [
            ("1", LevelFilter::Debug),
            (" 2x", LevelFilter::Info),
            ("3", LevelFilter::Warn),
            ("4", LevelFilter::Error),
            ("5", LevelFilter::Off),
            ("6", LevelFilter::Trace),
            ("0", LevelFilter::Trace),
            ("-1", LevelFilter::Trace),
            ("yes", LevelFilter::Trace),
            ("", LevelFilter::Trace),
        ] {
            assert_eq!(level(value), shown, "for '{value}'");
        }
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (19_675, (2023, 11, 14)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(civil_date(days), date, "{days} days");
        }
    }

    #[test]
    fn a_line_carries_process_time_thread_level_and_place() {
        let now = Duration::new(1_700_000_000, 123_456_789);
        let record = Record::builder()
            .args(format_args!("hello"))
            .level(Level::Debug)
            .target("dqlite::runtime::shell")
            .file(Some("src/a.rs"))
            .line(Some(7))
            .build();
        assert_eq!(
            line(now, 42, "loop", &record),
            "LIBDQLITE[000042] 2023-11-14T22:13:20.123456789 loop            DEBUG   shell                \
             src/a.rs:7   hello\n"
        );
    }

    #[test]
    fn a_long_message_is_cut() {
        let long = "é".repeat(600);
        let cut = line(
            Duration::ZERO,
            1,
            "t",
            &Record::builder().args(format_args!("{long}")).level(Level::Info).build(),
        );
        assert_eq!(cut.matches('é').count(), 511);
    }
}
