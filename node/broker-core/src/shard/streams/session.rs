//! What a session keeps of the streams of its connections.

use std::collections::{BTreeMap, BTreeSet};

use verge_mesh_proto::crdt::sessions::RegistryEntry;
use verge_model::MessageId;
use verge_mqtt_proto::session::{StreamTag, Subscription};
use verge_mqtt_proto::{PacketId, TopicFilter};

use super::Streams;
use super::api::StreamNo;
use crate::record::subscription_to_entry;
use crate::shard::api::Delivery;
use crate::shard::session::Session;

/// There once a client has used a stream beside the control stream for more than publishing at
/// QoS 0 or 1, and then as long as the session is here: tags are not given twice.
#[derive(Debug, Default)]
pub(in crate::shard) struct SessionStreams {
    /// The last tag given.
    last_tag: u32,
    /// Tags up to here were given on earlier connections: what has one is the control stream's.
    earlier: u32,
    /// Subscriptions made on streams of the present connection.
    pub(in crate::shard) live: BTreeMap<StreamTag, BTreeMap<TopicFilter, Subscription>>,
    /// Filters among the session's subscriptions that were made on streams of an earlier
    /// connection; the stream that subscribes to one takes it over.
    pub(in crate::shard) detached: BTreeSet<TopicFilter>,
    /// QoS 2 messages received and not released, by stream of the present connection. The Receive
    /// Maximum of the connection bounds them.
    pub(super) received: BTreeSet<(StreamNo, PacketId)>,
    /// Those of streams that are over; there are no more than packet identifiers.
    pub(in crate::shard) orphans: BTreeSet<PacketId>,
    /// The last message taken on, and for which streams: for another one it is not a repetition.
    last_message: Option<MessageId>,
    /// No more than the connection has streams.
    last_tags: Vec<StreamTag>,
}

impl SessionStreams {
    /// A tag no stream had; `None` if all were given.
    pub(super) fn next_tag(&mut self) -> Option<StreamTag> {
        self.last_tag = self.last_tag.checked_add(1)?;
        Some(StreamTag(self.last_tag))
    }

    /// The connection is gone: its tags mean the control stream from now on, and what was received
    /// on its streams is nobody's.
    pub(super) fn end_connection(&mut self) {
        self.earlier = self.last_tag;
        self.orphans.extend(std::mem::take(&mut self.received).into_iter().map(|(_, id)| id));
    }

    /// A stream is over: what was received on it is nobody's.
    pub(super) fn end_stream(&mut self, stream: StreamNo) {
        let Self { received, orphans, .. } = self;
        received.retain(|(of, id)| {
            let over = *of == stream;
            if over {
                orphans.insert(*id);
            }
            !over
        });
    }

    /// Whether a message with this id was received on some stream and not released.
    pub(super) fn is_pending(&self, id: PacketId) -> bool {
        self.orphans.contains(&id) || self.received.iter().any(|(_, pending)| *pending == id)
    }

    /// Whether the tag was given on an earlier connection.
    pub(in crate::shard) fn is_earlier(&self, tag: StreamTag) -> bool {
        tag.0 <= self.earlier
    }

    /// The subscription of a filter on any stream of the present connection.
    fn live_of(&self, filter: &TopicFilter) -> Option<Subscription> {
        let live =
            self.live.values().filter_map(|subscriptions| subscriptions.get(filter).copied());
        live.reduce(merged)
    }

    /// Remembers a delivery that was taken on.
    pub(in crate::shard) fn note_delivery(&mut self, delivery: &Delivery) {
        if self.last_message.replace(delivery.message.id) != Some(delivery.message.id) {
            self.last_tags.clear();
        }
        self.last_tags.push(delivery.tag);
    }

    /// Panics if a documented relation between the parts does not hold.
    pub(super) fn check_invariants(&self, session: &Session, conn: Option<&Streams>) {
        assert!(self.earlier <= self.last_tag);
        assert!(self.detached.iter().all(|filter| session.subscriptions.contains_key(filter)));
        for (tag, subscriptions) in &self.live {
            assert!(!self.is_earlier(*tag) && tag.0 <= self.last_tag && !subscriptions.is_empty());
            assert!(conn.is_some_and(|streams| streams.tags.contains_key(tag)));
        }
        assert!(conn.is_some() || self.received.is_empty());
        for tag in session.outbound.tags() {
            let known = conn.is_some_and(|streams| streams.tags.contains_key(&tag));
            assert!(self.is_earlier(tag) || known, "{tag:?} is owed and has no stream");
        }
    }
}

/// One subscription in the place of two with the same filter on two streams.
pub(super) fn merged(first: Subscription, other: Subscription) -> Subscription {
    Subscription { qos: first.qos.max(other.qos), ..first }
}

impl Session {
    /// The subscription that is stored and replicated for a filter, and whether only streams beside
    /// the control stream have it: there is one for a filter, as the session would have it if its
    /// connection were lost now.
    pub(in crate::shard) fn kept(&self, filter: &TopicFilter) -> Option<(Subscription, bool)> {
        let Some(streams) = &self.streams else {
            return self.subscriptions.get(filter).map(|subscription| (*subscription, false));
        };
        match self.subscriptions.get(filter) {
            Some(subscription) if !streams.detached.contains(filter) => {
                Some((*subscription, false))
            }
            Some(subscription) => Some((*subscription, true)),
            None => streams.live_of(filter).map(|subscription| (subscription, true)),
        }
    }

    /// Whether a message that was seen before is a delivery of its own: a plan names the streams of
    /// a session one after the other.
    pub(in crate::shard) fn is_for_another_stream(&self, delivery: &Delivery) -> bool {
        self.streams.as_ref().is_some_and(|streams| {
            streams.last_message == Some(delivery.message.id)
                && !streams.last_tags.contains(&delivery.tag)
        })
    }

    /// Puts what is kept of the session's subscriptions into an entry for other nodes.
    pub(in crate::shard) fn note_subscriptions(&self, entry: &mut RegistryEntry) {
        for filter in self.filters() {
            if let Some((subscription, on_stream)) = self.kept(&filter) {
                let subscription = subscription_to_entry(&filter, &subscription, on_stream);
                entry.subscribe(self.claim, subscription);
            }
        }
    }

    /// Whether a stream of the present connection has subscribed to a filter.
    pub(super) fn is_live(&self, filter: &TopicFilter) -> bool {
        self.streams.as_ref().is_some_and(|streams| streams.live_of(filter).is_some())
    }

    /// Says which of the session's subscriptions are detached.
    pub(in crate::shard) fn set_detached(&mut self, detached: BTreeSet<TopicFilter>) {
        if self.streams.is_some() || !detached.is_empty() {
            self.streams.get_or_insert_default().detached = detached;
        }
    }

    /// QoS 2 identifiers received and not released on streams, each once.
    pub(in crate::shard) fn received_on_streams(&self) -> BTreeSet<PacketId> {
        let Some(streams) = &self.streams else { return BTreeSet::new() };
        let received = streams.received.iter().map(|(_, id)| *id);
        received.chain(streams.orphans.iter().copied()).collect()
    }

    /// Takes back QoS 2 identifiers that were received on streams that are over.
    pub(in crate::shard) fn restore_received(&mut self, ids: impl IntoIterator<Item = PacketId>) {
        let mut ids = ids.into_iter().peekable();
        if ids.peek().is_some() {
            self.streams.get_or_insert_default().orphans.extend(ids);
        }
    }

    /// All filters of the session, each once.
    pub(in crate::shard) fn filters(&self) -> BTreeSet<TopicFilter> {
        let live = self.streams.iter().flat_map(|streams| streams.live.values());
        let live = live.flat_map(BTreeMap::keys);
        self.subscriptions.keys().chain(live).cloned().collect()
    }

    /// Subscriptions, those on streams included.
    pub(in crate::shard) fn subscription_count(&self) -> usize {
        let live = self.streams.iter().flat_map(|streams| streams.live.values());
        self.subscriptions.len() + live.map(BTreeMap::len).sum::<usize>()
    }
}
