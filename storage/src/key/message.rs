//! `message`: messages some queue row names, once each.
//!
//! ```text
//! node u64 │ incarnation u32 │ seq u64
//! ```

use verge_model::MessageId;

use super::{Key, KeyBuf, KeyError, Reader, Row};
use crate::family::Family;
use crate::record::StoredMessage;

/// The key of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MessageKey(pub MessageId);

impl Key for MessageKey {
    const FAMILY: Family = Family::Message;

    fn encode(&self) -> KeyBuf {
        KeyBuf::from_slice(&self.0.to_bytes())
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self(fields.message()?);
        fields.end()?;
        Ok(key)
    }
}

impl Row for MessageKey {
    type Record = StoredMessage;
}

#[cfg(test)]
mod tests {
    use verge_model::NodeKey;

    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_node_then_incarnation_then_seq() {
        let key = |node, incarnation, seq| {
            MessageKey(MessageId { node: NodeKey(node), incarnation, seq })
        };
        order::holds(&[key(1, 1, 256), key(1, 2, 1), key(1, 2, 255), key(1, 2, 256), key(2, 0, 0)]);
        order::fixed_length(&key(1, 1, 1), 20);
    }
}
