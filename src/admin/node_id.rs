//! Ids for new nodes.

use sha1::{Digest, Sha1};

use crate::base::NodeId;
use crate::runtime::clock;

/// An id for a node that is made now.
#[must_use]
pub fn generate_now(address: &[u8]) -> NodeId {
    generate(address, clock::wall_ns())
}

/// The id for a node with this address that is made at this time: the end of a SHA-1 hash of both, so that ids
/// of different nodes differ and none is handed out twice.
#[must_use]
pub fn generate(address: &[u8], wall_ns: u64) -> NodeId {
    let digest = Sha1::new().chain_update(address).chain_update(wall_ns.to_le_bytes()).finalize();
    NodeId(digest.iter().rev().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::generate;
    use crate::base::{NodeId, ids::BOOTSTRAP_IDS};

    #[test]
    fn ids_are_those_of_the_c_library() {
        let time = 1_700_000_000_123_456_789;
        assert_eq!(generate(b"127.0.0.1:9000", time), NodeId(17_947_930_857_413_039_697));
        assert_eq!(generate(b"", time), NodeId(12_191_344_549_884_751_663));
        assert_eq!(generate(b"1", 0), BOOTSTRAP_IDS[1]);
    }
}
