//! `seen`: messages a session had, by name.
//!
//! ```text
//! session number u64 │ message id: node u64, incarnation u32, seq u64
//! ```

use verge_model::MessageId;

use super::{Key, KeyBuf, KeyError, KeyRange, Reader, Row};
use crate::family::Family;
use crate::record::SeenRecord;

/// The key of a mark that a session had a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenKey {
    /// The session.
    pub session_no: u64,
    /// The message.
    pub message: MessageId,
}

impl SeenKey {
    /// The marks of one session.
    #[must_use]
    pub fn of(session_no: u64) -> KeyRange {
        KeyRange::prefix(&session_no.to_be_bytes())
    }
}

impl Key for SeenKey {
    const FAMILY: Family = Family::Seen;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::from_slice(&self.session_no.to_be_bytes());
        out.extend_from_slice(&self.message.to_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self { session_no: fields.u64()?, message: fields.message()? };
        fields.end()?;
        Ok(key)
    }
}

impl Row for SeenKey {
    type Record = SeenRecord;
}

#[cfg(test)]
mod tests {
    use verge_model::NodeKey;

    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_session_then_message() {
        let key = |session_no, node, incarnation, seq| SeenKey {
            session_no,
            message: MessageId { node: NodeKey(node), incarnation, seq },
        };
        order::holds(&[key(1, 1, 2, 9), key(1, 1, 3, 1), key(1, 2, 0, 0), key(2, 0, 0, 0)]);
        order::fixed_length(&key(1, 1, 1, 1), 28);
        assert!(SeenKey::of(1).contains(&key(1, u64::MAX, 0, 0).encode()));
    }
}
