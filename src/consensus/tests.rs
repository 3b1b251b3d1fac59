//! Consensus driven by a disk that answers late, crashes, runs full, and by peers made of the same code.

mod cluster;
mod harness;
mod members;
mod peers;
mod random;
mod room;
mod single;
mod stuck;
mod wire;
