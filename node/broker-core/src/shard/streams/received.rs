//! QoS 2 identifiers received, by the stream whose they are.
//!
//! A client chooses packet identifiers for each stream, so that one may be under way on several.
//! Those of a stream that is over are *orphans*: a client that repeats such a PUBLISH, with DUP, on
//! another stream is answered PUBREC, and the message is not routed again [MQTT-4.3.3-10].

use verge_mqtt_proto::PacketId;
use verge_mqtt_proto::session::Receipt;

use super::api::{StreamNo, Via};
use crate::shard::Shard;
use crate::shard::api::SessionNo;
use crate::shard::session::Session;

impl Session {
    /// Notes a QoS 2 PUBLISH of the client.
    pub(in crate::shard) fn received(
        &mut self,
        stream: StreamNo,
        id: PacketId,
        dup: bool,
    ) -> Receipt {
        if stream.is_control() {
            let Some(streams) = &mut self.streams else { return self.inbound.handle_publish(id) };
            if dup && streams.orphans.contains(&id) {
                return Receipt::Again;
            }
            let receipt = self.inbound.handle_publish(id);
            if receipt == Receipt::Fresh {
                // The client has let go of what had the id before.
                streams.orphans.remove(&id);
            }
            return receipt;
        }
        let streams = self.streams.get_or_insert_default();
        if dup && streams.orphans.contains(&id) {
            return Receipt::Again;
        }
        if !streams.received.insert((stream, id)) {
            return Receipt::Again;
        }
        streams.orphans.remove(&id);
        Receipt::Fresh
    }

    /// Notes a PUBREL; false if no message with this id was pending.
    pub(in crate::shard) fn released(&mut self, stream: StreamNo, id: PacketId) -> bool {
        let known = if stream.is_control() {
            self.inbound.handle_pubrel(id)
        } else {
            self.streams.as_mut().is_some_and(|streams| streams.received.remove(&(stream, id)))
        };
        known || self.streams.as_mut().is_some_and(|streams| streams.orphans.remove(&id))
    }

    /// Takes back a PUBLISH that could not be stored.
    pub(in crate::shard) fn forget_received(&mut self, stream: StreamNo, id: PacketId) {
        if stream.is_control() {
            self.inbound.forget(id);
        } else if let Some(streams) = &mut self.streams {
            streams.received.remove(&(stream, id));
        }
    }
}

impl Shard {
    /// Stores that a QoS 2 PUBLISH was received.
    pub(in crate::shard) fn store_received(&mut self, via: Via, no: SessionNo, id: PacketId) {
        if via.stream.is_control() {
            self.turn.batch.put_received(no.0, id.get());
            self.delete_received_on_stream(no, id);
        } else {
            self.turn.batch.put_received_on_stream(no.0, id.get());
        }
    }

    /// Stores that a QoS 2 PUBLISH was released.
    pub(in crate::shard) fn store_released(&mut self, via: Via, no: SessionNo, id: PacketId) {
        if via.stream.is_control() {
            self.turn.batch.delete_received(no.0, id.get());
        }
        self.delete_received_on_stream(no, id);
    }

    /// Deletes the row of an id that was received on streams and is pending on none.
    fn delete_received_on_stream(&mut self, no: SessionNo, id: PacketId) {
        let streams = self.sessions.get(&no).and_then(|session| session.streams.as_ref());
        if streams.is_some_and(|streams| !streams.is_pending(id)) {
            self.turn.batch.delete_received_on_stream(no.0, id.get());
        }
    }
}
