//! CONNECT (3.1): who the client is, how it wants to work, and its Will.

use super::PacketType;
use super::fields::QoS;
use crate::codec::error::DecodeError;
use crate::codec::property::{
    PropertyId, PropertyOwner, Section, UserProperties, WriteProperties, put_binary, put_flag,
    put_str, put_u16, put_u32, put_user_properties, write_section,
};
use crate::codec::string::{Reader, Sink};
use crate::codec::{DecodeLimits, Encode, ProtocolVersion};
use crate::topic::name::check_topic_name;

const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USERNAME: u8 = 0b1000_0000;

/// The bit of the Protocol Level by which a bridge that speaks 3.1 or 3.1.1 tells of itself, as
/// Mosquitto does. No standard has it; a server that does not know it refuses the level, and the
/// bridge comes again without.
const BRIDGE: u8 = 0b1000_0000;

/// "If the Receive Maximum value is absent then its value defaults to 65,535." (3.1.2.11.3)
pub const RECEIVE_MAXIMUM_DEFAULT: u16 = 65_535;

/// The first packet of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version everything after this packet is in.
    pub version: ProtocolVersion,
    /// Whether the client is a bridge of before 5.0, whose subscriptions have No Local and Retain
    /// As Published though its packets cannot say so.
    pub is_bridge: bool,
    /// Begin without the state of an earlier session; "Clean Session" before 5.0, where the session
    /// also ends with the connection.
    pub clean_start: bool,
    /// Longest silence of the client; 0 for any.
    pub keep_alive_secs: u16,
    /// The Client Identifier; empty to be given one. [MQTT-3.1.3-6]
    pub client_id: &'a str,
    /// What to publish if the connection is lost.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password, or any other credential.
    pub password: Option<&'a [u8]>,
    /// 5.0 only.
    pub properties: ConnectProperties<'a>,
}

/// The properties of CONNECT. (3.1.2.11)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectProperties<'a> {
    /// Seconds the session lives on without a connection; absent for 0, `u32::MAX` for ever.
    pub session_expiry_interval: Option<u32>,
    /// Most QoS 1 and 2 messages the client takes at once; see
    /// [`receive_maximum`](Self::receive_maximum).
    pub receive_maximum: Option<u16>,
    /// Largest packet the client accepts; absent for any.
    pub maximum_packet_size: Option<u32>,
    /// Most topic aliases the client keeps; absent for 0.
    pub topic_alias_maximum: Option<u16>,
    /// Whether the client asks for Response Information; absent for no.
    pub request_response_information: Option<bool>,
    /// Whether the client wants reasons in words; absent for yes.
    pub request_problem_information: Option<bool>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
    /// Asks for enhanced authentication by this method.
    pub authentication_method: Option<&'a str>,
    /// What the method begins with.
    pub authentication_data: Option<&'a [u8]>,
}

impl ConnectProperties<'_> {
    /// Most QoS 1 and 2 messages the client takes at once.
    #[must_use]
    pub fn receive_maximum(&self) -> u16 {
        self.receive_maximum.unwrap_or(RECEIVE_MAXIMUM_DEFAULT)
    }
}

/// The Will Message: what the Server publishes for a client it has lost. (3.1.2.5)
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will<'a> {
    /// The QoS it is published at.
    pub qos: QoS,
    /// Whether it is retained.
    pub retain: bool,
    /// Where it is published; a valid Topic Name.
    pub topic: &'a str,
    /// What is published.
    pub payload: &'a [u8],
    /// 5.0 only.
    pub properties: WillProperties<'a>,
}

/// The Will Properties. (3.1.3.2)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WillProperties<'a> {
    /// Seconds to wait before it is published; absent for 0.
    pub will_delay_interval: Option<u32>,
    /// Whether the payload is UTF-8.
    pub payload_format_indicator: Option<bool>,
    /// Seconds the message lives once published.
    pub message_expiry_interval: Option<u32>,
    /// What the payload is.
    pub content_type: Option<&'a str>,
    /// Where to answer.
    pub response_topic: Option<&'a str>,
    /// What to answer with.
    pub correlation_data: Option<&'a [u8]>,
    /// Name and value pairs.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Connect<'a> {
    pub(crate) fn decode(
        reader: &mut Reader<'a>,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        let (version, is_bridge) = decode_version(reader)?;
        let flags = reader.u8("connect flags")?;
        let will_qos = check_flags(flags, version)?;
        let keep_alive_secs = reader.u16("keep alive")?;
        let mut properties = ConnectProperties::default();
        if version.is_v5() {
            properties = ConnectProperties::decode(reader)?;
        }
        // "If present, these fields MUST appear in the order Client Identifier, Will Properties,
        // Will Topic, Will Payload, User Name, Password." [MQTT-3.1.3-1]
        let client_id = reader.string("client identifier")?;
        let will = match will_qos {
            Some(qos) => {
                Some(Will::decode(reader, qos, flags & WILL_RETAIN != 0, version, limits)?)
            }
            None => None,
        };
        let username = if flags & USERNAME != 0 { Some(reader.string("user name")?) } else { None };
        let password = if flags & PASSWORD != 0 { Some(reader.binary("password")?) } else { None };
        Ok(Self {
            version,
            is_bridge,
            clean_start: flags & CLEAN_START != 0,
            keep_alive_secs,
            client_id,
            will,
            username,
            password,
            properties,
        })
    }
}

/// Protocol Name and Protocol Level, and whether a bridge says them. [MQTT-3.1.2-1] [MQTT-3.1.2-2]
pub(crate) fn decode_version(
    reader: &mut Reader<'_>,
) -> Result<(ProtocolVersion, bool), DecodeError> {
    let name = reader.binary("protocol name")?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(DecodeError::ProtocolName);
    }
    let level = reader.u8("protocol level")?;
    let is_bridge = level & BRIDGE != 0;
    let version = ProtocolVersion::from_level(level & !BRIDGE);
    // A bridge of 5.0 says what it wants with each subscription.
    let version = version.filter(|version| !(is_bridge && version.is_v5()));
    let version = version.ok_or(DecodeError::ProtocolLevel(level))?;
    if protocol_name(version).as_bytes() != name {
        return Err(DecodeError::ProtocolLevel(level));
    }
    Ok((version, is_bridge))
}

const fn protocol_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::V3 => "MQIsdp",
        ProtocolVersion::V4 | ProtocolVersion::V5 => "MQTT",
    }
}

/// Refuses what the Connect Flags must not say; yields the Will QoS if there is a Will.
fn check_flags(flags: u8, version: ProtocolVersion) -> Result<Option<QoS>, DecodeError> {
    if flags & 1 != 0 {
        return Err(DecodeError::ConnectReservedFlag);
    }
    if flags & PASSWORD != 0 && flags & USERNAME == 0 && !version.is_v5() {
        return Err(DecodeError::PasswordWithoutUsername);
    }
    let qos = QoS::from_bits(flags >> 3 & 0b11).ok_or(DecodeError::WillQos)?;
    if flags & WILL != 0 {
        return Ok(Some(qos));
    }
    if qos != QoS::AtMostOnce {
        return Err(DecodeError::WillQosWithoutWill);
    }
    if flags & WILL_RETAIN != 0 {
        return Err(DecodeError::WillRetainWithoutWill);
    }
    Ok(None)
}

impl<'a> ConnectProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let section = Section::decode(reader, PropertyOwner::of(PacketType::Connect))?;
        // "It is a Protocol Error to include Authentication Data if there is no Authentication
        // Method." (3.1.2.11.10)
        if section.authentication_data.is_some() && section.authentication_method.is_none() {
            return Err(DecodeError::AuthDataWithoutMethod);
        }
        Ok(Self {
            session_expiry_interval: section.session_expiry_interval,
            receive_maximum: section.receive_maximum,
            maximum_packet_size: section.maximum_packet_size,
            topic_alias_maximum: section.topic_alias_maximum,
            request_response_information: section.request_response_information,
            request_problem_information: section.request_problem_information,
            user_properties: section.user_properties,
            authentication_method: section.authentication_method,
            authentication_data: section.authentication_data,
        })
    }
}

impl WriteProperties for ConnectProperties<'_> {
    fn write_properties<S: Sink>(&self, out: &mut S) {
        put_u32(out, PropertyId::SessionExpiryInterval, self.session_expiry_interval);
        put_u16(out, PropertyId::ReceiveMaximum, self.receive_maximum);
        put_u32(out, PropertyId::MaximumPacketSize, self.maximum_packet_size);
        put_u16(out, PropertyId::TopicAliasMaximum, self.topic_alias_maximum);
        put_flag(out, PropertyId::RequestResponseInformation, self.request_response_information);
        put_flag(out, PropertyId::RequestProblemInformation, self.request_problem_information);
        put_str(out, PropertyId::AuthenticationMethod, self.authentication_method);
        put_binary(out, PropertyId::AuthenticationData, self.authentication_data);
        put_user_properties(out, &self.user_properties);
    }
}

impl<'a> Will<'a> {
    fn decode(
        reader: &mut Reader<'a>,
        qos: QoS,
        retain: bool,
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        let mut properties = WillProperties::default();
        if version.is_v5() {
            let section = Section::decode(reader, PropertyOwner::WILL)?;
            properties = WillProperties {
                will_delay_interval: section.will_delay_interval,
                payload_format_indicator: section.payload_format_indicator,
                message_expiry_interval: section.message_expiry_interval,
                content_type: section.content_type,
                response_topic: section.response_topic,
                correlation_data: section.correlation_data,
                user_properties: section.user_properties,
            };
        }
        let topic = reader.string("will topic")?;
        check_topic_name(topic, limits.topic_levels_max)?;
        let payload = reader.binary("will payload")?;
        Ok(Self { qos, retain, topic, payload, properties })
    }
}

impl WriteProperties for WillProperties<'_> {
    fn write_properties<S: Sink>(&self, out: &mut S) {
        put_u32(out, PropertyId::WillDelayInterval, self.will_delay_interval);
        put_flag(out, PropertyId::PayloadFormatIndicator, self.payload_format_indicator);
        put_u32(out, PropertyId::MessageExpiryInterval, self.message_expiry_interval);
        put_str(out, PropertyId::ContentType, self.content_type);
        put_str(out, PropertyId::ResponseTopic, self.response_topic);
        put_binary(out, PropertyId::CorrelationData, self.correlation_data);
        put_user_properties(out, &self.user_properties);
    }
}

impl Encode for Connect<'_> {
    fn packet_type(&self) -> PacketType {
        PacketType::Connect
    }

    /// Written in the version the packet names, whatever the version asked for.
    fn write_body<S: Sink>(&self, _version: ProtocolVersion, out: &mut S) {
        let is_v5 = self.version.is_v5();
        out.put_str(protocol_name(self.version));
        out.put_u8(self.version.level() | if self.is_bridge && !is_v5 { BRIDGE } else { 0 });
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | will.qos.bits() << 3;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.username.is_some() {
            flags |= USERNAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        out.put_u8(flags);
        out.put_u16(self.keep_alive_secs);
        if is_v5 {
            write_section(out, &self.properties);
        }
        out.put_str(self.client_id);
        if let Some(will) = &self.will {
            if is_v5 {
                write_section(out, &will.properties);
            }
            out.put_str(will.topic);
            out.put_binary(will.payload);
        }
        if let Some(username) = self.username {
            out.put_str(username);
        }
        if let Some(password) = self.password {
            out.put_binary(password);
        }
    }
}
