//! The fifteen Control Packets (3), borrowed from the buffer they were read from.
//!
//! | packet | from | to | kept in |
//! |---|---|---|---|
//! | CONNECT, CONNACK | client, server | | [`connect`], [`connack`] |
//! | PUBLISH | both | | [`publish`] |
//! | PUBACK, PUBREC, PUBREL, PUBCOMP | both | | [`ack`]: one struct, four kinds |
//! | SUBSCRIBE, SUBACK | client, server | | [`subscribe`], [`suback`] |
//! | UNSUBSCRIBE, UNSUBACK | client, server | | [`unsubscribe`], [`unsuback`] |
//! | PINGREQ, PINGRESP | client, server | | [`ping`] |
//! | DISCONNECT, AUTH | both | | [`disconnect`], [`auth`] |
//!
//! Who may send what is a matter for [`connection`](crate::connection); the codec reads and writes
//! for both sides.

pub mod ack;
pub mod auth;
pub mod connack;
pub mod connect;
pub mod disconnect;
pub mod fields;
pub mod ping;
pub mod publish;
pub mod suback;
pub mod subscribe;
pub mod unsuback;
pub mod unsubscribe;

use bytes::BytesMut;

use self::ack::{Ack, AckKind};
use self::auth::Auth;
use self::connack::Connack;
use self::connect::Connect;
use self::disconnect::Disconnect;
use self::ping::{Pingreq, Pingresp};
use self::publish::Publish;
use self::suback::Suback;
use self::subscribe::Subscribe;
use self::unsuback::Unsuback;
use self::unsubscribe::Unsubscribe;
use crate::codec::error::{DecodeError, EncodeError};
use crate::codec::fixed_header::FixedHeader;
use crate::codec::string::Reader;
use crate::codec::{DecodeLimits, Encode, ProtocolVersion};

/// "MQTT Control Packet type", the high four bits of the first byte. (2.1.2)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PacketType {
    /// Connection request.
    Connect = 1,
    /// Connect acknowledgment.
    Connack = 2,
    /// Publish message.
    Publish = 3,
    /// Publish acknowledgment (QoS 1).
    Puback = 4,
    /// Publish received (QoS 2 delivery part 1).
    Pubrec = 5,
    /// Publish release (QoS 2 delivery part 2).
    Pubrel = 6,
    /// Publish complete (QoS 2 delivery part 3).
    Pubcomp = 7,
    /// Subscribe request.
    Subscribe = 8,
    /// Subscribe acknowledgment.
    Suback = 9,
    /// Unsubscribe request.
    Unsubscribe = 10,
    /// Unsubscribe acknowledgment.
    Unsuback = 11,
    /// PING request.
    Pingreq = 12,
    /// PING response.
    Pingresp = 13,
    /// Disconnect notification.
    Disconnect = 14,
    /// Authentication exchange; 5.0 only.
    Auth = 15,
}

impl PacketType {
    /// Every type, in numeric order.
    pub const ALL: [Self; 15] = [
        Self::Connect,
        Self::Connack,
        Self::Publish,
        Self::Puback,
        Self::Pubrec,
        Self::Pubrel,
        Self::Pubcomp,
        Self::Subscribe,
        Self::Suback,
        Self::Unsubscribe,
        Self::Unsuback,
        Self::Pingreq,
        Self::Pingresp,
        Self::Disconnect,
        Self::Auth,
    ];

    /// The type with this number; 0 is reserved.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1..=15 => Some(Self::ALL[number as usize - 1]),
            _ => None,
        }
    }

    /// The number of the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The flags a packet of this type has in its first byte, unless it is PUBLISH.
    /// [MQTT-2.1.3-1]
    #[must_use]
    pub const fn reserved_flags(self) -> u8 {
        match self {
            Self::Pubrel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            Self::Connect
            | Self::Connack
            | Self::Publish
            | Self::Puback
            | Self::Pubrec
            | Self::Pubcomp
            | Self::Suback
            | Self::Unsuback
            | Self::Pingreq
            | Self::Pingresp
            | Self::Disconnect
            | Self::Auth => 0,
        }
    }

    /// Whether packets of this type are sent in this version.
    #[must_use]
    pub const fn exists_in(self, version: ProtocolVersion) -> bool {
        version.is_v5() || !matches!(self, Self::Auth)
    }
}

/// Any Control Packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT.
    Connect(Connect<'a>),
    /// CONNACK.
    Connack(Connack<'a>),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(Ack<'a>),
    /// SUBSCRIBE.
    Subscribe(Subscribe<'a>),
    /// SUBACK.
    Suback(Suback<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe<'a>),
    /// UNSUBACK.
    Unsuback(Unsuback<'a>),
    /// PINGREQ.
    Pingreq,
    /// PINGRESP.
    Pingresp,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH.
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Which packet this is.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::Connack(_) => PacketType::Connack,
            Self::Publish(_) => PacketType::Publish,
            Self::Ack(ack) => ack.kind.packet_type(),
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::Suback(_) => PacketType::Suback,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::Unsuback(_) => PacketType::Unsuback,
            Self::Pingreq => PacketType::Pingreq,
            Self::Pingresp => PacketType::Pingresp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet to `out` and returns its size.
    ///
    /// # Errors
    ///
    /// As [`Encode::encode`].
    pub fn encode(
        &self,
        version: ProtocolVersion,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        match self {
            Self::Connect(packet) => packet.encode(version, out),
            Self::Connack(packet) => packet.encode(version, out),
            Self::Publish(packet) => packet.encode(version, out),
            Self::Ack(packet) => packet.encode(version, out),
            Self::Subscribe(packet) => packet.encode(version, out),
            Self::Suback(packet) => packet.encode(version, out),
            Self::Unsubscribe(packet) => packet.encode(version, out),
            Self::Unsuback(packet) => packet.encode(version, out),
            Self::Pingreq => Pingreq.encode(version, out),
            Self::Pingresp => Pingresp.encode(version, out),
            Self::Disconnect(packet) => packet.encode(version, out),
            Self::Auth(packet) => packet.encode(version, out),
        }
    }

    /// Reads variable header and payload, which `reader` holds and nothing else.
    pub(crate) fn decode_body(
        header: &FixedHeader,
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        if !header.packet_type.exists_in(version) {
            return Err(DecodeError::ReservedPacketType(header.packet_type.number()));
        }
        let ack = |kind, reader| Ack::decode(kind, reader, version).map(Self::Ack);
        match header.packet_type {
            PacketType::Publish => {
                Publish::decode(header.flags, reader, version, limits).map(Self::Publish)
            }
            PacketType::Puback => ack(AckKind::Puback, reader),
            PacketType::Pubrec => ack(AckKind::Pubrec, reader),
            PacketType::Pubrel => ack(AckKind::Pubrel, reader),
            PacketType::Pubcomp => ack(AckKind::Pubcomp, reader),
            PacketType::Connect => Connect::decode(reader, limits).map(Self::Connect),
            PacketType::Connack => Connack::decode(reader, version).map(Self::Connack),
            PacketType::Subscribe => Subscribe::decode(reader, version).map(Self::Subscribe),
            PacketType::Suback => Suback::decode(reader, version).map(Self::Suback),
            PacketType::Unsubscribe => Unsubscribe::decode(reader, version).map(Self::Unsubscribe),
            PacketType::Unsuback => Unsuback::decode(reader, version).map(Self::Unsuback),
            PacketType::Pingreq => Ok(Self::Pingreq),
            PacketType::Pingresp => Ok(Self::Pingresp),
            PacketType::Disconnect => Disconnect::decode(reader, version).map(Self::Disconnect),
            PacketType::Auth => Auth::decode(reader).map(Self::Auth),
        }
    }
}
