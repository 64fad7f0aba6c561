//! `queue`: what a session is owed, in the order of delivery.
//!
//! ```text
//! session number u64 │ lane u8 │ seq u64
//! ```

use super::{Key, KeyBuf, KeyError, KeyRange, Reader, Row};
use crate::family::Family;
use crate::record::QueueRecord;

/// The lane of messages imported from an older fragment; they go before this node's own.
pub const LANE_IMPORTED: u8 = 0;

/// The lane of messages this node queued.
pub const LANE_OWN: u8 = 1;

/// The key of a message owed to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueKey {
    /// The session.
    pub session_no: u64,
    /// [`LANE_IMPORTED`] or [`LANE_OWN`].
    pub lane: u8,
    /// Grows with every row the node queues, over restarts too.
    pub seq: u64,
}

impl QueueKey {
    /// The queue of one session.
    #[must_use]
    pub fn of(session_no: u64) -> KeyRange {
        KeyRange::prefix(&session_no.to_be_bytes())
    }

    /// One lane of a session's queue.
    #[must_use]
    pub fn lane_of(session_no: u64, lane: u8) -> KeyRange {
        let mut prefix = KeyBuf::from_slice(&session_no.to_be_bytes());
        prefix.push(lane);
        KeyRange::prefix(&prefix)
    }

    /// The part of a session's queue after this row.
    #[must_use]
    pub fn rest(self) -> KeyRange {
        Self::of(self.session_no).after(&self.encode())
    }
}

impl Key for QueueKey {
    const FAMILY: Family = Family::Queue;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::from_slice(&self.session_no.to_be_bytes());
        out.push(self.lane);
        out.extend_from_slice(&self.seq.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self { session_no: fields.u64()?, lane: fields.u8()?, seq: fields.u64()? };
        fields.end()?;
        Ok(key)
    }
}

impl Row for QueueKey {
    type Record = QueueRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_session_then_lane_then_seq() {
        let key = |session_no, lane, seq| QueueKey { session_no, lane, seq };
        order::holds(&[
            key(1, LANE_IMPORTED, u64::MAX),
            key(1, LANE_OWN, 255),
            key(1, LANE_OWN, 256),
            key(2, LANE_IMPORTED, 1),
        ]);
        order::fixed_length(&key(1, 0, 1), 17);
        let lane = QueueKey::lane_of(1, LANE_OWN);
        assert!(lane.contains(&key(1, LANE_OWN, 0).encode()));
        assert!(!lane.contains(&key(1, LANE_IMPORTED, 9).encode()));
        let rest = key(1, LANE_OWN, 5).rest();
        assert!(!rest.contains(&key(1, LANE_OWN, 5).encode()));
        assert!(rest.contains(&key(1, LANE_OWN, 6).encode()));
        assert!(!rest.contains(&key(2, 0, 0).encode()));
    }
}
