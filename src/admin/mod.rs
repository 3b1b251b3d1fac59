//! What a program does to a node from outside: settings before the start, recovery of a stopped node, and the
//! managed server that keeps its own files.

mod backup;
pub mod config;
pub mod directory;
pub mod failure;
pub mod member;
pub mod node;
pub mod node_id;
pub mod recover;
pub mod server;
pub mod server_files;

pub use config::NodeConfig;
pub use failure::{Code, Failure};
pub use node::Node;
pub use server::Server;
