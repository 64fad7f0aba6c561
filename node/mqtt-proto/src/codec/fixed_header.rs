//! The fixed header every packet begins with (2.1).

use super::error::DecodeError;
use super::varint;
use super::{DecodeLimits, ProtocolVersion};
use crate::packet::PacketType;

/// 3.1 also marks PUBREL, SUBSCRIBE and UNSUBSCRIBE when they are repeated.
const DUP_OF_3_1: u8 = 0b1000;

/// Type, flags and Remaining Length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedHeader {
    /// Which packet follows.
    pub packet_type: PacketType,
    /// The low four bits; free in PUBLISH only.
    pub flags: u8,
    /// Bytes after the fixed header.
    pub remaining_length: usize,
    /// Bytes of the fixed header itself.
    pub header_size: usize,
    /// Whether Remaining Length is in its shortest form, as 5.0 asks. [MQTT-1.5.5-1]
    pub is_minimal: bool,
}

impl FixedHeader {
    /// The header at the front of `input`; none if it is incomplete. A reserved type or flag is
    /// refused from the first byte.
    ///
    /// # Errors
    ///
    /// A reserved type, reserved flags, or a Remaining Length of more than four bytes.
    pub fn decode(input: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = input.split_first() else { return Ok(None) };
        let (number, flags) = (first >> 4, first & 0x0f);
        let packet_type =
            PacketType::from_number(number).ok_or(DecodeError::ReservedPacketType(number))?;
        let reserved = packet_type.reserved_flags();
        let is_known = flags == reserved || reserved != 0 && flags == reserved | DUP_OF_3_1;
        if packet_type != PacketType::Publish && !is_known {
            return Err(DecodeError::FixedHeaderFlags(packet_type));
        }
        let Some(length) = varint::decode(rest)? else { return Ok(None) };
        Ok(Some(Self {
            packet_type,
            flags,
            remaining_length: length.value as usize,
            header_size: 1 + length.size,
            is_minimal: length.is_minimal(),
        }))
    }

    /// Bytes of the whole packet.
    #[must_use]
    pub const fn packet_size(&self) -> usize {
        self.header_size + self.remaining_length
    }

    /// Refuses a packet that is too large, whether or not its body is there.
    pub(crate) const fn check_size(&self, limits: &DecodeLimits) -> Result<(), DecodeError> {
        let (size, limit) = (self.packet_size(), limits.packet_bytes_max);
        if size > limit {
            return Err(DecodeError::PacketTooLarge { size, limit });
        }
        Ok(())
    }

    /// Refuses the flags that only 3.1 has.
    pub(crate) fn check_flags(&self, version: ProtocolVersion) -> Result<(), DecodeError> {
        let is_free = self.packet_type == PacketType::Publish || version == ProtocolVersion::V3;
        if !is_free && self.flags != self.packet_type.reserved_flags() {
            return Err(DecodeError::FixedHeaderFlags(self.packet_type));
        }
        Ok(())
    }
}
