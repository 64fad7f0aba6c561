//! A publication on its way through the broker.

use bytes::Bytes;
use std::sync::atomic::{AtomicU32, Ordering};

use verge_model::{Class, ClientId, Hlc, MessageId, UnixMillis};

use crate::packet::publish::KeptProperties;
use crate::topic::name::TopicName;
use crate::{QoS, topic};

/// One accepted PUBLISH: what every subscriber is sent, and what is stored once however many
/// sessions it is owed to.
///
/// It is shared by reference count between sessions of all shards and never changes, but for the
/// count of stored references.
#[derive(Debug)]
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
    /// Where this node stores the message, and how many of its rows refer to that.
    pub stored: StoredReferences,
}

impl Message {
    /// The name of the stored row that holds this message.
    #[must_use]
    #[inline]
    pub fn row(&self) -> MessageId {
        self.stored.row.as_deref().copied().unwrap_or(self.id)
    }

    /// The same message, to be stored in a row of its own.
    #[must_use]
    pub fn stored_apart(&self, row: MessageId) -> Self {
        Self {
            id: self.id,
            publisher: self.publisher.clone(),
            stamp: self.stamp,
            expires_at: self.expires_at,
            topic: self.topic.clone(),
            qos: self.qos,
            retain: self.retain,
            class: self.class,
            properties: self.properties.clone(),
            payload: self.payload.clone(),
            stored: StoredReferences::in_row(row),
        }
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
        const OVERHEAD: usize = 64;
        self.topic.as_str().len() + self.payload.len() + OVERHEAD
    }

    /// Whether a subscription to `filter` wants this message.
    #[must_use]
    pub fn matches(&self, filter: &str) -> bool {
        topic::matching::matches(filter, self.topic.as_str())
    }
}

/// Counts the stored rows that refer to a stored message, over all shards of a node.
///
/// Whoever settles the last of them deletes the message's row with its own. One message may come
/// to a node by several ways: forwarded for one session, imported with another. Each way has a
/// value, a count and a row of its own, so that the end of one is not the end of another; a count
/// that has fallen to zero never rises again.
#[derive(Debug, Default)]
pub struct StoredReferences {
    count: AtomicU32,
    /// The row's name, if it is not the message's.
    row: Option<Box<MessageId>>,
}

impl StoredReferences {
    /// No references yet to a row of this name, which no other value has.
    #[must_use]
    pub fn in_row(row: MessageId) -> Self {
        Self { count: AtomicU32::new(0), row: Some(Box::new(row)) }
    }

    /// Notes `count` more rows.
    pub fn add(&self, count: u32) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    /// Notes one row less; true if it was the last.
    #[must_use]
    pub fn release(&self) -> bool {
        let before = self.count.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(before > 0, "a stored reference is released once");
        before == 1
    }

    /// Rows that refer to the message now.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}
