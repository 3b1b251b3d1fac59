//! How a call of the C API fails.

use std::fmt;

use crate::runtime::trace;

/// What the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Something went wrong.
    Error,
    /// The call, or an argument, is not allowed.
    Misuse,
    /// There is not enough memory, or an amount of it that cannot be had was asked for.
    NoMemory,
}

/// A code, and the text for `dqlite_node_errmsg` if the call sets one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the call returns.
    pub code: Code,
    /// The new error message; `None` leaves the old one as it is.
    pub text: Option<String>,
}

impl Failure {
    /// `DQLITE_ERROR`, with a text.
    pub fn error(text: impl Into<String>) -> Self {
        Self { code: Code::Error, text: Some(text.into()) }
    }

    /// `DQLITE_MISUSE`, with a text.
    pub fn misuse(text: impl Into<String>) -> Self {
        Self { code: Code::Misuse, text: Some(text.into()) }
    }

    /// A code that leaves the error message as it is, since programs expect that of the call. The log has the text.
    pub fn logged(code: Code, text: impl fmt::Display) -> Self {
        trace::tell_of_refusal(text);
        Self::silent(code)
    }

    /// The same where programs expect of the call that the error message stays as it is: the log has the text.
    #[must_use]
    pub fn to_log(self) -> Self {
        match self.text {
            Some(text) => Self::logged(self.code, text),
            None => self,
        }
    }

    /// A code that leaves the error message as it is.
    #[must_use]
    pub fn silent(code: Code) -> Self {
        Self { code, text: None }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.text {
            Some(text) => f.write_str(text),
            None => write!(f, "{:?}", self.code),
        }
    }
}

impl std::error::Error for Failure {}
