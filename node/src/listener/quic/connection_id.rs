//! Connection ids: what a packet is addressed to, whatever path it takes.
//!
//! ```text
//! | socket, 1 byte | node, 2 bytes, obscured | random, 5 bytes |
//! ```
//!
//! The first byte is for a host that serves one port by several sockets; this node has one, so it
//! is random. The node's bytes let a neighbour or a load balancer that knows the mesh send a stray
//! packet home. They are obscured by the random bytes, so that ids of one connection share nothing
//! that can be seen on the path; they are no secret from whoever knows this rule, and need not be:
//! the node's address tells as much.

use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::RngExt;

/// Length of our connection ids in bytes.
pub const LENGTH: usize = 8;

/// Makes the ids of one node.
#[derive(Debug, Clone, Copy)]
pub struct NodeIds {
    node: u16,
}

impl NodeIds {
    /// For the node with this key, of which the lowest 16 bits are used.
    #[must_use]
    pub fn new(key: u64) -> Self {
        Self { node: (key & 0xffff) as u16 }
    }

    /// The id made of these random bytes.
    fn id(self, random: [u8; LENGTH]) -> [u8; LENGTH] {
        let mut id = random;
        let obscured = self.node ^ mask(&random);
        id[1..3].copy_from_slice(&obscured.to_be_bytes());
        id
    }
}

/// The node that gave an id, by the lowest 16 bits of its key.
#[must_use]
pub fn node_of(id: &[u8; LENGTH]) -> u16 {
    u16::from_be_bytes([id[1], id[2]]) ^ mask(id)
}

/// 16 bits of the random bytes, by FNV-1a.
fn mask(id: &[u8; LENGTH]) -> u16 {
    let hash = id[3..]
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    ((hash >> 16) ^ (hash & 0xffff)) as u16
}

impl ConnectionIdGenerator for NodeIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.id(rand::rng().random()))
    }

    fn cid_len(&self) -> usize {
        LENGTH
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        // Ids do not age: a client that sleeps for an hour must find its connection again.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_its_node_and_two_ids_look_unlike() {
        let ids = NodeIds::new(0xdead_beef_1234_5678);
        let one = ids.id([1, 2, 3, 4, 5, 6, 7, 8]);
        let other = ids.id([1, 2, 3, 4, 5, 6, 7, 9]);
        assert_eq!((node_of(&one), node_of(&other)), (0x5678, 0x5678));
        assert_ne!(one[1..3], other[1..3]);
        assert_ne!(node_of(&NodeIds::new(1).id([1, 2, 3, 4, 5, 6, 7, 8])), 0x5678);
    }
}
