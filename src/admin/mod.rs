//! What a program does to a node from outside: settings before the start, recovery of a stopped node, and the
//! managed server that keeps its own files.

pub mod config;
pub mod failure;
pub mod member;
pub mod server_files;

pub use config::NodeConfig;
pub use failure::{Code, Failure};
