//! PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7): one form, four meanings.

use bytes::BytesMut;

use super::PacketType;
use super::fields::PacketId;
use crate::codec::error::{DecodeError, EncodeError};
use crate::codec::property::{
    PropertyId, PropertyOwner, Section, UserProperties, WriteProperties, put_str,
    put_user_properties, write_section,
};
use crate::codec::reason_code::ReasonCode;
use crate::codec::string::{Measure, Reader, Sink};
use crate::codec::{Encode, ProtocolVersion, encode_within};

/// Which acknowledgement of a PUBLISH.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AckKind {
    /// QoS 1: done.
    Puback,
    /// QoS 2, first answer: the receiver has taken it over.
    Pubrec,
    /// QoS 2, then: the sender has let go.
    Pubrel,
    /// QoS 2, last: the identifier is free.
    Pubcomp,
}

impl AckKind {
    /// The acknowledgement that is this packet, if it is one.
    #[must_use]
    pub const fn of(packet_type: PacketType) -> Option<Self> {
        match packet_type {
            PacketType::Puback => Some(Self::Puback),
            PacketType::Pubrec => Some(Self::Pubrec),
            PacketType::Pubrel => Some(Self::Pubrel),
            PacketType::Pubcomp => Some(Self::Pubcomp),
            PacketType::Connect
            | PacketType::Connack
            | PacketType::Publish
            | PacketType::Subscribe
            | PacketType::Suback
            | PacketType::Unsubscribe
            | PacketType::Unsuback
            | PacketType::Pingreq
            | PacketType::Pingresp
            | PacketType::Disconnect
            | PacketType::Auth => None,
        }
    }

    /// Its packet.
    #[must_use]
    #[inline]
    pub const fn packet_type(self) -> PacketType {
        match self {
            Self::Puback => PacketType::Puback,
            Self::Pubrec => PacketType::Pubrec,
            Self::Pubrel => PacketType::Pubrel,
            Self::Pubcomp => PacketType::Pubcomp,
        }
    }
}

/// Bytes of an acknowledgement that is its identifier alone.
const SHORT_BYTES: usize = 4;

/// What every response may say in words. Left out towards a client that set Request Problem
/// Information to 0, and where the packet would be too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseProperties<'a> {
    /// "A human readable string designed for diagnostics."
    pub reason_string: Option<&'a str>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
}

impl<'a> ResponseProperties<'a> {
    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        packet_type: PacketType,
    ) -> Result<Self, DecodeError> {
        let section = Section::decode(reader, PropertyOwner::of(packet_type))?;
        Ok(Self { reason_string: section.reason_string, user_properties: section.user_properties })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }
}

impl WriteProperties for ResponseProperties<'_> {
    fn write_properties<S: Sink>(&self, out: &mut S) {
        put_str(out, PropertyId::ReasonString, self.reason_string);
        put_user_properties(out, &self.user_properties);
    }
}

/// An acknowledgement of a PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which of the four.
    pub kind: AckKind,
    /// The identifier of the PUBLISH. [MQTT-2.2.1-5]
    pub packet_id: PacketId,
    /// How it went; always Success before 5.0, where the packet has no room for it.
    pub reason: ReasonCode,
    /// 5.0 only.
    pub properties: ResponseProperties<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement without words.
    #[must_use]
    #[inline]
    pub const fn new(kind: AckKind, packet_id: PacketId, reason: ReasonCode) -> Self {
        let properties =
            ResponseProperties { reason_string: None, user_properties: UserProperties::NONE };
        Self { kind, packet_id, reason, properties }
    }

    /// Whether it is its identifier alone.
    fn is_short(&self, version: ProtocolVersion) -> bool {
        !version.is_v5() || self.reason == ReasonCode::Success && self.properties.is_empty()
    }

    pub(crate) fn decode(
        kind: AckKind,
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let packet_id = reader.packet_id()?;
        let mut ack = Self::new(kind, packet_id, ReasonCode::Success);
        // "The Reason Code and Property Length can be omitted if the Reason Code is 0x00 (Success)
        // and there are no Properties." (3.4.2.1)
        if !version.is_v5() || reader.is_empty() {
            return Ok(ack);
        }
        ack.reason = decode_reason(reader, kind.packet_type())?;
        if !reader.is_empty() {
            ack.properties = ResponseProperties::decode(reader, kind.packet_type())?;
        }
        Ok(ack)
    }
}

/// A reason code that `packet_type` may carry.
pub(crate) fn decode_reason(
    reader: &mut Reader<'_>,
    packet_type: PacketType,
) -> Result<ReasonCode, DecodeError> {
    let byte = reader.u8("reason code")?;
    let reason = ReasonCode::from_byte(byte).ok_or(DecodeError::ReasonCodeUnknown(byte))?;
    if !reason.allowed_in(packet_type) {
        return Err(DecodeError::ReasonCodeNotAllowed(reason, packet_type));
    }
    Ok(reason)
}

impl Encode for Ack<'_> {
    #[inline]
    fn packet_type(&self) -> PacketType {
        self.kind.packet_type()
    }

    fn write_body<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        out.put_u16(self.packet_id.get());
        if self.is_short(version) {
            return;
        }
        let has_properties = !self.properties.is_empty();
        if has_properties || self.reason != ReasonCode::Success {
            out.put_u8(self.reason.byte());
        }
        if has_properties {
            write_section(out, &self.properties);
        }
    }

    /// Nearly all are their identifier alone, and fit into any limit.
    fn encode_within(
        &self,
        version: ProtocolVersion,
        limit: usize,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        if self.is_short(version) && limit >= SHORT_BYTES {
            let [high, low] = self.packet_id.get().to_be_bytes();
            let first = self.packet_type().number() << 4 | self.flags();
            out.extend_from_slice(&[first, 2, high, low]);
            return Ok(SHORT_BYTES);
        }
        encode_within(self, version, limit, out)
    }

    fn trimmed(&self) -> Option<Self> {
        Some(Self::new(self.kind, self.packet_id, self.reason))
    }

    fn measure(&self, version: ProtocolVersion) -> Measure {
        if self.is_short(version) {
            let mut measure = Measure::default();
            measure.skip(2);
            return measure;
        }
        Measure::of_body(self, version)
    }
}
