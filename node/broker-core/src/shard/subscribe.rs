//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5.0, 3.8 to 3.11).

use bytes::BytesMut;
use verge_model::Now;
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::packet::ack::ResponseProperties;
use verge_mqtt_proto::packet::suback::ReasonCodes;
use verge_mqtt_proto::session::Subscription;
use verge_mqtt_proto::{
    Encode, QoS, ReasonCode, RetainHandling, Suback, Subscribe, SubscriptionRequest, TopicFilter,
    Unsuback, Unsubscribe,
};
use verge_storage::key::LANE_OWN;
use verge_storage::record::QueueState;

use std::sync::Arc;

use super::api::{ConnId, Delivery, HubMail, Output, SessionNo};
use super::asked::asked;
use super::connection::Conn;
use super::turn::Effect;
use super::{Shard, words};
use crate::planner::put_queue_row;
use crate::record::{put_message, subscription_to_entry, subscription_to_record};
use crate::router::Subscriber;
use crate::router::parts::FilterParts;

/// Most retained messages sent for one filter. A client that wants more subscribes more narrowly.
const RETAINED_PER_FILTER_MAX: usize = 10_000;

impl Shard {
    pub(super) fn handle_subscribe(&mut self, id: ConnId, subscribe: &Subscribe<'_>, now: Now) {
        let Some(no) = self.conns.get(&id).and_then(Conn::session) else { return };
        let mut codes = Vec::new();
        let mut retained = Vec::new();
        for request in &subscribe.filters {
            let (code, wants) = self.subscribe_one(no, &request, subscribe.subscription_id);
            codes.push(code);
            retained.extend(wants);
        }
        let Some(conn) = self.conns.get(&id) else { return };
        let words = words::of_filters(subscribe.filters.iter().map(|it| it.filter), &codes);
        let reason_string = conn.words(words.as_deref());
        let suback = Suback {
            packet_id: subscribe.packet_id,
            reasons: ReasonCodes::from_slice(&codes),
            properties: ResponseProperties { reason_string, ..ResponseProperties::default() },
        };
        self.reply_when_stored(id, no, conn.version(), &suback);
        self.put_registry(no);
        for (filter, subscription) in retained {
            self.send_retained(no, &filter, &subscription, now);
        }
    }

    /// One filter of a SUBSCRIBE; with the subscription if retained messages are to be sent.
    fn subscribe_one(
        &mut self,
        no: SessionNo,
        request: &SubscriptionRequest<'_>,
        subscription_id: Option<u32>,
    ) -> (ReasonCode, Option<(TopicFilter, Subscription)>) {
        let filter = match asked(request.filter) {
            Ok(filter) => filter,
            Err(_) => return (ReasonCode::TopicFilterInvalid, None),
        };
        let options = request.options;
        let subscription = Subscription {
            qos: options.qos.min(self.config.qos_max),
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling,
            id: subscription_id,
        };
        let Some(session) = self.sessions.get_mut(&no) else {
            return (ReasonCode::UnspecifiedError, None);
        };
        let existed = session.subscriptions.insert(filter.clone(), subscription).is_some();
        if let Some(entry) = &mut session.entry {
            entry.subscribe(session.claim, subscription_to_entry(&filter, &subscription));
        }
        if session.is_durable() {
            let record = subscription_to_record(&subscription);
            self.turn.batch.put_subscription(no.0, filter.as_str(), &record);
        }
        self.route(no, &filter, subscription);
        // "If a Non-shared subscription …" (3.3.1.3): a shared one never gets retained messages.
        let wants = filter.share().is_none()
            && match options.retain_handling {
                RetainHandling::Send => true,
                RetainHandling::SendIfNew => !existed,
                RetainHandling::DoNotSend => false,
            };
        (ReasonCode::granted(subscription.qos), wants.then_some((filter, subscription)))
    }

    /// Puts a subscription into the router, and tells other nodes of a new route.
    pub(super) fn route(
        &mut self,
        no: SessionNo,
        filter: &TopicFilter,
        subscription: Subscription,
    ) {
        let Some(session) = self.sessions.get(&no) else { return };
        let subscriber = Subscriber {
            shard: self.config.index,
            session: no,
            client: Arc::clone(&session.client.client_id),
            options: subscription,
            durable: session.is_durable(),
            online: session.conn.is_some(),
        };
        let outcome = self.shared.router.subscribe(filter, subscriber);
        if let Some(route) = outcome.advertise.filter(|_| self.config.mesh) {
            self.turn.outputs.push_back(Output::Hub(HubMail::AddRoute(route)));
        }
    }

    /// Takes a subscription out of the router, and tells other nodes of a route that ended.
    pub(super) fn unroute(&mut self, no: SessionNo, filter: &TopicFilter) {
        let outcome = self.shared.router.unsubscribe(filter, no);
        if let Some(route) = outcome.withdraw.filter(|_| self.config.mesh) {
            self.turn.outputs.push_back(Output::Hub(HubMail::RemoveRoute(route)));
        }
    }

    pub(super) fn handle_unsubscribe(
        &mut self,
        id: ConnId,
        unsubscribe: &Unsubscribe<'_>,
        now: Now,
    ) {
        let Some(no) = self.conns.get(&id).and_then(Conn::session) else { return };
        let mut codes = Vec::new();
        for filter in &unsubscribe.filters {
            codes.push(match asked(filter) {
                Ok(filter) => self.unsubscribe_one(no, &filter, now),
                Err(_) => ReasonCode::TopicFilterInvalid,
            });
        }
        let Some(conn) = self.conns.get(&id) else { return };
        let words = words::of_filters(unsubscribe.filters.iter(), &codes);
        let reason_string = conn.words(words.as_deref());
        let unsuback = Unsuback {
            packet_id: unsubscribe.packet_id,
            reasons: ReasonCodes::from_slice(&codes),
            properties: ResponseProperties { reason_string, ..ResponseProperties::default() },
        };
        self.reply_when_stored(id, no, conn.version(), &unsuback);
        self.put_registry(no);
    }

    fn unsubscribe_one(&mut self, no: SessionNo, filter: &TopicFilter, now: Now) -> ReasonCode {
        let Some(session) = self.sessions.get_mut(&no) else {
            return ReasonCode::UnspecifiedError;
        };
        if session.subscriptions.remove(filter).is_none() {
            return ReasonCode::NoSubscriptionExisted;
        }
        if let Some(entry) = &mut session.entry {
            entry.unsubscribe(filter.as_str());
        }
        if session.is_durable() {
            self.turn.batch.delete_subscription(no.0, filter.as_str());
        }
        self.unroute(no, filter);
        self.member_left(no, filter, now);
        ReasonCode::Success
    }

    /// Sends a SUBACK or UNSUBACK when what it says is stored.
    fn reply_when_stored<P: Encode>(
        &mut self,
        id: ConnId,
        no: SessionNo,
        version: verge_mqtt_proto::ProtocolVersion,
        packet: &P,
    ) {
        let mut out = BytesMut::new();
        let limit =
            self.conns.get(&id).map_or(usize::MAX, |conn| conn.machine.client_packet_bytes_max());
        if packet.encode_within(version, limit, &mut out).is_err() {
            return;
        }
        let packet = out.freeze();
        let durable = self.sessions.get(&no).is_some_and(super::Session::is_durable);
        if durable || self.turn.is_waiting() {
            let promise = self.conns.get(&id).map(|conn| conn.info.promise);
            self.turn.promise(promise.unwrap_or_default());
            self.turn.when_durable(Effect::Packet { conn: id, packet });
        } else {
            self.write_raw(id, &packet);
        }
    }

    /// Owes the session the retained messages of a filter [MQTT-3.3.1-9].
    fn send_retained(
        &mut self,
        no: SessionNo,
        filter: &TopicFilter,
        subscription: &Subscription,
        now: Now,
    ) {
        let parts = FilterParts::of(filter.as_str());
        let retained = &self.shared.retained;
        let limit = RETAINED_PER_FILTER_MAX;
        let messages = if parts.local {
            retained.matches_of(self.shared.node, parts.filter, now.wall, limit)
        } else {
            retained.matches(parts.filter, now.wall, limit)
        };
        for message in messages {
            self.owe(no, message, subscription, now);
        }
    }

    fn owe(&mut self, no: SessionNo, message: Arc<Message>, by: &Subscription, now: Now) {
        let Some(session) = self.sessions.get(&no) else { return };
        let qos = message.qos.min(by.qos);
        let stored = session.is_durable() && qos != QoS::AtMostOnce;
        let message = if stored {
            Arc::new(message.stored_apart(self.shared.next_message_id()))
        } else {
            message
        };
        let delivery = Delivery {
            session: no,
            seq: self.shared.next_queue_seq(),
            qos,
            retain: true,
            subscription_ids: by.id.into_iter().collect(),
            stored,
            share: None,
            message,
        };
        if stored {
            let batch = &mut self.turn.batch;
            put_queue_row(&delivery, LANE_OWN, now, QueueState::Queued, batch);
            delivery.message.stored.add(1);
            put_message(&delivery.message, batch);
        }
        // It follows the SUBACK, whatever that waits for.
        if self.turn.is_waiting() {
            let deliveries = std::iter::once((self.config.index, delivery)).collect();
            self.turn.when_durable(Effect::Deliver(deliveries));
        } else {
            self.take_delivery(delivery, now);
        }
    }
}
