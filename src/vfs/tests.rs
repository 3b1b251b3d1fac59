//! SQLite itself on the VFS, in the ways an engine uses it.

mod differential;
mod harness;
mod methods;
mod temporary;
mod transactions;
