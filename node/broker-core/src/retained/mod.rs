//! Retained messages (MQTT 5.0, 3.3.1.3): the last message of a topic, for who comes later.
//!
//! Every node of the mesh keeps them, and any may set them. The greatest (stamp, node) of a topic
//! wins, so that nodes agree whatever order the values come in. A removal is such a value too: a
//! *tombstone*, kept until no older value can be on its way any more.
//!
//! ```text
//!              set                  Message Expiry Interval ends
//!   nothing ───────▶ message ─────────────────────────────────────┐
//!      ▲               │ ▲                                        ▼
//!      │        remove │ │ set later                          tombstone
//!      │               ▼ │                                        │
//!      │            tombstone                                     │
//!      └────────────────┴────────── tombstone_ttl later ──────────┘
//! ```

mod store;

#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use verge_model::{Hlc, NodeKey, Now, UnixMillis};
use verge_mqtt_proto::TopicName;
use verge_mqtt_proto::message::Message;

use self::store::Store;

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedLimits {
    /// Most topics with a message.
    pub messages_max: usize,
    /// Most bytes of messages, by [`Message::queue_bytes`].
    pub bytes_max: usize,
    /// Most tombstones; beyond it the next [`Retained::handle_timeout`] forgets the oldest before
    /// their time.
    pub tombstones_max: usize,
    /// How long a removal is remembered.
    pub tombstone_ttl: Duration,
}

/// Half of a roadside unit's 512 MB is for sessions; retained messages are few there and small
/// (maps, signal plans, one state per device), so 64 MB hold them many times over. An hour is far
/// longer than a forwarded message waits between nodes in reach of each other.
impl Default for RetainedLimits {
    fn default() -> Self {
        Self {
            messages_max: 100_000,
            bytes_max: 64 << 20,
            tombstones_max: 100_000,
            tombstone_ttl: Duration::from_secs(3600),
        }
    }
}

/// What is known of a topic.
#[derive(Debug, Clone)]
pub struct RetainedValue {
    /// When it was set or removed.
    pub stamp: Hlc,
    /// Where.
    pub node: NodeKey,
    /// The message; `None`: it was removed.
    pub message: Option<Arc<Message>>,
}

/// The message cannot be kept, and nothing changed: the one before it, if any, still stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetainedFull {
    /// Too many topics have a retained message.
    #[error("{limit} topics have a retained message, no more are kept")]
    Messages {
        /// What is kept.
        limit: usize,
    },
    /// The retained messages are too large together.
    #[error("retained messages fill their {limit} bytes")]
    Bytes {
        /// What is kept.
        limit: usize,
    },
}

/// The retained messages of a node, shared by all shards.
#[derive(Debug, Default)]
pub struct Retained {
    limits: RetainedLimits,
    /// A lock, and not one copy per shard: a SUBSCRIBE on any shard asks for them, a PUBLISH with
    /// RETAIN on any shard sets them, and both are rare beside other PUBLISHes.
    store: RwLock<Store>,
}

impl Retained {
    /// Nothing, within `limits`.
    #[must_use]
    pub fn new(limits: RetainedLimits) -> Self {
        Self { limits, store: RwLock::default() }
    }

    /// Sets or removes the message of a topic; false if nothing changed: the value known is as
    /// late or later, or there is no room for the message, which is counted.
    ///
    /// Values read from storage and values of other nodes are applied like those of this node.
    pub fn apply(&self, topic: &TopicName, value: RetainedValue) -> bool {
        let mut store = self.store.write();
        let known = store.get(topic.as_str());
        if known.is_some_and(|known| (known.stamp, known.node) >= (value.stamp, value.node)) {
            return false;
        }
        self.set(&mut store, topic, value).is_ok()
    }

    /// Sets the message of a client that is told whether it is kept. To look first and to
    /// [`apply`](Self::apply) later could promise one place to clients of several shards.
    ///
    /// # Errors
    /// A bound of [`RetainedLimits`] is reached; a PUBLISH is answered Quota exceeded.
    pub fn admit(&self, message: &Arc<Message>) -> Result<(), RetainedFull> {
        let value = RetainedValue {
            stamp: message.stamp,
            node: message.id.node,
            message: Some(Arc::clone(message)),
        };
        let mut store = self.store.write();
        let known = store.get(message.topic.as_str());
        if known.is_some_and(|known| (known.stamp, known.node) > (value.stamp, value.node)) {
            // What is kept came later.
            return Ok(());
        }
        self.set(&mut store, &message.topic, value)
    }

    /// Whether this very value is what is known of a topic.
    #[must_use]
    pub fn holds(&self, topic: &TopicName, value: &RetainedValue) -> bool {
        let store = self.store.read();
        let known = store.get(topic.as_str());
        known.is_some_and(|known| (known.stamp, known.node) == (value.stamp, value.node))
    }

    fn set(
        &self,
        store: &mut Store,
        topic: &TopicName,
        value: RetainedValue,
    ) -> Result<(), RetainedFull> {
        let fits = value.message.as_deref().map(|it| check(&self.limits, store, topic, it));
        if let Some(Err(full)) = fits {
            store.refused += 1;
            return Err(full);
        }
        store.set(topic.as_str(), value, self.limits.tombstone_ttl);
        Ok(())
    }

    /// What is known of a topic.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<RetainedValue> {
        self.store.read().get(topic).cloned()
    }

    /// The messages a new subscription to `filter`, a filter without `$share/…` or `$local/`, is
    /// sent, in the order of their topics' levels: at most `limit`.
    #[must_use]
    pub fn matches(&self, filter: &str, wall: UnixMillis, limit: usize) -> Vec<Arc<Message>> {
        self.find(filter, wall, limit, |_| true)
    }

    /// As [`matches`](Self::matches), but only what was set at `node`: what a subscription to
    /// `$local/<filter>` is sent there.
    #[must_use]
    pub fn matches_of(
        &self,
        node: NodeKey,
        filter: &str,
        wall: UnixMillis,
        limit: usize,
    ) -> Vec<Arc<Message>> {
        self.find(filter, wall, limit, |value| value.node == node)
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do: a message has expired or
    /// a tombstone has served.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<UnixMillis> {
        self.store.read().next_due(self.limits.tombstones_max)
    }

    /// Turns expired messages into tombstones, and forgets tombstones that have served: of those
    /// the topics are given, so that their rows can be deleted. It does at most `limit` of either
    /// at once.
    pub fn handle_timeout(&self, now: Now, limit: usize) -> Vec<TopicName> {
        let mut store = self.store.write();
        store.expire(now.wall, self.limits.tombstone_ttl, limit);
        store.forget_tombstones(now.wall, self.limits.tombstones_max, limit)
    }

    /// Topics with a message, the node's own left out.
    #[must_use]
    pub fn count(&self) -> usize {
        self.store.read().message_count()
    }

    /// Bytes of their messages, by [`Message::queue_bytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.store.read().bytes()
    }

    /// Removals that are remembered.
    #[must_use]
    pub fn tombstone_count(&self) -> usize {
        self.store.read().tombstone_count()
    }

    /// Messages that were not kept for lack of room.
    #[must_use]
    pub fn refused_count(&self) -> u64 {
        self.store.read().refused
    }

    fn find(
        &self,
        filter: &str,
        wall: UnixMillis,
        limit: usize,
        wanted: impl Fn(&RetainedValue) -> bool,
    ) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        if limit == 0 {
            return found;
        }
        self.store.read().topics_matching(filter, |value| {
            let message = value.message.as_ref().filter(|_| wanted(value));
            found.extend(message.filter(|message| !message.is_expired(wall)).cloned());
            if found.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        found
    }
}

/// Whether only the node itself publishes to a topic. Such topics are as many as the program has,
/// and take no room from clients.
fn is_own(topic: &str) -> bool {
    topic.starts_with("$SYS/")
}

fn check(
    limits: &RetainedLimits,
    store: &Store,
    topic: &TopicName,
    message: &Message,
) -> Result<(), RetainedFull> {
    if is_own(topic.as_str()) {
        return Ok(());
    }
    let replaced = store.get(topic.as_str()).and_then(|known| known.message.as_ref());
    if replaced.is_none() && store.message_count() >= limits.messages_max {
        return Err(RetainedFull::Messages { limit: limits.messages_max });
    }
    let freed = replaced.map_or(0, |message| message.queue_bytes());
    if store.bytes() - freed + message.queue_bytes() > limits.bytes_max {
        return Err(RetainedFull::Bytes { limit: limits.bytes_max });
    }
    Ok(())
}
