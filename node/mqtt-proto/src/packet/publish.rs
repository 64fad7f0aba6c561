//! PUBLISH (3.3): an Application Message on its way.
//!
//! [`Publish`] is what was received. [`OwnedPublishProperties`] is the part of it that a Server
//! forwards unaltered and keeps with the message; [`PublishParts`] puts such a message together
//! with what differs from receiver to receiver.

use std::ops::Deref;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use verge_model::limits::MQTT_REMAINING_LENGTH_MAX;

use super::PacketType;
use super::fields::{PacketId, QoS};
use crate::codec::error::{DecodeError, EncodeError};
use crate::codec::property::{
    PropertyId, PropertyOwner, Section, SubscriptionIds, UserProperties, WriteProperties,
    put_binary, put_flag, put_str, put_u16, put_u32, put_user_properties, put_varint,
    write_section,
};
use crate::codec::string::{Measure, Reader, Sink};
use crate::codec::{
    DecodeLimits, Encode, PACKET_BYTES_MAX, ProtocolVersion, encode, encode_within, varint,
};
use crate::topic::name::check_topic_name;

const RETAIN: u8 = 0b0001;
const DUP: u8 = 0b1000;

/// An Application Message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Perhaps not the first attempt; never at QoS 0. [MQTT-3.3.1-2]
    pub dup: bool,
    /// The level of this delivery.
    pub qos: QoS,
    /// To a Server: keep it for later subscribers. To a Client: it was kept.
    pub retain: bool,
    /// A valid Topic Name, or empty beside a topic alias.
    pub topic: &'a str,
    /// There exactly if QoS is above 0. [MQTT-2.2.1-2]
    pub packet_id: Option<PacketId>,
    /// 5.0 only.
    pub properties: PublishProperties<'a>,
    /// The message; may be empty.
    pub payload: &'a [u8],
}

/// The properties of PUBLISH. (3.3.2.3)
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PublishProperties<'a> {
    /// Whether the payload is UTF-8. [MQTT-3.3.2-4]
    pub payload_format_indicator: Option<bool>,
    /// Seconds the message still lives. [MQTT-3.3.2-6]
    pub message_expiry_interval: Option<u32>,
    /// Stands for the topic from now on; not 0. [MQTT-3.3.2-8]
    pub topic_alias: Option<u16>,
    /// Where to answer. [MQTT-3.3.2-15]
    pub response_topic: Option<&'a str>,
    /// What to answer with. [MQTT-3.3.2-16]
    pub correlation_data: Option<&'a [u8]>,
    /// Name and value pairs. [MQTT-3.3.2-17]
    pub user_properties: UserProperties<'a>,
    /// From a Server only: the subscriptions that matched. [MQTT-3.3.4-6]
    pub subscription_ids: SubscriptionIds,
    /// What the payload is. [MQTT-3.3.2-20]
    pub content_type: Option<&'a str>,
}

impl<'a> Publish<'a> {
    pub(crate) fn decode(
        flags: u8,
        reader: &mut Reader<'a>,
        version: ProtocolVersion,
        limits: &DecodeLimits,
    ) -> Result<Self, DecodeError> {
        let qos = QoS::from_bits(flags >> 1 & 0b11).ok_or(DecodeError::PublishQos)?;
        let dup = flags & DUP != 0;
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::DupAtQos0);
        }
        let (topic, is_plain) = reader.topic("topic name")?;
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(reader.packet_id()?) };
        let mut properties = PublishProperties::default();
        if version.is_v5() {
            properties = PublishProperties::decode(reader)?;
        }
        // Short, and without a wildcard, as most are, it can only be empty.
        let is_checked = is_plain && !topic.is_empty() && topic.len() < limits.topic_levels_max;
        if !is_checked && (!topic.is_empty() || properties.topic_alias.is_none()) {
            check_topic_name(topic, limits.topic_levels_max)?;
        }
        let payload = reader.take_rest();
        let retain = flags & RETAIN != 0;
        Ok(Self { dup, qos, retain, topic, packet_id, properties, payload })
    }
}

impl Publish<'_> {
    /// Whether there are no properties to write.
    fn is_plain(&self, version: ProtocolVersion) -> bool {
        !version.is_v5() || self.properties.is_empty()
    }

    /// Writes a packet without properties: most are, so it is put together without being measured
    /// and written field by field.
    fn encode_plain(
        &self,
        version: ProtocolVersion,
        limit: usize,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        let topic_bytes = u16::try_from(self.topic.len()).map_err(|_| EncodeError::FieldTooLong)?;
        // What stands between topic and payload: packet identifier, length of properties.
        let mut middle = [0; 3];
        let mut middle_bytes = 0;
        if let Some(packet_id) = self.packet_id {
            middle[..2].copy_from_slice(&packet_id.get().to_be_bytes());
            middle_bytes = 2;
        }
        middle_bytes += usize::from(version.is_v5());
        let remaining = 2 + self.topic.len() + middle_bytes + self.payload.len();
        let size = 1 + varint::encoded_len(remaining) + remaining;
        let limit = limit.min(PACKET_BYTES_MAX);
        if size > limit || remaining > MQTT_REMAINING_LENGTH_MAX {
            return Err(EncodeError::PacketTooLarge { size, limit });
        }
        // Type and flags, the Remaining Length, the length of the topic.
        let mut head = [0; 7];
        head[0] = PacketType::Publish.number() << 4 | self.flags();
        let (mut at, mut rest) = (1, remaining);
        while rest > 0x7f {
            head[at] = (rest & 0x7f) as u8 | 0x80;
            rest >>= 7;
            at += 1;
        }
        head[at] = rest as u8;
        head[at + 1..at + 3].copy_from_slice(&topic_bytes.to_be_bytes());
        out.reserve(size);
        out.extend_from_slice(&head[..at + 3]);
        out.extend_from_slice(self.topic.as_bytes());
        out.extend_from_slice(&middle[..middle_bytes]);
        out.extend_from_slice(self.payload);
        Ok(size)
    }
}

impl PublishProperties<'_> {
    /// Whether there is none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.payload_format_indicator.is_none()
            && self.message_expiry_interval.is_none()
            && self.topic_alias.is_none()
            && self.response_topic.is_none()
            && self.correlation_data.is_none()
            && self.user_properties.is_empty()
            && self.subscription_ids.is_empty()
            && self.content_type.is_none()
    }
}

impl<'a> PublishProperties<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        // Most messages have none.
        if reader.skip_if_first_is(0) {
            return Ok(Self::default());
        }
        let section = Section::decode(reader, PropertyOwner::of(PacketType::Publish))?;
        Ok(Self {
            payload_format_indicator: section.payload_format_indicator,
            message_expiry_interval: section.message_expiry_interval,
            topic_alias: section.topic_alias,
            response_topic: section.response_topic,
            correlation_data: section.correlation_data,
            user_properties: section.user_properties,
            subscription_ids: section.subscription_ids,
            content_type: section.content_type,
        })
    }
}

impl WriteProperties for PublishProperties<'_> {
    fn write_properties<S: Sink>(&self, out: &mut S) {
        put_flag(out, PropertyId::PayloadFormatIndicator, self.payload_format_indicator);
        put_u32(out, PropertyId::MessageExpiryInterval, self.message_expiry_interval);
        put_u16(out, PropertyId::TopicAlias, self.topic_alias);
        put_str(out, PropertyId::ResponseTopic, self.response_topic);
        put_binary(out, PropertyId::CorrelationData, self.correlation_data);
        for &id in &self.subscription_ids {
            put_varint(out, PropertyId::SubscriptionIdentifier, id);
        }
        put_str(out, PropertyId::ContentType, self.content_type);
        put_user_properties(out, &self.user_properties);
    }
}

impl Encode for Publish<'_> {
    fn packet_type(&self) -> PacketType {
        PacketType::Publish
    }

    fn flags(&self) -> u8 {
        let mut flags = self.qos.bits() << 1;
        if self.retain {
            flags |= RETAIN;
        }
        if self.dup && self.qos != QoS::AtMostOnce {
            flags |= DUP;
        }
        flags
    }

    fn write_body<S: Sink>(&self, version: ProtocolVersion, out: &mut S) {
        debug_assert_eq!(
            self.packet_id.is_some(),
            self.qos != QoS::AtMostOnce,
            "a packet identifier exactly above QoS 0 [MQTT-2.2.1-2]"
        );
        out.put_str(self.topic);
        if let Some(packet_id) = self.packet_id {
            out.put_u16(packet_id.get());
        }
        if version.is_v5() {
            if self.properties.is_empty() {
                out.put_u8(0);
            } else {
                write_section(out, &self.properties);
            }
        }
        out.put_slice(self.payload);
    }

    fn encode(&self, version: ProtocolVersion, out: &mut BytesMut) -> Result<usize, EncodeError> {
        if self.is_plain(version) {
            return self.encode_plain(version, PACKET_BYTES_MAX, out);
        }
        encode(self, version, out)
    }

    fn encode_within(
        &self,
        version: ProtocolVersion,
        limit: usize,
        out: &mut BytesMut,
    ) -> Result<usize, EncodeError> {
        if self.is_plain(version) {
            return self.encode_plain(version, limit, out);
        }
        encode_within(self, version, limit, out)
    }

    /// Most messages have no properties, and need not be measured by parts.
    fn measure(&self, version: ProtocolVersion) -> Measure {
        if version.is_v5() && !self.properties.is_empty() {
            return Measure::of_body(self, version);
        }
        let mut measure = Measure::default();
        measure.put_str(self.topic);
        measure.skip(if self.packet_id.is_some() { 2 } else { 0 });
        measure.skip(usize::from(version.is_v5()));
        measure.skip(self.payload.len());
        measure
    }
}

/// What a Server forwards unaltered to every subscriber, and stores with the message.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OwnedPublishProperties {
    /// Whether the payload is UTF-8.
    pub payload_format_indicator: Option<bool>,
    /// What the payload is.
    pub content_type: Option<Box<str>>,
    /// Where to answer.
    pub response_topic: Option<Box<str>>,
    /// What to answer with.
    pub correlation_data: Option<Bytes>,
    /// Name and value pairs, in order. [MQTT-3.3.2-18]
    pub user_properties: Vec<(Box<str>, Box<str>)>,
}

impl OwnedPublishProperties {
    /// Whether there is nothing to forward.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.payload_format_indicator.is_none()
            && self.content_type.is_none()
            && self.response_topic.is_none()
            && self.correlation_data.is_none()
            && self.user_properties.is_empty()
    }
}

impl From<&PublishProperties<'_>> for OwnedPublishProperties {
    fn from(borrowed: &PublishProperties<'_>) -> Self {
        if borrowed.is_empty() {
            return Self::default();
        }
        Self {
            payload_format_indicator: borrowed.payload_format_indicator,
            content_type: borrowed.content_type.map(Into::into),
            response_topic: borrowed.response_topic.map(Into::into),
            correlation_data: borrowed.correlation_data.map(Bytes::copy_from_slice),
            user_properties: own_pairs(&borrowed.user_properties),
        }
    }
}

impl From<&super::connect::WillProperties<'_>> for OwnedPublishProperties {
    fn from(borrowed: &super::connect::WillProperties<'_>) -> Self {
        Self {
            payload_format_indicator: borrowed.payload_format_indicator,
            content_type: borrowed.content_type.map(Into::into),
            response_topic: borrowed.response_topic.map(Into::into),
            correlation_data: borrowed.correlation_data.map(Bytes::copy_from_slice),
            user_properties: own_pairs(&borrowed.user_properties),
        }
    }
}

/// The properties of a message that is kept. Most have none, and one word for it; read as
/// [`OwnedPublishProperties`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeptProperties(Option<Box<OwnedPublishProperties>>);

static NO_PROPERTIES: OwnedPublishProperties = OwnedPublishProperties {
    payload_format_indicator: None,
    content_type: None,
    response_topic: None,
    correlation_data: None,
    user_properties: Vec::new(),
};

impl Deref for KeptProperties {
    type Target = OwnedPublishProperties;

    fn deref(&self) -> &OwnedPublishProperties {
        self.0.as_deref().unwrap_or(&NO_PROPERTIES)
    }
}

impl From<OwnedPublishProperties> for KeptProperties {
    fn from(properties: OwnedPublishProperties) -> Self {
        Self((!properties.is_empty()).then(|| Box::new(properties)))
    }
}

impl From<&PublishProperties<'_>> for KeptProperties {
    fn from(borrowed: &PublishProperties<'_>) -> Self {
        // What else a PUBLISH may carry is for one receiver, and not kept.
        if borrowed.is_empty() { Self(None) } else { OwnedPublishProperties::from(borrowed).into() }
    }
}

fn own_pairs(pairs: &UserProperties<'_>) -> Vec<(Box<str>, Box<str>)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// A stored message, and what one receiver gets it with.
#[derive(Debug, Clone, Copy)]
pub struct PublishParts<'a> {
    /// Perhaps not the first attempt.
    pub dup: bool,
    /// The level of this delivery.
    pub qos: QoS,
    /// Whether the receiver is to see it as retained.
    pub retain: bool,
    /// There exactly if QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// The Topic Name; empty where `topic_alias` is known to the receiver.
    pub topic: &'a str,
    /// The receiver's Subscription Identifiers that matched.
    pub subscription_ids: &'a [u32],
    /// Stands for the topic from now on.
    pub topic_alias: Option<u16>,
    /// Seconds the message still lives.
    pub message_expiry_interval: Option<u32>,
    /// What is forwarded unaltered.
    pub properties: &'a OwnedPublishProperties,
    /// The message.
    pub payload: &'a [u8],
}

impl<'a> PublishParts<'a> {
    /// The packet these parts make.
    #[must_use]
    #[inline]
    pub fn to_publish(&self) -> Publish<'a> {
        let properties = self.properties;
        Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: self.topic,
            packet_id: self.packet_id,
            properties: PublishProperties {
                payload_format_indicator: properties.payload_format_indicator,
                message_expiry_interval: self.message_expiry_interval,
                topic_alias: self.topic_alias,
                response_topic: properties.response_topic.as_deref(),
                correlation_data: properties.correlation_data.as_deref(),
                user_properties: UserProperties::from_owned(&properties.user_properties),
                subscription_ids: SubscriptionIds::from_slice(self.subscription_ids),
                content_type: properties.content_type.as_deref(),
            },
            payload: self.payload,
        }
    }

    /// The size of the packet, to compare with the receiver's Maximum Packet Size.
    /// [MQTT-3.1.2-24]
    #[must_use]
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        self.to_publish().encoded_len(version)
    }
}

/// Appends a PUBLISH to `out` and returns its size.
///
/// # Errors
///
/// As [`Encode::encode`].
pub fn encode_publish(
    out: &mut BytesMut,
    version: ProtocolVersion,
    parts: &PublishParts<'_>,
) -> Result<usize, EncodeError> {
    parts.to_publish().encode(version, out)
}
