//! What several tests need. Each test program compiles it for itself and uses a part of it.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods, reason = "reads the transcripts of the package")]

pub mod capture;
pub mod client;
pub mod cluster;
pub mod datadir;
pub mod links;
pub mod local;
pub mod node;
pub mod tap;
pub mod transcript;
pub mod wire;
