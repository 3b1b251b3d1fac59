//! Consensus driven by a disk that answers late, crashes, runs full, and by peers made of the same code.

mod cluster;
mod commits;
mod fence;
mod harness;
mod members;
mod odd;
mod peers;
mod peers_say;
mod raft_rs;
mod random;
mod reads;
mod rival;
mod room;
mod sim;
mod single;
mod snapshots;
mod stuck;
mod wire;
mod world;
