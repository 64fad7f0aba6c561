//! DISCONNECT (3.14): the last packet either side sends; before 5.0 only the Client's.

use super::PacketType;
use super::ack::decode_reason;
use crate::codec::error::DecodeError;
use crate::codec::property::{
    PropertyId, PropertyOwner, Section, UserProperties, WriteProperties, put_str, put_u32,
    put_user_properties, write_section,
};
use crate::codec::reason_code::ReasonCode;
use crate::codec::string::{Reader, Sink};
use crate::codec::{Encode, ProtocolVersion};

/// "The reason why the Network Connection is being closed."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why; Success means a normal disconnection, after which the Will is discarded.
    pub reason: ReasonCode,
    /// The Client's last word on how long its session lives; not for a Server. [MQTT-3.14.2-2]
    pub session_expiry_interval: Option<u32>,
    /// Where a client should go instead.
    pub server_reference: Option<&'a str>,
    /// The reason in words.
    pub reason_string: Option<&'a str>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// A DISCONNECT with this code and nothing else.
    #[must_use]
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry_interval: None,
            server_reference: None,
            reason_string: None,
            user_properties: UserProperties::NONE,
        }
    }

    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut disconnect = Self::new(ReasonCode::Success);
        if !version.is_v5() || reader.is_empty() {
            return Ok(disconnect);
        }
        disconnect.reason = decode_reason(reader, PacketType::Disconnect)?;
        if reader.is_empty() {
            return Ok(disconnect);
        }
        let section = Section::decode(reader, PropertyOwner::of(PacketType::Disconnect))?;
        disconnect.session_expiry_interval = section.session_expiry_interval;
        disconnect.server_reference = section.server_reference;
        disconnect.reason_string = section.reason_string;
        disconnect.user_properties = section.user_properties;
        Ok(disconnect)
    }
}

impl WriteProperties for Disconnect<'_> {
    fn write_properties<S: Sink>(&self, out: &mut S) {
        put_u32(out, PropertyId::SessionExpiryInterval, self.session_expiry_interval);
        put_str(out, PropertyId::ServerReference, self.server_reference);
        put_str(out, PropertyId::ReasonString, self.reason_string);
        put_user_properties(out, &self.user_properties);
    }
}

impl Encode for Disconnect<'_> {
    fn packet_type(&self) -> PacketType {
        PacketType::Disconnect
    }

    fn write_body<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        if !version.is_v5() {
            return;
        }
        let has_properties = !self.properties_len().is_empty();
        if has_properties || self.reason != ReasonCode::Success {
            out.put_u8(self.reason.byte());
        }
        if has_properties {
            write_section(out, self);
        }
    }

    fn trimmed(&self) -> Option<Self> {
        Some(Self { reason_string: None, user_properties: UserProperties::NONE, ..self.clone() })
    }
}
