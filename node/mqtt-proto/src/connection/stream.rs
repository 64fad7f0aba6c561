//! Further streams of a connection, where the transport has streams (MQTT over QUIC).
//!
//! Stream 0, the control stream, is the [`Connection`] itself: it alone carries CONNECT, CONNACK,
//! DISCONNECT and AUTH. What the standard binds to the Network Connection as a whole holds for all
//! streams together (the version, packet sizes, silence, the Receive Maximum); a stream has for
//! itself its topic aliases and, for a data stream, the packet identifiers the client chooses.
//!
//! | client sends | data stream | publish stream |
//! |---|---|---|
//! | PUBLISH, PUBREL | event | event, in the control stream's scope |
//! | PUBACK, PUBREC, PUBCOMP | event | the stream is at fault |
//! | SUBSCRIBE, UNSUBSCRIBE, PINGREQ | event | the stream is at fault |
//! | any other packet, or a broken one | the stream is at fault | the stream is at fault |
//!
//! A fault ends the stream and not the connection.

use verge_model::Millis;

use super::close::CloseCause;
use super::event::Event;
use super::receive_maximum::ReceiveWindow;
use super::{Connection, State, inbound_publish};
use crate::codec::fixed_header::FixedHeader;
use crate::codec::reason_code::ReasonCode;
use crate::codec::{ProtocolVersion, decode};
use crate::packet::ack::{Ack, AckKind};
use crate::packet::fields::PacketId;
use crate::packet::{Packet, PacketType};
use crate::topic::alias::InboundAliases;

/// What a stream beside the control stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// Opened by the client, in both directions: answers and deliveries go back on it.
    Data,
    /// Opened by the client, towards the Server only: its PUBLISH packets are answered on the
    /// control stream, and their packet identifiers are the control stream's.
    Publish,
}

/// A stream of a [`Connection`] beside its control stream.
#[derive(Debug)]
pub struct Stream {
    kind: StreamKind,
    aliases: InboundAliases,
    /// Of a data stream: what the client has under way here.
    receiving: ReceiveWindow,
}

impl Stream {
    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> StreamKind {
        self.kind
    }

    /// QoS 1 and 2 messages of the client that were not answered for good.
    #[must_use]
    pub fn open_publishes(&self) -> usize {
        self.receiving.open_len()
    }
}

impl Connection {
    /// A stream just opened; to be made once the connection is [accepted](Self::is_connected), so
    /// that the client's version is known.
    #[must_use]
    pub fn open_stream(&self, kind: StreamKind) -> Stream {
        let is_v5 = self.version().is_some_and(ProtocolVersion::is_v5);
        let aliases = if is_v5 { self.config.topic_alias_maximum } else { 0 };
        let receiving = ReceiveWindow::new(self.receiving.maximum());
        Stream { kind, aliases: InboundAliases::new(aliases), receiving }
    }

    /// Reads the first packet of `input`, the stream's bytes not read yet, and yields it with its
    /// size; none if more bytes must come first, or the connection is not accepted.
    ///
    /// # Errors
    ///
    /// The client broke a rule on this stream, which is to be reset; the connection goes on.
    pub fn handle_stream_bytes<'a>(
        &mut self,
        stream: &mut Stream,
        input: &'a [u8],
        now: Millis,
    ) -> Result<Option<(Event<'a>, usize)>, CloseCause> {
        if self.state != State::Connected {
            return Ok(None);
        }
        if let Ok(Some(FixedHeader { packet_type, .. })) = FixedHeader::decode(input) {
            refuse(stream.kind, packet_type)?;
        }
        let version = self.version().unwrap_or(ProtocolVersion::V4);
        let limits = self.limits(self.config.packet_bytes_max);
        let Some((packet, size)) = decode(input, version, &limits)? else { return Ok(None) };
        let event = match packet {
            Packet::Publish(publish) => {
                let event = inbound_publish(publish, &mut stream.aliases)?;
                if let Some(packet_id) = event.packet_id
                    && !self.count_publish(stream, packet_id)
                {
                    return Err(CloseCause::ReceiveMaximumExceeded);
                }
                Event::Publish(event)
            }
            Packet::Ack(Ack { kind, packet_id, reason, .. }) => match kind {
                AckKind::Puback => Event::Puback { packet_id, reason },
                AckKind::Pubrec => Event::Pubrec { packet_id, reason },
                AckKind::Pubrel => Event::Pubrel { packet_id, reason },
                AckKind::Pubcomp => Event::Pubcomp { packet_id, reason },
            },
            Packet::Subscribe(subscribe) => Event::Subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => Event::Unsubscribe(unsubscribe),
            Packet::Pingreq => Event::Pingreq,
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp
            | Packet::Disconnect(_)
            | Packet::Auth(_) => return Err(CloseCause::NotOnStream(packet.packet_type())),
        };
        self.keep_alive.on_packet(now);
        Ok(Some((event, size)))
    }

    /// The last answer to a PUBLISH of a data stream goes out: PUBACK, PUBCOMP, or PUBREC with an
    /// error.
    pub fn on_answer_sent(
        &mut self,
        stream: &mut Stream,
        kind: AckKind,
        packet_id: PacketId,
        reason: ReasonCode,
    ) {
        let is_last = match kind {
            AckKind::Puback | AckKind::Pubcomp => true,
            AckKind::Pubrec => reason.is_error(),
            AckKind::Pubrel => false,
        };
        if is_last && stream.receiving.on_answered(packet_id) {
            self.receiving.count_elsewhere(-1);
        }
    }

    /// A stream is over: what the client had under way on it counts no more.
    pub fn on_stream_closed(&mut self, stream: &Stream) {
        let open = i32::try_from(stream.receiving.open_len()).expect("at most 65,535");
        self.receiving.count_elsewhere(-open);
    }

    /// The messages under way on streams beside the control stream.
    #[must_use]
    pub fn open_publishes_on_streams(&self) -> usize {
        self.receiving.elsewhere()
    }

    /// Counts a PUBLISH towards the Receive Maximum, which holds for all streams together.
    fn count_publish(&mut self, stream: &mut Stream, packet_id: PacketId) -> bool {
        match stream.kind {
            StreamKind::Publish => self.receiving.on_publish(packet_id),
            StreamKind::Data if stream.receiving.contains(packet_id) => true,
            StreamKind::Data => {
                let within = self.receiving.has_room() && stream.receiving.on_publish(packet_id);
                self.receiving.count_elsewhere(i32::from(within));
                within
            }
        }
    }
}

/// Refuses by its type what a stream of this kind does not carry, before its body arrives.
fn refuse(kind: StreamKind, packet_type: PacketType) -> Result<(), CloseCause> {
    let carried = match packet_type {
        PacketType::Publish | PacketType::Pubrel => true,
        PacketType::Puback
        | PacketType::Pubrec
        | PacketType::Pubcomp
        | PacketType::Subscribe
        | PacketType::Unsubscribe
        | PacketType::Pingreq => kind == StreamKind::Data,
        PacketType::Connect
        | PacketType::Connack
        | PacketType::Suback
        | PacketType::Unsuback
        | PacketType::Pingresp
        | PacketType::Disconnect
        | PacketType::Auth => false,
    };
    if carried { Ok(()) } else { Err(CloseCause::NotOnStream(packet_type)) }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
