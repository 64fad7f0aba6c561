//! Whether a PUBLISH is within what its client was granted (MQTT 5.0, 3.2.2.3, 4.13).

use std::sync::Arc;

use verge_model::{Millis, Now};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::{AckKind, InboundPublish, PacketId, QoS, ReasonCode};

use super::Shard;
use super::api::{Delivery, SessionNo, Terms};
use super::streams::api::Via;
use super::turn::Effect;
use crate::meter::Bucket;
use crate::planner::Deliveries;
use crate::rule::Scope;
use crate::topics::Topic;

/// What a client has published lately.
#[derive(Debug)]
pub(super) struct Meter {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Meter {
    /// The meter of a new connection; none if nothing is bounded.
    pub(super) fn of(terms: &Terms, packet_bytes_max: usize, now: Millis) -> Option<Box<Self>> {
        let Terms { publish_rate_max, publish_bytes_rate_max, .. } = *terms;
        if publish_rate_max == 0 && publish_bytes_rate_max == 0 {
            return None;
        }
        let messages = u64::from(publish_rate_max);
        let messages = (messages > 0).then(|| Bucket::new(messages, 1, now));
        // The largest packet is not refused for its size alone.
        let bytes = publish_bytes_rate_max;
        let bytes = (bytes > 0).then(|| Bucket::new(bytes, packet_bytes_max as u64, now));
        Some(Box::new(Self { messages, bytes }))
    }
}

impl Shard {
    /// Whether to take a PUBLISH; if not, its client was told.
    pub(super) fn admits(&mut self, via: Via, publish: &InboundPublish<'_>, now: Now) -> bool {
        let id = via.conn;
        let Some(conn) = self.conns.get_mut(&id) else { return false };
        if let Some(meter) = conn.meter.as_deref_mut() {
            let bytes = (publish.topic.len() + publish.payload.len()) as u64;
            let terms = &self.config.terms;
            let words = if !take(&mut meter.messages, 1, now) {
                Some(format!("at most {} messages a second", terms.publish_rate_max))
            } else if !take(&mut meter.bytes, bytes, now) {
                Some(format!("at most {} bytes a second", terms.publish_bytes_rate_max))
            } else {
                None
            };
            if let Some(words) = words {
                self.disconnect_saying(id, ReasonCode::MessageRateTooHigh, &words, now);
                return false;
            }
        }
        if publish.retain && !self.config.terms.retain_available {
            // [MQTT-3.2.2-14]
            self.disconnect(id, ReasonCode::RetainNotSupported, now);
            return false;
        }
        if self.config.terms.payload_format_checked
            && publish.properties.as_deref().and_then(|sent| sent.payload_format_indicator)
                == Some(true)
            && std::str::from_utf8(publish.payload).is_err()
        {
            self.refuse_payload(via, publish);
            return false;
        }
        true
    }

    /// Retains a message, if there is room; if not, its client was told. At QoS 0 it cannot
    /// be: such a message goes to who is there, and need not be kept (3.3.1.3).
    pub(super) fn admits_retained(
        &mut self,
        via: Via,
        packet_id: Option<PacketId>,
        message: &Arc<Message>,
        now: Now,
    ) -> bool {
        let Some(packet_id) = packet_id.filter(|_| !message.payload.is_empty()) else {
            return true;
        };
        if self.shared.retained.admit(message).is_ok() {
            return true;
        }
        self.refuse_in_order(via, message.qos, packet_id, now);
        false
    }

    /// Refuses a PUBLISH with 0x97; one of 3.1.1 by closing its connection.
    fn refuse_in_order(&mut self, via: Via, qos: QoS, packet_id: PacketId, now: Now) {
        let kind = match qos {
            QoS::ExactlyOnce => AckKind::Pubrec,
            QoS::AtMostOnce | QoS::AtLeastOnce => AckKind::Puback,
        };
        let is_v5 = self.conns.get(&via.conn).is_some_and(|conn| conn.version().is_v5());
        if !is_v5 || !self.turn.is_waiting() {
            return self.refuse(via, kind, packet_id, now);
        }
        if kind == AckKind::Pubrec {
            self.forget_received(via, packet_id);
        }
        // Acknowledgements keep the order of their PUBLISH packets. [MQTT-4.6.0-2]
        let reason = ReasonCode::QuotaExceeded;
        self.turn.when_durable(Effect::Acknowledge { via, kind, packet_id, reason });
    }

    /// Whether a PUBLISH would put rows into the store: someone who may be away is to get it, it is
    /// kept, or its packet id must be known after a restart.
    pub(super) fn is_stored(
        &self,
        no: SessionNo,
        topic: &Topic,
        publish: &InboundPublish<'_>,
    ) -> bool {
        let matches = &topic.matches;
        publish.retain
            || !topic.rules.uplinks.is_empty()
            || matches.locals.iter().any(|found| found.durable && found.qos != QoS::AtMostOnce)
            || (topic.rules.scope != Scope::Node && !matches.remotes.is_empty())
            || (publish.qos == QoS::ExactlyOnce
                && self.sessions.get(&no).is_some_and(|session| session.is_durable()))
    }

    /// Refuses a PUBLISH that cannot be stored now.
    pub(super) fn refuse_unstored(&mut self, via: Via, publish: &InboundPublish<'_>, now: Now) {
        self.shared.counters.refused_storage(1);
        if let Some(packet_id) = publish.packet_id {
            self.refuse_in_order(via, publish.qos, packet_id, now);
        }
    }

    /// A message that was not stored: at QoS 0 nobody was promised that it is.
    pub(super) fn deliver_unstored(&mut self, deliveries: Deliveries, now: Now) {
        let is_owed = |delivery: &Delivery| delivery.message.qos != QoS::AtMostOnce;
        let owed = deliveries.iter().filter(|(_, delivery)| is_owed(delivery)).count();
        self.shared.counters.refused_storage(owed);
        if owed == 0 {
            self.hand_out(deliveries, now);
        }
    }

    /// Refuses a payload that is not what it says (3.3.2.3.2); at QoS 0 nobody can be told.
    fn refuse_payload(&mut self, via: Via, publish: &InboundPublish<'_>) {
        self.shared.counters.payload_refused(1);
        let kind = match publish.qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => AckKind::Puback,
            QoS::ExactlyOnce => AckKind::Pubrec,
        };
        let Some(packet_id) = publish.packet_id else { return };
        let reason = ReasonCode::PayloadFormatInvalid;
        if self.turn.is_waiting() {
            // Acknowledgements keep the order of their PUBLISH packets. [MQTT-4.6.0-2]
            self.turn.when_durable(Effect::Acknowledge { via, kind, packet_id, reason });
        } else {
            self.acknowledge(via, kind, packet_id, reason);
        }
    }
}

fn take(bucket: &mut Option<Bucket>, count: u64, now: Now) -> bool {
    bucket.as_mut().is_none_or(|bucket| bucket.take(count, now.mono))
}

impl Shard {
    /// A refused QoS 2 PUBLISH is new when it comes again.
    pub(super) fn forget_received(&mut self, via: Via, packet_id: PacketId) {
        let no = self.session_of(via.conn);
        if let Some(session) = no.and_then(|no| self.sessions.get_mut(&no)) {
            session.forget_received(via.stream, packet_id);
        }
    }

    /// Refuses a PUBLISH that could not be stored.
    pub(super) fn refuse(&mut self, via: Via, kind: AckKind, packet_id: PacketId, now: Now) {
        let Some(conn) = self.conns.get(&via.conn) else { return };
        let is_v5 = conn.version().is_v5();
        if kind == AckKind::Pubrec {
            self.forget_received(via, packet_id);
        }
        if is_v5 && kind != AckKind::Pubcomp {
            self.acknowledge(via, kind, packet_id, ReasonCode::QuotaExceeded);
        } else {
            // MQTT 3.1.1 has no way to refuse a PUBLISH but to close (3.1.1, 3.3.5).
            self.disconnect(via.conn, ReasonCode::QuotaExceeded, now);
        }
    }
}
