//! A message owed to a session.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::{MessageId, UnixMillis};

use super::{Record, RecordError};

/// A message owed to a session, by reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecord {
    /// The message.
    pub message: MessageId,
    /// QoS of the delivery: the lesser of the publication's and the subscription's.
    pub qos: u8,
    /// RETAIN flag of the delivery.
    pub retain: bool,
    /// Subscription Identifiers of the subscriptions that matched.
    pub subscription_ids: Vec<u32>,
    /// When it was queued.
    pub enqueued_at: UnixMillis,
    /// How far the delivery is.
    pub state: QueueState,
    /// The shared subscription that chose the session, as its whole filter.
    ///
    /// Version 2 has it behind what version 1 has. Most messages are of no group, and are written
    /// as version 1.
    #[serde(skip)]
    pub share: Option<Arc<str>>,
}

/// How far the delivery of a queued message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueState {
    /// Not sent yet.
    Queued,
    /// PUBLISH may have been sent; no PUBACK or PUBREC yet.
    Sent {
        /// The packet id it was sent with.
        packet_id: u16,
    },
    /// PUBREC came, PUBREL may have been sent; no PUBCOMP yet.
    Released {
        /// The packet id it was sent with.
        packet_id: u16,
    },
}

impl QueueState {
    /// The packet id in use, if the message is in flight.
    #[must_use]
    pub fn packet_id(self) -> Option<u16> {
        match self {
            Self::Queued => None,
            Self::Sent { packet_id } | Self::Released { packet_id } => Some(packet_id),
        }
    }
}

impl Record for QueueRecord {
    const NAME: &'static str = "queue";
    const VERSION: u8 = 2;

    fn encoded_len_hint(&self) -> usize {
        48 + 4 * self.subscription_ids.len() + self.share.as_ref().map_or(0, |share| share.len())
    }

    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len_hint());
        out.push(if self.share.is_some() { Self::VERSION } else { PLAIN });
        let mut out = postcard::to_extend(self, out).expect(WRITABLE);
        if let Some(share) = &self.share {
            out = postcard::to_extend(share, out).expect(WRITABLE);
        }
        out.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let malformed = |detail| RecordError::Malformed { record: Self::NAME, detail };
        let Some((&version, body)) = bytes.split_first() else {
            return Err(RecordError::Empty { record: Self::NAME });
        };
        if version != PLAIN && version != Self::VERSION {
            return Self::decode_old(version, body);
        }
        let (mut record, mut rest) = postcard::take_from_bytes::<Self>(body).map_err(malformed)?;
        if version == Self::VERSION {
            let (share, after) = postcard::take_from_bytes(rest).map_err(malformed)?;
            record.share = Some(share);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(RecordError::Trailing { record: Self::NAME, bytes: rest.len() });
        }
        Ok(record)
    }
}

/// The version of a message of no group.
const PLAIN: u8 = 1;

const WRITABLE: &str = "records hold only what postcard can write, into memory that grows";

#[cfg(test)]
mod tests {
    use verge_model::NodeKey;

    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        let queued = QueueRecord {
            message: MessageId { node: NodeKey(1), incarnation: 2, seq: 300 },
            qos: 2,
            retain: false,
            subscription_ids: vec![1, 200],
            enqueued_at: UnixMillis(1_000),
            state: QueueState::Queued,
            share: None,
        };
        golden::holds(&queued, "010102ac0202000201c801e80700");
        let sent = QueueRecord { state: QueueState::Sent { packet_id: 1 }, ..queued.clone() };
        golden::holds(&sent, "010102ac0202000201c801e8070101");
        let state = QueueState::Released { packet_id: 65_535 };
        let released = QueueRecord { state, ..queued.clone() };
        golden::holds(&released, "010102ac0202000201c801e80702ffff03");
        let shared = QueueRecord { share: Some("$share/g/t".into()), ..queued };
        golden::holds(&shared, "020102ac0202000201c801e807000a2473686172652f672f74");
    }

    #[test]
    fn a_reference_is_at_most_32_bytes_without_identifiers() {
        let record = QueueRecord {
            message: MessageId { node: NodeKey(u64::MAX), incarnation: 10_000, seq: 1 << 40 },
            qos: 1,
            retain: false,
            subscription_ids: Vec::new(),
            enqueued_at: UnixMillis(1_800_000_000_000),
            state: QueueState::Sent { packet_id: 65_535 },
            share: None,
        };
        assert!(record.encode().len() <= 32, "{} bytes", record.encode().len());
    }
}
