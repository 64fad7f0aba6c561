//! A message.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use verge_model::{Class, ClientId, Hlc, MessageId, UnixMillis};

use super::{Record, RecordError};
use crate::references;

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

/// The same, borrowed, for writing: as [`MessageRecord`] byte by byte.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MessageView<'a> {
    /// [`MessageRecord::id`].
    pub id: MessageId,
    /// [`MessageRecord::publisher`].
    pub publisher: &'a str,
    /// [`MessageRecord::stamp`].
    pub stamp: Hlc,
    /// [`MessageRecord::expires_at`].
    pub expires_at: Option<UnixMillis>,
    /// [`MessageRecord::topic`].
    pub topic: &'a str,
    /// [`MessageRecord::qos`].
    pub qos: u8,
    /// [`MessageRecord::retain`].
    pub retain: bool,
    /// [`MessageRecord::class`].
    pub class: Class,
    /// [`MessageRecord::properties`].
    #[serde(serialize_with = "as_bytes")]
    pub properties: &'a [u8],
    /// [`MessageRecord::payload`].
    #[serde(serialize_with = "as_bytes")]
    pub payload: &'a [u8],
}

fn as_bytes<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

impl MessageView<'_> {
    /// About how many bytes its encoding takes.
    #[must_use]
    pub fn encoded_len_hint(&self) -> usize {
        64 + self.publisher.len() + self.topic.len() + self.properties.len() + self.payload.len()
    }
}

impl MessageRecord {
    /// The record, borrowed.
    #[must_use]
    pub fn view(&self) -> MessageView<'_> {
        MessageView {
            id: self.id,
            publisher: &self.publisher,
            stamp: self.stamp,
            expires_at: self.expires_at,
            topic: &self.topic,
            qos: self.qos,
            retain: self.retain,
            class: self.class,
            properties: &self.properties,
            payload: &self.payload,
        }
    }
}

/// A message that several queue rows name, with their number
/// ([`references`]). Version 1 had no count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredMessage {
    /// How many queue rows name it; 0 if that is not known.
    pub references: u32,
    /// The message.
    pub message: MessageRecord,
}

impl StoredMessage {
    /// The bytes of a row with this many references.
    #[must_use]
    pub fn encode(references: u32, message: &MessageView<'_>) -> Bytes {
        let room = references::HEADER_BYTES + message.encoded_len_hint();
        let mut out = Vec::with_capacity(room);
        out.push(references::COUNTED);
        out.extend_from_slice(&references.to_be_bytes());
        postcard::to_extend(message, out)
            .expect("records hold only what postcard can write, into memory that grows")
            .into()
    }
}

impl Record for StoredMessage {
    const NAME: &'static str = "message";
    const VERSION: u8 = references::COUNTED;

    fn encode(&self) -> Bytes {
        Self::encode(self.references, &self.message.view())
    }

    fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let record = Self::NAME;
        match (bytes, references::count(bytes)) {
            ([], _) => Err(RecordError::Empty { record }),
            ([MessageRecord::VERSION, ..], _) => {
                Ok(Self { references: 0, message: MessageRecord::decode(bytes)? })
            }
            ([Self::VERSION, ..], Some(references)) => {
                let body = &bytes[references::HEADER_BYTES..];
                let (message, rest) = postcard::take_from_bytes(body)
                    .map_err(|detail| RecordError::Malformed { record, detail })?;
                match rest.len() {
                    0 => Ok(Self { references, message }),
                    bytes => Err(RecordError::Trailing { record, bytes }),
                }
            }
            ([Self::VERSION, ..], None) => {
                let detail = postcard::Error::DeserializeUnexpectedEnd;
                Err(RecordError::Malformed { record, detail })
            }
            ([version, ..], _) => Self::decode_old(*version, &[]),
        }
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
        let old = StoredMessage::decode(&message.encode()).unwrap();
        assert_eq!((old.references, &old.message), (0, &message), "rows of version 1");
        let stored = StoredMessage { references: 258, message };
        golden::holds(&stored, "0200000102010203017604010503612f6201010001ee026869");
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
