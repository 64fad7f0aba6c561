//! `delayed`: messages that are published later, in the order in which they are due.
//!
//! ```text
//! due in Unix milliseconds u64 │ message: node u64 │ incarnation u32 │ seq u64
//! ```

use verge_model::{MessageId, UnixMillis};

use super::{Key, KeyBuf, KeyError, Reader, Row};
use crate::family::Family;
use crate::record::DelayedRecord;

/// The key of a message that is published later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DelayedKey {
    /// When it is published.
    pub due_at: UnixMillis,
    /// The message.
    pub message: MessageId,
}

impl Key for DelayedKey {
    const FAMILY: Family = Family::Delayed;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::from_slice(&self.due_at.0.to_be_bytes());
        out.extend_from_slice(&self.message.to_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self { due_at: UnixMillis(fields.u64()?), message: fields.message()? };
        fields.end()?;
        Ok(key)
    }
}

impl Row for DelayedKey {
    type Record = DelayedRecord;
}

#[cfg(test)]
mod tests {
    use verge_model::NodeKey;

    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_when_they_are_due_then_by_message() {
        let key = |due_at, seq| DelayedKey {
            due_at: UnixMillis(due_at),
            message: MessageId { node: NodeKey(1), incarnation: 1, seq },
        };
        order::holds(&[key(255, 9), key(256, 1), key(256, 2), key(1 << 40, 0)]);
        order::fixed_length(&key(1, 1), 28);
    }
}
