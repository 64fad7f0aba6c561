//! Batches of writes.

use bytes::Bytes;
use verge_model::{Class, ClientKey, MessageId, NodeKey, UnixMillis};

use crate::family::Family;
use crate::key::{
    InflightKey, Key, KeyBuf, KeyRange, LinkInKey, MemberKey, MessageKey, OpenKey, QueueKey,
    ReceivedKey, RegistryKey, RetainedKey, RouteHeadKey, RouteKey, Row, SeenKey, SessionKey,
    SubscriptionKey, TimerKey,
};
use crate::log::LogKey;
use crate::record::{
    InflightRecord, LinkInRecord, MemberRecord, MessageView, OpenRecord, OutboxRecord, QueueRecord,
    ReceivedRecord, Record, RegistryRecord, RetainedRecord, RouteHeadRecord, RouteRecord,
    SeenRecord, SessionRecord, StoredMessage, SubscriptionRecord, TimerRecord,
};

/// How many writes back a release looks for another of the same message.
const RELEASES_SEARCHED: usize = 16;

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a row.
    Put {
        /// The row's family.
        family: Family,
        /// The row's key.
        key: KeyBuf,
        /// The row's value.
        value: Bytes,
    },
    /// Removes a row, if it is there.
    Delete {
        /// The row's family.
        family: Family,
        /// The row's key.
        key: KeyBuf,
    },
    /// Removes every row whose key begins with `prefix`.
    DeletePrefix {
        /// The rows' family.
        family: Family,
        /// What their keys begin with.
        prefix: KeyBuf,
    },
    /// Lowers the count of references of a message's row, which goes with the last of them
    /// ([`references`](crate::references)).
    Release {
        /// The row's key in [`Family::Message`].
        key: KeyBuf,
        /// How many references have gone.
        count: u32,
    },
    /// Appends a row to a log; the store gives its sequence.
    Append {
        /// The log.
        log: LogKey,
        /// The row's value.
        value: Bytes,
    },
    /// Removes the rows of a log up to and including `upto`.
    Trim {
        /// The log.
        log: LogKey,
        /// The last sequence to go; beyond the log's end means all.
        upto: u64,
    },
}

/// Writes that happen together or not at all, in order. Bounded by the turn that fills it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    ops: Vec<Op>,
    bytes: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds any write. The methods below are for callers who think in rows.
    pub fn push(&mut self, op: Op) {
        self.bytes += match &op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key, .. } | Op::Release { key, .. } => key.len(),
            Op::DeletePrefix { prefix, .. } => prefix.len(),
            Op::Append { value, .. } => value.len(),
            Op::Trim { .. } => 0,
        };
        self.ops.push(op);
    }

    /// Adds the writes of `other` after those here.
    pub fn extend(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.ops.extend(other.ops);
    }

    /// Sets the row of `key`.
    pub fn put<K: Row>(&mut self, key: &K, record: &K::Record) {
        self.push(Op::Put { family: K::FAMILY, key: key.encode(), value: record.encode() });
    }

    /// Removes the row of `key`.
    pub fn delete<K: Row>(&mut self, key: &K) {
        self.push(Op::Delete { family: K::FAMILY, key: key.encode() });
    }

    /// Removes the rows of a range made by a key's `of`.
    fn delete_of(&mut self, family: Family, range: &KeyRange) {
        self.push(Op::DeletePrefix { family, prefix: KeyBuf::from_slice(&range.start) });
    }

    /// Appends a row to `log`.
    pub fn append(&mut self, log: LogKey, value: Bytes) {
        self.push(Op::Append { log, value });
    }

    /// Removes the rows of `log` up to and including `upto`.
    pub fn trim(&mut self, log: LogKey, upto: u64) {
        self.push(Op::Trim { log, upto });
    }

    /// The writes, in order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// How many writes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Bytes of keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Sessions and what belongs to them.
impl Batch {
    /// Sets a session's header.
    pub fn put_session(&mut self, session_no: u64, record: &SessionRecord) {
        self.put(&SessionKey(session_no), record);
    }

    /// Removes a session's header.
    pub fn delete_session(&mut self, session_no: u64) {
        self.delete(&SessionKey(session_no));
    }

    /// Says which session this node owns for a client.
    pub fn put_open(&mut self, client: &ClientKey, session_no: u64) {
        self.put(&OpenKey(client.clone()), &OpenRecord { session_no });
    }

    /// This node owns no session of a client any more.
    pub fn delete_open(&mut self, client: &ClientKey) {
        self.delete(&OpenKey(client.clone()));
    }

    /// Says when a session is to be looked at.
    pub fn put_timer(&mut self, session_no: u64, due: UnixMillis, client_hash: u64) {
        self.put(&TimerKey { due, session_no }, &TimerRecord { client_hash });
    }

    /// Removes what says when a session is to be looked at.
    pub fn delete_timer(&mut self, session_no: u64, due: UnixMillis) {
        self.delete(&TimerKey { due, session_no });
    }

    /// Removes a session and every row of it that bears its number first. Messages its queue names stay; they are counted by
    /// their holder.
    pub fn delete_session_rows(&mut self, session_no: u64) {
        self.delete_session(session_no);
        self.delete_subscriptions_of(session_no);
        self.delete_queue_of(session_no);
        self.delete_inflight_of(session_no);
        self.delete_received_of(session_no);
        self.delete_seen_of(session_no);
    }

    /// Sets a subscription.
    pub fn put_subscription(&mut self, session_no: u64, filter: &str, record: &SubscriptionRecord) {
        self.put(&SubscriptionKey { session_no, filter: filter.into() }, record);
    }

    /// Removes a subscription.
    pub fn delete_subscription(&mut self, session_no: u64, filter: &str) {
        self.delete(&SubscriptionKey { session_no, filter: filter.into() });
    }

    /// Removes every subscription of a session.
    pub fn delete_subscriptions_of(&mut self, session_no: u64) {
        self.delete_of(Family::Subscription, &SubscriptionKey::of(session_no));
    }

    /// Sets a queue row.
    pub fn put_queue(&mut self, key: QueueKey, record: &QueueRecord) {
        self.put(&key, record);
    }

    /// Sets a queue row whose value is encoded ([`QueueHead`](crate::record::QueueHead)).
    pub fn put_queue_bytes(&mut self, key: QueueKey, value: Bytes) {
        self.push(Op::Put { family: Family::Queue, key: key.encode(), value });
    }

    /// Removes a queue row.
    pub fn delete_queue(&mut self, key: QueueKey) {
        self.delete(&key);
    }

    /// Removes the whole queue of a session.
    pub fn delete_queue_of(&mut self, session_no: u64) {
        self.delete_of(Family::Queue, &QueueKey::of(session_no));
    }

    /// Sets the packet id of a debt.
    pub fn put_inflight(&mut self, key: QueueKey, record: InflightRecord) {
        self.put(&InflightKey(key), &record);
    }

    /// Removes the packet id of a debt.
    pub fn delete_inflight(&mut self, key: QueueKey) {
        self.delete(&InflightKey(key));
    }

    /// Removes the packet ids of a session.
    pub fn delete_inflight_of(&mut self, session_no: u64) {
        self.delete_of(Family::Inflight, &InflightKey::of(session_no));
    }

    /// Marks a QoS 2 packet id as received.
    pub fn put_received(&mut self, session_no: u64, packet_id: u16) {
        self.put(&ReceivedKey { session_no, packet_id, on_stream: false }, &ReceivedRecord {});
    }

    /// Forgets a received packet id.
    pub fn delete_received(&mut self, session_no: u64, packet_id: u16) {
        self.delete(&ReceivedKey { session_no, packet_id, on_stream: false });
    }

    /// Marks a QoS 2 packet id as received on a stream other than the control stream.
    pub fn put_received_on_stream(&mut self, session_no: u64, packet_id: u16) {
        self.put(&ReceivedKey { session_no, packet_id, on_stream: true }, &ReceivedRecord {});
    }

    /// Forgets a packet id received on a stream other than the control stream.
    pub fn delete_received_on_stream(&mut self, session_no: u64, packet_id: u16) {
        self.delete(&ReceivedKey { session_no, packet_id, on_stream: true });
    }

    /// Forgets every received packet id of a session.
    pub fn delete_received_of(&mut self, session_no: u64) {
        self.delete_of(Family::Received, &ReceivedKey::of(session_no));
    }

    /// Marks that a session had a message.
    pub fn put_seen(&mut self, session_no: u64, message: MessageId, seen_at: UnixMillis) {
        self.put(&SeenKey { session_no, message }, &SeenRecord { seen_at });
    }

    /// Removes the mark that a session had a message.
    pub fn delete_seen(&mut self, session_no: u64, message: MessageId) {
        self.delete(&SeenKey { session_no, message });
    }

    /// Removes every such mark of a session.
    pub fn delete_seen_of(&mut self, session_no: u64) {
        self.delete_of(Family::Seen, &SeenKey::of(session_no));
    }
}

/// Messages.
impl Batch {
    /// Sets a message that this many queue rows name, once: its count only falls from then on.
    pub fn put_message(&mut self, row: MessageId, references: u32, record: &MessageView<'_>) {
        let value = StoredMessage::encode(references, record);
        self.push(Op::Put { family: Family::Message, key: MessageKey(row).encode(), value });
    }

    /// Notes that a queue row which named a message is gone.
    pub fn release_message(&mut self, row: MessageId) {
        let released = MessageKey(row).encode();
        // Subscribers of one message acknowledge it at about the same time.
        for op in self.ops.iter_mut().rev().take(RELEASES_SEARCHED) {
            if let Op::Release { key, count } = op
                && *key == released
            {
                *count += 1;
                return;
            }
        }
        self.push(Op::Release { key: released, count: 1 });
    }

    /// Removes a message.
    pub fn delete_message(&mut self, id: MessageId) {
        self.delete(&MessageKey(id));
    }

    /// Sets the retained message of a topic, or its tombstone.
    pub fn put_retained(&mut self, topic: &str, record: &RetainedRecord) {
        self.put(&RetainedKey(topic.into()), record);
    }

    /// Removes the retained message of a topic without a tombstone.
    pub fn delete_retained(&mut self, topic: &str) {
        self.delete(&RetainedKey(topic.into()));
    }

    /// Appends to the forward log of a peer and class.
    pub fn append_forward(&mut self, peer: NodeKey, class: Class, value: Bytes) {
        self.append(LogKey::Forward { peer, class }, value);
    }

    /// Appends to the outbox of an uplink stream.
    pub fn append_outbox(&mut self, stream: u16, record: &OutboxRecord) {
        self.append(LogKey::Outbox { stream }, record.encode());
    }
}

/// The mesh.
impl Batch {
    /// Sets the last sequence taken from an origin's log.
    pub fn put_link_in(&mut self, key: LinkInKey, last: u64) {
        self.put(&key, &LinkInRecord { last });
    }

    /// Forgets what was taken from an origin.
    pub fn delete_link_in_of(&mut self, origin: NodeKey) {
        self.delete_of(Family::LinkIn, &LinkInKey::of(origin));
    }

    /// Sets a route of another origin.
    pub fn put_route(&mut self, origin: NodeKey, filter: &str, record: RouteRecord) {
        self.put(&RouteKey { origin, filter: filter.into() }, &record);
    }

    /// Removes a route of another origin.
    pub fn delete_route(&mut self, origin: NodeKey, filter: &str) {
        self.delete(&RouteKey { origin, filter: filter.into() });
    }

    /// Removes every route of another origin.
    pub fn delete_routes_of(&mut self, origin: NodeKey) {
        self.delete_of(Family::Route, &RouteKey::of(origin));
    }

    /// Sets how far an origin's routes are known.
    pub fn put_route_head(&mut self, origin: NodeKey, record: RouteHeadRecord) {
        self.put(&RouteHeadKey(origin), &record);
    }

    /// Forgets how far an origin's routes are known.
    pub fn delete_route_head(&mut self, origin: NodeKey) {
        self.delete(&RouteHeadKey(origin));
    }

    /// Sets a registry entry.
    pub fn put_registry(&mut self, client: &ClientKey, record: &RegistryRecord) {
        self.put(&RegistryKey(client.clone()), record);
    }

    /// Removes a registry entry.
    pub fn delete_registry(&mut self, client: &ClientKey) {
        self.delete(&RegistryKey(client.clone()));
    }

    /// Sets a member, under its own id.
    pub fn put_member(&mut self, record: &MemberRecord) {
        self.put(&MemberKey(record.node_id.key()), record);
    }

    /// Removes a member.
    pub fn delete_member(&mut self, node: NodeKey) {
        self.delete(&MemberKey(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_counts_its_bytes_and_keeps_its_order() {
        let mut batch = Batch::new();
        assert!(batch.is_empty());
        batch.put_received(1, 7);
        batch.append_forward(NodeKey(2), Class::Safety, Bytes::from_static(b"abc"));
        let mut other = Batch::new();
        other.delete_queue_of(9);
        other.trim(LogKey::Outbox { stream: 0 }, 5);
        batch.extend(other);
        assert_eq!((batch.len(), batch.bytes()), (4, 10 + 1 + 3 + 8));
        assert!(matches!(
            batch.ops(),
            [
                Op::Put { family: Family::Received, .. },
                Op::Append { .. },
                Op::DeletePrefix { family: Family::Queue, .. },
                Op::Trim { upto: 5, .. }
            ]
        ));
    }

    #[test]
    fn removing_a_session_names_each_of_its_families() {
        let mut batch = Batch::new();
        batch.delete_session_rows(3);
        let families: Vec<Family> = batch
            .ops()
            .iter()
            .filter_map(|op| match op {
                Op::Delete { family, .. } | Op::DeletePrefix { family, .. } => Some(*family),
                Op::Put { .. } | Op::Release { .. } | Op::Append { .. } | Op::Trim { .. } => None,
            })
            .collect();
        assert_eq!(
            families,
            [
                Family::Session,
                Family::Subscription,
                Family::Queue,
                Family::Inflight,
                Family::Received,
                Family::Seen
            ]
        );
    }
}
