//! `timer`: when a session without a connection is to be looked at.
//!
//! ```text
//! due u64, milliseconds since 1970 │ session number u64
//! ```
//!
//! A session has at most one such row; which one is
//! [`SessionRecord::attention`](crate::record::SessionRecord::attention).

use verge_model::UnixMillis;

use super::{Key, KeyBuf, KeyError, KeyRange, Reader, Row};
use crate::family::Family;
use crate::record::TimerRecord;

/// When a session is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimerKey {
    /// When: a moment, or one of those below.
    pub due: UnixMillis,
    /// The session.
    pub session_no: u64,
}

impl TimerKey {
    /// Before a node serves: a log is on its way to or from another node.
    pub const MOVING: UnixMillis = UnixMillis(0);

    /// After a start: the client was connected when the node went down.
    pub const CONNECTED: UnixMillis = UnixMillis(1);

    /// The first of those that are moments.
    pub const FIRST: UnixMillis = UnixMillis(2);

    /// Those from one moment, at its session `after` and beyond, to another, without it.
    #[must_use]
    pub fn between(from: Self, to: UnixMillis) -> KeyRange {
        let bytes = |key: Self| key.encode().to_vec().into();
        KeyRange { start: bytes(from), end: Some(bytes(Self { due: to, session_no: 0 })) }
    }
}

impl Key for TimerKey {
    const FAMILY: Family = Family::Timer;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::from_slice(&self.due.0.to_be_bytes());
        out.extend_from_slice(&self.session_no.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self { due: UnixMillis(fields.u64()?), session_no: fields.u64()? };
        fields.end()?;
        Ok(key)
    }
}

impl Row for TimerKey {
    type Record = TimerRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_as_they_are_due() {
        let key = |due, session_no| TimerKey { due: UnixMillis(due), session_no };
        order::holds(&[key(0, 9), key(1, 3), key(2, 1), key(2, 300), key(256, 0)]);
        order::fixed_length(&key(1, 2), 16);
        let range = TimerKey::between(key(2, 2), UnixMillis(256));
        assert!(range.contains(&key(2, 300).encode()) && range.contains(&key(255, 0).encode()));
        assert!(!range.contains(&key(2, 1).encode()) && !range.contains(&key(256, 0).encode()));
    }
}
