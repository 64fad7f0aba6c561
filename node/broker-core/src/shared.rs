//! What all shards and the hub of a node have in common.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use verge_model::{Class, ClientKey, Hlc, Incarnation, MessageId, NodeKey, UnixMillis};
use verge_mqtt_proto::QoS;
use verge_mqtt_proto::message::Message;
use verge_storage::{Health, MemoryStore, Store};

use crate::drops::{DropExamples, Dropped};
use crate::extension::{EventKind, Extensions};
use crate::ledger::{Counters, Ledger, Settled};
use crate::parked::ParkedCounts;
use crate::retained::{Retained, RetainedLimits};
use crate::router::{Router, SharedSettings};
use crate::rule::TopicRules;
use crate::shard::api::SessionNo;

/// Bits of a queue position or session number below the incarnation: numbers given in one life of
/// a node lie above all of its earlier lives, without a look at what is stored.
pub(crate) const LIFE_BITS: u32 = 40;

/// Shared by reference count between the threads of a node. Everything in it is either read-mostly
/// behind a lock or an atomic counter.
#[derive(Debug)]
pub struct NodeShared {
    /// This node.
    pub node: NodeKey,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Who wants which topic.
    pub router: Router,
    /// Retained messages.
    pub retained: Retained,
    /// Debts taken on and settled.
    pub ledger: Ledger,
    /// What happened, for metrics.
    pub counters: Counters,
    /// Examples of what was dropped.
    pub drops: DropExamples,
    /// Sessions on their way out of memory and back, counted.
    pub parked: ParkedCounts,
    /// Class, scope, promise and uplink by topic.
    pub rules: TopicRules,
    /// What goes beyond the standard.
    pub extensions: Extensions,
    /// How the store is.
    pub storage: Arc<Health>,
    /// Nodes that keep retained messages with us. A lock because it changes with membership only
    /// and is read by PUBLISH with RETAIN only.
    peers: RwLock<Arc<[NodeKey]>>,
    message_seq: AtomicU64,
    queue_seq: AtomicU64,
    session_no: AtomicU64,
    stamp: AtomicU64,
    store: StoreRef,
}

/// A store, which says nothing of itself.
struct StoreRef(Arc<dyn Store>);

impl fmt::Debug for StoreRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreRef").field(self.0.identity()).finish()
    }
}

impl NodeShared {
    /// The state of a node that begins a life.
    #[must_use]
    pub fn new(node: NodeKey, incarnation: Incarnation, rules: TopicRules) -> Self {
        let life = u64::from(incarnation) << LIFE_BITS;
        Self {
            node,
            incarnation,
            router: Router::new(),
            retained: Retained::default(),
            ledger: Ledger::default(),
            counters: Counters::default(),
            drops: DropExamples::default(),
            parked: ParkedCounts::default(),
            rules,
            extensions: Extensions::default(),
            storage: Arc::default(),
            peers: RwLock::new(Arc::from([])),
            message_seq: AtomicU64::new(1),
            queue_seq: AtomicU64::new(life + 1),
            session_no: AtomicU64::new(life + 1),
            stamp: AtomicU64::new(0),
            store: StoreRef(Arc::new(MemoryStore::new(&nobody(), 0))),
        }
    }

    /// The same, with what is stored. Without, nothing is.
    #[must_use]
    pub fn with_store(self, store: Arc<dyn Store>) -> Self {
        Self { store: StoreRef(store), ..self }
    }

    /// What is stored, to be read: rows that were committed.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.store.0
    }

    /// The first number of sessions, and position in queues, that this life gave.
    #[must_use]
    pub fn life_floor(&self) -> u64 {
        u64::from(self.incarnation) << LIFE_BITS
    }

    /// The same, with shared subscriptions as configured.
    #[must_use]
    pub fn with_shared(self, settings: SharedSettings) -> Self {
        let settings = SharedSettings { node: self.node, ..settings };
        Self { router: Router::with_shared(settings), ..self }
    }

    /// The same, with extensions as configured.
    #[must_use]
    pub fn with_extensions(self, extensions: Extensions) -> Self {
        Self { extensions, ..self }
    }

    /// The same, over a store that says how it is.
    #[must_use]
    pub fn with_storage(self, storage: Arc<Health>) -> Self {
        Self { storage, ..self }
    }

    /// Books the end of a debt of a client.
    pub(crate) fn settle(&self, settled: Settled, client: &ClientKey, message: &Message) {
        self.ledger.settle(settled, message.class, 1);
        if let Settled::Dropped(reason) = settled {
            self.note_dropped(Dropped::Debt(reason), client, message);
        }
    }

    /// Takes note of a message that a client does without; it is counted elsewhere.
    pub(crate) fn note_dropped(&self, dropped: Dropped, client: &ClientKey, message: &Message) {
        let topic = message.topic.as_str();
        self.note_example(dropped, message.class, client, topic, message.qos);
        self.note_unwanted(message);
    }

    /// Keeps who did without what as an example, if such is told.
    pub(crate) fn note_example(
        &self,
        dropped: Dropped,
        class: Class,
        client: &ClientKey,
        topic: &str,
        qos: QoS,
    ) {
        if self.extensions.events.is_on(EventKind::Dropped) {
            self.drops.note(dropped, class, &client.client_id, topic, qos);
        }
    }

    /// Counts a message that a session, or everyone, does without, if its topic is counted.
    pub(crate) fn note_unwanted(&self, message: &Message) {
        let metrics = &self.extensions.topic_metrics;
        if metrics.is_active() {
            metrics.dropped(message.topic.as_str());
        }
    }

    /// Counts a message that was sent, if its topic is counted.
    pub(crate) fn note_sent(&self, message: &Message, qos: QoS) {
        let metrics = &self.extensions.topic_metrics;
        if metrics.is_active() {
            metrics.sent(message.topic.as_str(), qos, message.payload.len());
        }
    }

    /// The same, with these bounds of retained messages.
    #[must_use]
    pub fn with_retained(self, limits: RetainedLimits) -> Self {
        Self { retained: Retained::new(limits), ..self }
    }

    /// The name of the next message this node accepts.
    #[must_use]
    pub fn next_message_id(&self) -> MessageId {
        let seq = self.message_seq.fetch_add(1, Ordering::Relaxed);
        MessageId { node: self.node, incarnation: self.incarnation, seq }
    }

    /// The next position in the queues of this node.
    #[must_use]
    pub fn next_queue_seq(&self) -> u64 {
        self.queue_seq.fetch_add(1, Ordering::Relaxed)
    }

    /// The first position this life of the node gives; what has an earlier one was planned in an
    /// earlier life.
    #[must_use]
    pub fn first_queue_seq(&self) -> u64 {
        u64::from(self.incarnation) << LIFE_BITS
    }

    /// The number of the next session.
    #[must_use]
    pub fn next_session_no(&self) -> SessionNo {
        SessionNo(self.session_no.fetch_add(1, Ordering::Relaxed))
    }

    /// A stamp greater than any this node gave before.
    #[must_use]
    pub fn stamp(&self, wall: UnixMillis) -> Hlc {
        let floor = Hlc::from_wall(wall).0;
        let next = |last: u64| Some((last + 1).max(floor));
        let last = self.stamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        Hlc((last.unwrap_or_else(|last| last) + 1).max(floor))
    }

    /// Takes note of a stamp given elsewhere or in an earlier life: those given from now on are
    /// greater, whatever the clock says.
    pub fn note_stamp(&self, stamp: Hlc) {
        self.stamp.fetch_max(stamp.0, Ordering::Relaxed);
    }

    /// The nodes that keep retained messages with us.
    #[must_use]
    pub fn peers(&self) -> Arc<[NodeKey]> {
        self.peers.read().clone()
    }

    /// Replaces the nodes that keep retained messages with us.
    pub fn set_peers(&self, peers: Vec<NodeKey>) {
        *self.peers.write() = peers.into();
    }
}

fn nobody() -> verge_model::NodeId {
    "nobody".parse().expect("this is a node id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_and_numbers_of_a_later_life_are_greater() {
        let first = NodeShared::new(NodeKey(1), 1, TopicRules::default());
        let second = NodeShared::new(NodeKey(1), 2, TopicRules::default());
        assert!(first.stamp(UnixMillis(5)) < first.stamp(UnixMillis(5)));
        assert!(first.stamp(UnixMillis(9)) < first.stamp(UnixMillis(3)));
        let stored = first.stamp(UnixMillis(50_000));
        second.note_stamp(stored);
        assert!(stored < second.stamp(UnixMillis(1)), "the clock was set back");
        assert!(first.next_queue_seq() < first.next_queue_seq());
        assert!(first.next_queue_seq() < second.next_queue_seq());
        assert!(first.next_session_no() < second.next_session_no());
    }
}
