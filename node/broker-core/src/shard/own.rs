//! What the node itself publishes: its state, and what its clients do.
//!
//! Such messages are for subscribers of this node: no other node is sent them, and no disk keeps
//! them. A node that starts publishes its state anew.

use std::sync::Arc;

use bytes::Bytes;
use verge_model::{Class, Now};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::{KeptProperties, QoS, TopicFilter, TopicName};

use super::Shard;
use super::api::{ConnId, NodeMessage, SessionNo};
use crate::extension::counts::Counted;
use crate::extension::events::{EventKind, EventPayload};

impl Shard {
    /// Publishes a message of the node.
    pub(super) fn publish_own(&mut self, message: NodeMessage, now: Now) {
        let NodeMessage { topic, payload, retain } = message;
        let message = Arc::new(Message {
            id: self.shared.next_message_id(),
            publisher: "".into(),
            stamp: self.shared.stamp(now.wall),
            expires_at: None,
            topic,
            qos: QoS::AtMostOnce,
            retain,
            class: Class::Telemetry,
            properties: KeptProperties::default(),
            payload,
            row: None,
        });
        let plan = self.planner.plan_own(&message, now, &mut self.turn.batch);
        if plan.stored {
            return self.accept(plan, None, false, now);
        }
        // Events happen in the middle of what they tell of; they are delivered after it.
        for (shard, delivery) in plan.deliveries {
            self.turn.mail(shard, delivery);
        }
    }

    /// A CONNECT was accepted.
    pub(super) fn event_connected(&mut self, id: ConnId, no: SessionNo, now: Now) {
        let on = self.shared.extensions.events.is_on(EventKind::Connected);
        let Some(conn) = self.conns.get(&id).filter(|_| on) else { return };
        let Some(facts) = self.facts(id) else { return };
        let expiry = self.sessions.get(&no).map(|session| session.expiry_secs);
        let payload = EventPayload {
            clientid: facts.client_id,
            username: facts.username,
            ipaddress: Some(conn.peer.ip().to_string()),
            port: Some(conn.peer.port()),
            listener: Some(&conn.listener.name),
            protocol: "MQTT",
            proto_ver: Some(conn.version().level()),
            keepalive: Some(conn.keep_alive_secs),
            clean_start: Some(conn.clean_start),
            expiry_interval: expiry.map(|secs| secs.unwrap_or(u32::MAX)),
            connected_at: Some(conn.connected_at.0),
            ts: now.wall.0,
            ..EventPayload::default()
        };
        let topic = self.shared.extensions.events.topic(EventKind::Connected, facts.client_id);
        let payload = payload.to_json();
        self.publish_event(topic, payload, now);
    }

    /// A connection ends. Before it is forgotten.
    pub(super) fn event_disconnected(&mut self, id: ConnId, reason: &str, now: Now) {
        let on = self.shared.extensions.events.is_on(EventKind::Disconnected);
        let Some(conn) = self.conns.get(&id).filter(|_| on) else { return };
        let Some(facts) = self.facts(id).filter(|_| conn.session().is_some()) else { return };
        let payload = EventPayload {
            clientid: facts.client_id,
            username: facts.username,
            ipaddress: Some(conn.peer.ip().to_string()),
            port: Some(conn.peer.port()),
            protocol: "MQTT",
            proto_ver: Some(conn.version().level()),
            connected_at: Some(conn.connected_at.0),
            disconnected_at: Some(now.wall.0),
            reason: Some(reason),
            ts: now.wall.0,
            ..EventPayload::default()
        };
        let topic = self.shared.extensions.events.topic(EventKind::Disconnected, facts.client_id);
        let payload = payload.to_json();
        self.publish_event(topic, payload, now);
    }

    /// A session has another subscription, with this QoS, or one less.
    pub(super) fn event_subscription(
        &mut self,
        no: SessionNo,
        filter: &TopicFilter,
        qos: Option<QoS>,
        now: Now,
    ) {
        let kind = if qos.is_some() { EventKind::Subscribed } else { EventKind::Unsubscribed };
        let events = &self.shared.extensions.events;
        let Some(session) = self.sessions.get(&no).filter(|_| events.is_on(kind)) else { return };
        let facts = session.conn.and_then(|id| self.facts(id));
        let payload = EventPayload {
            clientid: &session.client.client_id,
            username: facts.and_then(|facts| facts.username),
            protocol: "MQTT",
            topic: Some(filter.as_str()),
            qos: qos.map(QoS::bits),
            ts: now.wall.0,
            ..EventPayload::default()
        };
        let topic = events.topic(kind, &session.client.client_id);
        let payload = payload.to_json();
        self.publish_event(topic, payload, now);
    }

    fn publish_event(&mut self, topic: Option<TopicName>, payload: Vec<u8>, now: Now) {
        let extensions = &self.shared.extensions;
        if !self.events.take(extensions.events.shard_rate_max, now.wall) {
            return extensions.counts.add(Counted::EventsDropped);
        }
        // A ClientId that fills a whole topic has none.
        let Some(topic) = topic else { return extensions.counts.add(Counted::EventsDropped) };
        extensions.counts.add(Counted::EventsPublished);
        let payload = Bytes::from(payload);
        self.publish_own(NodeMessage { topic, payload, retain: false }, now);
    }
}
