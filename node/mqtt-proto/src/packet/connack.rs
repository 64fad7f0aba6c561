//! CONNACK (3.2): the Server's decision about a CONNECT, and what it grants.

use super::PacketType;
use super::ack::decode_reason;
use super::fields::QoS;
use crate::codec::error::DecodeError;
use crate::codec::property::{
    PropertyId, PropertyOwner, Section, UserProperties, WriteProperties, put_binary, put_flag,
    put_str, put_u16, put_u32, put_user_properties, write_section,
};
use crate::codec::reason_code::ReasonCode;
use crate::codec::string::{Reader, Sink};
use crate::codec::{Encode, ProtocolVersion};

/// The first packet of a Server. [MQTT-3.2.0-1]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connack<'a> {
    /// Whether the Server resumes a session it had. Never with an error. [MQTT-3.2.2-6]
    pub session_present: bool,
    /// Success, or why not. Before 5.0 sent as the nearest Connect Return code.
    pub reason: ReasonCode,
    /// 5.0 only.
    pub properties: ConnackProperties<'a>,
}

/// The properties of CONNACK. (3.2.2.3)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnackProperties<'a> {
    /// The session's expiry if it is not what the client asked for.
    pub session_expiry_interval: Option<u32>,
    /// Most QoS 1 and 2 messages the Server takes at once; absent for 65,535.
    pub receive_maximum: Option<u16>,
    /// Highest QoS the Server takes; absent, or [`QoS::ExactlyOnce`], for any.
    pub maximum_qos: Option<QoS>,
    /// Whether retained messages are supported; absent for yes.
    pub retain_available: Option<bool>,
    /// Largest packet the Server accepts; absent for any.
    pub maximum_packet_size: Option<u32>,
    /// The Client Identifier given to a client that came without. [MQTT-3.2.2-16]
    pub assigned_client_identifier: Option<&'a str>,
    /// Most topic aliases the Server keeps; absent for 0.
    pub topic_alias_maximum: Option<u16>,
    /// The reason in words.
    pub reason_string: Option<&'a str>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
    /// Whether wildcard subscriptions are supported; absent for yes.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether Subscription Identifiers are supported; absent for yes.
    pub subscription_identifier_available: Option<bool>,
    /// Whether shared subscriptions are supported; absent for yes.
    pub shared_subscription_available: Option<bool>,
    /// The Keep Alive to use instead of the client's own. [MQTT-3.2.2-21]
    pub server_keep_alive: Option<u16>,
    /// The basis of a Response Topic, for a client that asked.
    pub response_information: Option<&'a str>,
    /// Where the client should go instead.
    pub server_reference: Option<&'a str>,
    /// The method of enhanced authentication.
    pub authentication_method: Option<&'a str>,
    /// What the method ends with.
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> Connack<'a> {
    /// An acceptance.
    #[must_use]
    pub const fn accepted(session_present: bool, properties: ConnackProperties<'a>) -> Self {
        Self { session_present, reason: ReasonCode::Success, properties }
    }

    /// A refusal without words.
    #[must_use]
    pub fn refused(reason: ReasonCode) -> Self {
        Self { session_present: false, reason, properties: ConnackProperties::default() }
    }

    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let flags = reader.u8("connect acknowledge flags")?;
        if flags & !1 != 0 {
            return Err(DecodeError::ConnackFlags);
        }
        // 3.1 reserves the byte and says nothing of it.
        let session_present = flags == 1 && version != ProtocolVersion::V3;
        let connack = if version.is_v5() {
            let reason = decode_reason(reader, PacketType::Connack)?;
            let properties = ConnackProperties::decode(reader)?;
            Self { session_present, reason, properties }
        } else {
            let code = reader.u8("connect return code")?;
            let reason = ReasonCode::from_connect_return_code(code)
                .ok_or(DecodeError::ReasonCodeUnknown(code))?;
            Self { session_present, reason, properties: ConnackProperties::default() }
        };
        if session_present && connack.reason.is_error() {
            return Err(DecodeError::ConnackFlags);
        }
        Ok(connack)
    }
}

impl<'a> ConnackProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let section = Section::decode(reader, PropertyOwner::of(PacketType::Connack))?;
        let maximum_qos = |at_least_once: bool| {
            if at_least_once { QoS::AtLeastOnce } else { QoS::AtMostOnce }
        };
        Ok(Self {
            session_expiry_interval: section.session_expiry_interval,
            receive_maximum: section.receive_maximum,
            maximum_qos: section.maximum_qos.map(maximum_qos),
            retain_available: section.retain_available,
            maximum_packet_size: section.maximum_packet_size,
            assigned_client_identifier: section.assigned_client_identifier,
            topic_alias_maximum: section.topic_alias_maximum,
            reason_string: section.reason_string,
            user_properties: section.user_properties,
            wildcard_subscription_available: section.wildcard_subscription_available,
            subscription_identifier_available: section.subscription_identifier_available,
            shared_subscription_available: section.shared_subscription_available,
            server_keep_alive: section.server_keep_alive,
            response_information: section.response_information,
            server_reference: section.server_reference,
            authentication_method: section.authentication_method,
            authentication_data: section.authentication_data,
        })
    }
}

impl WriteProperties for ConnackProperties<'_> {
    fn write_properties<S: Sink>(&self, out: &mut S) {
        let maximum_qos = match self.maximum_qos {
            // There is no such value: full support is said by leaving it out. (3.2.2.3.4)
            None | Some(QoS::ExactlyOnce) => None,
            Some(QoS::AtLeastOnce) => Some(true),
            Some(QoS::AtMostOnce) => Some(false),
        };
        let subscription_identifiers = self.subscription_identifier_available;
        put_u32(out, PropertyId::SessionExpiryInterval, self.session_expiry_interval);
        put_u16(out, PropertyId::ReceiveMaximum, self.receive_maximum);
        put_flag(out, PropertyId::MaximumQos, maximum_qos);
        put_flag(out, PropertyId::RetainAvailable, self.retain_available);
        put_u32(out, PropertyId::MaximumPacketSize, self.maximum_packet_size);
        put_str(out, PropertyId::AssignedClientIdentifier, self.assigned_client_identifier);
        put_u16(out, PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
        put_str(out, PropertyId::ReasonString, self.reason_string);
        put_flag(
            out,
            PropertyId::WildcardSubscriptionAvailable,
            self.wildcard_subscription_available,
        );
        put_flag(out, PropertyId::SubscriptionIdentifierAvailable, subscription_identifiers);
        put_flag(out, PropertyId::SharedSubscriptionAvailable, self.shared_subscription_available);
        put_u16(out, PropertyId::ServerKeepAlive, self.server_keep_alive);
        put_str(out, PropertyId::ResponseInformation, self.response_information);
        put_str(out, PropertyId::ServerReference, self.server_reference);
        put_str(out, PropertyId::AuthenticationMethod, self.authentication_method);
        put_binary(out, PropertyId::AuthenticationData, self.authentication_data);
        put_user_properties(out, &self.user_properties);
    }
}

impl Encode for Connack<'_> {
    fn packet_type(&self) -> PacketType {
        PacketType::Connack
    }

    fn write_body<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        // 3.1 has no Session Present; the byte is reserved there.
        let session_present =
            self.session_present && !self.reason.is_error() && version != ProtocolVersion::V3;
        out.put_u8(u8::from(session_present));
        if version.is_v5() {
            out.put_u8(self.reason.byte());
            write_section(out, &self.properties);
        } else {
            out.put_u8(self.reason.connect_return_code());
        }
    }

    fn trimmed(&self) -> Option<Self> {
        let mut trimmed = self.clone();
        trimmed.properties.reason_string = None;
        trimmed.properties.user_properties = UserProperties::NONE;
        // "It is OPTIONAL for the Server to send it" even to a client that asked (3.1.2.11.6).
        trimmed.properties.response_information = None;
        Some(trimmed)
    }
}
