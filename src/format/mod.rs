//! The bytes of each file of the data directory, and what a start makes of them. No disk access here.
//!
//! Texts of errors begin with C's, which programs and people know; what was expected, what was found and what
//! to do follows.

pub mod lz4;
pub mod metadata;
pub mod names;
pub mod recovery;
pub mod segment;
pub mod snapshot;

use std::fmt;

/// How C classes a defect; auto-recovery exists for [`Class::Corrupt`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Content that cannot be: a wrong checksum, a wrong count.
    Corrupt,
    /// Bytes that are not there.
    Io,
    /// Content of a kind that is not known.
    Malformed,
}

/// A defect of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatError {
    /// C's class.
    pub class: Class,
    /// C's text first, where C has one.
    pub text: String,
}

impl FormatError {
    /// A defect of this class.
    #[must_use]
    pub fn new(class: Class, text: impl Into<String>) -> Self {
        Self { class, text: text.into() }
    }

    /// The same defect, `prefix` before its text.
    #[must_use]
    pub fn within(mut self, prefix: &str) -> Self {
        self.text.insert_str(0, prefix);
        self
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for FormatError {}
