//! `outbox`: one log per uplink stream, of what the cloud tier must still take.
//!
//! ```text
//! stream u16 │ seq u64
//! ```

use super::{Key, KeyBuf, KeyError, Reader};
use crate::family::Family;

/// The key of a row of the outbox. The store gives `seq` at commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutboxKey {
    /// The uplink stream.
    pub stream: u16,
    /// From 1, without gaps.
    pub seq: u64,
}

impl Key for OutboxKey {
    const FAMILY: Family = Family::Outbox;

    fn encode(&self) -> KeyBuf {
        let mut out = KeyBuf::from_slice(&self.stream.to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut fields = Reader(bytes);
        let key = Self { stream: fields.u16()?, seq: fields.u64()? };
        fields.end()?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::order;

    #[test]
    fn rows_come_by_stream_then_seq() {
        let key = |stream, seq| OutboxKey { stream, seq };
        order::holds(&[key(0, 255), key(0, 256), key(1, 1), key(256, 0)]);
        order::fixed_length(&key(0, 1), 10);
    }
}
