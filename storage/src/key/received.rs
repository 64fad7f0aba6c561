//! `received`: QoS 2 packet ids between PUBREC and PUBREL of a publishing session.
//!
//! ```text
//! session number u64 │ packet id u16
//! ```

use super::{Key, KeyBuf, KeyError, KeyRange, Reader, Row};
use crate::family::Family;
use crate::record::ReceivedRecord;

/// The key of a received packet id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceivedKey {
    /// The session that published.
    pub session_no: u64,
    /// The Packet Identifier it chose.
    pub packet_id: u16,
}

impl ReceivedKey {
    /// The received packet ids of one session.
    #[must_use]
    pub fn of(session_no: u64) -> KeyRange {
        KeyRange::prefix(&session_no.to_be_bytes())
    }
}

impl Key for ReceivedKey {
    const FAMILY: Family = Family::Received;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::from_slice(&self.session_no.to_be_bytes());
        out.extend_from_slice(&self.packet_id.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self { session_no: fields.u64()?, packet_id: fields.u16()? };
        fields.end()?;
        Ok(key)
    }
}

impl Row for ReceivedKey {
    type Record = ReceivedRecord;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_session_then_packet_id() {
        let key = |session_no, packet_id| ReceivedKey { session_no, packet_id };
        order::holds(&[key(1, 255), key(1, 256), key(2, 1)]);
        order::fixed_length(&key(1, 1), 10);
        assert!(ReceivedKey::of(1).contains(&key(1, u16::MAX).encode()));
    }
}
