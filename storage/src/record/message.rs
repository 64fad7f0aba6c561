//! A message.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use verge_model::{Class, ClientId, Hlc, MessageId, UnixMillis};

use super::Record;

/// A message as it is stored once per node, and as it travels between nodes.
///
/// The clones of one record share topic, properties and payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRecord {
    /// Its name everywhere in the mesh.
    pub id: MessageId,
    /// The author: the ClientId, and behind U+0000 the principal, if there is one.
    pub publisher: ClientId,
    /// When it was accepted.
    pub stamp: Hlc,
    /// When it must no longer be delivered.
    pub expires_at: Option<UnixMillis>,
    /// Its topic.
    pub topic: Arc<str>,
    /// QoS of the publication.
    pub qos: u8,
    /// RETAIN flag of the publication.
    pub retain: bool,
    /// Its class, by topic rule.
    pub class: Class,
    /// Its publish properties as `verge-mqtt-proto` encodes them, opaque here.
    pub properties: Bytes,
    /// Its payload.
    pub payload: Bytes,
}

impl Record for MessageRecord {
    const NAME: &'static str = "message";
    const VERSION: u8 = 1;

    fn encoded_len_hint(&self) -> usize {
        64 + self.publisher.len() + self.topic.len() + self.properties.len() + self.payload.len()
    }
}

#[cfg(test)]
mod tests {
    use verge_model::NodeKey;

    use super::*;
    use crate::record::golden;

    #[test]
    fn golden_bytes() {
        let message = MessageRecord {
            id: MessageId { node: NodeKey(1), incarnation: 2, seq: 3 },
            publisher: "v".into(),
            stamp: Hlc(4),
            expires_at: Some(UnixMillis(5)),
            topic: "a/b".into(),
            qos: 1,
            retain: true,
            class: Class::Safety,
            properties: Bytes::from_static(&[0xee]),
            payload: Bytes::from_static(b"hi"),
        };
        golden::holds(&message, "01010203017604010503612f6201010001ee026869");
    }

    #[test]
    fn the_header_of_a_position_report_stays_small() {
        let message = MessageRecord {
            id: MessageId { node: NodeKey(u64::MAX), incarnation: 100, seq: 1 << 30 },
            publisher: "".into(),
            stamp: Hlc::from_wall(UnixMillis(1_800_000_000_000)),
            expires_at: None,
            topic: "".into(),
            qos: 1,
            retain: false,
            class: Class::Telemetry,
            properties: Bytes::new(),
            payload: Bytes::new(),
        };
        assert!(message.encode().len() <= 36, "{} bytes", message.encode().len());
    }
}
