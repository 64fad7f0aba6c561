//! Names of messages.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node_id::NodeKey;

/// A node's boot counter, persisted before the node talks to anyone.
pub type Incarnation = u32;

/// The name a message keeps everywhere inside the mesh, given by the node that accepted its
/// PUBLISH. It is the key by which replays, late forwards and imports are deduplicated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId {
    /// The node that accepted the message.
    pub node: NodeKey,
    /// Which life of that node.
    pub incarnation: Incarnation,
    /// Count of messages accepted in that life, from 1.
    pub seq: u64,
}

impl MessageId {
    /// Length of [`MessageId::to_bytes`].
    pub const BYTES: usize = 20;

    /// Big-endian bytes, so that byte order is (node, incarnation, seq) order.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.node.0.to_be_bytes());
        out[8..12].copy_from_slice(&self.incarnation.to_be_bytes());
        out[12..].copy_from_slice(&self.seq.to_be_bytes());
        out
    }

    /// The inverse of [`MessageId::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [n0, n1, n2, n3, n4, n5, n6, n7, i0, i1, i2, i3, s @ ..] = bytes;
        Self {
            node: NodeKey(u64::from_be_bytes([n0, n1, n2, n3, n4, n5, n6, n7])),
            incarnation: u32::from_be_bytes([i0, i1, i2, i3]),
            seq: u64::from_be_bytes(s),
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.node, self.incarnation, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_keep_order_and_content() {
        let small = MessageId { node: NodeKey(1), incarnation: 2, seq: u64::from(u32::MAX) };
        let large = MessageId { node: NodeKey(1), incarnation: 2, seq: u64::from(u32::MAX) + 1 };
        assert!(small.to_bytes() < large.to_bytes());
        assert_eq!(MessageId::from_bytes(large.to_bytes()), large);
    }
}
