//! AUTH (3.15): enhanced authentication, 5.0 only.

use super::PacketType;
use super::ack::decode_reason;
use crate::codec::error::DecodeError;
use crate::codec::property::{
    PropertyId, PropertyOwner, Section, UserProperties, WriteProperties, put_binary, put_str,
    put_user_properties, write_section,
};
use crate::codec::reason_code::ReasonCode;
use crate::codec::string::{Reader, Sink};
use crate::codec::{Encode, ProtocolVersion};

/// One step of an authentication exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate. [MQTT-3.15.2-1]
    pub reason: ReasonCode,
    /// The method CONNECT named.
    pub authentication_method: Option<&'a str>,
    /// What the method exchanges.
    pub authentication_data: Option<&'a [u8]>,
    /// The reason in words.
    pub reason_string: Option<&'a str>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    /// A step with this code and nothing else.
    #[must_use]
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            authentication_method: None,
            authentication_data: None,
            reason_string: None,
            user_properties: UserProperties::NONE,
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut auth = Self::new(ReasonCode::Success);
        if reader.is_empty() {
            return Ok(auth);
        }
        auth.reason = decode_reason(reader, PacketType::Auth)?;
        if reader.is_empty() {
            return Ok(auth);
        }
        let section = Section::decode(reader, PropertyOwner::of(PacketType::Auth))?;
        if section.authentication_data.is_some() && section.authentication_method.is_none() {
            return Err(DecodeError::AuthDataWithoutMethod);
        }
        auth.authentication_method = section.authentication_method;
        auth.authentication_data = section.authentication_data;
        auth.reason_string = section.reason_string;
        auth.user_properties = section.user_properties;
        Ok(auth)
    }
}

impl WriteProperties for Auth<'_> {
    fn write_properties<S: Sink>(&self, out: &mut S) {
        put_str(out, PropertyId::AuthenticationMethod, self.authentication_method);
        put_binary(out, PropertyId::AuthenticationData, self.authentication_data);
        put_str(out, PropertyId::ReasonString, self.reason_string);
        put_user_properties(out, &self.user_properties);
    }
}

impl Encode for Auth<'_> {
    fn packet_type(&self) -> PacketType {
        PacketType::Auth
    }

    fn write_body<S: Sink>(&self, _version: ProtocolVersion, out: &mut S) {
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
