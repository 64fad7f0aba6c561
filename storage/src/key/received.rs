//! `received`: QoS 2 packet ids between PUBREC and PUBREL of a publishing session.
//!
//! ```text
//! session number u64 │ packet id u16 │ 1 u8, if received on a stream other than the control stream
//! ```

use super::{Key, KeyBuf, KeyError, KeyRange, Reader, Row};
use crate::family::Family;
use crate::record::ReceivedRecord;

/// The last byte of a key of another stream than the control stream.
const ON_STREAM: u8 = 1;

/// The key of a received packet id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceivedKey {
    /// The session that published.
    pub session_no: u64,
    /// The Packet Identifier it chose.
    pub packet_id: u16,
    /// Whether it was received on a stream other than the control stream, which has ids of its own.
    pub on_stream: bool,
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
        if self.on_stream {
            out.push(ON_STREAM);
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let (session_no, packet_id) = (fields.u64()?, fields.u16()?);
        let on_stream = match fields.0 {
            [ON_STREAM] => true,
            _ => {
                fields.end()?;
                false
            }
        };
        Ok(Self { session_no, packet_id, on_stream })
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
        let key = |session_no, packet_id| ReceivedKey { session_no, packet_id, on_stream: false };
        order::holds(&[key(1, 255), key(1, 256), key(2, 1)]);
        order::fixed_length(&key(1, 1), 10);
        assert!(ReceivedKey::of(1).contains(&key(1, u16::MAX).encode()));
    }

    #[test]
    fn an_id_of_a_stream_is_another_row_of_the_session() {
        let control = ReceivedKey { session_no: 1, packet_id: 5, on_stream: false };
        let stream = ReceivedKey { on_stream: true, ..control };
        order::holds(&[control, stream, ReceivedKey { packet_id: 6, ..control }]);
        assert!(ReceivedKey::of(1).contains(&stream.encode()));
        assert!(ReceivedKey::decode(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 5, 2]).is_err());
    }
}
