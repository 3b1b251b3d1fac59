//! SQLite's result codes, and the error type that carries them.

use std::fmt;

/// Success.
pub const OK: i32 = 0;
/// A generic error; the text says which.
pub const ERROR: i32 = 1;
/// Another connection holds the writer slot.
pub const BUSY: i32 = 5;
/// The statement was interrupted.
pub const INTERRUPT: i32 = 9;
/// The database, or a limit on it, is full.
pub const FULL: i32 = 13;
/// A database could not be opened.
pub const CANTOPEN: i32 = 14;
/// A text or a blob is too long.
pub const TOOBIG: i32 = 18;
/// The library was used wrongly, or configured too late.
pub const MISUSE: i32 = 21;
/// The authorizer refused.
pub const AUTH: i32 = 23;
/// The snapshot that a transaction read is older than the last write.
pub const BUSY_SNAPSHOT: i32 = 517;
/// This node does not lead: `SQLITE_IOERR` with a number of dqlite's own.
pub const IOERR_NOT_LEADER: i32 = 10250;
/// This node stopped leading during a commit: `SQLITE_IOERR` with a number of dqlite's own.
pub const IOERR_LEADERSHIP_LOST: i32 = 10506;

/// What SQLite says about a call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// The extended result code.
    pub code: i32,
    /// SQLite's text: bytes, since it quotes what it was given.
    pub message: Vec<u8>,
}

impl SqlError {
    /// An error with this code and text.
    #[must_use]
    pub fn new(code: i32, message: impl Into<Vec<u8>>) -> Self {
        Self { code, message: message.into() }
    }

    /// The code without its extension.
    #[must_use]
    pub fn primary(&self) -> i32 {
        self.code & 0xff
    }
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLite code {})", String::from_utf8_lossy(&self.message), self.code)
    }
}

impl std::error::Error for SqlError {}
