//! A publication on its way to the cloud tier.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::{ClientId, MessageId, UnixMillis};

use super::Record;

/// A publication selected by an uplink rule: what becomes a row of the cloud's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRecord {
    /// The message.
    pub id: MessageId,
    /// When it was accepted.
    pub published_at: UnixMillis,
    /// Who published it.
    pub client_id: ClientId,
    /// Its topic.
    pub topic: Arc<str>,
    /// QoS of the publication.
    pub qos: u8,
    /// Its payload.
    pub payload: Bytes,
}

impl Record for OutboxRecord {
    const NAME: &'static str = "outbox";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        48 + self.client_id.len() + self.topic.len() + self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use verge_model::NodeKey;

    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        let record = OutboxRecord {
            id: MessageId { node: NodeKey(1), incarnation: 2, seq: 3 },
            published_at: UnixMillis(300),
            client_id: "v".into(),
            topic: "a/b".into(),
            qos: 1,
            payload: Bytes::from_static(b"hi"),
        };
        golden::holds(&record, "01010203ac02017603612f6201026869");
    }
}
