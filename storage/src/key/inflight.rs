//! `inflight`: which debts of a session have a packet id.
//!
//! ```text
//! session number u64 │ lane u8 │ seq u64
//! ```
//!
//! The same key as the debt's in `queue`, so that it is deleted with it. The queue's row holds the
//! message and is written once; this one is small, and written for every step of a delivery.

use super::queue::QueueKey;
use super::{Key, KeyBuf, KeyError, KeyRange, Row};
use crate::family::Family;
use crate::record::InflightRecord;

/// The key of the packet id of a debt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InflightKey(pub QueueKey);

impl InflightKey {
    /// What is in flight of one session.
    #[must_use]
    pub fn of(session_no: u64) -> KeyRange {
        KeyRange::prefix(&session_no.to_be_bytes())
    }
}

impl Key for InflightKey {
    const FAMILY: Family = Family::Inflight;

    fn encode(&self) -> KeyBuf {
        self.0.encode()
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        QueueKey::decode(bytes).map(Self)
    }
}

impl Row for InflightKey {
    type Record = InflightRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_as_those_of_the_queue() {
        let key = |session_no, lane, seq| InflightKey(QueueKey { session_no, lane, seq });
        order::holds(&[key(1, 0, u64::MAX), key(1, 1, 255), key(1, 1, 256), key(2, 0, 1)]);
        order::fixed_length(&key(1, 0, 1), 17);
    }
}
