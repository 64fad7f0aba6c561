//! From bytes to packets and back.
//!
//! ```text
//!  byte 1            bytes 2-5            Remaining Length bytes
//! ┌────────┬───────┬──────────────────┬───────────────────────────────────┐
//! │ type   │ flags │ Remaining Length │ variable header · payload         │
//! └────────┴───────┴──────────────────┴───────────────────────────────────┘
//!  fixed_header        varint            string · property · packet::*
//! ```
//!
//! [`decode`] takes whatever has arrived and yields the first packet, borrowed, with the number of
//! bytes it took. [`packet_size`] says how many bytes that packet will have as soon as its fixed
//! header is there, and refuses one that is too large before its body arrives.

pub mod error;
pub mod fixed_header;
pub mod property;
pub mod reason_code;
pub mod string;
pub mod varint;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use verge_model::limits::MQTT_REMAINING_LENGTH_MAX;

use self::error::{DecodeError, EncodeError};
use self::fixed_header::FixedHeader;
use self::string::{Measure, Reader, Sink};
use crate::packet::ack::{Ack, AckKind};
use crate::packet::publish::Publish;
use crate::packet::{Packet, PacketType};
use crate::topic::TOPIC_LEVELS_MAX;

/// The largest packet there can be: five bytes of fixed header and the longest Remaining Length.
pub const PACKET_BYTES_MAX: usize = MQTT_REMAINING_LENGTH_MAX + 5;

/// "The revision level of the protocol used by the Client." (3.1.2.2)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum ProtocolVersion {
    /// 3.1, protocol name "MQIsdp".
    V3 = 3,
    /// 3.1.1.
    V4 = 4,
    /// 5.0: properties, and a reason code on every acknowledgement.
    V5 = 5,
}

impl ProtocolVersion {
    /// The version with this Protocol Level.
    #[must_use]
    pub const fn from_level(level: u8) -> Option<Self> {
        match level {
            3 => Some(Self::V3),
            4 => Some(Self::V4),
            5 => Some(Self::V5),
            _ => None,
        }
    }

    /// The Protocol Level of the wire.
    #[must_use]
    #[inline]
    pub const fn level(self) -> u8 {
        self as u8
    }

    /// Whether packets carry properties and acknowledgements carry reason codes.
    #[must_use]
    #[inline]
    pub const fn is_v5(self) -> bool {
        matches!(self, Self::V5)
    }

    /// The version as people write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V3 => "3.1",
            Self::V4 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

/// What a decoder accepts of what the standard allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest packet, fixed header included; larger is Packet too large.
    pub packet_bytes_max: usize,
    /// Most levels of a Topic Name; more is Topic Name invalid.
    pub topic_levels_max: usize,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { packet_bytes_max: PACKET_BYTES_MAX, topic_levels_max: TOPIC_LEVELS_MAX }
    }
}

/// The size of the packet that `input` begins with, fixed header included; none while its fixed
/// header is incomplete.
///
/// A reader that got nothing from [`decode`] uses it to know how many bytes to wait for.
///
/// # Errors
///
/// What the fixed header alone shows to be wrong.
pub fn packet_size(input: &[u8], limits: &DecodeLimits) -> Result<Option<usize>, DecodeError> {
    let Some(header) = FixedHeader::decode(input)? else { return Ok(None) };
    header.check_size(limits)?;
    Ok(Some(header.packet_size()))
}

/// The first packet of `input`, and the number of bytes it takes; none while it is incomplete.
///
/// CONNECT is decoded by the version it names; every other packet by `version`.
///
/// # Errors
///
/// The first rule found broken. After an error nothing more can be read from this peer.
pub fn decode<'a>(
    input: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let Some(header) = FixedHeader::decode(input)? else { return Ok(None) };
    decode_after(&header, input, version, limits)
}

/// As [`decode`], when the fixed header has been read.
pub(crate) fn decode_after<'a>(
    header: &FixedHeader,
    input: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Option<(Packet<'a>, usize)>, DecodeError> {
    let Some(body) = body_after(header, input, version, limits)? else { return Ok(None) };
    let mut reader = Reader::new(body);
    let packet = Packet::decode_body(header, &mut reader, version, limits)?;
    if !reader.is_empty() {
        return Err(DecodeError::TrailingBytes(reader.len()));
    }
    let version = if let Packet::Connect(connect) = &packet { connect.version } else { version };
    if version.is_v5() && !header.is_minimal {
        return Err(DecodeError::VarintNotMinimal);
    }
    Ok(Some((packet, header.packet_size())))
}

/// The first packet of `input`, a PUBLISH as its fixed header says: most packets are, and need not
/// take the room of the largest.
pub(crate) fn decode_publish<'a>(
    header: &FixedHeader,
    input: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Option<Publish<'a>>, DecodeError> {
    let Some(body) = body_after(header, input, version, limits)? else { return Ok(None) };
    let publish = Publish::decode(header.flags, &mut Reader::new(body), version, limits)?;
    if version.is_v5() && !header.is_minimal {
        return Err(DecodeError::VarintNotMinimal);
    }
    Ok(Some(publish))
}

/// As [`decode_publish`], for an acknowledgement.
pub(crate) fn decode_ack<'a>(
    kind: AckKind,
    header: &FixedHeader,
    input: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Option<Ack<'a>>, DecodeError> {
    let Some(body) = body_after(header, input, version, limits)? else { return Ok(None) };
    let mut reader = Reader::new(body);
    let ack = Ack::decode(kind, &mut reader, version)?;
    if !reader.is_empty() {
        return Err(DecodeError::TrailingBytes(reader.len()));
    }
    if version.is_v5() && !header.is_minimal {
        return Err(DecodeError::VarintNotMinimal);
    }
    Ok(Some(ack))
}

/// What follows the fixed header, if all of it is there.
fn body_after<'a>(
    header: &FixedHeader,
    input: &'a [u8],
    version: ProtocolVersion,
    limits: &DecodeLimits,
) -> Result<Option<&'a [u8]>, DecodeError> {
    header.check_flags(version)?;
    header.check_size(limits)?;
    Ok(input.get(header.header_size..header.packet_size()))
}

/// A packet that can be written.
///
/// An implementor says what its type, flags and body are; measuring, limits and the fixed header
/// are here.
pub trait Encode: Sized {
    /// Which packet this is.
    fn packet_type(&self) -> PacketType;

    /// The low four bits of the fixed header.
    fn flags(&self) -> u8 {
        self.packet_type().reserved_flags()
    }

    /// Writes variable header and payload. Called once to measure and once to write.
    fn write_body<S: Sink>(&self, version: ProtocolVersion, out: &mut S);

    /// Counts what [`write_body`](Self::write_body) will write.
    fn measure(&self, version: ProtocolVersion) -> Measure {
        Measure::of_body(self, version)
    }

    /// The packet without what a sender leaves out when it would not fit: Reason String and User
    /// Properties of responses. [MQTT-3.2.2-19] [MQTT-3.4.2-2]
    fn trimmed(&self) -> Option<Self> {
        None
    }

    /// The size of the whole packet, fixed header included.
    fn encoded_len(&self, version: ProtocolVersion) -> usize {
        let measure = self.measure(version);
        1 + varint::encoded_len(measure.len()) + measure.len()
    }

    /// Appends the packet to `out` and returns its size.
    ///
    /// # Errors
    ///
    /// The packet cannot be written in this version; `out` is as before.
    fn encode(&self, version: ProtocolVersion, out: &mut BytesMut) -> Result<usize, EncodeError> {
        encode(self, version, out)
    }

    /// As [`encode`](Self::encode), for a receiver that accepts packets of at most `limit` bytes.
    /// A response that is too large is sent [`trimmed`](Self::trimmed).
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode), or too large even so; `out` is as before.
    fn encode_within(
        &self,
        version: ProtocolVersion,
        limit: usize,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        encode_within(self, version, limit, out)
    }
}

/// [`Encode::encode`] for any packet: measured, then written.
pub(crate) fn encode<P: Encode>(
    packet: &P,
    version: ProtocolVersion,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let packet_type = packet.packet_type();
    let measure = packet.measure(version);
    if measure.has_overlong_field() {
        return Err(EncodeError::FieldTooLong);
    }
    if !packet_type.exists_in(version) {
        return Err(EncodeError::NotInVersion(packet_type));
    }
    let size = 1 + varint::encoded_len(measure.len()) + measure.len();
    if measure.len() > MQTT_REMAINING_LENGTH_MAX {
        return Err(EncodeError::PacketTooLarge { size, limit: PACKET_BYTES_MAX });
    }
    out.reserve(size);
    out.put_u8(packet_type.number() << 4 | packet.flags());
    varint::write(out, measure.len());
    packet.write_body(version, out);
    Ok(size)
}

/// [`Encode::encode_within`] for any packet.
pub(crate) fn encode_within<P: Encode>(
    packet: &P,
    version: ProtocolVersion,
    limit: usize,
    out: &mut BytesMut,
) -> Result<usize, EncodeError> {
    let size = packet.encoded_len(version);
    if size <= limit {
        return packet.encode(version, out);
    }
    let trimmed = packet.trimmed().filter(|trimmed| trimmed.encoded_len(version) <= limit);
    let trimmed = trimmed.ok_or(EncodeError::PacketTooLarge { size, limit })?;
    trimmed.encode(version, out)
}
