//! SQLite itself on the VFS, in the ways an engine uses it.

mod connections;
mod differential;
mod file;
mod harness;
mod methods;
mod temporary;
mod transactions;
