//! SUBSCRIBE and UNSUBSCRIBE on streams.
//!
//! Subscriptions are per stream: a filter subscribed to on two streams is delivered on both. When
//! the connection is lost and the session stays, those of its streams are *detached*: they go on as
//! the control stream's, and the stream that subscribes to the same filter again takes one over.
//!
//! | UNSUBSCRIBE on | removes |
//! |---|---|
//! | a data stream | that stream's subscription |
//! | the control stream | its own or a detached one; if there is none, that of every stream |
//!
//! The last is for clients that subscribe on streams and unsubscribe on the control stream.

use std::collections::{BTreeMap, BTreeSet};

use verge_model::Now;
use verge_mqtt_proto::session::{StreamTag, Subscription};
use verge_mqtt_proto::{ReasonCode, TopicFilter};

use super::api::Via;
use super::session::merged;
use crate::ledger::{DropReason, Settled};
use crate::record::{planned_as, subscription_from_entry, subscription_to_record};
use crate::router::Subscriber;
use crate::shard::Shard;
use crate::shard::api::{HubMail, Output, SessionNo};
use crate::shard::session::Session;

impl Shard {
    /// The tag of a stream, given now if it has none; `None` if the stream is over, or the session
    /// has had four billion.
    pub(in crate::shard) fn tag_of(&mut self, via: Via, no: SessionNo) -> Option<StreamTag> {
        if via.stream.is_control() {
            return Some(StreamTag::CONTROL);
        }
        let Self { conns, sessions, .. } = self;
        let streams = conns.get_mut(&via.conn)?.streams.as_mut()?;
        let stream = streams.table.get_mut(&via.stream)?;
        if stream.tag.is_control() {
            stream.tag = sessions.get_mut(&no)?.streams.get_or_insert_default().next_tag()?;
            streams.tags.insert(stream.tag, via.stream);
        }
        Some(stream.tag)
    }

    /// Adds a subscription to a stream; true if it was there, or detached.
    pub(in crate::shard) fn subscribe_on_stream(
        &mut self,
        no: SessionNo,
        tag: StreamTag,
        filter: &TopicFilter,
        subscription: Subscription,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&no) else { return false };
        let streams = session.streams.get_or_insert_default();
        let live = streams.live.entry(tag).or_default();
        let existed = live.insert(filter.clone(), subscription).is_some();
        let detached = streams.detached.remove(filter);
        if detached {
            session.subscriptions.remove(filter);
            self.retag(no, filter, subscription, StreamTag::CONTROL, tag);
        } else {
            self.route(no, tag, filter, subscription);
        }
        self.store_subscription(no, filter);
        existed || detached
    }

    /// Removes a filter from a stream, or what an UNSUBSCRIBE on the control stream finds none of
    /// there from all streams; false if there was none.
    pub(in crate::shard) fn unsubscribe_on_streams(
        &mut self,
        no: SessionNo,
        tag: StreamTag,
        filter: &TopicFilter,
        now: Now,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&no) else { return false };
        let Some(streams) = &mut session.streams else { return false };
        let mut removed = Vec::new();
        streams.live.retain(|of, subscriptions| {
            let meant = tag.is_control() || *of == tag;
            if meant && subscriptions.remove(filter).is_some() {
                removed.push(*of);
            }
            !subscriptions.is_empty()
        });
        for of in &removed {
            self.unroute(no, *of, filter);
            self.member_left(no, *of, filter, now);
        }
        if !removed.is_empty() {
            self.store_subscription(no, filter);
        }
        !removed.is_empty()
    }

    /// Stores, and notes for other nodes, what is kept of a session's subscriptions of a filter.
    pub(in crate::shard) fn store_subscription(&mut self, no: SessionNo, filter: &TopicFilter) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        if let Some(replica) = &mut session.entry {
            replica.note(filter.clone());
        }
        self.store_subscription_row(no, filter);
    }

    fn store_subscription_row(&mut self, no: SessionNo, filter: &TopicFilter) {
        let Some(session) = self.sessions.get(&no).filter(|session| session.is_durable()) else {
            return;
        };
        let batch = &mut self.turn.batch;
        match session.kept(filter) {
            Some((kept, on_stream)) => {
                let record = subscription_to_record(&session.client, filter, &kept, on_stream);
                batch.put_subscription(no.0, filter.as_str(), &record);
            }
            None => batch.delete_subscription(no.0, filter.as_str()),
        }
    }

    /// Installs the subscriptions that the registry entry of a session names.
    pub(in crate::shard) fn adopt_subscriptions(&mut self, no: SessionNo) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        session.say_all();
        let Some(entry) = &session.entry else { return };
        let (mut wanted, mut detached) = (BTreeMap::new(), BTreeSet::new());
        for subscription in entry.subscriptions().into_values() {
            match subscription_from_entry(&subscription) {
                // A stream of the present connection has it.
                Ok((filter, _, true)) if session.is_live(&filter) => {}
                Ok((filter, subscription, on_stream)) => {
                    if on_stream {
                        detached.insert(filter.clone());
                    }
                    wanted.insert(filter, subscription);
                }
                Err(error) => tracing::warn!(%error, "a replicated subscription was left out"),
            }
        }
        let gone: Vec<_> =
            session.subscriptions.keys().filter(|f| !wanted.contains_key(*f)).cloned().collect();
        session.subscriptions = wanted.clone().into_iter().collect();
        session.set_detached(detached);
        for filter in gone {
            self.store_subscription_row(no, &filter);
            self.unroute(no, StreamTag::CONTROL, &filter);
        }
        for (filter, subscription) in wanted {
            self.store_subscription_row(no, &filter);
            self.route(no, StreamTag::CONTROL, &filter, subscription);
        }
    }

    /// A stream is over, and its connection goes on: its subscriptions end, and what is owed on it.
    pub(super) fn end_stream_state(&mut self, via: Via, now: Now) {
        let Some(no) = self.session_of(via.conn) else { return };
        let Some(streams) = self.conns.get_mut(&via.conn).and_then(|conn| conn.streams.as_mut())
        else {
            return;
        };
        let Some(stream) = streams.table.get_mut(&via.stream) else { return };
        let tag = std::mem::take(&mut stream.tag);
        streams.tags.remove(&tag);
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(streams) = &mut session.streams else { return };
        streams.end_stream(via.stream);
        if tag.is_control() {
            return;
        }
        let subscriptions = streams.live.remove(&tag).unwrap_or_default();
        let owed = session.outbound.remove_of(tag);
        for filter in subscriptions.keys() {
            self.unroute(no, tag, filter);
            self.store_subscription(no, filter);
        }
        for (entry, _) in self.redeliver(no, owed, false, now) {
            self.settle(no, &entry, Settled::Dropped(DropReason::StreamEnded), now);
        }
        if !subscriptions.is_empty() {
            self.put_subscriptions(no, now);
        }
        // What was owed on it took of what the client has room for.
        self.pump(no, now);
    }

    /// The connection of a session is gone and the session stays: subscriptions of its streams are
    /// detached, and what is owed on them is owed on the control stream.
    pub(in crate::shard) fn detach_streams(&mut self, no: SessionNo) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(streams) = &mut session.streams else { return };
        streams.end_connection();
        for (tag, subscriptions) in std::mem::take(&mut streams.live) {
            for (filter, subscription) in subscriptions {
                self.detach_subscription(no, tag, filter, subscription);
            }
        }
    }

    fn detach_subscription(
        &mut self,
        no: SessionNo,
        tag: StreamTag,
        filter: TopicFilter,
        subscription: Subscription,
    ) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let Some(streams) = &mut session.streams else { return };
        // What is kept of the filter is the same as before, so its row is right.
        match session.subscriptions.get_mut(&filter) {
            None => {
                session.subscriptions.insert(filter.clone(), subscription);
                streams.detached.insert(filter.clone());
                self.retag(no, &filter, subscription, tag, StreamTag::CONTROL);
            }
            Some(kept) if streams.detached.contains(&filter) => {
                *kept = merged(*kept, subscription);
                let kept = *kept;
                self.route(no, StreamTag::CONTROL, &filter, kept);
                self.unroute(no, tag, &filter);
            }
            Some(_) => self.unroute(no, tag, &filter),
        }
    }

    /// Takes the subscriptions of a session's streams out of the router: the session is over.
    pub(in crate::shard) fn unroute_streams(&mut self, no: SessionNo, session: &Session) {
        let live = session.streams.iter().flat_map(|streams| &streams.live);
        for (tag, subscriptions) in live {
            for filter in subscriptions.keys() {
                self.unroute(no, *tag, filter);
            }
        }
    }

    /// Moves a subscription from one stream to another; a message gets one of them.
    fn retag(
        &mut self,
        no: SessionNo,
        filter: &TopicFilter,
        subscription: Subscription,
        from: StreamTag,
        to: StreamTag,
    ) {
        let Some(subscriber) = self.subscriber(no, to, filter, subscription) else { return };
        if let Some(route) = self.shared.router.retag(filter, from, subscriber)
            && self.config.mesh
        {
            self.turn.outputs.push_back(Output::Hub(HubMail::AddRoute(route)));
        }
    }

    /// What the router is to know of a subscription.
    pub(in crate::shard) fn subscriber(
        &self,
        no: SessionNo,
        tag: StreamTag,
        filter: &TopicFilter,
        subscription: Subscription,
    ) -> Option<Subscriber> {
        let session = self.sessions.get(&no)?;
        let client = planned_as(&session.client, filter, &subscription).map(Box::new);
        Some(Subscriber {
            shard: self.config.index,
            session: no,
            tag,
            client,
            options: subscription,
            durable: session.is_durable(),
            online: session.conn.is_some(),
        })
    }
}

/// What an UNSUBSCRIBE answers.
pub(in crate::shard) const fn unsubscribed(existed: bool) -> ReasonCode {
    if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted }
}
