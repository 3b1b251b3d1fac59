//! Codes and the error message as C sees them.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::admin::{Code, Failure};

/// `DQLITE_OK`.
pub const OK: c_int = 0;
/// `DQLITE_ERROR`.
pub const ERROR: c_int = 1;
/// `DQLITE_MISUSE`.
pub const MISUSE: c_int = 2;
/// `DQLITE_NOMEM`.
pub const NOMEM: c_int = 3;

/// Bytes of the buffer behind `dqlite_node_errmsg`, the final NUL included, as in C.
const ERROR_TEXT_BYTES: usize = 300;

/// The one map from failures to codes.
#[must_use]
pub fn code(failure: &Failure) -> c_int {
    match failure.code {
        Code::Error => ERROR,
        Code::Misuse => MISUSE,
        Code::NoMemory => NOMEM,
    }
}

/// The last error message of a node, lent to C for as long as the node lives.
///
/// A program may read it from one thread while another call fails in a second one: it may then see a mixture
/// of two texts, but always one that ends.
pub struct ErrorText([AtomicU8; ERROR_TEXT_BYTES]);

impl ErrorText {
    /// The empty text.
    #[must_use]
    pub fn new() -> Self {
        Self([const { AtomicU8::new(0) }; ERROR_TEXT_BYTES])
    }

    /// Replaces the text; what does not fit is cut, as is everything from a NUL on.
    pub fn set(&self, text: &str) {
        let bytes = text.bytes().take_while(|byte| *byte != 0).chain(std::iter::repeat(0));
        let Some((_last, body)) = self.0.split_last() else { return };
        for (place, byte) in body.iter().zip(bytes) {
            place.store(byte, Ordering::Relaxed);
        }
    }

    /// What C reads.
    #[must_use]
    pub fn as_ptr(&self) -> *const c_char {
        self.0.as_ptr().cast()
    }
}

impl Default for ErrorText {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &ErrorText) -> String {
        let bytes: Vec<u8> = error.0.iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        let end = bytes.iter().position(|byte| *byte == 0).expect("the text ends");
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    }

    #[test]
    fn a_text_has_at_most_299_bytes_and_a_shorter_one_leaves_nothing_of_the_last() {
        let error = ErrorText::new();
        assert_eq!(text(&error), "");
        error.set(&"x".repeat(400));
        assert_eq!(text(&error), "x".repeat(299));
        error.set("short");
        assert_eq!(text(&error), "short");
        error.set("cut\0here");
        assert_eq!(text(&error), "cut");
    }
}
