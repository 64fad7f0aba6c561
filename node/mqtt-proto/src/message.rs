//! A publication on its way through the broker.

use bytes::Bytes;

use verge_model::{Class, ClientId, Hlc, MessageId, UnixMillis};

use crate::packet::publish::KeptProperties;
use crate::topic::name::TopicName;
use crate::{QoS, topic};

/// One accepted PUBLISH: what every subscriber is sent, and what is stored once however many
/// sessions it is owed to.
///
/// It is shared by reference count between sessions of all shards and never changes.
#[derive(Debug, Clone)]
pub struct Message {
    /// The name the message keeps in the whole mesh.
    pub id: MessageId,
    /// The [author](verge_model::ClientKey::author); `No Local` and order per publisher need it.
    pub publisher: ClientId,
    /// When it was accepted.
    pub stamp: Hlc,
    /// When it stops being worth delivering [MQTT-3.3.2-5].
    pub expires_at: Option<UnixMillis>,
    /// Where it was published.
    pub topic: TopicName,
    /// The QoS of the PUBLISH.
    pub qos: QoS,
    /// The RETAIN flag of the PUBLISH.
    pub retain: bool,
    /// Its priority.
    pub class: Class,
    /// What is forwarded unaltered [MQTT-3.3.2-4, 3.3.2-15 to 3.3.2-20].
    pub properties: KeptProperties,
    /// The Application Message.
    pub payload: Bytes,
    /// The name of the row that holds it here, if that is not its own: one message may come to a
    /// node by several ways, each with a row and an end of its own.
    pub row: Option<Box<MessageId>>,
}

impl Message {
    /// The name of the stored row that holds this message.
    #[must_use]
    #[inline]
    pub fn row(&self) -> MessageId {
        self.row.as_deref().copied().unwrap_or(self.id)
    }

    /// Whether the message has expired at `wall`.
    #[must_use]
    #[inline]
    pub fn is_expired(&self, wall: UnixMillis) -> bool {
        self.expires_at.is_some_and(|at| at <= wall)
    }

    /// The Message Expiry Interval to send at `wall`: the rest of it, in seconds, rounded up
    /// [MQTT-3.3.2-6].
    #[must_use]
    #[inline]
    pub fn expiry_interval_left(&self, wall: UnixMillis) -> Option<u32> {
        let left = self.expires_at?.since(wall);
        Some(u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX))
    }

    /// Bytes this message counts for in bounded queues: topic, payload and a fixed overhead.
    #[must_use]
    #[inline]
    pub fn queue_bytes(&self) -> usize {
        queue_bytes(self.topic.as_str(), &self.payload)
    }

    /// Whether a subscription to `filter` wants this message.
    #[must_use]
    pub fn matches(&self, filter: &str) -> bool {
        topic::matching::matches(filter, self.topic.as_str())
    }
}

/// Bytes a message of this topic and payload counts for in bounded queues.
#[must_use]
#[inline]
pub fn queue_bytes(topic: &str, payload: &[u8]) -> usize {
    const OVERHEAD: usize = 64;
    topic.len() + payload.len() + OVERHEAD
}
