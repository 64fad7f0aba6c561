//! `forward`: one log per peer and class, of what the peer must still take.
//!
//! ```text
//! peer u64 │ class u8 │ seq u64
//! ```

use verge_model::{Class, NodeKey};

use super::{Key, KeyBuf, KeyError, Reader};
use crate::family::Family;

/// The key of a row of a forward log. The store gives `seq` at commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForwardKey {
    /// The peer.
    pub peer: NodeKey,
    /// The class.
    pub class: Class,
    /// From 1, without gaps.
    pub seq: u64,
}

impl Key for ForwardKey {
    const FAMILY: Family = Family::Forward;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::from_slice(&self.peer.0.to_be_bytes());
        out.push(self.class as u8);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self { peer: fields.node()?, class: fields.class()?, seq: fields.u64()? };
        fields.end()?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_peer_then_class_then_seq() {
        let key = |peer, class, seq| ForwardKey { peer: NodeKey(peer), class, seq };
        order::holds(&[
            key(1, Class::Safety, 255),
            key(1, Class::Safety, 256),
            key(1, Class::Bulk, 1),
            key(2, Class::Safety, 1),
        ]);
        order::fixed_length(&key(1, Class::Control, 1), 17);
        let mut unknown = key(1, Class::Safety, 1).encode();
        unknown[8] = 4;
        assert_eq!(ForwardKey::decode(&unknown), Err(KeyError::NoClass(4)));
    }
}
