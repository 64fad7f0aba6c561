//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0, 3.8 to 3.11).

use bytes::BytesMut;
use verge_model::Now;
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::packet::ack::ResponseProperties;
use verge_mqtt_proto::packet::suback::ReasonCodes;
use verge_mqtt_proto::session::{Stored, StreamTag, Subscription};
use verge_mqtt_proto::{
    Encode, QoS, ReasonCode, RetainHandling, Suback, Subscribe, SubscriptionRequest, TopicFilter,
    Unsuback, Unsubscribe,
};
use verge_storage::key::LANE_OWN;

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::api::{Delivery, HubMail, Output, SessionNo};
use super::replay::RETAINED_PER_SUBSCRIBE_MAX;
use super::streams::api::Via;
use super::streams::unsubscribed;
use super::turn::Effect;
use super::{Shard, words};
use crate::debts::put_delivery;
use crate::extension::counts::Counted;
use crate::router::parts::{EXCLUSIVE_PREFIX, FilterParts};

impl Shard {
    pub(super) fn handle_subscribe(&mut self, via: Via, subscribe: &Subscribe<'_>, now: Now) {
        let Some(no) = self.session_of(via.conn) else { return };
        let Some(tag) = self.tag_of(via, no) else { return };
        let mut codes = Vec::new();
        let mut retained = Vec::new();
        for request in &subscribe.filters {
            let (code, wants) =
                self.subscribe_one(via, tag, &request, subscribe.subscription_id, now);
            if code.is_error() {
                self.shared.counters.subscription_refused(code.name());
            }
            codes.push(code);
            retained.extend(wants);
        }
        let Some(conn) = self.conns.get(&via.conn) else { return };
        let words = words::of_filters(subscribe.filters.iter().map(|it| it.filter), &codes);
        let reason_string = conn.words(words.as_deref());
        let suback = Suback {
            packet_id: subscribe.packet_id,
            reasons: ReasonCodes::from_slice(&codes),
            properties: ResponseProperties { reason_string, ..ResponseProperties::default() },
        };
        self.reply_when_stored(via, no, conn.version(), &suback);
        self.put_subscriptions(no, now);
        let mut room = RETAINED_PER_SUBSCRIBE_MAX;
        for (filter, subscription) in retained {
            room -= self.send_retained(no, tag, &filter, &subscription, room, now);
        }
        self.replayed(via.conn, RETAINED_PER_SUBSCRIBE_MAX - room, now);
    }

    /// One filter of a SUBSCRIBE; with the subscription if retained messages are to be sent.
    fn subscribe_one(
        &mut self,
        via: Via,
        tag: StreamTag,
        request: &SubscriptionRequest<'_>,
        subscription_id: Option<u32>,
        now: Now,
    ) -> (ReasonCode, Option<(TopicFilter, Subscription)>) {
        let filter = match self.asked(via.conn, request.filter) {
            Ok(filter) => filter,
            Err(_) => return (ReasonCode::TopicFilterInvalid, None),
        };
        let terms = &self.config.terms;
        if let Some(code) = terms.refuses_subscription(&filter, subscription_id.is_some()) {
            return (code, None);
        }
        let Some(no) = self.session_of(via.conn) else {
            return (ReasonCode::UnspecifiedError, None);
        };
        if self.has_subscriptions_max(no, tag, &filter) {
            return (ReasonCode::QuotaExceeded, None);
        }
        let options = request.options;
        let conn = self.conns.get(&via.conn);
        let is_bridge = conn.is_some_and(|conn| conn.machine.client_is_bridge());
        let subscription = Subscription {
            qos: options.qos.min(self.config.qos_max),
            // On a shared subscription it would be a Protocol Error [MQTT-3.8.3-4].
            no_local: options.no_local || (is_bridge && filter.share().is_none()),
            retain_as_published: options.retain_as_published || is_bridge,
            retain_handling: options.retain_handling,
            id: subscription_id.and_then(NonZeroU32::new),
        };
        let existed = match self.add_subscription(no, tag, &filter, subscription, now) {
            Ok(existed) => existed,
            Err(code) => return (code, None),
        };
        // "If a Non-shared subscription …" (3.3.1.3): a shared one never gets retained messages.
        let wants = filter.share().is_none()
            && match options.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => !existed,
                RetainHandling::DoNotSend => false,
            };
        (ReasonCode::granted(subscription.qos), wants.then_some((filter, subscription)))
    }

    /// Adds a subscription to a session; whether it had one to this filter.
    pub(super) fn add_subscription(
        &mut self,
        no: SessionNo,
        tag: StreamTag,
        filter: &TopicFilter,
        subscription: Subscription,
        now: Now,
    ) -> Result<bool, ReasonCode> {
        let extensions = &self.shared.extensions;
        if let Some(sole) = filter.as_str().strip_prefix(EXCLUSIVE_PREFIX)
            && !extensions.exclusive.claim(sole, no)
        {
            extensions.counts.add(Counted::ExclusiveRefused);
            return Err(ReasonCode::QuotaExceeded);
        }
        let existed = if tag.is_control() {
            self.subscribe_on_control(no, filter, subscription)
        } else {
            self.subscribe_on_stream(no, tag, filter, subscription)
        };
        self.event_subscription(no, filter, Some(subscription.qos), now);
        Ok(existed)
    }

    /// Whether a session has as many subscriptions as it may, and this would be one more.
    fn has_subscriptions_max(&self, no: SessionNo, tag: StreamTag, filter: &TopicFilter) -> bool {
        let Some(session) = self.sessions.get(&no) else { return false };
        session.subscription_count() >= self.config.terms.subscriptions_max
            && !session.has_subscription(tag, filter)
    }

    /// Adds a subscription to the control stream; true if it was there.
    fn subscribe_on_control(
        &mut self,
        no: SessionNo,
        filter: &TopicFilter,
        subscription: Subscription,
    ) -> bool {
        let Some(session) = self.sessions.get_mut(&no) else { return false };
        let existed = session.subscriptions.insert(filter.clone(), subscription).is_some();
        if let Some(streams) = &mut session.streams {
            streams.detached.remove(filter);
        }
        self.store_subscription(no, filter);
        self.route(no, StreamTag::CONTROL, filter, subscription);
        existed
    }

    /// Puts a subscription into the router, and tells other nodes of a new route.
    pub(super) fn route(
        &mut self,
        no: SessionNo,
        tag: StreamTag,
        filter: &TopicFilter,
        subscription: Subscription,
    ) {
        let Some(subscriber) = self.subscriber(no, tag, filter, subscription) else { return };
        if let Some(sole) = filter.as_str().strip_prefix(EXCLUSIVE_PREFIX) {
            // A session that was restored, or comes from another node, has it even if it is taken.
            let _taken = self.shared.extensions.exclusive.claim(sole, no);
        }
        let outcome = self.shared.router.subscribe(filter, subscriber);
        if let Some(route) = outcome.advertise.filter(|_| self.config.mesh) {
            self.turn.outputs.push_back(Output::Hub(HubMail::AddRoute(route)));
        }
    }

    /// Takes a subscription out of the router, and tells other nodes of a route that ended.
    pub(super) fn unroute(&mut self, no: SessionNo, tag: StreamTag, filter: &TopicFilter) {
        if let Some(sole) = filter.as_str().strip_prefix(EXCLUSIVE_PREFIX) {
            self.shared.extensions.exclusive.release(sole, no);
        }
        let outcome = self.shared.router.unsubscribe(filter, no, tag);
        if let Some(route) = outcome.withdraw.filter(|_| self.config.mesh) {
            self.turn.outputs.push_back(Output::Hub(HubMail::RemoveRoute(route)));
        }
    }

    pub(super) fn handle_unsubscribe(&mut self, via: Via, unsubscribe: &Unsubscribe<'_>, now: Now) {
        let Some(no) = self.session_of(via.conn) else { return };
        let Some(tag) = self.tag_of(via, no) else { return };
        let mut codes = Vec::new();
        for filter in &unsubscribe.filters {
            codes.push(match self.asked(via.conn, filter) {
                Ok(filter) => self.unsubscribe_one(no, tag, &filter, now),
                Err(_) => ReasonCode::TopicFilterInvalid,
            });
        }
        let Some(conn) = self.conns.get(&via.conn) else { return };
        let words = words::of_filters(unsubscribe.filters.iter(), &codes);
        let reason_string = conn.words(words.as_deref());
        let unsuback = Unsuback {
            packet_id: unsubscribe.packet_id,
            reasons: ReasonCodes::from_slice(&codes),
            properties: ResponseProperties { reason_string, ..ResponseProperties::default() },
        };
        self.reply_when_stored(via, no, conn.version(), &unsuback);
        self.put_subscriptions(no, now);
    }

    fn unsubscribe_one(
        &mut self,
        no: SessionNo,
        tag: StreamTag,
        filter: &TopicFilter,
        now: Now,
    ) -> ReasonCode {
        let Some(session) = self.sessions.get_mut(&no) else {
            return ReasonCode::UnspecifiedError;
        };
        let on_control = tag.is_control() && session.subscriptions.remove(filter).is_some();
        if !on_control {
            let existed = self.unsubscribe_on_streams(no, tag, filter, now);
            if existed {
                self.event_subscription(no, filter, None, now);
            }
            return unsubscribed(existed);
        }
        if let Some(streams) = &mut session.streams {
            streams.detached.remove(filter);
        }
        self.store_subscription(no, filter);
        self.unroute(no, StreamTag::CONTROL, filter);
        self.route_sibling(no, filter);
        self.event_subscription(no, filter, None, now);
        self.member_left(no, StreamTag::CONTROL, filter, now);
        ReasonCode::Success
    }

    /// A session may have the same filter with and without `$exclusive/`, which is one to the router.
    fn route_sibling(&mut self, no: SessionNo, gone: &TopicFilter) {
        let Some(session) = self.sessions.get(&no) else { return };
        let other = match gone.as_str().strip_prefix(EXCLUSIVE_PREFIX) {
            Some(sole) => Cow::Borrowed(sole),
            None => Cow::Owned(format!("{EXCLUSIVE_PREFIX}{gone}")),
        };
        let sibling = session.subscriptions.get_key_value(&*other);
        if let Some((filter, subscription)) = sibling.map(|(f, s)| (f.clone(), *s)) {
            self.route(no, StreamTag::CONTROL, &filter, subscription);
        }
    }

    /// Sends a SUBACK or UNSUBACK when what it says is stored.
    fn reply_when_stored<P: Encode>(
        &mut self,
        via: Via,
        no: SessionNo,
        version: verge_mqtt_proto::ProtocolVersion,
        packet: &P,
    ) {
        let mut out = BytesMut::new();
        let limit = self
            .conns
            .get(&via.conn)
            .map_or(usize::MAX, |conn| conn.machine.client_packet_bytes_max());
        if packet.encode_within(version, limit, &mut out).is_err() {
            return;
        }
        let packet = out.freeze();
        let durable = self.sessions.get(&no).is_some_and(|session| session.is_durable());
        if durable || self.turn.is_waiting() {
            let promise = self.conns.get(&via.conn).map(|conn| conn.listener.promise);
            self.turn.promise(promise.unwrap_or_default());
            self.turn.when_durable(Effect::Packet { via, packet });
        } else {
            self.write_raw(via, &packet);
        }
    }

    /// Owes the session the retained messages of a filter [MQTT-3.3.1-9], at most `limit`; gives
    /// their number.
    pub(super) fn send_retained(
        &mut self,
        no: SessionNo,
        tag: StreamTag,
        filter: &TopicFilter,
        subscription: &Subscription,
        limit: usize,
        now: Now,
    ) -> usize {
        let parts = FilterParts::of(filter.as_str());
        let retained = &self.shared.retained;
        // One more tells whether some are left out.
        let asked = limit + 1;
        let mut messages = if parts.local {
            retained.matches_of(self.shared.node, parts.filter, now.wall, asked)
        } else {
            retained.matches(parts.filter, now.wall, asked)
        };
        if messages.len() > limit {
            messages.truncate(limit);
            self.shared.counters.retained_replay_cut(1);
        }
        if subscription.no_local {
            let own = self.sessions.get(&no).map(|session| session.client.author());
            messages.retain(|message| own.as_ref() != Some(&message.publisher));
        }
        let count = messages.len();
        for message in messages {
            self.owe(no, tag, message, subscription, now);
        }
        count
    }

    fn owe(
        &mut self,
        no: SessionNo,
        tag: StreamTag,
        message: Arc<Message>,
        by: &Subscription,
        now: Now,
    ) {
        let Some(session) = self.sessions.get(&no) else { return };
        let qos = message.qos.min(by.qos);
        let stored = session.is_durable() && qos != QoS::AtMostOnce;
        let delivery = Delivery {
            session: no,
            seq: self.shared.next_queue_seq(),
            qos,
            retain: true,
            subscription_ids: by.id_number().into_iter().collect(),
            tag,
            stored: if stored { Stored::Whole } else { Stored::Nowhere },
            share: None,
            message,
        };
        put_delivery(&delivery, LANE_OWN, now, &mut self.turn.batch);
        // It follows the SUBACK, whatever that waits for.
        if self.turn.is_waiting() {
            let deliveries = std::iter::once((self.config.index, delivery)).collect();
            self.turn.when_durable(Effect::Deliver(deliveries));
        } else {
            self.take_delivery(delivery, now);
        }
    }
}
