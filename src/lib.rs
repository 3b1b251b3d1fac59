//! A drop-in replacement for libdqlite: SQLite, replicated with Raft, embedded in the user's process.
//!
//! The C API of `include/dqlite.h` is the only stable interface. The modules are public so that tests,
//! benches, fuzzers and the simulator reach them; each may import only modules declared above it.

#[doc(hidden)]
pub mod admin;
#[doc(hidden)]
pub mod base;
#[doc(hidden)]
pub mod codec;
#[doc(hidden)]
pub mod consensus;
#[doc(hidden)]
pub mod disk;
#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod ffi;
#[doc(hidden)]
pub mod format;
#[doc(hidden)]
pub mod node;
#[doc(hidden)]
pub mod pages;
#[doc(hidden)]
pub mod roles;
#[doc(hidden)]
pub mod runtime;
#[doc(hidden)]
pub mod session;
#[doc(hidden)]
pub mod sqlite;
#[doc(hidden)]
pub mod storage;
#[doc(hidden)]
pub mod vfs;
