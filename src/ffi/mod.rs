//! The C API of `include/dqlite.h`, one file per concern, no logic: arguments are converted, one call is made,
//! and neither a null pointer nor a panic gets past [`guard`].
//!
//! The doc comments of exported items are written for readers of the header: they become its comments.

pub mod config;
pub mod errors;
pub mod guard;
pub mod handle;
pub mod node;
pub mod recover;
pub mod server;
pub mod version;
