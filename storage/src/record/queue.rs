//! A message owed to a session.

use serde::{Deserialize, Serialize};
use verge_model::{MessageId, UnixMillis};

use super::Record;

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
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        48 + 4 * self.subscription_ids.len()
    }
}

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
        };
        golden::holds(&queued, "010102ac0202000201c801e80700");
        let sent = QueueRecord { state: QueueState::Sent { packet_id: 1 }, ..queued.clone() };
        golden::holds(&sent, "010102ac0202000201c801e8070101");
        let released = QueueRecord { state: QueueState::Released { packet_id: 65_535 }, ..queued };
        golden::holds(&released, "010102ac0202000201c801e80702ffff03");
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
        };
        assert!(record.encode().len() <= 32, "{} bytes", record.encode().len());
    }
}
