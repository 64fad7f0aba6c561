//! PUBLISH from a client, and the acknowledgements it is owed (MQTT 5.0, 3.3 and 4.3).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use verge_model::{Now, client_id_of};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::session::{Receipt, Will};
use verge_mqtt_proto::{
    AckKind, InboundPublish, KeptProperties, PacketId, QoS, ReasonCode, TopicName,
};
use verge_storage::Promise;

use super::Shard;
use super::api::{ConnId, HubMail, Output, SessionNo};
use super::asked::Named;
use super::streams::api::Via;
use super::turn::Effect;
use crate::planner::Plan;
use crate::router::Origin;
use crate::topics::Topic;

impl Shard {
    /// Takes a PUBLISH, unless it must wait for a subscriber to have room: then nothing is done.
    pub(super) fn handle_publish(
        &mut self,
        via: Via,
        publish: &InboundPublish<'_>,
        now: Now,
    ) -> bool {
        let Some(no) = self.session_of(via.conn) else { return true };
        if publish.qos > self.config.qos_max && self.was_told_the_qos(via.conn) {
            self.disconnect(via.conn, ReasonCode::QosNotSupported, now);
            return true;
        }
        let mut known = None;
        if publish.qos != QoS::AtMostOnce && self.shared.router.pressure().is_any() {
            match self.room_for(no, publish) {
                Ok(topic) => known = topic,
                Err(awaited) => {
                    self.hold(via.conn, awaited);
                    return false;
                }
            }
        }
        self.take_publish(via, no, publish, known, now);
        true
    }

    fn take_publish(
        &mut self,
        via: Via,
        no: SessionNo,
        publish: &InboundPublish<'_>,
        known: Option<Box<Topic>>,
        now: Now,
    ) {
        if !self.admits(via, publish, now) {
            return;
        }
        self.tally.received(publish.qos);
        if publish.qos == QoS::ExactlyOnce && self.received_before(via, no, publish) {
            return;
        }
        let mut named = None;
        if self.is_named_otherwise(publish) {
            match self.named(via.conn, publish.topic.to_name(), now) {
                Named::Topic(topic) => named = Some(topic),
                Named::Later(_)
                    if publish.qos != QoS::AtMostOnce && self.shared.storage.is_refusing() =>
                {
                    return self.refuse_unstored(via, publish, now);
                }
                Named::Later(later) => return self.publish_later(via, no, publish, later, now),
                Named::Refused(reason) => {
                    return self.refuse_publish(via, no, publish, reason, now);
                }
            }
        }
        let metrics = &self.shared.extensions.topic_metrics;
        let counted = metrics.is_active();
        if counted {
            let topic = named.as_ref().map_or(publish.topic.as_str(), TopicName::as_str);
            metrics.received(topic, publish.qos, publish.payload.len());
        }
        let Some(session) = self.sessions.get(&no) else { return };
        let name = named.as_ref().map_or(publish.topic.as_str(), TopicName::as_str);
        let topic = match known {
            Some(topic) => topic,
            None => self.planner.topic(name, self.authors.of(session)),
        };
        if publish.qos != QoS::AtMostOnce
            && self.shared.storage.is_refusing()
            && self.is_stored(no, &topic, publish)
        {
            self.planner.keep(topic);
            return self.refuse_unstored(via, publish, now);
        }
        let mut served = None;
        if publish.qos == QoS::AtMostOnce && !publish.retain && !counted {
            if self.pass_on(&topic, publish) {
                self.planner.keep(topic);
                return;
            }
            served = Some(self.config.index);
        }
        let Some(session) = self.sessions.get(&no) else { return };
        let rules = topic.rules;
        let properties = publish.properties.as_deref();
        let expiry = properties.and_then(|properties| properties.message_expiry_interval);
        let message = Arc::new(Message {
            id: self.shared.next_message_id(),
            publisher: self.authors.of(session).clone(),
            stamp: self.shared.stamp(now.wall),
            expires_at: expiry.map(|secs| now.wall + Duration::from_secs(u64::from(secs))),
            topic: topic.name.clone(),
            qos: publish.qos,
            retain: publish.retain,
            class: rules.class,
            properties: properties.map(KeptProperties::from).unwrap_or_default(),
            payload: Bytes::copy_from_slice(publish.payload),
            row: None,
        });
        if message.retain && !self.admits_retained(via, publish.packet_id, &message, now) {
            return;
        }
        let batch = &mut self.turn.batch;
        let plan = self.planner.plan_accepted(&topic, &message, served, now, batch);
        // Without rows there is nothing to promise.
        let mut promise = None;
        if plan.stored || publish.qos == QoS::ExactlyOnce {
            let conn = self.conns.get(&via.conn);
            promise = rules.promise.or(conn.map(|conn| conn.listener.promise));
        }
        if let Some(promise) = promise.filter(|_| plan.stored) {
            self.turn.promise(promise);
        }
        self.send_transients(&plan);
        let reason = if plan.recipients == 0 {
            self.shared.note_unwanted(&message);
            ReasonCode::NoMatchingSubscribers
        } else {
            ReasonCode::Success
        };
        self.answer_publish(via, no, publish, plan, (reason, promise), now);
        // What is published to another topic than the client named holds it afterwards.
        if named.is_some()
            && let Some(awaited) = self.awaited_by(no, &topic, publish.qos)
        {
            self.hold(via.conn, awaited);
        }
        self.planner.keep(topic);
    }

    /// Hands out what a PUBLISH caused, and acknowledges it.
    pub(super) fn answer_publish(
        &mut self,
        via: Via,
        no: SessionNo,
        publish: &InboundPublish<'_>,
        plan: Plan,
        (reason, promise): (ReasonCode, Option<Promise>),
        now: Now,
    ) {
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => {
                let kind = AckKind::Puback;
                self.accept(plan, Some((via, kind, packet_id, reason)), false, now);
            }
            (QoS::ExactlyOnce, Some(packet_id)) => {
                let durable = self.sessions.get(&no).is_some_and(|session| session.is_durable());
                if durable {
                    self.store_received(via, no, packet_id);
                    self.turn.promise(promise.unwrap_or_default());
                }
                let kind = AckKind::Pubrec;
                self.accept(plan, Some((via, kind, packet_id, reason)), durable, now);
            }
            (QoS::AtMostOnce | QoS::AtLeastOnce | QoS::ExactlyOnce, _) => {
                self.accept(plan, None, false, now);
            }
        }
    }

    /// Whether extensions say what the topic of a PUBLISH means.
    fn is_named_otherwise(&self, publish: &InboundPublish<'_>) -> bool {
        self.shared.extensions.rewrites.of_publish() || publish.topic.starts_with('$')
    }

    /// Who gets a PUBLISH, if that is known without extensions; or for whom it must wait.
    fn room_for(
        &mut self,
        no: SessionNo,
        publish: &InboundPublish<'_>,
    ) -> Result<Option<Box<Topic>>, SessionNo> {
        let Some(session) = self.sessions.get(&no).filter(|_| !self.is_named_otherwise(publish))
        else {
            return Ok(None);
        };
        let topic = self.planner.topic(publish.topic.as_str(), self.authors.of(session));
        match self.awaited_by(no, &topic, publish.qos) {
            None => Ok(Some(topic)),
            Some(awaited) => {
                self.planner.keep(topic);
                Err(awaited)
            }
        }
    }

    /// Whether CONNACK told the client the Maximum QoS, so that more is a Protocol Error (3.2.2.3.4,
    /// [MQTT-3.2.2-11]). Earlier versions cannot be told, and are served.
    fn was_told_the_qos(&self, id: ConnId) -> bool {
        self.conns.get(&id).is_some_and(|conn| conn.version().is_v5())
    }

    /// Refuses a PUBLISH for what it names. MQTT 3.1.1 knows no such answer: "It MUST either make a
    /// positive acknowledgement, according to the normal QoS rules, or close the Network
    /// Connection" [MQTT-3.3.5-2].
    pub(super) fn refuse_publish(
        &mut self,
        via: Via,
        no: SessionNo,
        publish: &InboundPublish<'_>,
        reason: ReasonCode,
        now: Now,
    ) {
        let told = self.conns.get(&via.conn).is_some_and(|conn| conn.version().is_v5());
        if !told {
            let promise = self.conns.get(&via.conn).map(|conn| conn.listener.promise);
            let answer = (ReasonCode::Success, promise);
            return self.answer_publish(via, no, publish, Plan::default(), answer, now);
        }
        let Some(packet_id) = publish.packet_id else { return };
        let kind = match publish.qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => AckKind::Puback,
            QoS::ExactlyOnce => AckKind::Pubrec,
        };
        if let Some(session) = self.sessions.get_mut(&no).filter(|_| kind == AckKind::Pubrec) {
            session.forget_received(via.stream, packet_id);
        }
        self.accept(Plan::default(), Some((via, kind, packet_id, reason)), false, now);
    }

    /// Publishes a Will, or a message of the node itself.
    pub(super) fn publish_will(&mut self, publisher: Arc<str>, will: &Will, now: Now) {
        if will.topic.as_str().starts_with('$') {
            match self.allowed(will.topic.clone(), now) {
                Named::Topic(_) => {}
                Named::Later(later) => {
                    return self.publish_will_later(publisher, will, later, now);
                }
                Named::Refused(reason) => {
                    return tracing::debug!(
                        client_id = &*client_id_of(&publisher),
                        reason = reason.name(),
                        "a Will was not published"
                    );
                }
            }
        }
        let rules = self.shared.rules.for_topic(will.topic.as_str());
        let expiry = will.message_expiry_secs;
        let message = Arc::new(Message {
            id: self.shared.next_message_id(),
            publisher,
            stamp: self.shared.stamp(now.wall),
            expires_at: expiry.map(|secs| now.wall + Duration::from_secs(u64::from(secs))),
            topic: will.topic.clone(),
            qos: will.qos,
            retain: will.retain,
            class: rules.class,
            properties: will.properties.clone().into(),
            payload: will.payload.clone(),
            row: None,
        });
        let plan = self.planner.plan(&message, Origin::Here, now, &mut self.turn.batch);
        if plan.stored {
            self.turn.promise(rules.promise.unwrap_or_default());
        }
        self.send_transients(&plan);
        self.accept(plan, None, false, now);
    }

    /// Acknowledges the PUBLISH and hands out its plan's deliveries: at once if nothing about it is
    /// stored and nothing before it waits, else when the batch is durable. A publication never
    /// passes an earlier one of the same shard [MQTT-4.6.0-6], unless both are QoS 0.
    pub(super) fn accept(
        &mut self,
        plan: Plan,
        ack: Option<(Via, AckKind, PacketId, ReasonCode)>,
        stored: bool,
        now: Now,
    ) {
        let Plan { deliveries, stored: rows, .. } = plan;
        let waits = rows || stored || (ack.is_some() && self.turn.is_waiting());
        if !waits {
            if let Some((via, kind, packet_id, reason)) = ack {
                self.acknowledge(via, kind, packet_id, reason);
            }
            self.hand_out(deliveries, now);
            return;
        }
        if let Some((via, kind, packet_id, reason)) = ack {
            self.turn.when_durable(Effect::Acknowledge { via, kind, packet_id, reason });
        }
        if !deliveries.is_empty() {
            self.turn.when_durable(Effect::Deliver(deliveries));
        }
    }

    pub(super) fn send_transients(&mut self, plan: &Plan) {
        for (to, class, record) in &plan.transients {
            let mail = HubMail::Transient { to: *to, class: *class, record: record.clone() };
            self.turn.outputs.push_back(Output::Hub(mail));
        }
    }

    /// Whether a QoS 2 PUBLISH came before; it is then acknowledged again, and no more.
    fn received_before(&mut self, via: Via, no: SessionNo, publish: &InboundPublish<'_>) -> bool {
        let (Some(session), Some(packet_id)) = (self.sessions.get_mut(&no), publish.packet_id)
        else {
            return true;
        };
        match session.received(via.stream, packet_id, publish.dup) {
            Receipt::Fresh => false,
            Receipt::Again => {
                let kind = AckKind::Pubrec;
                let reason = ReasonCode::Success;
                if self.turn.is_waiting() {
                    // The first one may be among what waits.
                    let effect = Effect::Acknowledge { via, kind, packet_id, reason };
                    self.turn.when_durable(effect);
                } else {
                    self.acknowledge(via, kind, packet_id, reason);
                }
                true
            }
        }
    }

    /// PUBREL. PUBCOMP lets the client use the id again, so it waits until the id is forgotten on
    /// disk; a repetition does not pass the first.
    pub(super) fn handle_pubrel(&mut self, via: Via, no: SessionNo, packet_id: PacketId) {
        let Some(session) = self.sessions.get_mut(&no) else { return };
        let known = session.released(via.stream, packet_id);
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        let kind = AckKind::Pubcomp;
        let durable = session.is_durable();
        if known && durable {
            self.store_released(via, no, packet_id);
            let promise = self.conns.get(&via.conn).map(|conn| conn.listener.promise);
            self.turn.promise(promise.unwrap_or_default());
        }
        if durable && self.turn.is_waiting() {
            self.turn.when_durable(Effect::Acknowledge { via, kind, packet_id, reason });
        } else {
            self.acknowledge(via, kind, packet_id, reason);
        }
    }
}
