//! Whether a PUBLISH is within what its client was granted (MQTT 5.0, 3.2.2.3, 4.13).

use std::sync::Arc;

use verge_model::{Millis, Now};
use verge_mqtt_proto::message::Message;
use verge_mqtt_proto::{AckKind, InboundPublish, PacketId, QoS, ReasonCode};

use super::Shard;
use super::api::Terms;
use super::streams::api::Via;
use super::turn::Effect;
use crate::meter::Bucket;

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
        let kind = match message.qos {
            QoS::ExactlyOnce => AckKind::Pubrec,
            QoS::AtMostOnce | QoS::AtLeastOnce => AckKind::Puback,
        };
        let is_v5 = self.conns.get(&via.conn).is_some_and(|conn| conn.version().is_v5());
        if !is_v5 || !self.turn.is_waiting() {
            self.refuse(via, kind, packet_id, now);
            return false;
        }
        if kind == AckKind::Pubrec {
            self.forget_received(via, packet_id);
        }
        // Acknowledgements keep the order of their PUBLISH packets. [MQTT-4.6.0-2]
        let reason = ReasonCode::QuotaExceeded;
        self.turn.when_durable(Effect::Acknowledge { via, kind, packet_id, reason });
        false
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
